//! Importing restore points of another place of the repository, as users do it.

mod world;

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use world::{Ended, MIB, World, noise, text};

/// Copies a repository as it is, as asynchronous replication would in the end.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("the file is copied");
        }
    }
}

/// Two places with a common past of one day: `repo`, where two more were made, and `here`, where another one was.
struct Parted {
    world: World,
    disk: Vec<u8>,
    lost: Vec<String>,
    since: String,
}

impl Parted {
    fn new() -> Self {
        let world = World::with_repository();
        let mut disk = noise(1, 4 * MIB);
        let back_up = |repository: &str, disk: &[u8], day: &str, since: Option<&str>, area: usize| {
            world.write(&format!("{day}.raw"), disk);
            let areas: Vec<usize> = if since.is_none() { (0..64).collect() } else { vec![area] };
            world.changes("changes.json", disk.len(), since, day, &areas);
            let image = format!("{day}.raw");
            let arguments = ["backup", "--vm", "web", &image, "--changes", "changes.json", "--tag", day];
            text(&at(&world, repository, &arguments).json(), "snapshot")
        };
        back_up("repo", &disk, "day0", None, 0);
        copy(&world.path("repo"), &world.path("here"));
        let mut promoted = disk.clone();
        let mut lost = Vec::new();
        for (day, before, area) in [("day1", "day0", 3), ("day2", "day1", 9)] {
            disk[area << 16..(area + 1) << 16].copy_from_slice(&noise(area as u64, 1 << 16));
            lost.push(back_up("repo", &disk, day, Some(before), area));
        }
        promoted[20 << 16..21 << 16].fill(7);
        let since = back_up("here", &promoted, "day3", Some("day0"), 20);
        Self { world, disk, lost, since }
    }

    fn import(&self, more: &[&str]) -> Ended {
        let arguments = [&["-q", "--json", "import", "--from", "repo"], more].concat();
        run_at(&self.world, "here", &arguments)
    }
}

fn run_at(world: &World, repository: &str, arguments: &[&str]) -> Ended {
    let mut command = world.bare(world::PROGRAM);
    command.args(["-r", repository, "--password-file", "password"]).args(arguments);
    Ended::of(command.output())
}

/// A run that succeeds, with its report.
fn at(world: &World, repository: &str, arguments: &[&str]) -> Ended {
    let ended = run_at(world, repository, &[&["-q", "--json"], arguments].concat());
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended
}

fn became(report: &Value) -> Vec<(String, String)> {
    let points = report["snapshots"].as_array().expect("a list").iter();
    points.map(|point| (text(point, "original"), text(point, "became"))).collect()
}

