//! Disks that are attached to a proxy, whose devices are files that the fake makes.

use super::{MIB, World, at_once, read_all, refused, with_disks};
use keepstone_engine::vsphere::{
    AddController, AttachDisk, AttachMode, MoRef, Quiescing, Reader, TaskState, Transport, TransportError,
    TransportSettings, VirtualDisk, WaitError,
};
use keepstone_peers::vcenter::{ControllerKind, ControllerSpec, DiskMode, DiskSpec, Failure, Fault, VmSpec};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PVSCSI: ControllerSpec = ControllerSpec { kind: ControllerKind::ParaVirtualScsi, bus_sharing: false };

fn base(disk: &VirtualDisk) -> String {
    disk.backing.file.clone().unwrap()
}

/// Attaches a disk as a run does that is killed then.
fn attach_and_die(world: &World, unit_number: i32, file: &str) {
    let proxy = MoRef::new("VirtualMachine", world.proxy.id());
    let disk = AttachDisk {
        controller_key: 1000,
        unit_number,
        file: file.to_owned(),
        mode: AttachMode::Reading,
        new_bytes: None,
    };
    let task = world.vcenter.attach_disk(&proxy, &disk);
    world.waiter(&at_once).task("attach a disk", task).unwrap();
}

#[test]
fn disks_are_attached_read_and_given_back() {
    let world = World::with_disks(&[3 * MIB, MIB + 512]);
    let frozen = world.freeze();
    let reader = world.reader(&frozen, &world.settings);
    let mut paths = Vec::new();
    for disk in &frozen.snapshot.disks {
        reader.check(Transport::HotAdd, disk).unwrap();
        let (path, refused) = reader.open(disk).unwrap();
        assert_eq!((path.transport(), refused.len()), (Transport::HotAdd, 0));
        paths.push(path);
    }
    let files: Vec<String> = frozen.snapshot.disks.iter().map(base).collect();
    assert_eq!(world.proxy.attached(), files);
    for (path, expected) in paths.into_iter().zip(&frozen.contents) {
        assert!(read_all(&path) == *expected, "other bytes were read");
        path.source().check_unchanged().unwrap();
        path.close(&reader.waiter).unwrap();
    }
    assert_eq!(world.proxy.attached(), Vec::<String>::new());
    assert_eq!(fs::read_dir(world.settings.root.join("dev")).unwrap().count(), 1);
    world.end(&frozen);
}

#[test]
fn the_proxy_is_this_machine_or_the_one_that_is_named() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let disk = &frozen.snapshot.disks[0];
    let uuid_file = world.settings.root.join("sys/class/dmi/id/product_uuid");
    let uuid = world.proxy.bios_uuid();
    // The first three groups with their bytes the other way round.
    let digits = uuid.replace('-', "");
    let byte = |position: usize| &digits[position * 2..position * 2 + 2];
    let swapped: String = [3, 2, 1, 0, 5, 4, 7, 6].map(byte).concat() + &digits[16..];
    for own in [uuid.to_uppercase(), swapped] {
        fs::write(&uuid_file, own).unwrap();
        world.reader(&frozen, &world.settings).check(Transport::HotAdd, disk).unwrap();
    }

    fs::write(&uuid_file, "11111111-2222-3333-4444-555555555555\n").unwrap();
    let error = world.reader(&frozen, &world.settings).check(Transport::HotAdd, disk).unwrap_err();
    assert!(matches!(error, TransportError::NotAVm { .. }), "{error:?}");
    assert_eq!(world.leftovers(&frozen).unwrap(), 0);
    fs::remove_file(&uuid_file).unwrap();
    let error = world.reader(&frozen, &world.settings).check(Transport::HotAdd, disk).unwrap_err();
    assert!(matches!(error, TransportError::OwnUuid { .. }), "{error:?}");
    assert_eq!(world.leftovers(&frozen).unwrap(), 0);

    let named =
        |name: &str| TransportSettings { proxy_vm: Some(name.parse().unwrap()), ..world.settings.clone() };
    for name in ["DC0/vm/backup/proxy", "backup/proxy", &uuid, &world.proxy.instance_uuid()] {
        world.reader(&frozen, &named(name)).check(Transport::HotAdd, disk).unwrap();
    }
    let nowhere = named("proxy");
    let error = world.reader(&frozen, &nowhere).check(Transport::HotAdd, disk).unwrap_err();
    assert_eq!(error.to_string(), "there is no virtual machine proxy to attach disks to");
    let error = Reader::detach_leftovers(&world.waiter(&at_once), &frozen.vm, &nowhere).unwrap_err();
    assert!(matches!(error, TransportError::NoSuchProxy { .. }), "{error:?}");
    world.end(&frozen);
}

