//! What a test does to a virtual machine and its disks, beside the client.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::areas::Lie;
use super::machine::{Disk as DiskState, File, Machine};
use super::proxy;
use super::snapshots::{self, NewSnapshot};
use super::spec::{DiskSpec, Power};
use super::state::State;
use super::tasks;
use super::tracking::Tracking;

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A test that failed in a closure still looks at what happened.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A virtual machine. Whatever is done to it panics once it is deleted.
#[derive(Clone)]
pub struct Vm {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) id: String,
}

/// A snapshot as the tree tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// The managed object's id, such as `snapshot-31`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Whether the guest was quiesced.
    pub quiesced: bool,
}

impl Vm {
    fn with<T>(&self, act: impl FnOnce(&mut Machine, &mut super::random::Random) -> T) -> T {
        let mut state = lock(&self.state);
        let State { machines, random, .. } = &mut *state;
        let machine = machines.get_mut(&self.id).unwrap_or_else(|| panic!("{} was deleted", self.id));
        act(machine, random)
    }

    /// Returns the managed object's id, such as `vm-29`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the UUID that is its own in this vCenter.
    #[must_use]
    pub fn instance_uuid(&self) -> String {
        self.with(|vm, _| vm.instance_uuid.clone())
    }

    /// Returns the UUID that its BIOS shows.
    #[must_use]
    pub fn bios_uuid(&self) -> String {
        self.with(|vm, _| vm.bios_uuid.clone())
    }

    /// Returns the disk of a number, counted from 0 in the order of the configuration.
    ///
    /// # Panics
    /// If it has fewer.
    #[must_use]
    pub fn disk(&self, number: usize) -> Disk {
        let number = self.with(|vm, _| vm.disks.get(number).map(|disk| disk.number));
        Disk { vm: self.clone(), number: number.expect("the virtual machine has the disk") }
    }

    /// Adds a disk.
    #[must_use]
    pub fn add_disk(&self, spec: &DiskSpec) -> Disk {
        let number = self.with(|vm, random| vm.add_disk(spec, random));
        Disk { vm: self.clone(), number }
    }

    /// Powers it, which is an event at which tracking begins or ends as it was configured.
    ///
    /// # Panics
    /// If it is to run while another virtual machine has one of its disks to write to, which is locked then.
    pub fn set_power(&self, power: Power) {
        let elsewhere = lock(&self.state).written_elsewhere(&self.id);
        assert!(power != Power::On || elsewhere.is_none(), "{elsewhere:?} is locked");
        self.with(|vm, random| {
            vm.power = power;
            vm.settle_tracking(random);
        });
    }

    /// Starts or ends VMware Tools in it.
    pub fn set_tools(&self, running: bool) {
        self.with(|vm, _| vm.tools = running);
    }

    /// Connects or disconnects its host.
    pub fn set_connected(&self, connected: bool) {
        self.with(|vm, _| vm.connected = connected);
    }

    /// Configures whether changes are tracked, as `ReconfigVM_Task` does: from the next snapshot or change of power on.
    pub fn set_change_tracking(&self, wanted: bool) {
        self.with(|vm, _| vm.tracking_wanted = wanted);
    }

    /// Returns whether changes are configured to be tracked.
    #[must_use]
    pub fn change_tracking(&self) -> bool {
        self.with(|vm, _| vm.tracking_wanted)
    }

    /// Returns the value of an option of `extraConfig`.
    #[must_use]
    pub fn extra_config(&self, key: &str) -> Option<String> {
        self.with(|vm, _| vm.extra_config.get(key).cloned())
    }

    /// Gives it another name. Its files keep theirs.
    pub fn rename(&self, name: &str) {
        self.with(|vm, _| name.clone_into(&mut vm.name));
    }

    /// Moves it to the folder at a path such as `DC0/vm/prod`, which is made if need be.
    pub fn move_to_folder(&self, path: &str) {
        let folder = lock(&self.state).folder(path);
        self.with(|vm, _| vm.parent = folder);
    }

    /// Deletes it with its snapshots and disks, as somebody else may at any moment.
    pub fn delete(&self) {
        let mut state = lock(&self.state);
        state.machines.remove(&self.id);
        for snapshot in state.snapshots.values_mut().filter(|snapshot| snapshot.vm == self.id) {
            snapshot.removed = true;
        }
    }

    /// Makes a snapshot that is somebody else's: that a client removes it is a violation.
    ///
    /// # Panics
    /// If the virtual machine cannot have snapshots.
    pub fn create_foreign_snapshot(&self, name: &str) {
        self.create(name, true);
    }

