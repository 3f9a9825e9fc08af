//! How operations of the engine fail.

use crate::amount::{share, size};
use crate::forget::ForgetError;
use crate::index::IndexError;
use crate::replica::Missing;
use crate::replicate::ReplicateError;
use crate::restore::JournalError;
use crate::store::StoreError;
use repo_format::{BlobName, FormatError, ReplicaName, RepositoryId, SessionId, SlotKind, WriterId};
use std::io;
use std::sync::Arc;

/// A failed operation. What had been committed before is untouched by every one of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The observer asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// The store failed, or lacks a blob.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob is not what the format says.
    #[error("{name} is damaged")]
    Damaged {
        /// The blob.
        name: BlobName,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A blob is shorter than what refers to it says.
    #[error("{name} is shorter than the {expected} bytes that are needed of it")]
    Short {
        /// The blob.
        name: BlobName,
        /// How far it should have reached.
        expected: u64,
    },
    /// There is a repository already.
    #[error("there is a repository already")]
    AlreadyARepository,
    /// There is no config blob.
    #[error("this is not a Keepstone repository: it has no config")]
    NotARepository,
    /// The config is of a format that this program does not know.
    #[error("this repository has the format {found}, which this program does not know")]
    UnknownFormat {
        /// The format's number.
        found: u64,
    },
    /// Another repository is at a place where a copy of this one was expected.
    #[error("another repository is there: it is {found}, and this one is {expected}")]
    OtherRepository {
        /// This repository.
        expected: RepositoryId,
        /// The one that is there.
        found: RepositoryId,
    },
    /// No key slot opens with the password.
    #[error("the password opens no key slot; {slots} {} tried{}", were(*slots), and_damaged(*damaged))]
    WrongPassword {
        /// Slots that were tried.
        slots: usize,
        /// Slots that could not be tried.
        damaged: usize,
    },
    /// No key slot that was tried opens with the password, and there are more than a reader tries.
    #[error(
        "the password opens none of the {tried} key slots that are tried, and {untried} more are not tried"
    )]
    TooManySlots {
        /// Slots that were tried.
        tried: usize,
        /// Slots behind them, in the order of names.
        untried: usize,
    },
    /// There is no config, but other parts of a repository are there.
    #[error("the config of this repository is missing, but {found} is there")]
    ConfigMissing {
        /// One of the other parts.
        found: BlobName,
    },
    /// No retention slot opens with the password.
    #[error("the password opens no retention key slot; {slots} {} tried{}", were(*slots), and_damaged(*damaged))]
    WrongRetentionPassword {
        /// Slots that were tried.
        slots: usize,
        /// Slots, of whatever kind, that could not be tried.
        damaged: usize,
    },
    /// The last key slot that gives the root key or the retention key cannot be removed.
    #[error("key slot {name} is the only {} slot; without it nothing could be {} again", kind.as_str(), use_of(*kind))]
    LastSlot {
        /// The slot.
        name: String,
        /// What it gives that no other does.
        kind: SlotKind,
    },
    /// The repository was opened with an inventory slot, which does not reach what is inside disks.
    #[error("this needs the data key, and the password opens an inventory key slot, which does not give it")]
    NoDataKey,
    /// A name that a caller gave is not allowed.
    #[error("{what} {name:?} is not allowed")]
    BadName {
        /// What was named.
        what: &'static str,
        /// The name.
        name: String,
        /// Why.
        source: repo_format::NameError,
    },
    /// A job contradicts itself.
    #[error("{0}")]
    BadJob(&'static str),
    /// A disk has no bytes.
    #[error("disk {disk} is empty")]
    EmptyDisk {
        /// The disk's key.
        disk: String,
    },
    /// A source could not be read.
    #[error("could not read disk {disk}")]
    Source {
        /// The disk's key.
        disk: String,
        /// Why.
        source: io::Error,
    },
    /// A part of a source could not be read.
    #[error("could not read disk {disk} at offset {offset}")]
    SourceAt {
        /// The disk's key.
        disk: String,
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A target could not be written.
    #[error("could not write the target at offset {offset}")]
    Target {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// What a target holds could not be read.
    #[error("could not read what the target holds at offset {offset}")]
    TargetUnread {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// What is complete could not be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A part of a disk's map cannot be read.
    #[error("the map of the disk from {offset} on cannot be read")]
    MapUnreadable {
        /// From where on.
        offset: u64,
        /// Why.
        source: Box<EngineError>,
    },
    /// A part of a disk cannot be restored.
    #[error("disk {disk}: the {length} bytes at {offset} cannot be restored")]
    Unrestorable {
        /// The disk's key.
        disk: String,
        /// Where the part begins.
        offset: u64,
        /// Its length.
        length: u64,
        /// Why.
        source: Box<EngineError>,
    },
    /// A part of a disk cannot be read. Several readers may have waited for it.
    #[error("disk {disk}: the {length} bytes at {offset} cannot be read")]
    Unreadable {
        /// The disk's key.
        disk: String,
        /// Where the part begins.
        offset: u64,
        /// Its length.
        length: u64,
        /// Why.
        source: Arc<EngineError>,
    },
    /// A read begins or ends behind the end of the disk.
    #[error("disk {disk} has {size} bytes: there are no {length} bytes at {offset}")]
    OutsideOfDisk {
        /// The disk's key.
        disk: String,
        /// Its length.
        size: u64,
        /// Where the read begins.
        offset: u64,
        /// Its length.
        length: u64,
    },
    /// The local index failed.
    #[error("the local index cannot be used")]
    Index(#[from] IndexError),
    /// No snapshot fits what was asked for.
    #[error("there is no snapshot {wanted}")]
    NoSuchSnapshot {
        /// The id prefix or VM and time asked for.
        wanted: String,
    },
    /// Several snapshots fit.
    #[error("{wanted} fits {} snapshots: {}", found.len(), list(found))]
    AmbiguousSnapshot {
        /// The id prefix asked for.
        wanted: String,
        /// Those that fit.
        found: Vec<SessionId>,
    },
    /// A VM has no snapshot.
    #[error("there is no snapshot of {vm}; {}", vms(found, *others))]
    NoSnapshotOf {
        /// The VM asked for.
        vm: String,
        /// VMs that have some.
        found: Vec<String>,
        /// How many more there are.
        others: usize,
    },
    /// A snapshot was forgotten while it was read, and what it needs is going.
    #[error("the snapshot {snapshot} was forgotten meanwhile, and what it needs has been removed")]
    ForgottenMeanwhile {
        /// The snapshot.
        snapshot: SessionId,
    },
    /// Not all that a snapshot needs has arrived in this replica.
    #[error("snapshot {snapshot} is not whole in this replica: {missing}")]
    NotWhole {
        /// The snapshot.
        snapshot: SessionId,
        /// What is not there.
        missing: Box<Missing>,
    },
    /// Of none of the snapshots of a VM that were meant all that it needs has arrived in this replica.
    #[error("no such snapshot of {vm} is whole in this replica; of the newest, {newest}: {missing}")]
    NoneWhole {
        /// The VM.
        vm: String,
        /// The newest snapshot that was meant.
        newest: SessionId,
        /// What is not there of it.
        missing: Box<Missing>,
    },
    /// A snapshot has no such disk.
    #[error("the snapshot has no disk {wanted:?}; it has {}", found.join(", "))]
    NoSuchDisk {
        /// The key asked for.
        wanted: String,
        /// Those it has.
        found: Vec<String>,
    },
    /// A snapshot has several disks and none was named.
    #[error("the snapshot has {} disks: {}", found.len(), found.join(", "))]
    DiskNotNamed {
        /// Those it has.
        found: Vec<String>,
    },
    /// Snapshots were not forgotten, or not all.
    #[error(transparent)]
    Forget(#[from] ForgetError),
    /// Restore points were not copied to another place.
    #[error(transparent)]
    Replicate(#[from] ReplicateError),
    /// Two disks differ in more areas than are listed.
    #[error("the disks differ in more than ten million areas")]
    TooManyAreas,
    /// Another process uses the same writer id.
    #[error("{name} exists with other content: another process is running as the same writer")]
    Twin {
        /// The blob.
        name: BlobName,
    },
    /// Another writer is importing the same restore point, or has done so meanwhile.
    #[error("{writer} has begun to import the same restore point as session {session}")]
    Rival {
        /// The session that both would have made.
        session: SessionId,
        /// The other writer.
        writer: WriterId,
    },
    /// All ids that an import of a restore point can have are used up.
    #[error("the import of {original} was begun so often that no id is left for it")]
    TooManyImports {
        /// The restore point, by its id in the place that it is imported from.
        original: SessionId,
    },
    /// A session of the same writer and VM began, did not end, and stored something lately.
    #[error(
        "session {session} of {vm} by the same writer may still be running: it stored something {} s ago",
        quiet_millis / 1000
    )]
    MayBeRunning {
        /// The session.
        session: SessionId,
        /// The VM.
        vm: String,
        /// How long ago its newest blob was created.
        quiet_millis: u64,
    },
    /// The session was aborted by a pruner more often than it was begun anew.
    #[error("session {session} was aborted, and so were the attempts before it")]
    Aborted {
        /// The last session.
        session: SessionId,
    },
    /// What is still needed cannot be told, so nothing may be deleted.
    #[error("what snapshots need cannot be told")]
    CannotMark {
        /// Why.
        source: Box<EngineError>,
    },
    /// A blob is there that a listing did not show: others may be missing in it too.
    #[error("{name} is in the store, but a listing of the store does not show it")]
    ListingLies {
        /// The blob.
        name: BlobName,
    },
    /// A snapshot that was there when the last generation ended is not listed, and no tombstone forgets it.
    #[error(
        "snapshot {session} was there when the last prune ended, is not listed now, and was not forgotten"
    )]
    SnapshotVanished {
        /// The snapshot.
        session: SessionId,
    },
    /// The place is a replica: what would be written there, nobody would know of where the repository is written to.
    #[error("this is a replica of the repository, which nothing is written to")]
    IsAReplica,
    /// A place that was not filled from elsewhere cannot be promoted.
    #[error("this is not a replica: the repository is written to here")]
    NotAReplica,
    /// A replica that was not promoted, or that is said not to have been.
    #[error("this replica has not been promoted yet")]
    NotPromoted,
    /// A replica was promoted, and what still is in the place that it was copied from may need what is here.
    #[error("this replica was promoted, and nobody has declared yet that the other side is gone")]
    OtherSideMayBeThere,
    /// No replica of that name is registered.
    #[error("no replica {name} is registered{}", registered(found))]
    NoSuchReplica {
        /// The name asked for.
        name: ReplicaName,
        /// Those that are.
        found: Vec<ReplicaName>,
    },
    /// More would be deleted than is usual.
    #[error(
        "{} of the {} in packs ({}) are not needed by any snapshot: more than {limit} %",
        size(*condemned),
        size(*stored),
        share(*condemned, *stored)
    )]
    TooMuchCondemned {
        /// The bytes of packs that would be condemned.
        condemned: u64,
        /// The bytes of all packs.
        stored: u64,
        /// How many per cent of them are condemned without being asked.
        limit: u8,
    },
    /// A pack of this session is not in the store as it was written.
    #[error("{name} is not in the store as it was written")]
    PackVanished {
        /// The pack.
        name: BlobName,
    },
}

