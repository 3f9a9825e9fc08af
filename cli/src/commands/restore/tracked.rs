//! What is known of the changes of a disk that is brought back in place.

use super::Arguments;
use super::place::Place;
use crate::commands::backup::{TRACKED_AUDIT, read_changes};
use crate::exit::Usage;
use crate::numbers::{Ppm, parse_percent};
use crate::selector;
use anyhow::Context as _;
use keepstone_engine::backup::Audit;
use keepstone_engine::restore::{Tracked, tracked_areas};
use keepstone_engine::snapshots::{Selector, Snapshot, find, list};
use keepstone_engine::source::{ChangesFile, FullReason, Since, WithChanges};
use keepstone_engine::vsphere::preflight::disk_key;
use keepstone_engine::vsphere::{VmInfo, property};
use keepstone_engine::{DiskSource, EngineError, Extent, Repository};
use repo_format::{Disk, SessionId};
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// The options that say what changed.
#[derive(Debug, clap::Args)]
pub(super) struct TrackedArguments {
    /// With --in-place: what changed on the disk since the snapshot that recorded the change id in `since`
    #[arg(long, value_name = "FILE", requires = "in_place", conflicts_with = "bitmap")]
    changes: Option<PathBuf>,

    /// With --in-place: the dirty bitmap of the NBD server that tells what changed on the disk since a snapshot
    #[arg(long, value_name = "NAME", requires_all = ["in_place", "since"])]
    pub(super) bitmap: Option<String>,

    /// The snapshot that the dirty bitmap counts from
    #[arg(long, value_name = "SNAPSHOT", value_parser = selector::parse, requires = "bitmap")]
    since: Option<Selector>,

    /// Compare this share of what was said to be unchanged, in per cent of the regions, 0 to 100 [default: 0.5, with changes files 1 or less]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, requires = "in_place", allow_negative_numbers = true)]
    audit: Option<Ppm>,
}

impl TrackedArguments {
    /// What is looked at beside what was told.
    pub(super) fn audit(&self, place: &Place) -> anyhow::Result<Audit> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).context("could not get random bytes from the system")?;
        let seed = Some(u64::from_le_bytes(seed));
        let is_tracked = self.bitmap.is_some() || matches!(place, Place::Machine(_));
        let tracked = is_tracked.then_some(TRACKED_AUDIT);
        Ok(match self.audit.or(tracked) {
            Some(Ppm(ppm)) => Audit::Share { ppm, seed },
            None => Audit::Default { seed },
        })
    }
}

/// Why every byte of a disk has to be read although something tells its changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Untracked {
    /// No snapshot recorded the change id.
    NoSnapshot { since: Option<String> },
    /// They count from a snapshot of another VM.
    OtherVm { vm: String },
    /// There may be changes that nothing tells of.
    Untold,
    /// The tracker does not know.
    Unknown(FullReason),
}

impl fmt::Display for Untracked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSnapshot { since: Some(since) } => {
                write!(formatter, "the changes count from {since}, which no snapshot of the disk recorded")
            }
            Self::NoSnapshot { since: None } => {
                formatter.write_str("the changes do not say what they count from")
            }
            Self::OtherVm { vm } => {
                write!(formatter, "the changes count from a snapshot of {vm}, another VM")
            }
            Self::Untold => formatter.write_str(
                "an interrupted restore has left or found changes on the disk that nothing tells of",
            ),
            Self::Unknown(reason) => reason.fmt(formatter),
        }
    }
}

/// What is known of a disk's changes.
pub(super) enum Known {
    /// Nothing was asked.
    NotAsked,
    /// What may differ from the snapshot that is wanted, by the changes since another one.
    Areas { since: SessionId, areas: Vec<Extent> },
    /// Nothing, though it was asked.
    Nothing(Untracked),
}

/// What the report says of the changes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangesReport {
    /// The snapshot that they count from.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes_since: Option<String>,
    /// Why all of the disk was compared although something told its changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compared_reason: Option<String>,
}

impl Known {
    pub(super) fn report(&self) -> ChangesReport {
        let (changes_since, compared_reason) = match self {
            Self::NotAsked => (None, None),
            Self::Areas { since, .. } => (Some(since.to_string()), None),
            Self::Nothing(reason) => (None, Some(reason.to_string())),
        };
        ChangesReport { changes_since, compared_reason }
    }
}

/// The changes that the command line names, read before anything is opened.
#[derive(Debug)]
pub(super) enum Changes {
    NotNamed,
    File(Box<ChangesFile>),
    /// Since this snapshot.
    Bitmap(Selector),
}

impl Changes {
    /// Reads what the options name.
    ///
    /// # Errors
    /// A changes file that cannot be used, a bitmap of something that is not an NBD export, or either for a VM in vSphere.
    pub(super) fn read(arguments: &Arguments, place: &Place) -> anyhow::Result<Self> {
        let TrackedArguments { changes, bitmap, since, audit: _ } = &arguments.tracked;
        if matches!(place, Place::Machine(_)) && (changes.is_some() || bitmap.is_some()) {
            return Err(Usage::new("vSphere itself tells the changes of its disks")
                .hint("leave --changes and --bitmap out")
                .into());
        }
        if let Some(path) = changes {
            let failed = || format!("the changes of the disk, {}, cannot be used", path.display());
            let bytes = read_changes(path).with_context(failed)?;
            return Ok(Self::File(Box::new(ChangesFile::parse(&bytes).with_context(failed)?)));
        }
        match (bitmap, since, place) {
            (Some(_), Some(since), Place::Nbd(_)) => Ok(Self::Bitmap(since.clone())),
            (Some(_), ..) => {
                Err(Usage::new(format!("{} is not an NBD export and has no dirty bitmap", arguments.to))
                    .hint("name the disk by nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH")
                    .into())
            }
            (None, ..) => Ok(Self::NotNamed),
        }
    }

