//! What a guest may have written on purpose: it is an error, or it reads as something, and it ends.

use crate::images::{MIB, Workshop, noise, refusing, run};
use crate::ntfs;
use keepstone_engine::EngineError;
use keepstone_engine::guest::{Follow, Guest, GuestDisk, GuestError, Kind, copy, with_guest};
use keepstone_engine::observer::{Event, Observer};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk in memory: bytes, and others in their place.
struct Disk<'b> {
    bytes: &'b [u8],
    changes: BTreeMap<usize, u8>,
    len: usize,
    read: AtomicU64,
}

impl Disk<'_> {
    #[expect(clippy::unnecessary_wraps, reason = "it is called where others may fail")]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), EngineError> {
        let start = usize::try_from(offset).unwrap();
        let end = start + buffer.len();
        assert!(end <= self.len, "nothing is read beyond the disk");
        self.read.fetch_add(u64::try_from(buffer.len()).unwrap(), Ordering::Relaxed);
        buffer.copy_from_slice(&self.bytes[start..end]);
        for (place, byte) in self.changes.range(start..end) {
            buffer[place - start] = *byte;
        }
        Ok(())
    }

    /// Reads whatever can be, within reason.
    fn explore(&self) {
        let read_at = |offset, buffer: &mut [u8]| self.read_at(offset, buffer);
        let size = u64::try_from(self.len).unwrap();
        with_guest(&GuestDisk { size, read_at: &read_at }, explore);
    }
}

/// Stops when as much as a whole tree was read.
struct Enough(AtomicU64);

