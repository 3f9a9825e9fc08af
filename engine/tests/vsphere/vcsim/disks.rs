//! Snapshots, what changed between them, and what they hold.

use keepstone_engine::Extent;
use keepstone_engine::vsphere::changes::{ChangeId, CurrentDisk, Doubt, RecordedDisk, Tracking, plan_read};
use keepstone_engine::vsphere::{
    AttachDisk, AttachMode, ControllerKind, FaultKind, VSphereError, VmSnapshot,
};
use keepstone_peers::vcsim::Layout;

use super::{MIB, World, change_id, flat, place};

const KIB: u64 = 1 << 10;

/// What tracking of this granularity says of ranges that were written.
fn tracked(written: &[(u64, u64)], granularity: u64) -> Vec<Extent> {
    let mut blocks: Vec<u64> = written
        .iter()
        .flat_map(|(offset, length)| offset / granularity..(offset + length).div_ceil(granularity))
        .collect();
    blocks.sort_unstable();
    blocks.dedup();
    let runs = blocks.chunk_by(|left, right| left + 1 == *right);
    let extents =
        runs.map(|run| Extent { start: run[0] * granularity, length: run.len() as u64 * granularity });
    extents.collect()
}

fn part(contents: &[u8], extent: Extent) -> &[u8] {
    &contents[usize::try_from(extent.start).unwrap()..usize::try_from(extent.start + extent.length).unwrap()]
}

#[test]
fn a_snapshot_is_made_with_its_change_ids_and_removed_without_a_trace() {
    let world = World::new(&Layout::of(&[("web", &[MIB, 3 * MIB])]));
    let untracked = world.snapshot();
    assert_eq!(untracked.disks.iter().find_map(|disk| disk.backing.change_id.clone()), None);
    world.remove(&untracked);

    world.finish(&world.vcenter.enable_change_tracking(&world.vm).unwrap());
    let before = world.vcsim.machine("web");
    let first = world.snapshot();
    assert_eq!(
        first.disks.iter().map(|disk| (disk.key, disk.address(&first.controllers))).collect::<Vec<_>>(),
        [(2000, Some("scsi0:0".to_owned())), (2001, Some("scsi0:1".to_owned()))]
    );
    let files: Vec<_> = first.disks.iter().map(|disk| disk.backing.file.as_deref().unwrap()).collect();
    assert_eq!(files, ["[LocalDS_0] web/web.vmdk", "[LocalDS_0] web/web_1.vmdk"]);
    let named = &world.vcsim.machine("web").snapshots[0];
    assert_eq!((named.name.as_str(), named.quiesced), ("keepstone", false));
    world.remove(&first);
    let second = world.snapshot();
    world.remove(&second);
    assert_eq!(
        (change_id(&first).sequence(), change_id(&second).sequence(), change_id(&second).epoch()),
        (1, 2, change_id(&first).epoch())
    );

    let mut after = world.vcsim.machine("web");
    for disk in &mut after.disks {
        disk.change_id = String::new();
    }
    assert_eq!(after, before);
}

#[test]
fn changes_of_several_pages_are_what_was_written() {
    let page_extents = 7;
    let layout = Layout { page_extents, granularity: 4096, ..Layout::of(&[("web", &[8 * MIB])]) };
    let world = World::with_tracking(&layout);
    let first = world.snapshot();
    let written: Vec<(u64, u64)> = (0..60).map(|n| (n * 127 * KIB + n * 512, 512 + n * 97)).collect();
    for (seed, (offset, length)) in (0..).zip(&written) {
        world.vcsim.write("web", "scsi0:0", *offset, *length, Some(seed));
    }
    world.remove(&first);
    let second = world.snapshot();
    // After the snapshot, so not a part of it.
    world.vcsim.write("web", "scsi0:0", 8 * MIB - 512, 512, Some(99));

    let expected = tracked(&written, 4096);
    assert!(expected.len() > 50, "{expected:?}");
    assert_eq!(world.changed(&second, &change_id(&first)), Ok(expected.clone()));
    assert_eq!(world.changed(&second, &change_id(&second)), Ok(vec![]));

    let since = change_id(&first);
    let page = |offset| {
        world.vcenter.query_changed_areas(&world.vm, &second.snapshot, 2000, offset, since.as_str()).unwrap()
    };
    let (mut offset, mut pages) = (0, 0);
    while offset < 8 * MIB {
        let page = page(offset);
        assert!(page.areas.len() <= 7, "{page:?}");
        offset += u64::try_from(page.length).unwrap();
        pages += 1;
    }
    assert_eq!(pages, expected.len().div_ceil(7));
}

