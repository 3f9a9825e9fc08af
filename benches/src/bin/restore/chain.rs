//! A disk and its states over many incremental backups.

use keepstone_benches::changes::ChangedBlocks;
use keepstone_benches::random::Random;
use keepstone_engine::extent::total_length;
use keepstone_engine::source::{ChangedAreas, Outside, RawImage, ReadPart, Since, read_each};
use keepstone_engine::{DiskSource, Extent};
use std::io;

/// Of each so many bytes of the disk one changes from one state to the next: at least, and at most.
const SHARES: (u64, u64) = (200, 1000);

/// An image and what changes of it, state after state.
pub(crate) struct Chain<'a> {
    image: &'a RawImage,
    pub(crate) allocated: Vec<Extent>,
    changes: Vec<ChangedBlocks>,
}

impl<'a> Chain<'a> {
    /// Chooses the changes; the same image gives the same ones.
    pub(crate) fn new(image: &'a RawImage, incrementals: u8) -> io::Result<Self> {
        let allocated = image.changed_areas(None)?.areas;
        let disk_bytes = image.size();
        let (least, most) = (disk_bytes / SHARES.1, disk_bytes / SHARES.0);
        let mut random = Random::new(7);
        let changes = (1..=u64::from(incrementals))
            .map(|number| {
                let bytes = least + random.below(most - least + 1);
                ChangedBlocks::choose(&allocated, bytes.min(total_length(&allocated) / 2), number)
            })
            .collect();
        Ok(Self { image, allocated, changes })
    }

    /// The disk after so many changes.
    pub(crate) fn state(&self, number: usize) -> State<'_> {
        State { chain: self, number, change_id: number.to_string() }
    }

    pub(crate) fn last(&self) -> State<'_> {
        self.state(self.changes.len())
    }

    fn read_at(&self, number: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match number.checked_sub(1) {
            None if buffer.is_empty() => Ok(()),
            None => self.image.read_at(offset, buffer),
            Some(before) => self.changes[before]
                .read_at(offset, buffer, |offset, buffer| self.read_at(before, offset, buffer)),
        }
    }
}

/// The disk after some changes.
pub(crate) struct State<'a> {
    chain: &'a Chain<'a>,
    number: usize,
    change_id: String,
}

impl State<'_> {
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.chain.read_at(self.number, offset, buffer)
    }
}

impl DiskSource for State<'_> {
    fn size(&self) -> u64 {
        self.chain.image.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = Some(self.change_id.clone());
        let before = self.number.checked_sub(1).map(|before| (before, before.to_string()));
        if let (Some((before, id)), Some(since)) = (before, since)
            && since.change_id == Some(id.as_str())
        {
            let areas = self.chain.changes[before].areas();
            return Ok(ChangedAreas { areas, outside: Outside::Unchanged, change_id });
        }
        Ok(ChangedAreas { change_id, ..self.chain.image.changed_areas(since)? })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}