impl EngineError {
    /// Whether it tells of what is stored, gone or changed, and not of a store, a source or a target that fails.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Short { .. } | Self::ConfigMissing { .. } => true,
            Self::MapUnreadable { source, .. }
            | Self::Unrestorable { source, .. }
            | Self::CannotMark { source } => source.is_damage(),
            Self::Unreadable { source, .. } => source.is_damage(),
            Self::Store(error) => error.is_damage(),
            Self::Replicate(error) => error.is_damage(),
            _ => false,
        }
    }

    /// Says that `name` is damaged, for `map_err`; or that a key is missing that reading it takes.
    pub(crate) fn damaged(name: &BlobName) -> impl Fn(FormatError) -> Self + '_ {
        move |source| match source {
            FormatError::NoDataKey => Self::NoDataKey,
            source => Self::Damaged { name: name.clone(), source },
        }
    }

    /// The same error again if it tells that something stored is damaged or missing, and not of a store that fails.
    pub(crate) fn damage(&self) -> Option<Self> {
        match self {
            Self::Damaged { name, source } => {
                Some(Self::Damaged { name: name.clone(), source: source.clone() })
            }
            Self::Short { name, expected } => Some(Self::Short { name: name.clone(), expected: *expected }),
            Self::Store(StoreError::NotFound { name }) => {
                Some(StoreError::NotFound { name: name.clone() }.into())
            }
            Self::Store(StoreError::Io { action, object, source }) if self.is_damage() => {
                let source = io::Error::new(source.kind(), source.to_string());
                Some(StoreError::Io { action, object: object.clone(), source }.into())
            }
            _ => None,
        }
    }

    /// The blob that it tells to be damaged or missing, by its name.
    pub(crate) fn damaged_blob(&self) -> Option<&BlobName> {
        match self {
            Self::Damaged { name, .. }
            | Self::Short { name, .. }
            | Self::Store(StoreError::NotFound { name }) => Some(name),
            _ => None,
        }
    }
}

fn and_damaged(slots: usize) -> String {
    if slots == 0 {
        return String::new();
    }
    format!(", and {slots} {} damaged or of another repository", if slots == 1 { "is" } else { "are" })
}

fn use_of(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Root => "read",
        SlotKind::Retention => "forgotten or pruned",
        SlotKind::Inventory => "listed",
    }
}

fn were(count: usize) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

fn list(sessions: &[SessionId]) -> String {
    sessions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn registered(found: &[ReplicaName]) -> String {
    let names: Vec<&str> = found.iter().map(ReplicaName::as_str).collect();
    if names.is_empty() { String::new() } else { format!("; there are {}", names.join(", ")) }
}

fn vms(found: &[String], others: usize) -> String {
    match (found, others) {
        ([], _) => "there are no snapshots".to_owned(),
        (found, 0) => format!("there are some of {}", found.join(", ")),
        (found, others) => format!("there are some of {}, and of {others} more", found.join(", ")),
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
