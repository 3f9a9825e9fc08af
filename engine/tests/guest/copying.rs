//! Copying out of guests: what is made, and that nothing is made elsewhere.

use crate::images::{
    CHANGED, MIB, Thing, Workshop, allocated, assert_same, noise, refusing, run, things, with_image,
};
use keepstone_engine::EngineError;
use keepstone_engine::guest::{
    CopyJob, CopyReport, Depth, Follow, GuestDisk, GuestError, Owners, ProblemKind, Tree, copy, with_guest,
};
use keepstone_engine::observer::{Event, Observer, Quiet};
use keepstone_engine::target::Existing;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

/// An image with everything in it.
fn image(workshop: &Workshop) -> (PathBuf, PathBuf) {
    let tree = workshop.tree();
    let image = workshop.image("ext4", 64 * MIB);
    run("mke2fs", &[&"-q", &"-t", &"ext4", &"-d", &tree, &image]);
    (tree, image)
}

fn copy_path(tree: &Tree, path: &[u8], job: &CopyJob<'_>) -> Result<CopyReport, GuestError> {
    copy(tree, &tree.resolve(path, Follow::Never)?, job, &Quiet)
}

fn copied(image: &Path, path: &[u8], job: &CopyJob<'_>) -> Result<CopyReport, GuestError> {
    with_image(image, |guest| copy_path(&guest.only(None)?, path, job))
}

/// What is in a directory, by name.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_tree_is_copied_with_modes_times_links_and_holes() {
    let workshop = Workshop::new();
    let (tree, image) = image(&workshop);
    let target = workshop.path("copy");
    let report = copied(&image, b"/", &refusing(&target)).unwrap();
    assert_eq!((report.problem_count, report.links, report.files), (0, 5, 313));
    fs::remove_dir(target.join("lost+found")).unwrap();
    assert_same(things(&target), things(&tree));
    let known = |name: &str| target.join(name).symlink_metadata().unwrap();
    // What lets others be the owner is not given to a file of somebody else.
    assert_eq!((known("one").mode() & 0o7777, known("deep").mode() & 0o7777), (0o751, 0o777));
    let changed = i64::try_from(CHANGED).unwrap();
    assert_eq!([known("one").mtime(), known("many").mtime(), known("large").mtime()], [changed; 3]);
    assert!(allocated(&target.join("holes")) < 200_000, "{}", allocated(&target.join("holes")));
    assert_eq!(report.bytes - report.written_bytes, holes(&tree));
}

/// The zeros that lie in whole blocks of the files.
fn holes(tree: &Path) -> u64 {
    let zeros = |content: Vec<u8>| {
        let holes = content.chunks(4096).filter(|block| block.iter().all(|byte| *byte == 0));
        holes.map(|block| u64::try_from(block.len()).unwrap()).sum::<u64>()
    };
    things(tree)
        .into_values()
        .map(|thing| if let Thing::File(content) = thing { zeros(content) } else { 0 })
        .sum()
}

#[test]
fn a_single_file_is_refused_or_replaced_where_one_is() {
    let workshop = Workshop::new();
    let (_, image) = image(&workshop);
    let out = workshop.path("out");
    fs::create_dir(&out).unwrap();
    let target = out.join("file");
    fs::write(&target, b"old").unwrap();
    let error = copied(&image, b"/one", &refusing(&target)).unwrap_err();
    assert_eq!(error.to_string(), format!("could not create {}", target.display()));
    assert_eq!((fs::read(&target).unwrap(), names(&out)), (b"old".to_vec(), vec!["file".to_owned()]));
    let job = CopyJob { existing: Existing::Replace, ..refusing(&target) };
    let report = copied(&image, b"/one", &job).unwrap();
    assert_eq!((report.files, report.bytes), (1, 1));
    assert_eq!((fs::read(&target).unwrap(), names(&out)), (b"1".to_vec(), vec!["file".to_owned()]));
}

#[test]
fn a_directory_is_copied_only_when_that_was_asked_for() {
    let workshop = Workshop::new();
    let (_, image) = image(&workshop);
    let target = workshop.path("copy");
    let job = CopyJob { depth: Depth::File, ..refusing(&target) };
    let error = copied(&image, b"/deep", &job).unwrap_err();
    assert!(matches!(error, GuestError::IsADirectory { .. }), "{error:?}");
    assert!(!target.exists());
    let report = copied(&image, b"/deep", &refusing(&target)).unwrap();
    assert_eq!((report.files, report.directories, report.links), (1, 4, 1));
    assert_eq!(fs::read(target.join("er/and/deeper/file")).unwrap(), noise(4, 999));
}

