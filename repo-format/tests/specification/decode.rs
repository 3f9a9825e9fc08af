//! Decodes what a vector has, as its `object` line says, and checks that encoding it again gives the same bytes.

use crate::fields::{self, Fields};
use crate::keys::{all_keys, config, key_slot, keys, retention_key, session_key};
use crate::packs::{directory, pack, pack_header, payload};
use crate::vector::Vector;
use repo_format::{
    Awaited, Barrier, BlobKind, BlobName, ChunkerName, ChunkerParams, Condemned, Decision, DecisionName,
    FormatError, GcResult, GenerationSeal, Geometry, Index, Intent, Keys, Lineage, Node, Page, PageBounds,
    Pin, RepackRecord, ReplicaMarker, RetentionKey, SealedKind, Tombstone, child_count, child_span, open,
    root_level, seal,
};

/// Why nothing was decoded.
#[derive(Debug)]
pub enum Failure {
    /// A name has no meaning.
    Ignored,
    /// Bytes are rejected.
    Rejected(FormatError),
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self::Rejected(error)
    }
}

/// What can be decoded here; chunks are a matter of `engine`, and scenarios of the tests that they name.
pub fn is_decoded(object: &str) -> bool {
    !matches!(object, "chunks" | "scenario")
}

/// Decodes the bytes of a vector.
pub fn decode(vector: &Vector) -> Result<Fields, Failure> {
    Ok(match vector.object.as_str() {
        "name" => return name(&vector.bytes).ok_or(Failure::Ignored),
        "keys" => all_keys(vector),
        "session-key" => session_key(vector)?,
        "config" => config(vector)?,
        "key-slot" => key_slot(vector)?,
        "page" => page(vector)?,
        "node" => node(vector)?,
        "levels" => levels(vector),
        "directory" => directory(vector)?,
        "pack-header" => pack_header(vector)?,
        "pack" => pack(vector)?,
        "payload" => payload(vector)?,
        _ => object(vector)?,
    })
}

/// An object of SPEC sections 9 and 10, or any that is sealed.
fn object(vector: &Vector) -> Result<Fields, FormatError> {
    Ok(match vector.object.as_str() {
        "sealed" => [("plaintext".to_owned(), fields::hex(&sealed(vector)?))].into(),
        "intent" => {
            fields::intent(&whole(vector, Intent::parse, Intent::open, Intent::encode, |intent, seals| {
                intent.seal(&seals.keys, seals.salt).1
            })?)
        }
        "index" => {
            fields::index(&whole(vector, Index::parse, Index::open, Index::encode, |index, seals| {
                seal(&seals.keys, SealedKind::Index, &seals.name, seals.salt, &index.encode())
            })?)
        }
        "tombstone" => {
            let again =
                |value: &Tombstone, seals: &Seals| value.seal(&seals.keys, &seals.retention(), seals.salt).1;
            fields::tombstone(&whole(vector, Tombstone::parse, Tombstone::open, Tombstone::encode, again)?)
        }
        "pin" => {
            let again = |value: &Pin, seals: &Seals| {
                let Some(BlobKind::Pin { number, .. }) = seals.name.kind() else {
                    panic!("{} is no pin", seals.name)
                };
                value.seal(&seals.keys, &seals.retention(), number, seals.salt).1
            };
            fields::pin(&whole(vector, Pin::parse, Pin::open, Pin::encode, again)?)
        }
        "repack" => {
            let again = |value: &RepackRecord, seals: &Seals| {
                value.seal(&seals.keys, &seals.retention(), seals.salt).1
            };
            fields::repack(&whole(
                vector,
                RepackRecord::parse,
                RepackRecord::open,
                RepackRecord::encode,
                again,
            )?)
        }
        "decision" => {
            let opened =
                |keys: &Keys, name: &BlobName, blob: &[u8]| Decision::open(keys, &decision_name(name), blob);
            let again = |value: &Decision, seals: &Seals| {
                let name = decision_name(&seals.name);
                if value.is_signed() {
                    value.seal_signed(&seals.keys, &seals.retention(), &name, seals.salt)
                } else {
                    value.seal(&seals.keys, &name, seals.salt)
                }
            };
            fields::decision(&whole(vector, Decision::parse, opened, Decision::encode, again)?)
        }
        "replica-marker" | "lineage" | "barrier" => of_replicas(vector)?,
        _ => of_generation(vector)?,
    })
}

