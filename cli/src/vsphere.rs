//! Talking to a vCenter: who asks, whom is trusted, and how long is waited.

use crate::clock;
use crate::exit::Usage;
use crate::interrupt::Interrupt;
use crate::numbers::parse_duration;
use crate::password::{Asking, Origin, Question};
use crate::settings::Settings;
use anyhow::Context as _;
use keepstone_engine::tls::{Thumbprint, Trust};
use keepstone_engine::vsphere::{
    AddController, MoRef, ProxyVm, TransportChoice, TransportSettings, VCenter, VCenterSettings,
    VSphereError, VSpherePlace, VmInfo,
};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::ops::{ControlFlow, Deref};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// The password's environment variable.
const PASSWORD_VARIABLE: &str = "KEEPSTONE_VSPHERE_PASSWORD";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// vCenter may think for a while about a VM with many snapshots.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);
/// How long one task of vCenter may take: large deltas are merged for tens of minutes.
const PATIENCE: Duration = Duration::from_hours(1);
/// Where `dev` and `sys` of this machine are, for a container that has them elsewhere.
const ROOT_VARIABLE: &str = "KEEPSTONE_DEVICE_ROOT";
/// What a program that is started must not find in its environment.
const SECRET_VARIABLES: [&str; 7] = [
    PASSWORD_VARIABLE,
    crate::settings::PASSWORD_VARIABLE,
    "KEEPSTONE_NEW_PASSWORD",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_CLIENT_SECRET",
];
/// The program that reads disks with VMware's library.
const NBDKIT: &str = "nbdkit";

/// What is said about a vCenter on the command line. The profile can hold all of it, under the same names.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Options for vSphere")]
pub(crate) struct VSphereArguments {
    /// Log in to vCenter as this user
    #[arg(long, value_name = "USER", env = "KEEPSTONE_VSPHERE_USER", hide_env_values = true)]
    pub(crate) vsphere_user: Option<String>,

    /// Read the user's password from a file
    ///
    /// It is taken from the first of --vsphere-password-file, --vsphere-password-command, the environment variable
    /// KEEPSTONE_VSPHERE_PASSWORD, the profile, and a question at the terminal.
    #[expect(clippy::doc_markdown, reason = "it is shown as a help text, as it is")]
    #[arg(long, value_name = "FILE", conflicts_with = "vsphere_password_command")]
    pub(crate) vsphere_password_file: Option<PathBuf>,

    /// Take the user's password from what a shell command prints
    #[arg(long, value_name = "COMMAND")]
    pub(crate) vsphere_password_command: Option<String>,

    /// Trust the authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "vsphere_thumbprint")]
    pub(crate) vsphere_ca: Option<PathBuf>,

    /// Trust the one certificate with this SHA-256 thumbprint
    #[arg(long, value_name = "SHA256")]
    pub(crate) vsphere_thumbprint: Option<Thumbprint>,

    /// How to reach disks: hotadd, nbd, folder (only reads), or auto for the first that can be used [default: auto]
    #[arg(long, value_name = "WAY")]
    pub(crate) transport: Option<TransportChoice>,

    /// The virtual machine that disks are attached to for hotadd, by path or UUID [default: this machine]
    #[arg(long, value_name = "VM")]
    pub(crate) proxy_vm: Option<ProxyVm>,

    /// Where VMware's VDDK is, for nbd: the directory with lib64 in it
    #[arg(long, value_name = "DIR")]
    pub(crate) vddk_dir: Option<PathBuf>,

    /// The nbdkit to run, for nbd [default: nbdkit]
    #[arg(long, value_name = "FILE")]
    pub(crate) nbdkit: Option<PathBuf>,

    /// How long vCenter may take for one task, such as removing a snapshot [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) task_timeout: Option<Duration>,
}

/// A directory that nobody else can look into, until it is dropped. Those that killed processes of this user left, which
/// may have a password in them, are removed.
#[derive(Debug)]
struct RunDir {
    path: PathBuf,
    /// Locked as long as the process lives.
    _lock: File,
}

const RUN_DIR_PREFIX: &str = "keepstone-";
const RUN_DIR_LOCK: &str = "lock";

