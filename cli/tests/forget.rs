//! Forgetting and pinning, as a user does it. The backups are made by the engine, at times that are known.

mod world;

use keepstone_engine::backup::{Audit, BackupJob, Compression, JobDisk, Reading, Unfinished, backup};
use keepstone_engine::index::LocalIndex;
use keepstone_engine::observer::Quiet;
use keepstone_engine::repository::NewSlot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::LocalStore;
use keepstone_engine::{Entropy, Repository};
use repo_format::{Geometry, KdfParams, SlotName, WriterId};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use world::{Ended, World, noise, text};

/// Monday, 1 January 2024, 00:00 UTC.
const MONDAY: u64 = 1_704_067_200_000;
const DAY: u64 = 86_400_000;
const POLICY: [&str; 4] = ["--keep-daily", "2", "--keep-weekly", "2"];

/// A world whose repository has backups of some VMs on some days after [`MONDAY`], in the evening.
fn world(backups: &[(&str, u64, &str)]) -> World {
    let world = World::new();
    world.write("retention", b"only here");
    let store = LocalStore::create(&world.path("repo")).expect("a directory");
    // Passwords that are cheap to try, since every run tries some.
    let kdf = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };
    let slots = ["first", "retention"].map(|name| SlotName::new(name).expect("a slot name"));
    let slot = NewSlot { name: &slots[0], label: "", password: b"correct horse", kdf, time: MONDAY };
    let retention = NewSlot { name: &slots[1], password: b"only here", ..slot };
    let repository =
        Repository::create(&store, Geometry::default(), &slot, &retention, &Entropy::new([1; 32]))
            .expect("a repository");
    for (vm, day, tag) in backups {
        back_up(&repository, vm, MONDAY + day * DAY + 22 * DAY / 24, tag);
    }
    date_decisions(&world);
    world
}

fn back_up(repository: &Repository<'_>, vm: &str, time: u64, tag: &str) {
    let key = repository.keys().local_key("keepstone v0 local index");
    let id = repository.config().repository;
    let mut index = LocalIndex::open(None, id, key, 1 << 20).expect("it is in memory");
    let disk = MemoryDisk::new(noise(time, 5000));
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&time.to_le_bytes());
    seed[8..8 + vm.len()].copy_from_slice(vm.as_bytes());
    let job = BackupJob {
        vm,
        writer: &WriterId::new("host-a").expect("a writer id"),
        disks: vec![JobDisk::new("disk0", &disk)],
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(1),
        tags: vec![tag.to_owned()],
        properties: Vec::new(),
        time,
        program: "test",
        entropy: Entropy::new(seed),
        unfinished: Unfinished::MayRun { ended: &[] },
        checkpoint_due: &|| false,
    };
    backup(repository, &mut index, &job, &Quiet).expect("it is backed up");
}

/// Dates each decision as if the store's clock had shown the time of its backup.
fn date_decisions(world: &World) {
    let listed = world.report(&["snapshots"]);
    for line in listed["snapshots"].as_array().expect("a list") {
        let time: jiff::Timestamp = text(line, "time").parse().expect("a time");
        let millis = u64::try_from(time.as_millisecond()).expect("after 1970");
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let path = decision(world, &text(line, "snapshot"));
        File::options().write(true).open(path).and_then(|file| file.set_modified(date)).expect("a date");
    }
}

/// The file of a snapshot's decision.
fn decision(world: &World, id: &str) -> PathBuf {
    files(&world.path("repo/r")).into_iter().find(|path| path.to_string_lossy().contains(id)).expect("a file")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect();
    files.sort();
    files
}

fn forget(world: &World, arguments: &[&str]) -> Ended {
    run(world, &[&["forget"], arguments].concat())
}

/// Runs a command with the retention password.
fn run(world: &World, arguments: &[&str]) -> Ended {
    Ended::of(world.command(arguments).args(["--retention-password-file", "retention"]).output())
}

fn some(all: &[String], positions: &[usize]) -> Vec<String> {
    positions.iter().map(|position| all[*position].clone()).collect()
}

fn ids(world: &World) -> Vec<String> {
    let listed = world.report(&["snapshots"]);
    listed["snapshots"].as_array().expect("a list").iter().map(|line| text(line, "snapshot")).collect()
}