    /// Finds out where a disk may differ from one of a snapshot. `open` opens it as it is now.
    ///
    /// # Errors
    /// A snapshot that is not there, or maps or a disk that cannot be read.
    pub(super) fn areas(
        self,
        repository: &Repository<'_>,
        (snapshot, disk): (&Snapshot, &Disk),
        open: impl FnOnce() -> io::Result<Box<dyn DiskSource>>,
    ) -> anyhow::Result<Known> {
        match self {
            Self::NotNamed => Ok(Known::NotAsked),
            Self::Bitmap(since) => {
                let since = find(repository, &since)?;
                let vm = &since.commit.vm;
                if *vm != snapshot.commit.vm {
                    return Ok(Known::Nothing(Untracked::OtherVm { vm: vm.clone() }));
                }
                known(repository, (&since, &disk.key), (snapshot.session(), disk), open()?.as_ref())
            }
            Self::File(changes) => {
                let recorded = changes.since().map(str::to_owned);
                let source = WithChanges::new(open()?, *changes)?;
                let all = list(repository, Some(&snapshot.commit.vm))?.snapshots;
                let has_recorded = |of: &&Snapshot| {
                    let disk = of.commit.disks.iter().find(|of| of.key == disk.key);
                    recorded.is_some() && disk.is_some_and(|disk| disk.change_id == recorded)
                };
                match all.iter().rev().find(has_recorded) {
                    Some(since) => known(repository, (since, &disk.key), (snapshot.session(), disk), &source),
                    None => Ok(Known::Nothing(Untracked::NoSnapshot { since: recorded })),
                }
            }
        }
    }
}

/// A snapshot that a VM in vSphere can be asked about: what changed on a disk since.
pub(super) struct Countable {
    snapshot: Snapshot,
    /// The disk of the VM, which has the same key in the snapshot.
    key: String,
}

impl Countable {
    /// Finds the newest snapshot of a VM of the repository that recorded a change id for the disk `key`. It is one of the same
    /// VM and disk in vSphere, if there is any.
    ///
    /// # Errors
    /// Snapshots that cannot be listed.
    pub(super) fn find(
        repository: &Repository<'_>,
        vm: &str,
        key: &str,
        info: &VmInfo,
    ) -> anyhow::Result<Option<Self>> {
        let uuid = info.disks.iter().find(|disk| disk_key(disk, &info.controllers) == key);
        let uuid = uuid.and_then(|disk| disk.backing.uuid.as_deref());
        let mut newest = None;
        for snapshot in list(repository, Some(vm))?.snapshots.into_iter().rev() {
            let countable = Self { snapshot, key: key.to_owned() };
            let Some(since) = countable.since() else { continue };
            // Others recorded a change id of something else.
            let Some(of) = since.property(property::VM).filter(|_| since.change_id.is_some()) else {
                continue;
            };
            let is_same = Some(of) == info.instance_uuid.as_deref()
                && since.property(&property::disk_uuid(key)) == uuid;
            if is_same {
                return Ok(Some(countable));
            }
            newest.get_or_insert(countable);
        }
        Ok(newest)
    }

    /// What is asked.
    pub(super) fn since(&self) -> Option<Since<'_>> {
        let disk = self.snapshot.commit.disks.iter().find(|disk| disk.key == self.key)?;
        let (change_id, properties) = (disk.change_id.as_deref(), &self.snapshot.commit.properties);
        Some(Since { change_id, size: disk.size, properties })
    }

    /// Finds out where the disk of a `source`, which was asked, may differ from the `wanted` one.
    ///
    /// # Errors
    /// Maps that cannot be compared.
    pub(super) fn areas(
        &self,
        repository: &Repository<'_>,
        wanted: (SessionId, &Disk),
        source: &dyn DiskSource,
    ) -> anyhow::Result<Known> {
        known(repository, (&self.snapshot, &self.key), wanted, source)
    }
}

fn known(
    repository: &Repository<'_>,
    (since, key): (&Snapshot, &str),
    wanted: (SessionId, &Disk),
    source: &dyn DiskSource,
) -> anyhow::Result<Known> {
    let then = since.disk(Some(key))?;
    match tracked_areas(repository, source, (since, then), wanted) {
        Ok(Tracked::Areas(areas)) => Ok(Known::Areas { since: since.session(), areas }),
        Ok(Tracked::Anywhere(reason)) => Ok(Known::Nothing(Untracked::Unknown(reason))),
        Err(EngineError::ForgottenMeanwhile { snapshot }) if snapshot == since.session() => {
            Ok(Known::Nothing(Untracked::NoSnapshot { since: then.change_id.clone() }))
        }
        Err(error) => Err(error.into()),
    }
}