impl RunDir {
    fn make() -> anyhow::Result<Self> {
        let parent = std::env::temp_dir();
        if let Err(error) = remove_abandoned(&parent) {
            tracing::info!(%error, "what killed processes left was not looked for");
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).context("could not get random bytes from the system")?;
        let path = parent.join(format!("{RUN_DIR_PREFIX}{:016x}", u64::from_le_bytes(random)));
        let make = || {
            DirBuilder::new().mode(0o700).create(&path)?;
            // It has its name when it is locked: who finds it without a lock removes the directory.
            let unnamed = path.join("unlocked");
            let lock = File::create_new(&unnamed)?;
            lock.lock()?;
            std::fs::rename(unnamed, path.join(RUN_DIR_LOCK))?;
            Ok(lock)
        };
        let lock: std::io::Result<File> = make();
        let lock = lock.with_context(|| format!("could not make the directory {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }
}

/// Removes the run directories of this user whose processes have ended.
fn remove_abandoned(parent: &Path) -> std::io::Result<()> {
    for entry in parent.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix(RUN_DIR_PREFIX).unwrap_or_default();
        let is_ours = number.len() == 16 && number.bytes().all(|digit| digit.is_ascii_hexdigit());
        // Those of other users cannot be looked into, and a file or a link of that name is none.
        let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if !is_ours || !is_directory {
            continue;
        }
        let Ok(lock) = File::open(path.join(RUN_DIR_LOCK)) else { continue };
        if lock.try_lock().is_ok()
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::info!(%error, path = %path.display(), "a directory of an ended process stays");
        }
    }
    Ok(())
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::info!(%error, path = %self.path.display(), "a directory stays");
        }
    }
}

/// The passwords that were given in this run, so that each is asked for once, and a wrong one tried once, however many VMs
/// a server has.
#[derive(Clone, Default)]
pub(crate) struct Passwords {
    given: ByUserAndServer<Zeroizing<String>>,
    tried: ByUserAndServer<Arc<Mutex<Login>>>,
}

type ByUserAndServer<T> = Arc<Mutex<BTreeMap<(String, String), T>>>;

/// What is known of the logins of a user of a server.
#[derive(Default)]
enum Login {
    #[default]
    Untried,
    /// It was not refused.
    Tried,
    Refused {
        host: String,
        user: String,
    },
}

impl Passwords {
    /// The password of a user of a server: as it was given before, or as `ask` gets it. Others wait meanwhile.
    fn get(
        &self,
        user: &str,
        host: &str,
        ask: impl FnOnce() -> anyhow::Result<Zeroizing<String>>,
    ) -> anyhow::Result<Zeroizing<String>> {
        let mut known = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (user.to_owned(), host.to_owned());
        if let Some(password) = known.get(&of) {
            return Ok(password.clone());
        }
        let password = ask()?;
        known.insert(of, password.clone());
        Ok(password)
    }

    /// Logs a user in to a server, unless that was refused before: each further try might lock the user out. Others wait
    /// while the first tries.
    fn log_in<T>(
        &self,
        user: &str,
        host: &str,
        connect: impl FnOnce() -> Result<T, VSphereError>,
    ) -> Result<T, VSphereError> {
        let of = (user.to_owned(), host.to_owned());
        let login = self.tried.lock().unwrap_or_else(PoisonError::into_inner).entry(of).or_default().clone();
        let lock = || login.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = lock();
        let outcome = match &*known {
            Login::Refused { host, user } => {
                return Err(VSphereError::WrongLogin { host: host.clone(), user: user.clone() });
            }
            Login::Tried => {
                drop(known);
                let outcome = connect();
                known = lock();
                outcome
            }
            Login::Untried => connect(),
        };
        *known = match &outcome {
            Err(VSphereError::WrongLogin { host, user }) => {
                Login::Refused { host: host.clone(), user: user.clone() }
            }
            _ if matches!(*known, Login::Untried) => Login::Tried,
            _ => return outcome,
        };
        outcome
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Passwords")
    }
}

/// A session that is ended when it is dropped.
pub(crate) struct LoggedIn(VCenter);

impl Deref for LoggedIn {
    type Target = VCenter;

    fn deref(&self) -> &VCenter {
        &self.0
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        if let Err(error) = self.0.logout() {
            tracing::info!(%error, "the session with vCenter was left to end by itself");
        }
    }
}

