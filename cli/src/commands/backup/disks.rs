//! The disks that a command line names, each with what it is read from.

use super::Arguments;
use crate::console::warn;
use crate::exit::{Exit, Usage};
use crate::nbd;
use crate::unsupported::{Role, local_path};
use anyhow::Context as _;
use keepstone_engine::DiskSource;
use keepstone_engine::nbd::{NbdPlace, NbdSettings};
use keepstone_engine::source::{ChangesFile, NbdDisk, RawImage, WithChanges};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The key of a disk that was given without one.
const ONLY_DISK: &str = "disk0";
/// Ten million areas, the most that are accepted, take less.
const CHANGES_LEN_MAX: u64 = 512 << 20;

/// One disk as the command line names it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) key: String,
    place: Place,
    changes: Option<PathBuf>,
    /// The dirty bitmap of an NBD server that tells its changes.
    pub(super) bitmap: Option<String>,
    /// When an image was last written to, as it was opened; nothing of what does not tell.
    modified: OnceLock<Option<SystemTime>>,
}

/// Where a disk is.
#[derive(Debug)]
enum Place {
    Local(PathBuf),
    Nbd(NbdPlace),
}

impl Place {
    fn parse(text: &str) -> Result<Self, Usage> {
        Ok(match nbd::export(text)? {
            Some(place) => Self::Nbd(place),
            None => Self::Local(PathBuf::from(local_path(text, Role::Source)?)),
        })
    }
}

impl Disk {
    /// Opens what the disk is read from.
    pub(super) fn open(&self) -> anyhow::Result<Box<dyn DiskSource>> {
        let source: Box<dyn DiskSource> = match &self.place {
            Place::Local(path) => {
                self.modified.get_or_init(|| modified(path));
                Box::new(RawImage::open(path)?)
            }
            Place::Nbd(place) => {
                let settings = NbdSettings { bitmap: self.bitmap.clone(), ..NbdSettings::default() };
                Box::new(NbdDisk::open(place, settings)?)
            }
        };
        let Some(path) = &self.changes else { return Ok(source) };
        let failed = || format!("the changes of disk {:?}, {}, cannot be used", self.key, path.display());
        let bytes = read_changes(path).with_context(failed)?;
        let changes = ChangesFile::parse(&bytes).with_context(failed)?;
        Ok(Box::new(WithChanges::new(source, changes).with_context(failed)?))
    }

    /// Tells if an image was written to since it was opened.
    pub(super) fn attention(&self) -> Exit {
        let Place::Local(path) = &self.place else { return Exit::Done };
        if self.modified.get().is_none_or(|before| *before == modified(path)) {
            return Exit::Done;
        }
        warn(&format!(
            "{} was written to during the backup; the snapshot may be of no one point in time: back up a disk that \
             stands still",
            path.display()
        ));
        Exit::Attention
    }
}

/// The disks that the command line names, each with its changes file or dirty bitmap.
pub(super) fn disks(arguments: &Arguments) -> Result<Vec<Disk>, Usage> {
    let named: Vec<(&str, &str)> = match arguments.source.first() {
        Some(source) => vec![(ONLY_DISK, source)],
        None => arguments.disk.iter().map(|named| (named.key.as_str(), named.value.as_str())).collect(),
    };
    let mut disks: Vec<Disk> = Vec::with_capacity(named.len());
    for (key, source) in named {
        if disks.iter().any(|disk| disk.key == key) {
            return Err(Usage::new(format!("two disks have the key {key:?}")));
        }
        let place = Place::parse(source)?;
        let modified = OnceLock::new();
        disks.push(Disk { key: key.to_owned(), place, changes: None, bitmap: None, modified });
    }
    for given in &arguments.changes {
        let (disk, file) = changed_disk(&mut disks, given)?;
        if disk.changes.replace(PathBuf::from(file)).is_some() {
            return Err(Usage::new(format!("disk {:?} has two changes files", disk.key)));
        }
    }
    for given in &arguments.bitmap {
        give_bitmap(&mut disks, given)?;
    }
    Ok(disks)
}

/// Which disk a `--changes` is about: of several it must say so, as in KEY=FILE.
fn changed_disk<'a, 'b>(disks: &'a mut [Disk], given: &'b str) -> Result<(&'a mut Disk, &'b str), Usage> {
    let (position, file) = match keyed(disks, given) {
        Some(keyed) => keyed,
        None if disks.len() == 1 => (0, given),
        None => {
            let keys = disks.iter().map(|disk| disk.key.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Usage::new(format!("--changes {given} does not say which disk it is about"))
                .hint(format!("write --changes KEY=FILE, where KEY is one of {keys}")));
        }
    };
    Ok((&mut disks[position], file))
}

