//! The records of files: the table of them, and those that one file has.

use super::streams::{Stream, bounded};
use super::{ATTRIBUTE_LIST, DATA, FIXUP_LEN, damaged, failed, unread, unsupported};
use crate::guest::device::Section;
use crate::guest::error::{Fault, GuestError};
use ntfs_core::{
    Attribute, AttributeBody, BootSector, FileReference, MftRecordHeader, apply_fixup, parse_attribute_list,
    parse_attributes,
};
use std::collections::BTreeSet;

/// Windows allows no longer list of attributes.
const LIST_LEN_MAX: u64 = 256 << 10;
/// The records of one file, in bytes; all are kept while it is read. A full list names 8192, which are of 1 KiB in practice.
const RECORDS_BYTES_MAX: u64 = 16 << 20;

/// The table of all records.
pub(super) struct Table {
    pub(super) section: Section,
    pub(super) boot: BootSector,
    stream: Stream,
}

/// One record, checked and put together.
struct Record {
    bytes: Vec<u8>,
    header: MftRecordHeader,
    attributes: Vec<Attribute>,
}

/// The records of a file: its own, and others that its attributes did not fit in.
pub(super) struct FileRecords {
    records: Vec<Record>,
}

impl Record {
    fn parse(mut bytes: Vec<u8>) -> Result<Self, GuestError> {
        apply_fixup(&mut bytes, FIXUP_LEN).map_err(failed)?;
        let header = MftRecordHeader::parse(&bytes).map_err(failed)?;
        if !header.is_in_use() || header.is_corrupt() {
            return Err(damaged(Fault::Deleted));
        }
        let attributes =
            parse_attributes(&bytes, usize::from(header.first_attribute_offset)).map_err(failed)?;
        Ok(Self { bytes, header, attributes })
    }

    /// The content of its attribute of a type and a name, if that is in the record.
    fn resident(&self, kind: u32, name: Option<&str>) -> Option<&[u8]> {
        let mut found = self.attributes.iter().filter(|attribute| is(attribute, kind, name));
        found.find_map(|attribute| attribute.resident_content(&self.bytes))
    }
}

fn is(attribute: &Attribute, kind: u32, name: Option<&str>) -> bool {
    attribute.type_code == kind && attribute.name.as_deref() == name
}

impl Table {
    /// Finds the table: its first record says where it is, or the first of it, and more of it says where the rest is.
    pub(super) fn open(section: Section, boot: BootSector) -> Result<Self, GuestError> {
        let record_len = usize::try_from(boot.mft_record_size).map_err(|_| damaged(Fault::RecordLen))?;
        let mut bytes = vec![0; record_len];
        section.read_at(boot.mft_byte_offset(), &mut bytes).map_err(unread)?;
        let first = FileRecords { records: vec![Record::parse(bytes)?] };
        let cluster_len = boot.cluster_size();
        let stream = first.stream_so_far(DATA, None, cluster_len)?.ok_or_else(|| damaged(Fault::Gap))?;
        let mut table = Self { section, boot, stream };
        // Each part of the table is described within those before it.
        let mut records = first;
        for number in table.extensions(&records)? {
            records.records.push(table.extension(number, 0)?);
            if let Some(longer) = records.stream_so_far(DATA, None, cluster_len)? {
                table.stream = longer;
            }
        }
        table.stream = records.stream(DATA, None, cluster_len)?.ok_or_else(|| damaged(Fault::Gap))?;
        Ok(table)
    }

    fn record(&self, number: u64) -> Result<Record, GuestError> {
        let place = number.checked_mul(self.boot.mft_record_size).ok_or_else(|| damaged(Fault::Gap))?;
        let record_len = usize::try_from(self.boot.mft_record_size).map_err(|_| damaged(Fault::RecordLen))?;
        let mut bytes = vec![0; record_len];
        self.stream.read_at(&self.section, place, &mut bytes)?;
        Record::parse(bytes)
    }

    /// A further record of the file whose own is `base`.
    fn extension(&self, number: u64, base: u64) -> Result<Record, GuestError> {
        let record = self.record(number)?;
        let belongs_to = FileReference::from_u64(record.header.base_record).record_number;
        if belongs_to == base && !record.header.is_base_record() {
            Ok(record)
        } else {
            Err(damaged(Fault::Extension))
        }
    }

