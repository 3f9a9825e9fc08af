//! What sealed objects and their plaintexts must be (SPEC sections 6, 9 and 10).

use repo_format::*;

use crate::raw::Raw;
use crate::samples::*;

const MIB: u32 = 1 << 20;

fn bad(text: &'static str) -> FormatError {
    FormatError::BadValue(text)
}

const FOREIGN: &str = "a decision is named that is another session's";
const UNUSED: &str = "a table has a pack that nothing refers to";
const UNLISTED: &str = "an entry number is not in the table";

fn raw_name() -> DecisionName {
    DecisionName { vm: VmTag([0xaa; 16]), writer: writer(), seq: 3, session: SessionId([2; 16]) }
}

#[test]
fn intents_and_tombstones_are_what_the_specification_tells() {
    let session = SessionId([2; 16]);
    let bytes = Raw::new().put(&[2; 16]).decision_name(2).u32(6).u64(7).0;
    let intent = Intent { session, decision: raw_name(), generation: 6, time: 7 };
    assert_eq!(Intent::parse(&bytes), Ok(intent.clone()));
    assert_eq!(intent.encode(), bytes);
    let foreign = Raw::new().put(&[2; 16]).decision_name(1).u32(6).u64(7).0;
    assert_eq!(Intent::parse(&foreign), Err(bad(FOREIGN)));

    let bytes = Raw::new().put(&[2; 16]).u64(7).decision_name(2).0;
    let tombstone = Tombstone { session, time: 7, decision: raw_name() };
    assert_eq!(Tombstone::parse(&bytes), Ok(tombstone.clone()));
    assert_eq!(tombstone.encode(), bytes);
    let foreign = Raw::new().put(&[2; 16]).u64(7).decision_name(1).0;
    assert_eq!(Tombstone::parse(&foreign), Err(bad(FOREIGN)));
}

#[test]
fn an_object_moved_to_another_name_is_rejected() {
    let keys = keys();
    let misnamed = |what| Err(bad(what));
    let intent = Intent { session: SESSION, decision: decision_name(), generation: 4, time: 5 };
    let other = BlobName::intent(&writer(), SessionId([1; 16]));
    let blob = seal(&keys, SealedKind::Intent, &other, SALT, &intent.encode());
    let error = "the intent is not the one that its name calls for";
    assert_eq!(Intent::open(&keys, &other, &blob), misnamed(error));

    let tombstone = Tombstone { session: SESSION, time: 9, decision: decision_name() };
    let other = BlobName::tombstone(VmTag([0; 16]), SESSION);
    let blob = seal(&keys, SealedKind::Tombstone, &other, SALT, &tombstone.encode());
    let error = Err(bad("the tombstone is not the one that its name calls for"));
    assert_eq!(Tombstone::open(&keys, &other, &blob), error);

    let decision = Decision::Commit(Box::new(commit()));
    for other in [
        DecisionName { session: SessionId([1; 16]), ..decision_name() },
        DecisionName { vm: VmTag([0; 16]), ..decision_name() },
    ] {
        let blob = seal(&keys, SealedKind::Decision, &other.blob(), SALT, &decision.encode());
        let error = Err(bad("the decision is not the one that its name calls for"));
        assert_eq!(Decision::open(&keys, &other, &blob), error);
    }
}

#[test]
fn an_abort_does_not_name_its_vm() {
    let keys = keys();
    let name = DecisionName { vm: VmTag([0; 16]), ..decision_name() };
    let abort = Abort { session: SESSION, time: 1, program: "keepstone".into(), by: AbortBy::Pruner };
    let decision = Decision::Abort(abort);
    assert_eq!(Decision::open(&keys, &name, &decision.seal(&keys, &name, SALT)), Ok(decision));
}

