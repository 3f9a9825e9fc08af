//! Everything that the fake knows: the inventory, the tasks, the sessions, and what the test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::areas::{Allocated, Lie};
use super::fault::Fault;
use super::machine::{AttachedFrom, Disk, File, Machine, Snapshot};
use super::random::Random;
use super::script::Script;
use super::tasks::Task;
use super::value::Reference;

pub(super) const ROOT_FOLDER: &str = "group-d1";

/// As many extents as vSphere puts into an answer.
const EXTENTS_MAX: usize = 2000;

/// A rule that a client broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A snapshot was created while disks were being consolidated, or before they were although that was needed.
    SnapshotDuringConsolidation {
        /// The virtual machine's name.
        vm: String,
    },
    /// Changes were to be tracked from then on over snapshots, which spoils what is tracked.
    TrackingEnabledOverSnapshots {
        /// The virtual machine's name.
        vm: String,
    },
    /// Changed areas of a removed snapshot were asked for.
    RemovedSnapshotQueried {
        /// The snapshot's name.
        snapshot: String,
    },
    /// A disk that nothing freezes any more was read or attached.
    UnfrozenDiskRead {
        /// `[DATASTORE] PATH`.
        file: String,
    },
    /// A snapshot that is somebody else's was removed.
    ForeignSnapshotRemoved {
        /// The snapshot's name.
        snapshot: String,
    },
    /// A snapshot was removed before its disk was detached from a proxy.
    SnapshotRemovedWhileAttached {
        /// The snapshot's name.
        snapshot: String,
    },
    /// A disk was detached with `fileOperation` `destroy`.
    FileDestroyed {
        /// `[DATASTORE] PATH`.
        file: String,
    },
    /// A snapshot's disk was attached so that writes could change it.
    AttachedWritable {
        /// `[DATASTORE] PATH`.
        file: String,
        /// The mode that was asked for.
        mode: String,
    },
    /// A disk was attached to be written while snapshots stood on it, which spoils them.
    WrittenUnderSnapshots {
        /// `[DATASTORE] PATH`.
        file: String,
    },
    /// A disk was attached to be written whose virtual machine has a memory of what it held.
    SuspendedDiskWritten {
        /// `[DATASTORE] PATH`.
        file: String,
    },
    /// A disk was attached to be written so that snapshots of the proxy and its change tracking take part in it.
    AttachedDependent {
        /// `[DATASTORE] PATH`.
        file: String,
    },
    /// A virtual machine was powered on.
    PoweredOn {
        /// The virtual machine's name.
        vm: String,
    },
    /// A session was not logged out of.
    SessionLeft {
        /// The user's name.
        user: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SnapshotDuringConsolidation { vm } => {
                write!(f, "a snapshot of {vm} was created before its disks were consolidated")
            }
            Self::TrackingEnabledOverSnapshots { vm } => {
                write!(f, "changed-block tracking of {vm} was enabled over snapshots")
            }
            Self::RemovedSnapshotQueried { snapshot } => {
                write!(f, "changed areas of the removed snapshot {snapshot} were asked for")
            }
            Self::UnfrozenDiskRead { file } => write!(f, "{file} was read while no snapshot froze it"),
            Self::ForeignSnapshotRemoved { snapshot } => {
                write!(f, "the snapshot {snapshot}, which is somebody else's, was removed")
            }
            Self::SnapshotRemovedWhileAttached { snapshot } => {
                write!(f, "the snapshot {snapshot} was removed while its disk was attached")
            }
            Self::FileDestroyed { file } => write!(f, "{file} was destroyed"),
            Self::AttachedWritable { file, mode } => write!(f, "{file} was attached as {mode}"),
            Self::WrittenUnderSnapshots { file } => write!(f, "{file} was written under snapshots"),
            Self::SuspendedDiskWritten { file } => {
                write!(f, "{file} of a suspended virtual machine was written")
            }
            Self::AttachedDependent { file } => write!(f, "{file} was attached as a disk of the proxy's own"),
            Self::PoweredOn { vm } => write!(f, "{vm} was powered on"),
            Self::SessionLeft { user } => write!(f, "a session of {user} was left logged in"),
        }
    }
}