/// A session with the vCenter of a VM.
pub(crate) struct Center {
    pub(crate) vcenter: LoggedIn,
    pub(crate) vm: MoRef,
    /// The VM as it was found.
    pub(crate) info: VmInfo,
    pub(crate) transport: TransportSettings,
    _run_dir: RunDir,
    /// How long one task may take.
    pub(crate) patience: Duration,
    interrupt: Interrupt,
}

impl Center {
    /// Logs in and finds the VM.
    ///
    /// # Errors
    /// Settings that contradict each other or are missing, and whatever the server refuses.
    pub(crate) fn connect(
        settings: &Settings,
        arguments: &VSphereArguments,
        place: &VSpherePlace,
    ) -> anyhow::Result<Self> {
        let given = arguments.or(&settings.vsphere);
        let user = given.vsphere_user.clone().or_else(|| place.user.clone()).ok_or_else(|| {
            Usage::new(format!("no user was named for {}", place.host)).hint(
                "name it with --vsphere-user, in KEEPSTONE_VSPHERE_USER, or as in vsphere://USER@HOST/...",
            )
        })?;
        let password = settings
            .passwords
            .get(&user, &place.host, || password(arguments, &settings.vsphere, &user, place))?;
        let interrupt = settings.interrupt.clone();
        let stopped = interrupt.clone();
        let server = VCenterSettings {
            host: place.host.clone(),
            port: place.port,
            user,
            password,
            trust: given.trust(),
            connect_timeout: CONNECT_TIMEOUT,
            answer_timeout: ANSWER_TIMEOUT,
            pause: Arc::new(move |repetition| {
                // The question is asked once more all the same, and whoever asked looks whether to stop.
                let _stop =
                    clock::pause(Duration::from_secs(1 << repetition.min(4)), &|| stopped.is_raised());
            }),
        };
        let run_dir = RunDir::make()?;
        let connect = || VCenter::connect(&server);
        let vcenter = LoggedIn(settings.passwords.log_in(&server.user, &place.host, connect)?);
        let vm = vcenter.find_vm(place)?;
        let info = vcenter.vm(&vm)?;
        tracing::info!(server = ?vcenter.about(), %vm, name = info.name, "the virtual machine is found");
        let transport = given.transport_settings(server, &run_dir);
        let patience = given.task_timeout.unwrap_or(PATIENCE);
        Ok(Self { vcenter, vm, info, transport, _run_dir: run_dir, patience, interrupt })
    }

    /// The VM's name, as users see it.
    pub(crate) fn vm_name(&self) -> String {
        // vSphere escapes three characters in names.
        ["/", "\\", "%"].into_iter().zip(["%2f", "%5c", "%25"]).fold(
            self.info.name.clone(),
            |name, (character, escaped)| {
                name.replace(escaped, character).replace(&escaped.to_uppercase(), character)
            },
        )
    }

    /// Waits until the user wants to stop.
    pub(crate) fn pause(&self, duration: Duration) -> ControlFlow<()> {
        clock::pause(duration, &|| self.interrupt.is_raised())
    }

    /// Waits whatever the user wants; who wants to stop at once interrupts twice.
    pub(crate) fn pause_to_clean(duration: Duration) -> ControlFlow<()> {
        clock::pause(duration, &|| false)
    }
}

impl VSphereArguments {
    /// What was said here, and where nothing was, there.
    fn or(&self, other: &Self) -> Self {
        let has_trust = self.vsphere_ca.is_some() || self.vsphere_thumbprint.is_some();
        let trust = if has_trust { self } else { other };
        Self {
            vsphere_user: self.vsphere_user.clone().or_else(|| other.vsphere_user.clone()),
            // The environment comes between the two.
            vsphere_password_file: None,
            vsphere_password_command: None,
            vsphere_ca: trust.vsphere_ca.clone(),
            vsphere_thumbprint: trust.vsphere_thumbprint,
            transport: self.transport.or(other.transport),
            proxy_vm: self.proxy_vm.clone().or_else(|| other.proxy_vm.clone()),
            vddk_dir: self.vddk_dir.clone().or_else(|| other.vddk_dir.clone()),
            nbdkit: self.nbdkit.clone().or_else(|| other.nbdkit.clone()),
            task_timeout: self.task_timeout.or(other.task_timeout),
        }
    }

