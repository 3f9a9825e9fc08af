//! Progress and cancellation.

use crate::error::EngineError;
use repo_format::SessionId;
use std::ops::ControlFlow;

/// Something an operation tells its [`Observer`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A phase begins, with the bytes (or items) it is expected to go through.
    Phase {
        /// What is about to be done.
        phase: Phase,
        /// Its expected amount, in the phase's unit.
        total: u64,
    },
    /// The phase went on by so much.
    Progress(u64),
    /// Bytes that were stored (backup) or fetched (restore, verify).
    Transferred(u64),
    /// A session of this id is about to begin: nothing of it is in the store yet. Whoever remembers it can tell a
    /// later backup that it has ended ([`crate::backup::Unfinished`]).
    SessionBegins(SessionId),
    /// Something that the operator should know and that does not stop the operation.
    Notice(Notice),
}

/// What an operation is doing; its amounts are bytes unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Index blobs are being fetched into the local cache.
    SyncIndex,
    /// A disk is being backed up; bytes of changed areas.
    Backup {
        /// The disk's key.
        disk: String,
    },
    /// What was said to be unchanged on a disk is being checked; bytes of the regions that are looked at. It begins again
    /// when more has to be looked at.
    Audit {
        /// The disk's key.
        disk: String,
    },
    /// The snapshot is being completed and committed; items.
    Commit,
    /// A disk is being restored; bytes of the disk.
    Restore {
        /// The disk's key.
        disk: String,
    },
    /// Files of a guest are being copied; their bytes. Of a directory, the total is not known and zero.
    Copy,
    /// Maps are being checked; disks.
    VerifyStructure,
    /// Packs are being read and checked.
    VerifyData,
    /// Packs that no index lists are being looked at; packs.
    RepairIndex,
    /// What snapshots need is being marked; snapshots, of which the number is not known and the total zero.
    Mark,
    /// How much of each pack snapshots need is being measured; snapshots.
    MeasureUse,
    /// What is needed of packs is being packed again; bytes of the packs that are emptied.
    Repack,
    /// Index blobs are being put together; blobs.
    CompactIndex,
    /// Restore points are being copied to another place; bytes of packs, of which the number is not known and the total
    /// zero.
    Replicate,
    /// Packs are being deleted; packs.
    Delete,
    /// Snapshots are being forgotten; snapshots.
    Forget,
    /// Something is being measured; measurements.
    Measure {
        /// What.
        what: &'static str,
    },
}

/// Something worth telling that is no failure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A cached or stored index could not be used and was left out; deduplication suffers, nothing else.
    IndexSkipped {
        /// The blob or file.
        name: String,
        /// Why.
        reason: String,
    },
    /// A decision or tombstone of the VM could not be read and is treated as absent.
    Unreadable {
        /// The blob.
        name: String,
        /// Why.
        reason: String,
    },
    /// A pack that the newest snapshot needs is missing or has another length; what it held is stored again.
    PackLost {
        /// The pack.
        name: String,
    },
    /// A session that this writer began for the VM and that never ended was aborted; what its indexes list is used
    /// again.
    UnfinishedAborted {
        /// The session, in hex.
        session: String,
        /// The packs that it had stored.
        packs: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Another writer or a pruner aborted the session; the backup starts again.
    SessionAborted {
        /// The session, in hex.
        session: String,
    },
}

/// Receives events; called from any thread of the operation.
pub trait Observer: Sync {
    /// Takes one event; [`ControlFlow::Break`] cancels the operation, which then fails with `Cancelled`.
    fn observe(&self, event: Event) -> ControlFlow<()>;
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Observer for Quiet {
    fn observe(&self, _: Event) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Tells that a phase begins.
pub(crate) fn begin(observer: &dyn Observer, phase: Phase, total: u64) -> Result<(), EngineError> {
    tell(observer, Event::Phase { phase, total })
}

/// Tells what is worth telling.
pub(crate) fn notify(observer: &dyn Observer, notice: Notice) -> Result<(), EngineError> {
    tell(observer, Event::Notice(notice))
}

/// Tells an event; an observer that wants to stop is an error.
pub(crate) fn tell(observer: &dyn Observer, event: Event) -> Result<(), EngineError> {
    if observer.observe(event).is_break() { Err(EngineError::Cancelled) } else { Ok(()) }
}
