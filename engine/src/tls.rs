//! TLS towards servers of the user's own, with trust in an authority or in one pinned certificate; and as a server.
//!
//! There is no way to trust anybody.

use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The SHA-256 digest of a certificate in DER, by which one is pinned.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint(pub [u8; 32]);

impl Thumbprint {
    /// The thumbprint of a certificate.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(bytes)
    }
}

/// 64 hexadecimal digits in pairs with colons between them, as vSphere's tools and `openssl x509` show them.
impl fmt::Display for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            let colon = if position == 0 { "" } else { ":" };
            write!(formatter, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Thumbprint({self})")
    }
}

/// Takes 64 hexadecimal digits, or 32 pairs of them with colons between; what stands before a `=` is ignored, as `openssl
/// x509 -fingerprint` prints it.
impl FromStr for Thumbprint {
    type Err = NotAThumbprint;

    fn from_str(text: &str) -> Result<Self, NotAThumbprint> {
        // OpenSSL prints the digest's name before it.
        let text = text.rsplit_once('=').map_or(text, |(_, digits)| digits);
        let pairs: Vec<&str> = if text.contains(':') {
            text.split(':').collect()
        } else {
            text.as_bytes().chunks(2).filter_map(|pair| str::from_utf8(pair).ok()).collect()
        };
        let bytes: Option<Vec<u8>> = pairs.into_iter().map(byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(NotAThumbprint)
    }
}

fn byte(pair: &str) -> Option<u8> {
    let hexadecimal = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
}

/// A text that is no SHA-256 thumbprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 thumbprint: 64 hexadecimal digits are, with or without colons between the pairs")]
pub struct NotAThumbprint;

/// Whom a client trusts to be the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever has a certificate for the server's name from an authority that this system trusts.
    System,
    /// Whoever has one from an authority whose certificate is in this PEM file, and from no other.
    CaFile(PathBuf),
    /// Whoever has the key of the one certificate with this thumbprint, whatever name and authority it has and
    /// however old it is.
    Thumbprint(Thumbprint),
}

/// What a client proves who it is with: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The client's certificate, and those of authorities between it and one that the server trusts.
    pub certificate_file: PathBuf,
    /// The certificate's key.
    pub key_file: PathBuf,
}

/// Why TLS cannot be spoken as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {what} in {}", file.display())]
    File {
        /// What should be in it.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("there is no certificate in {}", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// What was given cannot be used, or the system's authorities cannot be read.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
    /// The authorities of a file cannot be used.
    #[error("the authorities in {} cannot be used", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The server's certificate is another than the pinned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's certificate has the thumbprint {found}, not {expected}")]
pub struct WrongThumbprint {
    /// The pinned one.
    pub expected: Thumbprint,
    /// The server's.
    pub found: Thumbprint,
}

impl WrongThumbprint {
    /// Finds it among the causes of a failed connection.
    #[must_use]
    pub fn among_causes(error: &(dyn Error + 'static)) -> Option<Self> {
        tls_cause(error).and_then(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                other.downcast_ref::<Self>().copied()
            }
            _ => None,
        })
    }
}

/// Finds the failure of TLS among the causes of a failed connection.
#[must_use]
pub fn tls_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // `source` of an I/O error is the cause of what it wraps, and skips that itself.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Builds how a client speaks TLS, 1.2 or 1.3.
///
/// A pinned thumbprint replaces the verification of chain, name and validity; that the server has the certificate's
/// key is verified in every case.
///
/// # Errors
/// If a file cannot be read, or holds what cannot be used.
pub fn client_config(
    trust: &Trust,
    identity: Option<&ClientIdentity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifier(trust, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.certificate_file)?;
            builder.with_client_auth_cert(chain, private_key(&identity.key_file)?)?
        }
    };
    Ok(Arc::new(config))
}

/// Builds how a server speaks TLS, 1.2 or 1.3. With an authority, clients must have a certificate of it.
///
/// # Errors
/// If a file cannot be read, or holds what cannot be used.
pub fn server_config(
    certificate_file: &Path,
    key_file: &Path,
    authority: Option<&Path>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(file, error))?)
        }
    };
    Ok(Arc::new(builder.with_single_cert(certificates(certificate_file)?, private_key(key_file)?)?))
}

fn verifier(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    match trust {
        Trust::System => Ok(Arc::new(Verifier::new(Arc::clone(provider))?)),
        Trust::CaFile(file) => {
            let roots = Arc::new(roots(file)?);
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
            Ok(builder.build().map_err(|error| unusable(file, error))?)
        }
        Trust::Thumbprint(expected) => Ok(Arc::new(Pinned {
            expected: *expected,
            algorithms: provider.signature_verification_algorithms,
        })),
    }
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| unusable(file, error))?;
    }
    Ok(roots)
}

fn unusable(file: &Path, error: impl Into<Box<dyn Error + Send + Sync>>) -> TlsError {
    TlsError::Authorities { file: file.to_owned(), source: error.into() }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let unreadable = |source| TlsError::File { what: "a private key", file: file.to_owned(), source };
    PrivateKeyDer::from_pem_file(file).map_err(unreadable)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File { what: "certificates", file: file.to_owned(), source };
    let found = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    }
    Ok(found)
}

/// Trusts one certificate.
#[derive(Debug)]
struct Pinned {
    expected: Thumbprint,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Thumbprint::of(end_entity);
        if found == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = WrongThumbprint { expected: self.expected, found };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_read_with_and_without_colons_and_printed_with_them() {
        let bytes: [u8; 32] = std::array::from_fn(|position| u8::try_from(position).unwrap() * 8);
        let plain = bytes.map(|byte| format!("{byte:02x}")).concat();
        let printed = bytes.map(|byte| format!("{byte:02X}")).join(":");
        assert_eq!(plain.parse(), Ok(Thumbprint(bytes)));
        assert_eq!(printed.parse(), Ok(Thumbprint(bytes)));
        assert_eq!(Thumbprint(bytes).to_string(), printed);
    }

    #[test]
    fn what_is_no_thumbprint_is_refused() {
        let sha1 = ["AB"; 20].join(":");
        let spaced = ["AB"; 32].join(" ");
        let signed = ["+A"; 32].concat();
        let longer = ["AB"; 33].join(":");
        let odd = "a".repeat(63);
        for text in ["", ":", &sha1, &spaced, &signed, &longer, &odd, &"é".repeat(32)] {
            assert_eq!(text.parse::<Thumbprint>(), Err(NotAThumbprint), "{text:?}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_no_trust() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("empty.pem");
        std::fs::write(&file, "nothing here").unwrap();
        let refused = client_config(&Trust::CaFile(file.clone()), None).unwrap_err();
        assert_eq!(refused.to_string(), format!("there is no certificate in {}", file.display()));
    }
}
