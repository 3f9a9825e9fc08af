//! The parts of a qcow2 file as bytes (QEMU's `docs/interop/qcow2.txt`), version 3. Numbers are big-endian.
//!
//! ```text
//! header | data and level 2 tables, as they come | level 1 table | refcount table | refcount blocks
//! ```

/// Everything is made of clusters of this length, the one that QEMU chooses.
pub(super) const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
/// Bytes of an entry of a level 1, level 2 or refcount table.
pub(super) const ENTRY_LEN: u64 = 8;
/// Clusters of the disk that a level 2 table knows.
pub(super) const TABLE_CLUSTERS: u64 = CLUSTER / ENTRY_LEN;
/// Bytes of the disk that a level 2 table knows.
pub(super) const TABLE_SPAN: u64 = TABLE_CLUSTERS * CLUSTER;
/// Clusters of the file that a refcount block counts, with 16 bits each.
pub(super) const BLOCK_CLUSTERS: u64 = CLUSTER / 2;
/// QEMU opens no level 1 table of more than 32 MiB.
pub(super) const SIZE_MAX: u64 = (32 << 20) / ENTRY_LEN * TABLE_SPAN;
/// Set in an entry if what it names has one reference only.
const COPIED: u64 = 1 << 63;

/// Where the tables of a file are: offsets and lengths in clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) level1: u64,
    pub(super) refcount_table: u64,
    pub(super) refcount_table_len: u64,
    pub(super) refcount_blocks: u64,
    /// All clusters of the file.
    pub(super) end: u64,
}

impl Tables {
    /// Puts the tables behind the clusters that are in use; `level1_len` is the entries of the level 1 table.
    pub(super) fn behind(clusters: u64, level1_len: u64) -> Self {
        let level1 = clusters;
        let refcount_table = level1 + (level1_len * ENTRY_LEN).div_ceil(CLUSTER);
        // The refcount blocks count themselves and their table too.
        let (mut table_len, mut blocks) = (1, 1);
        loop {
            let refcount_blocks = refcount_table + table_len;
            let end = refcount_blocks + blocks;
            let blocks_needed = end.div_ceil(BLOCK_CLUSTERS);
            let table_needed = (blocks_needed * ENTRY_LEN).div_ceil(CLUSTER);
            if (blocks_needed, table_needed) == (blocks, table_len) {
                return Self { level1, refcount_table, refcount_table_len: table_len, refcount_blocks, end };
            }
            // Both only ever grow, so that this ends.
            (blocks, table_len) = (blocks_needed.max(blocks), table_needed.max(table_len));
        }
    }
}

/// The header of a file for an image of `image_bytes`.
pub(super) fn header(image_bytes: u64, level1_len: u64, tables: &Tables) -> Vec<u8> {
    const HEADER_LEN: u32 = 104;
    let short = |number: u64| u32::try_from(number).expect("tables are limited").to_be_bytes();
    let mut bytes = b"QFI\xfb".to_vec();
    bytes.extend(3u32.to_be_bytes());
    // No backing file.
    bytes.extend([0; 12]);
    bytes.extend(CLUSTER_BITS.to_be_bytes());
    bytes.extend(image_bytes.to_be_bytes());
    // Not encrypted.
    bytes.extend([0; 4]);
    bytes.extend(short(level1_len));
    bytes.extend((tables.level1 * CLUSTER).to_be_bytes());
    bytes.extend((tables.refcount_table * CLUSTER).to_be_bytes());
    bytes.extend(short(tables.refcount_table_len));
    // No snapshots; no features of any kind.
    bytes.extend([0; 12]);
    bytes.extend([0; 24]);
    // Refcounts of 1 << 4 bits.
    bytes.extend(4u32.to_be_bytes());
    bytes.extend(HEADER_LEN.to_be_bytes());
    // The end of the list of extensions, which is empty.
    bytes.extend([0; 8]);
    bytes
}

/// The entry of a level 1 or level 2 table for a cluster; 0 is none, as cluster 0 is the header.
pub(super) fn entry(cluster: u64) -> [u8; 8] {
    if cluster == 0 { [0; 8] } else { ((cluster * CLUSTER) | COPIED).to_be_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_count_all_clusters_and_no_more() {
        for level1_len in [1, 8192, 8193, 126_976] {
            for clusters in (1..40).chain(32_700..32_800).chain([1 << 20, 268_400_000, 1 << 30]) {
                let tables = Tables::behind(clusters, level1_len);
                let blocks = tables.end - tables.refcount_blocks;
                let told = format!("{clusters} clusters, {level1_len} entries: {tables:?}");
                assert_eq!(blocks, tables.end.div_ceil(BLOCK_CLUSTERS), "{told}");
                assert_eq!(tables.refcount_table_len, blocks.div_ceil(8192), "{told}");
                assert_eq!(
                    tables.refcount_blocks,
                    tables.refcount_table + tables.refcount_table_len,
                    "{told}"
                );
                assert_eq!(tables.refcount_table, clusters + level1_len.div_ceil(8192), "{told}");
            }
        }
    }

    #[test]
    fn the_header_is_this() {
        let tables = Tables::behind(2, 1);
        let hex: Vec<String> = header(1 << 20, 1, &tables).iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "514649fb",
            "00000003",
            "0000000000000000",
            "00000000",
            "00000010",
            "0000000000100000",
            "00000000",
            "00000001",
            "0000000000020000",
            "0000000000030000",
            "00000001",
            "00000000",
            "0000000000000000",
            "0000000000000000",
            "0000000000000000",
            "0000000000000000",
            "00000004",
            "00000068",
            "0000000000000000",
        ];
        assert_eq!(hex.concat(), expected.concat());
    }
}
