//! A disk of a virtual machine while it is restored: the order of operations from the look at the VM to the detached disk.
//!
//! Look > leftovers detached > VM switched off, if that is wanted > changes asked for, if that is wanted > change tracking
//! forgotten > disk attached elsewhere > (a restore writes) > disk detached > change tracking on again. Whatever fails, everything from there on backwards is
//! undone; what cannot be undone is told, and the next restore onto the VM tries again.
//!
//! **Change tracking.** vSphere keeps track of what the VM itself writes. What is written to its disk from outside is in no
//! answer about changed areas, so a later incremental backup would be wrong and nobody would notice. So tracking is
//! switched off before anything is written. That takes effect with a snapshot, whose disks show whether it did: they have
//! no change id then. It is switched on again at the end, and begins anew with the next snapshot: a change id of before has
//! another id of the epoch, and the next backup reads in full.

mod asking;
mod fitness;
mod new_disk;

pub use fitness::{Refusal, Running, Unwritable};
pub use new_disk::{NewDisk, NewDiskJob, Written};

use super::client::VCenter;
use super::error::VSphereError;
use super::guard::{Guard, GuardError, NotMade, QuiescePolicy, TakeOver};
use super::journal::Journal;
use super::machine::Problem;
use super::model::{MoRef, Power, VirtualDisk, VmInfo};
use super::snapshot_name::SnapshotName;
use super::transport::{Noted, Reader, Transport, TransportError, TransportSettings, WritableDisk};
use super::waiting::{WaitError, Waiter};
use crate::source::{ChangedAreas, ReadPart, Since};
use crate::target::{Below, Veil};
use crate::{DiskSource, DiskTarget};
use asking::Asked;
use fitness::{Wanted, fit};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

/// What is noted while change tracking is off that was on.
const TRACKING: &str = "tracking";

/// What a user needs on a VM to have its disk written.
const PRIVILEGES: [&str; 1] = ["System.Read"];
/// What else is needed to make the VM forget what changed.
const PRIVILEGES_TO_FORGET: [&str; 3] = [
    "VirtualMachine.Config.ChangeTracking",
    "VirtualMachine.State.CreateSnapshot",
    "VirtualMachine.State.RemoveSnapshot",
];
/// What is needed to switch it off.
const PRIVILEGE_TO_SWITCH_OFF: &str = "VirtualMachine.Interact.PowerOff";

/// How a disk of a VM is to be written.
pub struct DiskJob<'a> {
    /// What the snapshot is to be called that makes the VM forget what changed.
    pub name: SnapshotName,
    /// The disk's key, such as `scsi0-0`.
    pub key: &'a str,
    /// How many bytes are to be written, from the disk's beginning on.
    pub disk_bytes: u64,
    /// What is done with a VM that runs.
    pub running: Running,
    /// What [`VmDisk::existing`] is to tell the changes since; nothing if it need not.
    pub since: Option<Since<'a>>,
    /// How the disk is written.
    pub transport: &'a TransportSettings,
    /// Waits until the user wants to stop.
    pub waiter: Waiter<'a>,
    /// Waits to clean up, whatever the user wants.
    pub cleaning: Waiter<'a>,
}

/// What this host noted of its restores onto a VM.
#[derive(Debug)]
pub struct RestoreNotes {
    /// The snapshots that it made.
    pub snapshots: Journal,
    /// The disks that it attached elsewhere, and whether change tracking has to be switched on again.
    pub disks: Journal,
}

