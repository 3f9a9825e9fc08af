//! The restore points of a replica, whole or not, and what they come to for each VM.

use crate::commands::snapshots::Line;
use crate::times;
use keepstone_engine::pins::Pins;
use keepstone_engine::replica::{self, Doubt};
use keepstone_engine::snapshots::{Query, Snapshot, UnreadableBlob};
use keepstone_engine::{EngineError, Observer, Repository};
use repo_format::{BlobName, SessionId, WriterId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What was found in a replica.
pub(super) struct Points {
    /// The oldest first.
    pub(super) lines: Vec<Line>,
    pub(super) vms: BTreeMap<String, Vm>,
    /// Sessions, each with its writer.
    pub(super) whole: BTreeSet<(SessionId, WriterId)>,
    /// Sessions whose decisions are there and that are not forgotten.
    pub(super) listed: BTreeSet<SessionId>,
    /// Sessions that are forgotten there.
    pub(super) forgotten: BTreeSet<SessionId>,
    pub(super) unreadable: Vec<UnreadableBlob>,
    /// The first of the blobs that are missing.
    pub(super) missing: BTreeSet<BlobName>,
    pub(super) has_damage: bool,
}

/// A VM in a replica.
#[derive(Default)]
pub(super) struct Vm {
    pub(super) newest_whole: Option<Snapshot>,
    /// Those that are not whole, with their times.
    incomplete: Vec<u64>,
    /// Those that have not arrived at all.
    pub(super) not_arrived: u64,
}

/// A VM as it is told of.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VmLine {
    pub(super) vm: String,
    pub(super) newest_whole: Option<String>,
    pub(super) time: Option<String>,
    pub(super) age_seconds: Option<u64>,
    /// Newer ones that are there in part.
    pub(super) newer_incomplete: u64,
    /// Those of the source of which nothing has arrived that tells of them.
    pub(super) not_arrived: u64,
    /// The newest whole one is older than is allowed, or there is none.
    pub(super) late: bool,
    #[serde(skip)]
    pub(super) time_millis: u64,
}

/// Looks at all restore points of a replica, or at those of some VMs.
pub(super) fn look(
    repository: &Repository<'_>,
    vms: &[String],
    pins: &Pins,
    observer: &dyn Observer,
) -> Result<Points, EngineError> {
    let mut points = Points {
        lines: Vec::new(),
        vms: vms.iter().map(|vm| (vm.clone(), Vm::default())).collect(),
        whole: BTreeSet::new(),
        listed: BTreeSet::new(),
        forgotten: BTreeSet::new(),
        unreadable: Vec::new(),
        missing: BTreeSet::new(),
        has_damage: false,
    };
    for query in Query::of_vms(vms) {
        let found = replica::each(repository, (&Doubt::All, &query), observer, &mut |point| {
            points.note(&point, Line::in_doubt(&point, pins));
        })?;
        points.forgotten.extend(found.forgotten.iter().map(|name| name.session));
        points.unreadable.extend(found.unreadable);
    }
    points.lines.sort_by(|a, b| (a.time_millis, &a.snapshot).cmp(&(b.time_millis, &b.snapshot)));
    Ok(points)
}

impl Points {
    fn note(&mut self, point: &replica::Point, line: Line) {
        let (snapshot, time) = (&point.snapshot, point.snapshot.commit.time);
        self.listed.insert(snapshot.session());
        let vm = self.vms.entry(snapshot.commit.vm.clone()).or_default();
        match point.whole.missing() {
            None => {
                self.whole.insert((snapshot.session(), snapshot.name.writer.clone()));
                let rank = |snapshot: &Snapshot| (snapshot.commit.time, snapshot.session());
                if vm.newest_whole.as_ref().is_none_or(|newest| rank(snapshot) > rank(newest)) {
                    vm.newest_whole = Some(snapshot.clone());
                }
            }
            Some(missing) => {
                vm.incomplete.push(time);
                self.has_damage |= !missing.damaged.is_empty();
                self.missing.extend(missing.names.iter().map(|blob| blob.name.clone()));
            }
        }
        self.lines.push(line);
    }

    /// What they come to for each VM, now.
    pub(super) fn of_vms(&self, now: u64, max_age: Option<u64>) -> Vec<VmLine> {
        let line = |(name, vm): (&String, &Vm)| {
            let time = vm.newest_whole.as_ref().map(|newest| newest.commit.time);
            let age = time.map(|time| now.saturating_sub(time));
            VmLine {
                vm: name.clone(),
                newest_whole: vm.newest_whole.as_ref().map(|newest| newest.session().to_string()),
                time: time.and_then(times::rfc3339),
                age_seconds: age.map(|age| age / 1000),
                newer_incomplete: vm
                    .incomplete
                    .iter()
                    .filter(|at| time.is_none_or(|time| **at > time))
                    .count() as u64,
                not_arrived: vm.not_arrived,
                late: age.is_none_or(|age| max_age.is_some_and(|max| age > max)),
                time_millis: time.unwrap_or_default(),
            }
        };
        self.vms.iter().map(line).collect()
    }

    /// The newest whole restore point of each VM.
    pub(super) fn newest(&self) -> Vec<Snapshot> {
        self.vms.values().filter_map(|vm| vm.newest_whole.clone()).collect()
    }
}
