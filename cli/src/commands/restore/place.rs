//! Where a disk is restored to.

use super::Arguments;
use super::format::{Content, Written};
use super::machine::MachineArguments;
use crate::exit::Usage;
use crate::location::must_be_outside_of_repository;
use crate::nbd;
use crate::settings::Settings;
use crate::unsupported::{Role, local_path};
use anyhow::{Context as _, bail};
use keepstone_engine::nbd::{NbdPlace, NbdSettings};
use keepstone_engine::restore::WINDOW_LEN;
use keepstone_engine::source::{NbdDisk, RawImage};
use keepstone_engine::target::{DeviceTarget, Existing, ImageTarget, NbdTarget, partial_path};
use keepstone_engine::vsphere::VSpherePlace;
use keepstone_engine::{DiskSource, DiskTarget};
use std::io::{self, IsTerminal};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a stream keeps in memory until it is its turn is so much for each window that is restored at a time.
pub(super) const STREAM_WINDOW_LEN: u64 = 64 << 20;

/// Where a disk goes.
#[derive(Debug)]
pub(super) enum Place {
    File(PathBuf),
    Device(PathBuf),
    Nbd(NbdPlace),
    /// Standard output, with what was written to it so far.
    Output(Written),
    /// A disk of a VM in vSphere.
    Machine(VSpherePlace),
}

/// A target that is ready to be written.
pub(super) struct Opened {
    pub(super) target: Box<dyn DiskTarget>,
    /// How much may come out of order.
    pub(super) window_len: u64,
    /// The disk that it is, if some of that may be right already.
    pub(super) source: Option<Box<dyn DiskSource>>,
}

impl Place {
    /// Says what `--to` names, before anything is opened.
    pub(super) fn parse(arguments: &Arguments) -> anyhow::Result<Self> {
        if arguments.to.starts_with("vsphere:") {
            return MachineArguments::place(arguments).map(Self::Machine);
        }
        arguments.machine.refuse()?;
        if arguments.to == "-" {
            if io::stdout().is_terminal() {
                bail!(
                    Usage::new("a disk is not written to a terminal")
                        .hint("redirect the output to a file or a pipe")
                );
            }
            return Ok(Self::Output(Written::default()));
        }
        if let Some(place) = nbd::export(&arguments.to)? {
            return Ok(Self::Nbd(place));
        }
        let path = PathBuf::from(local_path(&arguments.to, Role::Target)?);
        let is_device = path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
        if is_device && !arguments.overwrite && !arguments.in_place {
            bail!(
                Usage::new(format!("{} is a block device, and what is on it would be lost", path.display()))
                    .hint("add --overwrite if that is meant, or --in-place to write only what differs")
            );
        }
        Ok(if is_device { Self::Device(path) } else { Self::File(path) })
    }

    /// It must not be among the files of the repository.
    pub(super) fn must_be_outside_of_repository(&self, settings: &Settings) -> anyhow::Result<()> {
        match self {
            Self::File(path) => {
                must_be_outside_of_repository(settings, path, "name a target in another directory")
            }
            _ => Ok(()),
        }
    }

    /// Refuses to bring back, or to go on with, what cannot be read.
    pub(super) fn check_onto(&self, arguments: &Arguments) -> Result<(), Usage> {
        let option = match (arguments.in_place, arguments.resume) {
            (true, _) => "--in-place",
            (false, true) => "--resume",
            (false, false) => return Ok(()),
        };
        match self {
            Self::Output(_) => Err(Usage::new(format!("{option} needs a target that can be read"))
                .hint("name a file, a block device or an NBD export with --to")),
            Self::File(path) if arguments.in_place && !path.exists() => Err(Usage::new(format!(
                "{} does not exist, and --in-place brings back a disk that is there",
                path.display()
            ))
            .hint("leave out --in-place to make a new file")),
            _ => Ok(()),
        }
    }

    /// Opens the disk as it is now, to ask what changed on it.
    pub(super) fn open_source(&self, arguments: &Arguments) -> io::Result<Box<dyn DiskSource>> {
        match self {
            Self::File(path) | Self::Device(path) => Ok(Box::new(RawImage::open(path)?)),
            Self::Nbd(place) => {
                let bitmap = arguments.tracked.bitmap.clone();
                Ok(Box::new(NbdDisk::open(place, NbdSettings { bitmap, ..NbdSettings::default() })?))
            }
            Self::Output(_) | Self::Machine(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Opens it for a disk; `goes_on` if an interrupted restore to it is known.
    pub(super) fn open(
        &self,
        content: Content,
        arguments: &Arguments,
        goes_on: bool,
    ) -> anyhow::Result<Opened> {
        let existing = if arguments.overwrite { Existing::Replace } else { Existing::Refuse };
        let size = content.disk_bytes;
        Ok(match self {
            Self::Machine(_) => unreachable!("a disk of a VM is opened by its own way"),
            Self::File(path) if arguments.in_place => {
                let target = Box::new(ImageTarget::open(path, size)?);
                let source = RawImage::open_beginning(path, size)?;
                Opened { target, window_len: WINDOW_LEN, source: Some(Box::new(source)) }
            }
            Self::File(path) => {
                let left = partial_path(path).filter(|left| arguments.resume && left.exists());
                arguments.format.file(path, existing, content, left.as_deref())?
            }
            Self::Device(path) => {
                let target = Box::new(DeviceTarget::open(path, size)?);
                let is_compared = arguments.in_place || arguments.resume;
                let source = is_compared.then(|| RawImage::open_beginning(path, size)).transpose()?;
                let source = source.map(|source| Box::new(source) as Box<dyn DiskSource>);
                Opened { target, window_len: WINDOW_LEN, source }
            }
            Self::Nbd(place) => {
                let is_compared = arguments.in_place || arguments.resume;
                // What else is on an export is not what an interrupted restore left.
                let existing = if arguments.in_place || goes_on { Existing::Replace } else { existing };
                let target = Box::new(NbdTarget::open(place, NbdSettings::default(), size, existing)?);
                let source = is_compared.then(|| NbdDisk::open(place, NbdSettings::default())).transpose()?;
                let source = source.map(|source| Box::new(source) as Box<dyn DiskSource>);
                Opened { target, window_len: WINDOW_LEN, source }
            }
            Self::Output(written) => arguments.format.output(content, Arc::clone(written))?,
        })
    }

    /// The length of the file or stream that was written; only these are images.
    pub(super) fn image_bytes(&self) -> anyhow::Result<Option<u64>> {
        Ok(match self {
            Self::File(path) => {
                let shown = || format!("could not look at {}", path.display());
                Some(path.metadata().with_context(shown)?.len())
            }
            Self::Device(_) | Self::Nbd(_) | Self::Machine(_) => None,
            Self::Output(written) => Some(written.load(Ordering::Relaxed)),
        })
    }
}