/// Why a disk of a VM cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The VM is not fit for it.
    #[error("this virtual machine's disk cannot be restored: {}", told(found))]
    Unfit {
        /// What stands against it.
        found: Vec<Refusal>,
    },
    /// The server could not be asked.
    #[error("could not look at the virtual machine")]
    Asking(#[source] VSphereError),
    /// Disks are attached elsewhere, and cannot be detached.
    #[error("could not detach the disk that an earlier restore left attached")]
    Leftovers(#[source] TransportError),
    /// It could not be switched off.
    #[error("could not switch the virtual machine off")]
    SwitchingOff(#[source] WaitError),
    /// Snapshots of earlier restores could not be removed, or the one could not be made or removed in which changes are asked
    /// for, or which makes the VM forget them.
    #[error("could not make the virtual machine tell, or forget, what changed on its disks")]
    Snapshot(#[source] GuardError),
    /// The snapshot that makes the VM tell or forget what changed could not be removed.
    #[error(
        "the snapshot {name:?}, which makes the virtual machine tell or forget what changed, could not be removed"
    )]
    SnapshotLeft {
        /// Its name.
        name: String,
        /// Why.
        source: GuardError,
    },
    /// Change tracking could not be switched off.
    #[error("could not switch changed block tracking off")]
    Tracking(#[source] WaitError),
    /// Change tracking is off, and the disk is still tracked.
    #[error("changes of disk {disk} are still tracked, although changed block tracking is off")]
    StillTracked {
        /// The disk's key.
        disk: String,
    },
    /// Somebody switched change tracking on after it was switched off.
    #[error("somebody switched changed block tracking on meanwhile")]
    TrackedAgain,
    /// What is about to be done could not be noted.
    #[error("could not note what is about to be done to the virtual machine")]
    Note(#[source] io::Error),
    /// The disk became another one meanwhile.
    #[error("disk {disk} became another one while its restore was prepared")]
    OtherDisk {
        /// The disk's key.
        disk: String,
    },
    /// A new disk cannot be made.
    #[error("the new disk {file} cannot be made")]
    Making {
        /// Its descriptor.
        file: String,
        /// Why.
        source: TransportError,
    },
    /// The disk cannot be opened.
    #[error("disk {disk} cannot be written")]
    Transport {
        /// The disk's key.
        disk: String,
        /// Why.
        source: TransportError,
    },
}

impl DiskError {
    /// Whether it is only that the user wants to stop.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        match self {
            Self::Snapshot(GuardError::Wait(error))
            | Self::Tracking(error)
            | Self::SwitchingOff(error)
            | Self::Leftovers(TransportError::Waiting(error))
            | Self::Making { source: TransportError::Waiting(error), .. }
            | Self::Transport { source: TransportError::Waiting(error), .. } => {
                matches!(error, WaitError::Interrupted { .. })
            }
            _ => false,
        }
    }
}

fn told(found: &[Refusal]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A disk that was not opened, and what was left.
#[derive(Debug)]
pub struct NotOpened {
    /// Why.
    pub error: DiskError,
    /// What could not be undone.
    pub left: Vec<Problem>,
}

/// Something worth telling that is no failure.
#[derive(Debug)]
#[non_exhaustive]
pub enum DiskTold {
    /// A disk that a restore which was killed left attached was detached.
    Detached,
    /// A new disk that a restore made which was killed may be left.
    MayBeLeft {
        /// Its descriptor.
        file: String,
    },
    /// Snapshots that a restore which was killed left behind were removed.
    Removed {
        /// Their names.
        names: Vec<String>,
    },
    /// The VM was switched off.
    SwitchedOff,
    /// Nothing is known any more of what changed on the VM's disks.
    Forgotten,
    /// A way to write the disk was tried in vain.
    Refused {
        /// The way.
        transport: Transport,
        /// Why.
        why: TransportError,
    },
    /// The disk is written in this way.
    Writing {
        /// The way.
        transport: Transport,
        /// The disk's descriptor.
        file: String,
    },
}

/// A disk of a VM that is open to be written. Its beginning appears when the target is finished, so that a disk that was
/// written in part looks empty.
///
/// That beginning is not durable before, whatever a flush says: no journal of what is complete can be kept of it. What
/// an interrupted restore wrote is found again by comparing it with [`VmDisk::existing`].
///
/// It has to be closed. If it is not, it stays attached, and the VM cannot run.
pub struct VmDisk<'a> {
    path: WritableDisk,
    veil: Veil,
    disk: VirtualDisk,
    asked: Option<Asked<'a>>,
    rest: Rest<'a>,
}

/// What is to be done when the disk is closed, or could not be opened.
struct Rest<'a> {
    vm: &'a MoRef,
    job: &'a DiskJob<'a>,
    notes: &'a mut RestoreNotes,
    /// Whether change tracking was on.
    was_tracked: bool,
    /// What was noted of the disk.
    noted: Option<String>,
}

