//! How much a repository holds, and what of it is needed.
//!
//! A prune that runs meanwhile repacks and deletes: what is missing or unreadable is believed only once nothing has been
//! forgotten or repacked since the counting began. Else all is counted anew, without what was forgotten.

use crate::error::EngineError;
use crate::listing::for_each_blob;
use crate::observer::Quiet;
use crate::pack_set::PackSet;
use crate::prune::mark::Marker;
use crate::records::Records;
use crate::replica::{self, Doubt, Point};
use crate::repository::Repository;
use crate::snapshots::{self, Query, Snapshot};
use repo_format::{BlobKind, PackKind, PackName, SessionId};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// Snapshots whose maps are looked at together.
const SNAPSHOTS_AT_ONCE: usize = 256;
/// VMs that are named to somebody who asked for one that there is not.
const VMS_NAMED: usize = 20;

/// What a repository holds; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsReport {
    /// Snapshots that are there and not forgotten.
    pub snapshots: u64,
    /// Decisions and tombstones that could not be read, and are left out of all that follows.
    pub unreadable: u64,
    /// Snapshots that are not whole in this replica, and are left out of all that follows.
    #[serde(skip_serializing_if = "is_zero")]
    pub incomplete: u64,
    /// Snapshots that were forgotten while they were looked at, and are left out of all that follows.
    #[serde(serialize_with = "ids")]
    pub forgotten_meanwhile: BTreeSet<SessionId>,
    /// VMs with a snapshot.
    pub vms: u64,
    /// The sizes of all disks of all snapshots together: what restoring every one of them would write.
    pub logical_bytes: u64,
    /// All blobs, by what their names say they are.
    pub blobs: BlobStats,
    /// Bytes of all blobs.
    pub stored_bytes: u64,
    /// Bytes of packs that a snapshot needs.
    pub referenced_bytes: u64,
    /// Packs that no snapshot needs: of interrupted, running and forgotten sessions.
    pub unreferenced_packs: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
    /// Packs that a snapshot needs and that are not there.
    pub missing_packs: u64,
    /// Plain bytes of the chunks that the snapshots' sessions stored.
    pub new_bytes: u64,
    /// Logical bytes for each of those, holes and repeated chunks included; nothing if no chunk was stored.
    pub deduplication_ratio: Option<f64>,
    /// Plain bytes of those chunks for each byte that was stored of them; nothing if none was stored.
    pub compression_ratio: Option<f64>,
}

/// Blobs by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobStats {
    /// Data packs.
    pub data_packs: Count,
    /// Map packs.
    pub map_packs: Count,
    /// Indexes.
    pub indexes: Count,
    /// Decisions.
    pub decisions: Count,
    /// Intents.
    pub intents: Count,
    /// Tombstones.
    pub tombstones: Count,
    /// What pruners wrote: generations and repack records.
    pub prune_records: Count,
    /// The config and key slots.
    pub keys: Count,
    /// Blobs whose names have no meaning.
    pub unknown: Count,
}

/// So many blobs of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Counts what a repository holds. Reads decisions, repack records and the nodes of all maps, each once, but no page.
///
/// # Errors
/// A map node that cannot be read, or a failing store.
pub fn stats(repository: &Repository<'_>) -> Result<StatsReport, EngineError> {
    stats_offered(repository, &Doubt::None)
}

/// As [`stats`]; snapshots in doubt that are not whole are left out.
///
/// # Errors
/// As [`stats`].
pub fn stats_offered(repository: &Repository<'_>, doubt: &Doubt) -> Result<StatsReport, EngineError> {
    counted(repository, (None, doubt), |counting| {
        let mut blobs = BlobStats::default();
        let mut stored_bytes = 0;
        let mut packs: HashMap<PackName, u64> = HashMap::new();
        for_each_blob(repository.store(), &mut |info| {
            stored_bytes += info.len;
            let kind = info.name.kind();
            blobs.of(kind.as_ref()).add(info.len);
            if let Some(BlobKind::Pack(name)) = kind {
                packs.insert(name, info.len);
            }
        })?;
        let (mut present, mut missing, mut referenced_bytes) = (0, 0, 0);
        for pack in counting.needed.iter() {
            if let Some(len) = packs.get(&pack.name) {
                present += 1;
                referenced_bytes += len;
            } else if repository.blob_len(&pack.name.blob())?.is_none() {
                // Else it is younger than the listing.
                missing += 1;
            }
        }
        let Sums { snapshots, logical_bytes, new_bytes, data_bytes, .. } = counting.sums;
        let report = StatsReport {
            snapshots,
            unreadable: counting.unreadable,
            incomplete: counting.incomplete,
            forgotten_meanwhile: counting.forgotten.clone(),
            vms: counting.vms.len() as u64,
            logical_bytes,
            blobs,
            stored_bytes,
            referenced_bytes,
            unreferenced_packs: packs.len() as u64 - present,
            unreferenced_bytes: packs.values().sum::<u64>() - referenced_bytes,
            missing_packs: missing,
            new_bytes,
            deduplication_ratio: ratio(logical_bytes, new_bytes),
            compression_ratio: ratio(new_bytes, data_bytes),
        };
        Ok((report, missing > 0))
    })
}

