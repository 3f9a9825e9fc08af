//! NBD servers: qemu-nbd, qemu-storage-daemon and nbdkit, and the images that they export.
//!
//! The socket that a server listens on is made here and handed to it, as systemd does: so it can be connected to before
//! the server has started, and another process can go on with it where one has ended.

pub mod image;

use crate::certificates::Certificates;
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that starts is waited for in turns of so long, in between which its end is looked for.
const GREETING_TURN: Duration = Duration::from_millis(100);
/// A busy machine needs many.
const GREETING_TURNS: u32 = 600;

/// The socket becomes descriptor 3 of the process, whose id is known only in it.
const HAND_OVER: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null"#;

/// A running server, which ends when this is dropped, or when the thread that started it ends.
#[derive(Debug)]
pub struct NbdServer {
    process: Child,
    command: Vec<OsString>,
    listening: Listening,
    /// What it writes to its standard error.
    said: File,
}

#[derive(Debug)]
enum Listening {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub enum Listen<'a> {
    /// On a Unix socket, a new one in this directory.
    UnixIn(&'a Path),
    /// On a free port of 127.0.0.1.
    Tcp,
}

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Program(Vec<OsString>);

impl Program {
    /// qemu-nbd with an image in a format, "raw" or "qcow2": read-only, for up to 8 clients, until it is ended.
    #[must_use]
    pub fn qemu_nbd(image: &Path, format: &str) -> Self {
        Self::of("qemu-nbd")
            .with(["--persistent", "--read-only", "--shared=8", "--format", format])
            .with([image.as_os_str()])
    }

    /// qemu-storage-daemon with an image in a format as the export `disk`, read-only, with the dirty bitmap if one is
    /// named.
    #[must_use]
    pub fn storage_daemon(image: &Path, format: &str, bitmap: Option<&str>) -> Self {
        let mut file = OsString::from("driver=file,node-name=file,read-only=on,filename=");
        file.push(image);
        let bitmap = bitmap.map(|name| format!(",bitmaps.0={name}")).unwrap_or_default();
        Self::of("qemu-storage-daemon")
            .with(["--blockdev".into(), file])
            .with(["--blockdev", &format!("driver={format},node-name=image,read-only=on,file=file")])
            .with(["--nbd-server", "addr.type=fd,addr.str=3,max-connections=8"])
            .with(["--export", &format!("type=nbd,id=export,node-name=image,name=disk{bitmap}")])
    }

    /// qemu-nbd with an image in a format that can be written: for up to `clients` at a time, until it is ended.
    #[must_use]
    pub fn writable_qemu_nbd(image: &Path, format: &str, clients: u32) -> Self {
        Self::of("qemu-nbd")
            .with(["--persistent", "--discard=unmap", &format!("--shared={clients}"), "--format", format])
            .with([image.as_os_str()])
    }

    /// qemu-storage-daemon with an image in a format as the export `disk`, which can be written.
    #[must_use]
    pub fn writable_storage_daemon(image: &Path, format: &str) -> Self {
        let mut file = OsString::from("driver=file,node-name=file,discard=unmap,filename=");
        file.push(image);
        Self::of("qemu-storage-daemon")
            .with(["--blockdev".into(), file])
            .with(["--blockdev", &format!("driver={format},node-name=image,discard=unmap,file=file")])
            .with(["--nbd-server", "addr.type=fd,addr.str=3,max-connections=8"])
            .with(["--export", "type=nbd,id=export,node-name=image,name=disk,writable=on"])
    }

    /// nbdkit with options (filters among them), a plugin and what belongs to that.
    #[must_use]
    pub fn nbdkit<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        Self::of("nbdkit").with(["--foreground"]).with(arguments)
    }

    fn of(program: &str) -> Self {
        Self(vec![program.into()])
    }

    /// The same with some more arguments.
    #[must_use]
    pub fn with<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.0.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }
}

