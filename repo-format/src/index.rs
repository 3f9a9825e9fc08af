//! Indexes: which chunks lie where (SPEC section 9).

use crate::bytes::{Reader, Writer, parse_all};
use crate::error::FormatError;
use crate::frame::{Codec, FrameKind, PackRef, check_lengths, check_place};
use crate::ids::{PayloadId, SessionId};
use crate::keys::Keys;
use crate::name::{BlobName, DecisionName, PackKind};
use crate::seal::{SealedKind, open, seal};
use crate::table::{check_packs, read_table, write_table};

const SESSION_LEN_MIN: usize = 16 + 16 + 2 + 4 + 16;
const ENTRY_LEN: usize = 32 + 1 + 4 + 4 + 4 + 4;

/// A list of chunks with their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The sessions whose packs are listed, sorted, and the names of their decisions.
    pub sessions: Vec<(SessionId, DecisionName)>,
    /// Data packs of those sessions, sorted.
    pub packs: Vec<PackRef>,
    /// The chunks, sorted by id.
    pub entries: Vec<IndexEntry>,
}

/// One chunk and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The chunk's id.
    pub id: PayloadId,
    /// How it is encoded.
    pub codec: Codec,
    /// The place of its pack in [`Index::packs`].
    pub pack: u32,
    /// Where its frame begins in the pack's blob, in bytes.
    pub offset: u32,
    /// The length of its frame with the tag, in bytes.
    pub stored_len: u32,
    /// Its length, in bytes.
    pub plain_len: u32,
}

impl Index {
    /// Encodes the plaintext of the index.
    ///
    /// # Panics
    /// If [`Index::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("an index that is written is valid");
        let mut writer = Writer::new();
        writer.count(self.sessions.len());
        for (session, decision) in &self.sessions {
            writer.put(&session.0).decision_name(decision);
        }
        write_table(&mut writer, &self.packs);
        writer.count(self.entries.len());
        for entry in &self.entries {
            writer.put(&entry.id.0).u8(entry.codec as u8).u32(entry.pack);
            writer.u32(entry.offset).u32(entry.stored_len).u32(entry.plain_len);
        }
        writer.finish()
    }

    /// Parses the plaintext of an index.
    ///
    /// # Errors
    /// An index that breaks SPEC 8.2 or section 9.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let index = parse_all(bytes, |reader| {
            let count = reader.count(SESSION_LEN_MIN)?;
            let sessions = (0..count).map(|_| read_session(reader)).collect::<Result<_, _>>()?;
            let packs = read_table(reader)?;
            let count = reader.count(ENTRY_LEN)?;
            let entries = (0..count).map(|_| read_entry(reader)).collect::<Result<_, _>>()?;
            Ok(Self { sessions, packs, entries })
        })?;
        index.check()?;
        Ok(index)
    }

    /// Checks all rules of SPEC section 9.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        if !self.sessions.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(FormatError::OutOfOrder("the sessions of an index"));
        }
        if self.sessions.iter().any(|(session, decision)| decision.session != *session) {
            return Err(FormatError::BadValue("a decision is named that is another session's"));
        }
        check_packs(&self.packs)?;
        self.packs.iter().try_for_each(|pack| self.check_pack(pack))?;
        if !self.entries.is_sorted_by(|a, b| a.id < b.id) {
            return Err(FormatError::OutOfOrder("the entries of an index"));
        }
        let mut used = vec![false; self.packs.len()];
        for entry in &self.entries {
            let number = entry.pack as usize;
            let (Some(pack), Some(used)) = (self.packs.get(number), used.get_mut(number)) else {
                return Err(FormatError::BadValue("an entry number is not in the table"));
            };
            check_place(entry.offset, entry.stored_len, pack.len)?;
            check_lengths(FrameKind::Chunk, entry.codec, entry.stored_len, entry.plain_len)?;
            *used = true;
        }
        if used.into_iter().all(|used| used) {
            Ok(())
        } else {
            Err(FormatError::BadValue("a table has a pack that nothing refers to"))
        }
    }

    fn check_pack(&self, pack: &PackRef) -> Result<(), FormatError> {
        let name = &pack.name;
        let session = self.sessions.binary_search_by_key(&name.session, |(session, _)| *session).ok();
        let decision = session.and_then(|at| self.sessions.get(at)).map(|(_, decision)| decision);
        let listed = decision.is_some_and(|decision| decision.writer == name.writer);
        if listed && name.kind == PackKind::Data {
            Ok(())
        } else {
            Err(FormatError::BadValue("an index has a pack that is no data pack of its sessions"))
        }
    }

    /// Seals the index for the blob `name`, which is made with [`BlobName::index`].
    ///
    /// # Panics
    /// If [`Index::check`] finds something wrong, or the index is longer than its limit.
    #[must_use]
    pub fn seal(&self, keys: &Keys, name: &BlobName, salt: [u8; 32]) -> Vec<u8> {
        seal(keys, SealedKind::Index, name, salt, &self.encode())
    }

    /// Opens the index in the blob `name`.
    ///
    /// # Errors
    /// A blob that is not authentic or not an index.
    pub fn open(keys: &Keys, name: &BlobName, blob: &[u8]) -> Result<Self, FormatError> {
        Self::parse(&open(keys, SealedKind::Index, name, blob)?)
    }
}

fn read_session(reader: &mut Reader<'_>) -> Result<(SessionId, DecisionName), FormatError> {
    let session = reader.session()?;
    Ok((session, reader.decision_name_of(session)?))
}

fn read_entry(reader: &mut Reader<'_>) -> Result<IndexEntry, FormatError> {
    Ok(IndexEntry {
        id: reader.payload_id()?,
        codec: Codec::from_number(reader.u8()?)?,
        pack: reader.u32()?,
        offset: reader.u32()?,
        stored_len: reader.u32()?,
        plain_len: reader.u32()?,
    })
}