/// A folder, a datacenter or a host.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) parent: Option<String>,
}

/// A session that was logged in to.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: String,
    pub(super) user: String,
    /// How many calls it still lives, if the test bounds that.
    pub(super) calls_left: Option<u64>,
}

/// The rest of an answer of the property collector.
pub(super) type Rest = Vec<super::value::Value>;

/// Everything that the fake knows.
pub(super) struct State {
    pub(super) places: BTreeMap<String, Place>,
    pub(super) machines: BTreeMap<String, Machine>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    pub(super) tasks: BTreeMap<String, Task>,
    /// Disks that no virtual machine has.
    pub(super) loose: BTreeMap<File, Disk>,
    /// The files that a client created, and may destroy.
    pub(super) created: BTreeSet<File>,
    /// By their cookies.
    pub(super) sessions: BTreeMap<String, Session>,
    /// Answers that are to be continued, by their tokens.
    pub(super) rests: BTreeMap<String, Rest>,
    pub(super) script: Script,
    pub(super) violations: Vec<Violation>,
    pub(super) random: Random,
    last_number: u32,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) build: String,
    pub(super) session_calls: Option<u64>,
    pub(super) denied: BTreeSet<String>,
    /// Properties that may not be read.
    pub(super) hidden: BTreeSet<String>,
    pub(super) extents_max: usize,
    pub(super) allocated: Allocated,
    /// How many quiesced snapshots still fail.
    pub(super) quiesce_faults: u64,
    /// How many removals of snapshots still leave the consolidation to be done.
    pub(super) unconsolidated_removals: u64,
    /// Whether an attached disk tells its UUID (`disk.EnableUUID`).
    pub(super) wwid_files: bool,
    /// Whether attached disks do not appear yet.
    pub(super) devices_held: bool,
}

impl State {
    pub(super) fn new(user: &str, password: &str) -> Self {
        let root = Place { kind: "Folder", name: "Datacenters".to_owned(), parent: None };
        Self {
            places: BTreeMap::from([(ROOT_FOLDER.to_owned(), root)]),
            machines: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            tasks: BTreeMap::new(),
            loose: BTreeMap::new(),
            created: BTreeSet::new(),
            sessions: BTreeMap::new(),
            rests: BTreeMap::new(),
            script: Script::default(),
            violations: Vec::new(),
            random: Random::new(1),
            last_number: 20,
            user: user.to_owned(),
            password: password.to_owned(),
            build: "24022510".to_owned(),
            session_calls: None,
            denied: BTreeSet::new(),
            hidden: BTreeSet::new(),
            extents_max: EXTENTS_MAX,
            allocated: Allocated::Blocks,
            quiesce_faults: 0,
            unconsolidated_removals: 0,
            wwid_files: true,
            devices_held: false,
        }
    }

    /// Makes a name that no object has yet.
    pub(super) fn new_id(&mut self, prefix: &str) -> String {
        self.last_number += 1;
        format!("{prefix}-{}", self.last_number)
    }

    fn child(&self, parent: &str, name: &str) -> Option<Reference> {
        let place = self
            .places
            .iter()
            .find(|(_, place)| place.parent.as_deref() == Some(parent) && place.name == name);
        let place = place.map(|(id, place)| Reference::new(place.kind, id));
        let machine = || self.machines.iter().find(|(_, vm)| vm.parent == parent && vm.name == name);
        place.or_else(|| machine().map(|(id, _)| Reference::new("VirtualMachine", id)))
    }

