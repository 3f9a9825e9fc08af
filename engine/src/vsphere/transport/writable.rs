//! A disk of a VM that does not run, open to be written: attached to this machine, as [`hotadd`] does it, but so that what
//! is written reaches the disk's file; or by nbdkit.

use super::devices::{Devices, Found, choose};
use super::error::TransportError;
use super::hotadd::{self, Attached, Files, Wish, attachable, is_of, open_device, wanted};
use super::nbdkit::{self, WritableServed};
use super::{Reader, Transport, TransportChoice, proxy};
use crate::source::RawImage;
use crate::target::DeviceTarget;
use crate::vsphere::fault::FaultKind;
use crate::vsphere::model::{MoRef, VirtualDisk};
use crate::vsphere::tasks::AttachMode;
use crate::vsphere::waiting::Waiter;
use crate::{DiskSource, DiskTarget};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// What is remembered of a disk that is about to be attached, so that it is detached if this process cannot do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vsphere) struct Noted {
    /// The VM that gets it.
    proxy: MoRef,
    /// Its descriptor.
    pub(in crate::vsphere) file: String,
    /// Whether it was made to be written, and is to be deleted.
    #[serde(default)]
    pub(in crate::vsphere) is_made: bool,
}

/// An open disk. It has to be closed before its VM can run.
#[derive(Debug)]
pub(in crate::vsphere) struct WritableDisk {
    way: Way,
}

#[derive(Debug)]
enum Way {
    HotAdd(Box<HotAdded>),
    Nbd(Box<WritableServed>),
}

/// An attached disk.
#[derive(Debug)]
struct HotAdded {
    target: DeviceTarget,
    existing: RawImage,
    attached: Attached,
}

impl WritableDisk {
    /// How the disk is written.
    pub(in crate::vsphere) fn transport(&self) -> Transport {
        match self.way {
            Way::HotAdd(_) => Transport::HotAdd,
            Way::Nbd(_) => Transport::Nbd,
        }
    }

    /// Where its bytes go.
    pub(in crate::vsphere) fn target(&self) -> &dyn DiskTarget {
        match &self.way {
            Way::HotAdd(added) => &added.target,
            Way::Nbd(served) => &**served,
        }
    }

    /// The bytes that it has, if they can be read while it is written: VMware's library opens a disk once to write it, and
    /// gives it to nobody else then.
    pub(in crate::vsphere) fn existing(&self) -> Option<&dyn DiskSource> {
        match &self.way {
            Way::HotAdd(added) => Some(&added.existing),
            Way::Nbd(_) => None,
        }
    }

    /// Lets the files of a disk that was made stay when it is closed.
    pub(in crate::vsphere) fn keep(self) -> Self {
        let way = match self.way {
            Way::HotAdd(added) => {
                let HotAdded { target, existing, attached } = *added;
                Way::HotAdd(Box::new(HotAdded { target, existing, attached: attached.with(Files::Kept) }))
            }
            way @ Way::Nbd(_) => way,
        };
        Self { way }
    }

    /// Gives the disk back.
    ///
    /// # Errors
    /// [`TransportError::StillAttached`].
    pub(in crate::vsphere) fn close(self, waiter: &Waiter<'_>) -> Result<(), TransportError> {
        match self.way {
            Way::HotAdd(added) => {
                let HotAdded { target, existing, attached } = *added;
                // The device has to be unused before it goes away.
                drop((target, existing));
                attached.detach(waiter).map_err(|source| attached.still_there(None, source))
            }
            Way::Nbd(served) => {
                served.close(waiter);
                Ok(())
            }
        }
    }
}

impl Noted {
    /// Detaches the disk if the VM that was to get it has it, and tells whether it did.
    ///
    /// # Errors
    /// If that VM cannot be looked at, or the disk cannot be detached.
    pub(in crate::vsphere) fn detach(&self, waiter: &Waiter<'_>) -> Result<bool, TransportError> {
        const LOOK: &str = "look at the virtual machine that a disk was attached to";
        let proxy = match waiter.vcenter.vm(&self.proxy) {
            Ok(proxy) => proxy,
            Err(error) if matches!(error.fault(), Some(FaultKind::ManagedObjectNotFound { .. })) => {
                return Ok(false);
            }
            Err(source) => return Err(TransportError::Asking { what: LOOK, source }),
        };
        let disk = proxy.disks.iter().find(|disk| is_of(disk, &self.file, AttachMode::Writing));
        let Some(disk) = disk else { return Ok(false) };
        let files = if self.is_made { Files::Deleted } else { Files::Kept };
        let attached = Attached::of(&proxy, disk, &self.file, AttachMode::Writing).with(files);
        match attached.detach(waiter) {
            Ok(()) => Ok(true),
            Err(source) => Err(attached.still_there(None, source)),
        }
    }
}

/// Opens a disk by the wanted way, or the first that can be used.
pub(super) fn open(
    reader: &Reader<'_, '_>,
    disk: &VirtualDisk,
    disk_bytes: u64,
    note: &mut dyn FnMut(&Noted) -> io::Result<()>,
) -> Result<(WritableDisk, Vec<(Transport, TransportError)>), TransportError> {
    let mut refused = Vec::new();
    for transport in ways(reader) {
        let opened = match transport {
            Transport::HotAdd => {
                by_hotadd(reader, disk, disk_bytes, note).map(|added| Way::HotAdd(Box::new(added)))
            }
            Transport::Nbd => {
                nbdkit::open_for_writing(reader, disk, disk_bytes).map(|served| Way::Nbd(Box::new(served)))
            }
            Transport::Folder => Err(TransportError::OnlyReads { transport }),
        };
        match opened {
            Ok(way) => return Ok((WritableDisk { way }, refused)),
            Err(error) if error.is_final() || is_only(reader) => return Err(error),
            Err(error) => refused.push((transport, error)),
        }
    }
    Err(TransportError::NoWay { refused })
}

