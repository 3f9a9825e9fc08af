//! The volumes of a disk, and in which of them a path is.

use super::contents::{Contents, System, probe};
use super::device::{ReadFailure, Section};
use super::error::GuestError;
use super::names::shown;
use super::partitions::{self, Partition, Table};
use super::tree::{Entry, Follow, Tree};
use super::{GuestDisk, systems};

/// The number of a volume that is the whole disk.
const WHOLE_DISK: u32 = 0;

/// A disk whose files are read.
pub struct Guest {
    disk: Section,
}

/// The volumes of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volumes {
    /// How the disk is divided.
    pub table: Table,
    /// Its parts, in the order of the table.
    pub volumes: Vec<Volume>,
}

/// A part of a disk, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its number, as Linux counts; 0 is the whole disk.
    pub number: u32,
    /// Its first byte.
    pub start: u64,
    /// Its length, in bytes.
    pub length: u64,
    /// What the partition table says that it is for.
    pub kind: Option<String>,
    /// What the partition table calls it.
    pub name: Option<String>,
    /// What it holds.
    pub contents: Contents,
}

/// Calls `work` with the guest's files of a disk.
pub fn with_guest<T>(disk: &GuestDisk<'_>, work: impl FnOnce(&Guest) -> T) -> T {
    Section::with(disk, |disk| work(&Guest { disk }))
}

impl Guest {
    /// Finds the volumes.
    ///
    /// # Errors
    /// A disk that cannot be read, that has no volume, or a partition table that is damaged in both copies.
    pub fn volumes(&self) -> Result<Volumes, GuestError> {
        self.disk.begin();
        let found = self.find();
        let found = found.map_err(|failure| self.failed(failure))?;
        match found {
            Volumes { table: Table::GptDamaged, .. } => Err(GuestError::TableDamaged),
            Volumes { volumes, .. } if volumes.is_empty() => Err(GuestError::NoVolumes),
            found => Ok(found),
        }
    }

    fn find(&self) -> Result<Volumes, ReadFailure> {
        let (table, partitions) = partitions::read(&self.disk)?;
        if table == Table::None {
            let contents = probe(&self.disk)?;
            let is_known = !matches!(contents.system, System::Empty | System::Unknown);
            let length = self.disk.len();
            let whole = Volume { number: WHOLE_DISK, start: 0, length, kind: None, name: None, contents };
            return Ok(Volumes { table, volumes: is_known.then_some(whole).into_iter().collect() });
        }
        let volumes = partitions.into_iter().map(|partition| self.volume(partition));
        Ok(Volumes { table, volumes: volumes.collect::<Result<_, _>>()? })
    }

    fn volume(&self, partition: Partition) -> Result<Volume, ReadFailure> {
        let Partition { number, range, kind, name } = partition;
        let section = self.disk.part(range.clone());
        let mut contents = match partitions::spans_disks(&kind) {
            Some(system) => Contents::of(system),
            None => probe(&section)?,
        };
        if contents.system == System::Ntfs && contents.label.is_none() {
            contents.label = systems::ntfs_label(&section);
        }
        let length = range.end - range.start;
        Ok(Volume { number, start: range.start, length, kind: Some(kind.name()), name, contents })
    }

    /// Opens the file system of a volume.
    ///
    /// # Errors
    /// A disk that cannot be read, a volume with nothing that is read, a damaged file system.
    pub fn open(&self, volume: &Volume) -> Result<Tree, GuestError> {
        let system = volume.contents.system;
        if !system.is_read() {
            return Err(GuestError::NotRead { volume: volume.number, system });
        }
        let end = volume.start.saturating_add(volume.length);
        Tree::open(self.disk.part(volume.start..end), system)
    }

    /// Opens the volume of a number, or the only one that is read if no number is given.
    ///
    /// # Errors
    /// As [`Guest::volumes`] and [`Guest::open`]; no such volume, none that is read, or several.
    pub fn only(&self, number: Option<u32>) -> Result<Tree, GuestError> {
        let volumes = self.volumes()?;
        if let Some(wanted) = number {
            return self.open(volumes.volume(wanted)?);
        }
        match volumes.read().as_slice() {
            [] => Err(volumes.nothing_read()),
            [only] => self.open(only),
            several => Err(GuestError::SeveralVolumes {
                path: "/".to_owned(),
                volumes: several.iter().map(|volume| volume.number).collect(),
            }),
        }
    }

    /// Finds a path in the volume of a number, or in the only one that has it.
    ///
    /// # Errors
    /// As [`Guest::only`]; no such path, or several volumes that have it. A volume that cannot be opened has none, if
    /// another has it.
    pub fn find_path(
        &self,
        number: Option<u32>,
        path: &[u8],
        follow: Follow,
    ) -> Result<(Tree, Entry), GuestError> {
        let volumes = self.volumes()?;
        if let Some(wanted) = number {
            let tree = self.open(volumes.volume(wanted)?)?;
            let entry = tree.resolve(path, follow)?;
            return Ok((tree, entry));
        }
        let mut found = Vec::new();
        let mut failed = None;
        for volume in volumes.read() {
            let looked = self.open(volume).and_then(|tree| Ok((tree.resolve(path, follow)?, tree)));
            match looked {
                Ok((entry, tree)) => found.push((volume.number, tree, entry)),
                Err(GuestError::NotFound { .. } | GuestError::NotADirectory { .. }) => {}
                Err(GuestError::Disk(error)) if !error.is_damage() => return Err(error.into()),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if volumes.read().is_empty() {
            return Err(volumes.nothing_read());
        }
        if found.len() > 1 {
            let volumes = found.iter().map(|(number, ..)| *number).collect();
            return Err(GuestError::SeveralVolumes { path: shown(path), volumes });
        }
        let found = found.pop().map(|(_, tree, entry)| (tree, entry));
        found.ok_or_else(|| failed.unwrap_or_else(|| GuestError::not_found(path)))
    }

    fn failed(&self, failure: ReadFailure) -> GuestError {
        // Volumes are read within their limits, so only the disk can have failed.
        let failed = self.disk.failure().map(GuestError::Disk);
        failed.unwrap_or_else(|| GuestError::Damaged { system: System::Unknown, source: failure.into() })
    }
}

impl Volumes {
    /// The volume of a number.
    ///
    /// # Errors
    /// There is none.
    pub fn volume(&self, wanted: u32) -> Result<&Volume, GuestError> {
        let found = self.volumes.iter().find(|volume| volume.number == wanted);
        found.ok_or_else(|| GuestError::NoSuchVolume {
            wanted,
            found: self.volumes.iter().map(|volume| volume.number).collect(),
        })
    }

    /// Those with a file system that is read.
    #[must_use]
    pub fn read(&self) -> Vec<&Volume> {
        self.volumes.iter().filter(|volume| volume.contents.system.is_read()).collect()
    }

    fn nothing_read(&self) -> GuestError {
        let found = self.volumes.iter().map(|volume| (volume.number, volume.contents.system)).collect();
        GuestError::NothingRead { found }
    }
}
