//! A disk with change tracking, over one without.

use super::changes::ChangedBlocks;
use crate::source::{ChangedAreas, Outside, ReadPart, Since, read_each};
use crate::{DiskSource, Extent};
use std::io;

/// A point in the life of a disk whose changes are tracked.
pub struct TrackedDisk<'a> {
    /// The disk as it was at first.
    pub base: &'a dyn DiskSource,
    /// Its size; what is behind the end of `base` was never allocated.
    pub size: u64,
    /// What it differs in from `base`.
    pub changes: Option<&'a ChangedBlocks>,
    /// The change id of the point before, and what has changed since.
    pub since: Option<(&'a str, Vec<Extent>)>,
    /// The change id of this point.
    pub change_id: &'a str,
}

impl<'a> TrackedDisk<'a> {
    /// The disk as it was at first, at the point `change_id`; changes since an earlier one are not known.
    #[must_use]
    pub fn untracked(base: &'a dyn DiskSource, change_id: &'a str) -> Self {
        Self { base, size: base.size(), changes: None, since: None, change_id }
    }

    /// The disk as it was at first, of which nothing has changed since the point `since`.
    #[must_use]
    pub fn unchanged(base: &'a dyn DiskSource, since: &'a str, change_id: &'a str) -> Self {
        Self { since: Some((since, Vec::new())), ..Self::untracked(base, change_id) }
    }

    /// The disk with all its changes made since the point `since`.
    #[must_use]
    pub fn changed(
        base: &'a dyn DiskSource,
        changes: &'a ChangedBlocks,
        since: &'a str,
        change_id: &'a str,
    ) -> Self {
        let since = Some((since, changes.areas()));
        Self { changes: Some(changes), since, ..Self::untracked(base, change_id) }
    }

    fn read_base(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = self.base.size().saturating_sub(offset).min(buffer.len() as u64);
        let there = usize::try_from(there).expect("at most the buffer's length");
        let (there, behind) = buffer.split_at_mut(there);
        behind.fill(0);
        if there.is_empty() { Ok(()) } else { self.base.read(&mut [ReadPart { offset, buffer: there }]) }
    }
}

impl TrackedDisk<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.changes {
            Some(changes) => changes.read_at(offset, buffer, |offset, buffer| self.read_base(offset, buffer)),
            None => self.read_base(offset, buffer),
        }
    }
}

impl DiskSource for TrackedDisk<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = Some(self.change_id.to_owned());
        if let (Some((tracked, areas)), Some(since)) = (&self.since, since)
            && since.change_id == Some(*tracked)
        {
            return Ok(ChangedAreas { areas: areas.clone(), outside: Outside::Unchanged, change_id });
        }
        Ok(ChangedAreas { change_id, ..self.base.changed_areas(since)? })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}
