//! What a guest may have written on purpose: it is an error, or it reads as something, and it ends.

use crate::images::{MIB, Workshop, noise, refusing, run, with_tree};
use crate::ntfs;
use keepstone_engine::EngineError;
use keepstone_engine::guest::{
    Follow, Guest, GuestDisk, GuestError, Kind, ProblemKind, copy, with_guest, write_file,
};
use keepstone_engine::observer::{Event, Observer, Quiet};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
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
                        drop(write_file(&tree, &entry, &mut sink, &enough));
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

/// A small XFS, without checksums: what is changed in it is believed.
fn small_xfs() -> (&'static str, Vec<u8>) {
    let workshop = Workshop::new();
    let (image, prototype, file) =
        (workshop.image("image", 16 * MIB), workshop.path("prototype"), workshop.path("file"));
    fs::write(&file, vec![b'f'; 20_000]).unwrap();
    let text = format!(
        "/dev/null\n0 0\nd--755 0 0\na d--755 0 0\nfile ---644 0 0 {}\n$\nlink l--777 0 0 a/file\n$\n",
        file.display()
    );
    fs::write(&prototype, text).unwrap();
    // So small a one is made for tests only.
    run("mkfs.xfs", &[&"-q", &"--unsupported", &"-m", &"crc=0", &"-p", &prototype, &image]);
    ("xfs", fs::read(image).unwrap())
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
    for (kind, bytes) in volumes().into_iter().chain([small_xfs()]) {
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
        copy(&tree, &tree.resolve(b"/", Follow::Never).unwrap(), &refusing(&target), &Quiet)
    });
    let report = report.unwrap();
    assert_eq!(report.problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["/a/b"]);
    assert_eq!(report.files, 40);
}

#[test]
fn directories_that_lead_back_to_the_root_end_where_no_more_can_be() {
    let workshop = Workshop::new();
    let (image, tree) = (workshop.image("image", MIB / 4), workshop.path("tree"));
    fs::create_dir_all(tree.join("a")).unwrap();
    fs::write(tree.join("a/file"), b"f").unwrap();
    let inodes: u64 = 32;
    let options: [&dyn AsRef<OsStr>; 8] = [&"-q", &"-t", &"ext2", &"-b", &"1024", &"-N", &"32", &"-d"];
    run("mke2fs", &[&options[..], &[&tree, &image]].concat());
    for name in ["again", "more"] {
        run("debugfs", &[&"-w", &"-R", &format!("ln <2> /{name}"), &image]);
    }
    let target = workshop.path("copy");
    let report = with_tree(&image, |tree| {
        let root = tree.resolve(b"/", Follow::Never).unwrap();
        copy(tree, &root, &refusing(&target), &Quiet).unwrap()
    });
    assert_eq!(report.directories, inodes);
    assert!(target.join("a/file").exists() && target.join("again/a/file").exists());
    let back = &report.problems[0];
    assert!(back.kind == ProblemKind::Guest && back.reason.contains("lead back"), "{back:?}");
    assert!(back.path.starts_with("/again/again/"), "{back:?}");
    assert_eq!(report.problems.last().unwrap().path, "/more");
}

/// A volume of ext2 with a link, whose directory entry says that it is of a type.
fn with_link(workshop: &Workshop, said: u8) -> PathBuf {
    let (image, tree) = (workshop.image("image", MIB / 4), workshop.path("tree"));
    fs::create_dir_all(tree.join("a")).unwrap();
    std::os::unix::fs::symlink("a", tree.join("link")).unwrap();
    run("mke2fs", &[&"-q", &"-t", &"ext2", &"-b", &"1024", &"-d", &tree, &image]);
    let mut bytes = fs::read(&image).unwrap();
    let entry = bytes.windows(6).position(|window| window == b"\x04\x07link").unwrap();
    bytes[entry + 1] = said;
    fs::write(&image, bytes).unwrap();
    image
}

fn assert_damaged<T>(result: Result<T, GuestError>, reason: &str) {
    let Err(GuestError::Damaged { source, .. }) = result else { panic!("it is not told to be damaged") };
    assert!(source.to_string().contains(reason), "{source}");
}

