//! What a table says about its entries as a whole: covered index blobs, sessions and packs.

use repo_format::{BlobName, DecisionName, PackKind, PackName, PackRef, SessionId, VmTag, WriterId};
use std::collections::{BTreeMap, BTreeSet};

/// The variable part of a table's header.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Meta {
    /// The index blobs whose entries the table has, sorted.
    pub(super) covered: Vec<BlobName>,
    /// The sessions that those blobs name, sorted by id.
    pub(super) sessions: Vec<(SessionId, DecisionName)>,
    /// The packs that records name by number, sorted by name and length.
    pub(super) packs: Vec<PackRef>,
}

impl Meta {
    /// The union of several, and for each of them the new numbers of its packs. Of two decisions that are claimed
    /// for one session the first one stays.
    pub(super) fn union(parts: &[&Meta]) -> (Meta, Vec<Vec<u32>>) {
        let mut covered = BTreeSet::new();
        let mut sessions = BTreeMap::new();
        let mut packs = BTreeMap::new();
        for part in parts {
            covered.extend(part.covered.iter().cloned());
            for (session, decision) in &part.sessions {
                sessions.entry(*session).or_insert_with(|| decision.clone());
            }
            for pack in &part.packs {
                packs.insert(pack.clone(), 0);
            }
        }
        for (number, slot) in packs.values_mut().enumerate() {
            *slot = u32::try_from(number).expect("a cache names fewer than 2^32 packs");
        }
        let numbers = parts.iter().map(|part| part.packs.iter().map(|pack| packs[pack]).collect()).collect();
        let meta = Meta {
            covered: covered.into_iter().collect(),
            sessions: sessions.into_iter().collect(),
            packs: packs.into_keys().collect(),
        };
        (meta, numbers)
    }

    pub(super) fn decision_of(&self, session: SessionId) -> Option<&DecisionName> {
        let at = self.sessions.binary_search_by_key(&session, |(id, _)| *id).ok()?;
        self.sessions.get(at).map(|(_, decision)| decision)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_count(&mut out, self.covered.len());
        for name in &self.covered {
            put_text(&mut out, name.as_str());
        }
        put_count(&mut out, self.sessions.len());
        for (session, decision) in &self.sessions {
            out.extend_from_slice(&session.0);
            out.extend_from_slice(&decision.vm.0);
            put_text(&mut out, decision.writer.as_str());
            out.extend_from_slice(&decision.seq.to_le_bytes());
            out.extend_from_slice(&decision.session.0);
        }
        put_count(&mut out, self.packs.len());
        for pack in &self.packs {
            out.push(pack.name.kind as u8);
            put_text(&mut out, pack.name.writer.as_str());
            out.extend_from_slice(&pack.name.session.0);
            out.extend_from_slice(&pack.name.number.to_le_bytes());
            out.extend_from_slice(&pack.len.to_le_bytes());
        }
        out
    }

    /// Reads what [`Meta::encode`] wrote; nothing if it is anything else. Counts are not trusted: memory grows
    /// with the bytes that are there.
    pub(super) fn parse(bytes: &[u8]) -> Option<Meta> {
        let mut fields = Fields { left: bytes, writer: None };
        let mut meta = Meta::default();
        for _ in 0..fields.word()? {
            meta.covered.push(BlobName::parse(fields.text()?)?);
        }
        for _ in 0..fields.word()? {
            let session = SessionId(fields.array()?);
            let decision = DecisionName {
                vm: VmTag(fields.array()?),
                writer: fields.writer()?,
                seq: fields.word()?,
                session: SessionId(fields.array()?),
            };
            meta.sessions.push((session, decision));
        }
        for _ in 0..fields.word()? {
            let [kind] = fields.array()?;
            let kind = PackKind::from_number(kind).ok()?;
            let writer = fields.writer()?;
            let name = PackName { kind, writer, session: SessionId(fields.array()?), number: fields.word()? };
            meta.packs.push(PackRef { name, len: fields.word()? });
        }
        let sorted = meta.covered.is_sorted()
            && meta.sessions.is_sorted_by_key(|(session, _)| *session)
            && meta.packs.is_sorted();
        (fields.left.is_empty() && sorted).then_some(meta)
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).expect("lists have fewer than 2^32 items").to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).expect("names have at most 255 bytes").to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Bytes being read field by field.
struct Fields<'a> {
    left: &'a [u8],
    /// The last writer: the same one follows nearly always, and need not be stored twice.
    writer: Option<WriterId>,
}

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(*array)
    }

    fn word(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(u16::from_le_bytes(self.array()?));
        let (text, left) = self.left.split_at_checked(len)?;
        self.left = left;
        std::str::from_utf8(text).ok()
    }

    fn writer(&mut self) -> Option<WriterId> {
        let text = self.text()?;
        if self.writer.as_ref().is_none_or(|writer| writer.as_str() != text) {
            self.writer = Some(WriterId::new(text).ok()?);
        }
        self.writer.clone()
    }
}