#[test]
fn a_proxy_that_must_not_get_the_disk_is_refused_and_the_file_read_instead() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let disk = &frozen.snapshot.disks[0];
    let itself = TransportSettings { proxy_vm: Some("web".parse().unwrap()), ..world.settings.clone() };
    let (path, tried) = world.reader(&frozen, &itself).open(disk).unwrap();
    assert_eq!((path.transport(), refused(&tried)), (Transport::Folder, vec![Transport::HotAdd]));
    assert_eq!(tried[0].1.to_string(), "web cannot attach its own disks");
    assert!(read_all(&path) == frozen.contents[0], "other bytes were read");

    world.proxy.create_foreign_snapshot("before the upgrade");
    let settings = world.only(Transport::HotAdd);
    let error = world.reader(&frozen, &settings).open(disk).unwrap_err();
    let expected = "no disk can be attached to proxy, which has snapshots: before the upgrade";
    assert_eq!(error.to_string(), expected);
    assert_eq!(world.fake.count("ReconfigVM_Task"), 0);
    world.end(&frozen);
}

#[test]
fn a_device_that_comes_late_is_waited_for() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    world.fake.hold_devices();
    let pauses = AtomicU32::new(0);
    let pause = |_| {
        if pauses.fetch_add(1, Ordering::Relaxed) == 6 {
            world.fake.show_devices();
        }
        ControlFlow::Continue(())
    };
    let waiter = world.waiter(&pause);
    let reader = Reader { waiter, ..world.reader(&frozen, &world.settings) };
    let (path, refused) = reader.open(&frozen.snapshot.disks[0]).unwrap();
    assert_eq!((path.transport(), refused.len()), (Transport::HotAdd, 0));
    assert!(pauses.load(Ordering::Relaxed) >= 6, "it did not come late");
    assert!(read_all(&path) == frozen.contents[0], "other bytes were read");
    path.close(&reader.waiter).unwrap();
    world.end(&frozen);
}

#[test]
fn a_device_that_never_comes_is_detached_and_told() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    world.fake.hold_devices();
    let settings = world.only(Transport::HotAdd);
    let error = world.reader(&frozen, &settings).open(&frozen.snapshot.disks[0]).unwrap_err();
    let TransportError::DeviceMissing { proxy, file, after, rescan } = error else {
        panic!("another error: {error:?}")
    };
    assert_eq!((proxy.as_str(), file), ("proxy", base(&frozen.snapshot.disks[0])));
    assert!((120..600).contains(&after.as_secs()), "{after:?}");
    // This machine has no directory of hosts.
    assert_eq!(rescan, Some(std::io::ErrorKind::NotFound));
    assert_eq!(world.proxy.attached(), Vec::<String>::new());
    world.end(&frozen);
}

#[test]
fn a_device_without_an_id_is_known_by_its_length_unless_two_have_it() {
    let world = World::new(&with_disks(&[MIB]), &with_disks(&[]));
    world.fake.set_wwid_files(false);
    let frozen = world.freeze();
    let settings = world.only(Transport::HotAdd);
    let reader = world.reader(&frozen, &settings);
    let (path, _) = reader.open(&frozen.snapshot.disks[0]).unwrap();
    assert!(read_all(&path) == frozen.contents[0], "other bytes were read");
    path.close(&reader.waiter).unwrap();

    let root = world.settings.root.clone();
    world.fake.at("ReconfigVM_Task", 1, move || make_device(&root, "sdx", MIB));
    let error = reader.open(&frozen.snapshot.disks[0]).unwrap_err();
    let TransportError::SeveralDevices { devices, .. } = error else { panic!("another error: {error:?}") };
    assert_eq!(devices, ["sda", "sdx"]);
    assert_eq!(world.proxy.attached(), Vec::<String>::new());
    world.end(&frozen);
}

