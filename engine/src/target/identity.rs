//! What tells one image of a disk from another.

use crate::snapshots::Snapshot;
use repo_format::Disk;

/// An id and a time for the headers of image formats. They follow from the snapshot and the disk: restored again, a
/// disk gives the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageIdentity {
    /// A UUID of version 8 (RFC 9562).
    pub id: [u8; 16],
    /// The snapshot's time, in milliseconds since 1970.
    pub time: u64,
}

impl ImageIdentity {
    /// The identity of a snapshot's disk.
    #[must_use]
    pub fn of(snapshot: &Snapshot, disk: &Disk) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("keepstone 2026 id of a restored image");
        hasher.update(&snapshot.session().0).update(disk.key.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id[6] = id[6] & 0x0f | 0x80;
        id[8] = id[8] & 0x3f | 0x80;
        Self { id, time: snapshot.commit.time }
    }
}
