//! What a replication tells.

use super::Report;
use crate::console::{lines, warn};
use crate::exit::Exit;
use crate::numbers::{count, size};
use keepstone_engine::replicate::{Amount, Deleted, ReplicateReport, SnapshotCounts};

/// Names that are told one by one; the JSON report has all of them.
const NAMES_SHOWN: usize = 8;

/// What was copied, or would be.
pub(super) fn text(report: &Report) -> String {
    let ReplicateReport {
        snapshots, packs, blobs, bytes_through_host, facts, repacks, indexes, deleted, ..
    } = &report.replicate;
    let SnapshotCounts { copied, there, forgotten, incomplete } = *snapshots;
    let what = if report.dry_run { "dry run: to copy" } else { "copied" };
    let mut text = vec![format!("{what} {} to {}", count(copied, "restore point"), report.to)];
    text.push(format!("  {} in {}, {} in all", size(packs.bytes), count(packs.count, "pack"), amount(blobs)));
    let also = [(*facts, "tombstone or pin"), (*repacks, "repack"), (*indexes, "index blob")];
    let also: Vec<String> = also
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| match what {
            "tombstone or pin" if number > 1 => format!("{number} tombstones and pins"),
            what => count(number, what),
        })
        .collect();
    if !also.is_empty() {
        text.push(format!("  with {}", also.join(", ")));
    }
    if there + forgotten > 0 {
        text.push(format!("  {there} were there already, {forgotten} are forgotten"));
    }
    if incomplete > 0 {
        text.push(format!("  {incomplete} are not whole at the source, which is a copy itself"));
    }
    if !report.dry_run {
        text.push(format!("  {} passed through this host", size(*bytes_through_host)));
    }
    if *deleted != Deleted::default() {
        let Deleted { packs, snapshots, indexes } = deleted;
        let verb = if report.dry_run { "to delete" } else { "deleted" };
        text.push(format!(
            "  {verb} there: {} in {}, {}, {}",
            size(packs.bytes),
            count(packs.count, "pack"),
            count(*snapshots, "forgotten restore point"),
            count(*indexes, "index blob")
        ));
    }
    text.extend(
        report.confirmed.map(|new| format!("  {} newly confirmed at the source", count(new, "session"))),
    );
    text.push(format!("  source: {}", report.source.line(blobs.bytes)));
    text.extend(report.destination.as_ref().map(|figures| format!("  destination: {}", figures.line(0))));
    lines(text)
}

fn amount(amount: &Amount) -> String {
    format!("{} in {}", size(amount.bytes), count(amount.count, "blob"))
}

/// Tells what could not be copied; the exit code that goes with it.
pub(super) fn warn_of(report: &ReplicateReport) -> Exit {
    for failed in report.failed.iter().take(NAMES_SHOWN) {
        warn(&format!("{} was not copied: {}", failed.snapshot, failed.reason));
    }
    if report.failed.len() > NAMES_SHOWN {
        warn(&format!("and {} more were not copied, see --json", report.failed.len() - NAMES_SHOWN));
    }
    for name in report.ignored.iter().take(NAMES_SHOWN) {
        warn(&format!(
            "{name} was not copied: it cannot be read, or is not signed as it has to be; `keepstone verify` tells more"
        ));
    }
    if report.ignored.len() > NAMES_SHOWN {
        warn(&format!("and {} more objects, see --json", report.ignored.len() - NAMES_SHOWN));
    }
    let incomplete = report.snapshots.incomplete;
    if incomplete > 0 {
        let told = count(incomplete, "restore point");
        warn(&format!(
            "{told} not copied: not whole at the source, `keepstone replica status` there tells more"
        ));
    }
    match (report.failed.is_empty(), report.ignored.is_empty() && incomplete == 0) {
        (false, _) => Exit::Damage,
        (true, false) => Exit::Attention,
        (true, true) => Exit::Done,
    }
}