/// Finds out whether a disk could be opened by the wanted way, or by any, without changing anything anywhere.
pub(super) fn check(reader: &Reader<'_, '_>, disk: &VirtualDisk) -> Result<(), TransportError> {
    let mut refused = Vec::new();
    for transport in ways(reader) {
        let checked = match transport {
            Transport::HotAdd => hotadd::check(reader, disk),
            Transport::Nbd => nbdkit::check(reader, disk),
            Transport::Folder => Err(TransportError::OnlyReads { transport }),
        };
        match checked {
            Ok(()) => return Ok(()),
            Err(error) if is_only(reader) => return Err(error),
            Err(error) => refused.push((transport, error)),
        }
    }
    Err(TransportError::NoWay { refused })
}

/// The ways that may be gone, the fastest first.
fn ways(reader: &Reader<'_, '_>) -> Vec<Transport> {
    match reader.settings.choice {
        TransportChoice::Only(transport) => vec![transport],
        TransportChoice::Auto if reader.settings.vddk_dir.is_some() => {
            vec![Transport::HotAdd, Transport::Nbd]
        }
        TransportChoice::Auto => vec![Transport::HotAdd],
    }
}

fn is_only(reader: &Reader<'_, '_>) -> bool {
    matches!(reader.settings.choice, TransportChoice::Only(_))
}

fn by_hotadd(
    reader: &Reader<'_, '_>,
    disk: &VirtualDisk,
    disk_bytes: u64,
    note: &mut dyn FnMut(&Noted) -> io::Result<()>,
) -> Result<HotAdded, TransportError> {
    let file = attachable(disk)?;
    let wish = Wish { file, mode: AttachMode::Writing, new_bytes: None };
    by_hotadd_as(reader, &wish, Some(disk), disk_bytes, note)
}

/// Makes a disk, attached to this machine, and opens it.
pub(super) fn make(
    reader: &Reader<'_, '_>,
    file: &str,
    disk_bytes: u64,
    note: &mut dyn FnMut(&Noted) -> io::Result<()>,
) -> Result<WritableDisk, TransportError> {
    check_choice(reader)?;
    let wish = Wish { file, mode: AttachMode::Writing, new_bytes: Some(disk_bytes) };
    by_hotadd_as(reader, &wish, None, disk_bytes, note)
        .map(|added| WritableDisk { way: Way::HotAdd(Box::new(added)) })
}

/// Finds out whether a disk could be made, without changing anything anywhere.
pub(super) fn check_making(reader: &Reader<'_, '_>) -> Result<(), TransportError> {
    check_choice(reader)?;
    proxy::fit(reader)?;
    Devices::of(&reader.settings.root).list().map(drop)
}

fn check_choice(reader: &Reader<'_, '_>) -> Result<(), TransportError> {
    match reader.settings.choice {
        TransportChoice::Auto | TransportChoice::Only(Transport::HotAdd) => Ok(()),
        TransportChoice::Only(transport) => Err(TransportError::OnlyReads { transport }),
    }
}

/// Attaches a disk and opens its device; `disk` is the one that is there already.
fn by_hotadd_as(
    reader: &Reader<'_, '_>,
    wish: &Wish<'_>,
    disk: Option<&VirtualDisk>,
    disk_bytes: u64,
    note: &mut dyn FnMut(&Noted) -> io::Result<()>,
) -> Result<HotAdded, TransportError> {
    let file = wish.file;
    let proxy = proxy::fit(reader)?;
    let devices = Devices::of(&reader.settings.root);
    let before = devices.list()?;
    let noted = Noted { proxy: proxy.vm.clone(), file: file.to_owned(), is_made: wish.new_bytes.is_some() };
    note(&noted).map_err(TransportError::Note)?;
    let (attached, device) = hotadd::attach(reader, proxy, wish)?;
    let wanted = wanted(disk.unwrap_or(&device), &device);
    let opened = open_device(reader, &attached, &wanted, &before).and_then(|(existing, device)| {
        let path = devices.node(&device);
        let target = open_target(&reader.settings.root, &path, disk_bytes);
        let target = target.map_err(|source| TransportError::OpenTarget { file: file.to_owned(), source })?;
        // Before anything is written: it could have gone away, and another one have come by its name.
        if choose(&wanted, &before, &devices.list()?) == Found::One(device) {
            Ok((target, existing))
        } else {
            Err(TransportError::OtherDevice { path, file: file.to_owned() })
        }
    });
    match opened {
        Ok((target, existing)) => Ok(HotAdded { target, existing, attached }),
        Err(error) => Err(attached.detach_after(&reader.cleaning, error)),
    }
}

/// Opens a device. Below another root than the machine's it may be a file that stands for one.
fn open_target(root: &Path, path: &Path, disk_bytes: u64) -> io::Result<DeviceTarget> {
    if root != Path::new("/") && path.is_file() {
        return DeviceTarget::open_stand_in(path, disk_bytes);
    }
    DeviceTarget::open(path, disk_bytes)
}
