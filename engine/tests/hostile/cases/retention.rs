//! What the retention and pruners write, by somebody who has the retention key as well: tombstones, generations, repack
//! records.

use crate::Case;
use crate::forge::{THIEF, World, thief};
use crate::raw::Raw;
use crate::verbs::Verb;
use repo_format::{
    Barrier, BarrierFact, BlobKind, BlobName, Condemned, Decision, DecisionName, GcResult, Lineage,
    LineageId, LineageStep, PackKind, PackName, PackRef, Pin, Repacked, ReplicaName, SealedKind, SessionId,
    Tombstone, open_signed,
};
use std::collections::BTreeSet;

const REFUSED: &str = "Damaged > BadTag";

pub const CASES: &[Case] = &[
    Case {
        name: "a tombstone, generations, a repack record, a pin and lies about replicas by somebody without the retention key",
        build: || {
            let world = World::new();
            let (decision, packs) = (world.first.name.clone(), live_packs(&world));
            let tombstone = Tombstone { session: decision.session, time: 1, decision: decision.clone() };
            world.forge(SealedKind::Tombstone, &tombstone.name(), &tombstone.encode());
            world.forge(
                SealedKind::Tombstone,
                &tombstone.name(),
                &[tombstone.encode(), vec![0; 64]].concat(),
            );
            let list = Condemned { packs: packs.clone() };
            world.forge(SealedKind::Condemned, &BlobName::condemned(1), &list.encode());
            let result = GcResult { delete: packs, rescued: Vec::new(), covers: 1, earlier: Vec::new() };
            world.forge(SealedKind::GcResult, &BlobName::result(0), &result.encode());
            record(&world, 0xa1, &live_packs(&world)[0], &thiefs_pack(0xa1));
            let name = BlobName::repack(SessionId([0xa1; 16]));
            let content = open_signed(&world.keys, SealedKind::Repack, &name, &world.get(&name)).unwrap();
            world.forge(SealedKind::Repack, &name, &content);
            let pin =
                Pin { session: decision.session, decision, time: 1, pinned: true, reason: String::new() };
            let name = BlobName::pin(pin.decision.vm, pin.session, 0);
            world.forge(SealedKind::Pin, &name, &pin.encode());
            let replica = ReplicaName::new("west").unwrap();
            let (sessions, name) = (vec![(pin.session, thief())], BlobName::barrier(&replica, 0));
            let fact = BarrierFact::Confirmed { sessions };
            let barrier = Barrier { replica, number: 0, time: 1, fact };
            world.forge(SealedKind::Barrier, &name, &barrier.encode());
            let (id, step) = (LineageId([1; 16]), LineageStep::OtherSideGone);
            let lineage =
                Lineage { number: 1, id, time: 1, step, first_generation: 9, set_aside: vec![pin.decision] };
            world.forge(SealedKind::Lineage, &BlobName::lineage(1), &lineage.encode());
            world
        },
        // The snapshot is listed, restored and built on as ever.
        expected: &[
            (Verb::List, "Damaged > BadSignature"),
            (Verb::Verify, UNSIGNED),
            (Verb::VerifyData, UNSIGNED),
            (Verb::After, UNSIGNED),
        ],
    },
    Case {
        name: "a tombstone of the snapshot",
        build: || {
            let world = World::new();
            let decision = world.first.name.clone();
            let tombstone = Tombstone { session: decision.session, time: 1, decision: decision.clone() };
            world.forge_signed(
                SealedKind::Tombstone,
                &BlobName::tombstone(decision.vm, decision.session),
                &tombstone.encode(),
            );
            world
        },
        expected: &[
            (Verb::Show, "NoSuchSnapshot"),
            (Verb::Restore, "NoSuchSnapshot"),
            (Verb::Diff, "NoSuchSnapshot"),
        ],
    },
    Case {
        name: "a tombstone that names another session's decision",
        build: || {
            let world = World::new();
            let name = &world.first.name;
            let raw =
                Raw::new().put(&name.session.0).u64(1).put(&name.vm.0).str8("a-thief").u32(0).put(&THIEF.0);
            world.forge_signed(SealedKind::Tombstone, &BlobName::tombstone(name.vm, name.session), &raw.0);
            world
        },
        expected: &[
            (Verb::List, "Damaged > a decision is named that is another session's"),
            (Verb::Verify, "DamagedTombstone"),
            (Verb::VerifyData, "DamagedTombstone"),
            (Verb::After, "DamagedTombstone"),
        ],
    },
    Case {
        name: "a tombstone of another snapshot under this one's name",
        build: || {
            let world = World::new();
            let decision = DecisionName { session: THIEF, ..world.first.name.clone() };
            let tombstone = Tombstone { session: THIEF, time: 1, decision };
            let name = BlobName::tombstone(world.first.name.vm, world.first.session());
            world.forge_signed(SealedKind::Tombstone, &name, &tombstone.encode());
            world
        },
        expected: TOMBSTONE,
    },
    Case {
        name: "a generation that condemns all live packs",
        build: || {
            let world = World::new();
            let packs = live_packs(&world);
            world.forge_signed(SealedKind::Condemned, &BlobName::condemned(1), &Condemned { packs }.encode());
            world
        },
        expected: &[
            (Verb::Verify, "DamagedGeneration"),
            (Verb::VerifyData, "DamagedGeneration"),
            (Verb::After, "DamagedGeneration"),
        ],
    },
    Case {
        name: "a generation that deletes all live packs, and is sealed",
        build: || {
            let world = World::new();
            let result =
                GcResult { delete: live_packs(&world), rescued: Vec::new(), covers: 1, earlier: Vec::new() };
            world.forge_signed(SealedKind::GcResult, &BlobName::result(u32::MAX), &result.encode());
            world.forge_signed(SealedKind::GenerationSeal, &BlobName::generation_seal(u32::MAX), &[0; 4]);
            world
        },
        expected: &[
            (Verb::Verify, "CondemnedPack, DamagedGeneration"),
            (Verb::VerifyData, "CondemnedPack, DamagedGeneration"),
            (Verb::After, "CondemnedPack, DamagedGeneration"),
        ],
    },
    Case {
        name: "a generation's seal with one byte",
        build: || {
            let world = World::new();
            world.forge_signed(SealedKind::GenerationSeal, &BlobName::generation_seal(1), b"x");
            world
        },
        // Nothing was condemned that it could end.
        expected: &[
            (Verb::Verify, "DamagedGeneration"),
            (Verb::VerifyData, "DamagedGeneration"),
            (Verb::After, "DamagedGeneration"),
        ],
    },
    Case {
        name: "a generation that condemns 2^32-1 groups of packs",
        build: || {
            let world = World::new();
            world.forge_signed(SealedKind::Condemned, &BlobName::condemned(1), &Raw::new().u32(u32::MAX).0);
            world
        },
        expected: &[
            (Verb::Verify, "DamagedGeneration"),
            (Verb::VerifyData, "DamagedGeneration"),
            (Verb::Incremental, "Damaged > Truncated"),
            (Verb::Full, "Damaged > Truncated"),
            (Verb::After, "DamagedGeneration, UndecidedSession"),
        ],
    },
    Case {
        name: "a generation's result in the place of another's",
        build: || {
            let world = World::new();
            let result = GcResult { delete: Vec::new(), rescued: Vec::new(), covers: 1, earlier: Vec::new() };
            world.forge_signed(SealedKind::GcResult, &BlobName::result(1), &result.encode());
            world.put(&BlobName::result(2), &world.get(&BlobName::result(1)));
            world
        },
        expected: &[
            (Verb::Verify, "DamagedGeneration"),
            (Verb::VerifyData, "DamagedGeneration"),
            (Verb::Incremental, REFUSED),
            (Verb::Full, REFUSED),
            (Verb::After, "DamagedGeneration, UndecidedSession"),
        ],
    },
    Case {
        name: "repack records that lead in a circle",
        build: || {
            let world = World::new();
            let (a, b) = (thiefs_pack(0xa1), thiefs_pack(0xa2));
            record(&world, 0xa1, &b, &a);
            record(&world, 0xa2, &a, &b);
            record(&world, 0xa3, &live_packs(&world)[0], &thiefs_pack(0xa3));
            world
        },
        expected: &[
            (Verb::Verify, "MissingDecision, MissingPack"),
            (Verb::VerifyData, "MissingDecision, MissingPack"),
            (Verb::After, "MissingDecision, MissingPack"),
        ],
    },
    Case {
        name: "a repack record that leads from a pack to itself",
        build: || {
            let world = World::new();
            let pack = thiefs_pack(0xa1);
            record(&world, 0xa1, &pack, &pack);
            world
        },
        expected: &[
            (Verb::Verify, "DamagedRepackRecord, MissingDecision"),
            (Verb::VerifyData, "DamagedRepackRecord, MissingDecision"),
            (Verb::Incremental, "Damaged > an old pack is of the repack session itself"),
            (Verb::Full, "Damaged > an old pack is of the repack session itself"),
            (Verb::After, "DamagedRepackRecord, MissingDecision, UndecidedSession"),
        ],
    },
    Case {
        name: "a repack record that leads from a live pack to another session's",
        build: || {
            let world = World::new();
            record(&world, 0xa1, &live_packs(&world)[0], &thiefs_pack(0xa2));
            world
        },
        expected: &[
            (Verb::Verify, "DamagedRepackRecord, MissingDecision"),
            (Verb::VerifyData, "DamagedRepackRecord, MissingDecision"),
            (Verb::Incremental, "Damaged > a new pack is not of the repack session"),
            (Verb::Full, "Damaged > a new pack is not of the repack session"),
            (Verb::After, "DamagedRepackRecord, MissingDecision, UndecidedSession"),
        ],
    },
    Case {
        name: "a repack record that leads from a live pack to one that is not there",
        build: || {
            let world = World::new();
            record(&world, 0xa1, &live_packs(&world)[0], &thiefs_pack(0xa1));
            world
        },
        expected: &[
            (Verb::Verify, "MissingDecision, MissingPack"),
            (Verb::VerifyData, "MissingDecision, MissingPack"),
            (Verb::After, "MissingDecision, MissingPack"),
        ],
    },
    Case {
        name: "a repack record of a session that was not committed",
        build: || {
            let world = World::new();
            record(&world, 0xa1, &live_packs(&world)[0], &thiefs_pack(0xa1));
            let name = record_decision(&world, 0xa1);
            keepstone_engine::BlobStore::delete(&world.store, &name.blob()).unwrap();
            world
        },
        expected: &[],
    },
    Case {
        name: "a repack record of 2^32-1 leads",
        build: || {
            let world = World::new();
            let name = record_decision(&world, 0xa1);
            let raw =
                Raw::new().put(&name.session.0).put(&name.vm.0).str8("a-thief").u32(9).put(&name.session.0);
            world.forge_signed(
                SealedKind::Repack,
                &BlobName::repack(name.session),
                &raw.u32(0).u32(0).u32(u32::MAX).0,
            );
            world
        },
        expected: &[
            (Verb::Verify, "DamagedRepackRecord"),
            (Verb::VerifyData, "DamagedRepackRecord"),
            (Verb::Incremental, "Damaged > Truncated"),
            (Verb::Full, "Damaged > Truncated"),
            (Verb::After, "DamagedRepackRecord, UndecidedSession"),
        ],
    },
];

