//! Decisions and intents: forged, moved, and authentic with hostile content.

use crate::Case;
use crate::forge::{RawCommit, THIEF, World, raw_disk, thief};
use crate::raw::Raw;
use crate::verbs::Verb;
use crate::world::create_from_seed;
use keepstone_engine::store::MemoryStore;
use repo_format::{
    Abort, AbortBy, BlobName, Decision, DecisionName, Intent, SealedKind, SessionId, VmTag, seal,
};

const SIZE: &str = "Damaged > the size of a disk is not allowed";

/// How verbs end if the thief's decision cannot be read: those that need it, and those that tell of it.
macro_rules! unreadable {
    ($end:expr) => {
        &[
            (Verb::List, $end),
            (Verb::Show, $end),
            (Verb::Restore, $end),
            (Verb::Verify, "DamagedDecision"),
            (Verb::VerifyData, "DamagedDecision"),
            (Verb::Diff, $end),
            (Verb::After, "DamagedDecision"),
        ]
    };
}

pub const CASES: &[Case] = &[
    Case {
        name: "a valid decision under another name",
        build: || {
            let world = World::new();
            world.put(&world.decision_name().blob(), &world.get(&world.first.name.blob()));
            targeted(world)
        },
        expected: unreadable!("Damaged > BadTag"),
    },
    Case {
        name: "a valid decision of another repository",
        build: || {
            let world = World::new();
            let store = MemoryStore::new();
            let other = create_from_seed(&store, world.geometry, [2; 32]).unwrap();
            let name = world.decision_name().blob();
            world.put(
                &name,
                &seal(other.keys(), SealedKind::Decision, &name, [1; 32], &RawCommit::new().bytes()),
            );
            targeted(world)
        },
        expected: unreadable!("Damaged > BadTag"),
    },
    Case {
        name: "a sealed object of format version 65535",
        build: || sealed_header(8, &[0xff, 0xff]),
        expected: unreadable!("Damaged > UnsupportedVersion"),
    },
    Case {
        name: "a sealed object with an unknown flag",
        build: || sealed_header(11, &[0x80]),
        expected: unreadable!("Damaged > BadFlags"),
    },
    Case {
        name: "a sealed object that says to be an index",
        build: || sealed_header(10, &[3]),
        expected: unreadable!("Damaged > BadType"),
    },
    Case {
        name: "a sealed object that says to have 2^32-1 bytes",
        build: || sealed_header(12, &[0xff; 4]),
        expected: unreadable!("Damaged > LimitExceeded"),
    },
    Case {
        name: "a sealed object that says to have as many bytes as are allowed",
        build: || sealed_header(12, &(64_u32 << 20).to_le_bytes()),
        expected: unreadable!("Damaged > Truncated"),
    },
    Case {
        name: "a sealed object without its salt's last bit",
        build: || sealed_header(47, &[0]),
        expected: unreadable!("Damaged > BadTag"),
    },
    Case {
        name: "a disk of 2^64-1 bytes",
        build: || committed(|commit| commit.disks = raw_disk(b"disk0", u64::MAX, &hole())),
        expected: unreadable!(SIZE),
    },
    Case {
        name: "a disk of 2^63 bytes",
        build: || committed(|commit| commit.disks = raw_disk(b"disk0", 1 << 63, &hole())),
        expected: unreadable!(SIZE),
    },
    Case {
        name: "a disk of no bytes",
        build: || committed(|commit| commit.disks = raw_disk(b"disk0", 0, &hole())),
        expected: unreadable!(SIZE),
    },
    Case {
        name: "a disk of 2^62 bytes that is one hole",
        build: || committed(|commit| commit.disks = raw_disk(b"disk0", 1 << 62, &hole())),
        expected: &[],
    },
    Case {
        name: "a disk key with NUL",
        build: || committed(|commit| commit.disks = raw_disk(b"a\0b", 1, &hole())),
        expected: unreadable!("Damaged > Name"),
    },
    Case {
        name: "a disk key with a path",
        build: || committed(|commit| commit.disks = raw_disk(b"../../etc/shadow", 1, &hole())),
        expected: unreadable!("Damaged > Name"),
    },
    Case {
        name: "a disk key of control characters of one byte in Latin-1",
        build: || committed(|commit| commit.disks = raw_disk("\u{9b}31m".as_bytes(), 1, &hole())),
        expected: unreadable!("Damaged > Name"),
    },
    Case {
        name: "a disk key that is not UTF-8",
        build: || committed(|commit| commit.disks = raw_disk(&[0xc0, 0x80], 1, &hole())),
        expected: unreadable!("Damaged > BadText"),
    },
    Case {
        name: "an empty disk key",
        build: || committed(|commit| commit.disks = raw_disk(b"", 1, &hole())),
        expected: unreadable!("Damaged > Name"),
    },
    Case {
        name: "a VM name with an escape sequence",
        build: || {
            let vm = "\u{1b}]0;owned\u{7}";
            let mut world = World::new();
            let name = DecisionName { vm: world.keys.vm_tag(vm), ..world.decision_name() };
            let commit = RawCommit { vm: vm.into(), ..RawCommit::new() };
            world.forge(SealedKind::Decision, &name.blob(), &commit.bytes());
            world.target = THIEF;
            world
        },
        expected: &[
            (Verb::List, "Damaged > Name"),
            (Verb::Show, "Damaged > Name"),
            (Verb::Restore, "Damaged > Name"),
            (Verb::Verify, "DamagedDecision, MissingDecision"),
            (Verb::VerifyData, "DamagedDecision, MissingDecision"),
            (Verb::Diff, "Damaged > Name"),
            (Verb::After, "DamagedDecision, MissingDecision"),
        ],
    },
    Case {
        name: "a VM name of another VM",
        build: || committed(|commit| commit.vm = b"other".to_vec()),
        expected: unreadable!("Damaged > the decision is not the one that its name calls for"),
    },
    Case {
        name: "two disks with one key",
        build: || {
            committed(|commit| {
                let disk = raw_disk(b"disk0", 1, &hole());
                (commit.disk_count, commit.disks) = (2, disk.clone().put(&disk.0));
            })
        },
        expected: unreadable!("Damaged > OutOfOrder"),
    },
    Case {
        name: "no disk",
        build: || committed(|commit| (commit.disk_count, commit.disks) = (0, Raw::new())),
        expected: unreadable!("Damaged > a snapshot has no disk"),
    },
    Case {
        name: "65535 disks, of which one is there",
        build: || committed(|commit| commit.disk_count = u16::MAX),
        expected: unreadable!("Damaged > LimitExceeded"),
    },
    Case {
        name: "1024 disks, of which one is there",
        build: || committed(|commit| commit.disk_count = 1024),
        expected: unreadable!("Damaged > Truncated"),
    },
    Case {
        name: "1024 disks of 2^62 bytes",
        build: || {
            committed(|commit| {
                let disks =
                    (0..1024).map(|disk| raw_disk(format!("disk{disk:04}").as_bytes(), 1 << 62, &hole()));
                (commit.disk_count, commit.disks) =
                    (1024, disks.fold(Raw::new(), |all, disk| all.put(&disk.0)));
            })
        },
        expected: &[],
    },
    Case {
        name: "2^32-1 repack records",
        build: || committed(|commit| commit.via = Raw::new().u32(u32::MAX)),
        expected: unreadable!("Damaged > Truncated"),
    },
    Case {
        name: "a million repack records that do not exist",
        build: || {
            committed(|commit| {
                let sessions = (0..1_000_000_u128).flat_map(u128::to_be_bytes).collect::<Vec<u8>>();
                commit.via = Raw::new().u32(1_000_000).put(&sessions);
            })
        },
        expected: &[],
    },
    Case {
        name: "65535 tags",
        build: || committed(|commit| commit.tags = Raw::new().u16(u16::MAX)),
        expected: unreadable!("Damaged > LimitExceeded"),
    },
    Case {
        name: "properties of 64 KiB each, as many as fit a decision",
        build: || {
            committed(|commit| {
                let text = "\u{9b}".repeat(32_767);
                let properties =
                    (0..1000_u16).map(|number| Raw::new().str8(&format!("{number:04}")).str16(&text));
                commit.properties = properties.fold(Raw::new().u16(1000), |all, one| all.put(&one.0));
            })
        },
        expected: &[],
    },
    Case {
        name: "a change id of 64 KiB of control characters",
        build: || {
            committed(|commit| {
                let disk = Raw::new().str8("disk0").u64(1).u8(1).str16(&"\u{1b}".repeat(65_535));
                commit.disks = disk.u8(1).u64(0).u64(0).u8(0);
            })
        },
        expected: &[],
    },
    Case {
        name: "numbers of 2^64-1 in the totals of two snapshots",
        build: || {
            let mut world =
                committed(|commit| (commit.time, commit.end) = (u64::MAX, Raw::new().put(&[0xff; 48])));
            let session = SessionId([0xef; 16]);
            let name = DecisionName { session, seq: 0, ..world.decision_name() };
            let end = Raw::new().put(&[0xff; 48]);
            let commit = RawCommit { session, end, ..RawCommit::new() };
            world.forge(SealedKind::Decision, &name.blob(), &commit.bytes());
            world.is_honest = false;
            world
        },
        expected: &[
            (Verb::Verify, "MissingPack"),
            (Verb::VerifyData, "MissingPack"),
            (Verb::After, "MissingPack"),
        ],
    },
    Case {
        name: "a verdict that does not exist",
        build: || committed(|commit| commit.verdict = 4),
        expected: unreadable!("Damaged > BadType"),
    },
    Case {
        name: "a flag of 2 for a parent",
        build: || committed(|commit| commit.parent = Raw::new().u8(2)),
        expected: unreadable!("Damaged > BadFlags"),
    },
    Case {
        name: "a decision with a byte too many",
        build: || committed(|commit| commit.end = Raw::new().put(&[0; 49])),
        expected: unreadable!("Damaged > TrailingBytes"),
    },
    Case {
        name: "a decision that says to be another session's",
        build: || committed(|commit| commit.session = SessionId([1; 16])),
        expected: unreadable!("Damaged > the decision is not the one that its name calls for"),
    },
    Case {
        name: "a snapshot that is its own parent, at the end of all times and numbers",
        build: || {
            let mut world = World::new();
            let name = DecisionName { seq: u32::MAX, ..world.decision_name() };
            let parent = Raw::new().u8(1).put(&name.vm.0).str8("a-thief").u32(u32::MAX).put(&THIEF.0);
            let commit = RawCommit { time: u64::MAX, parent, ..RawCommit::new() };
            world.forge(SealedKind::Decision, &name.blob(), &commit.bytes());
            (world.target, world.is_honest) = (THIEF, false);
            world
        },
        expected: &[],
    },
    Case {
        name: "two snapshots that are each other's parent",
        build: || {
            let mut world = World::new();
            let [one, two] =
                [0xe1, 0xe2].map(|id| DecisionName { session: SessionId([id; 16]), ..world.decision_name() });
            for (name, parent) in [(&one, &two), (&two, &one)] {
                let parent = Raw::new().u8(1).put(&parent.vm.0).str8("a-thief").u32(1).put(&parent.session.0);
                let commit = RawCommit { session: name.session, parent, ..RawCommit::new() };
                world.forge(SealedKind::Decision, &name.blob(), &commit.bytes());
            }
            (world.target, world.is_honest) = (one.session, false);
            world
        },
        expected: &[],
    },
    Case {
        name: "a snapshot whose parent never was",
        build: || {
            committed(|commit| {
                commit.parent = Raw::new().u8(1).put(&[9; 16]).str8("nobody").u32(7).put(&[9; 16]);
            })
        },
        expected: &[
            (Verb::Verify, "ContradictorySession, MissingDecision"),
            (Verb::VerifyData, "ContradictorySession, MissingDecision"),
            (Verb::After, "ContradictorySession, MissingDecision"),
        ],
    },
    Case {
        name: "a copy of the snapshot under another number",
        build: || {
            let mut world = World::new();
            let name = DecisionName { seq: 5, ..world.first.name.clone() };
            let decision = Decision::Commit(Box::new(world.first.commit.clone()));
            world.forge(SealedKind::Decision, &name.blob(), &decision.encode());
            world.is_honest = true;
            world
        },
        expected: &[
            (Verb::Show, "AmbiguousSnapshot"),
            (Verb::Restore, "AmbiguousSnapshot"),
            (Verb::Verify, "ContradictorySession, MissingDecision"),
            (Verb::VerifyData, "ContradictorySession, MissingDecision"),
            (Verb::Diff, "AmbiguousSnapshot"),
            (Verb::After, "ContradictorySession, MissingDecision"),
        ],
    },
    Case {
        name: "an ABORT of the snapshot's session under another number",
        build: || {
            let world = World::new();
            let name = DecisionName { seq: 5, ..world.first.name.clone() };
            let abort = Abort { session: name.session, time: 1, program: "x".into(), by: AbortBy::Pruner };
            world.forge_signed(SealedKind::Decision, &name.blob(), &Decision::Abort(abort).encode());
            world
        },
        expected: &[
            (Verb::Verify, "ContradictorySession, MissingDecision"),
            (Verb::VerifyData, "ContradictorySession, MissingDecision"),
            (Verb::After, "ContradictorySession, MissingDecision"),
        ],
    },
    Case {
        name: "an intent that names another session's decision",
        build: || {
            let world = World::new();
            let other = &world.first.name;
            let raw = Raw::new().put(&THIEF.0).put(&other.vm.0).str8("a-thief").u32(1).put(&other.session.0);
            world.forge(SealedKind::Intent, &BlobName::intent(&thief(), THIEF), &raw.u32(0).u64(0).0);
            world
        },
        expected: INTENT,
    },
    Case {
        name: "an intent that names another writer's decision",
        build: || {
            let world = World::new();
            let decision = DecisionName { session: THIEF, ..world.first.name.clone() };
            let intent = Intent { session: THIEF, decision, generation: u32::MAX, time: u64::MAX };
            world.forge(SealedKind::Intent, &BlobName::intent(&thief(), THIEF), &intent.encode());
            world
        },
        expected: INTENT,
    },
    Case {
        name: "an intent of a VM that does not exist",
        build: || {
            let world = World::new();
            let decision = DecisionName { vm: VmTag([9; 16]), ..world.decision_name() };
            let intent = Intent { session: THIEF, decision, generation: u32::MAX, time: u64::MAX };
            world.forge(SealedKind::Intent, &BlobName::intent(&thief(), THIEF), &intent.encode());
            world
        },
        expected: &[
            (Verb::Verify, "MissingDecision, UndecidedSession"),
            (Verb::VerifyData, "MissingDecision, UndecidedSession"),
            (Verb::After, "MissingDecision, UndecidedSession"),
        ],
    },
    Case {
        name: "names that are none",
        build: || {
            let world = World::new();
            let long = format!("r/{}", "a".repeat(253));
            for name in ["r/..a/b", "keys/-", "s/x", "gc/ffffffff/other", "zz", &long] {
                world.put(&BlobName::parse(name).unwrap(), b"x");
            }
            world
        },
        expected: &[
            (Verb::Verify, "UnknownName"),
            (Verb::VerifyData, "UnknownName"),
            (Verb::After, "UnknownName"),
        ],
    },
];

const INTENT: &[(Verb, &str)] =
    &[(Verb::Verify, "DamagedIntent"), (Verb::VerifyData, "DamagedIntent"), (Verb::After, "DamagedIntent")];

fn hole() -> Raw {
    Raw::new().u8(0)
}

fn targeted(mut world: World) -> World {
    (world.target, world.is_honest) = (THIEF, false);
    world
}

/// Commits a snapshot of a disk that is one hole but for what `change` does to it.
fn committed(change: impl Fn(&mut RawCommit)) -> World {
    let mut world = World::new();
    let mut commit = RawCommit::new();
    change(&mut commit);
    world.commit_raw(&commit.bytes());
    world
}

/// Writes over a part of the header of the thief's sealed decision.
fn sealed_header(at: usize, bytes: &[u8]) -> World {
    let world = committed(|_| {});
    let name = world.decision_name().blob();
    let mut blob = world.get(&name);
    assert_ne!(&blob[at..at + bytes.len()], bytes);
    blob[at..at + bytes.len()].copy_from_slice(bytes);
    world.put(&name, &blob);
    world
}
