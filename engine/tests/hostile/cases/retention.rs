//! What a pruner writes, and is not signed yet: tombstones, generations, repack records.

use crate::Case;
use crate::forge::{RawCommit, THIEF, World, thief};
use crate::raw::Raw;
use crate::verbs::Verb;
use repo_format::{
    BlobKind, BlobName, Codec, Condemned, DecisionName, GcResult, PackName, PackRef, SealedKind, SessionId,
    Tombstone,
};

const REFUSED: &str = "Damaged > BadTag";

pub const CASES: &[Case] = &[
    Case {
        name: "a tombstone of the snapshot",
        build: || {
            let world = World::new();
            let decision = world.first.name.clone();
            let tombstone = Tombstone { session: decision.session, time: 1, decision: decision.clone() };
            world.forge(
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
            world.forge(SealedKind::Tombstone, &BlobName::tombstone(name.vm, name.session), &raw.0);
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
            world.forge(SealedKind::Tombstone, &name, &tombstone.encode());
            world
        },
        expected: TOMBSTONE,
    },
    Case {
        name: "a generation that condemns all live packs",
        build: || {
            let world = World::new();
            let packs = live_packs(&world);
            world.forge(SealedKind::Condemned, &BlobName::condemned(1), &Condemned { packs }.encode());
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
            let result = GcResult { delete: live_packs(&world), rescued: Vec::new(), roster: Vec::new() };
            world.forge(SealedKind::GcResult, &BlobName::result(u32::MAX), &result.encode());
            world.forge(SealedKind::GenerationSeal, &BlobName::generation_seal(u32::MAX), &[]);
            world
        },
        expected: &[
            (Verb::Verify, "DamagedGeneration"),
            (Verb::VerifyData, "DamagedGeneration"),
            (Verb::After, "DamagedGeneration"),
        ],
    },
    Case {
        name: "a generation's seal with content",
        build: || {
            let world = World::new();
            world.forge(SealedKind::GenerationSeal, &BlobName::generation_seal(1), b"x");
            world
        },
        expected: &[
            (Verb::Verify, "DamagedGeneration"),
            (Verb::VerifyData, "DamagedGeneration"),
            (Verb::Incremental, "Damaged > TrailingBytes"),
            (Verb::Full, "Damaged > TrailingBytes"),
            (Verb::After, "DamagedGeneration, UndecidedSession"),
        ],
    },
    Case {
        name: "a generation that condemns 2^32-1 groups of packs",
        build: || {
            let world = World::new();
            world.forge(SealedKind::Condemned, &BlobName::condemned(1), &Raw::new().u32(u32::MAX).0);
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
            let result = GcResult { delete: Vec::new(), rescued: Vec::new(), roster: Vec::new() };
            world.forge(SealedKind::GcResult, &BlobName::result(1), &result.encode());
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
            let packs = live_packs(&world);
            let (a, b) = (&packs[0], &packs[1]);
            record(&world, 0xa1, a, b, 7);
            record(&world, 0xa2, b, a, 7);
            world
        },
        expected: &[
            (Verb::Verify, "MissingDecision"),
            (Verb::VerifyData, "MissingDecision"),
            (Verb::After, "MissingDecision"),
        ],
    },
    Case {
        name: "a repack record that moves a chunk onto itself",
        build: || {
            let world = World::new();
            let pack = live_packs(&world).remove(0);
            record(&world, 0xa1, &pack, &pack, 7);
            world
        },
        expected: &[
            (Verb::Verify, "DamagedRepackRecord, MissingDecision"),
            (Verb::VerifyData, "DamagedRepackRecord, MissingDecision"),
            (Verb::Incremental, "Damaged > a move does not lead to another pack of the same kind"),
            (Verb::Full, "Damaged > a move does not lead to another pack of the same kind"),
            (Verb::After, "DamagedRepackRecord, MissingDecision, UndecidedSession"),
        ],
    },
    Case {
        name: "a repack record that moves a chunk to another chunk's place",
        build: || {
            let world = World::new();
            let packs = live_packs(&world);
            record(&world, 0xa1, &packs[0], &packs[1], 7);
            world
        },
        expected: &[
            (Verb::Verify, "MissingDecision"),
            (Verb::VerifyData, "MissingDecision"),
            (Verb::After, "MissingDecision"),
        ],
    },
    Case {
        name: "a repack record of a session that was not committed",
        build: || {
            let world = World::new();
            let packs = live_packs(&world);
            record(&world, 0xa1, &packs[0], &packs[1], 7);
            let name = record_decision(&world, 0xa1);
            keepstone_engine::BlobStore::delete(&world.store, &name.blob()).unwrap();
            world
        },
        expected: &[],
    },
    Case {
        name: "a repack record of 2^32-1 moves",
        build: || {
            let world = World::new();
            let name = record_decision(&world, 0xa1);
            let raw =
                Raw::new().put(&name.session.0).put(&name.vm.0).str8("a-thief").u32(9).put(&name.session.0);
            world.forge(
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
    let data = packs.filter(|(pack, _)| pack.kind == repo_format::PackKind::Data);
    data.map(|(name, len): (PackName, usize)| PackRef { name, len: u32::try_from(len).unwrap() }).collect()
}

fn record_decision(world: &World, session: u8) -> DecisionName {
    let session = SessionId([session; 16]);
    DecisionName { vm: world.keys.vm_tag("repack"), writer: thief(), seq: 9, session }
}

/// A committed repack record that moves the first chunk of one pack to the first place of another, and says that it
/// applies to the first snapshot.
fn record(world: &World, session: u8, old: &PackRef, new: &PackRef, id: u8) {
    let name = record_decision(world, session);
    let table = if old.name < new.name { vec![old, new] } else { vec![new, old] };
    let same = old.name == new.name;
    let (old_number, new_number) = if same { (0, 0) } else { (u32::from(old > new), u32::from(new > old)) };
    let packs: Vec<(u32, u32)> =
        table.iter().take(2 - usize::from(same)).map(|pack| (pack.name.number, pack.len)).collect();
    let raw = Raw::new().put(&name.session.0).put(&name.vm.0).str8("a-thief").u32(9).put(&name.session.0);
    let raw = raw.u32(1).put(&world.first.session().0).u32(1);
    let raw = raw.u8(1).str8("host-a").put(&world.first.session().0).u32(u32::try_from(packs.len()).unwrap());
    let raw = packs.iter().fold(raw, |raw, (number, len)| raw.u32(*number).u32(*len));
    let raw = raw.u32(1).put(&[id; 32]).u32(old_number).u32(176).u8(Codec::Raw as u8);
    let raw = raw.u32(new_number).u32(176).u32(116).u32(100);
    world.forge(SealedKind::Repack, &BlobName::repack(name.session), &raw.0);
    let commit = RawCommit { session: name.session, vm: b"repack".to_vec(), ..RawCommit::new() };
    world.forge(SealedKind::Decision, &name.blob(), &commit.bytes());
}
