//! Restores in place, and restores that go on.

use crate::world::{Ended, MIB, World, noise, text};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;

const SIZE: usize = 4 * MIB;

/// Two snapshots of a disk with change ids: `one`, and `two` with three areas of 64 KiB changed.
fn two_snapshots() -> (World, Vec<u8>, Vec<u8>) {
    let world = World::with_repository();
    let one = noise(1, SIZE);
    let mut two = one.clone();
    for area in [3, 20, 40] {
        two[area << 16..(area + 1) << 16].copy_from_slice(&noise(area as u64, 1 << 16));
    }
    for (disk, since, change_id, areas) in
        [(&one, None, "one", [].as_slice()), (&two, Some("one"), "two", &[3, 20, 40])]
    {
        world.write("disk.raw", disk);
        world.changes("changes.json", SIZE, since, change_id, areas);
        let backup = ["backup", "--vm", "web", "disk.raw", "--changes", "changes.json", "--audit", "0"];
        assert!(matches!(world.run(&backup).code, Some(0 | 4)));
    }
    (world, one, two)
}

fn snapshots(world: &World) -> Vec<String> {
    let listed = world.report(&["snapshots"]);
    listed["snapshots"].as_array().unwrap().iter().map(|snapshot| text(snapshot, "snapshot")).collect()
}

/// The names of what a restore may leave.
fn left(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.dir.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<String> = names.filter(|name| name.contains(".keepstone-")).collect();
    left.sort();
    left
}

fn number(report: &Value, key: &str) -> usize {
    usize::try_from(report[key].as_u64().unwrap_or_else(|| panic!("{key} of {report}"))).unwrap()
}

/// Flips a bit in the middle of the pack of the first backup; again, and it is as it was.
fn flip(world: &World) {
    let packs = fs::read_dir(world.path("repo/d/default")).unwrap().map(|entry| entry.unwrap().path());
    let pack = packs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[2 * MIB] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
}

#[test]
fn a_disk_is_brought_back_in_place_and_only_what_differs_is_written() {
    let (world, one, two) = two_snapshots();
    let ids = snapshots(&world);
    world.write("disk.raw", &two);
    let report = world.report(&["restore", &ids[0], "--to", "disk.raw", "--in-place"]);
    assert!(world.read("disk.raw") == one);
    assert_eq!(number(&report, "writtenBytes"), 3 << 16);
    // All of it, and once more the chunks that differ.
    assert!((SIZE..SIZE + SIZE / 4).contains(&number(&report, "comparedBytes")), "{report}");
    assert_eq!(number(&report, "unchangedBytes"), SIZE - (3 << 16));
    assert!(number(&report, "fetchedBytes") < SIZE / 4, "{report}");
    assert_eq!(left(&world), [""; 0]);

    let longer = [two.as_slice(), &[7; 1000]].concat();
    for changed in [&longer[..], &two[..SIZE / 2]] {
        world.write("disk.raw", changed);
        let told = world.run(&["restore", &ids[0], "--to", "disk.raw", "--in-place"]).done();
        assert!(world.read("disk.raw") == one);
        assert!(told.contains(" left as they were; "), "{told}");
    }
}

#[test]
fn with_a_changes_file_only_what_changed_is_read() {
    let (world, one, two) = two_snapshots();
    let ids = snapshots(&world);
    let mut now = two.clone();
    now[50 << 16..][..100].fill(1);
    world.changes("changes.json", SIZE, Some("two"), "three", &[50]);
    for (wanted, id, areas) in [(&two, &ids[1], 1), (&one, &ids[0], 4)] {
        world.write("disk.raw", &now);
        let in_place = ["--to", "disk.raw", "--in-place", "--changes", "changes.json", "--audit", "0"];
        let report = world.report(&[&["restore", id], in_place.as_slice()].concat());
        assert!(world.read("disk.raw") == *wanted);
        assert_eq!(text(&report, "changesSince"), ids[1]);
        // Each area with the chunks that reach out of it, and once more what is written.
        assert!(number(&report, "comparedBytes") < areas * 6 * (1 << 16), "{report}");
        assert!(number(&report, "writtenBytes") <= areas << 16, "{report}");
    }
}

