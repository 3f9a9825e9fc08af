//! A whole repository beside plain bytes: random operations, faults and damage, and after each of them the repository
//! must agree with the bytes.
//!
//! An input is a list of operations, each a byte that chooses one and the bytes of its arguments.

mod agreement;
mod disks;
mod world;

use crate::fields::Fields;
use world::World;

/// Operations of one input; more would only make each run longer.
const OPERATIONS_MAX: usize = 24;

/// Does what the input says, and compares after each step. Tells whether anything was backed up.
pub fn model(data: &[u8]) -> bool {
    let mut fields = Fields::new(data);
    let mut world = World::new();
    for _ in 0..OPERATIONS_MAX {
        if fields.rest.is_empty() {
            break;
        }
        match fields.u8() % 16 {
            0..=2 => world.write(&mut fields),
            3 => world.zero(&mut fields),
            4 => world.resize(&mut fields),
            5..=8 => world.back_up(&mut fields),
            9 => world.back_up_with_a_fault(&mut fields),
            10 => world.apply_late(&mut fields),
            11 => world.damage(&mut fields),
            12 => world.compare_two(&mut fields),
            13 => world.add_key(),
            14 => world.remove_key(&mut fields),
            _ => world.forget(&mut fields),
        }
    }
    world.agrees();
    world.has_snapshots()
}

/// Inputs that come deep at once: histories of both VMs, with faults, damage and forgetting.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let write = |disk: u8, start: u16, len: u16, seed: u8| {
        let mut operation = vec![0, disk];
        operation.extend(start.to_le_bytes());
        operation.extend(len.to_le_bytes());
        operation.push(seed);
        operation
    };
    let full = |vm: u8| vec![5, vm, 1];
    let incremental = |vm: u8| vec![5, vm, 0];
    let history = [write(0, 0, 40_000, 1), full(0), write(0, 9000, 700, 2), incremental(0)].concat();
    let two = [write(2, 0, 30_000, 1), vec![5, 1, 0], write(2, 100, 9000, 7), vec![6, 1, 2]].concat();
    let faults = |kind: u8| {
        let fault = |call: u8| vec![9, 0, 0, call, kind, 2];
        let late = vec![10, 0];
        [
            write(0, 500, 90, 3),
            fault(12),
            incremental(0),
            write(1, 0, 5000, 4),
            fault(20),
            late,
            incremental(0),
        ]
        .concat()
    };
    let damage =
        |kind: u8| [vec![11, 3, 0, kind, 40, 0], full(0), vec![11, 9, 0, kind, 3, 1], full(1)].concat();
    let resize =
        [vec![4, 0, 0x10, 0x90], incremental(0), vec![3, 0, 0, 0x20, 0, 0x30], incremental(0)].concat();
    let rest = [vec![13, 14, 1, 13, 14, 0], vec![15, 0], incremental(0), vec![12, 0, 1]].concat();
    let mut seeds = vec![
        history.clone(),
        [history.clone(), two.clone(), resize, rest.clone()].concat(),
        [two.clone(), history.clone(), damage(2), rest].concat(),
    ];
    seeds.extend((0..6).map(|kind| [history.clone(), faults(kind)].concat()));
    seeds.extend((0..3).map(|kind| [history.clone(), two.clone(), damage(kind)].concat()));
    seeds
}
