//! Repack records: that what is in some packs was copied to others (SPEC 10.5).

use crate::bytes::{Reader, Writer, check_sorted, parse_all};
use crate::error::FormatError;
use crate::frame::PackRef;
use crate::ids::SessionId;
use crate::keys::Keys;
use crate::name::{BlobName, DecisionName};
use crate::retention::{RetentionKey, open_signed, seal_signed};
use crate::seal::SealedKind;
use crate::table::{check_packs, read_table, write_table};

/// The length of the shortest lead, which is refused for leading nowhere.
const LEAD_LEN_MIN: usize = 4 + 4;

/// What a repack session copied: of each old pack, every payload that a snapshot in `applies_to` names is in one of
/// the packs that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepackRecord {
    /// The repack session.
    pub session: SessionId,
    /// The name of its decision; the record counts only if that is REPACK.
    pub decision: DecisionName,
    /// The snapshots that the record applies to, sorted.
    pub applies_to: Vec<SessionId>,
    /// The packs that were copied from and to, sorted.
    pub packs: Vec<PackRef>,
    /// Where each old pack leads, sorted by old pack.
    pub leads: Vec<Lead>,
}

/// An old pack and the new ones that its payloads are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The place of the old pack in [`RepackRecord::packs`].
    pub old: u32,
    /// The places of the new packs there, sorted; at least one.
    pub new: Vec<u32>,
}

impl RepackRecord {
    /// Encodes the content of the record: its plaintext but for the signature.
    ///
    /// # Panics
    /// If [`RepackRecord::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a record that is written is valid");
        let mut writer = Writer::new();
        writer.put(&self.session.0).decision_name(&self.decision).sessions(&self.applies_to);
        write_table(&mut writer, &self.packs);
        writer.count(self.leads.len());
        for Lead { old, new } in &self.leads {
            writer.u32(*old).count(new.len());
            for number in new {
                writer.u32(*number);
            }
        }
        writer.finish()
    }

    /// Parses the content of a record.
    ///
    /// # Errors
    /// Bytes that break SPEC 8.2 or 10.5.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let record = parse_all(bytes, |reader| {
            let session = reader.session()?;
            let decision = reader.decision_name_of(session)?;
            let applies_to = reader.sessions("the sessions of a repack record")?;
            let packs = read_table(reader)?;
            let count = reader.count(LEAD_LEN_MIN)?;
            let leads = (0..count).map(|_| read_lead(reader)).collect::<Result<_, _>>()?;
            Ok(Self { session, decision, applies_to, packs, leads })
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
        if !self.leads.is_sorted_by(|a, b| a.old < b.old) {
            return Err(FormatError::OutOfOrder("the leads of a repack record"));
        }
        let mut used = vec![false; self.packs.len()];
        for lead in &self.leads {
            self.check_lead(lead)?;
            for number in lead.new.iter().chain([&lead.old]) {
                if let Some(used) = used.get_mut(*number as usize) {
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

    fn check_lead(&self, lead: &Lead) -> Result<(), FormatError> {
        let is_new =
            |pack: &PackRef| pack.name.session == self.session && pack.name.writer == self.decision.writer;
        check_sorted("the new packs of a lead", &lead.new)?;
        if lead.new.is_empty() {
            return Err(FormatError::BadValue("an old pack leads nowhere"));
        }
        let old = self.pack(lead.old)?;
        if old.name.session == self.session {
            return Err(FormatError::BadValue("an old pack is of the repack session itself"));
        }
        for number in &lead.new {
            let new = self.pack(*number)?;
            if !is_new(new) {
                return Err(FormatError::BadValue("a new pack is not of the repack session"));
            }
            if new.name.kind != old.name.kind {
                return Err(FormatError::BadValue("an old pack leads to one of another kind"));
            }
        }
        Ok(())
    }

    fn pack(&self, number: u32) -> Result<&PackRef, FormatError> {
        self.packs.get(number as usize).ok_or(FormatError::BadValue("an entry number is not in the table"))
    }

    /// Signs and seals the record; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If [`RepackRecord::check`] finds something wrong, the record is longer than its limit, or the retention key is
    /// another repository's.
    #[must_use]
    pub fn seal(&self, keys: &Keys, retention: &RetentionKey, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = BlobName::repack(self.session);
        let blob = seal_signed(keys, retention, (SealedKind::Repack, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the record in the blob `name`.
    ///
    /// # Errors
    /// A blob that is not authentic, or not the record that its name calls for; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, name: &BlobName, blob: &[u8]) -> Result<Self, FormatError> {
        let record = Self::parse(&open_signed(keys, SealedKind::Repack, name, blob)?)?;
        if BlobName::repack(record.session) == *name {
            Ok(record)
        } else {
            Err(FormatError::BadValue("the record is not the one that its name calls for"))
        }
    }
}

fn read_lead(reader: &mut Reader<'_>) -> Result<Lead, FormatError> {
    let old = reader.u32()?;
    let count = reader.count(4)?;
    let new = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    Ok(Lead { old, new })
}