#[test]
fn more_changes_than_a_page_of_a_real_host_holds_are_all_told() {
    let world = World::with_tracking(&Layout::of(&[("web", &[300 * MIB])]));
    let first = world.snapshot();
    let written: Vec<(u64, u64)> = (0..2100).map(|n| (n * 128 * KIB, 1)).collect();
    for (offset, length) in &written {
        world.vcsim.write("web", "scsi0:0", *offset, *length, None);
    }
    world.remove(&first);
    let second = world.snapshot();
    assert_eq!(world.changed(&second, &change_id(&first)), Ok(tracked(&written, 64 * KIB)));
}

#[test]
fn questions_that_tracking_cannot_answer_are_refused_with_the_reason() {
    let world = World::with_tracking(&Layout::of(&[("web", &[MIB])]));
    let first = world.snapshot();
    world.remove(&first);
    world.vcsim.reset_tracking("web");
    let second = world.snapshot();
    let query = |offset, since: &str| {
        world.vcenter.query_changed_areas(&world.vm, &second.snapshot, 2000, offset, since).unwrap_err()
    };
    let now = change_id(&second);
    let refused = |error: VSphereError| error.fault().cloned().unwrap();
    let past_the_end = FaultKind::InvalidArgument { property: Some("startOffset".to_owned()) };
    assert_eq!(refused(query(MIB, now.as_str())), past_the_end);
    let nonsense = FaultKind::InvalidArgument { property: Some("changeId".to_owned()) };
    assert_eq!(refused(query(0, "nonsense")), nonsense);
    let file = second.disks[0].backing.file.clone();
    let other_epoch = FaultKind::File { name: "FileFault".to_owned(), file };
    assert_eq!(refused(query(0, change_id(&first).as_str())), other_epoch);
    let doubt = world.changed(&second, &change_id(&first)).unwrap_err();
    assert!(matches!(&doubt, Doubt::Refused { fault, .. } if fault == "FileFault"), "{doubt:?}");

    // Before it is asked, the change ids tell.
    let recorded = |snapshot: &VmSnapshot| RecordedDisk {
        size: MIB,
        change_id: Some(change_id(snapshot).to_string()),
        disk_uuid: None,
        host_build: None,
    };
    let current = CurrentDisk {
        size: MIB,
        change_id: Some(now.to_string()),
        disk_uuid: None,
        host_build: None,
        tracking: Tracking::On,
    };
    assert_eq!(plan_read(&recorded(&first), &current), Err(Doubt::TrackingReset));
}

