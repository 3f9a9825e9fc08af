//! A disk in memory, for tests and benchmarks.

use super::{ChangedAreas, DiskSource, FullReason, Outside, ReadPart, Since, read_each};
use crate::Extent;
use std::io;

/// A disk whose bytes are in memory, with or without change tracking.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    /// The disk's bytes.
    pub bytes: Vec<u8>,
    /// What is allocated; everything if nothing is said.
    pub allocated: Option<Vec<Extent>>,
    /// The changes since a change id, if they are tracked.
    pub changes: Option<(String, Vec<Extent>)>,
    /// The change id of this point.
    pub change_id: Option<String>,
}

impl MemoryDisk {
    /// A disk without change tracking.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When the disk is shorter.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = self.bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl DiskSource for MemoryDisk {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let since = since.and_then(|since| since.change_id);
        if let (Some((tracked, areas)), Some(since)) = (&self.changes, since)
            && tracked == since
        {
            let change_id = self.change_id.clone();
            return Ok(ChangedAreas { areas: areas.clone(), outside: Outside::Unchanged, change_id });
        }
        let everything = || Extent::between(0, self.size()).into_iter().collect();
        let full_reason = since.map(|since| FullReason::OtherSince {
            parent: Some(since.to_owned()),
            since: self.changes.as_ref().map(|(tracked, _)| tracked.clone()),
        });
        Ok(ChangedAreas {
            areas: self.allocated.clone().unwrap_or_else(everything),
            outside: Outside::Zero { full_reason },
            change_id: self.change_id.clone(),
        })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}
