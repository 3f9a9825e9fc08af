//! What `replica status` says in text.

use super::source::{Replication, Waited};
use super::status::Report;
use crate::commands::snapshots::{Line, MissingLine};
use crate::commands::verify::finding_lines;
use crate::console::{lines, table};
use crate::numbers::{count, duration, size};
use crate::times;

/// Restore points that are not whole and that are told of one by one; the JSON report has all of them.
const INCOMPLETE_SHOWN: usize = 20;
const SHORT_ID_LEN: usize = 12;

/// A table of the VMs, and what is missing of what is newer.
pub(super) fn text(report: &Report) -> String {
    let rows = report.vms.iter().map(|vm| {
        let (newest, time) = match &vm.newest_whole {
            Some(id) => (short(id), times::local(vm.time_millis)),
            None => ("none".to_owned(), String::new()),
        };
        let age = vm.age_seconds.map(|age| duration(age.saturating_mul(1000))).unwrap_or_default();
        let absent = if report.source.is_some() { vm.not_arrived.to_string() } else { "?".to_owned() };
        let late = if vm.late { "LATE" } else { "" };
        [vm.vm.clone(), newest, time, age, vm.newer_incomplete.to_string(), absent, late.to_owned()]
    });
    let header = ["vm", "newest whole", "time", "age", "newer, in part", "not arrived", ""];
    let text = if report.vms.is_empty() {
        "there are no restore points\n".to_owned()
    } else {
        table(header, &[3, 4, 5], rows)
    };
    text + &lines(incomplete(&report.snapshots).into_iter().chain(rest(report)))
}

/// What is missing of the newest that are not whole.
fn incomplete(snapshots: &[Line]) -> Vec<String> {
    let missing_of = |line: &Line| {
        let wholeness = line.wholeness.as_ref().filter(|wholeness| !wholeness.complete)?;
        let time = times::local(line.time_millis);
        Some(format!("{} of {}, {time}: {}", short(&line.snapshot), line.vm, lacking(&wholeness.missing)))
    };
    let all: Vec<String> = snapshots.iter().rev().filter_map(missing_of).collect();
    if all.is_empty() {
        return all;
    }
    let (number, hidden) = (all.len(), all.len().saturating_sub(INCOMPLETE_SHOWN));
    let mut text = vec![String::new(), format!("{} not whole:", count(number as u64, "restore point"))];
    text.extend(all.into_iter().take(INCOMPLETE_SHOWN).map(|line| format!("  {line}")));
    if hidden > 0 {
        text.push(format!("  and {hidden} older ones, see --json"));
    }
    text
}

fn lacking(missing: &MissingLine) -> String {
    let mut parts = Vec::new();
    if missing.blobs > 0 {
        let least = if missing.at_least { "at least " } else { "" };
        parts.push(format!("{least}{} with {} missing", count(missing.blobs, "blob"), size(missing.bytes)));
    }
    parts.extend(missing.damaged.first().map(|damage| format!("DAMAGE: {}: {}", damage.blob, damage.reason)));
    parts.join("; ")
}

fn rest(report: &Report) -> Vec<String> {
    let mut text = Vec::new();
    if let Some(source) = &report.source {
        let absent = count(source.not_arrived.len() as u64, "snapshot");
        text.push(format!("of the {} at the source, {absent} not arrived", source.snapshots));
        if !source.unreadable.is_empty() {
            let number = count(source.unreadable.len() as u64, "blob");
            text.push(format!("DAMAGE at the source: {number} not readable"));
        }
        if let Some(time) = &source.last_sync_time {
            text.push(format!("all that was written before {time} is at this secondary endpoint"));
        }
        if let Some(Replication { asked, complete, pending, failed, unknown, gone }) = &source.replication {
            text.push(format!(
                "object replication, of {asked} missing blobs: {pending} pending, {failed} FAILED, {complete} complete, {unknown} \
                 not known, {gone} gone from the source"
            ));
        }
    }
    if report.waited == Some(Waited::TimedOut) {
        text.push("waited no longer: not all that the source had is whole here".to_owned());
    }
    if let Some(deep) = &report.deep {
        text.push(format!("read {} of packs that the newest whole ones need", size(deep.read_bytes)));
        text.extend(deep.findings.iter().flat_map(finding_lines));
    }
    if let Some(confirmed) = report.confirmed {
        text.push(format!("confirmed {} at the source", count(confirmed, "more session")));
    }
    text
}

fn short(id: &str) -> String {
    id.chars().take(SHORT_ID_LEN).collect()
}
