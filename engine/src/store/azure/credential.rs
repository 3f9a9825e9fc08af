//! Who asks: what is needed to sign or authorize requests.

use super::place::AzurePlace;
use azure_core::http::Url;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What authorizes requests.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A shared access signature: a token, or a URL with one.
    Sas(Secret),
    /// A file with one, which is read again when the service refuses what it held.
    SasFile(PathBuf),
    /// A key of the account, in base64. It allows everything.
    AccountKey(Secret),
    /// A service principal with a password.
    ClientSecret {
        /// The directory (tenant).
        tenant: String,
        /// The application (client) id.
        client: String,
        /// The password.
        secret: Secret,
    },
    /// A service principal with a certificate.
    ClientCertificate {
        /// The directory (tenant).
        tenant: String,
        /// The application (client) id.
        client: String,
        /// The certificate and its private key (PKCS #8, RSA), as PEM.
        pem: Secret,
    },
    /// The managed identity of the machine.
    ManagedIdentity {
        /// The client id of a user-assigned identity; without it the one that the system assigned.
        client: Option<String>,
    },
    /// A federated identity, whose token a file holds.
    WorkloadIdentity {
        /// The directory (tenant).
        tenant: String,
        /// The application (client) id.
        client: String,
        /// The file with the token, which is read again when it is due.
        token_file: PathBuf,
    },
    /// Whoever is logged in to the Azure CLI.
    AzureCli {
        /// The directory (tenant), if it is not the CLI's own.
        tenant: Option<String>,
    },
}

/// Why something cannot be used as a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// It is no connection string.
    #[error("the connection string is not of the form NAME=VALUE;NAME=VALUE")]
    ConnectionStringForm,
    /// A connection string without a secret.
    #[error("the connection string has neither an AccountKey nor a SharedAccessSignature")]
    ConnectionStringWithoutSecret,
    /// It is for another account.
    #[error("it is for the account {found:?}, and the repository is in {wanted:?}")]
    OtherAccount {
        /// The account it is for.
        found: String,
        /// The repository's.
        wanted: String,
    },
    /// It is for an endpoint that is none.
    #[error(transparent)]
    Endpoint(#[from] super::PlaceError),
    /// A SAS without a signature.
    #[error("the SAS has no signature (sig=)")]
    SasForm,
    /// A SAS URL of another container.
    #[error("the SAS is for {found}, and the repository is in {wanted}")]
    OtherContainer {
        /// The URL it is for, without its query.
        found: String,
        /// The container's URL.
        wanted: String,
    },
    /// A key that is no base64.
    #[error("the account key is not base64")]
    KeyForm,
    /// A certificate that cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    Certificate(&'static str),
    /// A file that cannot be read.
    #[error("could not read {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No client can be made: a certificate file or a proxy that the environment names, or a URL, is of no use.
    #[error("no HTTPS client can be made for it")]
    Client {
        /// Why.
        source: std::io::Error,
    },
    /// What the identity library refuses.
    #[error("the identity cannot be used")]
    Identity {
        /// Why.
        source: std::io::Error,
    },
}

impl Credential {
    /// Reads a connection string, and gives the credential and the place with the endpoint that it names, unless the
    /// place has one already.
    ///
    /// # Errors
    /// [`CredentialError`]; also for a string of another account.
    pub fn from_connection_string(
        text: &Secret,
        place: AzurePlace,
    ) -> Result<(Self, AzurePlace), CredentialError> {
        let mut fields: HashMap<String, &str> = HashMap::new();
        for field in text.reveal().trim().split(';').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').ok_or(CredentialError::ConnectionStringForm)?;
            fields.insert(name.trim().to_ascii_lowercase(), value.trim());
        }
        if let Some(found) = fields.get("accountname").filter(|found| **found != place.account()) {
            return Err(CredentialError::OtherAccount {
                found: (*found).to_owned(),
                wanted: place.account().to_owned(),
            });
        }
        let secret = |value: &&str| Secret::new((*value).to_owned());
        let credential = match (fields.get("accountkey"), fields.get("sharedaccesssignature")) {
            (Some(key), _) => Self::AccountKey(secret(key)),
            (None, Some(sas)) => Self::Sas(secret(sas)),
            (None, None) => return Err(CredentialError::ConnectionStringWithoutSecret),
        };
        if place.has_endpoint() {
            return Ok((credential, place));
        }
        let protocol = fields.get("defaultendpointsprotocol").unwrap_or(&"https");
        let named = if place.is_secondary() { "blobsecondaryendpoint" } else { "blobendpoint" };
        let endpoint = match (fields.get(named), fields.get("endpointsuffix")) {
            (Some(endpoint), _) => (*endpoint).to_owned(),
            (None, Some(suffix)) => format!("{protocol}://{}.blob.{suffix}", place.endpoint_name()),
            (None, None) => return Ok((credential, place)),
        };
        let place = place.at_endpoint(&endpoint)?;
        Ok((credential, place))
    }
}