#[test]
fn owners_are_kept_where_that_was_asked_for() {
    let workshop = Workshop::new();
    let (_, image) = image(&workshop);
    for (path, field) in [("/one", "uid"), ("/one", "gid"), ("/link", "uid")] {
        run("debugfs", &[&"-w", &"-R", &format!("set_inode_field {path} {field} 12345"), &image]);
    }
    let target = workshop.path("copy");
    let job = CopyJob { owners: Owners::Guest, ..refusing(&target) };
    let copied = copied(&image, b"/", &job);
    if !is_root() {
        // Only root can give files away.
        assert!(copied.unwrap_err().to_string().starts_with("could not change the owner of "));
        return;
    }
    copied.unwrap();
    let known = |name: &str| target.join(name).symlink_metadata().unwrap();
    assert_eq!(
        (known("one").uid(), known("one").gid(), known("one").mode() & 0o7777),
        (12_345, 12_345, 0o4751)
    );
    assert_eq!(known("link").uid(), 12_345);
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn links_of_the_guest_lead_nothing_astray() {
    let workshop = Workshop::new();
    let outside = workshop.path("outside");
    fs::create_dir(&outside).unwrap();
    let tree = workshop.path("tree");
    fs::create_dir_all(tree.join("a")).unwrap();
    fs::write(tree.join("a/file"), b"content").unwrap();
    let image = workshop.image("ext4", 8 * MIB);
    run("mke2fs", &[&"-q", &"-t", &"ext4", &"-d", &tree, &image]);
    // What lies in the way leads elsewhere, and may be replaced, but not followed.
    let target = workshop.path("copy");
    fs::create_dir(&target).unwrap();
    symlink(&outside, target.join("a")).unwrap();
    let job = CopyJob { existing: Existing::Replace, ..refusing(&target) };
    let report = copied(&image, b"/", &job).unwrap();
    assert_eq!(report.problems.len(), 1);
    assert_eq!((report.problems[0].path.as_str(), report.problems[0].kind), ("/a", ProblemKind::Target));
    fs::remove_file(target.join("a")).unwrap();
    fs::create_dir(target.join("a")).unwrap();
    symlink(outside.join("file"), target.join("a/file")).unwrap();
    let report = copied(&image, b"/", &job).unwrap();
    assert_eq!(report.problem_count, 0);
    assert_eq!(fs::read(target.join("a/file")).unwrap(), b"content");
    assert!(!target.join("a/file").is_symlink());
    assert_eq!(names(&outside), [""; 0]);
}

/// Replaces the name of a directory's entry where it lies in an image without checksums.
fn rename_within(image: &Path, name: &[u8], other: &[u8]) {
    let mut bytes = fs::read(image).unwrap();
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at..at + other.len()].copy_from_slice(other);
    fs::write(image, bytes).unwrap();
}

#[test]
fn names_that_no_file_can_have_are_told_and_the_rest_is_copied() {
    let workshop = Workshop::new();
    let tree = workshop.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/QQQZescape"), b"hostile").unwrap();
    fs::write(tree.join("sub/file"), b"content").unwrap();
    let image = workshop.image("fat", 4 * MIB);
    run("mkfs.vfat", &[&image]);
    run("mcopy", &[&"-i", &image, &"-s", &tree.join("sub"), &"::"]);
    let long: Vec<u8> = "QQQZescape".encode_utf16().take(5).flat_map(u16::to_le_bytes).collect();
    let other: Vec<u8> = "../..".encode_utf16().flat_map(u16::to_le_bytes).collect();
    rename_within(&image, &long, &other);
    let target = workshop.path("copy");
    let report = copied(&image, b"/sub", &refusing(&target)).unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert_eq!(
        (report.problems[0].path.as_str(), report.problems[0].kind),
        ("/sub/../..scape", ProblemKind::Name)
    );
    assert_eq!(names(&target), ["file"]);
}

#[test]
fn special_files_are_told_and_the_rest_is_copied() {
    let workshop = Workshop::new();
    let (tree, image) = image(&workshop);
    run("debugfs", &[&"-w", &"-R", &"mknod pipe p", &image]);
    run("debugfs", &[&"-w", &"-R", &"mknod device b 8 0", &image]);
    let target = workshop.path("copy");
    let report = copied(&image, b"/", &refusing(&target)).unwrap();
    let problems: Vec<_> =
        report.problems.iter().map(|problem| (problem.path.as_str(), problem.kind)).collect();
    assert_eq!(problems, [("/device", ProblemKind::Special), ("/pipe", ProblemKind::Special)]);
    assert_eq!(things(&target).len(), things(&tree).len() + 1);
    let error = copied(&image, b"/pipe", &refusing(&workshop.path("pipe"))).unwrap_err();
    assert!(matches!(error, GuestError::Special { .. }), "{error:?}");
}

