//! The snapshot of a VM that a backup reads: made once nothing else is going on, and removed whatever happens.
//!
//! What earlier backups left behind goes first. A snapshot is noted in the journal before it is made, and is the only one
//! of its name, so one that was made although the answer got lost is found again. Snapshots of others are never touched.
//! A new snapshot while an old one is being merged harms the disks (VMware KB 2136854), so nothing is begun before the VM
//! has no task and needs no consolidation.

use super::error::VSphereError;
use super::fault::FaultKind;
use super::journal::Journal;
use super::model::{MoRef, Power, SnapshotNode, VmInfo};
use super::snapshot_name::SnapshotName;
use super::tasks::{Quiescing, TaskState};
use super::waiting::{WaitError, Waiter};
use std::io;

/// A snapshot of the same job that this host did not note is taken for one that was left behind when it is older than this:
/// no backup takes a day.
const ABANDONED_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// How often a guest is asked to come to rest.
const QUIESCE_TRIES: u32 = 2;
/// What vSphere shows beside a snapshot.
const DESCRIPTION: &str = "Made by a running Keepstone backup, which removes it at its end.";

/// Why a VM's snapshot cannot be made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// Something was not done, or not in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The server could not be asked.
    #[error("could not look at the virtual machine")]
    Asking(#[source] VSphereError),
    /// A snapshot of the same job is there that this host did not make, and it is not old.
    #[error("another host may be backing up this virtual machine: it has the snapshot {name:?}")]
    MayBeRunning {
        /// The snapshot's name.
        name: String,
    },
    /// The disks of removed snapshots are still not merged.
    #[error("the disks of the virtual machine still need consolidation after it was tried")]
    NotConsolidated,
    /// The guest had to come to rest, and vCenter made the snapshot without that.
    #[error("vCenter made the snapshot without bringing the guest to rest")]
    NotQuiesced,
    /// The journal cannot be written.
    #[error("could not note the snapshot that is about to be made")]
    Journal(#[source] io::Error),
    /// vCenter says that it removed the snapshot, and the virtual machine still has it.
    #[error("vCenter removed the snapshot {name:?}, and the virtual machine still has it")]
    Remains {
        /// The snapshot's name.
        name: String,
    },
    /// The task that made the snapshot says that it did, and the VM has none of that name.
    #[error("vCenter made the snapshot {name:?}, and the virtual machine does not have it")]
    Vanished {
        /// The snapshot's name.
        name: String,
    },
}

/// A snapshot that was not made.
#[derive(Debug)]
pub struct NotMade {
    /// Why.
    pub error: GuardError,
    /// Why what was made all the same could not be removed.
    pub left: Option<Box<GuardError>>,
}

/// What it means that a snapshot is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// It will not come any more.
    Lasts,
    /// It may come: nobody knows whether the server was asked for it.
    MayEnd,
}

/// Whether the guest has to come to rest before the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuiescePolicy {
    /// It should; if it does not, the snapshot is as after a power failure.
    Preferred,
    /// It must.
    Required,
    /// It is not asked.
    Off,
}

/// What state of the VM a snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The guest brought its file systems to rest.
    Quiesced,
    /// It is as after a power failure.
    CrashConsistent,
    /// The VM did not run.
    PoweredOff,
    /// The VM was suspended, and its memory is not in the snapshot.
    Suspended,
}

impl Consistency {
    /// The word for it in reports and in the snapshot's properties.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Quiesced => "quiesced",
            Self::CrashConsistent => "crash-consistent",
            Self::PoweredOff => "powered-off",
            Self::Suspended => "suspended",
        }
    }
}

/// What a guard does its work with.
pub struct Guard<'a> {
    /// Waits until the user wants to stop.
    pub waiter: Waiter<'a>,
    /// Waits to clean up, whatever the user wants.
    pub cleaning: Waiter<'a>,
    /// The VM.
    pub vm: &'a MoRef,
    /// What the snapshot is to be called.
    pub name: &'a SnapshotName,
    /// What this host made before.
    pub journal: &'a mut Journal,
}