#[test]
fn sealed_objects_open_as_what_they_are_only() {
    let keys = keys();
    let name = BlobName::repack(SESSION);
    let blob = seal(&keys, SealedKind::Repack, &name, SALT, b"plaintext");
    assert_eq!(open(&keys, SealedKind::Repack, &name, &blob), Ok(b"plaintext".to_vec()));
    let kind = |found| Err(FormatError::BadType { what: "the type of a sealed object", found });
    assert_eq!(open(&keys, SealedKind::Intent, &name, &blob), kind(1));
    let other = BlobName::repack(SessionId([0; 16]));
    assert_eq!(open(&keys, SealedKind::Repack, &other, &blob), Err(FormatError::BadTag));
    let foreign = Keys::from_root(&RootKey::new([0; 32]), REPOSITORY);
    assert_eq!(open(&foreign, SealedKind::Repack, &name, &blob), Err(FormatError::BadTag));

    let changed = |at: usize, value: u8| {
        let mut bytes = blob.clone();
        bytes[at] = value;
        open(&keys, SealedKind::Repack, &name, &bytes)
    };
    assert_eq!(changed(0, b'k'), Err(FormatError::BadMagic));
    assert_eq!(changed(8, 1), Err(FormatError::UnsupportedVersion { found: 1 }));
    assert_eq!(changed(10, 7), kind(7));
    assert_eq!(changed(11, 1), Err(FormatError::BadFlags));
    assert_eq!(changed(12, 8), Err(FormatError::TrailingBytes));
    assert_eq!(changed(12, 10), Err(FormatError::Truncated));
    let limit =
        FormatError::LimitExceeded { what: "plaintext length", found: (255 << 24) + 9, limit: 64 << 20 };
    assert_eq!(changed(15, 255), Err(limit));
}

#[test]
fn one_salt_with_two_contents_gives_two_keys() {
    let keys = keys();
    let name = BlobName::repack(SESSION);
    let blob = |plaintext: &[u8]| seal(&keys, SealedKind::Repack, &name, SALT, plaintext);
    assert_eq!(blob(b"same"), blob(b"same"));
    let (one, two) = (blob(b"one content"), blob(b"two content"));
    assert_ne!(one[48..80], two[48..80]);
    let both = b"one content".iter().zip(b"two content").map(|(a, b)| a ^ b).collect::<Vec<_>>();
    let stream = one[80..91].iter().zip(&two[80..91]).map(|(a, b)| a ^ b).collect::<Vec<_>>();
    assert_ne!(both, stream);
}

fn raw_index(sessions: &[u8], table: &Raw, entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let count = |count: usize| u32::try_from(count).unwrap();
    let head = Raw::new().u32(count(sessions.len()));
    let head = sessions.iter().fold(head, |raw, session| raw.put(&[*session; 16]).decision_name(*session));
    let raw = head.put(&table.0).u32(count(entries.len()));
    let entry = |raw: Raw, (id, codec, pack, offset): &(u8, u8, u32, u32)| {
        raw.put(&[*id; 32]).u8(*codec).u32(*pack).u32(*offset).u32(116).u32(100)
    };
    entries.iter().fold(raw, entry).0
}