/// What the snapshots of one VM are; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VmStatsReport {
    /// The VM.
    pub vm: String,
    /// Its snapshots that are there and not forgotten.
    pub snapshots: u64,
    /// Decisions and tombstones that could not be read, and are left out of all that follows.
    pub unreadable: u64,
    /// Snapshots that are not whole in this replica, and are left out of all that follows.
    #[serde(skip_serializing_if = "is_zero")]
    pub incomplete: u64,
    /// Snapshots that were forgotten while they were looked at, and are left out of all that follows.
    #[serde(serialize_with = "ids")]
    pub forgotten_meanwhile: BTreeSet<SessionId>,
    /// The sizes of all disks of all of them together.
    pub logical_bytes: u64,
    /// Packs that they need, others' included.
    pub referenced_packs: u64,
    /// Plain bytes of the chunks that their sessions stored.
    pub new_bytes: u64,
    /// Bytes that their sessions stored, maps and indexes included.
    pub stored_bytes: u64,
    /// Logical bytes for each plain byte of new chunks; nothing if none was stored.
    pub deduplication_ratio: Option<f64>,
    /// Plain bytes of new chunks for each byte that was stored of them; nothing if none was stored.
    pub compression_ratio: Option<f64>,
}

/// Counts what the snapshots of one VM are. Reads its decisions, repack records and the nodes of its maps, and lists
/// nothing of other VMs.
///
/// # Errors
/// As [`stats`]; [`EngineError::NoSnapshotOf`] the VM, or [`EngineError::ForgottenMeanwhile`] if none is left.
pub fn stats_of(repository: &Repository<'_>, vm: &str) -> Result<VmStatsReport, EngineError> {
    stats_of_offered(repository, vm, &Doubt::None)
}

