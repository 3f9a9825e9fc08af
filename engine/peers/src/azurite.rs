//! Azurite, Microsoft's emulator of Azure Storage: its blob service, on a port of 127.0.0.1 that was free.
//!
//! It does not emulate versions, soft delete, immutability, replication or throttling. It refuses an expired token with
//! 403 `AuthenticationFailed`, and an expired SAS with 403 `AuthorizationFailure`, where Azure's documentation says 401
//! `InvalidAuthenticationInfo`, and 403 `AuthenticationFailed`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::certificates::Certificates;
use crate::http::Way;
pub use crate::sas::Account;

/// The account in which tests keep repositories.
pub const PRIMARY: Account = Account {
    name: "keepstoneprimary",
    key: "3FAWeX7ESqD1aDdOtmoihoVCKDlesiUJqzfOQ/RithNenH+oWhO5drrNxR/xI8xymi2jq5FDGzD8bXdwiGEQYA==",
};

/// Another account, for copies between accounts.
pub const REPLICA: Account = Account {
    name: "keepstonereplica",
    key: "IBbG2c62dIZzLtZvYW6KLarPGuT42x7cIE6/7j8wyppV/YOA3GD1QQxn9cWnNgh/eExoPYDDZ2hQRVqPIjOkGw==",
};

/// Azurite needs about three seconds; a busy machine many more.
const START_SECONDS: u64 = 120;

/// The most that blobs in memory may take. Azurite frees what was deleted late: tests with more use a directory.
const MEMORY_MIB: &str = "1024";

/// Azurite does not look at its standard input, so this module is loaded before it: the process ends when the pipe
/// ends, which the system closes however the process that started it died.
const END_WITH_PARENT: &str = "data:text/javascript,process.stdin.on('end',()=>process.exit()).resume()";

/// A line like `Azurite Blob service successfully listens on http://127.0.0.1:40000` says where it listens.
const LISTENS: &str = " successfully listens on ";

/// A running Azurite, which ends when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct Azurite {
    /// Its standard input, which is in here, is what it ends with.
    process: Child,
    /// Such as `http://127.0.0.1:40000`.
    origin: String,
    /// Whom to trust, if it speaks TLS.
    ca_file: Option<PathBuf>,
}

impl Azurite {
    /// Starts one that keeps everything in memory, at most a GiB, and waits until it listens.
    ///
    /// # Panics
    /// If Azurite is not installed, or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::run(&mut in_memory(), None)
    }

    /// Starts one like [`Azurite::start`] that speaks TLS only, and also takes access tokens. Those allow everything.
    ///
    /// # Panics
    /// Like [`Azurite::start`].
    #[must_use]
    pub fn start_with_tokens(certificates: &Certificates) -> Self {
        let mut command = in_memory();
        command.args(["--oauth", "basic"]);
        command.arg("--cert").arg(certificates.server_file());
        command.arg("--key").arg(certificates.server_key_file());
        Self::run(&mut command, Some(certificates.ca_file()))
    }

    /// Starts one that keeps everything in a directory, for gigabytes.
    ///
    /// # Panics
    /// Like [`Azurite::start`].
    #[must_use]
    pub fn start_in(directory: &Path) -> Self {
        Self::run(azurite().arg("--location").arg(directory), None)
    }

    /// Returns the one that all tests of this process share; each makes a container of its own. It is started when it
    /// is first asked for, and ends with the process.
    ///
    /// # Panics
    /// Like [`Azurite::start`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Azurite> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn run(command: &mut Command, ca_file: Option<PathBuf>) -> Self {
        let mut process = command.spawn().unwrap_or_else(|error| {
            panic!("cannot run node, on which Azurite runs ({error}): run `make test`, or `make azurite`")
        });
        let output = process.stdout.take().expect("standard output is piped");
        let (said, listening) = mpsc::channel();
        thread::spawn(move || read_output(output, &said));
        match listening.recv_timeout(Duration::from_secs(START_SECONDS)) {
            Ok(Ok(origin)) => Self { process, origin, ca_file },
            Ok(Err(output)) => panic!("Azurite ended before it listened; it said:\n{output}"),
            Err(_) => {
                process.kill().expect("the process was not waited for");
                panic!("Azurite did not listen within {START_SECONDS} s")
            }
        }
    }

    /// Returns where it listens: scheme, host and port, without a slash at the end.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the id of its process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the endpoint of an account, such as `http://127.0.0.1:40000/keepstoneprimary`.
    #[must_use]
    pub fn endpoint(&self, account: &Account) -> String {
        format!("{}/{}", self.origin, account.name)
    }

    /// Makes a container, which must not exist.
    ///
    /// # Panics
    /// If Azurite refuses.
    pub fn create_container(&self, account: &Account, container: &str) {
        let sas = account.account_sas(SystemTime::now() + Duration::from_hours(1));
        let url = format!("{}/{container}?restype=container&{sas}", self.endpoint(account));
        let way = Way { ca_file: self.ca_file.as_deref(), proxy: None };
        let answer = way.send("PUT", &url, &[], &[]);
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 201, "container {container} was not created: {body}");
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        self.process.kill().expect("the process was not waited for");
        self.process.wait().expect("a child that was killed ends");
    }
}

/// Returns the directory that `make azurite` installs into.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/azurite")
}

fn in_memory() -> Command {
    let mut command = azurite();
    command.args(["--inMemoryPersistence", "--extentMemoryLimit", MEMORY_MIB]);
    command
}

fn azurite() -> Command {
    let script = installed().join("node_modules/azurite/dist/src/blob/main.js");
    assert!(script.is_file(), "Azurite is not in target/tools/azurite: run `make test`, or `make azurite`");
    let accounts = [PRIMARY, REPLICA].map(|account| format!("{}:{}", account.name, account.key));
    let mut command = Command::new("node");
    command
        .args(["--import", END_WITH_PARENT])
        .arg(script)
        .args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--disableTelemetry", "--silent"])
        .env("AZURITE_ACCOUNTS", accounts.join(";"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Sends where Azurite listens, or all that it said if it ended without; then reads on, so that it never waits.
fn read_output(output: ChildStdout, said: &mpsc::Sender<Result<String, String>>) {
    let mut before = String::new();
    let mut listens = false;
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if listens {
            continue;
        }
        if let Some((_, origin)) = line.split_once(LISTENS) {
            listens = true;
            // Nobody listens any more if the start was given up.
            let _ = said.send(Ok(origin.to_owned()));
        } else {
            before.extend([line.as_str(), "\n"]);
        }
    }
    if !listens {
        let _ = said.send(Err(before));
    }
}
