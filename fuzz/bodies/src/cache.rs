//! The files of the local index.

use crate::samples;
use keepstone_engine::index::{LocalIndex, Verdict};
use repo_format::{IndexEntry, Location, SessionId};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// Chunks in the sample: more than one block of a table has.
const CHUNKS: u32 = 120;
const BUDGET_BYTES: u64 = 1 << 20;
/// A session of which only the verdict is known.
const ABORTED: SessionId = SessionId([0x24; 16]);

/// One of the files of a cache directory, a table or the memo of verdicts as the first byte says. What is damaged may
/// be forgotten, but nothing that is remembered may be wrong.
pub fn cache_table(data: &[u8]) -> bool {
    let Some((which, bytes)) = data.split_first() else { return false };
    let root = temporary_directory();
    let (name, _) = &INTACT[usize::from(*which) % INTACT.len()];
    let file = directory(root.path()).join(name);
    fs::create_dir(directory(root.path())).expect("the directory is new");
    fs::write(file, bytes).expect("the directory can be written to");

    let index = open(root.path());
    let expected = &*PLACES;
    let mut found = 0;
    for place in expected {
        let hits: Vec<Location> = index.lookup(&place.id).into_iter().collect();
        assert!(hits.iter().all(|hit| hit == place), "{hits:?} are not {place:?}");
        found += hits.len();
    }
    for (session, decision) in samples::index(CHUNKS).sessions {
        assert!(index.decision_of(session).is_none_or(|found| *found == decision));
    }
    assert!(index.covered().iter().all(|name| *name == samples::index_name()));
    let verdicts = [(samples::SESSION, Verdict::Commit), (ABORTED, Verdict::Abort)];
    let known = verdicts.map(|(session, verdict)| match index.verdict(session) {
        None => false,
        Some(found) => {
            assert_eq!(found, verdict);
            true
        }
    });
    found == expected.len() || known == [true, true]
}

/// The intact files of the sample, each behind the byte that stands for it.
pub(crate) fn intact_files() -> Vec<Vec<u8>> {
    (0_u8..).zip(INTACT.iter()).map(|(which, (_, bytes))| [&[which], bytes.as_slice()].concat()).collect()
}

/// The names and bytes of the table and of the memo, in this order.
static INTACT: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let root = temporary_directory();
    let mut index = open(root.path());
    index.add(&[samples::index_name()], &samples::index(CHUNKS)).expect("the cache can be written");
    for (session, verdict) in [(samples::SESSION, Verdict::Commit), (ABORTED, Verdict::Abort)] {
        index.remember_verdict(session, verdict).expect("the cache can be written");
    }
    let directory = directory(root.path());
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("the cache has a directory")
        .map(|entry| PathBuf::from(entry.expect("the directory can be read").file_name()))
        .map(|name| {
            let bytes = fs::read(directory.join(&name)).expect("the file can be read");
            (name, bytes)
        })
        .collect();
    // The name of a table begins with a digit or a letter up to f.
    files.sort();
    assert_eq!(files.len(), 2, "a cache has a table and a memo: {files:?}");
    files
});

/// A directory in memory where there is one: to make files durable would take nearly all of the time.
fn temporary_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("there is room for temporary files")
}

fn open(root: &Path) -> LocalIndex {
    LocalIndex::open(Some(root), samples::REPOSITORY, [0x88; 32], BUDGET_BYTES).expect("damage is no error")
}

fn directory(root: &Path) -> PathBuf {
    root.join(samples::REPOSITORY.to_string())
}

/// Where the chunks of the sample are.
static PLACES: LazyLock<Vec<Location>> = LazyLock::new(|| {
    let index = samples::index(CHUNKS);
    let place = |entry: &IndexEntry| Location {
        pack: index.packs[entry.pack as usize].clone(),
        codec: entry.codec,
        offset: entry.offset,
        stored_len: entry.stored_len,
        plain_len: entry.plain_len,
        id: entry.id,
    };
    index.entries.iter().map(place).collect()
});