    /// Where the password is, if it was said here.
    fn origin(&self) -> Option<Origin> {
        let file = self.vsphere_password_file.clone().map(Origin::File);
        file.or_else(|| self.vsphere_password_command.clone().map(Origin::Command))
    }

    fn transport_settings(&self, server: VCenterSettings, run_dir: &RunDir) -> TransportSettings {
        TransportSettings {
            choice: self.transport.unwrap_or(TransportChoice::Auto),
            proxy_vm: self.proxy_vm.clone(),
            add_controller: AddController::IfNeeded,
            root: std::env::var_os(ROOT_VARIABLE).map_or_else(|| PathBuf::from("/"), PathBuf::from),
            nbdkit: self.nbdkit.clone().unwrap_or_else(|| PathBuf::from(NBDKIT)),
            vddk_dir: self.vddk_dir.clone(),
            run_dir: run_dir.path.clone(),
            server,
            hidden_variables: SECRET_VARIABLES.map(ToOwned::to_owned).to_vec(),
        }
    }

    fn trust(&self) -> Trust {
        match (&self.vsphere_ca, self.vsphere_thumbprint) {
            (Some(file), _) => Trust::CaFile(file.clone()),
            (None, Some(thumbprint)) => Trust::Thumbprint(thumbprint),
            (None, None) => Trust::System,
        }
    }
}

fn password(
    flags: &VSphereArguments,
    profile: &VSphereArguments,
    user: &str,
    place: &VSpherePlace,
) -> anyhow::Result<Zeroizing<String>> {
    let environment = || std::env::var_os(PASSWORD_VARIABLE).map(|_| Origin::Environment(PASSWORD_VARIABLE));
    let origin = flags.origin().or_else(environment).or_else(|| profile.origin()).unwrap_or(Origin::Terminal);
    let question = format!("Password of {user} at {}", place.host);
    let bytes = origin
        .password(Question {
            text: &question,
            asking: Asking::Once,
            otherwise: "give it with --vsphere-password-file, --vsphere-password-command or KEEPSTONE_VSPHERE_PASSWORD",
        })
        .with_context(|| format!("there is no password of {user} at {}", place.host))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Usage::new(format!("the password of {user} at {} is not UTF-8", place.host)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_password_is_asked_for_once_for_each_user_and_server() {
        let passwords = Passwords::default();
        let given = |text: &str| Ok(Zeroizing::new(text.to_owned()));
        let again = || panic!("it was asked for again");
        assert!(passwords.get("a", "host", || anyhow::bail!("not now")).is_err());
        assert_eq!(*passwords.get("a", "host", || given("one")).unwrap(), "one");
        assert_eq!(*passwords.get("b", "host", || given("two")).unwrap(), "two");
        assert_eq!(*passwords.get("a", "other", || given("three")).unwrap(), "three");
        assert_eq!(*passwords.get("a", "host", again).unwrap(), "one");
        assert!(!format!("{passwords:?}").contains("one"));
    }

    #[test]
    fn a_refused_login_is_tried_once_for_each_user_and_server() {
        let passwords = Passwords::default();
        let refused = || VSphereError::WrongLogin { host: "host:443".to_owned(), user: "a".to_owned() };
        let tries = Mutex::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    let outcome: Result<(), _> = passwords.log_in("a", "host", || {
                        *tries.lock().unwrap() += 1;
                        Err(refused())
                    });
                    assert_eq!(outcome.unwrap_err().to_string(), refused().to_string());
                });
            }
        });
        assert_eq!(*tries.lock().unwrap(), 1);
        assert_eq!(passwords.log_in("b", "host", || Ok(1)).unwrap(), 1);
        assert_eq!(passwords.log_in("b", "host", || Ok(2)).unwrap(), 2);
        assert_eq!(passwords.log_in("a", "other", || Ok(3)).unwrap(), 3);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let parent = TempDir::new().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("password"), b"secret").unwrap();
            (File::create(path.join(RUN_DIR_LOCK)).unwrap(), path)
        };
        let (ended, abandoned) = make("keepstone-0123456789abcdef");
        let (running, in_use) = make("keepstone-0123456789abcde0");
        let (other, of_others) = make("keepstone-backup");
        running.lock().unwrap();
        drop((ended, other));
        remove_abandoned(parent.path()).unwrap();
        assert_eq!([abandoned, in_use, of_others].map(|path| path.exists()), [false, true, true]);
    }
}