const UNSIGNED: &str = "MissingDecision, UnsignedObject";

const TOMBSTONE: &[(Verb, &str)] = &[
    (Verb::List, "Damaged > the tombstone is not the one that its name calls for"),
    (Verb::Verify, "DamagedTombstone"),
    (Verb::VerifyData, "DamagedTombstone"),
    (Verb::After, "DamagedTombstone"),
];

/// The data packs of the first snapshot.
fn live_packs(world: &World) -> Vec<PackRef> {
    let pack = |name: &BlobName| match name.kind() {
        Some(BlobKind::Pack(pack)) => Some(pack),
        _ => None,
    };
    let names = world.store.names();
    let packs = names.iter().filter_map(|name| Some((pack(name)?, world.get(name).len())));
    let data = packs.filter(|(pack, _)| pack.kind == PackKind::Data);
    data.map(|(name, len): (PackName, usize)| PackRef { name, len: u32::try_from(len).unwrap() }).collect()
}

/// A pack of a repack session of the thief's, which is not there.
fn thiefs_pack(session: u8) -> PackRef {
    let name =
        PackName { kind: PackKind::Data, writer: thief(), session: SessionId([session; 16]), number: 0 };
    PackRef { name, len: 1000 }
}

fn record_decision(world: &World, session: u8) -> DecisionName {
    let session = SessionId([session; 16]);
    DecisionName { vm: world.keys.vm_tag(""), writer: thief(), seq: 9, session }
}

