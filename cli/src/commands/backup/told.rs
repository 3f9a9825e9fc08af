//! What `keepstone backup` says when it is done.

use super::machine::MachineReport;
use crate::console::{lines, one_line, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{count, size};
use keepstone_engine::Extent;
use keepstone_engine::backup::{AuditReport, BackupReport, DiskReport};
use keepstone_engine::extent::total_length;
use keepstone_engine::source::FullReason;
use serde::Serialize;

/// The smallest unit that disks are made of.
const SECTOR_LEN: u64 = 512;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) backup: BackupReport,
    /// What only a VM in vSphere has.
    #[serde(rename = "vsphere", skip_serializing_if = "Option::is_none")]
    pub(super) machine: Option<MachineReport>,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// Tells what an operator should look at although there is a snapshot.
pub(super) fn attention(backup: &BackupReport, machine: Option<&MachineReport>) -> Exit {
    let mut exit = machine.map_or(Exit::Done, MachineReport::exit);
    for disk in &backup.disks {
        if let Some(reason) = disk.full_reason.as_ref().filter(|reason| reason.is_lost_tracking()) {
            warn(&format!("disk {} was read in full: {}", disk.key, one_line(&reason.to_string())));
            exit = Exit::Attention;
        }
        if let Some(audit) = disk.audit.as_ref().filter(|audit| !audit.mismatches.is_empty()) {
            warn(&mismatch(disk, audit));
            exit = Exit::Attention;
        }
    }
    for disk in backup.disks.iter().filter(|disk| disk.disk_bytes % SECTOR_LEN != 0) {
        warn(&format!(
            "disk {} has {} bytes, which is not a whole number of sectors of {SECTOR_LEN}: it may have been cut off",
            disk.key, disk.disk_bytes
        ));
        exit = Exit::Attention;
    }
    exit
}

/// What an audit found, and what to do about it.
fn mismatch(disk: &DiskReport, audit: &AuditReport) -> String {
    let amount = amount(&audit.mismatches);
    if disk.full_reason.is_some() {
        return format!(
            "disk {} is not zero where it was said to be unallocated, in {amount}; they were stored as they are, and what was \
             not audited may be missing: back up without --skip-unallocated",
            disk.key
        );
    }
    let next = if audit.regions == audit.of_regions {
        "this snapshot is right, as everything was audited; earlier ones may be wrong there, so find out why change \
         tracking fails"
    } else {
        "what was not audited may be wrong too, here and in earlier snapshots: back up with --full, and find out why \
         change tracking fails"
    };
    format!(
        "disk {} differs from the last snapshot where it was said to be unchanged, in {amount}; they were stored as they \
         are now; {next}",
        disk.key,
    )
}

fn amount(ranges: &[Extent]) -> String {
    format!("{} of {}", count(ranges.len() as u64, "range"), size(total_length(ranges)))
}

pub(super) fn text(report: &Report) -> String {
    let Report { backup, machine, figures } = report;
    let disk_bytes = backup.disks.iter().map(|disk| disk.disk_bytes).sum();
    let mut text = vec![format!("snapshot {} of {}", backup.snapshot, backup.vm)];
    for disk in &backup.disks {
        text.push(disk_line(disk));
        text.extend(disk.audit.iter().flat_map(audit_lines));
    }
    text.extend(machine.iter().filter_map(machine_line));
    text.push(format!(
        "  stored {} in {}, {} of it metadata; {} of {} were new, {} before compression",
        size(backup.stored_bytes),
        count(backup.packs.into(), "pack"),
        size(backup.metadata_bytes),
        backup.new_chunks,
        count(backup.chunks, "chunk"),
        size(backup.new_bytes),
    ));
    text.push(format!("  {}", figures.line(disk_bytes)));
    lines(text)
}

/// What state of the VM was backed up, and how.
fn machine_line(machine: &MachineReport) -> Option<String> {
    let consistency = machine.consistency?;
    let read: Vec<String> =
        machine.transports.iter().map(|(disk, transport)| format!("{disk} by {transport}")).collect();
    Some(format!("  the virtual machine was {consistency}; read {}", read.join(", ")))
}

fn disk_line(disk: &DiskReport) -> String {
    let DiskReport { key, disk_bytes, mode, full_reason, changed_bytes, read_bytes, .. } = disk;
    let in_words = |reason: &FullReason| format!(" ({})", one_line(&reason.to_string()));
    let reason = full_reason.as_ref().map(in_words).unwrap_or_default();
    let what = if full_reason.is_some() { "in use" } else { "changed" };
    format!(
        "  disk {key} of {}, {mode}{reason}: {} {what}, {} read",
        size(*disk_bytes),
        size(*changed_bytes),
        size(*read_bytes)
    )
}

/// Ranges that are listed; a report in JSON has all of them.
const RANGES_LISTED: usize = 20;

fn audit_lines(audit: &AuditReport) -> Vec<String> {
    let AuditReport { seed, regions, of_regions, audited_bytes, mismatches, .. } = audit;
    let found = if mismatches.is_empty() {
        "no difference".to_owned()
    } else {
        format!("{} differ", amount(mismatches))
    };
    let regions = format!("{regions} of {}", count(*of_regions, "region"));
    let mut lines =
        vec![format!("    audited {regions}, {}, by the seed {seed}: {found}", size(*audited_bytes))];
    let listed = mismatches.iter().take(RANGES_LISTED);
    lines.extend(listed.map(|range| format!("      {} bytes at {}", range.length, range.start)));
    if mismatches.len() > RANGES_LISTED {
        lines.push(format!("      and {} more, which --json lists", mismatches.len() - RANGES_LISTED));
    }
    lines
}