#[test]
fn indexes_that_break_a_rule_are_rejected() {
    let table = |session| Raw::new().u32(1).group(1, "host-1", session, &[(0, MIB)]);
    let parse = |sessions: &[u8], table: &Raw, entries: &[(u8, u8, u32, u32)]| {
        Index::parse(&raw_index(sessions, table, entries)).map(|index| index.entries.len())
    };
    assert_eq!(parse(&[2, 4], &table(2), &[(1, 1, 0, 176), (2, 1, 0, 292)]), Ok(2));
    assert_eq!(parse(&[], &Raw::new().u32(0), &[]), Ok(0));
    let order = |what| Err(FormatError::OutOfOrder(what));
    assert_eq!(parse(&[4, 2], &table(2), &[(1, 1, 0, 176)]), order("the sessions of an index"));
    assert_eq!(parse(&[2, 2], &table(2), &[(1, 1, 0, 176)]), order("the sessions of an index"));
    let entries = "the entries of an index";
    assert_eq!(parse(&[2], &table(2), &[(2, 1, 0, 176), (1, 1, 0, 292)]), order(entries));
    assert_eq!(parse(&[2], &table(2), &[(1, 1, 0, 176), (1, 1, 0, 292)]), order(entries));
    let stranger = bad("an index has a pack that is no data pack of its sessions");
    assert_eq!(parse(&[2], &table(3), &[(1, 1, 0, 176)]), Err(stranger.clone()));
    let map_pack = Raw::new().u32(1).group(2, "host-1", 2, &[(0, MIB)]);
    assert_eq!(parse(&[2], &map_pack, &[(1, 1, 0, 176)]), Err(stranger.clone()));
    let other_writer = Raw::new().u32(1).group(1, "host-2", 2, &[(0, MIB)]);
    assert_eq!(parse(&[2], &other_writer, &[(1, 1, 0, 176)]), Err(stranger));
    assert_eq!(parse(&[2], &table(2), &[]), Err(bad(UNUSED)));
    assert_eq!(parse(&[2], &table(2), &[(1, 1, 1, 176)]), Err(bad(UNLISTED)));
    assert_eq!(parse(&[2], &table(2), &[(1, 1, 0, 175)]), Err(bad("a frame does not lie within its pack")));
    assert_eq!(
        parse(&[2], &table(2), &[(1, 2, 0, 176)]),
        Err(bad("the lengths of a frame do not fit its codec"))
    );
    assert_eq!(
        parse(&[2], &table(2), &[(1, 0, 0, 176)]),
        Err(FormatError::BadType { what: "codec", found: 0 })
    );
    let foreign = Raw::new().u32(1).put(&[2; 16]).decision_name(3).u32(0).u32(0).0;
    assert_eq!(Index::parse(&foreign), Err(bad(FOREIGN)));
    assert_eq!(Index::parse(&Raw::new().u32(u32::MAX).0), Err(FormatError::Truncated));
}

#[test]
fn generations_that_break_a_rule_are_rejected() {
    let table = || Raw::new().u32(1).group(1, "host-1", 2, &[(0, MIB), (1, MIB)]);
    let packs = |numbers: &[u32]| -> Vec<PackRef> {
        let name =
            PackName { kind: PackKind::Data, writer: writer(), session: SessionId([2; 16]), number: 0 };
        numbers
            .iter()
            .map(|number| PackRef { name: PackName { number: *number, ..name.clone() }, len: MIB })
            .collect()
    };
    assert_eq!(Condemned::parse(&table().0), Ok(Condemned { packs: packs(&[0, 1]) }));
    assert_eq!(Condemned::parse(&Raw::new().u32(0).0), Ok(Condemned { packs: Vec::new() }));
    assert_eq!(Condemned::parse(&table().u8(0).0), Err(FormatError::TrailingBytes));
    let result = |roster: &[u8]| {
        let raw = table().u32(0).u32(u32::try_from(roster.len()).unwrap());
        GcResult::parse(&roster.iter().fold(raw, |raw, session| raw.put(&[*session; 16])).0)
    };
    let roster = vec![SessionId([1; 16]), SessionId([2; 16])];
    assert_eq!(result(&[1, 2]), Ok(GcResult { delete: packs(&[0, 1]), rescued: Vec::new(), roster }));
    let order = FormatError::OutOfOrder("the sessions of a roster");
    assert_eq!(result(&[2, 1]), Err(order.clone()));
    assert_eq!(result(&[2, 2]), Err(order));
    let keys = keys();
    let blob = seal(&keys, SealedKind::GenerationSeal, &BlobName::generation_seal(1), SALT, b"x");
    assert_eq!(GenerationSeal::open(&keys, 1, &blob), Err(FormatError::TrailingBytes));
}

/// A repack record with these moves: old pack, old offset, new pack, new offset.
fn raw_record(table: &Raw, moves: &[(u32, u32, u32, u32)]) -> Vec<u8> {
    let raw = Raw::new().put(&[2; 16]).decision_name(2).u32(1).put(&[5; 16]).put(&table.0);
    let raw = raw.u32(u32::try_from(moves.len()).unwrap());
    let moved = |raw: Raw, (old, old_offset, new, new_offset): &(u32, u32, u32, u32)| {
        raw.put(&[9; 32]).u32(*old).u32(*old_offset).u8(1).u32(*new).u32(*new_offset).u32(116).u32(100)
    };
    moves.iter().fold(raw, moved).0
}

