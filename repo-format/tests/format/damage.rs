//! Damaged bytes never panic, never pass for authentic, and never have a second reading.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index as Pick;
use repo_format::*;

use crate::pack_rules::small_pack;
use crate::samples::*;

/// One thing that can happen to bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Pick, u8),
    Replace(Pick, u8),
    Cut(Pick),
    Insert(Pick, u8),
    Remove(Pick),
    SetLong(Pick, u32),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let at = any::<Pick>;
    prop_oneof![
        (at(), 0_u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        at().prop_map(Damage::Cut),
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        at().prop_map(Damage::Remove),
        (at(), prop_oneof![0_u32..4, any::<u32>(), Just(u32::MAX)])
            .prop_map(|(at, value)| Damage::SetLong(at, value)),
    ]
}

fn damage(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match damage {
            Damage::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Damage::Replace(at, byte) => bytes[at.index(len)] = *byte,
            Damage::Cut(at) => bytes.truncate(at.index(len)),
            Damage::Insert(at, byte) => bytes.insert(at.index(len), *byte),
            Damage::Remove(at) => drop(bytes.remove(at.index(len))),
            Damage::SetLong(at, value) => {
                let at = at.index(len);
                for (target, byte) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
                    *target = byte;
                }
            }
        }
    }
    bytes
}

/// Parses bytes as everything, and checks that what parses is encoded to the same bytes again (GEN-6).
fn check_all_readings(bytes: &[u8]) {
    if let Ok(page) = Page::parse(bytes, &page_bounds()) {
        assert_eq!(page.encode(), bytes);
    }
    let own = pack(PackKind::Map, 0);
    for level in 1..=4 {
        for count in [1, 2, 64] {
            if let Ok(node) = Node::parse(bytes, level, count, &own) {
                assert_eq!(node.encode(&own.name), bytes);
            }
        }
    }
    if let Ok(index) = Index::parse(bytes) {
        assert_eq!(index.encode(), bytes);
    }
    if let Ok(decision) = Decision::parse(bytes) {
        assert_eq!(decision.encode(), bytes);
    }
    if let Ok(record) = RepackRecord::parse(bytes) {
        assert_eq!(record.encode(), bytes);
    }
    if let Ok(condemned) = Condemned::parse(bytes) {
        assert_eq!(condemned.encode(), bytes);
    }
    if let Ok(awaited) = Awaited::parse(bytes) {
        assert_eq!(awaited.encode(), bytes);
    }
    if let Ok(result) = GcResult::parse(bytes) {
        assert_eq!(result.encode(), bytes);
    }
    if let Ok(intent) = Intent::parse(bytes) {
        assert_eq!(intent.encode(), bytes);
    }
    if let Ok(seal) = GenerationSeal::parse(bytes) {
        assert_eq!(seal.encode(), bytes);
    }
    if let Ok(barrier) = Barrier::parse(bytes) {
        assert_eq!(barrier.encode(), bytes);
    }
    if let Ok(lineage) = Lineage::parse(bytes) {
        assert_eq!(lineage.encode(), bytes);
    }
    if let Ok(marker) = ReplicaMarker::parse(bytes) {
        assert_eq!(marker.encode(), bytes);
    }
    if let Ok(pin) = Pin::parse(bytes) {
        assert_eq!(pin.encode(), bytes);
    }
    if let Ok(tombstone) = Tombstone::parse(bytes) {
        assert_eq!(tombstone.encode(), bytes);
    }
    if let Ok(header) = PackHeader::parse(bytes) {
        assert_eq!(header.encode().as_slice(), &bytes[..PACK_HEADER_LEN]);
    }
    if let Ok(frames) = parse_directory(bytes, PackKind::Data, 1000) {
        let entries: Vec<FrameEntry> = frames.iter().map(|(_, frame)| *frame).collect();
        assert_eq!(encode_directory(&entries), bytes);
    }
    drop(UncheckedConfig::parse(bytes));
    drop(Slot::parse(&SlotName::new("ops").expect("a slot's name"), bytes));
    drop(Decoder::new().decode_into(Codec::Zstd, bytes, &mut [0; 300]));
    if let Some(name) = std::str::from_utf8(bytes).ok().and_then(BlobName::parse) {
        drop(name.kind());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..400)) {
        check_all_readings(&bytes);
        let keys = keys();
        let name = BlobName::repack(SESSION);
        prop_assert!(open(&keys, SealedKind::Repack, &name, &bytes).is_err());
    }

    #[test]
    fn damaged_pages_have_no_second_reading(page in any_page(), damages in vec(any_damage(), 1..4)) {
        check_all_readings(&damage(&page.encode(), &damages));
    }

    #[test]
    fn damaged_nodes_have_no_second_reading(
        (node, own) in (1_u8..=4).prop_flat_map(any_node),
        damages in vec(any_damage(), 1..4),
    ) {
        let bytes = damage(&node.encode(&own.name), &damages);
        check_all_readings(&bytes);
        let count = u8::try_from(node.children.len()).expect("at most 64 children");
        if let Ok(node) = Node::parse(&bytes, node.level, count, &own) {
            prop_assert_eq!(node.encode(&own.name), bytes);
        }
    }

    #[test]
    fn damaged_indexes_have_no_second_reading(index in any_index(), damages in vec(any_damage(), 1..4)) {
        check_all_readings(&damage(&index.encode(), &damages));
    }

    #[test]
    fn damaged_decisions_have_no_second_reading(decision in any_decision(), damages in vec(any_damage(), 1..4)) {
        check_all_readings(&damage(&decision.encode(), &damages));
    }

    #[test]
    fn damaged_records_have_no_second_reading(record in any_repack_record(), damages in vec(any_damage(), 1..4)) {
        check_all_readings(&damage(&record.encode(), &damages));
    }

    #[test]
    fn damaged_json_does_not_panic(damages in vec(any_damage(), 1..4)) {
        let geometry = Geometry::default();
        let (keys, created) = (keys(), 5);
        let config = Config { repository: REPOSITORY, created, geometry, data_public_key: keys.data_public_key(), retention_public_key: keys.retention_public() };
        let good = config.encode(&keys);
        let bytes = damage(&good, &damages);
        if let Ok(checked) = UncheckedConfig::parse(&bytes).and_then(|unchecked| unchecked.check(&keys)) {
            prop_assert_eq!(checked, config);
        }
    }

    #[test]
    fn damaged_payloads_decode_to_something_or_nothing(
        payload in vec(0_u8..5, 2..3000),
        damages in vec(any_damage(), 1..4),
    ) {
        let mut encoded = Vec::new();
        let codec = Encoder::new(3).encode(&payload, &mut encoded);
        let mut out = vec![0; payload.len()];
        drop(Decoder::new().decode_into(codec, &damage(&encoded, &damages), &mut out));
    }
}

