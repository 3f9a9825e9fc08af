//! Assertions that a certificate's key signs, instead of a password.
//!
//! Source: Microsoft, "Microsoft identity platform application authentication certificate credentials"; RFC 7519, RFC
//! 7515 and, for the algorithm PS256, RFC 7518 section 3.5.

use super::credential::{CredentialError, Secret};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::fmt;

/// How long an assertion is valid: it is used at once, and clocks differ a little.
const VALID_SECONDS: i64 = 600;

/// A certificate with its key.
pub(super) struct Certificate {
    key: RsaKeyPair,
    /// The assertions' header, encoded.
    header: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

/// What one assertion says.
pub(super) struct Claims<'a> {
    /// The token endpoint.
    pub(super) audience: &'a str,
    /// The application.
    pub(super) client: &'a str,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// A text that no other assertion has.
    pub(super) id: [u8; 16],
}

impl Certificate {
    pub(super) fn from_pem(pem: &Secret) -> Result<Self, CredentialError> {
        let pem = pem.reveal().as_bytes();
        let certificate = CertificateDer::from_pem_slice(pem)
            .map_err(|_| CredentialError::Certificate("it holds no certificate in PEM"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem)
            .map_err(|_| CredentialError::Certificate("it holds no private key in PEM (PKCS #8)"))?;
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
            .map_err(|_| CredentialError::Certificate("its private key is not an RSA key in PKCS #8"))?;
        let thumbprint = encode(digest(&SHA256, &certificate));
        let header = encode(format!(r#"{{"alg":"PS256","typ":"JWT","x5t#S256":"{thumbprint}"}}"#));
        Ok(Self { key, header })
    }

    /// Signs an assertion.
    pub(super) fn assertion(&self, claims: &Claims<'_>) -> Result<String, CredentialError> {
        let Claims { audience, client, now, id } = claims;
        let claims = serde_json::json!({
            "aud": audience, "iss": client, "sub": client, "jti": encode(id),
            "iat": now, "nbf": now, "exp": now + VALID_SECONDS,
        });
        let text = format!("{}.{}", self.header, encode(claims.to_string()));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| CredentialError::Certificate("its key cannot sign"))?;
        Ok(format!("{text}.{}", encode(signature)))
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
