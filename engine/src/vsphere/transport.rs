//! How the data of a snapshot's disk is read: attached to this machine, over NBD from VMware's library, or over HTTPS.
//!
//! | way | needs | opened by |
//! | --- | --- | --- |
//! | [`Transport::HotAdd`] | that this machine is a VM of the same vCenter | attaching the disk to it, and reading the device |
//! | [`Transport::Nbd`] | VMware's VDDK, and nbdkit with its vddk plugin | starting nbdkit, and being its client |
//! | [`Transport::Folder`] | a datastore with flat files | ranges of the file |

mod certificate;
mod devices;
mod error;
mod folder;
mod hotadd;
mod leftovers;
mod nbdkit;
mod process;
mod proxy;
mod writable;

pub use error::{NotFlat, TransportError};
pub use folder::FolderError;
pub(in crate::vsphere) use hotadd::free_scsi_place;
pub use proxy::ProxyVm;
pub(in crate::vsphere) use writable::{Noted, WritableDisk};

use super::client::VCenterSettings;
use super::model::{Datacenter, VirtualDisk, VmInfo, VmSnapshot};
use super::waiting::Waiter;
use crate::DiskSource;
use folder::FolderDisk;
use hotadd::HotAdded;
use nbdkit::Served;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A way to a disk's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The disk is attached to this machine, which is a VM itself.
    HotAdd,
    /// nbdkit reads it with VMware's library.
    Nbd,
    /// The datastore's file is read over HTTPS.
    Folder,
}

impl Transport {
    /// All ways, the fastest first.
    const ALL: [Self; 3] = [Self::HotAdd, Self::Nbd, Self::Folder];
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::HotAdd => "hotadd",
            Self::Nbd => "nbd",
            Self::Folder => "folder",
        })
    }
}

impl FromStr for Transport {
    type Err = NoTransport;

    fn from_str(text: &str) -> Result<Self, NoTransport> {
        Self::ALL.into_iter().find(|transport| transport.to_string() == text).ok_or(NoTransport)
    }
}

/// A text that names no way to a disk's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no way to read a disk: hotadd, nbd, folder and auto are")]
pub struct NoTransport;

/// Which way is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportChoice {
    /// The first that can be used, in the order of [`Transport`]; NBD only if there is a directory with VDDK.
    Auto,
    /// This one and no other.
    Only(Transport),
}

impl fmt::Display for TransportChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Only(transport) => transport.fmt(formatter),
        }
    }
}

impl FromStr for TransportChoice {
    type Err = NoTransport;

    fn from_str(text: &str) -> Result<Self, NoTransport> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Only) }
    }
}

/// Whether a proxy without room may get another controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddController {
    /// It may, and keeps it.
    IfNeeded,
    /// It may not.
    Never,
}

/// How the data of disks may be reached.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Which way is wanted.
    pub choice: TransportChoice,
    /// The VM that this program runs in; it is found by its UUID if there is none.
    pub proxy_vm: Option<ProxyVm>,
    /// Whether that VM may get a controller.
    pub add_controller: AddController,
    /// What `dev` and `sys` of this machine are in: `/`, unless a container has them elsewhere.
    pub root: PathBuf,
    /// The program nbdkit: a path, or a name that is looked up as usual.
    pub nbdkit: PathBuf,
    /// VMware's library, as its archive is unpacked; without it there is no [`Transport::Nbd`].
    pub vddk_dir: Option<PathBuf>,
    /// A directory that nobody else can look into, for sockets and for a password while nbdkit starts. Its path should be
    /// short: that of a socket has 107 bytes at most.
    pub run_dir: PathBuf,
    /// The server and the user, for VMware's library.
    pub server: VCenterSettings,
    /// Variables of the environment that nbdkit is not to see.
    pub hidden_variables: Vec<String>,
}

