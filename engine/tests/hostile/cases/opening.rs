//! The config and key slots: what is read before anything is authenticated.

use crate::Case;
use crate::forge::World;
use crate::verbs::Verb;
use crate::world::{PASSWORD, cheap_kdf, create_from_seed, small_geometry};
use keepstone_engine::BlobStore;
use keepstone_engine::store::MemoryStore;
use repo_format::{
    BlobName, Config, KdfParams, Keys, RepositoryId, RootKey, SlotInfo, SlotKey, SlotKind, SlotName,
    seal_slot,
};

const BAD_JSON: &str = "Damaged > Json";

pub const CASES: &[Case] = &[
    Case {
        name: "a config of ten MiB",
        build: || config(|_| " ".repeat(10 << 20)),
        expected: &[(Verb::Open, "Damaged > LimitExceeded")],
    },
    Case {
        name: "a config that is nested 60 000 deep",
        build: || config(|_| "[".repeat(60_000)),
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "a config with an unknown member that is nested 30 000 deep",
        build: || {
            config(|text| {
                text.replacen('{', &format!("{{\"x\": {}{},", "[".repeat(30_000), "]".repeat(30_000)), 1)
            })
        },
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "a number of 60 000 digits in a config",
        build: || config(|text| created(&text, &"9".repeat(60_000))),
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "a number of 2^64 in a config",
        build: || config(|text| created(&text, "18446744073709551616")),
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "a number of 1e400 in a config",
        build: || config(|text| created(&text, "1e400")),
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "a member twice in a config",
        build: || config(|text| text.replacen('{', "{\"format\": 0,", 1)),
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "half a surrogate pair in a config",
        build: || config(|text| text.replace("repository", "reposi\\ud800tory")),
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "a config of format 2^64-1",
        build: || config(|text| text.replace("\"format\": 0", "\"format\": 18446744073709551615")),
        expected: &[(Verb::Open, "UnknownFormat")],
    },
    Case {
        name: "a config of format -1",
        build: || config(|text| text.replace("\"format\": 0", "\"format\": -1")),
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "a config without a MAC",
        build: || config(|text| text.replace("\"mac\"", "\"unsigned\"")),
        expected: &[(Verb::Open, BAD_JSON)],
    },
    Case {
        name: "a config with regions of 4 GiB",
        build: || config(|text| text.replace("65536", "4294967295")),
        expected: &[(Verb::Open, "Damaged > the region length is not allowed")],
    },
    Case {
        name: "a config with other regions, which nobody signed",
        build: || config(|text| text.replace("\"regionLen\": 65536", "\"regionLen\": 131072")),
        expected: &[(Verb::Open, "Damaged > MacMismatch")],
    },
    Case {
        name: "a config of this repository, signed with another root key",
        build: || {
            let world = World::new();
            let other = Keys::from_root(
                &RootKey::new([3; 32]),
                world.keys.repository(),
                world.keys.retention_public(),
            );
            let config =
                Config { data_public_key: other.data_public_key(), ..world.repository().config().clone() };
            world.put(&BlobName::config(), &config.encode(&other));
            world
        },
        expected: &[(Verb::Open, "Damaged > MacMismatch")],
    },
    Case {
        name: "the config of another repository",
        build: || {
            let world = World::new();
            world.put(&BlobName::config(), &other_repository().get(&BlobName::config(), None).unwrap());
            world
        },
        expected: &[(Verb::Open, "WrongPassword { slots: 0, damaged: 2 }")],
    },
    Case {
        name: "the config and key slots of another repository with the same password",
        build: || {
            let world = World::new();
            for name in [BlobName::config(), slot_blob("first"), slot_blob("retention")] {
                world.put(&name, &other_repository().get(&name, None).unwrap());
            }
            World { is_honest: false, ..world }
        },
        expected: &[
            (Verb::List, "Damaged > BadTag"),
            (Verb::Show, "Damaged > BadTag"),
            (Verb::Restore, "Damaged > BadTag"),
            (Verb::Verify, "DamagedDecision, DamagedIndex, DamagedIntent"),
            (Verb::VerifyData, "DamagedDecision, DamagedIndex, DamagedIntent"),
            (Verb::Diff, "Damaged > BadTag"),
            (Verb::Sync, "1 skipped"),
            (Verb::After, "DamagedDecision, DamagedIndex, DamagedIntent"),
        ],
    },
    Case {
        name: "a key slot that asks for 2^32 KiB of memory",
        build: || only_slot(|text| text.replace("\"memoryKiB\": 8", "\"memoryKiB\": 4294967296")),
        expected: &[(Verb::Open, NO_SLOT)],
    },
    Case {
        name: "a key slot that asks for 2^32-1 KiB of memory",
        build: || only_slot(|text| text.replace("\"memoryKiB\": 8", "\"memoryKiB\": 4294967295")),
        expected: &[(Verb::Open, NO_SLOT)],
    },
    Case {
        name: "a key slot that asks for 2^32-1 passes",
        build: || only_slot(|text| text.replace("\"passes\": 1", "\"passes\": 4294967295")),
        expected: &[(Verb::Open, NO_SLOT)],
    },
    Case {
        name: "a key slot that asks for 2^32-1 lanes",
        build: || only_slot(|text| text.replace("\"lanes\": 1", "\"lanes\": 4294967295")),
        expected: &[(Verb::Open, NO_SLOT)],
    },
    Case {
        name: "a key slot that asks for no pass",
        build: || only_slot(|text| text.replace("\"passes\": 1", "\"passes\": 0")),
        expected: &[(Verb::Open, NO_SLOT)],
    },
    Case {
        name: "a key slot of another key derivation",
        build: || only_slot(|text| text.replace("argon2id", "argon2i")),
        expected: &[(Verb::Open, NO_SLOT)],
    },
    Case {
        name: "a key slot of a newer format",
        build: || only_slot(|text| text.replace("\"format\": 0", "\"format\": 1")),
        expected: &[(Verb::Open, NO_SLOT)],
    },
    Case {
        name: "a key slot with an unknown member",
        build: || only_slot(|text| text.replacen('{', "{\"critical\": true,", 1)),
        expected: &[(Verb::Open, NO_SLOT)],
    },
    Case {
        name: "a key slot under another name",
        build: || {
            let world = World::new();
            world.put(&slot_blob("second"), &world.get(&slot_blob("first")));
            world.store.delete(&slot_blob("first")).unwrap();
            world
        },
        expected: &[(Verb::Open, "WrongPassword { slots: 1, damaged: 0 }")],
    },
    Case {
        name: "a key slot in front that asks for all memory and passes that are allowed",
        build: || {
            let world = World::new();
            let dear = KdfParams { memory_kib: 1 << 20, passes: 4, lanes: 4 };
            let text = String::from_utf8(world.get(&slot_blob("first"))).unwrap();
            let text = text.replace("\"memoryKiB\": 8", &format!("\"memoryKiB\": {}", dear.memory_kib));
            let text = text.replace("\"passes\": 1", "\"passes\": 4").replace("\"lanes\": 1", "\"lanes\": 4");
            world.put(&slot_blob("aaa"), text.as_bytes());
            world
        },
        expected: &[
            (Verb::Verify, "DamagedKeySlot"),
            (Verb::VerifyData, "DamagedKeySlot"),
            (Verb::After, "DamagedKeySlot"),
        ],
    },
    Case {
        name: "a hundred key slots of other repositories in front",
        build: || plant(100, |name| slot(name, RepositoryId([3; 16]), b"other", [3; 32])),
        expected: SLOTS_REPORTED,
    },
    Case {
        name: "a thousand key slots in front that are no JSON",
        build: || plant(1000, |_| b"{".to_vec()),
        expected: SLOTS_REPORTED,
    },
    Case {
        name: "three thousand key slots in front that are no JSON",
        build: || plant(3000, |_| b"{".to_vec()),
        expected: &[(Verb::Open, "TooManySlots { tried: 0, untried: 1978 }")],
    },
    Case {
        name: "seventy key slots of this repository in front, under another password",
        build: || plant(70, |name| slot(name, World::new().keys.repository(), b"other", [3; 32])),
        expected: &[(Verb::Open, "TooManySlots { tried: 64, untried: 7 }")],
    },
    Case {
        name: "a key slot in front with the same password and another root key",
        build: || plant(1, |name| slot(name, World::new().keys.repository(), PASSWORD, [3; 32])),
        expected: &[],
    },
    Case {
        name: "no key slot but one with the same password and another root key",
        build: || {
            let world = plant(1, |name| slot(name, World::new().keys.repository(), PASSWORD, [3; 32]));
            world.store.delete(&slot_blob("first")).unwrap();
            world
        },
        expected: &[(Verb::Open, "Damaged > MacMismatch")],
    },
    Case {
        name: "a config that was signed with the root key of a planted key slot",
        build: || {
            let world = plant(1, |name| slot(name, World::new().keys.repository(), PASSWORD, [3; 32]));
            let keys = Keys::from_root(
                &RootKey::new([3; 32]),
                world.keys.repository(),
                world.keys.retention_public(),
            );
            let config =
                Config { data_public_key: keys.data_public_key(), ..world.repository().config().clone() };
            world.put(&BlobName::config(), &config.encode(&keys));
            World { is_honest: false, ..world }
        },
        expected: &[
            (Verb::List, "Damaged > BadTag"),
            (Verb::Show, "Damaged > BadTag"),
            (Verb::Restore, "Damaged > BadTag"),
            (Verb::Verify, "DamagedDecision, DamagedIndex, DamagedIntent"),
            (Verb::VerifyData, "DamagedDecision, DamagedIndex, DamagedIntent"),
            (Verb::Diff, "Damaged > BadTag"),
            (Verb::Sync, "1 skipped"),
            (Verb::After, "DamagedDecision, DamagedIndex, DamagedIntent"),
        ],
    },
];

