//! Where a disk is served.

use super::Arguments;
use crate::console::warn;
use crate::exit::Usage;
use crate::location::must_be_outside_of_repository;
use crate::settings::Settings;
use anyhow::{Context as _, bail};
use keepstone_engine::nbd::server::{Listener, ServerTls};
use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The port that NBD has.
const PORT: u16 = 10809;

/// Where clients are to come in.
pub(super) enum Place {
    Socket(PathBuf),
    /// For the command alone.
    Private,
    Address {
        address: SocketAddr,
        tls: Option<ServerTls>,
    },
}

/// A place where clients can come in.
pub(super) struct Opened {
    pub(super) listener: Listener,
    pub(super) tls: Option<ServerTls>,
    pub(super) uri: String,
    /// Where a private socket is; it goes after the listener.
    _directory: Option<TempDir>,
}

impl Place {
    /// Says where, before anything is opened.
    pub(super) fn parse(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Self> {
        if let Some(overlay) = &arguments.overlay {
            must_be_outside_of_repository(settings, overlay, "name a file in another directory")?;
        }
        match (&arguments.socket, &arguments.listen) {
            (Some(socket), _) => {
                must_be_outside_of_repository(settings, socket, "name a socket in another directory")?;
                Ok(Self::Socket(
                    std::path::absolute(socket).context("could not find the socket's directory")?,
                ))
            }
            (None, Some(listen)) => Self::address(listen, arguments),
            (None, None) if arguments.command.is_empty() => {
                bail!(
                    Usage::new("it is not said where the disk is to be served").hint(
                        "name a socket with --socket PATH, or an address with --listen ADDR; or give a command behind --"
                    )
                )
            }
            (None, None) => Ok(Self::Private),
        }
    }

    fn address(listen: &str, arguments: &Arguments) -> anyhow::Result<Self> {
        let bad = || {
            Usage::new(format!("{listen:?} is no address of this host"))
                .hint("write ADDRESS or ADDRESS:PORT, as in 127.0.0.1:10809 or [::1]:10809")
        };
        let found = listen.to_socket_addrs().or_else(|_| (listen, PORT).to_socket_addrs());
        let address = found.ok().and_then(|mut found| found.next()).ok_or_else(bad)?;
        let tls = arguments.tls_certificates.as_deref().map(ServerTls::from_directory).transpose()?;
        let is_own = address.ip().is_loopback();
        match &arguments.tls_certificates {
            None if !is_own && !arguments.allow_unencrypted => bail!(
                Usage::new(format!("{listen} can be reached by other hosts, which could read the disk without a password"))
                    .hint("give --tls-certificates DIR, listen at 127.0.0.1, use --socket, or say --allow-unencrypted")
            ),
            None if !is_own => warn(&format!(
                "whoever reaches {listen} reads the disk, and so does whoever listens on the way: there is no TLS"
            )),
            Some(directory) if !directory.join("ca-cert.pem").exists() => warn(&format!(
                "whoever reaches {listen} reads the disk: clients need no certificate, as there is no ca-cert.pem in {}",
                directory.display()
            )),
            _ => {}
        }
        Ok(Self::Address { address, tls })
    }

    pub(super) fn open(self) -> anyhow::Result<Opened> {
        match self {
            Self::Socket(path) => Opened::at(&path, None),
            Self::Private => {
                let directory = tempfile::Builder::new().prefix("keepstone-").tempdir();
                let directory = directory.context("could not make a directory for a socket")?;
                Opened::at(&directory.path().join("socket"), Some(directory))
            }
            Self::Address { address, tls } => {
                let listener = Listener::tcp(address)?;
                let address = listener.address().unwrap_or(address);
                let scheme = if tls.is_some() { "nbds" } else { "nbd" };
                Ok(Opened { uri: format!("{scheme}://{address}/"), listener, tls, _directory: None })
            }
        }
    }
}

impl Opened {
    fn at(path: &Path, directory: Option<TempDir>) -> anyhow::Result<Self> {
        let listener = Listener::unix(path)?;
        Ok(Self { listener, tls: None, uri: socket_uri(path), _directory: directory })
    }
}

/// The URI of a socket, in which everything is written out that means something in URIs or shells.
fn socket_uri(path: &Path) -> String {
    let mut uri = "nbd+unix:///?socket=".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            write!(uri, "%{byte:02X}").expect("a string takes everything");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_so_that_uris_and_shells_take_it() {
        let uri = socket_uri(Path::new("/run/a b'c?d&e%/é.sock"));
        assert_eq!(uri, "nbd+unix:///?socket=/run/a%20b%27c%3Fd%26e%25/%C3%A9.sock");
    }
}
