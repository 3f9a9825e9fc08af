//! What changed on a disk since an earlier backup, decided strictly.
//!
//! Changed-block tracking has lost changes more than once. So nothing that a server says is used unless all of it
//! agrees: whatever does not is a [`Doubt`], for which the disk is read in full.

use crate::Extent;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How many pages are asked for: fifty times as many as a disk with [`EXTENTS_MAX`] takes.
const PAGES_MAX: usize = 100_000;

/// How many extents are collected: 64 MiB of memory, and every other 64 KiB of a disk of 512 GiB.
const EXTENTS_MAX: usize = 4 << 20;

/// A point of a disk's history that changes are counted from, as vSphere names it: the id of the time for which changes
/// were tracked without a break, and a number that grows in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeId {
    text: String,
    epoch: [u8; 16],
    sequence: u64,
}

impl ChangeId {
    /// As the server wrote it, which is what it wants to have back.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The time for which changes were tracked.
    #[must_use]
    pub fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    /// The number in it.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// A text that is no change id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a change id: 16 bytes in hexadecimal digits, a slash and a number are")]
pub struct NotAChangeId;

/// Takes `52 de a8 64 53 44 f0 f6-b7 46 a9 f9 e8 8f 13 1b/5`, with any spaces and hyphens between the bytes.
impl FromStr for ChangeId {
    type Err = NotAChangeId;

    fn from_str(text: &str) -> Result<Self, NotAChangeId> {
        let text = text.trim();
        let (epoch, sequence) = text.split_once('/').ok_or(NotAChangeId)?;
        let mut bytes = Vec::with_capacity(16);
        for digits in epoch.split([' ', '-']) {
            for pair in digits.as_bytes().chunks(2) {
                let [high, low] = *pair else { return Err(NotAChangeId) };
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(NotAChangeId) };
                bytes.push(high << 4 | low);
            }
        }
        let epoch = bytes.try_into().map_err(|_| NotAChangeId)?;
        if !sequence.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(NotAChangeId);
        }
        let sequence = sequence.parse().map_err(|_| NotAChangeId)?;
        Ok(Self { text: text.to_owned(), epoch, sequence })
    }
}

/// One answer about changed areas, as the server gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPage {
    /// Where the page begins.
    pub start_offset: i64,
    /// How many bytes of the disk it tells of.
    pub length: i64,
    /// The areas of these that changed.
    pub areas: Vec<RawArea>,
}

/// An area as the server gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawArea {
    /// Its first byte.
    pub start: i64,
    /// Its bytes.
    pub length: i64,
}

/// What the snapshot of an earlier backup recorded of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedDisk {
    /// Its length in bytes.
    pub size: u64,
    /// Its change id.
    pub change_id: Option<String>,
    /// The disk's own id.
    pub disk_uuid: Option<String>,
    /// The build of the host that the VM was on.
    pub host_build: Option<String>,
}

/// What is so at the snapshot that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentDisk {
    /// Its length in bytes.
    pub size: u64,
    /// Its change id.
    pub change_id: Option<String>,
    /// The disk's own id.
    pub disk_uuid: Option<String>,
    /// The build of the host that the VM is on.
    pub host_build: Option<String>,
    /// Whether changes are tracked.
    pub tracking: Tracking,
}

/// Whether changes of a VM's disks are tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// They are.
    On,
    /// They are, but the VM had snapshots when that began, so that some may be missing.
    BegunWithSnapshots,
    /// They are not.
    Off,
}