impl<'a> VmDisk<'a> {
    /// Makes a disk of a VM ready to be written.
    ///
    /// # Errors
    /// Whatever fails first; all that was done before has been undone then, but for what is told. A VM that was switched
    /// off stays off.
    pub fn open(
        vm: &'a MoRef,
        job: &'a DiskJob<'a>,
        notes: &'a mut RestoreNotes,
        tell: &mut dyn FnMut(DiskTold),
    ) -> Result<Self, NotOpened> {
        let mut rest = Rest { vm, job, notes, was_tracked: false, noted: None };
        let opened = rest.prepare(tell).and_then(|(info, disk, asked)| {
            let path = rest.open(&info, &disk, tell)?;
            Ok((path, disk, asked))
        });
        match opened {
            Ok((path, disk, asked)) => Ok(Self { path, veil: Veil::over(job.disk_bytes), disk, asked, rest }),
            Err((error, mut left)) => {
                rest.track_again(&mut left);
                Err(NotOpened { error, left })
            }
        }
    }

    /// Where the disk goes.
    #[must_use]
    pub fn target(&self) -> &dyn DiskTarget {
        self
    }

    /// What the disk holds now, for a restore of what differs, if it can be read while it is written. It tells what changed
    /// since what the job names, or why that is not known.
    #[must_use]
    pub fn existing(&self) -> Option<Box<dyn DiskSource + '_>> {
        let existing = self.path.existing()?;
        Some(Box::new(Veiled { existing, veil: &self.veil, asked: self.asked.as_ref() }))
    }

    fn below(&self) -> Below<'_> {
        Below { target: self.path.target(), existing: self.path.existing() }
    }

    /// The disk as the VM has it.
    #[must_use]
    pub fn disk(&self) -> &VirtualDisk {
        &self.disk
    }

    /// How it is written.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.path.transport()
    }

    /// Whether anything was written to the disk, so that it is no longer what it was.
    #[must_use]
    pub fn was_written(&self) -> bool {
        self.veil.is_lowered()
    }

    /// Keeps the session with the vCenter alive until the other side of `stop` is dropped.
    pub fn keep_alive(&self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(super::machine::KEEP_ALIVE), Err(RecvTimeoutError::Timeout)) {
            // A session that has ended all the same is replaced when it is needed.
            let _needed_later = self.rest.job.waiter.vcenter.keep_alive();
        }
    }

    /// Gives the disk back to its VM, however the restore ended. Returns what could not be undone.
    #[must_use]
    pub fn close(self) -> Vec<Problem> {
        let Self { path, disk, mut rest, .. } = self;
        let mut left = Vec::new();
        rest.look_for_others(&disk, &mut left);
        match path.close(&rest.job.cleaning) {
            Ok(()) => rest.forget_disk(),
            Err(source) => left.push(Problem::DiskLeft { disk: rest.job.key.to_owned(), source }),
        }
        rest.track_again(&mut left);
        left
    }
}

impl DiskTarget for VmDisk<'_> {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.veil.write_at(self.below(), offset, data)
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        self.veil.zero_at(self.below(), offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.path.target().flush()
    }

    fn finish(&self) -> io::Result<()> {
        self.veil.finish(self.path.target())
    }
}

/// What a disk holds, as it will be.
struct Veiled<'d> {
    existing: &'d dyn DiskSource,
    veil: &'d Veil,
    asked: Option<&'d Asked<'d>>,
}

impl DiskSource for Veiled<'_> {
    fn size(&self) -> u64 {
        self.existing.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        match (since, self.asked) {
            (Some(since), Some(asked)) if *since == asked.since => Ok(asked.areas(self.size())),
            _ => self.existing.changed_areas(since),
        }
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        self.veil.read(self.existing, parts)
    }

    fn check_unchanged(&self) -> io::Result<()> {
        self.existing.check_unchanged()
    }
}

/// An error, and what was left after it.
type Failure = (DiskError, Vec<Problem>);

fn alone(error: DiskError) -> Failure {
    (error, Vec::new())
}