/// Opens disks of one snapshot of a VM. What is opened does not borrow it, but the waiters' vCenter.
#[derive(Clone, Copy)]
pub struct Reader<'v, 'a> {
    /// Waits until the user wants to stop.
    pub waiter: Waiter<'v>,
    /// Waits to undo what was begun, whatever the user wants.
    pub cleaning: Waiter<'v>,
    /// The VM, as it is with the snapshot.
    pub vm: &'a VmInfo,
    /// The datacenter that it is in.
    pub datacenter: &'a Datacenter,
    /// The snapshot, whose disks are opened.
    pub snapshot: &'a VmSnapshot,
    /// How.
    pub settings: &'a TransportSettings,
}

impl<'v> Reader<'v, '_> {
    /// Opens a disk of the snapshot, and tells which ways were tried before in vain.
    ///
    /// Threads may come and go, but the one that calls this must live as long as what is opened: nbdkit ends with it.
    ///
    /// # Errors
    /// Why the wanted way cannot be used, or [`TransportError::NoWay`] with the reasons of all. The disk is attached
    /// nowhere then, unless it is [`TransportError::StillAttached`].
    pub fn open(
        &self,
        disk: &VirtualDisk,
    ) -> Result<(DataPath<'v>, Vec<(Transport, TransportError)>), TransportError> {
        if let TransportChoice::Only(transport) = self.settings.choice {
            return Ok((self.open_by(transport, disk)?, Vec::new()));
        }
        let mut refused = Vec::new();
        for transport in Transport::ALL {
            if transport == Transport::Nbd && self.settings.vddk_dir.is_none() {
                continue;
            }
            match self.open_by(transport, disk) {
                Ok(path) => return Ok((path, refused)),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => refused.push((transport, error)),
            }
        }
        Err(TransportError::NoWay { refused })
    }

    /// Finds out whether a way could be used, without changing anything anywhere.
    ///
    /// # Errors
    /// Why it could not.
    pub fn check(&self, transport: Transport, disk: &VirtualDisk) -> Result<(), TransportError> {
        match transport {
            Transport::HotAdd => hotadd::check(self, disk),
            Transport::Nbd => nbdkit::check(self, disk),
            Transport::Folder => folder::check(self, disk),
        }
    }

    /// Detaches disks of a VM that runs of this program which were killed left attached to the proxy, and returns how
    /// many those were. Call it before a snapshot of the VM is removed.
    ///
    /// Only disks of this VM that the proxy has as `independent_nonpersistent` are detached; no file is deleted. If
    /// this machine is no VM of the vCenter, and none is named as the proxy, there are none.
    ///
    /// # Errors
    /// If the proxy cannot be looked at, or a disk cannot be detached.
    pub fn detach_leftovers(
        waiter: &Waiter<'_>,
        vm: &VmInfo,
        settings: &TransportSettings,
    ) -> Result<usize, TransportError> {
        leftovers::detach(waiter, vm, settings)
    }

    /// Finds out whether the proxy is there, if one is named: what is named wrongly would be found out late, and leftovers
    /// would stay attached to the right one.
    ///
    /// # Errors
    /// [`TransportError::NoSuchProxy`], and if the server cannot be asked.
    pub fn check_proxy(
        waiter: &Waiter<'_>,
        vm: &VmInfo,
        settings: &TransportSettings,
    ) -> Result<(), TransportError> {
        match settings.proxy_vm {
            Some(_) => proxy::find(waiter.vcenter, settings, &vm.vm).map(drop),
            None => Ok(()),
        }
    }

    /// Finds out whether a disk of the VM itself could be opened for writing, without changing anything anywhere.
    ///
    /// # Errors
    /// Why it could not.
    pub(in crate::vsphere) fn check_for_writing(&self, disk: &VirtualDisk) -> Result<(), TransportError> {
        writable::check(self, disk)
    }

    /// Opens a disk of the VM itself for writing `disk_bytes` from its beginning on, and tells which ways were tried before
    /// in vain. The VM must not run, and nothing may stand on the disk.
    ///
    /// `note` is called before the disk is attached anywhere.
    ///
    /// # Errors
    /// As for [`Reader::open`], and [`TransportError::Note`].
    pub(in crate::vsphere) fn open_for_writing(
        &self,
        disk: &VirtualDisk,
        disk_bytes: u64,
        note: &mut dyn FnMut(&Noted) -> std::io::Result<()>,
    ) -> Result<(WritableDisk, Vec<(Transport, TransportError)>), TransportError> {
        writable::open(self, disk, disk_bytes, note)
    }

    /// Makes a disk for `disk_bytes`, and opens it for writing. `note` is called before it is made.
    ///
    /// # Errors
    /// As for [`Reader::open_for_writing`]; it is made nowhere then, unless it is [`TransportError::StillAttached`].
    pub(in crate::vsphere) fn make_for_writing(
        &self,
        file: &str,
        disk_bytes: u64,
        note: &mut dyn FnMut(&Noted) -> std::io::Result<()>,
    ) -> Result<WritableDisk, TransportError> {
        writable::make(self, file, disk_bytes, note)
    }

    /// Finds out whether a disk could be made for writing, without changing anything anywhere.
    ///
    /// # Errors
    /// Why it could not.
    pub(in crate::vsphere) fn check_for_making(&self) -> Result<(), TransportError> {
        writable::check_making(self)
    }

    fn open_by(&self, transport: Transport, disk: &VirtualDisk) -> Result<DataPath<'v>, TransportError> {
        let way = match transport {
            Transport::HotAdd => Way::HotAdd(hotadd::open(self, disk)?),
            Transport::Nbd => Way::Nbd(Box::new(nbdkit::open(self, disk)?)),
            Transport::Folder => Way::Folder(folder::open(self, disk)?),
        };
        Ok(DataPath { way })
    }
}

