//! What a verification is asked, and what it says.

use crate::extent::Extent;
use crate::replica::Point;
use crate::snapshots::Snapshot;
use serde::Serialize;

/// What is to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyJob {
    /// Which snapshots, and whether every other object too.
    pub which: Which,
    /// Which packs are read whole; maps and small objects are read always, and packs looked up.
    pub read_data: ReadData,
    /// Now, milliseconds since 1970.
    pub time: u64,
}

impl VerifyJob {
    /// Every snapshot and every other object.
    #[must_use]
    pub fn everything(read_data: ReadData, time: u64) -> Self {
        Self { which: Which::Everything, read_data, time }
    }
}

/// Which snapshots are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every snapshot and every other object.
    Everything,
    /// The same, but for snapshots that came from elsewhere and are not whole (see [`replica`](crate::replica)), and what
    /// belongs to them. What was made in the place is always looked at.
    AllWhole,
    /// These snapshots and what they need, nothing else.
    These(Vec<Snapshot>),
}

impl Which {
    /// Whether objects are looked at that no snapshot needs.
    pub(super) fn is_all(&self) -> bool {
        !matches!(self, Self::These(_))
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// not read. 0 where only some snapshots were looked at, or where it is not known what those need that were left out.
    pub unneeded_packs: u64,
    /// Their bytes.
    pub unneeded_bytes: u64,
    /// What is known of the data of the packs that the snapshots need, from this run and those before it.
    #[serde(skip)]
    pub verified: Verified,
    /// Snapshots that were left out since they are not whole, the oldest first (by time, then id).
    #[serde(skip)]
    pub not_whole: Vec<Point>,
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
    /// What tells that the place is a replica, or was promoted (`lineage/`), cannot be read.
    DamagedLineage,
    /// What is told of a replica (`b/`) cannot be read.
    DamagedBarrier,
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
                | Self::DamagedLineage
                | Self::DamagedBarrier
                | Self::DamagedCanary
        )
    }

    /// Whether it tells of the state of a pack: one pack has one such finding.
    pub(super) fn is_of_pack(self) -> bool {
        matches!(self, Self::MissingPack | Self::WrongLength | Self::DamagedPack)
    }
}
