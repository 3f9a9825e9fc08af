//! The forms that a restored disk can have.

use super::Arguments;
use super::place::{Opened, Place, STREAM_WINDOW_LEN};
use crate::exit::Usage;
use anyhow::Context as _;
use clap::ValueEnum;
use keepstone_engine::restore::{WINDOW_LEN, WINDOWS_OPEN};
use keepstone_engine::source::RawImage;
use keepstone_engine::target::{
    Existing, FileTarget, ImageIdentity, Incomplete, Qcow2Target, StreamTarget, VhdFooter, VhdTarget,
    VmdkSettings, VmdkTarget,
};
use keepstone_engine::{DiskSource, DiskTarget};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a target that needs order keeps in memory: the data of the windows that are restored at a time.
const KEPT_MAX: u64 = WINDOWS_OPEN * STREAM_WINDOW_LEN;

/// The forms of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// The bytes of the disk, sparse
    Raw,
    /// A fixed VHD, as Azure takes it: whole MiB and a footer of 512 bytes
    Vhd,
    /// A streamOptimized VMDK, as in an OVF or OVA package
    Vmdk,
    /// A qcow2 file of QEMU; not to standard output
    Qcow2,
}

/// A disk and what an image of it is told apart by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) disk_bytes: u64,
    pub(super) identity: ImageIdentity,
}

/// How many bytes were written to standard output.
pub(super) type Written = Arc<AtomicU64>;

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Vmdk => "vmdk",
            Self::Qcow2 => "qcow2",
        }
    }

    /// Whether an interrupted restore can be gone on with: what is in the file tells what it has of the disk.
    pub(super) fn can_go_on(self) -> bool {
        matches!(self, Self::Raw | Self::Vhd)
    }

    /// Refuses what cannot be done in a format, before anything is opened.
    pub(super) fn check(self, place: &Place, arguments: &Arguments) -> Result<(), Usage> {
        if self == Self::Raw {
            return Ok(());
        }
        let name = self.name();
        if arguments.in_place {
            return Err(Usage::new(format!(
                "--in-place brings back the bytes of a disk, not a {name} image"
            ))
            .hint("leave out --in-place to make a new file"));
        }
        if arguments.resume && !self.can_go_on() {
            return Err(Usage::new(format!("no restore to a {name} image can be gone on with"))
                .hint("leave out --resume: it begins anew"));
        }
        match (self, place) {
            (_, Place::File(_)) | (Self::Vhd | Self::Vmdk, Place::Output(_)) => Ok(()),
            (_, Place::Output(_)) => {
                Err(Usage::new("a qcow2 file cannot be written to standard output: its header comes last")
                    .hint("name a file with --to, or use --format vmdk, vhd or raw"))
            }
            _ => Err(Usage::new(format!(
                "{} is a disk itself, and takes nothing but the bytes of one",
                arguments.to
            ))
            .hint("leave out --format, or name a file with --to")),
        }
    }

    /// Begins a file, or goes on with what is `left` of an interrupted restore.
    pub(super) fn file(
        self,
        path: &Path,
        existing: Existing,
        content: Content,
        left: Option<&Path>,
    ) -> anyhow::Result<Opened> {
        let disk_bytes = content.disk_bytes;
        let bytes = |len| match left {
            Some(_) => FileTarget::go_on(path, len, existing),
            None => FileTarget::create(path, len, existing, Incomplete::Kept),
        };
        let target: Box<dyn DiskTarget> = match self {
            Self::Raw => Box::new(bytes(disk_bytes)?),
            Self::Vhd => {
                let footer = footer(content)?;
                Box::new(VhdTarget::new(bytes(footer.file_len())?, footer))
            }
            Self::Vmdk => Box::new(VmdkTarget::create(path, existing, &vmdk(content))?),
            Self::Qcow2 => Box::new(Qcow2Target::create(path, disk_bytes, existing)?),
        };
        let window_len = if self == Self::Vmdk { STREAM_WINDOW_LEN } else { WINDOW_LEN };
        let source = left.map(|left| RawImage::open_beginning(left, disk_bytes)).transpose()?;
        Ok(Opened {
            target,
            window_len,
            source: source.map(|source| Box::new(source) as Box<dyn DiskSource>),
        })
    }

    /// Writes to standard output.
    pub(super) fn output(self, content: Content, written: Written) -> anyhow::Result<Opened> {
        // Standard output itself would look for line ends in the disk.
        let output = io::stdout().as_fd().try_clone_to_owned().context("could not use standard output")?;
        let output = Counted { output: File::from(output), written };
        let target: Box<dyn DiskTarget> = match self {
            Self::Raw | Self::Qcow2 => Box::new(StreamTarget::new(output, content.disk_bytes, KEPT_MAX)),
            Self::Vhd => {
                let footer = footer(content)?;
                let stream = StreamTarget::new(output, footer.file_len(), KEPT_MAX);
                Box::new(VhdTarget::new(stream, footer))
            }
            Self::Vmdk => Box::new(VmdkTarget::to_writer(output, &vmdk(content))?),
        };
        Ok(Opened { target, window_len: STREAM_WINDOW_LEN, source: None })
    }
}

fn footer(content: Content) -> io::Result<VhdFooter> {
    Ok(VhdFooter::new(content.disk_bytes, &content.identity)?)
}

fn vmdk(Content { disk_bytes, identity }: Content) -> VmdkSettings {
    VmdkSettings { disk_bytes, kept_max: KEPT_MAX, identity }
}

/// A file whose written bytes are counted.
struct Counted {
    output: File,
    written: Written,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.output.write(bytes)?;
        self.written
            .fetch_add(u64::try_from(len).expect("a length in memory fits 64 bits"), Ordering::Relaxed);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
