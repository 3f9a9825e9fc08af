//! Pack tables and the entries that refer to them (SPEC 8.2).

use crate::bytes::{Reader, Writer, check_sorted};
use crate::error::FormatError;
use crate::frame::{Codec, FrameKind, Location, PackRef, check_limit};
use crate::ids::{SessionId, WriterId};
use crate::name::{PackKind, PackName};

/// The length of the shortest group: a writer of one character and one pack.
const GROUP_LEN_MIN: usize = 1 + 2 + 16 + 4 + PACK_LEN_IN_GROUP;
const PACK_LEN_IN_GROUP: usize = 8;

/// Sorts packs as a table has them; each is named once.
pub(crate) fn sorted_packs(packs: impl IntoIterator<Item = PackRef>) -> Vec<PackRef> {
    let mut packs: Vec<PackRef> = packs.into_iter().collect();
    packs.sort_unstable();
    packs.dedup();
    packs
}

/// Checks that packs may be listed in a table as they are: sorted, none twice, their lengths allowed.
pub(crate) fn check_packs(packs: &[PackRef]) -> Result<(), FormatError> {
    check_packs_in(packs, None)
}

/// As [`check_packs`], for the table of an object that is stored in `own`, whose length need not be known (TABLE-4).
pub(crate) fn check_packs_in(packs: &[PackRef], own: Option<&PackName>) -> Result<(), FormatError> {
    if !packs.is_sorted_by(|a, b| a.name < b.name) {
        return Err(FormatError::OutOfOrder("the packs of a table"));
    }
    packs.iter().filter(|pack| Some(&pack.name) != own).try_for_each(PackRef::check)
}

/// Writes a table of packs that [`check_packs`] finds nothing wrong with.
pub(crate) fn write_table(writer: &mut Writer, packs: &[PackRef]) {
    write_table_in(writer, packs, None);
}

/// Writes the table of an object that is stored in `own`, without that pack's length (TABLE-4).
pub(crate) fn write_table_in(writer: &mut Writer, packs: &[PackRef], own: Option<&PackName>) {
    let groups = || packs.chunk_by(|a, b| group_of(a) == group_of(b));
    writer.count(groups().count());
    for group in groups() {
        let Some(PackRef { name, .. }) = group.first() else { continue };
        writer.u8(name.kind as u8).str8(name.writer.as_str()).put(&name.session.0).count(group.len());
        for pack in group {
            let len = if Some(&pack.name) == own { 0 } else { pack.len };
            writer.u32(pack.name.number).u32(len);
        }
    }
}

fn group_of(pack: &PackRef) -> (PackKind, &WriterId, SessionId) {
    (pack.name.kind, &pack.name.writer, pack.name.session)
}

/// Reads a table: packs in the order of their entry numbers, which is the order of [`PackRef`].
pub(crate) fn read_table(reader: &mut Reader<'_>) -> Result<Vec<PackRef>, FormatError> {
    read_table_in(reader, None)
}

/// Reads the table of an object that is stored in `own`, whose length is put in (TABLE-4).
fn read_table_in(reader: &mut Reader<'_>, own: Option<&PackRef>) -> Result<Vec<PackRef>, FormatError> {
    let mut packs: Vec<PackRef> = Vec::new();
    for _ in 0..reader.count(GROUP_LEN_MIN)? {
        let kind = PackKind::from_number(reader.u8()?)?;
        let (writer, session) = (reader.writer()?, reader.session()?);
        if packs.last().is_some_and(|last| group_of(last) >= (kind, &writer, session)) {
            return Err(FormatError::OutOfOrder("the groups of a table"));
        }
        let count = reader.count(PACK_LEN_IN_GROUP)?;
        if count == 0 {
            return Err(FormatError::BadValue("a group of a table is empty"));
        }
        packs.reserve(count);
        for _ in 0..count {
            let (number, len) = (reader.u32()?, reader.u32()?);
            let name = PackName { kind, writer: writer.clone(), session, number };
            packs.push(match own {
                Some(own) if own.name == name && len == 0 => own.clone(),
                Some(own) if own.name == name => {
                    return Err(FormatError::BadValue("a table has a length for the pack that holds it"));
                }
                _ => PackRef { name, len },
            });
        }
    }
    check_packs(&packs)?;
    Ok(packs)
}

/// Returns the entry number of a pack in a sorted table that has it.
pub(crate) fn entry_number(table: &[PackRef], pack: &PackRef) -> u32 {
    let number = table
        .binary_search_by(|entry| entry.name.cmp(&pack.name))
        .expect("the table was made of all packs of its object");
    u32::try_from(number).expect("a table has fewer than 2^32 packs")
}

/// Writes `u8 codec || location`.
pub(crate) fn write_location(writer: &mut Writer, table: &[PackRef], location: &Location) {
    writer.u8(location.codec as u8).u32(entry_number(table, &location.pack));
    writer.u32(location.offset).u32(location.stored_len).u32(location.plain_len).put(&location.id.0);
}

/// A table that was read, and which of its packs were referred to so far.
#[derive(Debug)]
pub(crate) struct ReadTable {
    packs: Vec<PackRef>,
    used: Vec<bool>,
}

impl ReadTable {
    /// Reads the table of an object that is stored in `own`, or in no pack at all.
    pub(crate) fn read(reader: &mut Reader<'_>, own: Option<&PackRef>) -> Result<Self, FormatError> {
        let packs = read_table_in(reader, own)?;
        Ok(Self { used: vec![false; packs.len()], packs })
    }

    /// Returns the pack with an entry number, and notes that it was referred to.
    pub(crate) fn pack(&mut self, number: u32) -> Result<&PackRef, FormatError> {
        match (self.packs.get(number as usize), self.used.get_mut(number as usize)) {
            (Some(pack), Some(used)) => {
                *used = true;
                Ok(pack)
            }
            _ => Err(FormatError::BadValue("an entry number is not in the table")),
        }
    }

    /// Reads the location that follows its codec.
    pub(crate) fn location(
        &mut self,
        reader: &mut Reader<'_>,
        codec: u8,
        kind: FrameKind,
    ) -> Result<Location, FormatError> {
        let codec = Codec::from_number(codec)?;
        let pack = self.pack(reader.u32()?)?.clone();
        let (offset, stored_len, plain_len) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let location = Location { pack, codec, offset, stored_len, plain_len, id: reader.payload_id()? };
        location.check(kind)?;
        Ok(location)
    }

    /// Reads a counted, sorted list of entry numbers.
    pub(crate) fn packs(&mut self, reader: &mut Reader<'_>) -> Result<Vec<PackRef>, FormatError> {
        let count = reader.count(4)?;
        check_limit("names of a child", count as u64, self.packs.len())?;
        let numbers = (0..count).map(|_| reader.u32()).collect::<Result<Vec<_>, _>>()?;
        check_sorted("the names of a child", &numbers)?;
        numbers.into_iter().map(|number| self.pack(number).cloned()).collect()
    }

    /// Returns the packs, all of which must have been referred to (TABLE-3).
    pub(crate) fn finish(self) -> Result<Vec<PackRef>, FormatError> {
        if self.used.into_iter().all(|used| used) {
            Ok(self.packs)
        } else {
            Err(FormatError::BadValue("a table has a pack that nothing refers to"))
        }
    }
}
