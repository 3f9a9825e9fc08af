//! What the source of a replica has that has not arrived.

use super::points::Points;
use crate::clock::{self, Stopwatch};
use crate::settings::Settings;
use crate::times;
use keepstone_engine::snapshots::{Query, UnreadableBlob, each};
use keepstone_engine::store::StoreError;
use keepstone_engine::store::azure::{AzureStore, ReplicationState};
use keepstone_engine::{EngineError, Repository};
use repo_format::{BlobName, SessionId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long is waited before a replica is looked at again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Missing blobs that the source is asked about, each a request.
const ASKED_MAX: usize = 1000;

/// What is at the source and not in the replica.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceReport {
    /// Snapshots that the source has.
    pub(super) snapshots: u64,
    /// Those of which nothing has arrived that tells of them.
    pub(super) not_arrived: Vec<Absent>,
    /// Its decisions and tombstones that cannot be read. What they say is not known, so it is neither told nor waited for.
    pub(super) unreadable: Vec<String>,
    /// Before when all is there that was written to the account, where the replica is its secondary endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_sync_time: Option<String>,
    /// What object replication says of blobs that are missing, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replication: Option<Replication>,
}

/// How far object replication is with blobs that are missing in the replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Replication {
    /// Blobs that it was asked about.
    pub(super) asked: u64,
    pub(super) complete: u64,
    pub(super) pending: u64,
    pub(super) failed: u64,
    /// No rule concerns them, or none has looked at them yet.
    pub(super) unknown: u64,
    /// They are not at the source either, by now.
    pub(super) gone: u64,
}

/// A snapshot that has not arrived.
#[derive(Serialize)]
pub(super) struct Absent {
    pub(super) snapshot: String,
    pub(super) vm: String,
    pub(super) time: Option<String>,
}

/// What a source has.
#[derive(Default)]
pub(super) struct AtSource {
    /// Its snapshots, with their VMs and times.
    snapshots: BTreeMap<SessionId, (String, u64)>,
    pub(super) unreadable: Vec<UnreadableBlob>,
}

/// Lists what a source has of some VMs, or of all.
pub(super) fn snapshots(source: &Repository<'_>, vms: &[String]) -> Result<AtSource, EngineError> {
    let mut found = AtSource::default();
    for query in Query::of_vms(vms) {
        let others = each(source, &query, &mut |snapshot| {
            let (vm, time) = (snapshot.commit.vm.clone(), snapshot.commit.time);
            found.snapshots.insert(snapshot.session(), (vm, time));
        })?;
        found.unreadable.extend(others.unreadable);
    }
    Ok(found)
}

/// Compares what a source has with what has arrived. VMs that only the source has are VMs without a restore point.
pub(super) fn compare(at_source: &AtSource, points: &mut Points) -> SourceReport {
    let mut not_arrived = Vec::new();
    for (session, (vm, time)) in &at_source.snapshots {
        if points.listed.contains(session) || points.forgotten.contains(session) {
            continue;
        }
        points.vms.entry(vm.clone()).or_default().not_arrived += 1;
        not_arrived.push((
            *time,
            Absent { snapshot: session.to_string(), vm: vm.clone(), time: times::rfc3339(*time) },
        ));
    }
    not_arrived.sort_by_key(|(time, _)| *time);
    SourceReport {
        snapshots: at_source.snapshots.len() as u64,
        not_arrived: not_arrived.into_iter().map(|(_, absent)| absent).collect(),
        unreadable: at_source.unreadable.iter().map(|(name, _)| name.to_string()).collect(),
        last_sync_time: None,
        replication: None,
    }
}

/// Asks a source how far object replication is with some of the blobs that are missing.
pub(super) fn replication(
    source: &AzureStore,
    missing: &BTreeSet<BlobName>,
) -> Result<Replication, StoreError> {
    let mut told = Replication::default();
    for name in missing.iter().take(ASKED_MAX) {
        told.asked += 1;
        match source.replication_of(name) {
            Ok(Some(ReplicationState::Complete)) => told.complete += 1,
            Ok(Some(ReplicationState::Pending)) => told.pending += 1,
            Ok(Some(ReplicationState::Failed)) => told.failed += 1,
            Ok(None) => told.unknown += 1,
            Err(StoreError::NotFound { .. }) => told.gone += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

/// Whether what was waited for has come.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Waited {
    Arrived,
    TimedOut,
}

/// Waits until all restore points that can be read at a source now are whole in the replica, or forgotten. `look` looks at
/// the replica.
pub(super) fn wait(
    settings: &Settings,
    (source, vms): (&Repository<'_>, &[String]),
    timeout: Option<Duration>,
    look: &dyn Fn() -> anyhow::Result<Points>,
) -> anyhow::Result<(Points, Waited)> {
    let mut wanted = snapshots(source, vms)?.snapshots;
    let (waiting, mut pause) = (Stopwatch::start(), FIRST_PAUSE);
    loop {
        let points = look()?;
        wanted.retain(|session, _| {
            !points.forgotten.contains(session) && !points.whole.iter().any(|(whole, _)| whole == session)
        });
        if wanted.is_empty() {
            return Ok((points, Waited::Arrived));
        }
        let left = timeout.map_or(LONGEST_PAUSE, |timeout| timeout.saturating_sub(waiting.elapsed()));
        if left.is_zero() {
            return Ok((points, Waited::TimedOut));
        }
        let others = wanted.len();
        settings.console.message(&format!("waiting for {others} restore points of the source"));
        if clock::pause(pause.min(left), &|| settings.interrupt.is_raised()).is_break() {
            return Err(EngineError::Cancelled.into());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        // What was forgotten meanwhile need not come.
        let now = snapshots(source, vms)?.snapshots;
        wanted.retain(|session, _| now.contains_key(session));
    }
}
