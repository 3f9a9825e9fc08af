//! Disk images that real tools make and fill, without mounting anything; and what is in them.

use keepstone_engine::EngineError;
use keepstone_engine::guest::{Entry, Follow, GuestDisk, GuestError, Kind, Tree, with_guest, write_file};
use keepstone_engine::observer::Quiet;
use keepstone_engine::target::Existing;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
/// When the files of a tree were changed last.
pub const CHANGED: u64 = 1_600_000_001;

/// Runs a tool that must succeed, with sbin in its path.
pub fn run(program: &str, arguments: &[&dyn AsRef<OsStr>]) {
    run_with(program, arguments, "");
}

/// The same with something to read.
pub fn run_with(program: &str, arguments: &[&dyn AsRef<OsStr>], input: &str) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("input");
    fs::write(&file, input).unwrap();
    let output = Command::new(program)
        .args(arguments.iter().map(AsRef::as_ref))
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("TZ", "UTC")
        .stdin(File::open(&file).unwrap())
        .stderr(Stdio::piped())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}{}", text(&output.stdout), text(&output.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reproducible bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A directory for images and what they are filled with.
pub struct Workshop {
    pub dir: TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An image of zeros.
    pub fn image(&self, name: &str, len: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    /// Files of all lengths that matter, with holes, in directories small and large.
    pub fn tree(&self) -> PathBuf {
        let top = self.path("tree");
        let names: Vec<u8> = (0..=255_u8).filter(|byte| !matches!(byte, 0 | b'/')).collect();
        let files: [(&[u8], Vec<u8>); 9] = [
            (b"empty", Vec::new()),
            (b"one", b"1".to_vec()),
            (b"inline", b"short enough for an inode".to_vec()),
            (b"block", noise(1, 4096)),
            (b"blocks", noise(2, 70_001)),
            (b"large", noise(3, 1_500_000)),
            (b"deep/er/and/deeper/file", noise(4, 999)),
            ("gr\u{fc}n".as_bytes(), b"green".to_vec()),
            (&names[..127], b"any bytes".to_vec()),
        ];
        for (name, content) in files {
            put(&top.join(OsStr::from_bytes(name)), &content);
        }
        put(&top.join(OsStr::from_bytes(&names[127..])), b"other bytes");
        put(&top.join("x".repeat(255)), b"long");
        for number in 0..300 {
            put(&top.join(format!("many/file number {number:05}")), format!("{number}").as_bytes());
        }
        put_holes(&top.join("holes"));
        let mut holes = noise(7, 50_000);
        holes[1024..3 * 4096].fill(0);
        holes[20_000..40_000].fill(0);
        put(&top.join("small holes"), &holes);
        symlink("deep/er", top.join("link")).unwrap();
        symlink(format!("{}large", "deep/../".repeat(20)), top.join("long link")).unwrap();
        symlink("/many/file number 00007", top.join("deep/absolute")).unwrap();
        symlink("nowhere", top.join("dangling")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        fs::set_permissions(top.join("one"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(top.join("deep"), fs::Permissions::from_mode(0o1777)).unwrap();
        for name in ["one", "large", "many"] {
            let time = SystemTime::UNIX_EPOCH + Duration::new(CHANGED, 500_000_000);
            let file = File::open(top.join(name)).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        top
    }
}

/// A file with holes at its start, within and at its end.
fn put_holes(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(5 * MIB + 17).unwrap();
    file.write_all_at(&noise(5, 10_000), MIB).unwrap();
    file.write_all_at(&noise(6, 5000), 3 * MIB + 100).unwrap();
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// What something is, with what is known of it in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    File(Vec<u8>),
    Directory,
    Link(Vec<u8>),
    Other(Kind),
}

/// Everything below a directory of this machine, by path.
pub fn things(top: &Path) -> BTreeMap<Vec<u8>, Thing> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let thing = if metadata.is_symlink() {
                Thing::Link(fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
            } else if metadata.is_dir() {
                waiting.push(path.clone());
                Thing::Directory
            } else if metadata.is_file() {
                Thing::File(fs::read(&path).unwrap())
            } else {
                Thing::Other(Kind::Pipe)
            };
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes();
            found.insert([b"/", name].concat(), thing);
        }
    }
    found
}

/// Everything in a guest's file system, by path.
pub fn guest_things(tree: &Tree) -> Result<BTreeMap<Vec<u8>, Thing>, GuestError> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![tree.resolve(b"/", Follow::Never)?];
    while let Some(directory) = waiting.pop() {
        for entry in tree.list(&directory)? {
            let thing = match entry.kind {
                Kind::File => Thing::File(content(tree, &entry)?),
                Kind::Directory => {
                    waiting.push(entry.clone());
                    Thing::Directory
                }
                Kind::Symlink => Thing::Link(tree.read_link(&entry)?),
                other => Thing::Other(other),
            };
            found.insert(entry.path(), thing);
        }
    }
    Ok(found)
}

pub fn content(tree: &Tree, entry: &Entry) -> Result<Vec<u8>, GuestError> {
    let mut content = Vec::new();
    write_file(tree, entry, &mut content, &Quiet)?;
    Ok(content)
}

/// Opens an image as a disk.
pub fn with_image<T>(path: &Path, work: impl FnOnce(&keepstone_engine::guest::Guest) -> T) -> T {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let read_at = |offset, buffer: &mut [u8]| {
        file.read_exact_at(buffer, offset)
            .map_err(|source| EngineError::Source { disk: "image".to_owned(), source })
    };
    with_guest(&GuestDisk { size, read_at: &read_at }, work)
}

/// Opens the only file system of an image.
pub fn with_tree<T>(path: &Path, work: impl FnOnce(&Tree) -> T) -> T {
    with_image(path, |guest| work(&guest.only(None).unwrap()))
}

/// Compares all that is in an image with all that is in a directory.
#[track_caller]
pub fn assert_holds(image: &Path, expected: BTreeMap<Vec<u8>, Thing>) {
    assert_same(with_tree(image, |tree| guest_things(tree).unwrap()), expected);
}

#[track_caller]
pub fn assert_same(mut found: BTreeMap<Vec<u8>, Thing>, mut expected: BTreeMap<Vec<u8>, Thing>) {
    found.remove(b"/lost+found".as_slice());
    for (path, thing) in &found {
        let expected = expected.remove(path);
        assert!(expected.as_ref() == Some(thing), "{} differs", text(path));
    }
    let missing: Vec<String> = expected.keys().map(|path| text(path)).collect();
    assert_eq!(missing, [""; 0], "what is not found");
}

/// How files are copied in tests unless they say more.
pub fn refusing(target: &Path) -> keepstone_engine::guest::CopyJob<'_> {
    use keepstone_engine::guest::{CopyJob, Depth, Owners};
    CopyJob { target, existing: Existing::Refuse, owners: Owners::Own, depth: Depth::Tree }
}

/// The bytes that a file takes on this machine.
pub fn allocated(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}