/// Why it is not known what changed on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// Changes are not tracked.
    TrackingOff,
    /// Tracking began while the VM had snapshots.
    TrackingBegunWithSnapshots,
    /// The earlier backup recorded no change id.
    NoRecordedChangeId,
    /// The disk has no change id now.
    NoChangeId,
    /// A change id is none that is understood.
    StrangeChangeId {
        /// The text.
        text: String,
    },
    /// Tracking began anew since.
    TrackingReset,
    /// The disk was set back to an earlier point.
    Reverted {
        /// The number that was recorded.
        recorded: u64,
        /// The one of now.
        current: u64,
    },
    /// The disk's length changed.
    Resized {
        /// The length that was recorded.
        recorded: u64,
        /// The one of now.
        current: u64,
    },
    /// It is another disk.
    OtherDisk,
    /// The software of the host changed, or it cannot be told whether it did.
    OtherHostBuild {
        /// The build that was recorded.
        recorded: Option<String>,
        /// The one of now.
        current: Option<String>,
    },
    /// The server does not tell: the disk's change files may be missing, damaged, or not know the change id.
    Refused {
        /// The type of the fault.
        fault: String,
        /// The server's message.
        message: String,
    },
    /// The server's answer cannot be read.
    Unreadable {
        /// What is wrong with it.
        what: String,
    },
    /// A page begins elsewhere than was asked for.
    OtherPage {
        /// What was asked for.
        asked: u64,
        /// Where it begins.
        found: i64,
    },
    /// A page tells of no bytes.
    EmptyPage {
        /// Where it begins.
        offset: u64,
        /// Its length.
        length: i64,
    },
    /// A page reaches beyond the disk's end.
    BeyondEnd {
        /// Where it begins.
        offset: u64,
        /// Its length.
        length: i64,
        /// The disk's length.
        capacity: u64,
    },
    /// An area is empty.
    EmptyArea {
        /// The area.
        area: RawArea,
    },
    /// An area is outside of its page.
    AreaOutsidePage {
        /// The area.
        area: RawArea,
        /// Where the page begins.
        offset: u64,
        /// Its length.
        length: u64,
    },
    /// An area begins before the one before it ends.
    AreasOutOfOrder {
        /// The area.
        area: RawArea,
        /// Where the one before it ends.
        before: u64,
    },
    /// There are more pages than any disk should have.
    TooManyPages,
    /// There are more areas than are kept in memory.
    TooManyAreas,
}

impl fmt::Display for Doubt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |build: &Option<String>| build.clone().unwrap_or_else(|| "unknown".to_owned());
        match self {
            Self::TrackingOff => write!(formatter, "changed-block tracking is off"),
            Self::TrackingBegunWithSnapshots => {
                write!(
                    formatter,
                    "changed-block tracking was enabled while the virtual machine had snapshots"
                )
            }
            Self::NoRecordedChangeId => write!(formatter, "the last snapshot recorded no change id"),
            Self::NoChangeId => write!(formatter, "the disk has no change id"),
            Self::StrangeChangeId { text } => {
                write!(formatter, "the change id {} is not understood", super::text::excerpt(text))
            }
            Self::TrackingReset => {
                write!(formatter, "changed-block tracking was reset since the last snapshot")
            }
            Self::Reverted { recorded, current } => write!(
                formatter,
                "the disk was reverted: its change number is {current}, after {recorded} at the last snapshot"
            ),
            Self::Resized { recorded, current } => {
                write!(formatter, "the disk has {current} bytes, and had {recorded} at the last snapshot")
            }
            Self::OtherDisk => write!(formatter, "it is another disk than at the last snapshot"),
            Self::OtherHostBuild { recorded, current } => write!(
                formatter,
                "the build of the host is {}, and was {} at the last snapshot",
                known(current),
                known(recorded)
            ),
            Self::Refused { fault, message } => {
                write!(formatter, "the server does not tell what changed ({fault}: {message})")
            }
            Self::Unreadable { what } => {
                write!(formatter, "the server's answer about changes cannot be used: {what}")
            }
            Self::OtherPage { asked, found } => {
                write!(
                    formatter,
                    "asked for changes from {asked} on, the server tells of those from {found} on"
                )
            }
            Self::EmptyPage { offset, length } => {
                write!(formatter, "the server tells of {length} bytes at {offset}")
            }
            Self::BeyondEnd { offset, length, capacity } => write!(
                formatter,
                "the server tells of {length} bytes at {offset}, beyond the disk's end at {capacity}"
            ),
            Self::EmptyArea { area } => {
                write!(formatter, "a changed area at {} has {} bytes", area.start, area.length)
            }
            Self::AreaOutsidePage { area, offset, length } => write!(
                formatter,
                "a changed area of {} bytes at {} is outside of the {length} bytes at {offset} that were told of",
                area.length, area.start
            ),
            Self::AreasOutOfOrder { area, before } => write!(
                formatter,
                "a changed area begins at {}, before the end of the one before it at {before}",
                area.start
            ),
            Self::TooManyPages => write!(formatter, "the changes come in more than {PAGES_MAX} parts"),
            Self::TooManyAreas => write!(formatter, "there are more than {EXTENTS_MAX} changed areas"),
        }
    }
}