/// The descriptor of a disk, by which the server knows it.
fn descriptor(disk: &VirtualDisk) -> Result<&str, TransportError> {
    disk.backing.file.as_deref().ok_or_else(|| TransportError::NoFile { disk: disk.label.clone() })
}

/// An open disk of a snapshot, to be read. It has the size that the snapshot tells.
///
/// It has to be closed before the snapshot is removed. A disk that is dropped instead stays attached, until
/// [`Reader::detach_leftovers`].
#[derive(Debug)]
pub struct DataPath<'v> {
    way: Way<'v>,
}

#[derive(Debug)]
enum Way<'v> {
    HotAdd(HotAdded),
    Nbd(Box<Served>),
    Folder(FolderDisk<'v>),
}

impl DataPath<'_> {
    /// How the disk is read.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match &self.way {
            Way::HotAdd(_) => Transport::HotAdd,
            Way::Nbd(_) => Transport::Nbd,
            Way::Folder(_) => Transport::Folder,
        }
    }

    /// The disk's bytes. What it says of areas is no more than the way knows: nothing of changes.
    #[must_use]
    pub fn source(&self) -> &dyn DiskSource {
        match &self.way {
            Way::HotAdd(added) => added.source(),
            Way::Nbd(served) => &**served,
            Way::Folder(disk) => disk,
        }
    }

    /// Gives the disk back.
    ///
    /// # Errors
    /// [`TransportError::StillAttached`].
    pub fn close(self, waiter: &Waiter<'_>) -> Result<(), TransportError> {
        match self.way {
            Way::HotAdd(added) => added.close(waiter),
            Way::Nbd(served) => {
                served.close(waiter);
                Ok(())
            }
            Way::Folder(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_shown() {
        for transport in Transport::ALL {
            assert_eq!(transport.to_string().parse(), Ok(TransportChoice::Only(transport)));
            assert_eq!(serde_json::to_string(&transport).unwrap(), format!("\"{transport}\""));
        }
        assert_eq!("auto".parse(), Ok(TransportChoice::Auto));
        assert_eq!(TransportChoice::Auto.to_string(), "auto");
        for text in ["", "HotAdd", "san", "auto "] {
            assert_eq!(text.parse::<TransportChoice>(), Err(NoTransport), "{text:?}");
        }
    }
}
