//! Snapshots: created, removed, merged, reverted to.

use jiff::Timestamp;

use super::element::Element;
use super::fault::Fault;
use super::machine::{AttachedFrom, Disk, File, Snapshot};
use super::spec::Power;
use super::state::{State, Violation};
use super::tasks::{Busy, Work, busy, poll_consolidation, start};
use super::value::{Reference, Value, reference};

/// What a snapshot is to be.
pub(super) struct NewSnapshot<'a> {
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) quiesce: bool,
    pub(super) foreign: bool,
}

/// Answers `CreateSnapshot_Task` and `CreateSnapshotEx_Task`.
pub(super) fn create_task(state: &mut State, vm: &str, method: &str, call: &Element) -> Result<Value, Fault> {
    let name = call.text_of("name").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Fault::new("InvalidName", "The name '' is invalid.").with("name", ""))?;
    let quiesce = match method {
        "CreateSnapshot_Task" => call.flag_of("quiesce").ok_or_else(|| Fault::invalid_argument("quiesce"))?,
        _ => call.child("quiesceSpec").is_some(),
    };
    let memory = call.flag_of("memory").ok_or_else(|| Fault::invalid_argument("memory"))?;
    let machine = state.machine(vm)?;
    if memory && machine.power == Power::On && quiesce {
        return Err(Fault::invalid_argument("quiesce"));
    }
    let (consolidation_needed, vm_name) = (machine.consolidation_needed, machine.name.clone());
    let busy = busy(state, vm);
    // The attempt takes its time, whether or not it succeeds.
    poll_consolidation(state, vm);
    if busy == Busy::Merging || consolidation_needed {
        state.violations.push(Violation::SnapshotDuringConsolidation { vm: vm_name });
    }
    let description = call.text_of("description").unwrap_or_default();
    let outcome = if busy == Busy::No {
        let snapshot = NewSnapshot { name, description, quiesce, foreign: false };
        create(state, vm, &snapshot).map(|id| reference("VirtualMachineSnapshot", &id))
    } else {
        Err(Fault::new("TaskInProgress", "The operation is not allowed while another task is in progress."))
    };
    Ok(start(state, method, vm, Work::Done(outcome)))
}

/// Freezes the disks of a virtual machine, and returns the snapshot's id.
pub(super) fn create(state: &mut State, vm: &str, new: &NewSnapshot<'_>) -> Result<String, Fault> {
    if let Some(file) = state.written_elsewhere(vm) {
        return Err(Fault::locked(&file));
    }
    let id = state.new_id("snapshot");
    let machine =
        state.machines.get_mut(vm).ok_or_else(|| Fault::not_found(Reference::new("VirtualMachine", vm)))?;
    let shared = machine.disks.iter().any(|disk| {
        disk.multi_writer || machine.controller(disk.controller).is_some_and(|found| found.bus_sharing)
    });
    if shared {
        let message =
            "The virtual machine is configured to use a device that prevents the operation: shared disk.";
        return Err(Fault::new("SharedBusControllerNotSupported", message));
    }
    let quiesced = new.quiesce && machine.power == Power::On && machine.tools;
    if quiesced && state.quiesce_faults > 0 {
        state.quiesce_faults -= 1;
        let message =
            "An error occurred while quiescing the virtual machine. See the virtual machine's event log.";
        return Err(Fault::new("ApplicationQuiesceFault", message));
    }
    machine.settle_tracking(&mut state.random);
    let disks = machine.disks.clone();
    machine.deltas += 1;
    for disk in machine.disks.iter_mut().filter(|disk| disk.takes_part_in_snapshots()) {
        if let Some(tracking) = &mut disk.tracking {
            tracking.advance();
        }
        let base = disk.base().clone();
        let stem = base.path.strip_suffix(".vmdk").unwrap_or(&base.path);
        let delta = File { path: format!("{stem}-{:06}.vmdk", machine.deltas), ..base.clone() };
        disk.parents.push(std::mem::replace(&mut disk.file, delta));
    }
    let number = i32::try_from(state.snapshots.len()).expect("snapshots are few") + 1;
    let snapshot = Snapshot {
        number,
        vm: vm.to_owned(),
        name: new.name.to_owned(),
        description: new.description.to_owned(),
        created: Timestamp::now(),
        power: machine.power,
        quiesced,
        parent: machine.current.replace(id.clone()),
        disks,
        foreign: new.foreign,
        removed: false,
    };
    state.snapshots.insert(id.clone(), snapshot);
    Ok(id)
}

/// Answers `RemoveSnapshot_Task`.
pub(super) fn remove_task(state: &mut State, snapshot: &str, call: &Element) -> Result<Value, Fault> {
    let children = call.flag_of("removeChildren").ok_or_else(|| Fault::invalid_argument("removeChildren"))?;
    let consolidate = call.flag_of("consolidate").unwrap_or(true);
    let found = state.snapshots.get(snapshot).filter(|found| !found.removed);
    let found = found.ok_or_else(|| Fault::not_found(Reference::new("VirtualMachineSnapshot", snapshot)))?;
    let vm = found.vm.clone();
    let mut removed = vec![snapshot.to_owned()];
    while let Some(child) = state.snapshots.iter().find(|(id, other)| {
        let below = other.parent.as_ref().is_some_and(|parent| removed.contains(parent));
        children && below && !other.removed && !removed.contains(id)
    }) {
        removed.push(child.0.clone());
    }
    for id in removed.iter().rev() {
        note_removal(state, id);
        remove(state, id);
    }
    let left = state.unconsolidated_removals > 0;
    if left || !consolidate {
        state.unconsolidated_removals -= u64::from(left);
        state.machine(&vm)?.consolidation_needed = true;
        return Ok(start(state, "RemoveSnapshot_Task", &vm, Work::Done(Ok(Value::Unset))));
    }
    Ok(start(state, "RemoveSnapshot_Task", &vm, Work::Merge { vm: vm.clone() }))
}

