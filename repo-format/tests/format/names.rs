//! Names of blobs and of what users name (SPEC section 2).

use repo_format::*;

use crate::samples::*;

#[test]
fn every_name_tells_what_the_blob_is() {
    let slot = SlotName::new("ops-1").unwrap();
    let vm = VmTag([0xab; 16]);
    let pack = pack_name(PackKind::Map, 0x1f);
    let decision = DecisionName { vm, writer: writer(), seq: 16, session: SESSION };
    let replica = ReplicaName::new("west").unwrap();
    let (writer, session) = (writer(), SESSION);
    let tag = "abababababababababababababababab";
    let sid = "22222222222222222222222222222222";
    let names = [
        (BlobName::config(), "config".to_owned(), BlobKind::Config),
        (BlobName::key_slot(&slot), "keys/ops-1".to_owned(), BlobKind::KeySlot(slot)),
        (
            BlobName::intent(&writer, session),
            format!("s/host-1/{sid}"),
            BlobKind::Intent { writer: writer.clone(), session },
        ),
        (pack.blob(), format!("m/host-1/{sid}-0000001f"), BlobKind::Pack(pack)),
        (
            BlobName::index(&writer, session, 2),
            format!("i/host-1/{sid}-00000002"),
            BlobKind::Index { writer: writer.clone(), session, number: 2 },
        ),
        (decision.blob(), format!("r/{tag}/host-1/00000010-{sid}"), BlobKind::Decision(decision)),
        (BlobName::tombstone(vm, session), format!("f/{tag}/{sid}"), BlobKind::Tombstone { vm, session }),
        (BlobName::condemned(10), "gc/0000000a/condemned".to_owned(), BlobKind::Condemned(10)),
        (BlobName::awaited(10), "gc/0000000a/awaited".to_owned(), BlobKind::Awaited(10)),
        (BlobName::result(10), "gc/0000000a/result".to_owned(), BlobKind::GcResult(10)),
        (BlobName::generation_seal(10), "gc/0000000a/sealed".to_owned(), BlobKind::GenerationSeal(10)),
        (BlobName::repack(session), format!("k/{sid}"), BlobKind::Repack(session)),
        (
            BlobName::pin(vm, session, 0x1f),
            format!("p/{tag}/{sid}-0000001f"),
            BlobKind::Pin { vm, session, number: 0x1f },
        ),
        (BlobName::replica_marker(), "lineage/replica".to_owned(), BlobKind::ReplicaMarker),
        (BlobName::lineage(0x1f), "lineage/0000001f".to_owned(), BlobKind::Lineage(0x1f)),
        (
            BlobName::barrier(&replica, 0x1f),
            "b/west/0000001f".to_owned(),
            BlobKind::Barrier { replica, number: 0x1f },
        ),
    ];
    for (name, text, kind) in names {
        assert_eq!(name.as_str(), text);
        assert_eq!(BlobName::parse(&text), Some(name.clone()));
        assert_eq!(name.kind(), Some(kind));
    }
}

#[test]
fn canaries_are_the_first_the_last_and_one_in_the_middle_of_their_prefixes() {
    let canaries = BlobName::canaries();
    assert_eq!(canaries.len(), 27);
    for canary in &canaries {
        assert_eq!(canary.kind(), Some(BlobKind::Canary));
        assert_eq!(BlobName::parse(canary.as_str()).as_ref(), Some(canary));
    }
    let writers = ["0".repeat(63), "9z".to_owned(), "z".repeat(63)].map(|name| WriterId::new(&name).unwrap());
    let sessions = [SessionId([0; 16]), SessionId([0xff; 16])];
    for name in writers.iter().flat_map(|writer| sessions.map(|session| BlobName::intent(writer, session))) {
        assert!(canaries[0] < name && name < canaries[2], "{name}");
    }
    assert!(BlobName::intent(&WriterId::new("h").unwrap(), SESSION) < canaries[1]);
    assert!(canaries[1] < BlobName::intent(&WriterId::new("i").unwrap(), SESSION));
    let [first, middle, last] = ["k/-", "k/7_", "k/~"].map(|text| BlobName::parse(text).unwrap());
    assert!(first < BlobName::repack(sessions[0]) && BlobName::repack(SessionId([0x79; 16])) < middle);
    assert!(middle < BlobName::repack(SessionId([0x7a; 16])) && BlobName::repack(sessions[1]) < last);
    for text in ["keys/~", "s/7_", "k/h_", "k/_", "k/7_/", "x/-"] {
        assert_eq!(BlobName::parse(text).and_then(|name| name.kind()), None, "{text}");
    }
}

#[test]
fn names_begin_with_their_prefixes() {
    let name = pack_name(PackKind::Data, 1);
    assert!(name.blob().as_str().starts_with(&packs_prefix(PackKind::Data, &writer(), SESSION)));
    assert!(name.blob().as_str().starts_with(PREFIX_DATA));
    let decision = decision_name();
    assert!(decision.blob().as_str().starts_with(&decisions_prefix(decision.vm)));
    let tombstone = BlobName::tombstone(decision.vm, SESSION);
    assert!(tombstone.as_str().starts_with(&tombstones_prefix(decision.vm)));
    let pin = BlobName::pin(decision.vm, SESSION, 0);
    assert!(pin.as_str().starts_with(&pins_prefix(decision.vm)));
    assert!(pin.as_str().starts_with(PREFIX_PINS));
}

#[test]
fn names_of_no_meaning_are_blobs_of_no_kind() {
    let sid = "22222222222222222222222222222222";
    let strange = [
        "other".to_owned(),
        "config/more".to_owned(),
        "keys/-ops".to_owned(),
        format!("d/host-1/{sid}-1"),
        format!("d/host-1/{sid}-000000010"),
        format!("d/host-1/{sid}"),
        format!("d/host-1/{sid}-00000001/more"),
        format!("d/host.1/{sid}-00000001"),
        format!("x/host-1/{sid}-00000001"),
        format!("k/{sid}0"),
        "gc/00000001/other".to_owned(),
        "gc/00000001".to_owned(),
    ];
    for text in strange {
        let name = BlobName::parse(&text).unwrap_or_else(|| panic!("{text} has the form of a name"));
        assert_eq!(name.kind(), None, "{text}");
    }
}

#[test]
fn text_without_the_form_of_a_name_is_none() {
    let long = format!("a/{}", "b".repeat(254));
    for text in ["", "/a", "a/", "a//b", "a/./b", "../a", "A", "a_b", "a b", "a\\b", "ü", &long] {
        assert_eq!(BlobName::parse(text), None, "{text}");
    }
    assert!(BlobName::parse(&long[..255]).is_some());
}

#[test]
fn hexadecimal_is_lower_case_and_of_the_right_length() {
    let id = PayloadId([0x0f; 32]);
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in [
        "",
        "0F0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
        "0g0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
        "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0",
        "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
    ] {
        assert!(text.parse::<SessionId>().is_err(), "{text}");
    }
}
