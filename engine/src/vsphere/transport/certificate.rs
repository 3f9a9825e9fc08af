//! The certificate of the server, in the form in which VMware's library wants to know it.

use super::error::TransportError;
use crate::tls::client_config;
use crate::vsphere::client::VCenterSettings;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::ClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

/// Connects, verifies the server's certificate as always, and returns its SHA-1 digest: pairs of digits with colons.
///
/// The digest only tells VMware's library which certificate was verified.
pub(super) fn thumbprint(server: &VCenterSettings) -> Result<String, TransportError> {
    let config = client_config(&server.trust, None)?;
    let seen = || -> io::Result<String> {
        let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(Arc::clone(&config), name).map_err(io::Error::other)?;
        let mut socket = connect(&server.host, server.port, server.connect_timeout)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        certificate.map(sha1).ok_or_else(|| io::Error::other("it has none"))
    };
    let host = || format!("{}:{}", server.host, server.port);
    seen().map_err(|source| TransportError::Certificate { host: host(), source })
}

fn sha1(certificate: &CertificateDer<'_>) -> String {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut failure = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                socket.set_read_timeout(Some(timeout))?;
                socket.set_write_timeout(Some(timeout))?;
                return Ok(socket);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}
