//! `/folder`.

use super::{MIB, World, read_all, with_disks};
use keepstone_engine::source::ReadPart;
use keepstone_engine::vsphere::{FolderError, NotFlat, Transport, TransportError, VSphereError, VirtualDisk};
use keepstone_peers::vcenter::{DiskKind, DiskSpec, Failure, VmSpec};

fn not_flat(error: &TransportError) -> NotFlat {
    match error {
        TransportError::NotFlat { why, .. } => *why,
        other => panic!("another error: {other:?}"),
    }
}

#[test]
fn a_flat_file_is_read_over_https_in_ranges_of_a_mebibyte() {
    let world = World::with_disks(&[3 * MIB + 512]);
    let frozen = world.freeze();
    let settings = world.only(Transport::Folder);
    let reader = world.reader(&frozen, &settings);
    let (path, refused) = reader.open(&frozen.snapshot.disks[0]).unwrap();
    assert_eq!((path.transport(), refused.len()), (Transport::Folder, 0));
    assert!(read_all(&path) == frozen.contents[0], "other bytes were read");
    let before = world.fake.count("GET /folder");
    let mut all = vec![0; frozen.contents[0].len()];
    path.source().read(&mut [ReadPart { offset: 0, buffer: &mut all }]).unwrap();
    assert!(all == frozen.contents[0], "other bytes were read");
    assert_eq!(world.fake.count("GET /folder") - before, 4);
    path.source().check_unchanged().unwrap();
    path.close(&reader.waiter).unwrap();
    world.end(&frozen);
}

#[test]
fn what_is_not_one_file_of_the_disks_length_is_refused() {
    let sparse = DiskSpec { kind: DiskKind::Sparse, ..DiskSpec::of(MIB) };
    let spec = VmSpec { disks: vec![DiskSpec::of(MIB), sparse], ..VmSpec::default() };
    let world = World::new(&spec, &with_disks(&[]));
    let frozen = world.freeze();
    let settings = world.only(Transport::Folder);
    let reader = world.reader(&frozen, &settings);
    let open = |disk: &VirtualDisk| {
        let checked = reader.check(Transport::Folder, disk).unwrap_err();
        let error = reader.open(disk).unwrap_err();
        assert_eq!(checked.to_string(), error.to_string());
        error
    };
    let disk = &frozen.snapshot.disks[0];
    assert_eq!(not_flat(&open(&frozen.snapshot.disks[1])), NotFlat::OtherFormat);
    // As it is after the snapshot: what changed since, over the file below it.
    assert_eq!(not_flat(&open(&frozen.vm.disks[0])), NotFlat::Delta);
    let mut missing = disk.clone();
    missing.backing.file = Some("[datastore1] web/elsewhere.vmdk".to_owned());
    assert_eq!(not_flat(&open(&missing)), NotFlat::NoSuchFile);
    let mut unnamed = disk.clone();
    unnamed.backing.file = Some("web.iso".to_owned());
    assert_eq!(not_flat(&open(&unnamed)), NotFlat::OtherName);
    unnamed.backing.file = None;
    assert!(matches!(open(&unnamed), TransportError::NoFile { .. }));
    let longer = VirtualDisk { capacity_bytes: MIB + 512, ..disk.clone() };
    let TransportError::OtherSize { found, expected, .. } = open(&longer) else { panic!("another error") };
    assert_eq!((found, expected), (MIB, MIB + 512));
    reader.check(Transport::Folder, disk).unwrap();
    world.end(&frozen);
}

#[test]
fn a_range_that_cannot_be_had_fails_the_read_and_says_which_file() {
    let world = World::with_disks(&[8 * MIB]);
    let frozen = world.freeze();
    let settings = world.only(Transport::Folder);
    let reader = world.reader(&frozen, &settings);
    let (path, _) = reader.open(&frozen.snapshot.disks[0]).unwrap();
    let mut bytes = vec![0; 8 << 20];
    world.fake.fail("GET /folder", 3, Failure::Status(500));
    let error = path.source().read(&mut [ReadPart { offset: 0, buffer: &mut bytes }]).unwrap_err();
    let error = error.get_ref().and_then(|error| error.downcast_ref::<FolderError>());
    let Some(FolderError::Read { file, source }) = error else { panic!("another error: {error:?}") };
    assert_eq!(file, "[datastore1] web/web-flat.vmdk");
    assert!(matches!(source, VSphereError::Status { status: 500, .. }), "{source:?}");
    path.source().read(&mut [ReadPart { offset: 0, buffer: &mut bytes }]).unwrap();
    assert!(bytes == frozen.contents[0], "other bytes were read");
    path.close(&reader.waiter).unwrap();
    world.end(&frozen);
}
