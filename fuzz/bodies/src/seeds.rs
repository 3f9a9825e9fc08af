//! Valid inputs of every target, so that mutations of them come deep at once.

use crate::cache;
use crate::samples::{self, SALT, keys, location, pack_ref};
use repo_format::{
    BlobName, Child, Codec, Encoder, Entry, FrameEntry, FrameKind, Index, KdfParams, Node, PACK_HEADER_LEN,
    PackKind, Page, SlotInfo, SlotKind, TAG_LEN, encode_directory, seal, seal_slot,
};

pub(crate) fn config() -> Vec<Vec<u8>> {
    vec![samples::config().encode(keys())]
}

pub(crate) fn key_slot() -> Vec<Vec<u8>> {
    let slot = |kind, label: &str, kdf| {
        let (name, repository, label) = (samples::slot_name(), samples::REPOSITORY, label.to_owned());
        let info = SlotInfo { name, repository, kind, label, created: 7, kdf, salt: SALT };
        seal_slot(&info, samples::PASSWORD, &samples::slot_key(kind)).expect("the parameters are allowed")
    };
    vec![
        slot(SlotKind::Root, "", KdfParams { memory_kib: 8, passes: 1, lanes: 1 }),
        slot(SlotKind::Root, "Alice \"A\" \n\u{1F511}", KdfParams { memory_kib: 16, passes: 2, lanes: 2 }),
        slot(SlotKind::Retention, "", KdfParams { memory_kib: 8, passes: 1, lanes: 1 }),
        slot(SlotKind::Inventory, "", KdfParams { memory_kib: 8, passes: 1, lanes: 1 }),
    ]
}

pub(crate) fn intent() -> Vec<Vec<u8>> {
    vec![samples::intent().encode()]
}

pub(crate) fn decision() -> Vec<Vec<u8>> {
    vec![samples::commit().encode(), samples::abort().encode(), samples::repacked().encode()]
}

pub(crate) fn index() -> Vec<Vec<u8>> {
    let empty = Index { sessions: Vec::new(), packs: Vec::new(), entries: Vec::new() };
    vec![empty.encode(), samples::index(3).encode(), samples::index(8).encode()]
}

pub(crate) fn session_objects() -> Vec<Vec<u8>> {
    let mut plaintexts = vec![
        samples::tombstone().encode(),
        samples::condemned().encode(),
        samples::gc_result().encode(),
        samples::repack_record().encode(),
        samples::generation_seal().encode(),
        samples::awaited().encode(),
        samples::pin().encode(),
        samples::lineage().encode(),
        samples::replica_marker().encode(),
    ];
    plaintexts.extend(samples::barriers().map(|barrier| barrier.encode()));
    let parsers = (0..9).chain(std::iter::repeat(9_u8));
    parsers.zip(plaintexts).map(|(which, plaintext)| [&[which], plaintext.as_slice()].concat()).collect()
}

pub(crate) fn sealed_object() -> Vec<Vec<u8>> {
    let names = samples::sealed_names();
    names.iter().map(|(kind, name)| seal(keys(), *kind, name, SALT, b"any plaintext")).collect()
}

pub(crate) fn page() -> Vec<Vec<u8>> {
    let input = |disk_size: u64, cell: u64, geometry: u8, page: &Page| {
        [&disk_size.to_le_bytes()[..], &cell.to_le_bytes(), &[geometry], &page.encode()].concat()
    };
    let chunk = |number, len| Entry::Chunk(location(pack_ref(PackKind::Data, number), len));
    let pieces = vec![chunk(0, 1024), Entry::Hole { len: 2000 }, chunk(1, 1000), chunk(1, 72)];
    let first = Page { first: 0, entries: pieces };
    let last = Page { first: 500, entries: vec![chunk(2, 500), Entry::Hole { len: 24 }] };
    let hole = Page { first: 100, entries: vec![Entry::Hole { len: (64 << 10) - 100 }] };
    let large = Page { first: 0, entries: (0..16).map(|number| chunk(number % 3, 64 << 10)).collect() };
    vec![
        input(1 << 20, 0, 1, &first),
        input((64 << 10) + 1024, 1, 2, &last),
        input(1 << 30, 1, 2, &hole),
        input(1 << 40, 16, 0, &large),
    ]
}

pub(crate) fn node() -> Vec<Vec<u8>> {
    let own = pack_ref(PackKind::Map, 0);
    let stored = |number, names| Child::Stored { at: location(pack_ref(PackKind::Map, number), 900), names };
    let data = || vec![pack_ref(PackKind::Data, 0), pack_ref(PackKind::Data, 2)];
    let both = || vec![pack_ref(PackKind::Data, 0), own.clone(), pack_ref(PackKind::Map, 4)];
    let levels = [
        vec![stored(0, data()), Child::Hole, stored(1, Vec::new())],
        vec![Child::Hole, stored(1, both()), stored(0, vec![own.clone()])],
        vec![stored(0, Vec::new()), stored(7, Vec::new())],
    ];
    (1_u8..)
        .zip(levels)
        .map(|(level, children)| {
            let count = u8::try_from(children.len()).expect("few children");
            let node = Node { level, children };
            [&[level, count][..], &own.len.to_le_bytes(), &node.encode(&own.name)].concat()
        })
        .collect()
}

