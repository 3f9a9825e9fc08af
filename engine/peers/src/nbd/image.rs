//! Disk images, made and written to with QEMU's tools.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Makes an empty image of a format, "raw" or "qcow2".
///
/// # Panics
/// If qemu-img fails, as in all functions here.
pub fn create(image: &Path, format: &str, bytes: u64) {
    qemu_img(&["create", "-q", "-f", format, text(image), &bytes.to_string()]);
}

/// Adds an empty persistent dirty bitmap to a qcow2 image. From now on it counts what is written.
///
/// # Panics
/// If qemu-img fails.
pub fn add_bitmap(image: &Path, name: &str) {
    qemu_img(&["bitmap", "-f", "qcow2", "--add", text(image), name]);
}

/// Has a dirty bitmap count from now on.
///
/// # Panics
/// If qemu-img fails.
pub fn clear_bitmap(image: &Path, name: &str) {
    qemu_img(&["bitmap", "-f", "qcow2", "--clear", text(image), name]);
}

/// Writes to an image by commands of qemu-io, such as `write -P 7 0 64k`, `write -z 64k 64k` or `discard 1M 1M`.
///
/// # Panics
/// If qemu-io fails.
pub fn write<S: AsRef<str>>(image: &Path, format: &str, commands: &[S]) {
    let mut arguments = vec!["-f", format];
    for command in commands {
        arguments.extend(["-c", command.as_ref()]);
    }
    arguments.push(text(image));
    let said = run("qemu-io", &arguments);
    // It succeeds whatever becomes of its commands.
    assert!(!said.contains("failed") && !said.contains("rror"), "qemu-io: {said}");
}

/// Returns the areas of an image that qemu-img says to hold data that is not zero: start and length.
///
/// # Panics
/// If qemu-img fails.
#[must_use]
pub fn data_areas(image: &Path, format: &str) -> Vec<(u64, u64)> {
    let map = run("qemu-img", &["map", "--output=json", "-f", format, text(image)]);
    let map: Vec<serde_json::Value> = serde_json::from_str(&map).expect("qemu-img writes JSON");
    let number = |entry: &serde_json::Value, name: &str| entry[name].as_u64().expect("a number of bytes");
    let data = map.iter().filter(|entry| entry["zero"] == serde_json::Value::Bool(false));
    let mut areas: Vec<(u64, u64)> = Vec::new();
    for (start, length) in data.map(|entry| (number(entry, "start"), number(entry, "length"))) {
        match areas.last_mut() {
            Some(last) if last.0 + last.1 == start => last.1 += length,
            _ => areas.push((start, length)),
        }
    }
    areas
}

/// Runs qemu-img.
///
/// # Panics
/// If it fails.
pub fn qemu_img(arguments: &[&str]) {
    run("qemu-img", arguments);
}

fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program} of qemu-utils ({error}): run `make test`"));
    let said = String::from_utf8_lossy(&output.stderr);
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    assert!(output.status.success(), "{program} {arguments:?} failed: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &said
}

fn text(path: &Path) -> &str {
    path.to_str().expect("an image's path is in UTF-8")
}
