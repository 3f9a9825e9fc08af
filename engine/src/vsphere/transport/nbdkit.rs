//! NBD: nbdkit reads or writes the disk with VMware's library, and we are its client over a socket.
//!
//! The password is in a file that only this user can read, from before nbdkit starts until it is ready; it is in no
//! argument and no variable.

use super::error::TransportError;
use super::process::Running;
use super::{Reader, TransportSettings, certificate, descriptor};
use crate::nbd::{Holes, NbdError, NbdPlace, NbdSettings};
use crate::source::{ChangedAreas, DiskSource, NbdDisk, ReadPart, Since};
use crate::target::{DiskTarget, Existing, NbdTarget};
use crate::vsphere::client::VCenterSettings;
use crate::vsphere::model::{MoRef, VirtualDisk};
use crate::vsphere::waiting::{WaitError, Waiter};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use zeroize::Zeroizing;

/// How the library reaches the data: encrypted if the host offers it.
const TRANSPORTS: &str = "nbdssl:nbd";
/// How long the library may take to open a disk, and to read from a host that is busy.
const SILENCE: Duration = Duration::from_mins(3);
/// How often a lost connection is made anew: nbdkit is on this machine, so it is there or it is gone.
const RECONNECTS: u32 = 1;
/// How long nbdkit may take to start, which contacts nobody.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// How long nbdkit may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// Disks that are open at once in one directory; more than a VM has.
const DIRECTORIES_MAX: u32 = 1000;

/// A disk that nbdkit serves to be read.
pub(super) type Served = Server<NbdDisk>;

/// A disk that nbdkit serves to be written.
pub(super) type WritableServed = Server<NbdTarget>;

/// A disk that nbdkit serves, and what is connected to it.
#[derive(Debug)]
pub(super) struct Server<D> {
    // Dropped in this order: connections, the program, its files.
    disk: D,
    running: Running,
    _files: Files,
}

impl<D> Server<D> {
    /// Closes the connections and ends nbdkit.
    pub(super) fn close(self, waiter: &Waiter<'_>) {
        let Self { disk, mut running, _files } = self;
        drop(disk);
        // The library leaves the server when it is asked to end. Whatever comes of that, it is killed in the end.
        if running.ask_to_end().is_ok() {
            let waiter = Waiter { patience: waiter.patience.min(END_PATIENCE), ..*waiter };
            let has_ended = || Ok(!matches!(running.exited(), Ok(None)));
            let _killed_if_it_has_not = waiter.until("end nbdkit", has_ended);
        }
    }

    /// Adds what nbdkit says to a failure.
    fn explained(&self, result: io::Result<()>) -> io::Result<()> {
        result.map_err(|source| {
            let said = self.running.said();
            if said.is_empty() {
                source
            } else {
                io::Error::new(source.kind(), NbdkitFailed { said, source })
            }
        })
    }
}

/// What cannot be done, and what nbdkit says lately.
#[derive(Debug, thiserror::Error)]
#[error("nbdkit says: {said}")]
struct NbdkitFailed {
    said: String,
    source: io::Error,
}

impl DiskSource for Served {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        self.disk.changed_areas(since)
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        self.explained(self.disk.read(parts))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        self.explained(self.disk.check_unchanged())
    }
}

impl DiskTarget for WritableServed {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.explained(self.disk.write_at(offset, data))
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        self.explained(self.disk.zero_at(offset, length))
    }

    fn flush(&self) -> io::Result<()> {
        self.explained(self.disk.flush())
    }

    fn finish(&self) -> io::Result<()> {
        self.explained(self.disk.finish())
    }
}

/// Starts nbdkit for a disk of the snapshot, and connects to it.
pub(super) fn open(reader: &Reader<'_, '_>, disk: &VirtualDisk) -> Result<Served, TransportError> {
    let (running, files) = serve(reader, disk, Access::Snapshot(&reader.snapshot.snapshot))?;
    let opened = NbdDisk::open(&files.place(), settings());
    let opened = opened.map_err(|source| failed(disk, &running, source))?;
    if opened.size() != disk.capacity_bytes {
        let place = format!("{} by nbdkit", disk.backing.file.as_deref().unwrap_or_default());
        let (found, expected) = (opened.size(), disk.capacity_bytes);
        return Err(TransportError::OtherSize { place, found, expected });
    }
    Ok(Server { disk: opened, running, _files: files })
}

