//! The files of datastores, as `/folder` gives them.

use percent_encoding::percent_decode_str;

use super::http::{Answer, Body, Request};
use super::machine::File;
use super::sessions;
use super::spec::Power;
use super::state::{State, Violation};
use crate::server::Form;

/// Answers GET and HEAD of `/folder/PATH?dcPath=DATACENTER&dsName=DATASTORE`.
pub(super) fn answer(state: &mut State, request: &Request, cookie: Option<&str>) -> Answer {
    if sessions::check(state, cookie).is_none() {
        return Answer::status(401);
    }
    if state.denied.contains("Datastore.FileManagement") || state.denied.contains("Datastore.Browse") {
        return Answer::status(403);
    }
    let Some(file) = named(state, &request.target) else { return Answer::status(404) };
    let Some(stem) = file.path.strip_suffix("-flat.vmdk") else { return descriptor(state, &file) };
    let disk_file = File { path: format!("{stem}.vmdk"), ..file };
    // Only a base has flat data: the others hold changes.
    if let Some((_, disk)) = state.frozen(&disk_file) {
        return if disk.parents.is_empty() {
            ranged(disk.contents.clone(), request)
        } else {
            Answer::status(404)
        };
    }
    match state.written(&disk_file) {
        Some((_, disk)) if !disk.parents.is_empty() => Answer::status(404),
        Some((vm, disk)) if vm.power == Power::Off => ranged(disk.contents.clone(), request),
        Some(_) => {
            state.violations.push(Violation::UnfrozenDiskRead { file: disk_file.to_string() });
            // A running virtual machine has its disk locked.
            Answer::status(500)
        }
        None => {
            if state.was_frozen(&disk_file) {
                state.violations.push(Violation::UnfrozenDiskRead { file: disk_file.to_string() });
            }
            Answer::status(404)
        }
    }
}

/// Returns the path that a target names, without its query.
pub(super) fn path(target: &str) -> String {
    let path = target.split('?').next().unwrap_or(target).trim_start_matches("/folder/");
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// Returns the file that a target names, if its datacenter exists.
fn named(state: &State, target: &str) -> Option<File> {
    let (_, query) = target.split_once('?')?;
    let form = Form::parse(query);
    let datacenter = state.find(form.get("dcPath")?)?;
    let datastore = form.get("dsName")?.to_owned();
    (datacenter.kind == "Datacenter").then(|| File { datastore, path: path(target) })
}

fn descriptor(state: &State, file: &File) -> Answer {
    let disk = state.frozen(file).map(|(_, disk)| disk).or_else(|| state.written(file).map(|(_, disk)| disk));
    let Some(disk) = disk else { return Answer::status(404) };
    let sectors = disk.contents.capacity() / 512;
    let flat = file.flat_path();
    let flat = flat.rsplit('/').next().unwrap_or(&flat);
    let text = format!(
        "# Disk DescriptorFile\nversion=1\ncreateType=\"vmfs\"\n\nRW {sectors} VMFS \"{flat}\"\n\n\
         ddb.uuid = \"{}\"\n",
        disk.uuid
    );
    Answer::text(200, "application/octet-stream", text)
}

/// Answers with the range that was asked for, or with everything.
fn ranged(contents: super::contents::Contents, request: &Request) -> Answer {
    let capacity = contents.capacity();
    let kind = ("Content-Type", "application/octet-stream".to_owned());
    let Some(asked) = request.header("range") else {
        let headers = vec![kind, ("Accept-Ranges", "bytes".to_owned())];
        return Answer { status: 200, headers, body: Body::Disk { contents, start: 0, length: capacity } };
    };
    let Some((start, end)) = range(asked, capacity) else {
        let headers = vec![("Content-Range", format!("bytes */{capacity}"))];
        return Answer { status: 416, headers, body: Body::Bytes(Vec::new()) };
    };
    let headers = vec![kind, ("Content-Range", format!("bytes {start}-{}/{capacity}", end - 1))];
    Answer { status: 206, headers, body: Body::Disk { contents, start, length: end - start } }
}

/// Reads one range of bytes (RFC 9110 section 14.1.2): the start, and the end, which no longer belongs to it.
fn range(text: &str, capacity: u64) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", suffix) => (capacity.saturating_sub(suffix.parse().ok()?), capacity),
        (first, "") => (first.parse().ok()?, capacity),
        (first, last) => (first.parse().ok()?, last.parse::<u64>().ok()?.saturating_add(1).min(capacity)),
    };
    (start < end).then_some((start, end))
}
