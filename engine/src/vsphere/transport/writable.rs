//! A disk of a VM that does not run, open to be written: attached to this machine, as [`hotadd`] does it, but so that what
//! is written reaches the disk's file.

use super::devices::{Devices, Found, choose};
use super::error::TransportError;
use super::hotadd::{self, Attached, attachable, is_of, open_device, wanted};
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
    file: String,
}

/// An open disk. It has to be closed before its VM can run.
#[derive(Debug)]
pub(in crate::vsphere) struct WritableDisk {
    // In this order: the device has to be unused before it goes away.
    target: DeviceTarget,
    existing: RawImage,
    attached: Attached,
}

impl WritableDisk {
    /// How the disk is written.
    #[expect(clippy::unused_self, reason = "it is a property of what is open")]
    pub(in crate::vsphere) fn transport(&self) -> Transport {
        Transport::HotAdd
    }

    /// Where its bytes go.
    pub(in crate::vsphere) fn target(&self) -> &dyn DiskTarget {
        &self.target
    }

    /// The bytes that it has.
    pub(in crate::vsphere) fn existing(&self) -> &dyn DiskSource {
        &self.existing
    }

    /// Gives the disk back.
    ///
    /// # Errors
    /// [`TransportError::StillAttached`].
    pub(in crate::vsphere) fn close(self, waiter: &Waiter<'_>) -> Result<(), TransportError> {
        let Self { target, existing, attached } = self;
        drop((target, existing));
        attached.detach(waiter).map_err(|source| attached.still_there(None, source))
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
        let attached = Attached::of(&proxy, disk, &self.file, AttachMode::Writing);
        match attached.detach(waiter) {
            Ok(()) => Ok(true),
            Err(source) => Err(attached.still_there(None, source)),
        }
    }
}

/// Opens a disk by the wanted way.
pub(super) fn open(
    reader: &Reader<'_, '_>,
    disk: &VirtualDisk,
    disk_bytes: u64,
    note: &mut dyn FnMut(&Noted) -> io::Result<()>,
) -> Result<(WritableDisk, Vec<(Transport, TransportError)>), TransportError> {
    match reader.settings.choice {
        TransportChoice::Auto | TransportChoice::Only(Transport::HotAdd) => {
            Ok((by_hotadd(reader, disk, disk_bytes, note)?, Vec::new()))
        }
        TransportChoice::Only(transport) => Err(TransportError::OnlyReads { transport }),
    }
}

/// Finds out whether a disk could be opened by the wanted way, without changing anything anywhere.
pub(super) fn check(reader: &Reader<'_, '_>, disk: &VirtualDisk) -> Result<(), TransportError> {
    match reader.settings.choice {
        TransportChoice::Auto | TransportChoice::Only(Transport::HotAdd) => hotadd::check(reader, disk),
        TransportChoice::Only(transport) => Err(TransportError::OnlyReads { transport }),
    }
}

fn by_hotadd(
    reader: &Reader<'_, '_>,
    disk: &VirtualDisk,
    disk_bytes: u64,
    note: &mut dyn FnMut(&Noted) -> io::Result<()>,
) -> Result<WritableDisk, TransportError> {
    let file = attachable(disk)?;
    let proxy = proxy::fit(reader)?;
    let devices = Devices::of(&reader.settings.root);
    let before = devices.list()?;
    note(&Noted { proxy: proxy.vm.clone(), file: file.to_owned() }).map_err(TransportError::Note)?;
    let (attached, device) = hotadd::attach(reader, proxy, file, AttachMode::Writing)?;
    let wanted = wanted(disk, &device);
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
        Ok((target, existing)) => Ok(WritableDisk { target, existing, attached }),
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