    /// Makes a snapshot such as an earlier run of the client may have left behind.
    ///
    /// # Panics
    /// If the virtual machine cannot have snapshots.
    pub fn create_leftover_snapshot(&self, name: &str) {
        self.create(name, false);
    }

    fn create(&self, name: &str, foreign: bool) {
        let new = NewSnapshot { name, description: "made by a test", quiesce: false, foreign };
        let created = snapshots::create(&mut lock(&self.state), &self.id, &new);
        assert!(created.is_ok(), "the snapshot {name} cannot be created: {created:?}");
    }

    /// Removes a snapshot and consolidates, as somebody with a right to it does.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn remove_snapshot(&self, name: &str) {
        let id = self.snapshot_id(name);
        let mut state = lock(&self.state);
        snapshots::remove(&mut state, &id);
        snapshots::merge(&mut state, &self.id);
    }

    /// Brings the disks back to a snapshot, which stays: contents, and the sequence of changes.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn revert_to(&self, name: &str) {
        let id = self.snapshot_id(name);
        snapshots::revert(&mut lock(&self.state), &id);
    }

    /// Lets a snapshot be as old as this.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn set_snapshot_age(&self, name: &str, age: Duration) {
        let id = self.snapshot_id(name);
        if let Some(snapshot) = lock(&self.state).snapshots.get_mut(&id) {
            snapshot.created = Timestamp::now() - age;
        }
    }

    /// Starts a task of somebody else's, which is found running for so many questions about it, for ever with
    /// `u64::MAX`. No snapshot can be created meanwhile.
    pub fn start_other_task(&self, polls: u64) {
        tasks::start_other(&mut lock(&self.state), &self.id, polls);
    }

    fn snapshot_id(&self, name: &str) -> String {
        let found = self.snapshots().into_iter().find(|snapshot| snapshot.name == name);
        found.unwrap_or_else(|| panic!("there is no snapshot {name}")).id
    }

    /// Returns the snapshots that exist, the oldest first.
    #[must_use]
    pub fn snapshots(&self) -> Vec<SnapshotSummary> {
        let state = lock(&self.state);
        let own = state.snapshots.iter().filter(|(_, found)| found.vm == self.id && !found.removed);
        let mut own: Vec<_> = own.collect();
        own.sort_by_key(|(_, snapshot)| snapshot.number);
        own.into_iter()
            .map(|(id, found)| SnapshotSummary {
                id: id.clone(),
                name: found.name.clone(),
                description: found.description.clone(),
                quiesced: found.quiesced,
            })
            .collect()
    }

    /// Returns the names of the snapshots that exist, the oldest first.
    #[must_use]
    pub fn snapshot_names(&self) -> Vec<String> {
        self.snapshots().into_iter().map(|snapshot| snapshot.name).collect()
    }

    /// Says that disks are to be consolidated, or that they are.
    pub fn set_consolidation_needed(&self, needed: bool) {
        self.with(|vm, _| vm.consolidation_needed = needed);
    }

    /// Returns whether disks are to be consolidated.
    #[must_use]
    pub fn consolidation_needed(&self) -> bool {
        self.with(|vm, _| vm.consolidation_needed)
    }

    /// Makes it a proxy: what its kernel shows of its disks, those that it has and those that are attached, appears
    /// below a directory as `dev/sdX`, `sys/block/sdX/size` and `sys/block/sdX/device/wwid`.
    pub fn make_proxy(&self, directory: &Path) {
        self.with(|vm, _| vm.proxy = Some(directory.to_owned()));
        proxy::show_devices(&mut lock(&self.state), &self.id);
    }

    /// Returns the files of its disks, its own and those that are attached.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        self.with(|vm, _| vm.disks.iter().map(|disk| disk.file.to_string()).collect())
    }

    /// Returns whether it runs.
    #[must_use]
    pub fn power(&self) -> Power {
        self.with(|vm, _| vm.power)
    }

    /// Returns the files of the disks of others that are attached.
    #[must_use]
    pub fn attached(&self) -> Vec<String> {
        self.with(|vm, _| {
            let attached = vm.disks.iter().filter(|disk| disk.attached_from.is_some());
            attached.map(|disk| disk.file.to_string()).collect()
        })
    }
}

/// A disk of a virtual machine, wherever it is moved. Whatever is done to it panics once it is removed.
#[derive(Clone)]
pub struct Disk {
    vm: Vm,
    number: u64,
}