#[test]
fn a_chain_of_snapshots_read_by_its_changes_stays_the_same_as_the_disk() {
    let world = World::with_tracking(&Layout { granularity: 4096, ..Layout::of(&[("web", &[2 * MIB])]) });
    let whole = Extent { start: 0, length: 2 * MIB };
    let mut before: Option<(ChangeId, Vec<u8>)> = None;
    for round in 0..6_u64 {
        let frozen = world.vcsim.contents("web", "scsi0:0");
        let snapshot = world.snapshot();
        let now = change_id(&snapshot);
        for n in 0..5 {
            let offset = (round * 5 + n) * 7919 * 11 % (2 * MIB - 70_000);
            let seed = (n > 0).then_some(round * 10 + n);
            world.vcsim.write("web", "scsi0:0", offset, 1 + n * 17_000, seed);
        }
        let areas = match &before {
            None => vec![whole],
            Some((since, _)) => world.changed(&snapshot, since).unwrap(),
        };
        assert_eq!(areas == [whole], before.is_none());
        let mut copy = before.map_or_else(|| vec![0; frozen.len()], |(_, copy)| copy);
        for area in areas {
            let bytes = world.read(&snapshot.disks[0], area).unwrap();
            let start = usize::try_from(area.start).unwrap();
            copy[start..start + bytes.len()].copy_from_slice(&bytes);
        }
        assert!(copy == frozen, "round {round}");
        assert!(copy != world.vcsim.contents("web", "scsi0:0"), "round {round}");
        world.remove(&snapshot);
        before = Some((now, copy));
    }
}

#[test]
fn ranges_are_read_of_a_base_disk_and_there_is_no_file_of_a_delta_disk() {
    let world = World::new(&Layout::of(&[("web", &[MIB])]));
    let contents = world.vcsim.contents("web", "scsi0:0");
    let first = world.snapshot();
    world.vcsim.write("web", "scsi0:0", 0, MIB, None);
    for (start, length) in [(0, 1), (0, MIB), (511, 1026), (MIB - 1, 1), (64 * KIB, 64 * KIB)] {
        let extent = Extent { start, length };
        assert_eq!(world.read(&first.disks[0], extent).unwrap(), part(&contents, extent), "{extent:?}");
    }
    let datacenter = world.vcenter.datacenter_of(&world.vm).unwrap();
    assert_eq!(world.vcenter.folder_file_len(&datacenter, &flat(&first.disks[0])).unwrap(), MIB);

    let past_the_end = world.read(&first.disks[0], Extent { start: MIB, length: 1 }).unwrap_err();
    assert!(matches!(past_the_end, VSphereError::Status { status: 416, .. }), "{past_the_end:?}");
    let second = world.snapshot();
    let missing = world.read(&second.disks[0], Extent { start: 0, length: 1 }).unwrap_err();
    assert!(matches!(missing, VSphereError::Status { status: 404, .. }), "{missing:?}");
}

#[test]
fn a_disk_of_a_snapshot_is_attached_to_another_machine_and_detached_without_harm() {
    let world = World::new(&Layout::of(&[("web", &[MIB]), ("proxy", &[MIB])]));
    let proxy = world.vcenter.find_vm(&place("DC0/vm/proxy")).unwrap();
    let before = (world.vcsim.machine("proxy").disks, world.vcsim.contents("web", "scsi0:0"));
    let snapshot = world.snapshot();
    let file = snapshot.disks[0].backing.file.clone().unwrap();

    world.finish(&world.vcenter.add_scsi_controller(&proxy, 1).unwrap());
    let info = world.vcenter.vm(&proxy).unwrap();
    let controller = info
        .controllers
        .iter()
        .find(|controller| controller.bus_number == 1 && controller.kind == ControllerKind::ParaVirtualScsi)
        .unwrap();
    let disk = AttachDisk {
        controller_key: controller.key,
        unit_number: 3,
        file: file.clone(),
        mode: AttachMode::Reading,
        new_bytes: None,
    };
    world.finish(&world.vcenter.attach_disk(&proxy, &disk).unwrap());

    let info = world.vcenter.vm(&proxy).unwrap();
    let attached =
        info.disks.iter().find(|disk| disk.address(&info.controllers).as_deref() == Some("scsi1:3")).unwrap();
    assert_eq!((attached.backing.file.as_ref(), attached.backing.is_independent()), (Some(&file), true));
    world.finish(&world.vcenter.detach_disk(&proxy, attached.key).unwrap());
    world.remove(&snapshot);
    assert_eq!((world.vcsim.machine("proxy").disks, world.vcsim.contents("web", "scsi0:0")), before);
}
