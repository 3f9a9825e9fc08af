//! What a backup tells when it is done.

use super::pipeline::Stored;
use super::plan::DiskPlan;
use crate::Extent;
use crate::extent::total_length;
use crate::source::FullReason;
use repo_format::{Commit, DiskMode, SessionId};
use serde::Serialize;

/// The result of a backup; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// The snapshot's id.
    #[serde(serialize_with = "as_text")]
    pub snapshot: SessionId,
    /// The VM.
    pub vm: String,
    /// Its disks, in the order of the job.
    pub disks: Vec<DiskReport>,
    /// Chunks that were looked at.
    pub chunks: u64,
    /// Those of them that were stored.
    pub new_chunks: u64,
    /// Their plain bytes.
    pub new_bytes: u64,
    /// Bytes of the packs and indexes that were stored.
    pub stored_bytes: u64,
    /// Those of them that are map packs and indexes.
    pub metadata_bytes: u64,
    /// Data packs and map packs.
    pub packs: u32,
}

/// One disk in a [`BackupReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReport {
    /// Its key.
    pub key: String,
    /// Its length.
    pub disk_bytes: u64,
    /// "full" or "incremental".
    pub mode: &'static str,
    /// Why it was read in full.
    #[serde(serialize_with = "reason_text")]
    pub full_reason: Option<FullReason>,
    /// Bytes that the source called changed, or allocated.
    pub changed_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// The change id that the snapshot recorded.
    pub change_id: Option<String>,
    /// What came of checking what was said to be unchanged; nothing if that was not done.
    pub audit: Option<AuditReport>,
}

/// The audit of one disk in a [`BackupReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// The share of the regions that was chosen first, in parts per million (as JSON: `share`, per cent).
    #[serde(rename = "share", serialize_with = "as_percent")]
    pub share_ppm: u32,
    /// What they were chosen by.
    pub seed: u64,
    /// Regions that were looked at; more than the share if something differed.
    pub regions: u64,
    /// Regions of which anything was said to be unchanged.
    pub of_regions: u64,
    /// Bytes that were compared with the parent; they are not part of the disk's `read_bytes`.
    pub audited_bytes: u64,
    /// Ranges that were said to be unchanged and differ, whole chunks: sorted, with gaps between them. They were stored
    /// as they are.
    pub mismatches: Vec<Extent>,
}

impl AuditReport {
    /// What the snapshot says of the audit, under [`AuditReport::property`]: how much differed, in bytes and ranges.
    #[must_use]
    pub fn mismatch_text(&self) -> Option<String> {
        let bytes = total_length(&self.mismatches);
        let ranges = self.mismatches.len();
        (ranges > 0).then(|| format!("{bytes} bytes in {ranges} ranges differed"))
    }

    /// The key of the property of a snapshot that tells of mismatches on a disk.
    #[must_use]
    pub fn property(disk: &str) -> String {
        format!("{AUDIT_PROPERTIES}{disk}")
    }
}

/// What the keys of the properties begin with that audits give to snapshots.
pub(super) const AUDIT_PROPERTIES: &str = "audit.";

impl BackupReport {
    pub(super) fn new(commit: &Commit, plans: &[DiskPlan<'_>], stored: &Stored) -> Self {
        let disks = plans
            .iter()
            .zip(&stored.disks)
            .map(|(plan, disk)| DiskReport {
                key: plan.key.to_owned(),
                disk_bytes: plan.shape.size,
                mode: match plan.mode {
                    DiskMode::Full => "full",
                    DiskMode::Incremental => "incremental",
                },
                full_reason: plan.full_reason.clone(),
                changed_bytes: plan.changed_bytes,
                read_bytes: disk.read_bytes,
                change_id: plan.change_id.clone(),
                audit: plan.audit.clone(),
            })
            .collect();
        let totals = &commit.totals;
        Self {
            snapshot: commit.session,
            vm: commit.vm.clone(),
            disks,
            chunks: totals.chunks,
            new_chunks: totals.new_chunks,
            new_bytes: totals.new_bytes,
            stored_bytes: totals.stored_bytes,
            metadata_bytes: totals.metadata_bytes,
            packs: totals.data_packs + totals.map_packs,
        }
    }
}

fn as_text<S: serde::Serializer>(id: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference to the field")]
fn as_percent<S: serde::Serializer>(ppm: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(f64::from(*ppm) / 10_000.0)
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn reason_text<S: serde::Serializer>(reason: &Option<FullReason>, serializer: S) -> Result<S::Ok, S::Error> {
    match reason {
        Some(reason) => serializer.collect_str(reason),
        None => serializer.serialize_none(),
    }
}
