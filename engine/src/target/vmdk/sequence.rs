//! A streamOptimized VMDK from front to back.

use super::layout::{
    FILE_LEN_MAX, GRAIN, Marker, OVERHEAD, SECTOR, TABLE_ENTRIES, beginning, header, marker,
};
use crate::target::TargetError;
use crate::target::identity::ImageIdentity;
use crate::target::order::Sequential;
use crate::target::output::Output;
use std::io;

/// The file as far as it was written, its grain directory, and the grain table that is being filled.
pub(super) struct Sequence {
    output: Box<dyn Output>,
    image_bytes: u64,
    /// The grain of the disk that is next.
    grain: u64,
    /// The length of the file.
    written: u64,
    /// The sector of each grain table; 0 where all is zero.
    directory: Vec<u32>,
    /// The sector of each grain of the table that is being filled, likewise.
    table: Vec<u32>,
}

impl Sequence {
    /// Writes what comes before the first grain.
    pub(super) fn begin(
        mut output: Box<dyn Output>,
        image_bytes: u64,
        identity: &ImageIdentity,
    ) -> io::Result<Self> {
        output.append(&beginning(image_bytes, identity))?;
        Ok(Self {
            output,
            image_bytes,
            grain: 0,
            written: OVERHEAD,
            directory: Vec::new(),
            table: Vec::new(),
        })
    }

    fn append(&mut self, sectors: &[u8]) -> io::Result<()> {
        self.output.append(sectors)?;
        self.written += crate::target::len_of(sectors);
        Ok(())
    }

    /// The sector that comes next.
    fn sector(&self) -> io::Result<u32> {
        let too_much = TargetError::TooMuch { format: "VMDK", bytes_max: FILE_LEN_MAX };
        u32::try_from(self.written / SECTOR).map_err(|_| too_much.into())
    }

    /// Goes on to a later grain. The table is written when its last grain has been passed.
    fn advance(&mut self, grains: u64) -> io::Result<()> {
        let next = self.grain + grains;
        if next / TABLE_ENTRIES != self.grain / TABLE_ENTRIES {
            self.end_table()?;
        }
        self.grain = next;
        Ok(())
    }

    fn end_table(&mut self) -> io::Result<()> {
        if self.table.is_empty() {
            return Ok(());
        }
        let mut table = std::mem::take(&mut self.table);
        table.resize(place_in_memory(TABLE_ENTRIES), 0);
        let sector = self.append_entries(Marker::GrainTable, &table)?;
        let number = place_in_memory(self.grain / TABLE_ENTRIES);
        self.directory.resize(number, 0);
        self.directory.push(sector);
        Ok(())
    }

    /// Appends a table or the directory, and returns its sector.
    fn append_entries(&mut self, kind: Marker, entries: &[u32]) -> io::Result<u32> {
        let mut bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(place_in_memory(SECTOR)), 0);
        self.append(&marker(kind, crate::target::len_of(&bytes) / SECTOR))?;
        let sector = self.sector()?;
        self.append(&bytes)?;
        Ok(sector)
    }
}

fn place_in_memory(number: u64) -> usize {
    usize::try_from(number).expect("tables are held in memory")
}

impl Sequential for Sequence {
    /// Writes a grain, given with its marker and in whole sectors.
    fn write_data(&mut self, length: u64, data: &[u8]) -> io::Result<()> {
        debug_assert_eq!((length, crate::target::len_of(data) % SECTOR), (GRAIN, 0));
        let sector = self.sector()?;
        self.table.resize(place_in_memory(self.grain % TABLE_ENTRIES), 0);
        self.table.push(sector);
        self.append(data)?;
        self.advance(1)
    }

    fn write_zeros(&mut self, length: u64) -> io::Result<()> {
        self.advance(length / GRAIN)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.sync()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end_table()?;
        let tables = (self.image_bytes / GRAIN).div_ceil(TABLE_ENTRIES);
        let mut directory = std::mem::take(&mut self.directory);
        directory.resize(place_in_memory(tables), 0);
        let sector = self.append_entries(Marker::GrainDirectory, &directory)?;
        self.append(&marker(Marker::Footer, 1))?;
        self.append(&header(self.image_bytes, u64::from(sector)))?;
        self.append(&marker(Marker::EndOfStream, 0))?;
        self.output.finish()
    }

    fn not_written(&self, source: io::Error) -> io::Error {
        self.output.not_written(source)
    }
}
