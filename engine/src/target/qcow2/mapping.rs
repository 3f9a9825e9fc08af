//! Which cluster of the file each cluster of the disk is in.

use super::layout::{TABLE_CLUSTERS, TABLE_SPAN};
use std::collections::BTreeMap;

/// A level 2 table that is complete: its number, and the clusters in it by their places.
pub(super) type CompleteTable = (u64, BTreeMap<u64, u64>);

/// The level 2 tables that are not complete, and all that is known about the others: where they are.
///
/// A table is complete when every byte of its span is known, and is then written and forgotten. So what is held is in
/// proportion to what a restore has under way, not to the disk.
#[derive(Debug)]
pub(super) struct Mapping {
    disk_bytes: u64,
    /// Bytes of the disk that are known.
    known: u64,
    /// Tables of which something is known, by number.
    open: BTreeMap<u64, Table>,
    /// Clusters of complete tables, by number; 0 where all is zero.
    level1: Vec<u64>,
    /// The first cluster behind those that are in use.
    next_cluster: u64,
}

#[derive(Debug, Default)]
struct Table {
    known: u64,
    clusters: BTreeMap<u64, u64>,
}

impl Mapping {
    /// A disk of which nothing is known, in a file of which the first cluster is in use.
    pub(super) fn new(disk_bytes: u64) -> Self {
        let tables = usize::try_from(disk_bytes.max(1).div_ceil(TABLE_SPAN)).expect("a table is in memory");
        Self { disk_bytes, known: 0, open: BTreeMap::new(), level1: vec![0; tables], next_cluster: 1 }
    }

    /// The file's cluster for one of the disk, a new one if it has none.
    pub(super) fn cluster(&mut self, cluster_of_disk: u64) -> u64 {
        let table = self.open.entry(cluster_of_disk / TABLE_CLUSTERS).or_default();
        let next = &mut self.next_cluster;
        *table.clusters.entry(cluster_of_disk % TABLE_CLUSTERS).or_insert_with(|| {
            *next += 1;
            *next - 1
        })
    }

    /// Notes that a range of the disk is known: it has clusters, or is zero where it has none. Returns tables that are
    /// complete with that, and are not empty.
    pub(super) fn note(&mut self, start: u64, end: u64) -> Vec<CompleteTable> {
        let mut complete = Vec::new();
        self.known += end - start;
        let mut start = start;
        while start < end {
            let number = start / TABLE_SPAN;
            let table_start = number * TABLE_SPAN;
            let table_end = self.disk_bytes.min(table_start + TABLE_SPAN);
            let part_end = end.min(table_end);
            if (start, part_end) == (table_start, table_end) && !self.open.contains_key(&number) {
                // All of it is zero.
                start = part_end;
                continue;
            }
            let table = self.open.entry(number).or_default();
            table.known += part_end - start;
            if table.known == table_end - table_start
                && let Some(table) = self.open.remove(&number)
                && !table.clusters.is_empty()
            {
                complete.push((number, table.clusters));
            }
            start = part_end;
        }
        complete
    }

    /// The cluster that a complete table is to be written to.
    pub(super) fn place(&mut self, number: u64) -> u64 {
        let cluster = self.next_cluster;
        self.next_cluster += 1;
        self.level1[usize::try_from(number).expect("a table is in memory")] = cluster;
        cluster
    }

    /// Bytes of the disk that are known.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// The level 1 table, and the clusters that are in use.
    pub(super) fn complete(&self) -> (&[u64], u64) {
        (&self.level1, self.next_cluster)
    }
}