/// A disk of which a part is lost.
fn with_lost_part<T>(image: &Path, lost: std::ops::Range<u64>, work: impl FnOnce(&Tree) -> T) -> T {
    let file = File::open(image).unwrap();
    let size = file.metadata().unwrap().len();
    let read_at = |offset: u64, buffer: &mut [u8]| {
        let end = offset + u64::try_from(buffer.len()).unwrap();
        if offset < lost.end && lost.start < end {
            let name = repo_format::BlobName::config();
            return Err(EngineError::Damaged { name, source: repo_format::FormatError::BadTag });
        }
        file.read_exact_at(buffer, offset)
            .map_err(|source| EngineError::Source { disk: "image".to_owned(), source })
    };
    with_guest(&GuestDisk { size, read_at: &read_at }, |guest| work(&guest.only(None).unwrap()))
}

#[test]
fn a_file_that_is_damaged_in_the_repository_is_told_and_the_rest_is_copied() {
    let workshop = Workshop::new();
    let (tree, image) = image(&workshop);
    let content = fs::read(tree.join("large")).unwrap();
    let bytes = fs::read(&image).unwrap();
    let place = bytes.windows(64).position(|window| window == &content[1 << 20..][..64]).unwrap();
    let lost = u64::try_from(place).unwrap();
    let target = workshop.path("copy");
    let report =
        with_lost_part(&image, lost..lost + 1, |tree| copy_path(tree, b"/", &refusing(&target))).unwrap();
    let problems: Vec<_> =
        report.problems.iter().map(|problem| (problem.path.as_str(), problem.kind)).collect();
    assert_eq!(problems, [("/large", ProblemKind::Damaged)]);
    assert!(report.has_damage);
    let mut expected = things(&tree);
    expected.remove(b"/large".as_slice());
    fs::remove_dir(target.join("lost+found")).unwrap();
    assert_same(things(&target), expected);
    let error = with_lost_part(&image, lost..lost + 1, |tree| {
        copy_path(tree, b"/large", &refusing(&workshop.path("large"))).unwrap_err()
    });
    assert!(matches!(&error, GuestError::Disk(error) if error.is_damage()), "{error:?}");
    assert!(!workshop.path("large").exists());
}

/// Wants to stop after so many events.
struct Impatient(std::sync::atomic::AtomicUsize);

impl Observer for Impatient {
    fn observe(&self, _: Event) -> ControlFlow<()> {
        let left = &self.0;
        if left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 1 {
            left.store(1, std::sync::atomic::Ordering::Relaxed);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn a_copy_that_is_stopped_leaves_no_incomplete_file() {
    let workshop = Workshop::new();
    let (_, image) = image(&workshop);
    let out = workshop.path("out");
    fs::create_dir(&out).unwrap();
    let error = with_image(&image, |guest| {
        let tree = guest.only(None).unwrap();
        let entry = tree.resolve(b"/large", Follow::Never).unwrap();
        copy(&tree, &entry, &refusing(&out.join("large")), &Impatient(3.into())).unwrap_err()
    });
    assert!(matches!(error, GuestError::Disk(EngineError::Cancelled)), "{error:?}");
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn the_name_of_an_incomplete_file_may_be_taken() {
    let workshop = Workshop::new();
    let (_, image) = image(&workshop);
    let out = workshop.path("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join(".keepstone-partial-0"), b"mine").unwrap();
    copied(&image, b"/one", &refusing(&out.join("one"))).unwrap();
    assert_eq!(fs::read(out.join(".keepstone-partial-0")).unwrap(), b"mine");
    assert_eq!(names(&out), [".keepstone-partial-0", "one"]);
}

#[test]
fn a_target_that_is_full_ends_a_copy() {
    let workshop = Workshop::new();
    let (_, image) = image(&workshop);
    let error = copied(&image, b"/one", &refusing(Path::new("/proc/self/one"))).unwrap_err();
    assert!(matches!(error, GuestError::Target { .. }), "{error:?}");
    let name = OsStr::from_bytes(b"no/directory");
    let error = copied(&image, b"/one", &refusing(&workshop.dir.path().join(name))).unwrap_err();
    assert!(error.to_string().starts_with("could not open "), "{error}");
}
