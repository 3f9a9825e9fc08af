//! What changes a virtual machine. Each such call starts a task, which the caller looks at until it has ended.

use super::client::{Repeat, VCenter, malformed};
use super::error::VSphereError;
use super::fault::Fault;
use super::model::MoRef;
use super::properties;
use super::soap::{Data, Question};
use super::text;
use super::xml::{Element, Wrong};

/// A task of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task(pub MoRef);

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It waits for others.
    Queued,
    /// It is under way.
    Running {
        /// In per cent, if the server tells.
        progress: Option<u8>,
    },
    /// It has done what it was for.
    Success {
        /// The object that it made: the snapshot, for one.
        result: Option<MoRef>,
    },
    /// It failed.
    Error(Fault),
}

/// Whether the guest is asked to bring its data to rest before a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiescing {
    /// It is, through VMware Tools.
    Guest,
    /// It is not: the disks are as after a power failure.
    None,
}

/// What a disk of another VM is attached for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// For reading: what is written to it is dropped.
    Reading,
    /// For writing: what is written reaches the file at once, and for good.
    Writing,
    /// For good: as one of the VM's own, which its snapshots hold.
    Own,
}

impl AttachMode {
    /// vSphere's word. In the first two modes snapshots of the VM that gets the disk leave it alone, and so does that VM's
    /// change tracking.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reading => "independent_nonpersistent",
            Self::Writing => "independent_persistent",
            Self::Own => "persistent",
        }
    }
}

/// A disk of another VM that a VM is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachDisk {
    /// The key of the controller.
    pub controller_key: i32,
    /// A free place at it.
    pub unit_number: i32,
    /// The disk's descriptor, `[datastore] directory/name.vmdk`.
    pub file: String,
    /// What for.
    pub mode: AttachMode,
    /// The length in bytes that it is made with; nothing if it is there.
    pub new_bytes: Option<u64>,
}

