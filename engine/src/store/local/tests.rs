use super::*;
use crate::direct::AlignedPool;
use crate::store::{BlobInfo, Foreign, conformance};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn name(text: &str) -> BlobName {
    BlobName::parse(text).expect("a valid name")
}

fn new_store() -> (TempDir, LocalStore) {
    let dir = TempDir::new().expect("a temporary directory");
    let store = LocalStore::create(dir.path()).expect("a store");
    (dir, store)
}

fn names(page: &Page) -> Vec<&str> {
    page.blobs.iter().map(|blob| blob.name.as_str()).collect()
}

fn foreign(name: &str, what: &'static str) -> Foreign {
    Foreign { name: name.to_owned(), what }
}

/// What is in `.tmp`.
fn leftovers(dir: &TempDir) -> Vec<String> {
    fs::read_dir(dir.path().join(".tmp"))
        .expect("the directory of temporary files")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect()
}

#[test]
fn conforms() {
    conformance::check(&|| {
        let dir = TempDir::new().expect("a temporary directory");
        LocalStore::create(dir.path()).expect("a store");
        Box::new(move || Box::new(LocalStore::open(dir.path()).expect("the store opens again")))
    });
    conformance::check_canaries(&new_store().1);
}

#[test]
fn creating_makes_the_directories_that_lead_to_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a/b/c");
    LocalStore::create(&path).unwrap().put_new(&name("config"), b"1").unwrap();
    assert_eq!(LocalStore::open(&path).unwrap().get(&name("config"), None).unwrap(), b"1");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn creating_again_keeps_what_is_there() {
    let (dir, store) = new_store();
    store.put_new(&name("config"), b"1").unwrap();
    let again = LocalStore::create(dir.path()).unwrap();
    assert_eq!(again.put_new(&name("config"), b"1").unwrap(), Put::Identical);
}

#[test]
fn a_directory_with_other_content_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config"), b"of something else").unwrap();
    let error = LocalStore::create(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} cannot hold a repository: the directory is not empty", dir.path().display())
    );
    assert!(!dir.path().join(".tmp").exists());
}

#[test]
fn a_new_file_system_counts_as_empty() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    let store = LocalStore::create(dir.path()).unwrap();
    assert_eq!(store.list("", None, 10).unwrap(), Page::default());
}

#[test]
fn a_missing_directory_is_not_opened() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("none");
    let error = LocalStore::open(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("could not open {}", path.display()));
    assert!(!path.exists());
}

#[test]
fn files_and_directories_are_their_owners_only() {
    let (dir, store) = new_store();
    store.put_new(&name("d/w/1"), b"1").unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["d", "d/w", "d/w/1", ".tmp"].map(mode), [0o700, 0o700, 0o600, 0o700]);
}

#[test]
fn no_temporary_file_stays_behind() {
    let (dir, store) = new_store();
    store.put_new(&name("a"), b"1").unwrap();
    store.put_new(&name("a"), b"1").unwrap();
    store.put_new(&name("a"), b"2").unwrap();
    assert_eq!(leftovers(&dir), [""; 0]);
}

#[test]
fn opening_removes_the_leftovers_of_dead_processes_only() {
    let (dir, store) = new_store();
    fs::write(dir.path().join(".tmp/1-1"), b"of a dead process").unwrap();
    let live = Temporary::create(&store.root).unwrap();
    LocalStore::open(dir.path()).unwrap();
    assert_eq!(leftovers(&dir), [live.name()]);
    let blobs = store.root.make_dir("d").unwrap();
    live.write(b"1", &AlignedPool::default()).unwrap();
    assert_eq!(live.link_to(&blobs, "x").unwrap(), Linked::Done);
    assert_eq!(store.get(&name("d/x"), None).unwrap(), b"1");
}

#[test]
fn a_temporary_file_that_was_removed_is_noticed() {
    let (dir, store) = new_store();
    let temporary = Temporary::create(&store.root).unwrap();
    fs::remove_file(dir.path().join(".tmp").join(temporary.name())).unwrap();
    let root = store.root.dir("").unwrap();
    assert_eq!(temporary.link_to(&root, "config").unwrap(), Linked::Vanished);
}

#[test]
fn directories_that_were_removed_are_made_again() {
    let (dir, store) = new_store();
    store.put_new(&name("d/w/1"), b"1").unwrap();
    fs::remove_dir_all(dir.path().join("d")).unwrap();
    fs::remove_dir(dir.path().join(".tmp")).unwrap();
    assert_eq!(store.put_new(&name("d/w/2"), b"2").unwrap(), Put::Created);
    assert_eq!(names(&store.list("", None, 10).unwrap()), ["d/w/2"]);
}

#[test]
fn temporary_files_are_no_blobs() {
    let (dir, store) = new_store();
    fs::write(dir.path().join(".tmp/x"), b"1").unwrap();
    assert_eq!(store.list("", None, 10).unwrap(), Page::default());
    assert_eq!(store.list(".tmp", None, 10).unwrap(), Page::default());
    assert_eq!(store.list(".tmp/x", None, 10).unwrap(), Page::default());
    assert!(matches!(store.get(&name(".tmp/x"), None), Err(StoreError::NotFound { .. })));
    assert!(matches!(store.put_new(&name(".tmp/y"), b""), Err(StoreError::Io { action: "create", .. })));
    store.delete(&name(".tmp/x")).unwrap();
    assert_eq!(leftovers(&dir), ["x"]);
}