/// A device that is nothing of the fake's.
fn make_device(root: &Path, name: &str, size: u64) {
    let block: PathBuf = root.join("sys/block").join(name);
    fs::create_dir_all(block.join("device")).unwrap();
    fs::write(block.join("size"), format!("{}\n", size / 512)).unwrap();
    fs::write(root.join("dev").join(name), vec![0x55; usize::try_from(size).unwrap()]).unwrap();
}

#[test]
fn a_full_controller_gives_way_to_another_one_and_only_if_allowed_to_a_new_one() {
    let full: Vec<DiskSpec> = (0..15).map(|_| DiskSpec::of(512)).collect();
    let two = VmSpec { disks: full.clone(), controllers: vec![PVSCSI, PVSCSI], ..VmSpec::default() };
    let world = World::new(&with_disks(&[MIB]), &two);
    let frozen = world.freeze();
    let settings = world.only(Transport::HotAdd);
    let reader = world.reader(&frozen, &settings);
    let (path, _) = reader.open(&frozen.snapshot.disks[0]).unwrap();
    assert!(read_all(&path) == frozen.contents[0], "other bytes were read");
    path.close(&reader.waiter).unwrap();
    world.end(&frozen);

    let world = World::new(&with_disks(&[MIB]), &VmSpec { disks: full, ..VmSpec::default() });
    let frozen = world.freeze();
    let settings = world.only(Transport::HotAdd);
    let error = world.reader(&frozen, &settings).open(&frozen.snapshot.disks[0]).unwrap_err();
    assert!(matches!(error, TransportError::NoFreeUnit { .. }), "{error:?}");
    assert_eq!(world.fake.count("ReconfigVM_Task"), 0);
    let settings = TransportSettings { add_controller: AddController::IfNeeded, ..settings };
    let reader = world.reader(&frozen, &settings);
    reader.check(Transport::HotAdd, &frozen.snapshot.disks[0]).unwrap();
    assert_eq!(world.fake.count("ReconfigVM_Task"), 0);
    let (path, _) = reader.open(&frozen.snapshot.disks[0]).unwrap();
    assert!(read_all(&path) == frozen.contents[0], "other bytes were read");
    path.close(&reader.waiter).unwrap();
    world.end(&frozen);
}

#[test]
fn a_place_that_another_disk_takes_meanwhile_is_left_to_it() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let proxy = world.proxy.clone();
    world.fake.at("ReconfigVM_Task", 1, move || {
        let _ours = proxy.add_disk(&DiskSpec { unit: Some(1), ..DiskSpec::of(MIB) });
    });
    let settings = world.only(Transport::HotAdd);
    let reader = world.reader(&frozen, &settings);
    let (path, _) = reader.open(&frozen.snapshot.disks[0]).unwrap();
    assert_eq!(world.fake.count("ReconfigVM_Task"), 2);
    assert!(read_all(&path) == frozen.contents[0], "other bytes were read");
    path.close(&reader.waiter).unwrap();
    world.end(&frozen);
}

#[test]
fn a_disk_that_was_attached_without_an_answer_is_detached() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    // Nobody knows which of the proxy's tasks it is, so all are waited for.
    world.proxy.start_other_task(20);
    world.fake.fail("ReconfigVM_Task", 1, Failure::AnswerLost);
    let settings = world.only(Transport::HotAdd);
    let error = world.reader(&frozen, &settings).open(&frozen.snapshot.disks[0]).unwrap_err();
    assert!(matches!(error, TransportError::Waiting(WaitError::Asking { .. })), "{error:?}");
    assert_eq!(world.fake.count("ReconfigVM_Task"), 2);
    assert_eq!(world.proxy.attached(), Vec::<String>::new());
    let proxy = MoRef::new("VirtualMachine", world.proxy.id());
    for task in world.vcenter.recent_tasks(&proxy).unwrap() {
        let state = world.vcenter.task(&task).unwrap();
        assert!(matches!(state, TaskState::Success { .. }), "{state:?}");
    }
    world.end(&frozen);
}