impl Guard<'_> {
    /// Tells whether an earlier backup of this job may have left something behind, on the vCenter or attached to a proxy,
    /// if the VM is like this.
    ///
    /// # Errors
    /// [`GuardError::MayBeRunning`] unless `take_over`.
    pub fn may_have_left(&self, info: &VmInfo, take_over: TakeOver) -> Result<bool, GuardError> {
        let left = self.left(info);
        if take_over == TakeOver::No {
            self.refuse_what_may_run(&left)?;
        }
        Ok(!left.is_empty() || !self.journal.names().is_empty() || info.consolidation_needed)
    }

    /// Removes what earlier backups of this job left behind, and waits until nothing is going on with the VM any more.
    /// Returns the VM as it is then, and the names of what was removed.
    ///
    /// # Errors
    /// [`GuardError::MayBeRunning`] before anything is removed, unless `take_over`; and whatever else fails.
    pub fn clean(&mut self, take_over: TakeOver) -> Result<(VmInfo, Vec<String>), GuardError> {
        let info = self.settle(self.waiter)?;
        let left = self.left(&info);
        // What is not there by now does not come any more.
        for name in self.journal.names() {
            if !left.iter().any(|snapshot| snapshot.name == name) {
                self.forget(&name);
            }
        }
        if take_over == TakeOver::No {
            self.refuse_what_may_run(&left)?;
        }
        // Those that stand on others first.
        for snapshot in left.iter().rev() {
            remove_one(&snapshot.snapshot, self.waiter)?;
            self.forget(&snapshot.name);
        }
        if left.is_empty() {
            return Ok((info, Vec::new()));
        }
        let info = self.settle(self.waiter)?;
        Ok((info, left.into_iter().map(|snapshot| snapshot.name).collect()))
    }

    /// The snapshots of this job.
    fn left(&self, info: &VmInfo) -> Vec<SnapshotNode> {
        info.snapshots.iter().filter(|snapshot| self.name.is_sibling(&snapshot.name)).cloned().collect()
    }

    /// Makes the snapshot.
    ///
    /// # Errors
    /// Whatever fails; what was made all the same has been removed then, if that was possible. What may come later stays
    /// noted.
    pub fn make(&mut self, power: Power, policy: QuiescePolicy) -> Result<(MoRef, Consistency), NotMade> {
        let name = self.name.to_string();
        let noted = self.journal.note(&name).map_err(GuardError::Journal);
        noted.map_err(|error| NotMade { error, left: None })?;
        self.try_to_make(&name, power, policy).map_err(|error| {
            let absence = if is_unanswered(&error) { Absence::MayEnd } else { Absence::Lasts };
            let left = self.remove_by_name(&name, absence).err().map(Box::new);
            NotMade { error, left }
        })
    }

    /// Removes the snapshot, whether or not it is there, and waits until the disks are merged.
    ///
    /// # Errors
    /// Whatever fails; the journal keeps the name then, and the next backup tries again.
    pub fn remove(&mut self) -> Result<(), GuardError> {
        let name = self.name.to_string();
        self.remove_by_name(&name, Absence::Lasts)
    }

    fn try_to_make(
        &self,
        name: &str,
        power: Power,
        policy: QuiescePolicy,
    ) -> Result<(MoRef, Consistency), GuardError> {
        let (unquiesced, may_quiesce) = match power {
            Power::On => (Consistency::CrashConsistent, policy != QuiescePolicy::Off),
            Power::Off => (Consistency::PoweredOff, false),
            Power::Suspended => (Consistency::Suspended, false),
        };
        for tries in 1..=if may_quiesce { QUIESCE_TRIES } else { 0 } {
            match self.begin(name, Quiescing::Guest) {
                // Without VMware Tools the wish is passed over in silence.
                Ok(snapshot) if self.is_quiesced(&snapshot)? => return Ok((snapshot, Consistency::Quiesced)),
                Ok(_) if policy == QuiescePolicy::Required => return Err(GuardError::NotQuiesced),
                Ok(snapshot) => return Ok((snapshot, unquiesced)),
                Err(error) if !is_about_quiescing(&error) => return Err(error),
                Err(error) if tries == QUIESCE_TRIES && policy == QuiescePolicy::Required => {
                    return Err(error);
                }
                Err(_) => drop(self.settle(self.waiter)?),
            }
        }
        Ok((self.begin(name, Quiescing::None)?, unquiesced))
    }

    /// Has one snapshot made.
    fn begin(&self, name: &str, quiescing: Quiescing) -> Result<MoRef, GuardError> {
        const WHAT: &str = "make the snapshot";
        let vcenter = self.waiter.vcenter;
        let started = vcenter.create_snapshot(self.vm, name, DESCRIPTION, quiescing);
        match self.waiter.task(WHAT, started)? {
            Some(snapshot) => Ok(snapshot),
            None => self.find(name)?.ok_or_else(|| GuardError::Vanished { name: name.to_owned() }),
        }
    }

    /// Whether vCenter says that the guest came to rest for a snapshot.
    fn is_quiesced(&self, snapshot: &MoRef) -> Result<bool, GuardError> {
        let made = self.look()?.snapshots.into_iter().find(|found| found.snapshot == *snapshot);
        Ok(made.is_some_and(|made| made.quiesced))
    }

    fn remove_by_name(&mut self, name: &str, absence: Absence) -> Result<(), GuardError> {
        match self.try_to_remove(name, absence) {
            // With the VM its snapshots have gone.
            Err(error) if is_gone(&error) => {
                self.forget(name);
                Ok(())
            }
            removed => removed,
        }
    }

    fn try_to_remove(&mut self, name: &str, absence: Absence) -> Result<(), GuardError> {
        // It may be under way although nobody was told.
        self.quiet(self.cleaning)?;
        match self.find(name)? {
            Some(snapshot) => {
                remove_one(&snapshot, self.cleaning)?;
                self.quiet(self.cleaning)?;
                // A server that restarts forgets its tasks, whatever became of them.
                if self.find(name)?.is_some() {
                    return Err(GuardError::Remains { name: name.to_owned() });
                }
                self.forget(name);
            }
            None if absence == Absence::MayEnd => {}
            None => self.forget(name),
        }
        self.settle(self.cleaning).map(drop)
    }

    fn forget(&mut self, name: &str) {
        // A name that stays noted does no harm: it is not used again.
        let _stays = self.journal.forget(name);
    }

    /// Waits until no task is at work on the VM and its disks are merged, and returns the VM as it is then.
    fn settle(&self, waiter: Waiter<'_>) -> Result<VmInfo, GuardError> {
        self.quiet(waiter)?;
        let info = self.look()?;
        if !info.consolidation_needed {
            return Ok(info);
        }
        waiter.task("consolidate the disks", waiter.vcenter.consolidate(self.vm))?;
        self.quiet(waiter)?;
        let info = self.look()?;
        if info.consolidation_needed { Err(GuardError::NotConsolidated) } else { Ok(info) }
    }

    /// Waits until no task is at work on the VM.
    fn quiet(&self, waiter: Waiter<'_>) -> Result<(), GuardError> {
        const WHAT: &str = "finish another task of the virtual machine";
        let asking = |source| WaitError::Asking { what: WHAT, source };
        waiter.until(WHAT, || {
            for task in waiter.vcenter.recent_tasks(self.vm).map_err(asking)? {
                match waiter.vcenter.task(&task) {
                    Ok(TaskState::Queued | TaskState::Running { .. }) => return Ok(false),
                    Ok(TaskState::Success { .. } | TaskState::Error(_)) => {}
                    // Tasks that have ended are forgotten after a while.
                    Err(error) if is_fault_gone(error.fault()) => {}
                    Err(error) => return Err(asking(error)),
                }
            }
            Ok(true)
        })?;
        Ok(())
    }

    fn look(&self) -> Result<VmInfo, GuardError> {
        self.waiter.vcenter.vm(self.vm).map_err(GuardError::Asking)
    }

    fn find(&self, name: &str) -> Result<Option<MoRef>, GuardError> {
        let found = self.look()?.snapshots.into_iter().find(|snapshot| snapshot.name == name);
        Ok(found.map(|snapshot| snapshot.snapshot))
    }

    fn refuse_what_may_run(&self, left: &[SnapshotNode]) -> Result<(), GuardError> {
        let unknown: Vec<_> = left.iter().filter(|snapshot| !self.journal.has(&snapshot.name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let now = self.waiter.vcenter.keep_alive().map_err(GuardError::Asking)?.millis;
        let is_old = |snapshot: &SnapshotNode| match (now, snapshot.create_millis) {
            (Some(now), Some(made)) => now.saturating_sub(made) > ABANDONED_MILLIS,
            _ => false,
        };
        match unknown.into_iter().find(|snapshot| !is_old(snapshot)) {
            Some(snapshot) => Err(GuardError::MayBeRunning { name: snapshot.name.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether snapshots of the same job are removed even if another host may have made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// They are not.
    No,
    /// They are: the user knows that no other backup runs.
    Yes,
}

/// Removes one snapshot, which may have gone meanwhile.
fn remove_one(snapshot: &MoRef, waiter: Waiter<'_>) -> Result<(), GuardError> {
    match waiter.task("remove the snapshot", waiter.vcenter.remove_snapshot(snapshot)) {
        Err(WaitError::Asking { source, .. }) if is_fault_gone(source.fault()) => Ok(()),
        Err(WaitError::Failed { fault, .. }) if is_fault_gone(Some(&fault.kind)) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

fn is_about_quiescing(error: &GuardError) -> bool {
    let kind = match error {
        GuardError::Wait(WaitError::Failed { fault, .. }) => Some(&fault.kind),
        GuardError::Wait(WaitError::Asking { source, .. }) => source.fault(),
        _ => None,
    };
    matches!(kind, Some(FaultKind::ApplicationQuiesce | FaultKind::FilesystemQuiesce))
}

/// Whether nobody knows what the server did.
fn is_unanswered(error: &GuardError) -> bool {
    match error {
        GuardError::Asking(source) | GuardError::Wait(WaitError::Asking { source, .. }) => {
            source.fault().is_none()
        }
        _ => false,
    }
}

fn is_gone(error: &GuardError) -> bool {
    match error {
        GuardError::Asking(source) | GuardError::Wait(WaitError::Asking { source, .. }) => {
            is_fault_gone(source.fault())
        }
        _ => false,
    }
}

fn is_fault_gone(kind: Option<&FaultKind>) -> bool {
    matches!(kind, Some(FaultKind::ManagedObjectNotFound { .. }))
}
