//! Why a disk's data cannot be reached.

use super::Transport;
use super::proxy::ProxyVm;
use crate::error::chain;
use crate::nbd::NbdError;
use crate::tls::TlsError;
use crate::vsphere::error::VSphereError;
use crate::vsphere::waiting::WaitError;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a way to a disk's data cannot be used. `file` is a disk's descriptor, `[datastore] directory/name.vmdk`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No way can be used.
    #[error("there is no way to read it: {}", all(refused))]
    NoWay {
        /// Those that were tried.
        refused: Vec<(Transport, TransportError)>,
    },
    /// The server could not be asked.
    #[error("could not {what}")]
    Asking {
        /// What was to be done.
        what: &'static str,
        /// Why.
        source: VSphereError,
    },
    /// What the server or this machine does did not end well.
    #[error(transparent)]
    Waiting(#[from] WaitError),
    /// The disk is no file.
    #[error("vCenter names no file for {disk:?}")]
    NoFile {
        /// The disk's label.
        disk: String,
    },
    /// What was opened is not as long as the disk.
    #[error("{place} has {found} bytes, and the disk has {expected}")]
    OtherSize {
        /// What was opened.
        place: String,
        /// Its length in bytes.
        found: u64,
        /// The disk's length.
        expected: u64,
    },

    /// This machine does not tell which one it is.
    #[error("cannot read from {} which virtual machine this is", path.display())]
    OwnUuid {
        /// Where it stands.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This machine is no VM of the vCenter.
    #[error("this machine, with the UUID {uuid}, is no virtual machine of {host} that the user can see")]
    NotAVm {
        /// Its UUID.
        uuid: String,
        /// The server.
        host: String,
    },
    /// The VM that was named as the proxy is not there.
    #[error("there is no virtual machine {proxy} to attach disks to")]
    NoSuchProxy {
        /// What was named.
        proxy: ProxyVm,
    },
    /// The proxy is to be backed up itself.
    #[error("{proxy} cannot attach its own disks")]
    ProxyIsSource {
        /// The VM's name.
        proxy: String,
    },
    /// The proxy does not run, so it is not this machine.
    #[error("the virtual machine {proxy} does not run, so this cannot be it")]
    ProxyNotRunning {
        /// The VM's name.
        proxy: String,
    },
    /// The proxy has snapshots, over which disks are not attached and detached safely.
    #[error("no disk can be attached to {proxy}, which has snapshots: {}", snapshots.join(", "))]
    ProxyHasSnapshots {
        /// The VM's name.
        proxy: String,
        /// The snapshots' names.
        snapshots: Vec<String>,
    },
    /// The disk is of a kind that is not attached to other VMs.
    #[error("{file} is a raw device in physical mode (RDM), which is not attached elsewhere")]
    NotAttachable {
        /// The disk.
        file: String,
    },
    /// All places of the proxy are taken.
    #[error("no paravirtual SCSI controller of {proxy} has a free place")]
    NoFreeUnit {
        /// The VM's name.
        proxy: String,
    },
    /// A controller is missing and cannot be added.
    #[error(
        "no paravirtual SCSI controller of {proxy} has a free place, and it has four SCSI controllers already"
    )]
    NoFreeBus {
        /// The VM's name.
        proxy: String,
    },
    /// vCenter attached the disk otherwise than was asked for.
    #[error("vCenter attached {file} to {proxy} in the mode {mode:?}, so that it could be written to")]
    OtherMode {
        /// The VM's name.
        proxy: String,
        /// The disk.
        file: String,
        /// The mode.
        mode: String,
    },
    /// The user may not attach and detach disks.
    #[error("the user lacks privileges on {proxy}: {}", privileges.join(", "))]
    Privileges {
        /// The proxy's name.
        proxy: String,
        /// Their ids.
        privileges: Vec<String>,
    },
    /// The task ended well, and the disk is not there.
    #[error("vCenter attached {file} to {proxy}, and does not list it there")]
    NotListed {
        /// The VM's name.
        proxy: String,
        /// The disk.
        file: String,
    },
    /// The kernel does not tell of its devices.
    #[error("cannot look at the devices in {}", path.display())]
    Devices {
        /// Where they stand.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk is attached, and this machine has no such device.
    #[error("{file} was attached to {proxy}, and no device of this machine became it within {} s{}", after.as_secs(), unscanned(rescan.as_ref()))]
    DeviceMissing {
        /// The VM's name.
        proxy: String,
        /// The disk.
        file: String,
        /// How long was waited.
        after: Duration,
        /// Why the kernel could not be asked to look for new devices, if it could not.
        rescan: Option<io::ErrorKind>,
    },
    /// Several devices may be the disk.
    #[error("each of the devices {} may be {file}", devices.join(", "))]
    SeveralDevices {
        /// The disk.
        file: String,
        /// Their names.
        devices: Vec<String>,
    },
    /// What has the device's name is another device.
    #[error("{} is not the device that {file} became", path.display())]
    OtherDevice {
        /// The path.
        path: PathBuf,
        /// The disk.
        file: String,
    },
    /// The device cannot be opened.
    #[error("cannot read the device that {file} became")]
    OpenDevice {
        /// The disk.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The device cannot be written to.
    #[error("cannot write to the device that {file} became")]
    OpenTarget {
        /// The disk.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// What is about to be attached cannot be noted.
    #[error("could not note the disk that is about to be attached")]
    Note(#[source] io::Error),
    /// The way only reads.
    #[error("disks cannot be written by {transport}")]
    OnlyReads {
        /// The way.
        transport: Transport,
    },
    /// A disk of the VM stays attached to the proxy.
    #[error("{file} may still be attached to {proxy}{}", because(after.as_deref()))]
    StillAttached {
        /// The VM's name.
        proxy: String,
        /// The disk.
        file: String,
        /// Why it was to be detached, if that was for a failure.
        after: Option<Box<TransportError>>,
        /// Why it could not be.
        source: WaitError,
    },

    /// Nobody said where VMware's library is.
    #[error("no directory with VMware's VDDK is given")]
    NoVddk,
    /// The directory holds no library of VMware.
    #[error("{} is not VMware's VDDK: there is no lib64/libvixDiskLib.so in it", directory.display())]
    NotVddk {
        /// The directory.
        directory: PathBuf,
    },
    /// nbdkit cannot be started.
    #[error("cannot start {}", nbdkit.display())]
    NbdkitStart {
        /// The program.
        nbdkit: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// nbdkit ended before it was ready.
    #[error("nbdkit ended with {status}{}", saying(said))]
    NbdkitEnded {
        /// How.
        status: ExitStatus,
        /// The end of what it wrote, without secrets.
        said: String,
    },
    /// nbdkit is not ready after a long time.
    #[error("nbdkit was not ready within {} s{}", after.as_secs(), saying(said))]
    NbdkitLate {
        /// How long was waited.
        after: Duration,
        /// The end of what it wrote, without secrets.
        said: String,
    },
    /// nbdkit does not give the disk.
    #[error("nbdkit cannot open {file}{}", saying(said))]
    Nbd {
        /// The disk.
        file: String,
        /// The end of what it wrote, without secrets.
        said: String,
        /// How it failed.
        source: NbdError,
    },
    /// The server's certificate, which VMware's library has to be told, could not be seen.
    #[error("cannot see the certificate of {host}")]
    Certificate {
        /// The server.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be used")]
    Tls(#[from] TlsError),
    /// A password of several lines cannot be given to nbdkit.
    #[error("the password has several lines, which nbdkit cannot be given")]
    PasswordLines,
    /// Something in the private directory cannot be made or removed.
    #[error("cannot use {}", path.display())]
    RunDir {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// The disk is not held as one file of its length.
    #[error("{file} is not a flat file: {why}")]
    NotFlat {
        /// The disk.
        file: String,
        /// What it is.
        why: NotFlat,
    },
}

/// What a disk is that cannot be read as one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFlat {
    /// It holds the changes since another snapshot only.
    #[error("it holds what changed since an earlier snapshot")]
    Delta,
    /// It has another format.
    #[error("it has another format")]
    OtherFormat,
    /// Its name is not one of a disk.
    #[error("its name is not one of a disk on a datastore")]
    OtherName,
    /// The datastore has no such file.
    #[error("the datastore has no file with its data, as vSAN has none")]
    NoSuchFile,
}

impl TransportError {
    /// Whether no other way may be tried after it.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::StillAttached { .. }
                | Self::NotListed { .. }
                | Self::OtherMode { .. }
                | Self::Waiting(WaitError::Interrupted { .. })
        )
    }
}

fn all(refused: &[(Transport, TransportError)]) -> String {
    let one = |(transport, error): &(Transport, TransportError)| format!("{transport}: {}", chain(error));
    refused.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn unscanned(rescan: Option<&io::ErrorKind>) -> String {
    rescan.map_or_else(String::new, |kind| format!(" (the kernel could not be asked to look for it: {kind})"))
}

fn because(after: Option<&TransportError>) -> String {
    after.map_or_else(String::new, |error| format!(" after this failure: {}", chain(error)))
}

fn saying(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; it says: {said}") }
}