#[test]
fn who_wants_to_stop_while_a_device_is_awaited_leaves_nothing_attached() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    world.fake.hold_devices();
    let pauses = AtomicU32::new(0);
    for stop_at in 0..6 {
        pauses.store(0, Ordering::Relaxed);
        let pause = |_| match pauses.fetch_add(1, Ordering::Relaxed) {
            count if count == stop_at => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let waiter = world.waiter(&pause);
        let reader = Reader { waiter, ..world.reader(&frozen, &world.settings) };
        let error = reader.open(&frozen.snapshot.disks[0]).unwrap_err();
        assert!(matches!(error, TransportError::Waiting(WaitError::Interrupted { .. })), "{error:?}");
        assert_eq!(world.proxy.attached(), Vec::<String>::new(), "stopped at pause {stop_at}");
    }
    // No other way was tried then.
    assert_eq!(world.fake.count("GET /folder"), 0);
    world.end(&frozen);
}

#[test]
fn a_disk_that_cannot_be_detached_is_told_and_detached_later() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let reader = world.reader(&frozen, &world.settings);
    let (path, _) = reader.open(&frozen.snapshot.disks[0]).unwrap();
    let fault = Fault::new("GenericVmConfigFault", "The device is in use.");
    world.fake.fail("ReconfigVM_Task", 1, Failure::Task(fault.clone()));
    let error = path.close(&reader.waiter).unwrap_err();
    let file = base(&frozen.snapshot.disks[0]);
    assert_eq!(error.to_string(), format!("{file} may still be attached to proxy"));
    assert_eq!(world.proxy.attached(), [file]);

    // Nor can it be detached after a failure: then nothing else is tried.
    world.leftovers(&frozen).unwrap();
    world.fake.hold_devices();
    world.fake.fail("ReconfigVM_Task", 2, Failure::Task(fault));
    let error = reader.open(&frozen.snapshot.disks[0]).unwrap_err();
    let TransportError::StillAttached { after: Some(after), .. } = &error else {
        panic!("another error: {error:?}")
    };
    assert!(matches!(**after, TransportError::DeviceMissing { .. }), "{after:?}");
    assert_eq!(world.fake.count("GET /folder"), 0);
    assert_eq!(world.leftovers(&frozen).unwrap(), 1);
    assert_eq!(world.proxy.attached(), Vec::<String>::new());
    world.end(&frozen);
}

#[test]
fn only_what_a_killed_run_left_of_this_vm_is_detached() {
    let own = DiskSpec { mode: DiskMode::IndependentNonpersistent, ..DiskSpec::of(MIB) };
    let proxy = VmSpec { disks: vec![DiskSpec::of(MIB), own], ..VmSpec::default() };
    let world = World::new(&with_disks(&[MIB, 2 * MIB]), &proxy);
    let frozen = world.freeze();
    let other = world.fake.add_vm("DC0/vm/other", &with_disks(&[MIB]));
    let other_file = other.disk(0).file();
    let other_vm = MoRef::new("VirtualMachine", other.id());
    let task = world.vcenter.create_snapshot(&other_vm, "another run's", "", Quiescing::None);
    let other_snapshot = world.waiter(&at_once).task("create a snapshot", task).unwrap().unwrap();

    let files: Vec<String> = frozen.snapshot.disks.iter().map(base).collect();
    attach_and_die(&world, 4, &files[0]);
    attach_and_die(&world, 5, &other_file);
    attach_and_die(&world, 6, &files[1]);
    assert_eq!(world.leftovers(&frozen).unwrap(), 2);
    assert_eq!(world.proxy.attached(), [other_file]);
    assert_eq!(world.leftovers(&frozen).unwrap(), 0);
    let proxy = world.vcenter.vm(&MoRef::new("VirtualMachine", world.proxy.id())).unwrap();
    assert_eq!(proxy.disks.len(), 3);

    let other = world.vcenter.vm(&other_vm).unwrap();
    let waiter = world.waiter(&at_once);
    assert_eq!(Reader::detach_leftovers(&waiter, &other, &world.settings).unwrap(), 1);
    waiter.task("remove the snapshot", world.vcenter.remove_snapshot(&other_snapshot)).unwrap();
    world.end(&frozen);
}
