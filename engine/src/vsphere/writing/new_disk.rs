//! A new disk of a virtual machine, which a restore writes before the VM gets it.
//!
//! Look > leftovers deleted > made, attached to the proxy > (a restore writes) > detached > attached to the VM. Nothing that
//! the VM has is touched, so that it may run. What is incomplete is deleted and never reaches the VM.

use super::fitness::of_new_disk;
use super::{DiskError, DiskTold, NotOpened, RestoreNotes};
use crate::DiskTarget;
use crate::vsphere::machine::{KEEP_ALIVE, Problem};
use crate::vsphere::model::{MoRef, VmInfo};
use crate::vsphere::preflight::disk_key;
use crate::vsphere::tasks::{AttachDisk, AttachMode};
use crate::vsphere::transport::{
    Noted, Reader, TransportError, TransportSettings, WritableDisk, free_scsi_place,
};
use crate::vsphere::waiting::{WaitError, Waiter};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

const ATTACH: &str = "attach the new disk to the virtual machine";

/// How a new disk is to be made.
pub struct NewDiskJob<'a> {
    /// What makes its file's name the only one, such as `keepstone-0a1b2c3d`.
    pub suffix: &'a str,
    /// How many bytes are to be written.
    pub disk_bytes: u64,
    /// How it is written.
    pub transport: &'a TransportSettings,
    /// Waits until the user wants to stop.
    pub waiter: Waiter<'a>,
    /// Waits to clean up, whatever the user wants.
    pub cleaning: Waiter<'a>,
}

/// How writing a new disk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it is there.
    Whole,
    /// It is to be deleted.
    InPart,
}

/// A disk that was made to be written. It has to be closed.
pub struct NewDisk<'a> {
    path: WritableDisk,
    vm: &'a MoRef,
    job: &'a NewDiskJob<'a>,
    notes: &'a mut RestoreNotes,
    line: String,
    file: String,
}

impl<'a> NewDisk<'a> {
    /// Makes a disk in the directory of a VM.
    ///
    /// # Errors
    /// Whatever fails first; all that was done before has been undone then, but for what is told.
    pub fn open(
        vm: &'a MoRef,
        job: &'a NewDiskJob<'a>,
        notes: &'a mut RestoreNotes,
        tell: &mut dyn FnMut(DiskTold),
    ) -> Result<Self, NotOpened> {
        Self::make(vm, job, notes, tell).map_err(|error| NotOpened { error, left: Vec::new() })
    }

    fn make(
        vm: &'a MoRef,
        job: &'a NewDiskJob<'a>,
        notes: &'a mut RestoreNotes,
        tell: &mut dyn FnMut(DiskTold),
    ) -> Result<Self, DiskError> {
        let vcenter = job.waiter.vcenter;
        let info = vcenter.vm(vm).map_err(DiskError::Asking)?;
        let has_place = free_scsi_place(&info).is_some();
        let found = of_new_disk(&info, has_place);
        let directory = info.vmx_path.as_deref().and_then(|path| path.rsplit_once('/'));
        let (Some((directory, _)), true) = (directory, found.is_empty()) else {
            return Err(DiskError::Unfit { found });
        };
        let file = format!("{directory}/{}-{}.vmdk", file_name(&info), job.suffix);
        let datacenter = vcenter.datacenter_of(vm).map_err(DiskError::Asking)?;
        let as_it_is = info.as_it_is();
        let reader = Reader {
            waiter: job.waiter,
            cleaning: job.cleaning,
            vm: &info,
            datacenter: &datacenter,
            snapshot: &as_it_is,
            settings: job.transport,
        };
        let failed = |source| DiskError::Making { file: file.clone(), source };
        reader.check_for_making().map_err(failed)?;
        super::detach_leftovers(&job.waiter, &mut notes.disks, tell)?;
        let mut line = String::new();
        let made = reader.make_for_writing(&file, job.disk_bytes, &mut |disk: &Noted| {
            line = serde_json::to_string(disk).expect("it is made of texts");
            notes.disks.note(&line)
        });
        match made {
            Ok(path) => {
                tell(DiskTold::Writing { transport: path.transport(), file: file.clone() });
                Ok(Self { path, vm, job, notes, line, file })
            }
            Err(source) => {
                // What may still be attached stays line.
                let stays =
                    matches!(source, TransportError::StillAttached { .. } | TransportError::NotListed { .. });
                if !stays && !line.is_empty() {
                    let _stays = notes.disks.forget(&line);
                }
                Err(failed(source))
            }
        }
    }

    /// Where the disk goes.
    #[must_use]
    pub fn target(&self) -> &dyn DiskTarget {
        self.path.target()
    }

    /// Its descriptor.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Keeps the session with the vCenter alive until the other side of `stop` is dropped.
    pub fn keep_alive(&self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(KEEP_ALIVE), Err(RecvTimeoutError::Timeout)) {
            // A session that has ended all the same is replaced when it is needed.
            let _needed_later = self.job.waiter.vcenter.keep_alive();
        }
    }

    /// Gives the disk to the VM if it is whole, and returns its key there; else deletes it. Also returns what could not be
    /// done of that.
    #[must_use]
    pub fn close(self, written: Written) -> (Option<String>, Vec<Problem>) {
        let Self { path, vm, job, notes, line, file } = self;
        let path = if written == Written::Whole { path.keep() } else { path };
        if let Err(source) = path.close(&job.cleaning) {
            return (None, vec![Problem::DiskLeft { disk: file, source }]);
        }
        let attached = match written {
            Written::InPart => Ok(None),
            Written::Whole => attach_to(vm, &job.cleaning, &file).map(Some),
        };
        // What stays line does no harm: it is looked for again.
        let _stays = notes.disks.forget(&line);
        match attached {
            Ok(key) => (key, Vec::new()),
            Err(source) => (None, vec![Problem::NotGiven { file, source }]),
        }
    }
}

/// The name that the VM's own files have.
fn file_name(info: &VmInfo) -> String {
    let path = info.vmx_path.as_deref().unwrap_or_default();
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.strip_suffix(".vmx").unwrap_or(name).to_owned()
}

/// Attaches a disk to its VM, and returns its key there.
fn attach_to(vm: &MoRef, waiter: &Waiter<'_>, file: &str) -> Result<String, Option<WaitError>> {
    let look = || {
        let asking = |source| Some(WaitError::Asking { what: ATTACH, source });
        waiter.vcenter.vm(vm).map_err(asking)
    };
    let key_of = |now: &VmInfo| {
        let own = |disk: &&crate::vsphere::model::VirtualDisk| {
            disk.backing.file.as_deref() == Some(file) || disk.backing.parent_file.as_deref() == Some(file)
        };
        now.disks.iter().find(own).map(|disk| disk_key(disk, &now.controllers))
    };
    let now = look()?;
    let (controller_key, unit_number) = free_scsi_place(&now).ok_or(None)?;
    let disk = AttachDisk {
        controller_key,
        unit_number,
        file: file.to_owned(),
        mode: AttachMode::Own,
        new_bytes: None,
    };
    let done = waiter.task(ATTACH, waiter.vcenter.attach_disk(vm, &disk));
    // That it failed does not mean that it was not done.
    match (key_of(&look()?), done) {
        (Some(key), _) => Ok(key),
        (None, Err(error)) => Err(Some(error)),
        (None, Ok(_)) => Err(None),
    }
}