impl<'a> Rest<'a> {
    /// Everything before the disk is attached.
    fn prepare(
        &mut self,
        tell: &mut dyn FnMut(DiskTold),
    ) -> Result<(VmInfo, VirtualDisk, Option<Asked<'a>>), Failure> {
        let (before, disk) = self.look(self.job.running).map_err(alone)?;
        self.check(&before, &disk).map_err(alone)?;
        detach_leftovers(&self.job.waiter, &mut self.notes.disks, tell).map_err(alone)?;
        if before.power == Power::On {
            self.switch_off().map_err(alone)?;
            tell(DiskTold::SwitchedOff);
        }
        let (_, removed) = self.guard().clean(TakeOver::No).map_err(DiskError::Snapshot).map_err(alone)?;
        if !removed.is_empty() {
            tell(DiskTold::Removed { names: removed });
        }
        let (settled, found) = self.look(Running::Refused).map_err(alone)?;
        self.same_disk(&disk, &found).map_err(alone)?;
        self.was_tracked = settled.change_tracking_enabled || self.notes.disks.has(TRACKING);
        // While it is still known.
        let asked = match self.job.since {
            Some(since) => Some(self.ask(since, &settled, &found)?),
            None => None,
        };
        // Also where it is off: that may not have taken effect yet.
        if settled.change_tracking_supported || self.was_tracked {
            self.forget_changes(&settled)?;
            tell(DiskTold::Forgotten);
        }
        let (now, found) = self.look(Running::Refused).map_err(alone)?;
        self.same_disk(&disk, &found).map_err(alone)?;
        Ok((now, found, asked))
    }

    /// Looks at the VM and finds the disk, unless something stands against writing to it.
    fn look(&self, running: Running) -> Result<(VmInfo, VirtualDisk), DiskError> {
        let info = self.job.waiter.vcenter.vm(self.vm).map_err(DiskError::Asking)?;
        let wanted = Wanted { key: self.job.key, disk_bytes: self.job.disk_bytes, running };
        let noted = |name: &str| self.notes.snapshots.has(name);
        match fit(&info, &wanted, noted) {
            Ok(disk) => Ok((info, disk)),
            Err(found) => Err(DiskError::Unfit { found }),
        }
    }

    /// Looks for what would be found out late otherwise.
    fn check(&self, info: &VmInfo, disk: &VirtualDisk) -> Result<(), DiskError> {
        let mut needed = PRIVILEGES.to_vec();
        if info.change_tracking_supported || info.change_tracking_enabled {
            needed.extend(PRIVILEGES_TO_FORGET);
        }
        needed.extend((info.power == Power::On).then_some(PRIVILEGE_TO_SWITCH_OFF));
        let missing = self.job.waiter.vcenter.missing_privileges(self.vm, &needed);
        if let Some(privileges) = missing.map_err(DiskError::Asking)?.filter(|missing| !missing.is_empty()) {
            return Err(DiskError::Unfit { found: vec![Refusal::MissingPrivileges { privileges }] });
        }
        let checked = self.with_reader(info, |reader| reader.check_for_writing(disk))?;
        checked.map_err(|source| self.transport(source))
    }

    fn switch_off(&self) -> Result<(), DiskError> {
        const WHAT: &str = "switch the virtual machine off";
        let Waiter { vcenter, .. } = self.job.waiter;
        let is_off = || {
            let asking = |source| WaitError::Asking { what: WHAT, source };
            Ok(vcenter.vm(self.vm).map_err(asking)?.power == Power::Off)
        };
        let done = self.job.waiter.task(WHAT, vcenter.power_off(self.vm));
        // It may have gone off by itself meanwhile.
        done.map(drop)
            .or_else(|error| if is_off()? { Ok(()) } else { Err(error) })
            .and_then(|()| self.job.waiter.until(WHAT, is_off))
            .map_err(DiskError::SwitchingOff)
    }