impl VCenter {
    /// Has changes of a VM's disks tracked, from the next snapshot or power-on.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn enable_change_tracking(&self, vm: &MoRef) -> Result<Task, VSphereError> {
        self.reconfigure(vm, Data::new().with("changeTrackingEnabled", true))
    }

    /// Has changes of a VM's disks tracked no longer, from the next snapshot or change of power.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn disable_change_tracking(&self, vm: &MoRef) -> Result<Task, VSphereError> {
        self.reconfigure(vm, Data::new().with("changeTrackingEnabled", false))
    }

    /// Switches a VM off without asking its guest, as if the plug were pulled.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn power_off(&self, vm: &MoRef) -> Result<Task, VSphereError> {
        self.start(&Question::new("PowerOffVM_Task", vm))
    }

    /// Takes a snapshot of a VM's disks, without its memory. The task's result is the snapshot.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn create_snapshot(
        &self,
        vm: &MoRef,
        name: &str,
        description: &str,
        quiescing: Quiescing,
    ) -> Result<Task, VSphereError> {
        let question = Question::new("CreateSnapshot_Task", vm)
            .with("name", name)
            .with("description", description)
            .with("memory", false)
            .with("quiesce", quiescing == Quiescing::Guest);
        self.start(&question)
    }

    /// Removes one snapshot, and lets the disks that are no longer needed be merged.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn remove_snapshot(&self, snapshot: &MoRef) -> Result<Task, VSphereError> {
        let question = Question::new("RemoveSnapshot_Task", snapshot)
            .with("removeChildren", false)
            .with("consolidate", true);
        self.start(&question)
    }

    /// Merges the disks of snapshots that were removed.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn consolidate(&self, vm: &MoRef) -> Result<Task, VSphereError> {
        self.start(&Question::new("ConsolidateVMDisks_Task", vm))
    }

    /// Attaches a disk, which is made first if it is new: thin, and of zeros.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn attach_disk(&self, proxy_vm: &MoRef, disk: &AttachDisk) -> Result<Task, VSphereError> {
        let mut backing = Data::of_type("VirtualDiskFlatVer2BackingInfo")
            .with("fileName", &disk.file)
            .with("diskMode", disk.mode.word());
        if disk.new_bytes.is_some() {
            backing = backing.with("thinProvisioned", true);
        }
        let device = Data::of_type("VirtualDisk")
            .with("key", -1)
            .with_data("backing", backing)
            .with("controllerKey", disk.controller_key)
            .with("unitNumber", disk.unit_number)
            // Has to be there, and is taken from the file if there is one.
            .with("capacityInKB", disk.new_bytes.map_or(0, |bytes| bytes.div_ceil(1024)));
        let files = if disk.new_bytes.is_some() { Some("create") } else { None };
        self.change_device(proxy_vm, "add", files, device)
    }

    /// Detaches a disk, whose files stay.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn detach_disk(&self, proxy_vm: &MoRef, device_key: i32) -> Result<Task, VSphereError> {
        // Without a file operation, which alone would delete the files.
        let device = Data::of_type("VirtualDisk").with("key", device_key).with("capacityInKB", 0);
        self.change_device(proxy_vm, "remove", None, device)
    }

    /// Detaches a disk and deletes its files: only for one that was made a moment before.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn destroy_disk(&self, proxy_vm: &MoRef, device_key: i32) -> Result<Task, VSphereError> {
        let device = Data::of_type("VirtualDisk").with("key", device_key).with("capacityInKB", 0);
        self.change_device(proxy_vm, "remove", Some("destroy"), device)
    }

    /// Adds a paravirtual SCSI controller with a bus number that is free.
    ///
    /// # Errors
    /// As the server refuses; after [`VSphereError::Connection`] the task may have been started.
    pub fn add_scsi_controller(&self, vm: &MoRef, bus_number: i32) -> Result<Task, VSphereError> {
        let device = Data::of_type("ParaVirtualSCSIController")
            .with("key", -1)
            .with("busNumber", bus_number)
            .with("sharedBus", "noSharing");
        self.change_device(vm, "add", None, device)
    }

    /// The tasks that were or are at work on a VM lately, as far as the server remembers them.
    ///
    /// # Errors
    /// If the question is not answered.
    pub fn recent_tasks(&self, vm: &MoRef) -> Result<Vec<Task>, VSphereError> {
        const PATH: &str = "recentTask";
        let properties = self.properties(vm, &[PATH])?;
        let tasks = |list: &Element| list.all("ManagedObjectReference").map(Element::moref).collect();
        let tasks: Option<Vec<MoRef>> =
            properties.read(PATH, tasks).map_err(malformed(properties::METHOD))?;
        Ok(tasks.unwrap_or_default().into_iter().map(Task).collect())
    }

    /// Looks at a task once.
    ///
    /// # Errors
    /// If the question is not answered. Tasks that ended some minutes ago may be forgotten by the server.
    pub fn task(&self, task: &Task) -> Result<TaskState, VSphereError> {
        const PATH: &str = "info";
        let properties = self.properties(&task.0, &[PATH])?;
        let malformed = malformed(properties::METHOD);
        let info = properties.need(PATH).map_err(&malformed)?;
        read_task(info).map_err(malformed)
    }

    fn change_device(
        &self,
        vm: &MoRef,
        operation: &str,
        files: Option<&str>,
        device: Data,
    ) -> Result<Task, VSphereError> {
        let mut change = Data::new().with("operation", operation);
        if let Some(files) = files {
            change = change.with("fileOperation", files);
        }
        let change = change.with_data("device", device);
        self.reconfigure(vm, Data::new().with_data("deviceChange", change))
    }

    fn reconfigure(&self, vm: &MoRef, spec: Data) -> Result<Task, VSphereError> {
        self.start(&Question::new("ReconfigVM_Task", vm).with_data("spec", spec))
    }

    fn start(&self, question: &Question) -> Result<Task, VSphereError> {
        let response = self.ask(question, Repeat::Never)?;
        let task = response.need("returnval").and_then(Element::moref);
        task.map(Task).map_err(malformed(question.method))
    }
}

/// Reads a task's `info`.
pub(super) fn read_task(info: &Element) -> Result<TaskState, Wrong> {
    match info.need("state")?.text.trim() {
        "queued" => Ok(TaskState::Queued),
        "running" => Ok(TaskState::Running { progress: info.optional_number("progress")? }),
        "success" => {
            let result = info.child("result").filter(|result| result.kind.is_some());
            Ok(TaskState::Success { result: result.map(Element::moref).transpose()? })
        }
        "error" => Ok(TaskState::Error(Fault::read_localized(info.need("error")?))),
        other => Err(Wrong(format!("state: {} is unknown", text::excerpt(other)))),
    }
}