/// An object of SPEC 10.7 or 10.8.
fn of_replicas(vector: &Vector) -> Result<Fields, FormatError> {
    Ok(match vector.object.as_str() {
        "replica-marker" => {
            let opened = |keys: &Keys, _: &BlobName, blob: &[u8]| ReplicaMarker::open(keys, blob);
            let again = |value: &ReplicaMarker, seals: &Seals| value.seal(&seals.keys, seals.salt).1;
            fields::replica_marker(&whole(
                vector,
                ReplicaMarker::parse,
                opened,
                ReplicaMarker::encode,
                again,
            )?)
        }
        "lineage" => {
            let again =
                |value: &Lineage, seals: &Seals| value.seal(&seals.keys, &seals.retention(), seals.salt).1;
            fields::lineage(&whole(vector, Lineage::parse, Lineage::open, Lineage::encode, again)?)
        }
        _ => {
            let again =
                |value: &Barrier, seals: &Seals| value.seal(&seals.keys, &seals.retention(), seals.salt).1;
            fields::barrier(&whole(vector, Barrier::parse, Barrier::open, Barrier::encode, again)?)
        }
    })
}

/// An object of SPEC 10.4.
fn of_generation(vector: &Vector) -> Result<Fields, FormatError> {
    Ok(match vector.object.as_str() {
        "condemned" => {
            let opened =
                |keys: &Keys, name: &BlobName, blob: &[u8]| Condemned::open(keys, generation(name), blob);
            let again = |value: &Condemned, seals: &Seals| {
                value.seal(&seals.keys, &seals.retention(), generation(&seals.name), seals.salt).1
            };
            fields::condemned(&whole(vector, Condemned::parse, opened, Condemned::encode, again)?)
        }
        "awaited" => {
            let opened =
                |keys: &Keys, name: &BlobName, blob: &[u8]| Awaited::open(keys, generation(name), blob);
            let again = |value: &Awaited, seals: &Seals| {
                value.seal(&seals.keys, &seals.retention(), generation(&seals.name), seals.salt).1
            };
            fields::awaited(&whole(vector, Awaited::parse, opened, Awaited::encode, again)?)
        }
        "result" => {
            let opened =
                |keys: &Keys, name: &BlobName, blob: &[u8]| GcResult::open(keys, generation(name), blob);
            let again = |value: &GcResult, seals: &Seals| {
                value.seal(&seals.keys, &seals.retention(), generation(&seals.name), seals.salt).1
            };
            fields::result(&whole(vector, GcResult::parse, opened, GcResult::encode, again)?)
        }
        "generation-seal" => {
            let opened = |keys: &Keys, name: &BlobName, blob: &[u8]| {
                GenerationSeal::open(keys, generation(name), blob)
            };
            let again = |value: &GenerationSeal, seals: &Seals| {
                value.seal(&seals.keys, &seals.retention(), generation(&seals.name), seals.salt).1
            };
            fields::generation_seal(&whole(
                vector,
                GenerationSeal::parse,
                opened,
                GenerationSeal::encode,
                again,
            )?)
        }
        other => panic!("{}: {other} is no object", vector.name),
    })
}

/// What an object is sealed with.
struct Seals<'v> {
    vector: &'v Vector,
    keys: Keys,
    name: BlobName,
    salt: [u8; 32],
}

impl Seals<'_> {
    fn retention(&self) -> RetentionKey {
        retention_key(self.vector)
    }
}