const SLOTS_REPORTED: &[(Verb, &str)] = &[
    (Verb::Verify, "DamagedKeySlot"),
    (Verb::VerifyData, "DamagedKeySlot"),
    (Verb::After, "DamagedKeySlot"),
];

const NO_SLOT: &str = "WrongPassword { slots: 0, damaged: 1 }";

fn slot_blob(name: &str) -> BlobName {
    BlobName::key_slot(&SlotName::new(name).unwrap())
}

/// Replaces the config's text.
fn config(change: impl Fn(String) -> String) -> World {
    let world = World::new();
    let text = String::from_utf8(world.get(&BlobName::config())).unwrap();
    world.put(&BlobName::config(), change(text).as_bytes());
    world
}

fn created(text: &str, number: &str) -> String {
    let at = text.find("\"created\": ").unwrap() + "\"created\": ".len();
    let end = at + text[at..].find(',').unwrap();
    format!("{}{number}{}", &text[..at], &text[end..])
}

/// Replaces the text of the only key slot.
fn only_slot(change: impl Fn(String) -> String) -> World {
    let world = World::new();
    let text = String::from_utf8(world.get(&slot_blob("first"))).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed);
    world.put(&slot_blob("first"), changed.as_bytes());
    world
}

/// Puts so many key slots in front of the real one.
fn plant(count: u32, blob: impl Fn(SlotName) -> Vec<u8>) -> World {
    let world = World::new();
    for number in 0..count {
        let name = SlotName::new(&format!("a{number:05}")).unwrap();
        world.put(&BlobName::key_slot(&name), &blob(name));
    }
    world
}

fn slot(name: SlotName, repository: RepositoryId, password: &[u8], root: [u8; 32]) -> Vec<u8> {
    let label = "planted".to_owned();
    let info = SlotInfo {
        name,
        repository,
        kind: SlotKind::Root,
        label,
        created: 0,
        kdf: cheap_kdf(),
        salt: [4; 32],
    };
    seal_slot(&info, password, &SlotKey::Root(RootKey::new(root))).unwrap()
}

fn other_repository() -> MemoryStore {
    let store = MemoryStore::new();
    create_from_seed(&store, small_geometry(), [2; 32]).unwrap();
    store
}
