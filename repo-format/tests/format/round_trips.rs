//! What is encoded and parsed again is the same.

use proptest::prelude::*;
use repo_format::*;

use crate::samples::*;

proptest! {
    #[test]
    fn a_page_survives(page in any_page()) {
        prop_assert_eq!(Page::parse(&page.encode(), &page_bounds()), Ok(page));
    }

    #[test]
    fn a_node_survives((node, own) in (1_u8..=4).prop_flat_map(any_node)) {
        let count = u8::try_from(node.children.len()).expect("at most 64 children");
        prop_assert_eq!(Node::parse(&node.encode(&own.name), node.level, count, &own), Ok(node));
    }

    #[test]
    fn an_index_survives(index in any_index()) {
        prop_assert_eq!(Index::parse(&index.encode()), Ok(index));
    }

    #[test]
    fn a_decision_survives(decision in any_decision()) {
        prop_assert_eq!(Decision::parse(&decision.encode()), Ok(decision));
    }

    #[test]
    fn a_repack_record_survives(record in any_repack_record()) {
        prop_assert_eq!(RepackRecord::parse(&record.encode()), Ok(record));
    }

    #[test]
    fn generations_survive(
        packs in any_packs(PackKind::Data, 0..6),
        rescued in any_packs(PackKind::Map, 0..6),
        (earlier, covers) in (any_packs(PackKind::Data, 0..6), 2_u32..),
        roster in any_sessions(),
        (writer, other) in (any_writer(), any_writer()),
        hash in any::<[u8; 32]>(),
    ) {
        let condemned = Condemned { packs: packs.clone() };
        prop_assert_eq!(Condemned::parse(&condemned.encode()), Ok(condemned));
        let result = GcResult { delete: packs, rescued, covers, earlier };
        prop_assert_eq!(GcResult::parse(&result.encode()), Ok(result));
        let mut sessions: Vec<_> = roster.iter().map(|session| (*session, writer.clone())).collect();
        sessions.extend(roster.iter().map(|session| (*session, other.clone())));
        sessions.sort();
        sessions.dedup();
        let confirmed = barrier(BarrierFact::Confirmed { sessions: sessions.clone() });
        prop_assert_eq!(Barrier::parse(&confirmed.encode()), Ok(confirmed));
        let awaited = Awaited { condemned: hash, sessions };
        prop_assert_eq!(Awaited::parse(&awaited.encode()), Ok(awaited));
        let seal = GenerationSeal { roster };
        prop_assert_eq!(GenerationSeal::parse(&seal.encode()), Ok(seal));
    }

    #[test]
    fn what_is_told_of_replicas_survives(
        place in ".{0,60}",
        time: u64,
        mut set_aside in prop::collection::vec(any_session().prop_flat_map(any_decision_name), 0..5),
    ) {
        let marker = ReplicaMarker { time, source: place.clone() };
        prop_assert_eq!(ReplicaMarker::parse(&marker.encode()), Ok(marker));
        for fact in [BarrierFact::Registered { place }, BarrierFact::Removed] {
            let barrier = barrier(fact);
            prop_assert_eq!(Barrier::parse(&barrier.encode()), Ok(barrier));
        }
        set_aside.sort();
        set_aside.dedup();
        let lineage = lineage(set_aside);
        prop_assert_eq!(Lineage::parse(&lineage.encode()), Ok(lineage));
    }

    #[test]
    fn intents_tombstones_and_pins_survive(
        decision in any_session().prop_flat_map(any_decision_name),
        generation: u32,
        time: u64,
        pinned: bool,
        reason in ".{0,60}",
    ) {
        let session = decision.session;
        let intent = Intent { session, decision: decision.clone(), generation, time };
        prop_assert_eq!(Intent::parse(&intent.encode()), Ok(intent));
        let tombstone = Tombstone { session, time, decision: decision.clone() };
        prop_assert_eq!(Tombstone::parse(&tombstone.encode()), Ok(tombstone));
        let pin = Pin { session, decision, time, pinned, reason };
        prop_assert_eq!(Pin::parse(&pin.encode()), Ok(pin));
    }

    #[test]
    fn a_payload_survives_every_codec_and_level(
        level in 1_i32..=19,
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..5000),
            proptest::collection::vec(0_u8..3, 1..5000),
        ],
    ) {
        let mut encoded = vec![1, 2, 3];
        let codec = Encoder::new(level).encode(&payload, &mut encoded);
        prop_assert_eq!(&encoded[..3], &[1, 2, 3]);
        prop_assert!(encoded.len() - 3 <= payload.len());
        let mut decoded = vec![0; payload.len()];
        Decoder::new().decode_into(codec, &encoded[3..], &mut decoded).unwrap();
        prop_assert_eq!(decoded, payload);
    }

    #[test]
    fn a_pack_survives(payloads in proptest::collection::vec(proptest::collection::vec(0_u8..4, 1..600), 1..12)) {
        for kind in [PackKind::Data, PackKind::Map] {
            let mut pack = crate::pack_rules::sealed_pack(kind, &payloads);
            let header = PackHeader::parse(&pack.blob).unwrap();
            prop_assert_eq!(header.pack_len() as usize, pack.blob.len());
            let encoded_header = header.encode();
            prop_assert_eq!(&encoded_header[..], &pack.blob[..PACK_HEADER_LEN]);
            let opener = PackOpener::new(&keys(), &pack.name, &header).unwrap();
            let mut decoder = Decoder::new();
            for ((offset, frame), payload) in pack.frames.iter().zip(&payloads) {
                let mut sealed = pack.blob[*offset as usize..][..frame.stored_len as usize].to_vec();
                let mut opened = vec![0; frame.plain_len as usize];
                let encoded = opener.open_frame(*offset, frame, &mut sealed).unwrap();
                decoder.decode_into(frame.codec, encoded, &mut opened).unwrap();
                prop_assert_eq!(&opened, payload);
            }
            let verified = verify_pack(&keys(), &pack.name, &mut pack.blob, &mut decoder);
            prop_assert_eq!(verified, Ok(pack.frames));
        }
    }
}

