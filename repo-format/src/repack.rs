//! Repack records: that payloads were copied to other packs (SPEC 10.5).

use crate::bytes::{Reader, Writer, check_sorted, parse_all};
use crate::error::FormatError;
use crate::frame::{Codec, FrameKind, PackRef, check_lengths, check_place};
use crate::ids::{PayloadId, SessionId};
use crate::keys::Keys;
use crate::limits::PACK_HEADER_LEN;
use crate::name::{BlobName, DecisionName, PackKind};
use crate::seal::{SealedKind, open, seal};
use crate::table::{check_packs, read_table, write_table};

const MOVE_LEN: usize = 32 + 4 + 4 + 1 + 4 + 4 + 4 + 4;

/// What a repack session moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepackRecord {
    /// The repack session.
    pub session: SessionId,
    /// The name of its decision; the record counts only if that is a COMMIT.
    pub decision: DecisionName,
    /// The snapshots that the record applies to, sorted.
    pub applies_to: Vec<SessionId>,
    /// The packs that payloads were moved from and to, sorted.
    pub packs: Vec<PackRef>,
    /// The moves, sorted by old pack and offset.
    pub moves: Vec<Move>,
}

/// One payload with its old and its new place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The payload's id.
    pub id: PayloadId,
    /// The place of its old pack in [`RepackRecord::packs`].
    pub old_pack: u32,
    /// Where its frame began there, in bytes.
    pub old_offset: u32,
    /// How it is encoded now.
    pub codec: Codec,
    /// The place of its new pack in [`RepackRecord::packs`].
    pub new_pack: u32,
    /// Where its frame begins now, in bytes.
    pub new_offset: u32,
    /// The length of its frame with the tag now, in bytes.
    pub new_stored_len: u32,
    /// The payload's length, in bytes.
    pub plain_len: u32,
}

impl RepackRecord {
    /// Encodes the plaintext of the record.
    ///
    /// # Panics
    /// If [`RepackRecord::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a record that is written is valid");
        let mut writer = Writer::new();
        writer.put(&self.session.0).decision_name(&self.decision).sessions(&self.applies_to);
        write_table(&mut writer, &self.packs);
        writer.count(self.moves.len());
        for moved in &self.moves {
            writer.put(&moved.id.0).u32(moved.old_pack).u32(moved.old_offset).u8(moved.codec as u8);
            writer.u32(moved.new_pack).u32(moved.new_offset).u32(moved.new_stored_len).u32(moved.plain_len);
        }
        writer.finish()
    }

    /// Parses the plaintext of a record.
    ///
    /// # Errors
    /// Bytes that break SPEC 8.2 or 10.5.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let record = parse_all(bytes, |reader| {
            let session = reader.session()?;
            let decision = reader.decision_name_of(session)?;
            let applies_to = reader.sessions("the sessions of a repack record")?;
            let packs = read_table(reader)?;
            let count = reader.count(MOVE_LEN)?;
            let moves = (0..count).map(|_| read_move(reader)).collect::<Result<_, _>>()?;
            Ok(Self { session, decision, applies_to, packs, moves })
        })?;
        record.check()?;
        Ok(record)
    }

    /// Checks all rules of SPEC 10.5.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        if self.decision.session != self.session {
            return Err(FormatError::BadValue("a decision is named that is another session's"));
        }
        check_sorted("the sessions of a repack record", &self.applies_to)?;
        check_packs(&self.packs)?;
        let old_place = |moved: &Move| (moved.old_pack, moved.old_offset);
        if !self.moves.is_sorted_by(|a, b| old_place(a) < old_place(b)) {
            return Err(FormatError::OutOfOrder("the moves of a repack record"));
        }
        let mut used = vec![false; self.packs.len()];
        for moved in &self.moves {
            self.check_move(moved)?;
            for number in [moved.old_pack, moved.new_pack] {
                if let Some(used) = used.get_mut(number as usize) {
                    *used = true;
                }
            }
        }
        if used.into_iter().all(|used| used) {
            Ok(())
        } else {
            Err(FormatError::BadValue("a table has a pack that nothing refers to"))
        }
    }

    fn check_move(&self, moved: &Move) -> Result<(), FormatError> {
        let pack = |number: u32| {
            self.packs
                .get(number as usize)
                .ok_or(FormatError::BadValue("an entry number is not in the table"))
        };
        let (old, new) = (pack(moved.old_pack)?, pack(moved.new_pack)?);
        if old.name == new.name || old.name.kind != new.name.kind {
            return Err(FormatError::BadValue("a move does not lead to another pack of the same kind"));
        }
        if (moved.old_offset as usize) < PACK_HEADER_LEN || moved.old_offset >= old.len {
            return Err(FormatError::BadValue("a frame does not lie within its pack"));
        }
        check_place(moved.new_offset, moved.new_stored_len, new.len)?;
        // Whether a map frame is a page or a node is not told; nodes have the higher limit.
        let kind = match new.name.kind {
            PackKind::Data => FrameKind::Chunk,
            PackKind::Map => FrameKind::Node,
        };
        check_lengths(kind, moved.codec, moved.new_stored_len, moved.plain_len)
    }

    /// Seals the record; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If [`RepackRecord::check`] finds something wrong, or the record is longer than its limit.
    #[must_use]
    pub fn seal(&self, keys: &Keys, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = BlobName::repack(self.session);
        let blob = seal(keys, SealedKind::Repack, &name, salt, &self.encode());
        (name, blob)
    }

    /// Opens the record in the blob `name`.
    ///
    /// # Errors
    /// A blob that is not authentic, or not the record that its name calls for.
    pub fn open(keys: &Keys, name: &BlobName, blob: &[u8]) -> Result<Self, FormatError> {
        let record = Self::parse(&open(keys, SealedKind::Repack, name, blob)?)?;
        if BlobName::repack(record.session) == *name {
            Ok(record)
        } else {
            Err(FormatError::BadValue("the record is not the one that its name calls for"))
        }
    }
}

fn read_move(reader: &mut Reader<'_>) -> Result<Move, FormatError> {
    Ok(Move {
        id: reader.payload_id()?,
        old_pack: reader.u32()?,
        old_offset: reader.u32()?,
        codec: Codec::from_number(reader.u8()?)?,
        new_pack: reader.u32()?,
        new_offset: reader.u32()?,
        new_stored_len: reader.u32()?,
        plain_len: reader.u32()?,
    })
}