/// Records what a client broke by removing a snapshot.
fn note_removal(state: &mut State, id: &str) {
    let attached = attached(state, id);
    let Some(snapshot) = state.snapshots.get(id) else { return };
    if snapshot.foreign {
        state.violations.push(Violation::ForeignSnapshotRemoved { snapshot: snapshot.name.clone() });
    }
    if attached {
        state.violations.push(Violation::SnapshotRemovedWhileAttached { snapshot: snapshot.name.clone() });
    }
}

fn attached(state: &State, snapshot: &str) -> bool {
    let mut disks = state.machines.values().flat_map(|vm| &vm.disks);
    disks.any(|disk| matches!(&disk.attached_from, Some(AttachedFrom::Snapshot(id)) if id == snapshot))
}

/// Takes a snapshot out of its tree. Its files are still to be merged.
pub(super) fn remove(state: &mut State, id: &str) {
    let Some(snapshot) = state.snapshots.get_mut(id) else { return };
    snapshot.removed = true;
    let (vm, parent) = (snapshot.vm.clone(), snapshot.parent.clone());
    for other in state.snapshots.values_mut().filter(|other| other.parent.as_deref() == Some(id)) {
        other.parent.clone_from(&parent);
    }
    if let Some(machine) = state.machines.get_mut(&vm) {
        if machine.current.as_deref() == Some(id) {
            machine.current = parent;
        }
        machine.unmerged.push(id.to_owned());
    }
}

/// Answers `ConsolidateVMDisks_Task`.
pub(super) fn consolidate_task(state: &mut State, vm: &str) -> Result<Value, Fault> {
    state.machine(vm)?;
    Ok(start(state, "ConsolidateVMDisks_Task", vm, Work::Merge { vm: vm.to_owned() }))
}

/// Merges the files of removed snapshots. Files that are attached elsewhere are locked, and stay.
pub(super) fn merge(state: &mut State, vm: &str) {
    let Some(machine) = state.machines.get_mut(vm) else { return };
    let waiting = std::mem::take(&mut machine.unmerged);
    let (locked, merged): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|id| attached(state, id));
    for id in merged {
        let files: Vec<(u64, File)> = match state.snapshots.get(&id) {
            Some(snapshot) => snapshot
                .disks
                .iter()
                .filter(|disk| disk.takes_part_in_snapshots())
                .map(|disk| (disk.number, disk.file.clone()))
                .collect(),
            None => Vec::new(),
        };
        for (number, file) in files {
            merge_file(state, vm, number, &file);
        }
    }
    if let Some(machine) = state.machines.get_mut(vm) {
        machine.consolidation_needed = !locked.is_empty();
        machine.unmerged = locked;
    }
}

/// Merges the file above a file into it, if there is one only.
fn merge_file(state: &mut State, vm: &str, number: u64, file: &File) {
    let snapshots = state.snapshots.values_mut().filter(|snapshot| snapshot.vm == vm);
    let frozen = snapshots.flat_map(|snapshot| &mut snapshot.disks);
    let live = state.machines.get_mut(vm).into_iter().flat_map(|vm| &mut vm.disks);
    let mut views: Vec<&mut Disk> = frozen.chain(live).filter(|disk| disk.number == number).collect();
    let above = |disk: &Disk| {
        let position = disk.parents.iter().position(|parent| parent == file)?;
        Some(disk.parents.get(position + 1).unwrap_or(&disk.file).clone())
    };
    let mut files_above: Vec<File> = views.iter().filter_map(|disk| above(disk)).collect();
    files_above.sort();
    files_above.dedup();
    let [merged] = files_above.as_slice() else { return };
    for disk in &mut views {
        if disk.file == *merged {
            disk.parents.pop();
            disk.file = file.clone();
        } else {
            disk.parents.retain(|parent| parent != merged);
        }
    }
}

/// Brings the disks back to a snapshot: contents, and the sequence of their changes.
pub(super) fn revert(state: &mut State, id: &str) {
    let snapshot = state.snapshots.get(id).expect("the test names a snapshot that exists").clone();
    let machine = state.machines.get_mut(&snapshot.vm).expect("the snapshot's virtual machine exists");
    machine.deltas += 1;
    for disk in machine.disks.iter_mut().filter(|disk| disk.takes_part_in_snapshots()) {
        let Some(frozen) = snapshot.disks.iter().find(|frozen| frozen.number == disk.number) else {
            continue;
        };
        let base = frozen.base().clone();
        let stem = base.path.strip_suffix(".vmdk").unwrap_or(&base.path);
        disk.file = File { path: format!("{stem}-{:06}.vmdk", machine.deltas), ..base.clone() };
        disk.parents = frozen.parents.clone();
        disk.parents.push(frozen.file.clone());
        disk.contents = frozen.contents.clone();
        disk.tracking.clone_from(&frozen.tracking);
        if let Some(tracking) = &mut disk.tracking {
            tracking.advance();
        }
    }
    machine.current = Some(id.to_owned());
}
