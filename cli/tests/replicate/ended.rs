//! Runs that are interrupted or killed, and run again.

use crate::scene::{Container, assert_restores, at, counts, world_with_backups};
use crate::world::{Ended, World};
use keepstone_peers::azurite::PRIMARY;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::process::{Child, Stdio};

const VMS: u64 = 4;

/// A run that takes some seconds, when the first restore point has been copied.
fn in_the_middle(world: &World, place: &str) -> Child {
    let arguments = ["--limit-download", "2MiB", "replicate", "--to", "copy", "--jobs", "1"];
    let mut command = at(world, place, &arguments);
    command.env("AZURE_STORAGE_KEY", PRIMARY.key).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while !world.path("copy").join("i").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before anything was copied");
        std::thread::yield_now();
    }
    child
}

/// A world whose repository is in a container.
fn in_azure(container: &'static str) -> (World, String) {
    let world = world_with_backups(VMS);
    let place = Container::new(PRIMARY, container).place();
    let mut command = world.command(&["-q", "replicate", "--to", &place]);
    Ended::of(command.env("AZURE_STORAGE_KEY", PRIMARY.key).output()).done();
    (world, place)
}

/// What is there is whole, and the next run goes on.
fn goes_on(world: &World, place: &str) {
    if world.path("copy").join("config").exists() {
        Ended::of(at(world, "copy", &["-q", "snapshots"]).output()).done();
    }
    let arguments = ["--json", "replicate", "--to", "copy"];
    let ended = Ended::of(at(world, place, &arguments).env("AZURE_STORAGE_KEY", PRIMARY.key).output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json()["snapshots"]["failed"], json!(null));
    assert_restores(world, VMS, &|arguments| at(world, "copy", arguments));
    let again = Ended::of(at(world, place, &arguments).env("AZURE_STORAGE_KEY", PRIMARY.key).output());
    assert_eq!(counts(&again.json()), json!([0, VMS + 1, 0]));
}

#[test]
fn an_interrupted_run_says_so_and_is_gone_on_with() {
    let (world, place) = in_azure("interrupted-copy");
    let child = in_the_middle(&world, &place);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = Ended::of(child.wait_with_output());
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stderr.ends_with("keepstone: error: interrupted\n"), "{ended:?}");
    goes_on(&world, &place);
}

#[test]
fn a_killed_run_is_gone_on_with() {
    let (world, place) = in_azure("killed-copy");
    let mut child = in_the_middle(&world, &place);
    child.kill().unwrap();
    child.wait().unwrap();
    goes_on(&world, &place);
}

#[test]
fn two_runs_at_once_make_one_copy() {
    let (world, place) = in_azure("two-runs");
    let first = in_the_middle(&world, &place);
    let arguments = ["--json", "replicate", "--to", "copy"];
    let second = Ended::of(at(&world, &place, &arguments).env("AZURE_STORAGE_KEY", PRIMARY.key).output());
    assert_eq!(second.code, Some(0), "{second:?}");
    let first = Ended::of(first.wait_with_output());
    assert_eq!(first.code, Some(0), "{first:?}");
    goes_on(&world, &place);
}
