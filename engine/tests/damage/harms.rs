//! What is done to a blob.

use crate::lab::Lab;
use crate::world::{create_from_seed, small_geometry};
use keepstone_engine::BlobStore;
use keepstone_engine::store::MemoryStore;
use repo_format::{BlobKind, BlobName, DecisionName, PackName, SessionId, SlotName};
use std::collections::BTreeMap;
use std::mem::discriminant;

/// One damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    Delete,
    /// All but the first so many bytes are gone; 0 leaves an empty blob.
    Cut(usize),
    /// So many bytes are added.
    Extend(usize),
    /// A bit of the byte is another.
    Flip(usize),
    /// It and another of its kind have changed places.
    Swap,
    /// The same with one of equal length.
    SwapEqual,
    /// An older one of its kind is in its place.
    Older,
    /// It is there under another name of its kind as well.
    Duplicate,
}

/// The bytes that blobs have now, where they are others than before; nothing if they are gone.
pub type Changes = BTreeMap<BlobName, Option<Vec<u8>>>;

impl Harm {
    /// Does it to a blob in a copy of the store, and tells what changed; nothing if there is no other blob that it
    /// would take.
    pub fn done(self, lab: &Lab, blob: &BlobName) -> Option<(MemoryStore, Changes)> {
        let bytes = lab.get(blob);
        let mut changes = Changes::new();
        match self {
            Self::Delete => drop(changes.insert(blob.clone(), None)),
            Self::Cut(len) => drop(changes.insert(blob.clone(), Some(bytes[..len].to_vec()))),
            Self::Extend(len) => {
                let extended = [bytes.as_slice(), &vec![0; len]].concat();
                changes.insert(blob.clone(), Some(extended));
            }
            Self::Flip(at) => {
                let mut flipped = bytes;
                flipped[at] ^= 1;
                changes.insert(blob.clone(), Some(flipped));
            }
            Self::Swap => {
                let partner = others(lab, blob).next()?;
                changes.insert(blob.clone(), Some(lab.get(&partner)));
                changes.insert(partner, Some(bytes));
            }
            Self::SwapEqual => {
                let (one, another) = equal_pair(lab, blob)?;
                changes.insert(one.clone(), Some(lab.get(&another)));
                changes.insert(another, Some(lab.get(&one)));
            }
            Self::Older => {
                let older = others(lab, blob).next().map(|partner| lab.get(&partner));
                changes.insert(blob.clone(), Some(older.or_else(|| foreign(blob))?));
            }
            Self::Duplicate => drop(changes.insert(another_name(lab, blob), Some(bytes))),
        }
        let store = lab.store.copied();
        for (name, bytes) in &changes {
            match bytes {
                Some(bytes) => store.overwrite(name, bytes),
                None => store.delete(name).unwrap(),
            }
        }
        Some((store, changes))
    }
}

/// The other blobs of a kind, the oldest first where names tell.
fn others<'a>(lab: &'a Lab, blob: &'a BlobName) -> impl Iterator<Item = BlobName> + 'a {
    let bytes = lab.get(blob);
    let names = lab.store.names().into_iter().filter(move |name| name != blob && same_kind(lab, blob, name));
    names.filter(move |name| lab.get(name) != bytes)
}

fn same_kind(lab: &Lab, a: &BlobName, b: &BlobName) -> bool {
    match (a.kind().unwrap(), b.kind().unwrap()) {
        (BlobKind::Pack(a), BlobKind::Pack(b)) => a.kind == b.kind && is_needed(lab, &b),
        (a, b) => discriminant(&a) == discriminant(&b),
    }
}

/// Whether a pack is of a snapshot that was not forgotten: others may be damaged without anybody's loss.
fn is_needed(lab: &Lab, pack: &PackName) -> bool {
    lab.kept.iter().any(|kept| !kept.forgotten && kept.snapshot.session() == pack.session)
}

/// Two blobs of a kind with one length: the blob itself and another, if there is one.
fn equal_pair(lab: &Lab, blob: &BlobName) -> Option<(BlobName, BlobName)> {
    let len = |name: &BlobName| lab.get(name).len();
    let pair_of = |one: &BlobName| {
        let another = others(lab, one).find(|other| len(other) == len(one))?;
        Some((one.clone(), another))
    };
    pair_of(blob).or_else(|| others(lab, blob).find_map(|one| pair_of(&one)))
}

/// The config of another repository: the only other one of its kind.
fn foreign(blob: &BlobName) -> Option<Vec<u8>> {
    let store = MemoryStore::new();
    create_from_seed(&store, small_geometry(), [2; 32]).unwrap();
    store.get(blob, None).ok()
}

/// A name that the kind allows and nothing has.
fn another_name(lab: &Lab, blob: &BlobName) -> BlobName {
    let session = SessionId([0xee; 16]);
    match blob.kind().unwrap() {
        BlobKind::Config => BlobName::parse("config.1").unwrap(),
        BlobKind::KeySlot(_) => BlobName::key_slot(&SlotName::new("third").unwrap()),
        BlobKind::Intent { writer, .. } => BlobName::intent(&writer, session),
        BlobKind::Pack(pack) => PackName { number: 100, ..pack }.blob(),
        BlobKind::Index { writer, session, .. } => BlobName::index(&writer, session, 100),
        BlobKind::Decision(name) => DecisionName { seq: 100, session, ..name }.blob(),
        // One that would hide a snapshot, were it authentic.
        BlobKind::Tombstone { .. } => {
            let beta = &lab.snapshot("beta", 0).name;
            BlobName::tombstone(beta.vm, beta.session)
        }
        // The next one: generations are numbered without gaps.
        BlobKind::Condemned(_) => BlobName::condemned(4),
        BlobKind::Awaited(_) => BlobName::awaited(4),
        BlobKind::GcResult(_) => BlobName::result(4),
        BlobKind::GenerationSeal(_) => BlobName::generation_seal(4),
        BlobKind::Repack(_) => BlobName::repack(session),
        BlobKind::Pin { vm, session, .. } => BlobName::pin(vm, session, 100),
        BlobKind::ReplicaMarker | BlobKind::Lineage(_) => BlobName::lineage(100),
        BlobKind::Barrier { replica, .. } => BlobName::barrier(&replica, 100),
        BlobKind::Canary => BlobName::canaries().into_iter().find(|canary| canary != blob).unwrap(),
    }
}
