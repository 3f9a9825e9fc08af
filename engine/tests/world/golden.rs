//! The repositories whose blobs the lists in `golden/` pin, one for each chunker, and what was backed up to them.

use super::{back_up, create, memory_index, mixed, noise, small_geometry_of};
use keepstone_engine::Extent;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use repo_format::{ChunkerName, ChunkerParams};

/// A disk as it was when it was backed up.
pub struct Image {
    pub vm: &'static str,
    pub disk: &'static str,
    pub bytes: Vec<u8>,
}

/// The repository with the chunker of new repositories.
pub fn repository() -> (MemoryStore, Vec<Image>) {
    repository_of(ChunkerParams::default().name)
}

/// Two VMs that share content, one with two disks and a second day; the images in the order of the backups.
pub fn repository_of(chunker: ChunkerName) -> (MemoryStore, Vec<Image>) {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry_of(chunker));
    let mut index = memory_index(&repository);
    let mut images = Vec::new();
    let mut keep = |vm, disk, bytes: &[u8]| images.push(Image { vm, disk, bytes: bytes.to_vec() });
    let mut system = MemoryDisk { change_id: Some("day 1".into()), ..MemoryDisk::new(mixed(1, 300_001)) };
    let data = MemoryDisk { change_id: Some("day 1".into()), ..MemoryDisk::new(noise(2, 100_000)) };
    back_up(&repository, &mut index, "alpha", &[("system", &system), ("data", &data)], 1)
        .expect("the first day is backed up");
    keep("alpha", "system", &system.bytes);
    keep("alpha", "data", &data.bytes);
    system.bytes[100_000..100_512].fill(3);
    system.changes = Some(("day 1".into(), vec![Extent { start: 100_000, length: 512 }]));
    system.change_id = Some("day 2".into());
    let data =
        MemoryDisk { changes: Some(("day 1".into(), Vec::new())), change_id: Some("day 2".into()), ..data };
    back_up(&repository, &mut index, "alpha", &[("system", &system), ("data", &data)], 2)
        .expect("the second day is backed up");
    keep("alpha", "system", &system.bytes);
    keep("alpha", "data", &data.bytes);
    let mut other = system.bytes.clone();
    other.extend(noise(5, 50_000));
    keep("beta", "disk0", &other);
    back_up(&repository, &mut index, "beta", &[("disk0", &MemoryDisk::new(other))], 3)
        .expect("the other VM is backed up");
    (store, images)
}