#[test]
fn restore_points_that_never_arrived_are_imported_and_restore_from_here_alone() {
    let parted = Parted::new();
    let planned = parted.import(&["--dry-run"]);
    assert_eq!(planned.code, Some(0), "{planned:?}");
    let would: Vec<_> = became(&planned.json()).into_iter().filter(|(_, became)| became != "here").collect();
    let expected =
        |became: &str| parted.lost.iter().map(|id| (id.clone(), became.to_owned())).collect::<Vec<_>>();
    assert_eq!(would, expected("wouldBeImported"));

    let imported = parted.import(&[]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let report = imported.json();
    assert_eq!((&report["imported"], &report["leftOut"]), (&json!(2), &json!(0)));
    assert!(report["readBytes"].as_u64() < Some(1 << 20), "{report}");
    assert!(report["storedBytes"].as_u64() < Some(1 << 20), "{report}");
    assert_eq!(report["from"]["requests"]["put"], 0, "{report}");
    fs::remove_dir_all(parted.world.path("repo")).expect("it is removed");

    let points = report["snapshots"].as_array().expect("a list");
    for (point, day) in points.iter().filter(|point| point["became"] == "imported").zip(["day1", "day2"]) {
        let id = text(point, "snapshot");
        assert_eq!(point["backup"]["disks"][0]["mode"], "incremental", "{point}");
        at(&parted.world, "here", &["restore", &id, "--to", "out.raw", "--overwrite"]);
        assert!(
            parted.world.read("out.raw") == parted.world.read(&format!("{day}.raw")),
            "{day} is another disk"
        );
        let shown = at(&parted.world, "here", &["show", &id]).json();
        assert_eq!((&shown["tags"], &shown["disks"][0]["changeId"]), (&json!([day]), &json!(day)), "{shown}");
    }
    let findings = at(&parted.world, "here", &["verify", "--read-data"]).json();
    assert_eq!(findings["findings"], json!([]));
}

#[test]
fn an_import_that_is_run_again_imports_nothing_and_says_what_is_here() {
    let parted = Parted::new();
    assert_eq!(parted.import(&[]).code, Some(0));
    let again = parted.import(&[]).json();
    assert_eq!(
        (&again["imported"], &again["storedBytes"], &again["requests"]["put"]),
        (&json!(0), &json!(0), &json!(0))
    );
    assert!(became(&again).iter().all(|(_, became)| became == "here"), "{again}");
    let told = run_at(&parted.world, "here", &["-q", "import", "--from", "repo"]).done();
    assert!(told.contains(&format!("{} of web", parted.lost[0])), "{told}");
    assert!(told.contains("is here as "), "{told}");
    assert!(told.contains("0 restore points were imported"), "{told}");
    // The other way round, what was made here is imported there, and is the newest.
    let back = at(&parted.world, "repo", &["import", "--from", "here"]).json();
    assert_eq!(back["imported"], json!(1), "{back}");
    let newest =
        back["snapshots"].as_array().unwrap().iter().find(|point| point["original"] == json!(parted.since));
    at(&parted.world, "repo", &["restore", &text(newest.unwrap(), "snapshot"), "--to", "out.raw"]);
    assert!(parted.world.read("out.raw") == parted.world.read("day3.raw"), "it is another disk");
    assert!(parted.disk == parted.world.read("day2.raw"));
}

#[test]
fn what_is_damaged_at_the_other_place_is_told_and_left_out_with_exit_code_3() {
    let parted = Parted::new();
    let decisions = parted.world.path("repo/r");
    let mut harmed = 0;
    let mut directories = vec![decisions];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_string_lossy().ends_with(&parted.lost[1]) {
                let mut bytes = fs::read(&path).expect("the file is read");
                *bytes.last_mut().expect("it has bytes") ^= 1;
                fs::remove_file(&path).expect("it is removed");
                fs::write(&path, bytes).expect("it is written");
                harmed += 1;
            }
        }
    }
    assert_eq!(harmed, 1);
    let ended = parted.import(&[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let report = ended.json();
    assert_eq!(report["imported"], json!(1), "{report}");
    assert!(text(&report["unreadable"][0], "blob").ends_with(&parted.lost[1]), "{report}");
    assert!(ended.stderr.contains("cannot be read"), "{ended:?}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_written() {
    let parted = Parted::new();
    let same = run_at(&parted.world, "here", &["import", "--from", "here"]);
    assert_eq!(same.code, Some(2), "{same:?}");
    assert!(same.stderr.contains("is named twice"), "{same:?}");
    let replica = run_at(&parted.world, "here", &["--replica", "import", "--from", "repo"]);
    assert_eq!(replica.code, Some(1), "{replica:?}");
    let nobody = run_at(&parted.world, "here", &["import", "--from", "repo", "--vm", "mail"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains("there is no snapshot of mail; there are some of web"), "{nobody:?}");
    run_at(&parted.world, "other", &["init"]).done();
    let other = run_at(&parted.world, "here", &["import", "--from", "other"]);
    assert_eq!(other.code, Some(1), "{other:?}");
    let all = at(&parted.world, "here", &["snapshots"]).json();
    assert_eq!(all["snapshots"].as_array().map(Vec::len), Some(2), "{all}");
}