#[test]
fn directories_and_foreign_files_are_no_blobs() {
    let (dir, store) = new_store();
    store.put_new(&name("d/w/1"), b"1").unwrap();
    fs::write(dir.path().join("README"), b"no blob").unwrap();
    fs::write(dir.path().join("d/w/1~"), b"no blob").unwrap();
    assert_eq!(names(&store.list("", None, 10).unwrap()), ["d/w/1"]);
    assert!(matches!(store.get(&name("d"), None), Err(StoreError::NotFound { .. })));
    assert!(matches!(store.get(&name("d/w/1/x"), None), Err(StoreError::NotFound { .. })));
    store.delete(&name("d/w")).unwrap();
    store.delete(&name("d/w/1/x")).unwrap();
    assert!(matches!(store.put_new(&name("d/w"), b""), Err(StoreError::Io { .. })));
    assert!(matches!(store.put_new(&name("d/w/1/x"), b""), Err(StoreError::Io { .. })));
    assert_eq!(store.get(&name("d/w/1"), None).unwrap(), b"1");
}

#[test]
fn symbolic_links_are_not_followed() {
    let (dir, store) = new_store();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("d")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("s")).unwrap();
    assert!(store.get(&name("d/secret"), None).is_err());
    assert!(store.get(&name("s"), None).is_err());
    assert!(store.put_new(&name("d/new"), b"1").is_err());
    assert!(store.delete(&name("d/secret")).is_err());
    assert!(store.list("d/", None, 10).is_err());
    let page = store.list("", None, 10).unwrap();
    let foreign = vec![foreign("d", "a symbolic link"), foreign("s", "a symbolic link")];
    assert_eq!(page, Page { foreign, ..Page::default() });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_prefix_that_is_a_whole_name_is_answered_without_the_rest() {
    let (_dir, store) = new_store();
    for text in ["d/w/1", "d/w/1-x", "d/w/10"] {
        store.put_new(&name(text), text.as_bytes()).unwrap();
    }
    let first = store.list("d/w/1", None, 10).unwrap();
    let modified = first.blobs.first().expect("a page with a blob").modified;
    let expected = BlobInfo { name: name("d/w/1"), len: 5, modified, tier: None };
    assert_eq!(first, Page { blobs: vec![expected], next: Some(name("d/w/1-")), foreign: Vec::new() });
    let rest = store.list("d/w/1", first.next.as_ref(), 10).unwrap();
    assert_eq!((names(&rest), &rest.next), (vec!["d/w/1-x", "d/w/10"], &None));
}

#[test]
fn a_pipe_in_place_of_a_blob_is_an_error() {
    let (dir, store) = new_store();
    let path = dir.path().join("config");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let error = store.get(&name("config"), None).unwrap_err();
    assert_eq!(error.to_string(), format!("could not read {}", path.display()));
}

#[test]
fn what_is_no_blob_is_told_of_once_on_whatever_page() {
    let (dir, store) = new_store();
    for text in ["a", "d/w/1", "d/w/2", "z"] {
        store.put_new(&name(text), b"1").unwrap();
    }
    let at = |text: &str| dir.path().join(text);
    fs::create_dir(at("lost+found")).unwrap();
    fs::create_dir(at("d/empty")).unwrap();
    fs::create_dir(at("Folder")).unwrap();
    fs::write(at("Folder/hidden"), b"1").unwrap();
    fs::write(at("d/w/1~"), b"1").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"d/bad-\xff")), b"1").unwrap();
    fs::write(at("d/two\nlines"), b"1").unwrap();
    let deep = "d/".to_owned() + &"long/".repeat(50);
    fs::create_dir_all(at(&deep)).unwrap();
    fs::write(at(&(deep.clone() + "too-long")), b"1").unwrap();
    std::os::unix::fs::symlink("config", at("d/link")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, at("d/w/3"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut expected = vec![
        foreign("Folder/", "a directory"),
        foreign("d/bad-\\xff", "a file"),
        foreign("d/empty/", "an empty directory"),
        foreign("d/link", "a symbolic link"),
        foreign(&(deep + "too-long"), "a file"),
        foreign("d/two\\nlines", "a file"),
        foreign("d/w/1~", "a file"),
        foreign("d/w/3", "a pipe"),
    ];
    expected.sort();
    for limit in 1..6 {
        let mut found = Vec::new();
        let mut from = None;
        loop {
            let page = store.list("", from.as_ref(), limit).unwrap();
            found.extend(page.foreign);
            let Some(next) = page.next else { break };
            from = Some(next);
        }
        found.sort();
        assert_eq!(found, expected, "pages of {limit}");
    }
    assert!(matches!(store.get(&name("d/w/3"), None), Err(error) if error.is_damage()));
    assert!(matches!(store.get(&name("d/link"), None), Err(error) if error.is_damage()));
}