impl Disk {
    fn with<T>(&self, act: impl FnOnce(&mut DiskState) -> T) -> T {
        self.vm.with(|vm, _| {
            let disk = vm.disks.iter_mut().find(|disk| disk.number == self.number);
            act(disk.expect("the disk was not removed"))
        })
    }

    /// Returns the device's key.
    #[must_use]
    pub fn key(&self) -> i32 {
        self.with(|disk| disk.key)
    }

    /// Returns the backing's UUID.
    #[must_use]
    pub fn uuid(&self) -> String {
        self.with(|disk| disk.uuid.clone())
    }

    /// Returns the file that it writes to now.
    #[must_use]
    pub fn file(&self) -> String {
        self.with(|disk| disk.file.to_string())
    }

    /// Returns the change id that a snapshot would get now, if changes are tracked.
    #[must_use]
    pub fn change_id(&self) -> Option<String> {
        self.with(|disk| disk.tracking.as_ref().map(|tracking| tracking.change_id().to_string()))
    }

    /// Returns the capacity in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.with(|disk| disk.contents.capacity())
    }

    /// Writes bytes, which is a change.
    ///
    /// # Panics
    /// If they pass the disk's end.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.with(|disk| disk.write(offset, bytes));
    }

    /// Discards a range, which reads as zeros then and has changed.
    ///
    /// # Panics
    /// If it passes the disk's end.
    pub fn discard(&self, offset: u64, len: u64) {
        self.with(|disk| disk.discard(offset, len));
    }

    /// Changes bytes without recording that they changed: a defect of tracking.
    ///
    /// # Panics
    /// If they pass the disk's end.
    pub fn write_untracked(&self, offset: u64, bytes: &[u8]) {
        self.with(|disk| disk.contents.write(offset, bytes));
    }

    /// Returns what it holds now.
    ///
    /// # Panics
    /// If the range passes the disk's end.
    #[must_use]
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.with(|disk| disk.contents.read(offset, len as u64))
    }

    /// Returns all that it holds now.
    ///
    /// # Panics
    /// If that is more than fits in memory.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.with(|disk| disk.contents.read(0, disk.contents.capacity()))
    }

    /// Changes the capacity, with which vSphere begins an epoch.
    pub fn resize(&self, capacity: u64) {
        self.resize_in_epoch(capacity);
        self.reset_tracking();
    }

    /// Changes the capacity without beginning an epoch.
    ///
    /// # Panics
    /// If it is not in whole sectors of 512 bytes.
    pub fn resize_in_epoch(&self, capacity: u64) {
        assert!(capacity.is_multiple_of(512), "a disk of {capacity} bytes is not in whole sectors");
        self.with(|disk| disk.contents.resize(capacity));
    }

    /// Begins an epoch: what changed before is forgotten.
    pub fn reset_tracking(&self) {
        let epoch = lock(&self.vm.state).random.epoch();
        self.with(|disk| {
            if let Some(tracking) = &mut disk.tracking {
                *tracking = Tracking::start(epoch);
            }
        });
    }

    /// Moves its file, as Storage `vMotion` does: `datastore2` and `web/web.vmdk`.
    ///
    /// # Panics
    /// If it has snapshots.
    pub fn move_to(&self, datastore: &str, path: &str) {
        let file = File { datastore: datastore.to_owned(), path: path.to_owned() };
        self.with(|disk| {
            assert!(disk.parents.is_empty(), "a disk with snapshots cannot be moved here");
            disk.file = file;
        });
    }

    /// Puts it on another unit of its controller, which gives it another key.
    ///
    /// # Panics
    /// If the unit is taken.
    pub fn set_unit(&self, unit: i32) {
        self.vm.with(|vm, _| {
            let of = |disk: &&DiskState| disk.number == self.number;
            let key = vm.disks.iter().find(of).expect("the disk was not removed").controller;
            let controller = vm.controller(key).expect("a disk is on a controller").clone();
            let taken = vm.disks.iter().any(|disk| disk.controller == key && disk.unit == unit);
            assert!(!taken, "unit {unit} is taken");
            for disk in vm.disks.iter_mut().filter(|disk| disk.number == self.number) {
                disk.unit = unit;
                disk.key = controller.kind.disk_key(controller.bus, unit);
            }
        });
    }

    /// Removes it from the virtual machine.
    pub fn remove(&self) {
        self.vm.with(|vm, _| vm.disks.retain(|disk| disk.number != self.number));
    }

    /// Makes answers about its changed areas wrong from now on, or right.
    pub fn lie(&self, lie: Option<Lie>) {
        self.with(|disk| disk.lie = lie);
    }
}
