//! What a backup tells when it is done.

use super::pipeline::Stored;
use super::plan::DiskPlan;
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
}

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

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn reason_text<S: serde::Serializer>(reason: &Option<FullReason>, serializer: S) -> Result<S::Ok, S::Error> {
    match reason {
        Some(reason) => serializer.collect_str(reason),
        None => serializer.serialize_none(),
    }
}
