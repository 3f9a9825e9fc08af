//! An image, region by region.

use keepstone_engine::source::{RawImage, ReadPart};
use keepstone_engine::{DiskSource, Extent};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub const REGION_LEN: usize = 16 << 20;

/// A raw image and the parts of each region that are allocated.
pub struct Image {
    source: RawImage,
    regions: Vec<(u64, Vec<Extent>)>,
}

impl Image {
    pub fn open(path: &Path) -> io::Result<Self> {
        let source = RawImage::open(path)?;
        let len = REGION_LEN as u64;
        let mut regions: BTreeMap<u64, Vec<Extent>> = BTreeMap::new();
        for area in source.changed_areas(None)?.areas {
            for region in area.start / len..area.end().div_ceil(len) {
                let start = region * len;
                regions.entry(start).or_default().extend(area.clip(start, start + len));
            }
        }
        Ok(Self { source, regions: regions.into_iter().collect() })
    }

    /// How many regions have something allocated.
    pub fn regions(&self) -> usize {
        self.regions.len()
    }

    /// Reads a region that has something allocated; what is not is zero.
    pub fn read(&self, region: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        let (start, areas) = &self.regions[region];
        let len = (self.source.size() - start).min(REGION_LEN as u64);
        buffer.clear();
        buffer.resize(index(len), 0);
        for area in areas {
            let at = index(area.start - start);
            let part = ReadPart { offset: area.start, buffer: &mut buffer[at..at + index(area.length)] };
            self.source.read(&mut [part])?;
        }
        Ok(())
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a region is in memory")
}