/// The name-value pairs of a SAS, still percent-encoded, from a token or a URL of this container or account, which may have
/// several URLs, at least one.
pub(super) fn sas_pairs(text: &str, containers: &[Url]) -> Result<Zeroizing<String>, CredentialError> {
    let text = text.trim();
    let token = match text.split_once('?') {
        Some(("", token)) => token,
        // Anything else before a question mark may be a part of the signature, and is not told.
        Some((url, token)) if url.starts_with("https://") || url.starts_with("http://") => {
            let url = url.trim_end_matches('/');
            let is_above = |container: &Url| {
                let rest = container.as_str().strip_prefix(url);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if !containers.iter().any(is_above) {
                return Err(CredentialError::OtherContainer {
                    found: url.to_owned(),
                    wanted: containers.first().map(Url::to_string).unwrap_or_default(),
                });
            }
            token
        }
        Some(_) => return Err(CredentialError::SasForm),
        None => text,
    };
    let is_signed = token.split('&').any(|pair| pair.strip_prefix("sig=").is_some_and(|sig| !sig.is_empty()));
    let is_query = token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_signed || !is_query {
        return Err(CredentialError::SasForm);
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// The bytes of an account key.
pub(super) fn account_key(key: &Secret) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    match BASE64_STANDARD.decode(key.reveal().trim()) {
        Ok(key) if !key.is_empty() => Ok(Zeroizing::new(key)),
        _ => Err(CredentialError::KeyForm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> AzurePlace {
        AzurePlace::parse("azblob://account1/backups").unwrap().unwrap()
    }

    fn connect(text: &str) -> Result<(Credential, AzurePlace), CredentialError> {
        Credential::from_connection_string(&Secret::new(text.to_owned()), place())
    }

    #[test]
    fn a_connection_string_has_a_secret_and_perhaps_an_endpoint() {
        let (credential, place) =
            connect("DefaultEndpointsProtocol=https;AccountName=account1;AccountKey=a2V5==;EndpointSuffix=core.windows.net")
                .unwrap();
        assert!(matches!(&credential, Credential::AccountKey(key) if key.reveal() == "a2V5=="));
        assert_eq!(place.container_url().as_str(), "https://account1.blob.core.windows.net/backups");
        let (credential, place) =
            connect("BlobEndpoint=http://127.0.0.1:1/account1;SharedAccessSignature=sv=1&sig=x;").unwrap();
        assert!(matches!(&credential, Credential::Sas(sas) if sas.reveal() == "sv=1&sig=x"));
        assert_eq!(place.container_url().as_str(), "http://127.0.0.1:1/account1/backups");
        assert!(!format!("{credential:?}").contains("sig"), "a secret is shown");
    }

    #[test]
    fn connection_strings_of_others_are_refused() {
        assert!(matches!(
            connect("AccountName=other;AccountKey=k"),
            Err(CredentialError::OtherAccount { .. })
        ));
        assert!(matches!(
            connect("AccountName=account1"),
            Err(CredentialError::ConnectionStringWithoutSecret)
        ));
        assert!(matches!(connect("nonsense"), Err(CredentialError::ConnectionStringForm)));
        assert!(matches!(connect("BlobEndpoint=x;AccountKey=k"), Err(CredentialError::Endpoint(_))));
    }

    #[test]
    fn a_secondary_endpoint_is_reached_with_what_is_for_its_account() {
        let place = || AzurePlace::parse("azblob://account1-secondary/backups").unwrap().unwrap();
        let connect = |text: &str| Credential::from_connection_string(&Secret::new(text.to_owned()), place());
        let (_, found) = connect(
            "AccountName=account1;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/account1;\
             BlobSecondaryEndpoint=http://127.0.0.1:1/account1-secondary",
        )
        .unwrap();
        assert_eq!(found.container_url().as_str(), "http://127.0.0.1:1/account1-secondary/backups");
        let (_, found) = connect("AccountName=account1;AccountKey=a2V5;EndpointSuffix=core.example").unwrap();
        assert_eq!(found.container_url().as_str(), "https://account1-secondary.blob.core.example/backups");
        for endpoint in ["account1", "account1-secondary"] {
            let text = format!("https://{endpoint}.blob.core.windows.net/backups?sv=1&sig=x");
            assert_eq!(*sas_pairs(&text, &place().container_urls()).unwrap(), "sv=1&sig=x");
        }
    }

    #[test]
    fn a_sas_is_a_token_or_a_url_of_the_container_or_the_account() {
        let url = place().container_urls();
        for text in [
            "sv=1&sig=a%2Fb",
            "?sv=1&sig=a%2Fb\n",
            "https://account1.blob.core.windows.net/backups?sv=1&sig=a%2Fb",
            "https://account1.blob.core.windows.net/?sv=1&sig=a%2Fb",
        ] {
            assert_eq!(*sas_pairs(text, &url).unwrap(), "sv=1&sig=a%2Fb", "{text}");
        }
        for text in [
            "https://account2.blob.core.windows.net/backups?sv=1&sig=x",
            "https://account1.blob.core.windows.net/back?sv=1&sig=x",
        ] {
            assert!(matches!(sas_pairs(text, &url), Err(CredentialError::OtherContainer { .. })), "{text}");
        }
        for text in ["", "sv=1", "sv=1&sig=", "sv=1&sig=x y", "sv=1&sig=x#", "sv=1&sig=x?y&sig=z"] {
            assert!(matches!(sas_pairs(text, &url), Err(CredentialError::SasForm)), "{text}");
        }
    }
}