/// Starts nbdkit for a disk of the VM itself, and connects to it to write `disk_bytes` from the disk's beginning on.
pub(super) fn open_for_writing(
    reader: &Reader<'_, '_>,
    disk: &VirtualDisk,
    disk_bytes: u64,
) -> Result<WritableServed, TransportError> {
    let (running, files) = serve(reader, disk, Access::Writing)?;
    // Each connection opens the disk, and the first one to write locks it. One that is lost may leave its lock.
    let settings = NbdSettings { connections: 1, reconnects: 0, ..settings() };
    let opened = NbdTarget::open(&files.place(), settings, disk_bytes, Existing::Replace);
    let opened = opened.map_err(|source| failed(disk, &running, source))?;
    Ok(Server { disk: opened, running, _files: files })
}

/// How a server is talked to that repeats what the library tells. What that calls unallocated may be incomplete, and an audit
/// through it could not tell.
fn settings() -> NbdSettings {
    NbdSettings { holes: Holes::Read, timeout: SILENCE, reconnects: RECONNECTS, ..NbdSettings::default() }
}

fn failed(disk: &VirtualDisk, running: &Running, source: NbdError) -> TransportError {
    let file = disk.backing.file.clone().unwrap_or_default();
    TransportError::Nbd { file, said: running.said(), source }
}

/// What nbdkit serves.
#[derive(Clone, Copy)]
enum Access<'a> {
    /// A disk as a snapshot keeps it, to be read.
    Snapshot(&'a MoRef),
    /// A disk of the VM itself, to be written.
    Writing,
}

/// Starts nbdkit for a disk.
fn serve(
    reader: &Reader<'_, '_>,
    disk: &VirtualDisk,
    access: Access<'_>,
) -> Result<(Running, Files), TransportError> {
    let TransportSettings { nbdkit, server, run_dir, .. } = reader.settings;
    let vddk = vddk(reader.settings)?;
    let file = descriptor(disk)?;
    if server.password.contains(['\n', '\r']) {
        return Err(TransportError::PasswordLines);
    }
    let thumbprint = certificate::thumbprint(server)?;
    let files = Files::make_in(run_dir)?;
    files.write_password(&server.password)?;
    let target = Target { server, thumbprint: &thumbprint, vm: &reader.vm.vm, access, file };
    let mut command = command(reader.settings);
    command.args(arguments(&files, vddk, &target));
    let started = Running::start(&mut command, server.password.clone());
    let mut running =
        started.map_err(|source| TransportError::NbdkitStart { nbdkit: nbdkit.clone(), source })?;
    match wait(&reader.waiter, "start nbdkit", &mut running, |_| files.is_ready())? {
        Waited::Done => {}
        Waited::Exited(status) => {
            return Err(TransportError::NbdkitEnded { status, said: running.last_words() });
        }
        Waited::Late(after) => return Err(TransportError::NbdkitLate { after, said: running.last_words() }),
    }
    files.remove_password()?;
    Ok((running, files))
}

/// Finds out whether nbdkit has its plugin, and that the library. Contacts nobody.
pub(super) fn check(reader: &Reader<'_, '_>, disk: &VirtualDisk) -> Result<(), TransportError> {
    let nbdkit = &reader.settings.nbdkit;
    let vddk = vddk(reader.settings)?;
    descriptor(disk)?;
    let mut command = command(reader.settings);
    command.args(["--dump-plugin", "vddk"]).arg(parameter("libdir", vddk));
    let started = Running::start(&mut command, Zeroizing::default());
    let mut running =
        started.map_err(|source| TransportError::NbdkitStart { nbdkit: nbdkit.clone(), source })?;
    match wait(&reader.waiter, "ask nbdkit for its plugin", &mut running, |_| Ok(false))? {
        Waited::Exited(status) if status.success() => Ok(()),
        Waited::Exited(status) => Err(TransportError::NbdkitEnded { status, said: running.last_words() }),
        Waited::Done => unreachable!("nothing but its end is waited for"),
        Waited::Late(after) => Err(TransportError::NbdkitLate { after, said: running.last_words() }),
    }
}

/// The directory of VMware's library, if it looks like one.
fn vddk(settings: &TransportSettings) -> Result<&Path, TransportError> {
    let directory = settings.vddk_dir.as_deref().ok_or(TransportError::NoVddk)?;
    // Archives have the name with and without versions.
    let is_library = |entry: io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().as_bytes().starts_with(b"libvixDiskLib.so"))
    };
    let entries = std::fs::read_dir(directory.join("lib64"));
    if entries.is_ok_and(|mut entries| entries.any(is_library)) {
        return Ok(directory);
    }
    Err(TransportError::NotVddk { directory: directory.to_owned() })
}

fn command(settings: &TransportSettings) -> Command {
    let mut command = Command::new(&settings.nbdkit);
    for variable in &settings.hidden_variables {
        command.env_remove(variable);
    }
    command
}

