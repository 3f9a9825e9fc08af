//! Answers about changed areas that are wrong in one way each.

use keepstone_peers::vcenter::{Allocated, DiskSpec, Lie, VCenter, VmSpec};

use crate::client::{Client, Query, between, page};

const BLOCK: u64 = 64 << 10;
const SIZE: u64 = 16 * BLOCK;

#[test]
fn each_lie_breaks_one_rule() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = vcenter.add_vm("DC0/vm/web", &VmSpec { disks: vec![DiskSpec::of(SIZE)], ..VmSpec::default() });
    let mut client = Client::login(&vcenter);
    let first = client.create_snapshot(vm.id(), "first");
    let change_id = client.change_ids(&first).remove(0);
    vm.disk(0).write(0, b"one");
    vm.disk(0).write(4 * BLOCK, b"two");
    let snapshot = client.create_snapshot(vm.id(), "second");
    let query = Query { snapshot: &snapshot, key: 2000, start: 0, change_id: &change_id };
    let mut told = |lie: Option<Lie>| {
        vm.disk(0).lie(lie);
        page(&client.query(vm.id(), &query))
    };
    let honest = (0, SIZE, vec![(0, BLOCK), (4 * BLOCK, BLOCK)]);
    assert_eq!(told(None), honest);
    assert_eq!(told(Some(Lie::MissingExtent(1))), (0, SIZE, vec![(0, BLOCK)]));
    assert_eq!(told(Some(Lie::OtherStart)), (BLOCK, SIZE, honest.2.clone()));
    assert_eq!(told(Some(Lie::ZeroLength)), (0, 0, honest.2.clone()));
    assert_eq!(told(Some(Lie::BeyondCapacity)), (0, SIZE + 512, vec![(SIZE - 512, 1024)]));
    assert_eq!(told(Some(Lie::Overlapping)), (0, SIZE, vec![(0, 1024), (512, 1024)]));
    assert_eq!(told(Some(Lie::Unsorted)), (0, SIZE, vec![(1024, 512), (0, 512)]));
    assert_eq!(told(Some(Lie::EmptyExtent)), (0, SIZE, vec![(0, 0)]));
    assert_eq!(told(Some(Lie::OutsidePage)), (0, 512, vec![(0, 1024)]));
    assert_eq!(told(Some(Lie::Endless)), (0, 1, Vec::new()));
    assert_eq!(told(None), honest);
    vm.disk(0).lie(Some(Lie::NegativeLength));
    let answer = client.query(vm.id(), &query);
    assert_eq!(between(answer.text(), "<length>", "<"), Some(format!("-{SIZE}").as_str()));
}

#[test]
fn the_allocated_areas_may_be_all_or_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = vcenter.add_vm("DC0/vm/web", &VmSpec { disks: vec![DiskSpec::of(SIZE)], ..VmSpec::default() });
    vm.disk(0).write(BLOCK, b"data");
    let mut client = Client::login(&vcenter);
    let snapshot = client.create_snapshot(vm.id(), "first");
    let query = Query { snapshot: &snapshot, key: 2000, start: 0, change_id: "*" };
    assert_eq!(page(&client.query(vm.id(), &query)), (0, SIZE, vec![(BLOCK, BLOCK)]));
    vcenter.set_allocated(Allocated::Everything);
    assert_eq!(page(&client.query(vm.id(), &query)), (0, SIZE, vec![(0, SIZE)]));
    vcenter.set_allocated(Allocated::Fault);
    assert!(client.query(vm.id(), &query).text().contains("xsi:type=\"FileFault\""));
}