#[test]
fn repack_records_that_break_a_rule_are_rejected() {
    let table = Raw::new().u32(1).group(1, "host-1", 2, &[(0, MIB), (1, MIB)]);
    let parse = |moves: &[(u32, u32, u32, u32)]| {
        RepackRecord::parse(&raw_record(&table, moves)).map(|record| record.moves.len())
    };
    assert_eq!(parse(&[(0, 176, 1, 176), (0, 300, 1, 292)]), Ok(2));
    let order = FormatError::OutOfOrder("the moves of a repack record");
    assert_eq!(parse(&[(0, 300, 1, 176), (0, 176, 1, 292)]), Err(order.clone()));
    assert_eq!(parse(&[(0, 176, 1, 176), (0, 176, 1, 292)]), Err(order));
    let outside = bad("a frame does not lie within its pack");
    assert_eq!(parse(&[(0, 175, 1, 176)]), Err(outside.clone()));
    assert_eq!(parse(&[(0, MIB, 1, 176)]), Err(outside.clone()));
    assert_eq!(parse(&[(0, 176, 1, 175)]), Err(outside.clone()));
    assert_eq!(parse(&[(0, 176, 1, MIB - 115)]), Err(outside));
    assert_eq!(parse(&[(0, 176, 2, 176)]), Err(bad(UNLISTED)));
    assert_eq!(parse(&[]), Err(bad(UNUSED)));
    let nowhere = bad("a move does not lead to another pack of the same kind");
    assert_eq!(parse(&[(0, 176, 0, 176)]), Err(nowhere.clone()));
    let kinds = Raw::new().u32(2).group(1, "host-1", 2, &[(0, MIB)]).group(2, "host-1", 2, &[(0, MIB)]);
    assert_eq!(RepackRecord::parse(&raw_record(&kinds, &[(0, 176, 1, 176)])), Err(nowhere));
}

/// What a COMMIT consists of, so that a test can spoil one part.
struct RawCommit {
    verdict: u8,
    vm: &'static str,
    parent: Raw,
    via: Raw,
    tags: Raw,
    properties: Raw,
    disks: Raw,
}

fn raw_commit() -> RawCommit {
    RawCommit {
        verdict: 1,
        vm: "db-1",
        parent: Raw::new().u8(0),
        via: Raw::new().u32(0),
        tags: Raw::new().u16(0),
        properties: Raw::new().u16(0),
        disks: Raw::new().u16(1).put(&raw_disk("disk0", 512, 0, 1, 0).0),
    }
}

fn raw_disk(key: &str, size: u64, has_change_id: u8, mode: u8, codec: u8) -> Raw {
    Raw::new().str8(key).u64(size).u8(has_change_id).u8(mode).u64(1).u64(2).u8(codec)
}

fn parse(commit: RawCommit) -> Result<Commit, FormatError> {
    let RawCommit { verdict, vm, parent, via, tags, properties, disks } = commit;
    let raw = Raw::new().u8(verdict).put(&[2; 16]).u64(5).str8("keepstone").str8(vm);
    let raw = [parent, via, tags, properties, disks].iter().fold(raw, |raw, part| raw.put(&part.0));
    let raw = raw.u64(1).u64(2).u64(3).u64(4).u64(5).u32(6).u32(7);
    let decision = Decision::parse(&raw.0)?;
    assert_eq!(decision.encode(), raw.0, "there is one encoding of each value");
    match decision {
        Decision::Commit(commit) => Ok(*commit),
        Decision::Abort(abort) => panic!("{abort:?} is no COMMIT"),
    }
}