    /// Has the VM forget what changed on its disks, and makes sure that it did.
    fn forget_changes(&mut self, info: &VmInfo) -> Result<(), Failure> {
        let Waiter { vcenter, .. } = self.job.waiter;
        if info.change_tracking_enabled {
            if !self.notes.disks.has(TRACKING) {
                self.notes.disks.note(TRACKING).map_err(DiskError::Note).map_err(alone)?;
            }
            let started = vcenter.disable_change_tracking(self.vm);
            let done = self.job.waiter.task("switch changed block tracking off", started);
            done.map_err(DiskError::Tracking).map_err(alone)?;
        }
        let look = |vcenter: &VCenter, snapshot: &MoRef| vcenter.snapshot_config(snapshot);
        let frozen = self.in_snapshot(look)?;
        // Not only of this disk: the VM's other disks show the same.
        match frozen.disks.iter().find(|disk| disk.backing.change_id.is_some()) {
            Some(tracked) => {
                let disk = super::preflight::disk_key(tracked, &frozen.controllers);
                Err(alone(DiskError::StillTracked { disk }))
            }
            None => Ok(()),
        }
    }

    /// Looks at the VM in a snapshot that is there only for that.
    fn in_snapshot<T>(
        &mut self,
        look: impl FnOnce(&VCenter, &MoRef) -> Result<T, VSphereError>,
    ) -> Result<T, Failure> {
        let name = self.job.name.to_string();
        let made = self.guard().make(Power::Off, QuiescePolicy::Off);
        let (snapshot, _) = made.map_err(|NotMade { error, left }| {
            let left = left.map(|source| Problem::SnapshotLeft { name: name.clone(), source: *source });
            (DiskError::Snapshot(error), left.into_iter().collect())
        })?;
        let seen = look(self.job.waiter.vcenter, &snapshot).map_err(DiskError::Asking);
        match (seen, self.guard().remove()) {
            (Ok(seen), Ok(())) => Ok(seen),
            (Ok(_), Err(source)) => Err(alone(DiskError::SnapshotLeft { name, source })),
            (Err(error), removed) => {
                let left = removed.err().map(|source| Problem::SnapshotLeft { name, source });
                Err((error, left.into_iter().collect()))
            }
        }
    }

    /// Attaches the disk.
    fn open(
        &mut self,
        info: &VmInfo,
        disk: &VirtualDisk,
        tell: &mut dyn FnMut(DiskTold),
    ) -> Result<WritableDisk, Failure> {
        let mut noted = None;
        let mut journal = std::mem::replace(&mut self.notes.disks, Journal::nowhere());
        let mut note = |disk: &Noted| {
            let line = serde_json::to_string(disk).expect("it is made of texts");
            journal.note(&line)?;
            noted = Some(line);
            Ok(())
        };
        let disk_bytes = self.job.disk_bytes;
        let opened = self.with_reader(info, |reader| reader.open_for_writing(disk, disk_bytes, &mut note));
        self.notes.disks = journal;
        self.noted = noted;
        let (path, refused) = match opened.map_err(alone)? {
            Ok(opened) => opened,
            Err(source) => {
                // What may still be attached stays noted.
                if !matches!(source, TransportError::StillAttached { .. } | TransportError::NotListed { .. })
                {
                    self.forget_disk();
                }
                return Err(alone(self.transport(source)));
            }
        };
        for (transport, why) in refused {
            tell(DiskTold::Refused { transport, why });
        }
        // From here on the file is locked: nobody can start the VM any more.
        let unchanged = |(now, found): (VmInfo, VirtualDisk)| {
            self.same_disk(disk, &found)?;
            // Somebody may have had it track changes anew, which does not see what is written from here.
            if now.change_tracking_enabled {
                return Err(DiskError::TrackedAgain);
            }
            Ok(())
        };
        if let Err(error) = self.look(Running::Refused).and_then(unchanged) {
            let closed = path.close(&self.job.cleaning);
            let key = self.job.key.to_owned();
            let left = closed.err().map(|source| Problem::DiskLeft { disk: key, source });
            if left.is_none() {
                self.forget_disk();
            }
            return Err((error, left.into_iter().collect()));
        }
        let file = disk.backing.file.clone().unwrap_or_default();
        tell(DiskTold::Writing { transport: path.transport(), file });
        Ok(path)
    }