#[test]
fn every_object_opens_under_its_own_name() {
    let (keys, retention) = (keys(), retention_key());
    let intent = Intent { session: SESSION, decision: decision_name(), generation: 4, time: 5 };
    let (name, blob) = intent.seal(&keys, SALT);
    assert_eq!(name.kind(), Some(BlobKind::Intent { writer: writer(), session: SESSION }));
    assert_eq!(Intent::open(&keys, &name, &blob), Ok(intent));

    let decision = Decision::Commit(Box::new(commit()));
    let blob = decision.seal(&keys, &decision_name(), SALT);
    assert_eq!(Decision::open(&keys, &decision_name(), &blob), Ok(decision));

    let tombstone = Tombstone { session: SESSION, time: 9, decision: decision_name() };
    let (name, blob) = tombstone.seal(&keys, &retention, SALT);
    assert_eq!(Tombstone::open(&keys, &name, &blob), Ok(tombstone));

    let abort = Abort { session: SESSION, time: 9, program: "p".into(), by: AbortBy::Pruner };
    let decision = Decision::Abort(abort);
    let blob = decision.seal_signed(&keys, &retention, &decision_name(), SALT);
    assert_eq!(Decision::open(&keys, &decision_name(), &blob), Ok(decision));
    let repacked = Decision::Repack(Repacked { session: SESSION, time: 9, program: "p".into() });
    let name = DecisionName { vm: keys.vm_tag(""), ..decision_name() };
    let blob = repacked.seal(&keys, &name, SALT);
    assert_eq!(Decision::open(&keys, &name, &blob), Ok(repacked));

    let pin = Pin { session: SESSION, decision: decision_name(), time: 9, pinned: true, reason: "r".into() };
    let (name, blob) = pin.seal(&keys, &retention, 3, SALT);
    assert_eq!(name, BlobName::pin(decision_name().vm, SESSION, 3));
    assert_eq!(Pin::open(&keys, &name, &blob), Ok(pin));

    let marker = ReplicaMarker { time: 9, source: "/backup".into() };
    let (name, blob) = marker.seal(&keys, SALT);
    assert_eq!(name.kind(), Some(BlobKind::ReplicaMarker));
    assert_eq!(ReplicaMarker::open(&keys, &blob), Ok(marker));
    let lineage = lineage(vec![decision_name()]);
    let (name, blob) = lineage.seal(&keys, &retention, SALT);
    assert_eq!(name.kind(), Some(BlobKind::Lineage(3)));
    assert_eq!(Lineage::open(&keys, &name, &blob), Ok(lineage));
    let barrier = barrier(BarrierFact::Confirmed { sessions: vec![(SESSION, writer())] });
    let (name, blob) = barrier.seal(&keys, &retention, SALT);
    assert_eq!(name, BlobName::barrier(&barrier.replica, 4));
    assert_eq!(Barrier::open(&keys, &name, &blob), Ok(barrier));

    let condemned = Condemned { packs: vec![pack(PackKind::Data, 0)] };
    let (_, blob) = condemned.seal(&keys, &retention, 7, SALT);
    assert_eq!(Condemned::open(&keys, 7, &blob), Ok(condemned));
    let result =
        GcResult { delete: vec![pack(PackKind::Data, 0)], rescued: vec![], covers: 8, earlier: vec![] };
    let (_, blob) = result.seal(&keys, &retention, 7, SALT);
    assert_eq!(GcResult::open(&keys, 7, &blob), Ok(result));
    let awaited = Awaited { condemned: [9; 32], sessions: vec![(SESSION, WriterId::new("host-1").unwrap())] };
    let (_, blob) = awaited.seal(&keys, &retention, 7, SALT);
    assert_eq!(Awaited::open(&keys, 7, &blob), Ok(awaited));
    assert_eq!(Awaited::open(&keys, 8, &blob), Err(FormatError::BadTag));
    let seal = GenerationSeal { roster: vec![SESSION] };
    let (_, blob) = seal.seal(&keys, &retention, 7, SALT);
    assert_eq!(GenerationSeal::open(&keys, 7, &blob), Ok(seal));
    assert_eq!(GenerationSeal::open(&keys, 8, &blob), Err(FormatError::BadTag));
}

