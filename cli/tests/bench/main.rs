//! `keepstone bench`: what it measures, where it writes, and that nothing of that stays.

mod azure;
mod local;
mod page;
mod questions;
#[path = "../world/mod.rs"]
mod world;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use world::World;

/// A run that is as short as can be.
const SHORT: [&str; 8] = ["--quick", "--size", "8MiB", "--millis", "1", "--levels", "1", "--scratch=scratch"];

/// A directory for scratch directories, which must be empty again after each run.
fn with_scratch(world: World) -> World {
    fs::create_dir(world.path("scratch")).expect("a new directory");
    world
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["bench"], &SHORT[..], more].concat()
}

/// Runs it and reads its report.
fn bench(world: &World, more: &[&str]) -> Value {
    let report = world.report(&arguments(more));
    assert_eq!(files(&world.path("scratch")), BTreeMap::new(), "something stayed in the scratch directory");
    report
}

/// Everything below a directory, with what is in it.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).expect("the directory is read") {
            let path = entry.expect("it is listed").path();
            if path.is_dir() {
                all.insert(format!("{}/", path.display()), Vec::new());
                left.push(path);
            } else {
                all.insert(path.display().to_string(), fs::read(&path).expect("the file is read"));
            }
        }
    }
    all
}