/// Parses a content, or opens the blob that the vector has a name for.
fn whole<T>(
    vector: &Vector,
    parse: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    open_blob: impl FnOnce(&Keys, &BlobName, &[u8]) -> Result<T, FormatError>,
    encode: impl FnOnce(&T) -> Vec<u8>,
    seal_again: impl FnOnce(&T, &Seals<'_>) -> Vec<u8>,
) -> Result<T, FormatError> {
    let bytes = &vector.bytes;
    if vector.get("name").is_none() {
        let value = parse(bytes)?;
        assert!(encode(&value) == *bytes, "{} is encoded in another way", vector.name);
        return Ok(value);
    }
    let (keys, name) = (keys(vector), blob_name(vector));
    let value = open_blob(&keys, &name, bytes)?;
    let seals = Seals { vector, keys, name, salt: salt(vector) };
    assert!(seal_again(&value, &seals) == *bytes, "{} is sealed in another way", vector.name);
    Ok(value)
}

fn sealed(vector: &Vector) -> Result<Vec<u8>, FormatError> {
    let kind = match vector.input("kind") {
        "intent" => SealedKind::Intent,
        "decision" => SealedKind::Decision,
        "index" => SealedKind::Index,
        "tombstone" => SealedKind::Tombstone,
        "condemned" => SealedKind::Condemned,
        "awaited" => SealedKind::Awaited,
        "result" => SealedKind::GcResult,
        "generation-seal" => SealedKind::GenerationSeal,
        "repack" => SealedKind::Repack,
        "directory" => SealedKind::PackDirectory,
        "pin" => SealedKind::Pin,
        "replica-marker" => SealedKind::ReplicaMarker,
        "lineage" => SealedKind::Lineage,
        "barrier" => SealedKind::Barrier,
        other => panic!("{}: {other} is not sealed", vector.name),
    };
    let plaintext = open(&keys(vector), kind, &blob_name(vector), &vector.bytes)?;
    let again = seal(&keys(vector), kind, &blob_name(vector), salt(vector), &plaintext);
    assert!(again == vector.bytes, "{} is sealed in another way", vector.name);
    Ok(plaintext)
}

fn salt(vector: &Vector) -> [u8; 32] {
    vector.bytes[16..48].try_into().unwrap()
}

pub fn blob_name(vector: &Vector) -> BlobName {
    BlobName::parse(vector.input("name")).unwrap()
}

fn decision_name(name: &BlobName) -> DecisionName {
    match name.kind() {
        Some(BlobKind::Decision(name)) => name,
        other => panic!("{other:?} is no decision"),
    }
}

fn generation(name: &BlobName) -> u32 {
    match name.kind() {
        Some(
            BlobKind::Condemned(number)
            | BlobKind::Awaited(number)
            | BlobKind::GcResult(number)
            | BlobKind::GenerationSeal(number),
        ) => number,
        other => panic!("{other:?} is of no generation"),
    }
}

/// Reads a blob's name, as text with or without a newline at its end; `None` if it is to be ignored.
fn name(bytes: &[u8]) -> Option<Fields> {
    let text = std::str::from_utf8(bytes.strip_suffix(b"\n").unwrap_or(bytes)).ok()?;
    let name = BlobName::parse(text)?;
    assert_eq!(name.as_str(), text);
    Some(fields::blob_kind(&name.kind()?))
}

fn page(vector: &Vector) -> Result<Fields, FormatError> {
    let mut geometry = Geometry::default();
    let (min, average, max) = (vector.number("min"), vector.number("average"), vector.number("max"));
    geometry.chunker = ChunkerParams { name: ChunkerName::FastCdc2020, min, average, max };
    geometry.region_len = vector.number("region-len");
    geometry.cell_len = vector.number("cell-len");
    assert_eq!(geometry.check(), Ok(()), "{}", vector.name);
    let bounds = PageBounds::of(&geometry, vector.number("disk-size"), vector.number("cell")).unwrap();
    let page = Page::parse(&vector.bytes, &bounds)?;
    assert_eq!(page.encode(), vector.bytes, "{}", vector.name);
    Ok(fields::page(&page))
}

fn node(vector: &Vector) -> Result<Fields, FormatError> {
    let own = fields::read_pack(vector.input("pack"));
    let node = Node::parse(&vector.bytes, vector.number("level"), vector.number("children"), &own)?;
    assert_eq!(node.encode(&own.name), vector.bytes, "{}", vector.name);
    Ok(fields::node(&node))
}

fn levels(vector: &Vector) -> Fields {
    let (size, cell_len) = (vector.number("size"), vector.number("cell-len"));
    let level = root_level(size, cell_len);
    [
        ("root-level".to_owned(), level.to_string()),
        ("child-span".to_owned(), child_span(level, cell_len).to_string()),
        ("children".to_owned(), child_count(size, level, cell_len).to_string()),
    ]
    .into()
}