    /// Tells what others did to the VM while its disk was written.
    fn look_for_others(&self, disk: &VirtualDisk, left: &mut Vec<Problem>) {
        match self.look(Running::Refused) {
            Ok((_, found)) if self.same_disk(disk, &found).is_err() => {
                left.push(Problem::Disturbed { what: format!("disk {} became another one", self.job.key) });
            }
            Ok((now, _)) if now.change_tracking_enabled => {
                let what = "its changes were tracked meanwhile; its next backup needs --full".to_owned();
                left.push(Problem::Disturbed { what });
            }
            Err(DiskError::Unfit { found }) => left.push(Problem::Disturbed { what: told(&found) }),
            // Whoever cannot ask cannot detach either, and tells that.
            Ok(_) | Err(_) => {}
        }
    }

    /// Switches change tracking on again, if it was on.
    fn track_again(&mut self, left: &mut Vec<Problem>) {
        if !self.was_tracked || !self.notes.disks.has(TRACKING) {
            return;
        }
        let Waiter { vcenter, .. } = self.job.cleaning;
        let snapshots = vcenter.vm(self.vm).map(|now| !now.snapshots.is_empty());
        let source = match snapshots {
            // Tracking that begins over snapshots can miss changes.
            Ok(true) => None,
            Ok(false) => {
                let started = vcenter.enable_change_tracking(self.vm);
                match self.job.cleaning.task("switch changed block tracking on", started) {
                    Ok(_) => {
                        // What stays noted is switched on once more.
                        let _stays = self.notes.disks.forget(TRACKING);
                        return;
                    }
                    Err(error) => Some(error),
                }
            }
            Err(source) => Some(WaitError::Asking { what: "look at the virtual machine", source }),
        };
        left.push(Problem::TrackingLeftOff { source });
    }

    fn forget_disk(&mut self) {
        if let Some(line) = self.noted.take() {
            // What stays noted does no harm: it is looked for again.
            let _stays = self.notes.disks.forget(&line);
        }
    }

    fn same_disk(&self, one: &VirtualDisk, other: &VirtualDisk) -> Result<(), DiskError> {
        let of = |disk: &VirtualDisk| {
            let VirtualDisk { key, capacity_bytes, ref backing, .. } = *disk;
            (key, capacity_bytes, backing.file.clone(), backing.uuid.clone())
        };
        // With snapshots of an earlier restore on it, it had the name of a delta.
        let had_snapshots = one.backing.parent_file.is_some();
        let same = if had_snapshots {
            one.key == other.key && one.backing.uuid == other.backing.uuid
        } else {
            of(one) == of(other)
        };
        if same { Ok(()) } else { Err(DiskError::OtherDisk { disk: self.job.key.to_owned() }) }
    }

    fn transport(&self, source: TransportError) -> DiskError {
        DiskError::Transport { disk: self.job.key.to_owned(), source }
    }

    fn with_reader<T>(&self, info: &VmInfo, act: impl FnOnce(&Reader<'_, '_>) -> T) -> Result<T, DiskError> {
        let datacenter = self.job.waiter.vcenter.datacenter_of(self.vm).map_err(DiskError::Asking)?;
        let as_it_is = info.as_it_is();
        Ok(act(&Reader {
            waiter: self.job.waiter,
            cleaning: self.job.cleaning,
            vm: info,
            datacenter: &datacenter,
            snapshot: &as_it_is,
            settings: self.job.transport,
        }))
    }

    fn guard(&mut self) -> Guard<'_> {
        Guard {
            waiter: self.job.waiter,
            cleaning: self.job.cleaning,
            vm: self.vm,
            name: &self.job.name,
            journal: &mut self.notes.snapshots,
        }
    }
}

/// Detaches what earlier restores left attached elsewhere.
fn detach_leftovers(
    waiter: &Waiter<'_>,
    disks: &mut Journal,
    tell: &mut dyn FnMut(DiskTold),
) -> Result<(), DiskError> {
    for line in disks.names() {
        let Ok(noted) = serde_json::from_str::<Noted>(&line) else { continue };
        if noted.detach(waiter).map_err(DiskError::Leftovers)? {
            tell(DiskTold::Detached);
        } else if noted.is_made {
            tell(DiskTold::MayBeLeft { file: noted.file });
        }
        // What stays noted does no harm: it is looked for again.
        let _stays = disks.forget(&line);
    }
    Ok(())
}
