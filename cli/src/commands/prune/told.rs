//! What a prune tells.

use super::{Planned, Pruned};
use crate::console::{lines, table, warn};
use crate::exit::Exit;
use crate::numbers::{count, duration, size};
use crate::times;
use keepstone_engine::prune::{Amount, PruneJob, PrunePlan, PruneReport, RepackReport, Waiting, WaitingFor};

/// Names that are told one by one; the JSON report has all of them.
const NAMES_SHOWN: usize = 8;

/// What would be done.
pub(super) fn planned(report: &Planned) -> String {
    let PrunePlan {
        open_generation,
        open,
        stored,
        delete,
        repack,
        rewritten_bytes,
        unused_bytes_left,
        indexes,
        snapshots,
        ..
    } = &report.plan;
    let mut text = vec![format!(
        "dry run: {} stored in {}, for {}, in {}",
        size(stored.bytes),
        count(stored.packs, "pack"),
        count(*snapshots, "snapshot"),
        count(*indexes, "index blob")
    )];
    if let Some(generation) = open_generation {
        text.push(format!("generation {generation} is open and would be ended first: {}", packs(open)));
    }
    text.push(format!("to delete      {}", packs(delete)));
    text.push(format!(
        "to pack again  {}, of which {} would be written anew",
        packs(repack),
        size(*rewritten_bytes)
    ));
    let freed = (delete.bytes + repack.bytes).saturating_sub(*rewritten_bytes);
    text.push(format!(
        "freed          {}; {} stored in vain would stay",
        size(freed),
        size(*unused_bytes_left)
    ));
    let rows = report.tiers.iter().map(|tier| {
        [
            format!("{:?}", tier.tier).to_lowercase(),
            packs(&tier.delete),
            packs(&tier.repack),
            size(tier.rewritten_bytes),
            tier.cost.requests_in_words(tier.delete.packs + tier.repack.packs),
            tier.cost.in_words(),
        ]
    });
    let mut text = lines(text);
    if !report.tiers.is_empty() {
        text.push('\n');
        text += &table(["tier", "delete", "pack again", "write", "requests", "cost"], &[], rows);
        text.push('\n');
    }
    text + &format!("  {}\n", report.figures.line(0))
}

/// What was done.
pub(super) fn pruned(report: &Pruned) -> String {
    let PruneReport {
        generation,
        sealed,
        condemned,
        rescued,
        deleted,
        deferred,
        repacked,
        unused_bytes_left,
        indexes_written,
        indexes_removed,
        objects_removed,
        aborted,
        unexplained,
        snapshots,
        ..
    } = &report.prune;
    let mut text = Vec::new();
    match (generation, sealed) {
        (None, _) => text.push(format!("nothing to delete: {} looked at", count(*snapshots, "snapshot"))),
        (Some(generation), true) => {
            text.push(format!("generation {generation} is done: {} deleted", packs(deleted)));
        }
        (Some(generation), false) => text.push(format!(
            "generation {generation} is open: {} condemned, {} deleted so far",
            packs(condemned),
            packs(deleted)
        )),
    }
    if rescued.packs > 0 {
        text.push(format!("  {} turned out to be needed and stay", packs(rescued)));
    }
    if deferred.packs > 0 {
        text.push(format!("  {} must be kept by the store's retention, and go later", packs(deferred)));
    }
    text.extend(repacked.as_ref().map(|repacked| format!("  {}", packed_again(repacked))));
    if *unused_bytes_left > 0 {
        text.push(format!(
            "  {} are stored in vain, in packs that are needed in part",
            size(*unused_bytes_left)
        ));
    }
    if *indexes_written + *indexes_removed > 0 {
        text.push(format!(
            "  {} written, {} removed",
            count(*indexes_written, "index blob"),
            count(*indexes_removed, "index blob")
        ));
    }
    if *objects_removed > 0 {
        text.push(format!(
            "  {} of forgotten and aborted sessions removed",
            count(*objects_removed, "object")
        ));
    }
    text.extend(aborted.iter().map(|session| format!("  session {session} aborted")));
    if *unexplained > 0 {
        text.push(format!("  {} of sessions that nobody knows of left alone", count(*unexplained, "pack")));
    }
    text.push(format!("  {}", report.figures.line(0)));
    lines(text)
}

fn packed_again(report: &RepackReport) -> String {
    let RepackReport { emptied, emptied_bytes, packs: written, written_bytes, left, aborted, .. } = report;
    if *aborted {
        return "packing again was aborted by another prune, and is for nothing".to_owned();
    }
    let left = if *left > 0 { format!("; {} left as they are", count(*left, "pack")) } else { String::new() };
    format!(
        "packed again: what is needed of {} is now {}{left}",
        packs(&Amount { packs: *emptied, bytes: *emptied_bytes }),
        packs(&Amount { packs: *written, bytes: *written_bytes })
    )
}

fn packs(amount: &Amount) -> String {
    format!("{} in {}", size(amount.bytes), count(amount.packs, "pack"))
}

/// Tells what the next prune waits for, or what it ignores; the exit code that goes with it.
pub(super) fn warn_of(waiting: &[Waiting], ignored: &[String], job: &PruneJob<'_>) -> Exit {
    for waiting in waiting {
        warn(&waits_for(waiting, job));
    }
    for name in ignored.iter().take(NAMES_SHOWN) {
        warn(&format!(
            "{name} is not signed with the retention key, or cannot be read, and counts for nothing: find out who made it"
        ));
    }
    if ignored.len() > NAMES_SHOWN {
        warn(&format!("and {} more, see --json", ignored.len() - NAMES_SHOWN));
    }
    if waiting.is_empty() && ignored.is_empty() { Exit::Done } else { Exit::Attention }
}

fn waits_for(waiting: &Waiting, job: &PruneJob<'_>) -> String {
    let Waiting { session, writer, begun, newest, why, replica } = waiting;
    let quiet = duration(job.time.saturating_sub(*newest));
    let who = format!("session {session} of the writer {writer}, which began {}", times::local(*begun));
    match why {
        WaitingFor::Decision => format!(
            "waiting for {who} and stored something {quiet} ago: run `keepstone prune` again when that backup has ended; if its \
             host is gone, add --abort-session {session} (it is aborted without that when it was quiet for {})",
            duration(job.patience)
        ),
        WaitingFor::Replica => {
            let replica = replica.as_deref().unwrap_or_default();
            format!(
                "waiting for the replica {replica}: what session {session} packed again {} is not confirmed there, and until then the packs \
                 that it was in stay; `keepstone replicate --confirm {replica}` or `keepstone replica status --confirm {replica}` \
                 confirms it, and if that replica is given up, `keepstone replica remove {replica}`",
                times::local(*begun)
            )
        }
        WaitingFor::UnreadableIntent => {
            format!("waiting for {who}: its intent cannot be read; put it back from a copy of the repository")
        }
    }
}

/// Tells what the store did not let go; the exit code that goes with it.
pub(super) fn warn_of_deferred(report: &PruneReport) -> Exit {
    if report.deferred.packs == 0 {
        return Exit::Done;
    }
    warn(&format!(
        "the store must keep {} for now; they stay condemned, and a later prune deletes them",
        packs(&report.deferred)
    ));
    Exit::Attention
}

/// Tells why nothing was packed again, if something is damaged; the exit code that goes with it.
pub(super) fn warn_of_damage(report: &PruneReport) -> Exit {
    let Some(why) = &report.repack_failed else { return Exit::Done };
    warn(&format!(
        "nothing was packed again, because something is damaged; `keepstone verify` tells more: {why}"
    ));
    Exit::Damage
}
