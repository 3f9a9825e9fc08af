//! What there is of a session, as the names of its blobs tell.

use crate::store::BlobInfo;
use repo_format::{BlobKind, BlobName, DecisionName, PackKind, PackName, SessionId, VmTag, WriterId};
use std::collections::BTreeMap;

/// What there is of a session, by the names of its blobs.
#[derive(Default)]
pub(super) struct Traces {
    /// Who is said to have written it, with the first blob that says so.
    pub(super) writers: BTreeMap<WriterId, BlobName>,
    pub(super) has_intent: bool,
    pub(super) has_record: bool,
    pub(super) decisions: Vec<DecisionName>,
    pub(super) tombstones: Vec<VmTag>,
    pub(super) data_packs: Vec<PackName>,
    pub(super) map_packs: Vec<PackName>,
    indexes: usize,
    /// When the first came, by the store's clock, of what tells about other sessions: decision, intent or pin.
    told_since: Option<u64>,
    /// When the first blob of it came, by the store's clock.
    since: Option<u64>,
}

impl Traces {
    pub(super) fn is_decided(&self) -> bool {
        !self.decisions.is_empty() || !self.tombstones.is_empty()
    }

    /// Whether it is a session of another place, from which what it refers to need not have been copied.
    pub(super) fn was_copied(&self, until: Option<u64>) -> bool {
        self.told_since.is_some_and(|since| until.is_some_and(|until| since <= until))
    }

    /// Whether anything of it was copied from another place, where it is then a session of.
    pub(super) fn was_copied_in_part(&self, until: Option<u64>) -> bool {
        self.since.is_some_and(|since| until.is_some_and(|until| since <= until))
    }

    pub(super) fn add(&mut self, info: &BlobInfo, kind: BlobKind) {
        let earlier =
            |known: Option<u64>| Some(known.map_or(info.modified, |since| since.min(info.modified)));
        self.since = earlier(self.since);
        if let BlobKind::Intent { .. } | BlobKind::Decision(_) | BlobKind::Pin { .. } = kind {
            self.told_since = earlier(self.told_since);
        }
        let writer = match kind {
            BlobKind::Intent { writer, .. } => {
                self.has_intent = true;
                writer
            }
            BlobKind::Pack(pack) => {
                let writer = pack.writer.clone();
                match pack.kind {
                    PackKind::Data => self.data_packs.push(pack),
                    PackKind::Map => self.map_packs.push(pack),
                }
                writer
            }
            BlobKind::Index { writer, .. } => {
                self.indexes += 1;
                writer
            }
            BlobKind::Decision(decision) => {
                let writer = decision.writer.clone();
                self.decisions.push(decision);
                writer
            }
            BlobKind::Tombstone { vm, .. } => return self.tombstones.push(vm),
            BlobKind::Repack(_) => {
                self.has_record = true;
                return;
            }
            _ => return,
        };
        self.writers.entry(writer).or_insert_with(|| info.name.clone());
    }

    /// What is there of it, in words.
    pub(super) fn contents(&self) -> String {
        format!(
            "{} data packs, {} map packs, {} indexes",
            self.data_packs.len(),
            self.map_packs.len(),
            self.indexes
        )
    }
}

/// The session that a blob of this kind belongs to.
pub(super) fn session_of(kind: &BlobKind) -> Option<SessionId> {
    match kind {
        BlobKind::Intent { session, .. }
        | BlobKind::Index { session, .. }
        | BlobKind::Tombstone { session, .. }
        | BlobKind::Pin { session, .. }
        | BlobKind::Repack(session) => Some(*session),
        BlobKind::Pack(pack) => Some(pack.session),
        BlobKind::Decision(decision) => Some(decision.session),
        _ => None,
    }
}