const TWO_WEEKS: [(&str, u64, &str); 7] = [
    ("web", 0, "nightly"),
    ("web", 1, "nightly"),
    ("web", 7, "nightly"),
    ("web", 8, "manual"),
    ("web", 14, "nightly"),
    ("web", 15, "nightly"),
    ("db", 16, "nightly"),
];

#[test]
fn a_dry_run_prints_what_stays_by_which_rules_and_needs_no_retention_password() {
    let world = world(&TWO_WEEKS);
    let before = ids(&world);
    let text = world.run(&[&["forget", "--dry-run"], POLICY.as_slice()].concat()).done();
    insta::assert_snapshot!(text);
    assert_eq!(ids(&world), before);
}

#[test]
fn a_policy_forgets_what_the_dry_run_said_and_nothing_the_second_time() {
    let world = world(&TWO_WEEKS);
    let all = ids(&world);
    let text = forget(&world, &POLICY).done();
    insta::assert_snapshot!(text);
    assert_eq!(ids(&world), some(&all, &[3, 4, 5, 6]));
    assert_eq!(
        forget(&world, &[&POLICY[..], &["--quiet"]].concat()).done().lines().last(),
        Some("nothing to forget")
    );
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn the_report_has_all_that_the_text_has() {
    let world = world(&TWO_WEEKS);
    let report =
        forget(&world, &["--json", "--dry-run", "--vm", "web", "--tag", "manual", "--keep-last", "1"]).json();
    for key in ["forgottenBefore", "settled", "blocked", "unreadable", "unsigned"] {
        assert_eq!(report[key], json!([]), "{key}");
    }
    let manual = &ids(&world)[3];
    let expected = json!([{"vm": "web", "heldBy": [], "snapshots": [{
        "snapshot": manual, "time": "2024-01-09T22:00:00.000Z", "tags": ["manual"], "goes": false,
        "reasons": ["last", "latest"],
    }]}]);
    assert_eq!((&report["vms"], &report["stay"], &report["go"]), (&expected, &json!(1), &json!(0)));
    let none = forget(&world, &["--dry-run", "--vm", "mail", "--keep-last", "1"]);
    assert!(none.stderr.contains("there are no such snapshots of mail"), "{none:?}");
}

#[test]
fn snapshots_are_forgotten_by_name_and_the_last_one_by_force() {
    let world = world(&TWO_WEEKS);
    let all = ids(&world);
    let told = forget(&world, &[&all[0], "web@2024-01-09", "--json"]).json();
    assert_eq!(told["go"], 2);
    assert_eq!(ids(&world).len(), 5);
    let again = forget(&world, &[&all[0], &all[1]]).done();
    assert!(again.contains(&format!("{} was forgotten before", all[0])), "{again}");
    let last = forget(&world, &["db@latest"]);
    insta::assert_snapshot!(last.told(), @r"
    keepstone: error: db would have no snapshot left
      hint: add --force, if nothing of this VM is ever to be restored again from this repository
    exit code 1
    ");
    forget(&world, &["db@latest", "--force"]).done();
    assert_eq!(ids(&world), some(&all, &[2, 4, 5]));
}

#[test]
fn a_pinned_snapshot_is_shown_as_such_and_stays() {
    let world = world(&TWO_WEEKS[..3]);
    let all = ids(&world);
    let pinned = run(&world, &["pin", &all[0], "--reason", "the audit"]).done();
    assert_eq!(pinned, format!("snapshot {} of web is pinned\n", all[0]));
    let again = run(&world, &["pin", &all[0], "--reason", "the audit"]).done();
    assert_eq!(again, format!("snapshot {} of web is pinned, as it was\n", all[0]));
    insta::assert_snapshot!(world.run(&["snapshots"]).done());
    let shown = world.run(&["show", &all[0]]).done();
    assert!(
        shown.lines().any(|line| line.starts_with("pinned ") && line.ends_with(": the audit")),
        "{shown}"
    );
    let listed = world.report(&["snapshots"]);
    let flags: Vec<&Value> =
        listed["snapshots"].as_array().unwrap().iter().map(|line| &line["pinned"]).collect();
    assert_eq!(flags, [&json!(true), &json!(false), &json!(false)]);
    forget(&world, &["--keep-last", "1"]).done();
    assert_eq!(ids(&world), some(&all, &[0, 2]));
    let refused = forget(&world, &[&all[0]]);
    assert_eq!(
        refused.told(),
        format!(
            "keepstone: error: snapshot {} of web is pinned: the audit\n  hint: `keepstone unpin` takes the pin away, if it is \
             to go all the same\nexit code 1",
            all[0]
        )
    );
    run(&world, &["unpin", &all[0]]).done();
    forget(&world, &["--keep-last", "1"]).done();
    assert_eq!(ids(&world), all[2..]);
}

#[test]
fn calls_that_cannot_be_meant_are_refused_with_what_to_do() {
    let world = world(&TWO_WEEKS[..1]);
    let calls: [&[&str]; 7] = [
        &[],
        &["--keep-daily", "0", "--keep-last", "0"],
        &["web@latest", "--keep-daily", "1"],
        &["web@latest", "--vm", "web"],
        &["--keep-within", "2 weeks"],
        &["--keep-last", "some"],
        &["--unreadable", "abcdef"],
    ];
    let told = calls.iter().fold(String::new(), |told, call| {
        told + &format!("$ keepstone forget {}\n{}\n\n", call.join(" "), forget(&world, call).told())
    });
    insta::assert_snapshot!(told);
}

#[test]
fn without_the_retention_password_nothing_is_forgotten_or_pinned() {
    let world = world(&TWO_WEEKS[..2]);
    world.write("other", b"another password");
    for command in [&["forget", "--keep-last", "1"][..], &["pin", "web@latest"], &["unpin", "web@latest"]] {
        let refused = world.run(&[command, &["--retention-password-file", "other"]].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.contains("retention"), "{refused:?}");
        let without = world.run(command);
        assert_eq!(without.code, Some(1), "{without:?}");
        assert!(without.stderr.contains("KEEPSTONE_RETENTION_PASSWORD"), "{without:?}");
    }
    assert_eq!(ids(&world).len(), 2);
    assert_eq!(files(&world.path("repo/f")), Vec::<PathBuf>::new());
}

#[test]
fn times_that_the_store_contradicts_are_told_and_believed_only_if_asked() {
    let world = world(&TWO_WEEKS[..3]);
    let all = ids(&world);
    // A copy has new dates.
    for path in files(&world.path("repo/r")) {
        File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now())).unwrap();
    }
    let doubted = forget(&world, &["--keep-last", "1"]);
    assert_eq!(doubted.code, Some(4), "{doubted:?}");
    assert!(doubted.stderr.contains("add --trust-times if the repository was copied"), "{doubted:?}");
    assert_eq!(ids(&world), all);
    forget(&world, &["--keep-last", "1", "--trust-times"]).done();
    assert_eq!(ids(&world), all[2..]);
}

