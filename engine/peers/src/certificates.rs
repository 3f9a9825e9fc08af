//! Certificates made for one test: those that servers show, and those that clients prove with who they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// An authority of one test's own, and the certificate for 127.0.0.1 and localhost that it signed, as files.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them, and writes them to files of a directory, which the caller removes.
    ///
    /// # Panics
    /// If the files cannot be written.
    #[must_use]
    pub fn make_in(directory: &Path) -> Self {
        Self::make_with_keys(directory, || KeyPair::generate().expect("a key can be made"))
    }

    /// Makes them with RSA keys, for servers that do not read others.
    pub(crate) fn make_with_rsa_in(directory: &Path) -> Self {
        Self::make_with_keys(directory, || {
            KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key can be made")
        })
    }

    fn make_with_keys(directory: &Path, key: impl Fn() -> KeyPair) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = key();
        let authority = params.self_signed(&authority_key).expect("the parameters are complete");
        let issuer = Issuer::new(params, authority_key);

        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let params = CertificateParams::new(names).expect("the names are well formed");
        let key = key();
        let server = params.signed_by(&key, &issuer).expect("the parameters are complete");

        let made = Self { directory: directory.to_owned() };
        write(&made.ca_file(), &authority.pem());
        write(&made.server_file(), &server.pem());
        write(&made.server_key_file(), &key.serialize_pem());
        made
    }

    /// Returns the file with the authority's certificate, for `SSL_CERT_FILE`.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Returns the file with the certificate that servers show.
    #[must_use]
    pub fn server_file(&self) -> PathBuf {
        self.directory.join("server.pem")
    }

    pub(crate) fn server_key_file(&self) -> PathBuf {
        self.directory.join("server-key.pem")
    }

    /// Returns how a server of this crate speaks TLS.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let chain = vec![certificate(&self.server_file())];
        let key = PrivateKeyDer::from_pem_file(self.server_key_file()).expect("the file holds a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        Arc::new(config.expect("the key is the certificate's"))
    }
}

/// Returns how a client speaks TLS that trusts nobody but the authority whose certificate is in a file.
pub(crate) fn client_config(ca_file: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca_file)).expect("the certificate is well formed");
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file)
        .unwrap_or_else(|error| panic!("{} holds no certificate: {error}", file.display()))
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
}

/// A certificate with an RSA key, with which an application proves who it is.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate and its key (PKCS #8), in PEM, as one file has them.
    pub pem: String,
    /// The certificate in DER, whose digest the heads of assertions tell.
    pub der: Vec<u8>,
    public_key: Vec<u8>,
}

impl ClientCertificate {
    /// Makes one that signs itself.
    ///
    /// # Panics
    /// If no key can be made.
    #[must_use]
    pub fn make() -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key can be made");
        let certificate =
            CertificateParams::default().self_signed(&key).expect("the parameters are complete");
        Self {
            pem: format!("{}{}", certificate.pem(), key.serialize_pem()),
            der: certificate.der().to_vec(),
            public_key: key.public_key_raw().to_vec(),
        }
    }

    /// Tells whether its key made a signature by PS256 (RFC 7518 section 3.5).
    #[must_use]
    pub fn signed(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &self.public_key).verify(text, signature).is_ok()
    }
}