/// Decides whether changes since an earlier backup can be asked for, and from which change id on.
///
/// # Errors
/// The first doubt, if there is one.
pub fn plan_read(recorded: &RecordedDisk, current: &CurrentDisk) -> Result<ChangeId, Doubt> {
    if recorded.disk_uuid != current.disk_uuid {
        return Err(Doubt::OtherDisk);
    }
    if recorded.size != current.size {
        return Err(Doubt::Resized { recorded: recorded.size, current: current.size });
    }
    match current.tracking {
        Tracking::Off => return Err(Doubt::TrackingOff),
        Tracking::BegunWithSnapshots => return Err(Doubt::TrackingBegunWithSnapshots),
        Tracking::On => {}
    }
    let since = read_change_id(recorded.change_id.as_deref().ok_or(Doubt::NoRecordedChangeId)?)?;
    let now = read_change_id(current.change_id.as_deref().ok_or(Doubt::NoChangeId)?)?;
    if since.epoch != now.epoch {
        return Err(Doubt::TrackingReset);
    }
    // Every snapshot has a number of its own. The same one again is that of another snapshot, made after the disk was
    // set back to before the recorded one.
    if now.sequence <= since.sequence {
        return Err(Doubt::Reverted { recorded: since.sequence, current: now.sequence });
    }
    if recorded.host_build != current.host_build {
        let (recorded, current) = (recorded.host_build.clone(), current.host_build.clone());
        return Err(Doubt::OtherHostBuild { recorded, current });
    }
    Ok(since)
}

fn read_change_id(text: &str) -> Result<ChangeId, Doubt> {
    text.parse().map_err(|NotAChangeId| Doubt::StrangeChangeId { text: text.to_owned() })
}

/// Asks for all changed areas of a disk, page by page, from the offset that is given to `ask` on.
///
/// Returns extents that are sorted, disjoint and do not touch, or the first doubt.
///
/// # Errors
/// Those of `ask`.
pub fn collect_changes<E>(
    capacity: u64,
    mut ask: impl FnMut(u64) -> Result<ChangedPage, E>,
) -> Result<Result<Vec<Extent>, Doubt>, E> {
    let mut extents = Vec::new();
    let mut offset = 0;
    let mut pages = 0;
    // Asking at the end or beyond it is not allowed.
    while offset < capacity {
        if pages == PAGES_MAX {
            return Ok(Err(Doubt::TooManyPages));
        }
        pages += 1;
        match add_page(&mut extents, &ask(offset)?, offset, capacity) {
            Ok(end) => offset = end,
            Err(doubt) => return Ok(Err(doubt)),
        }
    }
    Ok(Ok(extents))
}

/// Adds the areas of a page, and returns where it ends.
fn add_page(extents: &mut Vec<Extent>, page: &ChangedPage, offset: u64, capacity: u64) -> Result<u64, Doubt> {
    if u64::try_from(page.start_offset) != Ok(offset) {
        return Err(Doubt::OtherPage { asked: offset, found: page.start_offset });
    }
    let length = u64::try_from(page.length).unwrap_or(0);
    if length == 0 {
        return Err(Doubt::EmptyPage { offset, length: page.length });
    }
    let end = offset.checked_add(length).filter(|end| *end <= capacity);
    let end = end.ok_or(Doubt::BeyondEnd { offset, length: page.length, capacity })?;

    let mut before = offset;
    for area in &page.areas {
        let outside = Doubt::AreaOutsidePage { area: *area, offset, length };
        let Ok(area_length) = u64::try_from(area.length) else {
            return Err(Doubt::EmptyArea { area: *area });
        };
        if area_length == 0 {
            return Err(Doubt::EmptyArea { area: *area });
        }
        let Ok(start) = u64::try_from(area.start) else { return Err(outside) };
        let Some(area_end) = start.checked_add(area_length) else { return Err(outside) };
        if start < offset || area_end > end {
            return Err(outside);
        }
        if start < before {
            return Err(Doubt::AreasOutOfOrder { area: *area, before });
        }
        before = area_end;
        let full = extents.len() == EXTENTS_MAX;
        match extents.last_mut() {
            Some(last) if last.end() == start => last.length += area_length,
            _ if full => return Err(Doubt::TooManyAreas),
            _ => extents.push(Extent { start, length: area_length }),
        }
    }
    Ok(end)
}