#[test]
fn a_commit_is_what_the_specification_tells() {
    let place =
        Raw::new().str8("host-1").put(&[2; 16]).u32(0).u32(MIB).u32(176).u32(216).u32(200).put(&[3; 32]);
    let disk =
        Raw::new().str8("disk0").u64(1 << 40).u8(1).str16("id 1").u8(2).u64(8).u64(9).u8(1).put(&place.0);
    let raw = RawCommit {
        parent: Raw::new().u8(1).decision_name(1),
        via: Raw::new().u32(1).put(&[7; 16]),
        tags: Raw::new().u16(2).str8("a").str8("b"),
        properties: Raw::new().u16(1).str8("os").str16("linux"),
        disks: Raw::new().u16(1).put(&disk.0),
        ..raw_commit()
    };
    let commit = parse(raw).unwrap();
    let name = PackName { kind: PackKind::Map, writer: writer(), session: SessionId([2; 16]), number: 0 };
    let root = Location {
        pack: PackRef { name, len: MIB },
        codec: Codec::Raw,
        offset: 176,
        stored_len: 216,
        plain_len: 200,
        id: PayloadId([3; 32]),
    };
    let disk = Disk {
        key: "disk0".into(),
        size: 1 << 40,
        change_id: Some("id 1".into()),
        mode: DiskMode::Incremental,
        changed_bytes: 8,
        read_bytes: 9,
        map: Some(root),
    };
    let totals = Totals {
        chunks: 1,
        new_chunks: 2,
        new_bytes: 3,
        stored_bytes: 4,
        metadata_bytes: 5,
        data_packs: 6,
        map_packs: 7,
    };
    let expected = Commit {
        session: SessionId([2; 16]),
        time: 5,
        program: "keepstone".into(),
        vm: "db-1".into(),
        parent: Some(DecisionName { session: SessionId([1; 16]), ..raw_name() }),
        via: vec![SessionId([7; 16])],
        tags: vec!["a".into(), "b".into()],
        properties: vec![("os".into(), "linux".into())],
        disks: vec![disk],
        totals,
    };
    assert_eq!(commit, expected);
}

#[test]
fn commits_that_break_a_rule_are_rejected() {
    let order = |what| Err(FormatError::OutOfOrder(what));
    assert!(parse(raw_commit()).is_ok());
    let verdict = FormatError::BadType { what: "verdict", found: 3 };
    assert_eq!(parse(RawCommit { verdict: 3, ..raw_commit() }), Err(verdict));
    assert!(matches!(parse(RawCommit { vm: "", ..raw_commit() }), Err(FormatError::Name(_))));
    assert!(matches!(parse(RawCommit { vm: "a\tb", ..raw_commit() }), Err(FormatError::Name(_))));
    let parent = Raw::new().u8(2).decision_name(1);
    assert_eq!(parse(RawCommit { parent, ..raw_commit() }), Err(FormatError::BadFlags));
    let via = Raw::new().u32(2).put(&[8; 16]).put(&[7; 16]);
    assert_eq!(parse(RawCommit { via, ..raw_commit() }), order("the records of a snapshot"));
    let tags = |a, b| RawCommit { tags: Raw::new().u16(2).str8(a).str8(b), ..raw_commit() };
    assert_eq!(parse(tags("b", "a")), order("the tags of a snapshot"));
    assert_eq!(parse(tags("a", "a")), order("the tags of a snapshot"));
    assert!(matches!(parse(tags("", "a")), Err(FormatError::Name(_))));
    let many = RawCommit { tags: Raw::new().u16(1025), ..raw_commit() };
    let limit = FormatError::LimitExceeded { what: "number of tags", found: 1025, limit: 1024 };
    assert_eq!(parse(many), Err(limit));
    let properties = Raw::new().u16(2).str8("b").str16("1").str8("a").str16("2");
    assert_eq!(parse(RawCommit { properties, ..raw_commit() }), order("the properties of a snapshot"));
    let properties = Raw::new().u16(2).str8("a").str16("1").str8("a").str16("2");
    assert_eq!(parse(RawCommit { properties, ..raw_commit() }), order("the properties of a snapshot"));
}

