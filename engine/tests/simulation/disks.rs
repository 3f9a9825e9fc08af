//! VMs that change, and what each of their disks was when it was backed up.

use crate::random::Random;
use keepstone_engine::source::{ChangedAreas, FullReason, Outside, ReadPart, Since, read_each};
use keepstone_engine::{DiskSource, Extent, extent};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

const KEYS: [&str; 3] = ["a", "b", "c"];
const SECTOR: usize = 512;
/// Kinds of content that are written: few, so that disks share chunks.
const CONTENTS: u64 = 10;

/// The disks of a VM at one time.
#[derive(Clone, Debug)]
pub struct Version {
    pub vm: String,
    pub disks: Vec<(&'static str, Arc<Vec<u8>>)>,
}

/// All VMs, and all versions that anybody may have backed up.
#[derive(Default)]
pub struct Disks {
    vms: Mutex<Vec<Version>>,
    versions: Mutex<Vec<Version>>,
}

impl Disks {
    pub fn new(random: &mut Random, vms: usize) -> Self {
        let vms = (0..vms).map(|number| {
            let count = 1 + random.index(2);
            let disks = KEYS.iter().take(count).map(|key| (*key, Arc::new(first_content(random))));
            Version { vm: format!("vm{number}"), disks: disks.collect() }
        });
        Self { vms: Mutex::new(vms.collect()), versions: Mutex::default() }
    }

    /// VMs of one disk that are alike.
    pub fn alike(names: &[&str], len: usize) -> Self {
        let mut bytes = vec![0; len];
        write(&mut bytes, 0);
        let bytes = Arc::new(bytes);
        let vm = |name: &&str| Version { vm: (*name).to_owned(), disks: vec![(KEYS[0], Arc::clone(&bytes))] };
        Self { vms: Mutex::new(names.iter().map(vm).collect()), versions: Mutex::default() }
    }

    /// Changes a VM, and remembers what it is now under a number.
    pub fn next_version(&self, vm: usize, random: &mut Random) -> usize {
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, bytes) in &mut vms[vm].disks {
            let bytes = Arc::make_mut(bytes);
            for _ in 0..random.below(4) {
                change(bytes, random);
            }
        }
        self.remember(vms[vm].clone())
    }

    /// Remembers another state of a version's VM, as if it had gone another way.
    pub fn other_version(&self, version: usize, random: &mut Random) -> usize {
        let mut other = self.version(version);
        for (_, bytes) in &mut other.disks {
            change(Arc::make_mut(bytes), random);
        }
        self.remember(other)
    }

    fn remember(&self, version: Version) -> usize {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.push(version);
        versions.len() - 1
    }

    pub fn version(&self, number: usize) -> Version {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)[number].clone()
    }

    /// The disks of a version, as a source sees them.
    pub fn sources(self: &Arc<Self>, number: usize) -> Vec<Tracked> {
        let version = self.version(number);
        let source = |(key, bytes): &(&'static str, Arc<Vec<u8>>)| Tracked {
            disks: Arc::clone(self),
            vm: version.vm.clone(),
            number,
            key,
            bytes: Arc::clone(bytes),
        };
        version.disks.iter().map(source).collect()
    }
}

/// What VMs are installed from is the same; their sizes differ, and now and then one is so long that its map has several
/// nodes, with little on it.
fn first_content(random: &mut Random) -> Vec<u8> {
    let len = match random.below(12) {
        0 => 280_000 + random.below(60_000),
        1 => 90_000 + random.below(90_000),
        _ => 3000 + random.below(45_000),
    };
    let len = usize::try_from(len).expect("a small disk");
    let mut bytes = vec![0; len];
    let installed = len.min(if len > 200_000 { 8000 } else { 20_000 + random.index(100_000) });
    write(&mut bytes[..installed], random.below(2));
    bytes
}

fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    let start = random.index(bytes.len());
    let len = match random.below(4) {
        0 => 600,
        1 | 2 => 6000,
        _ => 30_000,
    };
    let end = (start + 1 + random.index(len)).min(bytes.len());
    match random.below(12) {
        0 => bytes[start..end].fill(0),
        1 => bytes.resize(2000 + random.index(60_000), 0),
        _ => write(&mut bytes[start..end], random.below(CONTENTS)),
    }
}

/// Writes one kind of content from its beginning.
fn write(part: &mut [u8], content: u64) {
    if content % 4 == 3 {
        let text = format!("line {content} of some text that repeats itself\n");
        part.iter_mut().zip(text.bytes().cycle()).for_each(|(byte, value)| *byte = value);
    } else {
        blake3::Hasher::new().update(&content.to_le_bytes()).finalize_xof().fill(part);
    }
}

/// A disk at one version, whose change tracking reaches back to all earlier ones.
pub struct Tracked {
    disks: Arc<Disks>,
    vm: String,
    number: usize,
    pub key: &'static str,
    bytes: Arc<Vec<u8>>,
}

impl Tracked {
    /// The disk at the version that a change id stands for.
    fn before(&self, since: &str) -> Option<Arc<Vec<u8>>> {
        let number = since.parse::<usize>().ok()?;
        let version = self.disks.version(number);
        let found = version.disks.into_iter().find(|(key, _)| version.vm == self.vm && *key == self.key);
        found.map(|(_, bytes)| bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }
}

impl DiskSource for Tracked {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = Some(self.number.to_string());
        let Some(before) = since.and_then(|since| self.before(since.change_id?)) else {
            let areas = Extent::between(0, self.size()).into_iter().collect();
            let full_reason = since.map(|_| FullReason::NoChangeTracking);
            return Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason }, change_id });
        };
        let sectors = self.bytes.chunks(SECTOR).enumerate().filter(|(number, sector)| {
            let start = number * SECTOR;
            before.get(start..start + sector.len()) != Some(*sector)
        });
        let areas = sectors
            .map(|(number, sector)| Extent { start: (number * SECTOR) as u64, length: sector.len() as u64 });
        Ok(ChangedAreas {
            areas: extent::normalized(areas.collect()),
            outside: Outside::Unchanged,
            change_id,
        })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}