#[test]
fn a_change_that_nobody_told_of_is_found_and_undone() {
    let (world, _, two) = two_snapshots();
    let ids = snapshots(&world);
    let mut now = two.clone();
    now[60 << 16] ^= 1;
    world.write("disk.raw", &now);
    world.changes("changes.json", SIZE, Some("two"), "three", &[50]);
    let restore = ["restore", &ids[1], "--to", "disk.raw", "--in-place", "--changes", "changes.json"];
    let ended = world.run(&[&["--json"], restore.as_slice()].concat());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.stderr.contains("warning: the disk had changed where nothing told so: 3932160 to "),
        "{ended:?}"
    );
    let report = ended.json();
    let [untold] = report["untold"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((number(untold, "start"), number(untold, "length") <= 4096), (60 << 16, true));
    assert_eq!(report["auditedRegions"], json!(1));
    assert!(world.read("disk.raw") == two);
}

#[test]
fn changes_since_what_no_snapshot_recorded_are_not_used() {
    let (world, one, two) = two_snapshots();
    let ids = snapshots(&world);
    for (since, reason) in [
        (Some("other"), "the changes count from other, which no snapshot of the disk recorded"),
        (None, "the changes do not say what they count from"),
    ] {
        world.write("disk.raw", &two);
        world.changes("changes.json", SIZE, since, "three", &[]);
        let restore = ["restore", &ids[0], "--to", "disk.raw", "--in-place", "--changes", "changes.json"];
        let ended = world.run(&[&["--json"], restore.as_slice()].concat());
        assert_eq!(ended.code, Some(4), "{ended:?}");
        assert_eq!(text(&ended.json(), "comparedReason"), reason);
        assert!(
            ended.stderr.contains(&format!("warning: all of the disk was compared: {reason}")),
            "{ended:?}"
        );
        assert!(world.read("disk.raw") == one);
    }
}

#[test]
fn a_restore_that_failed_goes_on() {
    let (world, one, _) = two_snapshots();
    let ids = snapshots(&world);
    flip(&world);
    let restore = ["restore", &ids[0], "--to", "out.raw"];
    let ended = world.run(&restore);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let kept = "keepstone: what was restored so far is in out.raw.keepstone-partial; the same command with --resume goes on from there\n";
    assert!(ended.stderr.starts_with(kept), "{ended:?}");
    assert_eq!(left(&world), ["out.raw.keepstone-journal", "out.raw.keepstone-partial"]);
    assert!(!world.path("out.raw").exists());

    let ended = world.run(&["restore", &ids[1], "--to", "out.raw", "--resume"]);
    let other = format!(
        "keepstone: error: the journal out.raw.keepstone-journal is of disk disk0 of snapshot {} to out.raw\n  hint: go on with that restore, or leave out --resume to begin this one\n",
        ids[0]
    );
    assert_eq!((ended.code, ended.stderr), (Some(1), other));

    flip(&world);
    let report = world.report(&[restore.as_slice(), &["--resume"]].concat());
    assert!(world.read("out.raw") == one);
    assert_eq!(left(&world), [""; 0]);
    assert!(number(&report, "writtenBytes") < SIZE, "{report}");
    assert_eq!(number(&report, "writtenBytes") + number(&report, "unchangedBytes"), SIZE);
}

/// Writes into a journal that all of the disk is complete.
fn forge(world: &World) {
    let journal = String::from_utf8(world.read("out.raw.keepstone-journal")).unwrap();
    let first = journal.lines().next().unwrap();
    let forged = format!("{first}\n{{\"done\":{{\"start\":0,\"length\":{SIZE}}}}}\n");
    world.write("out.raw.keepstone-journal", forged.as_bytes());
}