#[test]
fn a_decision_that_cannot_be_read_is_told_and_settled() {
    let world = world(&TWO_WEEKS[..3]);
    let all = ids(&world);
    let damaged = decision(&world, &all[1]);
    let mut permissions = fs::metadata(&damaged).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&damaged, permissions).unwrap();
    fs::write(&damaged, b"damaged").unwrap();
    let held = forget(&world, &["--keep-last", "1"]);
    assert_eq!(held.code, Some(3), "{held:?}");
    assert!(held.stderr.contains("web: nothing is forgotten by the policy"), "{held:?}");
    let settled = forget(&world, &["--unreadable", &all[1][..8]]).done();
    assert!(settled.contains("settled; what it stands for is forgotten"), "{settled}");
    forget(&world, &["--keep-last", "1"]).done();
    assert_eq!(ids(&world), all[2..]);
}

#[test]
fn a_name_that_something_else_has_is_told() {
    let world = world(&TWO_WEEKS[..2]);
    let all = ids(&world);
    let decision = decision(&world, &all[0]);
    let vm = decision.strip_prefix(world.path("repo/r")).unwrap().components().next().unwrap();
    let directory = world.path("repo/f").join(vm);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(&all[0]), b"no tombstone").unwrap();
    let blocked = forget(&world, &["--keep-last", "1"]);
    assert_eq!(blocked.code, Some(3), "{blocked:?}");
    assert!(blocked.stderr.contains("something else has the name of its tombstone"), "{blocked:?}");
    assert_eq!(world.run(&["--json", "snapshots"]).json()["snapshots"].as_array().unwrap().len(), 2);
}