/// What was given as KEY=VALUE, if that is the key of a disk.
fn keyed<'b>(disks: &[Disk], given: &'b str) -> Option<(usize, &'b str)> {
    let (key, value) = given.split_once('=')?;
    Some((disks.iter().position(|disk| disk.key == key)?, value))
}

/// A bitmap without a key is of all disks that are read over NBD: they are cleared together, under one name.
fn give_bitmap(disks: &mut [Disk], given: &str) -> Result<(), Usage> {
    let (only, bitmap) =
        keyed(disks, given).map_or((None, given), |(position, bitmap)| (Some(position), bitmap));
    let mut is_used = false;
    for (position, disk) in disks.iter_mut().enumerate() {
        let is_meant = only.map_or(matches!(disk.place, Place::Nbd(_)), |only| only == position);
        if !is_meant {
            continue;
        }
        is_used = true;
        let key = &disk.key;
        if !matches!(disk.place, Place::Nbd(_)) {
            return Err(Usage::new(format!("disk {key:?} is not read over NBD and has no dirty bitmap")));
        }
        if disk.changes.is_some() {
            return Err(Usage::new(format!("disk {key:?} has a changes file and a dirty bitmap"))
                .hint("only one of them can tell its changes"));
        }
        if bitmap.is_empty() {
            return Err(Usage::new("the name of the dirty bitmap is empty"));
        }
        if disk.bitmap.replace(bitmap.to_owned()).is_some() {
            return Err(Usage::new(format!("disk {key:?} has two dirty bitmaps")));
        }
    }
    if is_used {
        Ok(())
    } else {
        Err(Usage::new(format!("--bitmap {given}: no disk is read over NBD"))
            .hint("name the disk by nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH"))
    }
}

/// When a regular file was last written to. What cannot be told is told when it is opened.
fn modified(path: &Path) -> Option<SystemTime> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    metadata.modified().ok()
}

/// Reads a changes file of a bounded length.
pub(in crate::commands) fn read_changes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CHANGES_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CHANGES_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 512 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn disk(key: &str) -> Disk {
        let place = Place::Local(PathBuf::new());
        Disk { key: key.to_owned(), place, changes: None, bitmap: None, modified: OnceLock::new() }
    }

    fn exported(key: &str) -> Disk {
        Disk { place: Place::parse("nbd://host/disk").unwrap(), ..disk(key) }
    }

    fn bitmaps(disks: &[Disk]) -> Vec<Option<&str>> {
        disks.iter().map(|disk| disk.bitmap.as_deref()).collect()
    }

    #[test]
    fn only_what_is_written_after_an_image_was_opened_needs_attention() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let image = Disk { place: Place::Local(file.path().to_owned()), ..disk("disk0") };
        let write_at = |seconds| {
            file.as_file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        write_at(1);
        let source = image.open().unwrap();
        assert_eq!(image.attention(), Exit::Done);
        write_at(2);
        assert_eq!(image.attention(), Exit::Attention);
        drop(source);
    }

    #[test]
    fn changes_of_the_only_disk_need_no_key() {
        let mut one = [disk("disk0")];
        assert_eq!(changed_disk(&mut one, "a=b.json").unwrap().1, "a=b.json");
        assert_eq!(changed_disk(&mut one, "disk0=b.json").unwrap().1, "b.json");
    }

    #[test]
    fn changes_of_several_disks_name_theirs() {
        let mut two = [disk("system"), disk("data")];
        let (of, file) = changed_disk(&mut two, "data=b.json").unwrap();
        assert_eq!((of.key.as_str(), file), ("data", "b.json"));
        assert!(changed_disk(&mut two, "b.json").is_err());
        assert!(changed_disk(&mut two, "other=b.json").is_err());
    }

    #[test]
    fn a_bitmap_is_of_all_disks_over_nbd_or_of_the_one_that_it_names() {
        let mut disks = [exported("system"), disk("local"), exported("data")];
        give_bitmap(&mut disks, "day=1").unwrap();
        assert_eq!(bitmaps(&disks), [Some("day=1"), None, Some("day=1")]);
        let mut disks = [exported("system"), exported("data")];
        give_bitmap(&mut disks, "data=b0").unwrap();
        assert_eq!(bitmaps(&disks), [None, Some("b0")]);
        assert!(give_bitmap(&mut disks, "b1").is_err(), "data has one");
        assert!(give_bitmap(&mut [disk("local")], "b0").is_err());
        assert!(give_bitmap(&mut [disk("local")], "local=b0").is_err());
        assert!(give_bitmap(&mut [exported("system")], "").is_err());
        let changes = Some(PathBuf::from("changes.json"));
        assert!(give_bitmap(&mut [Disk { changes, ..exported("system") }], "b0").is_err());
    }
}
