//! Going through a map from front to back.

use super::FANOUT;
use super::reader::MapReader;
use crate::error::EngineError;
use repo_format::Child;

/// Nodes of level 1 that are read in the first batch; in each further one twice as many.
const NODES_FIRST: u64 = 16;
/// The most in one batch: some MiB of them, and half of those that a reader keeps.
const NODES_MOST: u64 = 1024;

/// How far somebody is.
pub(crate) struct Scan<'m, 'f, 'r, 's> {
    map: &'m MapReader<'f, 'r, 's>,
    /// The nodes of level 1 below this one have been read.
    nodes_read: u64,
    /// So many more are read next.
    nodes_next: u64,
}

impl<'m, 'f, 'r, 's> Scan<'m, 'f, 'r, 's> {
    pub(crate) fn new(map: &'m MapReader<'f, 'r, 's>) -> Self {
        Self { map, nodes_read: 0, nodes_next: NODES_FIRST }
    }

    pub(crate) fn map(&self) -> &'m MapReader<'f, 'r, 's> {
        self.map
    }

    /// The cells from `cell` on that have pages, or may have one where a node is damaged: as many as are together no
    /// longer than `plain_bytes`, at most `count`; and where the search ended: no cell before that has a page that is not
    /// listed.
    ///
    /// `cell` grows from call to call.
    pub(crate) fn pages(
        &mut self,
        cell: u64,
        count: usize,
        plain_bytes: u64,
    ) -> Result<(Vec<u64>, u64), EngineError> {
        let cells_end = self.map.shape().nodes(0);
        let mut pages = Vec::new();
        let mut bytes_left = plain_bytes;
        let mut from = cell;
        // Where a node is damaged, there may be a page anywhere.
        while from < cells_end
            && let Some(first) = self.next_page(from)?
        {
            let node_end = cells_end.min((first / FANOUT + 1) * FANOUT);
            for cell in first..node_end {
                let len = match self.map.child(0, cell) {
                    Ok(Child::Hole) => continue,
                    Ok(Child::Stored { at, .. }) => u64::from(at.plain_len),
                    Err(error) if error.is_damage() => 0,
                    Err(error) => return Err(error),
                };
                if len > bytes_left || pages.len() == count {
                    return Ok((pages, cell));
                }
                bytes_left -= len;
                pages.push(cell);
            }
            from = node_end;
        }
        Ok((pages, cells_end))
    }

    fn next_page(&mut self, from: u64) -> Result<Option<u64>, EngineError> {
        let node = from / FANOUT;
        if node >= self.nodes_read {
            let end = self.map.shape().nodes(1).min(node + self.nodes_next);
            let cells: Vec<u64> = (node..end).map(|node| node * FANOUT).collect();
            self.map.prefetch(&cells)?;
            self.nodes_read = end;
            self.nodes_next = NODES_MOST.min(self.nodes_next * 2);
        }
        self.map.next_page(from)
    }
}