impl Observer for Enough {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        let read = if let Event::Progress(bytes) = event { bytes + 1000 } else { 0 };
        let total = self.0.fetch_add(read, Ordering::Relaxed);
        if total > 20_000_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn explore(guest: &Guest) {
    let Ok(volumes) = guest.volumes() else { return };
    for volume in volumes.read() {
        let Ok(tree) = guest.open(volume) else { continue };
        let Ok(root) = tree.resolve(b"/", Follow::Never) else { continue };
        let enough = Enough(AtomicU64::new(0));
        let mut waiting = vec![root];
        let mut left = 2000;
        while let Some(directory) = waiting.pop() {
            for entry in tree.list(&directory).unwrap_or_default() {
                left -= 1;
                if left == 0 {
                    return;
                }
                // Names and metadata may be anything; only that they end is looked at.
                let _ = tree.metadata(&entry);
                match entry.kind {
                    Kind::Directory => waiting.push(entry),
                    Kind::Symlink => drop(tree.read_link(&entry)),
                    Kind::File => {
                        let mut sink = std::io::sink();
                        drop(keepstone_engine::guest::write_file(&tree, &entry, &mut sink, &enough));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Reproducible numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// Small volumes of all kinds; file contents repeat one byte, so that what differs from that is what describes them.
fn volumes() -> Vec<(&'static str, Vec<u8>)> {
    let workshop = Workshop::new();
    let tree = workshop.path("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    for number in 0..40 {
        fs::write(tree.join(format!("a/file number {number}")), vec![b'f'; number * 100]).unwrap();
    }
    fs::write(tree.join("a/b/large"), vec![b'l'; 300_000]).unwrap();
    std::os::unix::fs::symlink("a/b", tree.join("link")).unwrap();
    let mut volumes = Vec::new();
    for (kind, options) in
        [("ext4", "metadata_csum,64bit"), ("ext4", "^metadata_csum,^64bit"), ("ext2", "^dir_index")]
    {
        let image = workshop.image("image", MIB * 3 / 2);
        run("mke2fs", &[&"-q", &"-t", &kind, &"-b", &"1024", &"-O", &options, &"-d", &tree, &image]);
        volumes.push((kind, fs::read(image).unwrap()));
    }
    fs::remove_file(tree.join("link")).unwrap();
    for (bits, len) in [("12", MIB), ("16", 5 * MIB)] {
        let image = workshop.image("image", len);
        run("mkfs.vfat", &[&"-F", &bits, &"-s", &"1", &image]);
        run("mcopy", &[&"-i", &image, &"-s", &tree.join("a"), &"::"]);
        volumes.push(("fat", fs::read(image).unwrap()));
    }
    volumes.push(("ntfs", zstd::decode_all(ntfs::VOLUME).unwrap()));
    let disk = workshop.image("image", 3 * MIB);
    run("sgdisk", &[&"-n", &"1:64:+1M", &"-n", &"2:4096:+512K", &disk]);
    volumes.push(("gpt", fs::read(disk).unwrap()));
    volumes
}

/// Where the bytes are that describe files: what is neither zero nor content.
fn telling(bytes: &[u8]) -> Vec<usize> {
    let places = bytes.iter().enumerate().filter(|(_, byte)| !matches!(byte, 0 | b'f' | b'l'));
    places.map(|(place, _)| place).collect()
}

/// So often each volume is changed; a campaign may want more.
#[expect(clippy::disallowed_methods, reason = "the environment is how a campaign is asked for")]
fn rounds() -> usize {
    std::env::var("KEEPSTONE_HOSTILE").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10)
}

#[test]
fn changed_and_cut_off_file_systems_end_in_errors_or_files() {
    for (kind, bytes) in volumes() {
        let places = telling(&bytes);
        let mut random = Random(7);
        for round in 0..rounds() {
            let mut changes = BTreeMap::new();
            for _ in 0..=random.below(8) {
                let place = places[random.below(places.len())];
                let byte =
                    [0, 0xFF, 0x7F, 1, 0x80, bytes[place] ^ 1, bytes[place].wrapping_add(1)][random.below(7)];
                // Neighbours too: numbers are longer than a byte.
                for further in 0..random.below(4) {
                    changes.insert((place + further).min(bytes.len() - 1), byte);
                }
            }
            let len = if round % 10 == 9 { 1 + random.below(bytes.len()) } else { bytes.len() };
            println!("{kind} {round}: {changes:?} {len}");
            Disk { bytes: &bytes, changes, len, read: AtomicU64::new(0) }.explore();
        }
    }
}

#[test]
fn noise_is_no_file_system() {
    for seed in 0..20 {
        let mut bytes = noise(seed, 200_000);
        // With the marks of one, and nothing that fits.
        match seed % 5 {
            0 => bytes[..4].copy_from_slice(b"XFSB"),
            1 => bytes[1080..1082].copy_from_slice(&[0x53, 0xEF]),
            2 => bytes[..11].copy_from_slice(b"\xeb\x52\x90NTFS    "),
            3 => bytes[510..512].copy_from_slice(&[0x55, 0xAA]),
            _ => bytes[512..520].copy_from_slice(b"EFI PART"),
        }
        let len = bytes.len();
        Disk { bytes: &bytes, changes: BTreeMap::new(), len, read: AtomicU64::new(0) }.explore();
    }
}

#[test]
fn a_directory_that_holds_itself_is_copied_once() {
    let (_, bytes) = volumes().into_iter().find(|(kind, _)| *kind == "fat").unwrap();
    let workshop = Workshop::new();
    // The entry of `a/b` leads to the clusters of `a`.
    let entry = |name: &[u8; 11]| bytes.windows(11).position(|window| window == name).unwrap();
    let (outer, inner) = (entry(b"A          "), entry(b"B          "));
    let changes = (26..28).map(|at| (inner + at, bytes[outer + at])).collect();
    let disk = Disk { bytes: &bytes, changes, len: bytes.len(), read: AtomicU64::new(0) };
    let read_at = |offset, buffer: &mut [u8]| disk.read_at(offset, buffer);
    let size = u64::try_from(disk.len).unwrap();
    let report = with_guest(&GuestDisk { size, read_at: &read_at }, |guest| {
        let tree = guest.only(None).unwrap();
        let target = workshop.path("copy");
        copy(
            &tree,
            &tree.resolve(b"/", Follow::Never).unwrap(),
            &refusing(&target),
            &keepstone_engine::observer::Quiet,
        )
    });
    let report = report.unwrap();
    assert_eq!(report.problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["/a/b"]);
    assert_eq!(report.files, 40);
}

#[test]
fn what_would_take_too_much_memory_is_refused() {
    let (_, ext) = volumes().into_iter().find(|(kind, _)| *kind == "ext4").unwrap();
    // Four thousand million block groups, each of which would be kept.
    let changes = (0..4).map(|at| (1024 + 4 + at, 0xFF)).chain([(1024 + 32, 1), (1024 + 33, 0)]).collect();
    let disk = Disk { bytes: &ext, changes, len: ext.len(), read: AtomicU64::new(0) };
    let read_at = |offset, buffer: &mut [u8]| disk.read_at(offset, buffer);
    let size = u64::try_from(disk.len).unwrap();
    let error = with_guest(&GuestDisk { size, read_at: &read_at }, |guest| guest.only(None).err().unwrap());
    assert!(matches!(error, GuestError::Damaged { .. }), "{error:?}");
    assert!(disk.read.load(Ordering::Relaxed) < 1 << 20);
}
