//! What a verification finds.

use crate::extent::{Extent, normalized};
use crate::frames::lock;
use crate::snapshots::Snapshot;
use repo_format::{BlobKind, BlobName, SessionId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

/// What is to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyJob {
    /// These snapshots and all that they need; if there are none, every snapshot and every other object.
    pub snapshots: Vec<Snapshot>,
    /// Which packs are read whole; maps and small objects are read always, and packs looked up.
    pub read_data: ReadData,
    /// Now, milliseconds since 1970.
    pub time: u64,
}

impl VerifyJob {
    /// Every snapshot and every other object.
    #[must_use]
    pub fn everything(read_data: ReadData, time: u64) -> Self {
        Self { snapshots: Vec::new(), read_data, time }
    }
}

/// Which of the packs that snapshots need are read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadData {
    /// None but those that are known to be damaged.
    Nothing,
    /// So many parts per million of their bytes, at least one pack, and all that are known to be damaged. What was
    /// never read comes first, then what was read longest ago: a million divided by `ppm`, rounded up, such runs with
    /// one memory read all that was there at the first of them.
    Part {
        /// Parts per million.
        ppm: u32,
    },
    /// All of them.
    Everything,
}

/// The result of a verification; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// Their disks.
    pub disks: u64,
    /// Packs that they need.
    pub packs: u64,
    /// Chunks that their maps name, those of a page that several disks share counted once.
    pub chunks: u64,
    /// Bytes of packs that were read whole.
    pub read_bytes: u64,
    /// Packs that none of the snapshots needs: of sessions that were aborted, forgotten, or have not ended. They are
    /// not read. 0 where only some snapshots were looked at.
    pub unneeded_packs: u64,
    /// Their bytes.
    pub unneeded_bytes: u64,
    /// What is known of the data of the packs that the snapshots need, from this run and those before it.
    #[serde(skip)]
    pub verified: Verified,
    /// What was found: damage first, then by blob.
    pub findings: Vec<Finding>,
}

/// What the memory says of packs, those that are missing left out; sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Packs that were sound when they were read last.
    pub bytes: u64,
    /// Packs that were never read.
    pub never_bytes: u64,
    /// Packs that were damaged when they were read last, contradict a map or an index, or have another length than
    /// maps say.
    pub damaged_bytes: u64,
    /// When the one of the sound packs that was read longest ago was read, milliseconds since 1970.
    pub oldest: Option<u64>,
}

impl VerifyReport {
    /// Whether anything was found that is damage.
    #[must_use]
    pub fn has_damage(&self) -> bool {
        self.findings.iter().any(Finding::is_damage)
    }

    /// Whether a snapshot was forgotten while it was verified, so that it was not verified.
    #[must_use]
    pub fn has_forgotten(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind == FindingKind::ForgottenMeanwhile)
    }

    /// Whether anything was found that somebody should look at, damage or not.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind.needs_attention())
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The blob that is concerned, or what is in a blob's place, with bytes that are no text written out.
    pub blob: String,
    /// What exactly is wrong.
    pub detail: String,
    /// What cannot be restored for it, of the snapshots that were verified; the oldest snapshot first.
    pub affected: Vec<Affected>,
}

impl Finding {
    /// Whether something that was stored is gone or changed. All else only deserves attention.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.kind.is_damage()
    }
}

/// A disk of a snapshot that a finding concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Affected {
    /// The snapshot's id.
    pub snapshot: String,
    /// Its VM; empty if no readable snapshot tells the name.
    pub vm: String,
    /// The disk's key; empty if the whole snapshot is concerned.
    pub disk: String,
    /// The parts of the disk that are concerned, sorted. Where a part of the map cannot be read, all that it spans.
    pub ranges: Vec<Extent>,
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A pack that a map names is not there.
    MissingPack,
    /// A pack that a snapshot needs is in the delete list of a prune and still there.
    CondemnedPack,
    /// A pack has another length than maps say.
    WrongLength,
    /// A pack, or a part of it, is not what was written.
    DamagedPack,
    /// A map is authentic but contradicts itself or its packs.
    ContradictoryMap,
    /// A pack of a committed session that no map names: authentic, and more than the session should have.
    SurplusPack,
    /// A session was decided, other objects prove it, and its decision is gone. It was not forgotten.
    MissingDecision,
    /// A session's intent is gone. It is needed no more once the session is decided.
    MissingIntent,
    /// What is there of a session contradicts itself: two writers, two decisions, or another VM's parent.
    ContradictorySession,
    /// A decision cannot be read.
    DamagedDecision,
    /// A tombstone cannot be read.
    DamagedTombstone,
    /// An intent cannot be read.
    DamagedIntent,
    /// An index cannot be read. No snapshot needs it.
    DamagedIndex,
    /// An object of a generation (`gc/`) cannot be read.
    DamagedGeneration,
    /// A repack record cannot be read.
    DamagedRepackRecord,
    /// A pin cannot be read.
    DamagedPin,
    /// A canary does not have its content.
    DamagedCanary,
    /// A key slot cannot be read, or is another repository's.
    DamagedKeySlot,
    /// Packs of a snapshot's session are in no index: later backups may store their chunks again.
    MissingIndex,
    /// An index lists packs that are not there or have another length. Backups notice and store the chunks again.
    StaleIndex,
    /// An index is authentic and says of packs what is not so. A backup that trusts it refers to chunks that cannot be
    /// read.
    WrongIndex,
    /// A session has begun and not ended: it is running or was interrupted, or its decision was lost.
    UndecidedSession,
    /// As [`FindingKind::UndecidedSession`], but all that a snapshot needs was stored more than a day ago: its decision
    /// was probably lost.
    StalledSession,
    /// A key slot that no password can open, because those before it are as many as a reader tries.
    UntriedKeySlot,
    /// An object that only the retention role makes lacks its signature, or has a wrong one: it is ignored.
    UnsignedObject,
    /// A snapshot was forgotten while it was verified, and what it needs has been removed.
    ForgottenMeanwhile,
    /// A name has no meaning in the format, or what bears a name is no blob.
    UnknownName,
}

impl FindingKind {
    /// Whether something that was stored is gone or changed.
    #[must_use]
    pub fn is_damage(self) -> bool {
        !self.needs_attention()
            && !matches!(
                self,
                Self::SurplusPack
                    | Self::StaleIndex
                    | Self::UndecidedSession
                    | Self::ForgottenMeanwhile
                    | Self::UnknownName
            )
    }

    /// Whether somebody should look at it although nothing that was stored is known to be gone.
    #[must_use]
    pub fn needs_attention(self) -> bool {
        matches!(
            self,
            Self::MissingIndex | Self::StalledSession | Self::UntriedKeySlot | Self::UnsignedObject
        )
    }

    /// Whether it says that a blob is there and is not what was written.
    pub(super) fn is_of_content(self) -> bool {
        matches!(
            self,
            Self::WrongLength
                | Self::DamagedPack
                | Self::DamagedDecision
                | Self::DamagedTombstone
                | Self::DamagedIntent
                | Self::DamagedIndex
                | Self::DamagedGeneration
                | Self::DamagedRepackRecord
                | Self::DamagedPin
                | Self::DamagedCanary
        )
    }

    /// Whether it tells of the state of a pack: one pack has one such finding.
    fn is_of_pack(self) -> bool {
        matches!(self, Self::MissingPack | Self::WrongLength | Self::DamagedPack)
    }
}

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
