//! Changed-block tracking: what is answered is what changed.

use keepstone_peers::vcenter::{DiskSpec, VCenter, Violation, Vm, VmSpec};

use crate::client::{Client, Page, Query, page};

const BLOCK: u64 = 64 << 10;
const BLOCK_LEN: usize = 64 << 10;

/// A generator of numbers (`SplitMix64`), so that a history is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }
}

fn machine(vcenter: &VCenter, size: u64) -> Vm {
    vcenter.add_vm("DC0/vm/web", &VmSpec { disks: vec![DiskSpec::of(size)], ..VmSpec::default() })
}

/// Asks until the capacity is reached.
fn changed(client: &mut Client, vm: &Vm, snapshot: &str, change_id: &str) -> Vec<(u64, u64)> {
    let (size, key) = (vm.disk(0).size(), vm.disk(0).key());
    let (mut start, mut areas) = (0, Vec::new());
    while start < size {
        let answer = client.query(vm.id(), &Query { snapshot, key, start, change_id });
        let (answered, length, more) = page(&answer);
        assert_eq!(answered, start);
        assert!(length > 0);
        areas.extend(more);
        start += length;
    }
    assert_eq!(start, size);
    areas
}

/// Reads the base of a snapshot's disk, as `/folder` gives it.
fn flat(client: &mut Client) -> (u16, Vec<u8>) {
    let target = "/folder/web/web-flat.vmdk?dcPath=DC0&dsName=datastore1";
    let answer = client.send("GET", target, &[], "").unwrap();
    (answer.status, answer.body)
}

/// A moment that a snapshot froze.
struct Moment {
    change_id: String,
    contents: Vec<u8>,
    /// Which blocks were written since.
    written: Vec<bool>,
}

/// A virtual machine with one disk, and every moment of it so far.
struct History {
    vm: Vm,
    size: usize,
    moments: Vec<Moment>,
    numbers: Numbers,
}

impl History {
    fn write_at_random(&mut self) {
        let offset = self.numbers.below(self.size);
        let len = (1 + self.numbers.below(3 * BLOCK_LEN)).min(self.size - offset);
        match self.numbers.below(4) {
            0 => self.vm.disk(0).discard(offset as u64, len as u64),
            fill => self.vm.disk(0).write(offset as u64, &vec![u8::try_from(fill).unwrap(); len]),
        }
        self.note(offset, len);
    }

    fn note(&mut self, offset: usize, len: usize) {
        for moment in &mut self.moments {
            moment.written[offset / BLOCK_LEN..=(offset + len - 1) / BLOCK_LEN].fill(true);
        }
    }

    /// Compares the answer about a moment with what was written, and with the contents.
    fn check(&self, client: &mut Client, snapshot: &str, moment: &Moment, frozen: &[u8]) {
        let mut covered = vec![false; self.size];
        for (start, len) in changed(client, &self.vm, snapshot, &moment.change_id) {
            let (start, len) = (usize::try_from(start).unwrap(), usize::try_from(len).unwrap());
            covered[start..start + len].fill(true);
        }
        for (block, written) in moment.written.iter().enumerate() {
            let range = block * BLOCK_LEN..((block + 1) * BLOCK_LEN).min(self.size);
            let differs = moment.contents[range.clone()] != frozen[range.clone()];
            assert!(covered[range.clone()].iter().all(|covered| covered == written), "block {block}");
            assert!(*written || !differs, "block {block} changed without a write");
        }
    }
}

#[test]
fn answers_are_what_was_written_in_random_histories_and_hold_every_change() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        let vcenter = VCenter::start(directory.path());
        let size = 40 * BLOCK_LEN + 512 * (1 + seed);
        let vm = machine(&vcenter, size as u64);
        let mut client = Client::login(&vcenter);
        let mut history =
            History { vm: vm.clone(), size, moments: Vec::new(), numbers: Numbers(seed as u64) };
        vcenter.set_extents_max(1 + history.numbers.below(5));
        for round in 0..6 {
            (0..history.numbers.below(6)).for_each(|_| history.write_at_random());
            let snapshot = client.create_snapshot(vm.id(), &format!("round {round}"));
            let frozen = vm.disk(0).bytes();
            // A write after the snapshot is in neither its contents nor its areas.
            vm.disk(0).write(0, &[round; 512]);
            assert_eq!(flat(&mut client), (200, frozen.clone()));
            for moment in &history.moments {
                history.check(&mut client, &snapshot, moment, &frozen);
            }
            let change_id = client.change_ids(&snapshot).remove(0);
            let written = vec![false; size.div_ceil(BLOCK_LEN)];
            history.moments.push(Moment { change_id, contents: frozen, written });
            history.note(0, 512);
            client.remove_snapshot(&snapshot);
        }
        client.ok("Logout", "SessionManager", "SessionManager", "");
        assert_eq!(vcenter.violations(), []);
    }
}

#[test]
fn a_page_ends_with_its_last_extent_and_the_last_page_at_the_capacity() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter, 62 << 40);
    let mut client = Client::login(&vcenter);
    let first = client.create_snapshot(vm.id(), "first");
    let since = client.change_ids(&first).remove(0);
    (0..2001).for_each(|number| vm.disk(0).write(number * 2 * BLOCK, b"changed"));
    let second = client.create_snapshot(vm.id(), "second");
    let query = Query { snapshot: &second, key: 2000, start: 0, change_id: &since };
    let (start, length, areas) = page(&client.query(vm.id(), &query));
    assert_eq!((start, length, areas.len()), (0, 3999 * BLOCK, 2000));
    let query = Query { start: 3999 * BLOCK, ..query };
    let rest: Page = page(&client.query(vm.id(), &query));
    assert_eq!(rest, (3999 * BLOCK, (62 << 40) - 3999 * BLOCK, vec![(4000 * BLOCK, BLOCK)]));
}

#[test]
fn impossible_questions_are_invalid_arguments_and_other_epochs_file_faults() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter, 4 * BLOCK);
    let mut client = Client::login(&vcenter);
    let first = client.create_snapshot(vm.id(), "first");
    let since = client.change_ids(&first).remove(0);
    let mut fault = |query: &Query<'_>| {
        let answer = client.query(vm.id(), query);
        assert_eq!(answer.status, 500);
        answer.text().split("xsi:type=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let query = Query { snapshot: &first, key: 2000, start: 0, change_id: &since };
    assert_eq!(fault(&Query { start: 4 * BLOCK, ..query.clone() }), "InvalidArgument");
    assert_eq!(fault(&Query { key: 2001, ..query.clone() }), "InvalidArgument");
    assert_eq!(fault(&Query { change_id: "nonsense", ..query.clone() }), "InvalidArgument");
    let later = since.replace("/1", "/9");
    assert_eq!(fault(&Query { change_id: &later, ..query.clone() }), "FileFault");
    vm.disk(0).reset_tracking();
    vm.remove_snapshot("first");
    assert_eq!(fault(&query), "ManagedObjectNotFound");
    assert!(
        vcenter.violations().contains(&Violation::RemovedSnapshotQueried { snapshot: "first".to_owned() })
    );
    let second = client.create_snapshot(vm.id(), "second");
    let answer = client.query(vm.id(), &Query { snapshot: &second, ..query });
    assert!(answer.text().contains("xsi:type=\"FileFault\""), "{}", answer.text());
}