#[test]
fn keys_do_not_show_themselves() {
    assert_eq!(format!("{:?}", root_key()), "RootKey(..)");
    assert_eq!(format!("{:?}", retention_key()), "RetentionKey(..)");
    assert_eq!(format!("{:?}", keys().inventory_key()), "InventoryKey(..)");
    assert_eq!(format!("{:?}", keys().data()), "Ok(DataKeys(..))");
    assert_eq!(format!("{:?}", SessionKey::new([1; 32])), "SessionKey(..)");
    assert!(!format!("{:?}", keys()).contains("44"));
}

#[test]
fn incompressible_payloads_are_stored_raw() {
    let noise: Vec<u8> =
        (0_u32..3000).flat_map(|i| i.wrapping_mul(2_654_435_761).rotate_left(i).to_le_bytes()).collect();
    let mut encoded = Vec::new();
    let mut encoder = Encoder::new(3);
    assert_eq!(encoder.encode(&noise, &mut encoded), Codec::Raw);
    assert_eq!(encoded, noise);
    encoded.clear();
    assert_eq!(encoder.encode(&[0; 12_000], &mut encoded), Codec::Zstd);
    assert!(encoded.len() < 100);
    encoded.clear();
    assert_eq!(encoder.encode(&[7], &mut encoded), Codec::Raw);
}