#[test]
fn a_link_that_is_too_long_is_damage_of_that_link() {
    for len in ["4097", "5000000000", "1099511627776"] {
        let workshop = Workshop::new();
        let image = with_link(&workshop, 7);
        run("debugfs", &[&"-w", &"-R", &format!("set_inode_field /link size {len}"), &image]);
        let target = workshop.path("copy");
        let report = with_tree(&image, |tree| {
            let link = tree.resolve(b"/link", Follow::Never).unwrap();
            assert_eq!(tree.metadata(&link).unwrap().size.to_string(), len);
            assert_damaged(tree.read_link(&link), "longer");
            assert_damaged(tree.resolve(b"/link", Follow::Last), "longer");
            copy(tree, &tree.resolve(b"/", Follow::Never).unwrap(), &refusing(&target), &Quiet).unwrap()
        });
        let problems: Vec<_> = report.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!((problems, report.directories), (vec!["/link"], 3));
    }
}

#[test]
fn a_link_that_is_called_something_else_is_not_followed() {
    for (said, kind) in [(1, Kind::File), (2, Kind::Directory)] {
        let workshop = Workshop::new();
        let image = with_link(&workshop, said);
        with_tree(&image, |tree| {
            let entries = tree.list(&tree.resolve(b"/", Follow::Never).unwrap()).unwrap();
            let link = entries.iter().find(|entry| entry.name == b"link").unwrap();
            assert_eq!(link.kind, kind);
            let read = match kind {
                Kind::Directory => tree.list(link).map(drop),
                _ => write_file(tree, link, &mut std::io::sink(), &Quiet).map(drop),
            };
            assert_damaged(read, "something else");
        });
    }
}

#[test]
fn a_file_of_more_records_than_fit_into_memory_is_refused() {
    for (further, reason) in [(300_u64, "more records"), (200, "needed")] {
        let bytes = table_of_long_records(further);
        let disk =
            Disk { bytes: &bytes, changes: BTreeMap::new(), len: bytes.len(), read: AtomicU64::new(0) };
        let read_at = |offset, buffer: &mut [u8]| disk.read_at(offset, buffer);
        let size = u64::try_from(disk.len).unwrap();
        let error =
            with_guest(&GuestDisk { size, read_at: &read_at }, |guest| guest.only(None).err().unwrap());
        let (GuestError::Unsupported { source, .. } | GuestError::Damaged { source, .. }) = &error else {
            panic!("{error:?}")
        };
        assert!(source.to_string().contains(reason), "{error:?}");
    }
}

/// A volume of NTFS with records of 64 KiB, of which only the first is there: that of the table, which has `further` ones.
fn table_of_long_records(further: u64) -> Vec<u8> {
    const RECORD_LEN: usize = 64 << 10;
    let list: Vec<u8> = (1..=further)
        .flat_map(|number| {
            let mut entry = [0; 32];
            entry[0] = 0x80;
            entry[4] = 32;
            entry[16..24].copy_from_slice(&number.to_le_bytes());
            entry
        })
        .collect();
    let list_len = u32::try_from(list.len()).unwrap();
    let mut resident = vec![0; 24];
    resident[0] = 0x20;
    resident[4..8].copy_from_slice(&(24 + list_len).to_le_bytes());
    resident[16..20].copy_from_slice(&list_len.to_le_bytes());
    resident[20] = 24;
    let mut runs = vec![0; 72];
    runs[0] = 0x80;
    (runs[4], runs[8], runs[32]) = (72, 1, 64);
    for size in [40, 48, 56] {
        runs[size..size + 8].copy_from_slice(&(1_u64 << 30).to_le_bytes());
    }
    // 16384 clusters of 64 KiB from the first on: more than the volume has.
    runs[64..68].copy_from_slice(&[0x12, 0x00, 0x40, 0x01]);
    let mut record = b"FILE".to_vec();
    record.resize(56, 0);
    // The places of the check words, of which there is one without a sector; of the attributes; and that it is in use.
    (record[4], record[6], record[20], record[22]) = (48, 1, 56, 1);
    record.extend([resident, list, runs, vec![0xFF; 4]].concat());
    record.resize(RECORD_LEN, 0);
    let mut bytes = vec![0; RECORD_LEN];
    bytes[3..11].copy_from_slice(b"NTFS    ");
    // Sectors of 512 bytes, clusters of 128 of these, the table at the first, records and index blocks of 1.
    (bytes[12], bytes[13], bytes[48], bytes[64], bytes[68]) = (2, 128, 1, 1, 1);
    bytes.extend(record);
    bytes
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