impl NbdServer {
    /// Starts a program, and waits until it greets.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(program: Program, listen: Listen<'_>) -> Self {
        let listening = match listen {
            Listen::UnixIn(directory) => {
                let path = (0..).map(|number| directory.join(format!("nbd-{number}.sock")));
                let path = path.into_iter().find(|path| !path.exists()).expect("there are many numbers");
                let listener = UnixListener::bind(&path)
                    .unwrap_or_else(|error| panic!("cannot listen at {}: {error}", path.display()));
                Listening::Unix(listener, path)
            }
            Listen::Tcp => Listening::Tcp(
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of 127.0.0.1 is free"),
            ),
        };
        let Program(command) = program;
        let said = memfd_create("said", MemfdFlags::CLOEXEC).expect("a file can be made in memory").into();
        let mut server = Self { process: spawn(&command, &listening, &said), command, listening, said };
        server.wait_until_it_greets();
        server
    }

    /// A server that cannot start leaves its socket to nobody. This finds out, by the greeting that all servers send.
    fn wait_until_it_greets(&mut self) {
        let mut socket: Box<dyn io::Read> = match &self.listening {
            Listening::Unix(_, path) => {
                let socket = UnixStream::connect(path).expect("the socket listens");
                socket.set_read_timeout(Some(GREETING_TURN)).expect("it is not zero");
                Box::new(socket)
            }
            Listening::Tcp(listener) => {
                let address = listener.local_addr().expect("the listener is bound");
                let socket = TcpStream::connect(address).expect("the socket listens");
                socket.set_read_timeout(Some(GREETING_TURN)).expect("it is not zero");
                Box::new(socket)
            }
        };
        for _ in 0..GREETING_TURNS {
            if socket.read(&mut [0; 8]).is_ok_and(|len| len > 0) {
                return;
            }
            if let Some(status) = self.process.try_wait().expect("a child can be asked for") {
                panic!("{:?} ended, {status}: {}", self.command, self.said());
            }
        }
        panic!("{:?} does not greet", self.command);
    }

    /// Kills it, which loses its connections, and starts the same program again with the same socket.
    ///
    /// # Panics
    /// If there is no process.
    pub fn restart(&mut self) {
        self.end();
        self.process = spawn(&self.command, &self.listening, &self.said);
        self.wait_until_it_greets();
    }

    /// Kills it. Whoever connects from now on waits for an answer until [`NbdServer::restart`].
    ///
    /// # Panics
    /// If it was waited for by somebody else.
    pub fn end(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        self.process.wait().expect("a child that was killed ends");
    }

    /// Returns the URI of one of its exports.
    ///
    /// # Panics
    /// If the socket's path is not in UTF-8.
    #[must_use]
    pub fn uri(&self, export: &str) -> String {
        self.uri_with("", export, "")
    }

    /// Returns the same with TLS and the certificates in a directory.
    ///
    /// # Panics
    /// Like [`NbdServer::uri`].
    #[must_use]
    pub fn tls_uri(&self, export: &str, certificates: &Path) -> String {
        let directory = certificates.to_str().expect("the directory's path is in UTF-8");
        self.uri_with("s", export, &format!("tls-certificates={directory}"))
    }

    fn uri_with(&self, tls: &str, export: &str, parameters: &str) -> String {
        match &self.listening {
            Listening::Unix(_, path) => {
                let path = path.to_str().expect("the socket's path is in UTF-8");
                let parameters = if parameters.is_empty() { String::new() } else { format!("&{parameters}") };
                format!("nbd{tls}+unix:///{export}?socket={path}{parameters}")
            }
            Listening::Tcp(listener) => {
                let port = listener.local_addr().expect("the listener is bound").port();
                let parameters = if parameters.is_empty() { String::new() } else { format!("?{parameters}") };
                format!("nbd{tls}://127.0.0.1:{port}/{export}{parameters}")
            }
        }
    }

    /// Returns what it has written to its standard error.
    ///
    /// # Panics
    /// If that cannot be read.
    #[must_use]
    pub fn said(&self) -> String {
        let len = self.said.metadata().expect("it is a file").len();
        let mut bytes = vec![0; usize::try_from(len).expect("it says little")];
        // Not by reading on from a position, which is the server's, too.
        self.said.read_exact_at(&mut bytes, 0).expect("it does not become shorter");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            // What a failed test's server said belongs to the failure.
            let said = self.said();
            if !said.is_empty() {
                let _ = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
            }
        }
    }
}

fn spawn(command: &[OsString], listening: &Listening, said: &File) -> Child {
    let socket: OwnedFd = match listening {
        Listening::Unix(listener, _) => listener.try_clone().map(OwnedFd::from),
        Listening::Tcp(listener) => listener.try_clone().map(OwnedFd::from),
    }
    .expect("a descriptor can be doubled");
    let said = said.try_clone().expect("a descriptor can be doubled");
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "sh", "-c", HAND_OVER, "sh"])
        .args(command)
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::from(said))
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run setpriv of util-linux ({error}): run `make test`"))
}

/// Makes an authority and a server's certificate, by the names that NBD's tools give them, in a directory.
///
/// # Panics
/// If they cannot be written.
pub fn make_certificates(directory: &Path) {
    let certificates = Certificates::make_with_rsa_in(directory);
    for (from, name) in [
        (certificates.ca_file(), "ca-cert.pem"),
        (certificates.server_file(), "server-cert.pem"),
        (certificates.server_key_file(), "server-key.pem"),
    ] {
        let to = directory.join(name);
        std::fs::rename(&from, &to).unwrap_or_else(|error| panic!("cannot make {}: {error}", to.display()));
    }
}
