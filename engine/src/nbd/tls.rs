//! TLS towards NBD servers: certificates by the names that NBD's own tools give them.

use super::error::NbdError;
use super::place::{NbdPlace, TlsPlace};
use crate::tls::{ClientIdentity, Trust, client_config};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;

/// Whom the client trusts, and what the server's certificate must say.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Tls {
    /// Reads the certificates of a place, if TLS is spoken there.
    pub(super) fn of(place: &NbdPlace) -> Result<Option<Self>, NbdError> {
        let Some(TlsPlace { certificates, hostname }) = &place.tls else { return Ok(None) };
        let name = ServerName::try_from(hostname.clone())
            .map_err(|_| NbdError::TlsName { place: place.to_string(), name: hostname.clone() })?;
        let trust = certificates
            .as_ref()
            .map_or(Trust::System, |directory| Trust::CaFile(directory.join("ca-cert.pem")));
        let identity = certificates.as_ref().and_then(|directory| {
            let identity = ClientIdentity {
                certificate_file: directory.join("client-cert.pem"),
                key_file: directory.join("client-key.pem"),
            };
            // One of them alone is an error, which names the other.
            (identity.certificate_file.exists() || identity.key_file.exists()).then_some(identity)
        });
        let config = client_config(&trust, identity.as_ref())
            .map_err(|source| NbdError::TlsSetup { place: place.to_string(), source })?;
        Ok(Some(Self { config, name }))
    }
}