/// A decided repack record that leads from one pack to another, and says that it applies to the first snapshot.
fn record(world: &World, session: u8, old: &PackRef, new: &PackRef) {
    let name = record_decision(world, session);
    let packs = BTreeSet::from([old, new]);
    let number = |wanted: &PackRef| {
        let place = packs.iter().position(|pack| *pack == wanted).expect("it is in the table");
        u32::try_from(place).expect("there are two at most")
    };
    let raw = Raw::new().put(&name.session.0).put(&name.vm.0).str8("a-thief").u32(9).put(&name.session.0);
    let raw = raw.u32(1).put(&world.first.session().0).u32(u32::try_from(packs.len()).expect("two at most"));
    // Each is of a session of its own, and is a group of its own.
    let raw = packs.iter().fold(raw, |raw, PackRef { name, len }| {
        let raw = raw.u8(name.kind as u8).str8(name.writer.as_str()).put(&name.session.0);
        raw.u32(1).u32(name.number).u32(*len)
    });
    let raw = raw.u32(1).u32(number(old)).u32(1).u32(number(new));
    world.forge_signed(SealedKind::Repack, &BlobName::repack(name.session), &raw.0);
    let repacked = Repacked { session: name.session, time: 1, program: "x".into() };
    world.forge(SealedKind::Decision, &name.blob(), &Decision::Repack(repacked).encode());
}
