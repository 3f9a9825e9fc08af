//! Bytes that must not change as long as the format's version does not.

use std::fmt::Write;

use repo_format::*;

use crate::pack_rules::small_pack;
use crate::samples::*;

/// Lower-case hexadecimal, 48 bytes to a line.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(48) {
        for byte in line {
            write!(text, "{byte:02x}").expect("text can grow");
        }
        text.push('\n');
    }
    text
}

fn page() -> Page {
    let entries = vec![Entry::Chunk(location(PackKind::Data, 0, 1000)), Entry::Hole { len: 65_536 - 1010 }];
    Page { first: 10, entries }
}

fn node() -> Node {
    let names = vec![pack(PackKind::Data, 0)];
    let child = Child::Stored { at: location(PackKind::Map, 1, 500), names };
    Node { level: 1, children: vec![Child::Hole, child] }
}

fn index() -> Index {
    let entry = IndexEntry {
        id: PayloadId([0x55; 32]),
        codec: Codec::Zstd,
        pack: 0,
        offset: 176,
        stored_len: 516,
        plain_len: 1000,
    };
    let sessions = vec![(SESSION, decision_name())];
    Index { sessions, packs: vec![pack(PackKind::Data, 0)], entries: vec![entry] }
}

fn record() -> RepackRecord {
    let moved = Move {
        id: PayloadId([0x55; 32]),
        old_pack: 0,
        old_offset: 176,
        codec: Codec::Raw,
        new_pack: 1,
        new_offset: 292,
        new_stored_len: 116,
        plain_len: 100,
    };
    RepackRecord {
        session: SESSION,
        decision: decision_name(),
        applies_to: vec![SessionId([1; 16])],
        packs: vec![pack(PackKind::Data, 0), pack(PackKind::Data, 1)],
        moves: vec![moved],
    }
}

macro_rules! golden {
    ($name:ident, $bytes:expr) => {
        #[test]
        fn $name() {
            let bytes: Vec<u8> = $bytes;
            assert_eq!(hex(&bytes), include_str!(concat!("golden/", stringify!($name), ".hex")));
        }
    };
}

golden!(the_page, page().encode());
golden!(the_node, node().encode(&pack_name(PackKind::Map, 1)));
golden!(the_index, index().seal(&keys(), &BlobName::index(&writer(), SESSION, 0), SALT));
golden!(
    the_intent,
    Intent { session: SESSION, decision: decision_name(), generation: 4, time: 5 }.seal(&keys(), SALT).1
);
golden!(the_commit, Decision::Commit(Box::new(commit())).seal(&keys(), &decision_name(), SALT));
golden!(the_abort, {
    let abort = Abort { session: SESSION, time: 5, program: "keepstone 0.1.0".into(), by: AbortBy::Writer };
    Decision::Abort(abort).seal(&keys(), &decision_name(), SALT)
});
golden!(
    the_tombstone,
    Tombstone { session: SESSION, time: 9, decision: decision_name() }.seal(&keys(), SALT).1
);
golden!(the_condemned, Condemned { packs: vec![pack(PackKind::Data, 0)] }.seal(&keys(), 7, SALT).1);
golden!(the_result, {
    let (delete, rescued) = (vec![pack(PackKind::Data, 0)], vec![pack(PackKind::Map, 0)]);
    GcResult { delete, rescued, roster: vec![SESSION] }.seal(&keys(), 7, SALT).1
});
golden!(the_generation_seal, GenerationSeal::seal(&keys(), 7, SALT).1);
golden!(the_repack_record, record().seal(&keys(), SALT).1);
// The payloads of these are short enough to be stored raw or as one run, whatever zstd's version.
golden!(the_data_pack, small_pack(PackKind::Data).blob);
golden!(the_map_pack, small_pack(PackKind::Map).blob);

#[test]
fn the_config() {
    let (keys, geometry) = (keys(), Geometry::default());
    let created = 1_700_000_000_000;
    let config =
        Config { repository: REPOSITORY, created, geometry, data_public_key: keys.data_public_key() };
    let text = String::from_utf8(config.encode(&keys)).unwrap();
    assert_eq!(text, include_str!("golden/the_config.json"));
}

#[test]
fn the_key_slot() {
    let info = SlotInfo {
        name: SlotName::new("ops").unwrap(),
        repository: REPOSITORY,
        label: "Operators".into(),
        created: 1_700_000_000_000,
        kdf: KdfParams { memory_kib: 64, passes: 2, lanes: 2 },
        salt: SALT,
    };
    let text = String::from_utf8(seal_slot(&info, b"secret", &root_key()).unwrap()).unwrap();
    assert_eq!(text, include_str!("golden/the_key_slot.json"));
}