#[test]
fn disks_that_break_a_rule_are_rejected() {
    let with = |disks: &[Raw]| {
        let raw = Raw::new().u16(u16::try_from(disks.len()).unwrap());
        let disks = disks.iter().fold(raw, |raw, disk| raw.put(&disk.0));
        parse(RawCommit { disks, ..raw_commit() }).map(|commit| commit.disks.len())
    };
    let disk = |key: &str| raw_disk(key, 512, 0, 1, 0);
    assert_eq!(with(&[disk("a"), disk("b")]), Ok(2));
    assert_eq!(with(&[raw_disk("a", 1 << 62, 0, 2, 0)]), Ok(1));
    assert_eq!(with(&[]), Err(bad("a snapshot has no disk")));
    assert_eq!(with(&[disk("b"), disk("a")]), Err(FormatError::OutOfOrder("the disks of a snapshot")));
    assert_eq!(with(&[disk("a"), disk("a")]), Err(FormatError::OutOfOrder("the disks of a snapshot")));
    assert!(matches!(with(&[disk("a=b")]), Err(FormatError::Name(_))));
    let size = Err(bad("the size of a disk is not allowed"));
    assert_eq!(with(&[raw_disk("a", 0, 0, 1, 0)]), size);
    assert_eq!(with(&[raw_disk("a", (1 << 62) + 1, 0, 1, 0)]), size);
    assert_eq!(with(&[raw_disk("a", 1, 2, 1, 0)]), Err(FormatError::BadFlags));
    let mode = FormatError::BadType { what: "disk mode", found: 3 };
    assert_eq!(with(&[raw_disk("a", 1, 0, 3, 0)]), Err(mode));
    let codec = FormatError::BadType { what: "codec", found: 3 };
    assert_eq!(with(&[raw_disk("a", 1, 0, 1, 3)]), Err(codec));
    let place = |offset, len| {
        Raw::new().str8("host-1").put(&[2; 16]).u32(0).u32(MIB).u32(offset).u32(len).u32(200).put(&[3; 32])
    };
    let root = |offset, len| with(&[raw_disk("a", 1, 0, 1, 1).put(&place(offset, len).0)]);
    assert_eq!(root(176, 216), Ok(1));
    assert_eq!(root(175, 216), Err(bad("a frame does not lie within its pack")));
    assert_eq!(root(176, 217), Err(bad("the lengths of a frame do not fit its codec")));
    let many = RawCommit { disks: Raw::new().u16(1025), ..raw_commit() };
    let limit = FormatError::LimitExceeded { what: "number of disks", found: 1025, limit: 1024 };
    assert_eq!(parse(many), Err(limit));
}

#[test]
fn aborts_are_what_the_specification_tells() {
    let raw = |by| Raw::new().u8(2).put(&[2; 16]).u64(5).str8("keepstone").u8(by).0;
    let abort = |by| {
        let (session, program) = (SessionId([2; 16]), "keepstone".into());
        Ok(Decision::Abort(Abort { session, time: 5, program, by }))
    };
    assert_eq!(Decision::parse(&raw(1)), abort(AbortBy::Writer));
    assert_eq!(Decision::parse(&raw(2)), abort(AbortBy::Pruner));
    let author = FormatError::BadType { what: "the author of an ABORT", found: 3 };
    assert_eq!(Decision::parse(&raw(3)), Err(author));
    assert_eq!(Decision::parse(&[&raw(1)[..], &[0]].concat()), Err(FormatError::TrailingBytes));
}

#[test]
fn what_a_user_named_can_be_refused_before_it_is_written() {
    assert_eq!(commit().check(), Ok(()));
    let twice = Commit { tags: vec!["a".into(), "a".into()], ..commit() };
    assert_eq!(twice.check(), Err(FormatError::OutOfOrder("the tags of a snapshot")));
    let long = Commit { program: "p".repeat(256), ..commit() };
    let limit = FormatError::LimitExceeded { what: "program length", found: 256, limit: 255 };
    assert_eq!(long.check(), Err(limit));
}
