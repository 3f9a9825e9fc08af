//! Collecting what a verification finds, while several threads look.

use super::report::{Affected, Finding, FindingKind};
use crate::extent::{Extent, normalized};
use crate::frames::lock;
use crate::snapshots::Snapshot;
use repo_format::{BlobKind, BlobName, SessionId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

/// A finding's place in [`Findings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FindingId(u32);

/// A disk by the position of its snapshot and its own among those that are verified.
pub(super) type DiskPosition = (usize, usize);

/// Collects findings; a blob has one of each kind.
#[derive(Default)]
pub(super) struct Findings(Mutex<Collected>);

#[derive(Default)]
struct Collected {
    found: Vec<Found>,
    of_blob: HashMap<String, Vec<FindingId>>,
    /// The positions of snapshots that were found to be forgotten.
    forgotten: BTreeSet<usize>,
}

struct Found {
    kind: FindingKind,
    blob: String,
    detail: String,
    disks: BTreeMap<DiskPosition, Vec<Extent>>,
    /// Snapshots that are not among those that are verified, because they cannot be read.
    lost: Vec<Affected>,
}

impl Found {
    fn is_missing_alone(&self) -> bool {
        self.kind == FindingKind::MissingPack && self.disks.is_empty() && self.lost.is_empty()
    }

    /// The session of the pack that is missing, if that is all that is known.
    fn missing_of(&self) -> Option<SessionId> {
        match BlobName::parse(&self.blob)?.kind()? {
            BlobKind::Pack(pack) if self.is_missing_alone() => Some(pack.session),
            _ => None,
        }
    }
}

impl Collected {
    fn get(&mut self, id: FindingId) -> &mut Found {
        self.found.get_mut(id.0 as usize).expect("an id is a place in the list")
    }
}

impl Findings {
    /// The finding of that kind about a blob: the one that is there, or a new one.
    pub(super) fn note(
        &self,
        kind: FindingKind,
        blob: &BlobName,
        detail: impl FnOnce() -> String,
    ) -> FindingId {
        self.note_of(kind, blob.as_str(), detail)
    }

    /// As [`Findings::note`], about something that need not have a blob's name.
    pub(super) fn note_of(
        &self,
        kind: FindingKind,
        blob: &str,
        detail: impl FnOnce() -> String,
    ) -> FindingId {
        let mut collected = lock(&self.0);
        let same = |found: &Found| found.kind == kind || (kind.is_of_pack() && found.kind.is_of_pack());
        let known = collected.of_blob.get(blob).into_iter().flatten().copied();
        let known = known.filter(|id| collected.found.get(id.0 as usize).is_some_and(same)).min();
        if let Some(id) = known {
            return id;
        }
        let id = FindingId(u32::try_from(collected.found.len()).expect("fewer than 2^32 findings"));
        let (disks, lost) = (BTreeMap::new(), Vec::new());
        collected.found.push(Found { kind, blob: blob.to_owned(), detail: detail(), disks, lost });
        collected.of_blob.entry(blob.to_owned()).or_default().push(id);
        id
    }

    /// As [`Findings::note`]; a finding that is there tells this too.
    pub(super) fn note_or_tell_more(&self, kind: FindingKind, blob: &BlobName, detail: &str) {
        let mut is_new = false;
        let id = self.note(kind, blob, || {
            is_new = true;
            detail.to_owned()
        });
        if !is_new {
            self.tell_more(id, detail);
        }
    }

    /// Adds to what a finding tells.
    pub(super) fn tell_more(&self, id: FindingId, more: &str) {
        let mut collected = lock(&self.0);
        let detail = &mut collected.get(id).detail;
        detail.push_str("; ");
        detail.push_str(more);
    }

    /// As [`Findings::tell_more`], unless it tells that already.
    pub(super) fn tell_once(&self, id: FindingId, more: &str) {
        if !lock(&self.0).get(id).detail.contains(more) {
            self.tell_more(id, more);
        }
    }

    /// What was found so far.
    pub(super) fn blobs(&self) -> Vec<(FindingId, FindingKind, String)> {
        let collected = lock(&self.0);
        (0..)
            .map(FindingId)
            .zip(&collected.found)
            .map(|(id, found)| (id, found.kind, found.blob.clone()))
            .collect()
    }

    /// Adds a part of a disk to what a finding concerns.
    pub(super) fn affect(&self, id: FindingId, disk: DiskPosition, extent: Extent) {
        lock(&self.0).get(id).disks.entry(disk).or_default().push(extent);
    }

    /// Adds a snapshot that cannot be read.
    pub(super) fn lose(&self, id: FindingId, snapshot: SessionId, vm: &str) {
        let affected = Affected {
            snapshot: snapshot.to_string(),
            vm: vm.to_owned(),
            disk: String::new(),
            ranges: Vec::new(),
        };
        lock(&self.0).get(id).lost.push(affected);
    }

    /// Notes that a snapshot was forgotten since it was listed, by its position.
    pub(super) fn forget(&self, snapshot: usize) {
        lock(&self.0).forgotten.insert(snapshot);
    }

    /// The positions of the snapshots that any finding concerns.
    pub(super) fn affected_snapshots(&self) -> Vec<usize> {
        let collected = lock(&self.0);
        let disks = collected.found.iter().flat_map(|found| found.disks.keys());
        let mut snapshots: Vec<usize> = disks.map(|(snapshot, _)| *snapshot).collect();
        snapshots.sort_unstable();
        snapshots.dedup();
        snapshots
    }

    /// The positions of the snapshots that any finding concerns, or whose sessions lack a pack.
    pub(super) fn concerned_snapshots(&self, snapshots: &[Snapshot]) -> BTreeSet<usize> {
        let mut concerned: BTreeSet<usize> = self.affected_snapshots().into_iter().collect();
        let missing: HashSet<SessionId> = lock(&self.0).found.iter().filter_map(Found::missing_of).collect();
        let of_session = |(_, snapshot): &(usize, &Snapshot)| missing.contains(&snapshot.session());
        concerned.extend(snapshots.iter().enumerate().filter(of_session).map(|(position, _)| position));
        concerned
    }

    /// Whether a pack is missing that no disk is known to lack.
    pub(super) fn has_missing_alone(&self) -> bool {
        lock(&self.0).found.iter().any(Found::is_missing_alone)
    }

    /// Ends the collection. What concerns nobody but snapshots that were forgotten meanwhile is not told of: they
    /// are. Nor is told of packs that are missing, were deleted by then, and that nobody is known to need.
    pub(super) fn finish(self, snapshots: &[Snapshot], is_deleted: &dyn Fn(&str) -> bool) -> Vec<Finding> {
        let collected = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let forgotten = &collected.forgotten;
        let gone = forgotten.iter().filter_map(|position| snapshots.get(*position));
        let mut findings: Vec<Finding> = gone.map(forgotten_meanwhile).collect();
        for mut found in collected.found {
            if found.is_missing_alone() && is_deleted(&found.blob) {
                continue;
            }
            let concerned_any = !found.disks.is_empty();
            found.disks.retain(|(snapshot, _), _| !forgotten.contains(snapshot));
            if concerned_any && found.disks.is_empty() && found.lost.is_empty() {
                continue;
            }
            let mut affected = found.lost;
            affected.extend(found.disks.into_iter().filter_map(|((snapshot, disk), extents)| {
                let snapshot = snapshots.get(snapshot)?;
                Some(Affected {
                    snapshot: snapshot.session().to_string(),
                    vm: snapshot.commit.vm.clone(),
                    disk: snapshot.commit.disks.get(disk)?.key.clone(),
                    ranges: normalized(extents),
                })
            }));
            let (kind, blob, detail) = (found.kind, found.blob, found.detail);
            findings.push(Finding { kind, blob, detail, affected });
        }
        findings.sort_by(|a, b| (!a.is_damage(), &a.blob, a.kind).cmp(&(!b.is_damage(), &b.blob, b.kind)));
        findings
    }
}

fn forgotten_meanwhile(snapshot: &Snapshot) -> Finding {
    let session = snapshot.session();
    let vm = &snapshot.commit.vm;
    Finding {
        kind: FindingKind::ForgottenMeanwhile,
        blob: snapshot.name.blob().to_string(),
        detail: format!(
            "snapshot {session} of {vm} was forgotten meanwhile: what only it needed is being removed"
        ),
        affected: vec![Affected {
            snapshot: session.to_string(),
            vm: vm.clone(),
            disk: String::new(),
            ranges: Vec::new(),
        }],
    }
}
