//! Indexes: hints that lie.

use crate::Case;
use crate::forge::{Forged, RawCommit, THIEF, World, pack_name, raw_disk, thief};
use crate::raw::Raw;
use crate::verbs::Verb;
use crate::world::noise;
use repo_format::{BlobKind, BlobName, Codec, FrameKind, Index, Location, PackKind, PackRef, SealedKind};

const SKIPPED: &[(Verb, &str)] = &[
    (Verb::Verify, "DamagedIndex"),
    (Verb::VerifyData, "DamagedIndex"),
    (Verb::Sync, "1 skipped"),
    (Verb::After, "DamagedIndex"),
];

pub const CASES: &[Case] = &[
    Case {
        name: "an index of 2^32-1 sessions",
        build: || index(|_| Raw::new().u32(u32::MAX).0),
        expected: SKIPPED,
    },
    Case {
        name: "an index of 2^32-1 entries",
        build: || index(|world| head(world).u32(u32::MAX).put(&[0; 490]).0),
        expected: SKIPPED,
    },
    Case {
        name: "an index whose entries are not sorted",
        build: || index(|world| entries(world, &[(2, 176, 100), (1, 292, 100)])),
        expected: SKIPPED,
    },
    Case {
        name: "an index with one chunk twice, with two lengths",
        build: || index(|world| entries(world, &[(1, 176, 100), (1, 176, 200)])),
        expected: SKIPPED,
    },
    Case {
        name: "an index with a chunk at offset 2^32-1",
        build: || index(|world| entries(world, &[(1, u32::MAX, 100)])),
        expected: SKIPPED,
    },
    Case {
        name: "an index with a chunk of 2^32-1 bytes",
        build: || index(|world| entries(world, &[(1, 176, u32::MAX - 16)])),
        expected: SKIPPED,
    },
    Case {
        name: "an index whose chunks overlap",
        build: || index(|world| entries(world, &[(1, 176, 100), (2, 177, 100), (3, 176, 101)])),
        expected: &[],
    },
    Case {
        name: "an index with the packs of another session",
        build: || {
            index(|world| {
                let raw = sessions(world).u32(1).group(1, "a-thief", 0x11, &[(0, 4096)]).u32(1);
                entry(raw, 1, 176, 100).0
            })
        },
        expected: SKIPPED,
    },
    Case {
        name: "a valid index under another name",
        build: || {
            let world = World::new();
            let first = world.store.names().into_iter().find(|name| name.as_str().starts_with("i/")).unwrap();
            world.put(&BlobName::index(&thief(), THIEF, 0), &world.get(&first));
            world
        },
        expected: SKIPPED,
    },
    Case {
        name: "an index that says of known chunks that they have another length",
        build: || lying(|place| place.plain_len += 1),
        expected: &[
            (Verb::Verify, "DamagedIndex, SurplusPack"),
            (Verb::VerifyData, "DamagedIndex, SurplusPack"),
            (Verb::Sync, "1 skipped"),
            (Verb::After, "DamagedIndex, SurplusPack"),
        ],
    },
    Case {
        name: "an index that says of known chunks that they lie in a pack that is not there",
        build: || lying(|place| place.pack.name.number = 9),
        expected: &[
            (Verb::Verify, "StaleIndex, SurplusPack"),
            (Verb::VerifyData, "StaleIndex, SurplusPack"),
            (Verb::After, "StaleIndex, SurplusPack"),
        ],
    },
    // What is authentic and false is not known before its chunks are read: a backup that believes it makes a snapshot
    // that does not restore, and a verification of all data says so.
    Case {
        name: "an index that says of known chunks that they lie where another one does",
        build: || lying(|_| {}),
        expected: &[
            (Verb::Verify, "SurplusPack"),
            (Verb::VerifyData, "SurplusPack"),
            (Verb::Incremental, "ok, but Unrestorable > Damaged > BadTag"),
            (Verb::Full, "ok, but Unrestorable > Damaged > BadTag"),
            (Verb::After, "ContradictoryMap, WrongIndex"),
        ],
    },
];

fn index(plaintext: impl Fn(&World) -> Vec<u8>) -> World {
    let world = World::new();
    let chunk = noise(4, 100);
    world.store_frames(PackKind::Data, 0, &[Forged::raw(&world.keys, FrameKind::Chunk, &chunk)]);
    world.forge(SealedKind::Index, &BlobName::index(&thief(), THIEF, 0), &plaintext(&world));
    world
}

fn sessions(world: &World) -> Raw {
    Raw::new().u32(1).put(&THIEF.0).put(&world.first.name.vm.0).str8("a-thief").u32(1).put(&THIEF.0)
}

fn head(world: &World) -> Raw {
    let len = u32::try_from(world.get(&pack_name(PackKind::Data, 0).blob()).len()).unwrap();
    sessions(world).u32(1).group(1, "a-thief", 0xee, &[(0, len)])
}

fn entry(raw: Raw, id: u8, offset: u32, len: u32) -> Raw {
    raw.put(&[id; 32]).u8(1).u32(0).u32(offset).u32(len.wrapping_add(16)).u32(len)
}

fn entries(world: &World, entries: &[(u8, u32, u32)]) -> Vec<u8> {
    let raw = head(world).u32(u32::try_from(entries.len()).unwrap());
    entries.iter().fold(raw, |raw, (id, offset, len)| entry(raw, *id, *offset, *len)).0
}

/// A committed snapshot of a hole, and in place of the index of honest chunks one that says of each of them that it is
/// where the thief stored something else of the same length.
fn lying(change: impl Fn(&mut Location)) -> World {
    let mut world = World::new();
    let first =
        world.store.names().into_iter().find(|name| matches!(name.kind(), Some(BlobKind::Index { .. })));
    let first = first.unwrap();
    let honest = Index::open(&world.keys, &first, &world.get(&first)).unwrap();
    let junk: Vec<Forged> = honest
        .entries
        .iter()
        .map(|entry| {
            Forged::raw(
                &world.keys,
                FrameKind::Chunk,
                &noise(u64::from(entry.offset), entry.plain_len as usize),
            )
        })
        .collect();
    let places = world.store_frames(PackKind::Data, 0, &junk);
    let mut raw = Raw::new();
    let mut pack: Option<PackRef> = None;
    for (entry, place) in honest.entries.iter().zip(places) {
        let mut place = place;
        change(&mut place);
        raw = raw
            .put(&entry.id.0)
            .u8(Codec::Raw as u8)
            .u32(0)
            .u32(place.offset)
            .u32(place.stored_len)
            .u32(place.plain_len);
        pack = Some(place.pack);
    }
    let pack = pack.unwrap();
    let count = u32::try_from(honest.entries.len()).unwrap();
    let plain = sessions(&world)
        .u32(1)
        .group(1, "a-thief", 0xee, &[(pack.name.number, pack.len)])
        .u32(count)
        .put(&raw.0);
    world.forge(SealedKind::Index, &BlobName::index(&thief(), THIEF, 0), &plain.0);
    let disks = raw_disk(b"disk0", world.first.commit.disks[0].size, &Raw::new().u8(0));
    world.commit_raw(&RawCommit { disks, ..RawCommit::new() }.bytes());
    world
}