#[test]
fn every_flipped_bit_of_a_sealed_object_is_found() {
    let keys = keys();
    let intent = Intent { session: SESSION, decision: decision_name(), generation: 4, time: 5 };
    let (name, blob) = intent.seal(&keys, SALT);
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut damaged = blob.clone();
            damaged[at] ^= 1 << bit;
            assert!(Intent::open(&keys, &name, &damaged).is_err(), "byte {at}, bit {bit}");
        }
        assert!(Intent::open(&keys, &name, &blob[..at]).is_err(), "cut to {at}");
    }
}

#[test]
fn every_damaged_byte_of_a_pack_is_found() {
    let keys = keys();
    let mut decoder = Decoder::new();
    for kind in [PackKind::Data, PackKind::Map] {
        let pack = small_pack(kind);
        let mut verify = |bytes: &[u8]| verify_pack(&keys, &pack.name, &mut bytes.to_vec(), &mut decoder);
        assert_eq!(verify(&pack.blob), Ok(pack.frames.clone()));
        for at in 0..pack.blob.len() {
            let mut damaged = pack.blob.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(verify(&damaged).is_err(), "byte {at}");
            assert!(verify(&pack.blob[..at]).is_err(), "cut to {at}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_frame_is_found() {
    let pack = small_pack(PackKind::Map);
    let header = PackHeader::parse(&pack.blob).unwrap();
    let opener = PackOpener::new(&keys(), &pack.name, &header).unwrap();
    let (offset, frame) = &pack.frames[1];
    let sealed = &pack.blob[*offset as usize..][..frame.stored_len as usize];
    for at in 0..sealed.len() * 8 {
        let mut damaged = sealed.to_vec();
        damaged[at / 8] ^= 1 << (at % 8);
        assert_eq!(opener.open_frame(*offset, frame, &mut damaged), Err(FormatError::BadTag), "bit {at}");
    }
}
