//! Disks that remember what they were.

use keepstone_engine::source::{ChangedAreas, FullReason, Outside, ReadPart, Since, read_each};
use keepstone_engine::{DiskSource, Extent, extent};
use std::collections::BTreeMap;
use std::io;

/// A disk of a VM: its key and its bytes.
pub(super) type Disk = (&'static str, Vec<u8>);

/// All disks of a VM at one point in time.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) vm: usize,
    pub(super) disks: Vec<Disk>,
}

impl Version {
    pub(super) fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.disks.iter().find(|(known, _)| *known == key).map(|(_, bytes)| bytes.as_slice())
    }
}

/// A disk of one version, whose change tracking reaches back to all versions before.
pub(super) struct Tracked<'a> {
    pub(super) versions: &'a BTreeMap<u64, Version>,
    pub(super) time: u64,
    pub(super) key: &'static str,
}

const SECTOR: usize = 512;

impl Tracked<'_> {
    fn at(&self, time: u64) -> Option<&[u8]> {
        let version = self.versions.get(&time)?;
        version.bytes(self.key).filter(|_| version.vm == self.versions[&self.time].vm)
    }

    fn bytes(&self) -> &[u8] {
        self.at(self.time).expect("a disk of this version")
    }
}

impl Tracked<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        buffer.copy_from_slice(&self.bytes()[start..start + buffer.len()]);
        Ok(())
    }
}

impl DiskSource for Tracked<'_> {
    fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = Some(self.time.to_string());
        let Some(before) = since.and_then(|since| self.at(since.change_id?.parse().ok()?)) else {
            let areas = Extent::between(0, self.size()).into_iter().collect();
            let full_reason = since.map(|_| FullReason::NoChangeTracking);
            return Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason }, change_id });
        };
        Ok(ChangedAreas { areas: differing(before, self.bytes()), outside: Outside::Unchanged, change_id })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The sectors of `now` that are not as they were.
fn differing(before: &[u8], now: &[u8]) -> Vec<Extent> {
    let sectors = now.chunks(SECTOR).enumerate().filter(|(number, sector)| {
        let start = number * SECTOR;
        before.get(start..start + sector.len()) != Some(*sector)
    });
    let extents = sectors
        .map(|(number, sector)| Extent { start: (number * SECTOR) as u64, length: sector.len() as u64 });
    extent::normalized(extents.collect())
}