    /// Finds the object at a path such as `DC0/vm/prod/web`, where a slash in a name is `%2f`.
    pub(super) fn find(&self, path: &str) -> Option<Reference> {
        let mut found = Reference::new("Folder", ROOT_FOLDER);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let name = name.replace("%2f", "/").replace("%2F", "/").replace("%25", "%");
            found = self.child(&found.id, &name)?;
        }
        Some(found)
    }

    /// Finds the folder at a path, and makes what is missing of it: first a datacenter, in it folders.
    pub(super) fn folder(&mut self, path: &str) -> String {
        let mut at = ROOT_FOLDER.to_owned();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = match self.child(&at, name) {
                Some(found) => found.id,
                None if at == ROOT_FOLDER => self.add_datacenter(name),
                None => self.add_place("Folder", "group-v", name, &at),
            };
        }
        at
    }

    fn add_datacenter(&mut self, name: &str) -> String {
        let datacenter = self.add_place("Datacenter", "datacenter", name, ROOT_FOLDER);
        for folder in ["vm", "host", "datastore", "network"] {
            self.add_place("Folder", &format!("group-{}", &folder[..1]), folder, &datacenter);
        }
        let hosts = self.child(&datacenter, "host").expect("it was just added").id;
        let name = format!("esx-{}.example.com", datacenter.trim_start_matches("datacenter-"));
        let resource = self.add_place("ComputeResource", "domain-s", &name, &hosts);
        self.add_place("HostSystem", "host", &name, &resource);
        datacenter
    }

    fn add_place(&mut self, kind: &'static str, prefix: &str, name: &str, parent: &str) -> String {
        let id = self.new_id(prefix);
        self.places
            .insert(id.clone(), Place { kind, name: name.to_owned(), parent: Some(parent.to_owned()) });
        id
    }

    /// Returns the datacenter above an object.
    pub(super) fn datacenter_of(&self, id: &str) -> Option<&str> {
        let mut at = self.machines.get(id).map_or(id, |vm| vm.parent.as_str());
        loop {
            let (key, place) = self.places.get_key_value(at)?;
            if place.kind == "Datacenter" {
                return Some(key);
            }
            at = place.parent.as_deref()?;
        }
    }

    /// Returns the host of a virtual machine: that of its datacenter.
    pub(super) fn host_of(&self, vm: &str) -> Option<&str> {
        let datacenter = self.datacenter_of(vm)?;
        let mut hosts = self.places.iter().filter(|(_, place)| place.kind == "HostSystem");
        hosts.find(|(id, _)| self.datacenter_of(id) == Some(datacenter)).map(|(id, _)| id.as_str())
    }

    /// Returns a virtual machine that a client named.
    pub(super) fn machine(&mut self, id: &str) -> Result<&mut Machine, Fault> {
        self.machines.get_mut(id).ok_or_else(|| Fault::not_found(Reference::new("VirtualMachine", id)))
    }

    /// Returns the lie about a disk, which is not frozen with it.
    pub(super) fn lie(&self, vm: &str, number: u64) -> Option<Lie> {
        self.machines.get(vm)?.disks.iter().find(|disk| disk.number == number)?.lie
    }

    /// Returns the disk that a snapshot freezes in a file, with the snapshot's id.
    pub(super) fn frozen(&self, file: &File) -> Option<(&str, &Disk)> {
        let present = self.snapshots.iter().filter(|(_, snapshot)| !snapshot.removed);
        let mut disks =
            present.flat_map(|(id, snapshot)| snapshot.disks.iter().map(move |disk| (id.as_str(), disk)));
        disks.find(|(_, disk)| disk.file == *file)
    }

    /// Tells whether a snapshot that was removed froze a disk in a file.
    pub(super) fn was_frozen(&self, file: &File) -> bool {
        self.snapshots.values().flat_map(|snapshot| &snapshot.disks).any(|disk| disk.file == *file)
    }

    /// Returns the virtual machine and its disk that write to a file.
    pub(super) fn written(&self, file: &File) -> Option<(&Machine, &Disk)> {
        self.owned(file).map(|(_, vm, disk)| (vm, disk))
    }

    /// Returns the same with the virtual machine's id.
    pub(super) fn owned(&self, file: &File) -> Option<(&str, &Machine, &Disk)> {
        let own = |disk: &&Disk| disk.attached_from.is_none() && disk.file == *file;
        self.machines.iter().find_map(|(id, vm)| Some((id.as_str(), vm, vm.disks.iter().find(own)?)))
    }

    /// Returns a file of a virtual machine that another one has to write to.
    pub(super) fn written_elsewhere(&self, vm: &str) -> Option<String> {
        let mut disks = self.machines.values().flat_map(|vm| &vm.disks);
        let found = disks
            .find(|disk| matches!(&disk.attached_from, Some(AttachedFrom::Machine(owner)) if owner == vm));
        found.map(|disk| disk.file.to_string())
    }
}