/// As [`stats_of`]; snapshots in doubt that are not whole are left out.
///
/// # Errors
/// As [`stats_of`].
pub fn stats_of_offered(
    repository: &Repository<'_>,
    vm: &str,
    doubt: &Doubt,
) -> Result<VmStatsReport, EngineError> {
    let report = counted(repository, (Some(vm), doubt), |counting| {
        let Sums { snapshots, logical_bytes, new_bytes, stored_bytes, data_bytes } = counting.sums;
        let report = VmStatsReport {
            vm: vm.to_owned(),
            snapshots,
            unreadable: counting.unreadable,
            incomplete: counting.incomplete,
            forgotten_meanwhile: counting.forgotten.clone(),
            logical_bytes,
            referenced_packs: counting.needed.len() as u64,
            new_bytes,
            stored_bytes,
            deduplication_ratio: ratio(logical_bytes, new_bytes),
            compression_ratio: ratio(new_bytes, data_bytes),
        };
        Ok((report, false))
    })?;
    match report.forgotten_meanwhile.first() {
        _ if report.snapshots > 0 || report.unreadable > 0 || report.incomplete > 0 => Ok(report),
        Some(snapshot) => Err(EngineError::ForgottenMeanwhile { snapshot: *snapshot }),
        None => Err(no_snapshot_of(repository, vm)?),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Says which VMs there are instead.
pub(crate) fn no_snapshot_of(repository: &Repository<'_>, vm: &str) -> Result<EngineError, EngineError> {
    let mut found = BTreeSet::new();
    let newest = Query { newest: Some(1), ..Query::default() };
    snapshots::each(repository, &newest, &mut |snapshot| {
        found.insert(snapshot.commit.vm);
    })?;
    let others = found.len().saturating_sub(VMS_NAMED);
    Ok(EngineError::NoSnapshotOf {
        vm: vm.to_owned(),
        found: found.into_iter().take(VMS_NAMED).collect(),
        others,
    })
}

/// Counts, and makes a report of it that says whether something is missing, until that is not because of what was
/// forgotten or repacked meanwhile.
fn counted<R>(
    repository: &Repository<'_>,
    which: (Option<&str>, &Doubt),
    report: impl Fn(&Counting) -> Result<(R, bool), EngineError>,
) -> Result<R, EngineError> {
    let mut forgotten = BTreeSet::new();
    loop {
        let mut counting = Counting { forgotten, ..Counting::default() };
        let records = Records::load_readable(repository)?;
        let counted = counting.count(repository, which, &records);
        let outcome = counted.and_then(|()| report(&counting));
        match &outcome {
            Ok((_, true)) => {}
            Err(error) if error.is_damage() => {}
            _ => return Ok(outcome?.0),
        }
        let gone = snapshots::tombstoned_sessions(repository, &counting.sessions)?;
        let is_known = |session| records.leads().any(|(known, ..)| known == session);
        let now = Records::load_readable(repository)?;
        if gone.is_empty() && now.leads().all(|(session, ..)| is_known(session)) {
            return Ok(outcome?.0);
        }
        forgotten = counting.forgotten;
        forgotten.extend(gone);
    }
}

/// What there is of some snapshots.
#[derive(Default)]
struct Counting {
    /// Those that were left out, because they were forgotten meanwhile.
    forgotten: BTreeSet<SessionId>,
    sums: Sums,
    sessions: BTreeSet<SessionId>,
    vms: BTreeSet<String>,
    unreadable: u64,
    /// Those that were left out, because they are not whole.
    incomplete: u64,
    /// The packs that they need, through the records that apply to them.
    needed: PackSet,
}

impl Counting {
    fn count(
        &mut self,
        repository: &Repository<'_>,
        (vm, doubt): (Option<&str>, &Doubt),
        records: &Records,
    ) -> Result<(), EngineError> {
        let mut marker = Marker::new(repository, records.repacked().cloned());
        let mut batch = Vec::new();
        let query = Query { vm, ..Query::default() };
        let found = replica::try_each(repository, (doubt, &query), &Quiet, &mut |point| {
            let Point { snapshot, whole } = point;
            if !whole.is_whole() {
                self.incomplete += 1;
                return Ok(());
            }
            self.sums.add(&snapshot);
            self.sessions.insert(snapshot.session());
            if !self.vms.contains(&snapshot.commit.vm) {
                self.vms.insert(snapshot.commit.vm.clone());
            }
            batch.push(snapshot);
            if batch.len() < SNAPSHOTS_AT_ONCE {
                return Ok(());
            }
            marker.mark(&std::mem::take(&mut batch), records)
        })?;
        marker.mark(&batch, records)?;
        self.unreadable = found.unreadable.len() as u64;
        self.needed = marker.into_needed();
        Ok(())
    }
}

/// What snapshots say of themselves, added up.
#[derive(Default)]
struct Sums {
    snapshots: u64,
    logical_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    /// Without metadata.
    data_bytes: u64,
}

impl Sums {
    fn add(&mut self, snapshot: &Snapshot) {
        let totals = &snapshot.commit.totals;
        self.snapshots += 1;
        // What decisions say of themselves may be anything.
        for disk in &snapshot.commit.disks {
            self.logical_bytes = self.logical_bytes.saturating_add(disk.size);
        }
        self.new_bytes = self.new_bytes.saturating_add(totals.new_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(totals.stored_bytes);
        let data_bytes = totals.stored_bytes.saturating_sub(totals.metadata_bytes);
        self.data_bytes = self.data_bytes.saturating_add(data_bytes);
    }
}

/// Ids as users know them.
fn ids<S: serde::Serializer>(sessions: &BTreeSet<SessionId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sessions.iter().map(SessionId::to_string))
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

impl BlobStats {
    fn of(&mut self, kind: Option<&BlobKind>) -> &mut Count {
        match kind {
            Some(BlobKind::Config | BlobKind::KeySlot(_)) => &mut self.keys,
            Some(BlobKind::Intent { .. }) => &mut self.intents,
            Some(BlobKind::Pack(name)) => match name.kind {
                PackKind::Data => &mut self.data_packs,
                PackKind::Map => &mut self.map_packs,
            },
            Some(BlobKind::Index { .. }) => &mut self.indexes,
            Some(BlobKind::Decision(_)) => &mut self.decisions,
            Some(BlobKind::Tombstone { .. }) => &mut self.tombstones,
            Some(
                BlobKind::Condemned(_)
                | BlobKind::Awaited(_)
                | BlobKind::GcResult(_)
                | BlobKind::GenerationSeal(_)
                | BlobKind::Repack(_)
                | BlobKind::Pin { .. }
                | BlobKind::ReplicaMarker
                | BlobKind::Lineage(_)
                | BlobKind::Barrier { .. }
                | BlobKind::Canary,
            ) => &mut self.prune_records,
            None => &mut self.unknown,
        }
    }
}