/// Three payloads of a pack, encoded, and a pack's body that is made of them.
fn frames(kind: FrameKind) -> (Vec<u8>, Vec<FrameEntry>, Vec<Vec<u8>>) {
    let mut encoder = Encoder::new(3);
    let (mut body, mut entries, mut payloads) = (vec![0; PACK_HEADER_LEN], Vec::new(), Vec::new());
    for payload in [vec![7; 40], b"a payload".to_vec(), vec![9; 300]] {
        let mut encoded = Vec::new();
        let codec = encoder.encode(&payload, &mut encoded);
        body.extend_from_slice(&encoded);
        body.extend_from_slice(&[0; TAG_LEN]);
        entries.push(FrameEntry {
            kind,
            codec,
            plain_len: u32::try_from(payload.len()).expect("a short payload"),
            stored_len: u32::try_from(encoded.len() + TAG_LEN).expect("a short payload"),
            id: keys().payload_id(kind, &payload).expect("the root key is known"),
        });
        payloads.push(encoded);
    }
    (body, entries, payloads)
}

const FRAME_KINDS: [FrameKind; 3] = [FrameKind::Chunk, FrameKind::Page, FrameKind::Node];

pub(crate) fn pack_header() -> Vec<Vec<u8>> {
    let sealed = |kind: FrameKind| {
        let (body, entries, _) = frames(kind);
        samples::sealed_pack(&samples::pack_name(kind.pack_kind(), 0), body, &entries)
    };
    FRAME_KINDS.map(sealed).to_vec()
}

pub(crate) fn pack_directory() -> Vec<Vec<u8>> {
    let directory = |kind: FrameKind| {
        let (body, entries, _) = frames(kind);
        let offset = u32::try_from(body.len()).expect("a short pack");
        [&[kind_byte(kind)][..], &offset.to_le_bytes(), &encode_directory(&entries)].concat()
    };
    FRAME_KINDS.map(directory).to_vec()
}

pub(crate) fn pack() -> Vec<Vec<u8>> {
    let input = |kind: FrameKind| {
        let (_, entries, payloads) = frames(kind);
        let mut input = vec![kind_byte(kind), 0, 0, 0];
        for (entry, encoded) in entries.iter().zip(payloads) {
            let is_node = u8::from(kind == FrameKind::Node);
            let is_zstd = u8::from(entry.codec == Codec::Zstd);
            input.push(is_node | (is_zstd << 1));
            input.extend_from_slice(&entry.plain_len.to_le_bytes());
            input.extend_from_slice(&u16::try_from(encoded.len()).expect("a short payload").to_le_bytes());
            input.extend_from_slice(&encoded);
        }
        input
    };
    FRAME_KINDS.map(input).to_vec()
}

fn kind_byte(kind: FrameKind) -> u8 {
    u8::from(kind.pack_kind() == PackKind::Map)
}

pub(crate) fn chunk_frame() -> Vec<Vec<u8>> {
    let text: Vec<u8> =
        (0_u32..400).flat_map(|n| format!("line {} of {}\n", n * n, n % 7).into_bytes()).collect();
    // Two blocks of zstd: one is 128 KiB at most.
    let long: Vec<u8> = text.iter().copied().cycle().take(200 << 10).collect();
    let noise = blake3::hash(b"noise").as_bytes().repeat(2);
    let mixed = [noise.as_slice(), &[0; 4096], &text].concat();
    [(1, vec![0; 70_000]), (3, text), (9, long), (3, noise[..32].to_vec()), (19, mixed)]
        .into_iter()
        .map(|(level, payload)| {
            let mut encoded = Vec::new();
            let codec = Encoder::new(level).encode(&payload, &mut encoded);
            let plain_len = u32::try_from(payload.len()).expect("a short payload");
            [&[u8::from(codec == Codec::Zstd)][..], &plain_len.to_le_bytes(), &encoded].concat()
        })
        .collect()
}

pub(crate) fn blob_name() -> Vec<Vec<u8>> {
    let packs = [PackKind::Data, PackKind::Map].map(|kind| samples::pack_name(kind, 0x1f).blob());
    let mut names = vec![BlobName::config(), BlobName::key_slot(&samples::slot_name())];
    names.extend(samples::sealed_names().map(|(_, name)| name));
    names.extend(packs);
    names.iter().map(|name| name.as_str().as_bytes().to_vec()).collect()
}

pub(crate) fn changes_file() -> Vec<Vec<u8>> {
    let full = r#"{"diskSize": 1000, "changeId": "52/7", "since": "52/6",
        "changedArea": [{"start": 0, "length": 10}, {"start": 10, "length": 5}, {"start": 900, "length": 100}]}"#;
    let first = r#"{"changedArea":[],"since":null,"changeId":"\u00e9\"","diskSize":1}"#;
    [full, first].map(|text| text.as_bytes().to_vec()).to_vec()
}

pub(crate) fn cache_table() -> Vec<Vec<u8>> {
    cache::intact_files()
}