/// Which disk of which VM is served.
struct Target<'a> {
    server: &'a VCenterSettings,
    thumbprint: &'a str,
    vm: &'a MoRef,
    access: Access<'a>,
    file: &'a str,
}

/// The arguments of nbdkit: others can see them.
fn arguments(files: &Files, vddk: &Path, target: &Target<'_>) -> Vec<OsString> {
    let Target { server, thumbprint, vm, access, file } = target;
    let mut password = OsString::from("+");
    password.push(files.password());
    let mut arguments: Vec<OsString> = vec![
        "--foreground".into(),
        "--exit-with-parent".into(),
        "--pidfile".into(),
        files.pid().into(),
        "--unix".into(),
        files.socket().into(),
        "vddk".into(),
        parameter("libdir", vddk),
        parameter("server", &server.host),
        parameter("port", server.port.to_string()),
        parameter("user", &server.user),
        parameter("password", password),
        parameter("thumbprint", thumbprint),
        parameter("vm", format!("moref={}", vm.id)),
        parameter("transports", TRANSPORTS),
        parameter("single-link", "false"),
        parameter("file", file),
    ];
    if let Access::Snapshot(snapshot) = access {
        arguments.insert(0, "--readonly".into());
        arguments.push(parameter("snapshot", &snapshot.id));
    }
    arguments
}

fn parameter(name: &str, value: impl Into<OsString>) -> OsString {
    let mut parameter = OsString::from(name);
    parameter.push("=");
    parameter.push(value.into());
    parameter
}

/// How waiting for a program ended.
enum Waited {
    Done,
    Exited(ExitStatus),
    Late(Duration),
}

/// Waits until a program has done something, or has ended.
fn wait(
    waiter: &Waiter<'_>,
    what: &'static str,
    running: &mut Running,
    is_done: impl Fn(&Running) -> Result<bool, TransportError>,
) -> Result<Waited, TransportError> {
    let mut seen: Option<Result<Waited, TransportError>> = None;
    let waiter = Waiter { patience: waiter.patience.min(START_PATIENCE), ..*waiter };
    let looked = waiter.until(what, || {
        seen = match (is_done(running), running.exited()) {
            (Err(error), _) => Some(Err(error)),
            (Ok(_), Ok(Some(status))) => Some(Ok(Waited::Exited(status))),
            (Ok(true), _) => Some(Ok(Waited::Done)),
            // One that cannot be asked whether it has ended is waited for as long as any.
            (Ok(false), _) => None,
        };
        Ok(seen.is_some())
    });
    match (looked, seen) {
        (Err(WaitError::Late { after, .. }), _) => Ok(Waited::Late(after)),
        (Err(error), _) => Err(error.into()),
        (Ok(()), seen) => seen.expect("it waits until something is seen"),
    }
}

/// A private directory for one nbdkit, which is removed with all that is in it.
#[derive(Debug)]
struct Files {
    directory: PathBuf,
}

impl Files {
    fn make_in(run_dir: &Path) -> Result<Self, TransportError> {
        let mut failure = io::ErrorKind::AlreadyExists.into();
        for number in 0..DIRECTORIES_MAX {
            let directory = run_dir.join(format!("nbdkit{number}"));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(Self { directory }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    failure = error;
                    break;
                }
            }
        }
        Err(TransportError::RunDir { path: run_dir.to_owned(), source: failure })
    }

    fn password(&self) -> PathBuf {
        self.directory.join("password")
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Written by nbdkit when it is ready.
    fn pid(&self) -> PathBuf {
        self.directory.join("pid")
    }

    fn write_password(&self, password: &str) -> Result<(), TransportError> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(self.password());
        let written = file.and_then(|mut file| file.write_all(password.as_bytes()));
        written.map_err(|source| TransportError::RunDir { path: self.password(), source })
    }

    fn remove_password(&self) -> Result<(), TransportError> {
        let removed = std::fs::remove_file(self.password());
        removed.map_err(|source| TransportError::RunDir { path: self.password(), source })
    }

    fn is_ready(&self) -> Result<bool, TransportError> {
        self.pid().try_exists().map_err(|source| TransportError::RunDir { path: self.pid(), source })
    }

    fn place(&self) -> NbdPlace {
        let socket = self.socket();
        let socket = percent_encode(socket.as_os_str().as_bytes(), NON_ALPHANUMERIC);
        let place = NbdPlace::parse(&format!("nbd+unix:///?socket={socket}"));
        place.and_then(Result::ok).expect("any path can be the path of a socket")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed here is removed with the directory that it is in, by whoever made that.
        let _left_to_the_owner = std::fs::remove_dir_all(&self.directory);
    }
}