#[test]
fn what_a_journal_says_counts_for_its_own_file_only() {
    let (world, one, _) = two_snapshots();
    let ids = snapshots(&world);
    let restore = ["restore", &ids[0], "--to", "out.raw"];
    let resume = [&restore[..], &["--resume"]].concat();
    let partial = world.path("out.raw.keepstone-partial");
    let replaced = |replace: &dyn Fn()| {
        flip(&world);
        assert_eq!(world.run(&restore).code, Some(3));
        flip(&world);
        forge(&world);
        replace();
        let ended = world.run(&resume);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(world.read("out.raw") == one);
        assert_eq!(left(&world), [""; 0]);
        fs::remove_file(world.path("out.raw")).unwrap();
    };
    replaced(&|| fs::remove_file(&partial).unwrap());
    replaced(&|| fs::File::options().write(true).open(&partial).unwrap().set_len(0).unwrap());
    replaced(&|| {
        let mut bytes = fs::read(&partial).unwrap();
        bytes[..SIZE].fill(0);
        fs::remove_file(&partial).unwrap();
        fs::write(&partial, bytes).unwrap();
    });
    // An image that is there is another file than the one that was begun beside it.
    flip(&world);
    assert_eq!(world.run(&restore).code, Some(3));
    flip(&world);
    forge(&world);
    world.write("out.raw", &vec![0; SIZE]);
    let ended = world.run(&[&resume[..], &["--in-place"]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    world.run(&[&restore[..], &["--in-place"]].concat()).done();
    assert!(world.read("out.raw") == one);
    fs::remove_file(&partial).unwrap();
    // What it does say of its own file is believed.
    fs::remove_file(world.path("out.raw")).unwrap();
    flip(&world);
    assert_eq!(world.run(&restore).code, Some(3));
    forge(&world);
    assert_eq!(number(&world.report(&resume), "comparedBytes"), 0);
}

#[test]
fn a_restore_that_was_killed_goes_on() {
    let (world, one, _) = two_snapshots();
    let ids = snapshots(&world);
    let restore = ["restore", &ids[0], "--to", "out.raw"];
    // The system kills whoever writes a file beyond its limit.
    let program = env!("CARGO_BIN_EXE_keepstone");
    let mut command = world.bare("prlimit");
    command.args([&format!("--fsize={}", 3 * MIB), "--core=0", program]);
    command.args(["-r", "repo", "--password-file", "password"]).args(restore);
    assert_eq!(command.output().unwrap().status.signal(), Some(25), "SIGXFSZ");
    let ended = world.run(&[&restore[..], &["--resume"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(world.read("out.raw") == one);
    assert_eq!(left(&world), [""; 0]);
}

#[test]
fn where_there_is_nothing_to_go_on_with_a_restore_begins() {
    let (world, _, two) = two_snapshots();
    world.run(&["restore", "web@latest", "--to", "out.raw", "--resume"]).done();
    assert!(world.read("out.raw") == two);
    assert_eq!(left(&world), [""; 0]);
}

#[test]
fn a_restore_in_place_that_was_interrupted_spoils_what_is_known_of_changes() {
    let (world, one, two) = two_snapshots();
    let ids = snapshots(&world);
    world.write("disk.raw", &noise(9, SIZE));
    flip(&world);
    let ended = world.run(&["restore", &ids[0], "--to", "disk.raw", "--in-place"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.starts_with("keepstone: disk.raw is incomplete; "), "{ended:?}");
    assert_eq!(left(&world), ["disk.raw.keepstone-journal"]);
    flip(&world);
    world.changes("changes.json", SIZE, Some("two"), "three", &[]);
    let restore = ["restore", &ids[1], "--to", "disk.raw", "--in-place", "--changes", "changes.json"];
    let ended = world.run(&[&["--json"], restore.as_slice()].concat());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let reason = "an interrupted restore has left or found changes on the disk that nothing tells of";
    assert_eq!(text(&ended.json(), "comparedReason"), reason);
    assert!(world.read("disk.raw") == two && two != one);
    assert_eq!(left(&world), [""; 0]);
}

/// Makes a journal of an interrupted restore say that all is complete.
fn complete(world: &World, name: &str) {
    let mut journal = fs::read_to_string(world.path(name)).unwrap();
    let first = journal.find('\n').unwrap() + 1;
    journal.truncate(first);
    let done = json!({"done": {"start": 0, "length": SIZE}});
    fs::write(world.path(name), format!("{journal}{done}\n")).unwrap();
}

#[test]
fn what_was_complete_in_a_file_that_is_gone_is_restored_again() {
    let (world, one, _) = two_snapshots();
    let ids = snapshots(&world);
    flip(&world);
    let restore = ["restore", &ids[0], "--to", "out.raw"];
    assert_eq!(world.run(&restore).code, Some(3));
    flip(&world);
    complete(&world, "out.raw.keepstone-journal");
    fs::remove_file(world.path("out.raw.keepstone-partial")).unwrap();
    world.run(&[&restore[..], &["--resume"]].concat()).done();
    assert!(world.read("out.raw") == one);
    assert_eq!(left(&world), [""; 0]);
}

#[test]
fn what_is_complete_in_place_is_not_so_in_a_new_file() {
    let (world, one, _) = two_snapshots();
    let other = noise(9, SIZE);
    let ids = snapshots(&world);
    world.write("disk.raw", &other);
    let restore = ["restore", &ids[0], "--to", "disk.raw"];
    let (in_place, new) = (["--in-place"].as_slice(), ["--overwrite"].as_slice());
    for (first, second) in [(in_place, new), (new, in_place)] {
        flip(&world);
        assert_eq!(world.run(&[&restore[..], first].concat()).code, Some(3));
        flip(&world);
        complete(&world, "disk.raw.keepstone-journal");
        let ended = world.run(&[&restore[..], second, &["--resume"]].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("the journal disk.raw.keepstone-journal is of disk disk0 "),
            "{ended:?}"
        );
        world.run(&[&restore[..], second].concat()).done();
        assert!(world.read("disk.raw") == one);
        world.write("disk.raw", &other);
    }
}

#[test]
fn what_is_replaced_is_not_said_to_be_complete() {
    let (world, one, _) = two_snapshots();
    let ids = snapshots(&world);
    flip(&world);
    let restore = ["restore", &ids[0], "--to", "out.raw"];
    assert_eq!(world.run(&restore).code, Some(3));
    complete(&world, "out.raw.keepstone-journal");
    // It is replaced by another one, which ends before it has a journal of its own.
    world.write("out.raw", b"");
    assert_eq!(world.run(&["restore", &ids[1], "--to", "out.raw"]).code, Some(1));
    fs::remove_file(world.path("out.raw")).unwrap();
    flip(&world);
    let report = world.report(&[&restore[..], &["--resume"]].concat());
    assert!(world.read("out.raw") == one && number(&report, "comparedBytes") >= SIZE / 2, "{report}");
}

#[test]
fn what_another_snapshot_left_is_known_however_often_a_restore_is_interrupted() {
    let (world, _, two) = two_snapshots();
    let ids = snapshots(&world);
    world.write("disk.raw", &noise(9, SIZE));
    world.changes("changes.json", SIZE, Some("two"), "three", &[]);
    flip(&world);
    assert_eq!(world.run(&["restore", &ids[0], "--to", "disk.raw", "--in-place"]).code, Some(3));
    let restore = ["restore", &ids[1], "--to", "disk.raw", "--in-place", "--changes", "changes.json"];
    for more in [[].as_slice(), &["--resume"], &[]] {
        assert_eq!(world.run(&[&restore[..], more].concat()).code, Some(3), "{more:?}");
    }
    flip(&world);
    let ended = world.run(&[&restore[..], &["--resume"]].concat());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(world.read("disk.raw") == two);
    assert_eq!(left(&world), [""; 0]);
}

#[test]
fn what_is_restored_from_the_beginning_once_more_is_told() {
    let (world, one, _) = two_snapshots();
    let ids = snapshots(&world);
    flip(&world);
    let restore = ["restore", &ids[0], "--to", "out.raw"];
    assert_eq!(world.run(&restore).code, Some(3));
    flip(&world);
    let ended = world.run(&restore);
    let told = "keepstone: an interrupted restore of the same disk is begun anew; --resume would have gone on with it\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), told));
    assert!(world.read("out.raw") == one);
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let (world, ..) = two_snapshots();
    world.write("disk.raw", b"");
    let told = |options: &[&str]| {
        let Ended { code, stderr, .. } = world.run(&[&["restore", "web@latest"], options].concat());
        assert_eq!(code, Some(2), "{stderr}");
        stderr.lines().next().unwrap_or_default().to_owned()
    };
    for (options, error) in [
        (
            ["--to", "-", "--in-place"].as_slice(),
            "keepstone: error: --in-place needs a target that can be read",
        ),
        (&["--to", "-", "--resume"], "keepstone: error: --resume needs a target that can be read"),
        (
            &["--to", "new.raw", "--in-place"],
            "keepstone: error: new.raw does not exist, and --in-place brings back a disk that is there",
        ),
        (
            &["--to", "disk.raw", "--in-place", "--bitmap", "b0", "--since", "web@latest"],
            "keepstone: error: disk.raw is not an NBD export and has no dirty bitmap",
        ),
    ] {
        assert_eq!(told(options), error);
    }
    for options in [
        ["--to", "disk.raw", "--in-place", "--overwrite"].as_slice(),
        &["--to", "disk.raw", "--changes", "changes.json"],
        &["--to", "nbd://host/", "--in-place", "--bitmap", "b0"],
    ] {
        assert!(told(options).starts_with("error: the "), "{options:?}");
    }
    assert_eq!(json!(world.read("disk.raw")), json!([]));
}