    /// All records of the file whose own has this number.
    pub(super) fn file(&self, number: u64) -> Result<FileRecords, GuestError> {
        let mut file = FileRecords { records: vec![self.record(number)?] };
        if !file.base().header.is_base_record() {
            return Err(damaged(Fault::Extension));
        }
        for further in self.extensions(&file)? {
            if further != number {
                file.records.push(self.extension(further, number)?);
            }
        }
        Ok(file)
    }

    /// The further records that the list of attributes names, in the order of the list, which is that of the file.
    fn extensions(&self, file: &FileRecords) -> Result<Vec<u64>, GuestError> {
        let list = match file.base().resident(ATTRIBUTE_LIST, None) {
            Some(list) => list.to_vec(),
            None => match file.stream(ATTRIBUTE_LIST, None, self.boot.cluster_size())? {
                Some(stream) => bounded(&stream, &self.section, LIST_LEN_MAX)?,
                None => return Ok(Vec::new()),
            },
        };
        let list = parse_attribute_list(&list).map_err(failed)?;
        let mut seen = BTreeSet::new();
        let numbers = list.iter().map(|entry| entry.base_reference.record_number);
        let own = u64::from(file.base().header.record_number);
        let numbers: Vec<u64> = numbers.filter(|number| *number != own && seen.insert(*number)).collect();
        let count = u64::try_from(numbers.len()).expect("a list is short");
        let len = count.saturating_mul(self.boot.mft_record_size);
        if len > RECORDS_BYTES_MAX { Err(unsupported(Fault::Records)) } else { Ok(numbers) }
    }
}

impl FileRecords {
    fn base(&self) -> &Record {
        &self.records[0]
    }

    pub(super) fn is_directory(&self) -> bool {
        self.base().header.is_directory()
    }

    /// The content of an attribute that is within a record.
    pub(super) fn resident(&self, kind: u32, name: Option<&str>) -> Option<&[u8]> {
        self.records.iter().find_map(|record| record.resident(kind, name))
    }

    /// The length of a stream, or none if it is not there.
    pub(super) fn size(&self, kind: u32, name: Option<&str>) -> u64 {
        let attributes = self.records.iter().flat_map(|record| &record.attributes);
        let sizes =
            attributes.filter(|attribute| is(attribute, kind, name)).map(|attribute| match attribute.body {
                AttributeBody::Resident { content_length, .. } => u64::from(content_length),
                // Only the first piece says it.
                AttributeBody::NonResident { start_vcn: 0, real_size, .. } => real_size,
                AttributeBody::NonResident { .. } => 0,
            });
        sizes.max().unwrap_or_default()
    }

    /// A stream with all its pieces.
    pub(super) fn stream(
        &self,
        kind: u32,
        name: Option<&str>,
        cluster_len: u64,
    ) -> Result<Option<Stream>, GuestError> {
        let stream = self.stream_so_far(kind, name, cluster_len)?;
        if stream.as_ref().is_some_and(|stream| !stream.is_whole()) {
            return Err(damaged(Fault::Gap));
        }
        Ok(stream)
    }

    /// A stream, of which pieces at the end may be missing.
    fn stream_so_far(
        &self,
        kind: u32,
        name: Option<&str>,
        cluster_len: u64,
    ) -> Result<Option<Stream>, GuestError> {
        let mut pieces = Vec::new();
        for record in &self.records {
            for attribute in record.attributes.iter().filter(|attribute| is(attribute, kind, name)) {
                match attribute.body {
                    AttributeBody::Resident { .. } => {
                        let content = attribute.resident_content(&record.bytes);
                        let content = content.ok_or_else(|| damaged(Fault::CutOff))?;
                        return Ok(Some(Stream::resident(content.to_vec())));
                    }
                    AttributeBody::NonResident { start_vcn, .. } => {
                        pieces.push((start_vcn, &record.bytes, attribute));
                    }
                }
            }
        }
        pieces.sort_by_key(|(start, ..)| *start);
        Stream::of_pieces(&pieces, cluster_len)
    }
}
