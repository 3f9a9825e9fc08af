//! Making requests those of somebody: what is added to each of them.

use super::certificate::{Certificate, Claims};
use super::credential::{Credential, CredentialError, Secret, account_key, sas_pairs};
use super::failure::Failure;
use super::sas::{self, Readable};
use super::{AzurePlace, AzureSettings, shared_key};
use crate::entropy::Entropy;
use crate::frames::lock;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{
    Body, ClientMethodOptions, ClientOptions, Context, HttpClient, Request, RetryOptions, Transport, Url,
};
use azure_core::time::{OffsetDateTime, to_rfc7231};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertion, ClientAssertionCredential,
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zeroize::Zeroizing;

/// The public cloud's issuer of tokens.
const PUBLIC_AUTHORITY: &str = "https://login.microsoftonline.com";

/// What tokens for a storage account are for.
const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";
/// How long a signature lets another service read a blob: each try of a copy has its own, and the longest ones end
/// before.
const READABLE_FOR: Duration = Duration::from_hours(2);

/// A request's digest, in its context.
pub(super) struct ContentMd5(pub(super) Vec<u8>);

/// Adds to each try of a request what authorizes it, unless that is a token, which the library adds.
pub(super) struct Authority {
    account: String,
    /// The container's URL, and that of the account's primary endpoint where it is another one.
    containers: Vec<Url>,
    means: Means,
    /// Raised by each renewal.
    version: AtomicU64,
}

enum Means {
    Sas { pairs: Mutex<Zeroizing<String>>, file: Option<PathBuf> },
    Key(Zeroizing<Vec<u8>>),
    Token(Arc<dyn TokenCredential>),
}

/// What lets another service read a blob here.
pub(super) enum Access {
    /// What stands behind the blob's URL.
    Query(Zeroizing<String>),
    /// What stands in a header beside it.
    Bearer(Zeroizing<String>),
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("account", &self.account).finish_non_exhaustive()
    }
}

/// What asks for tokens, where tokens are used.
pub(super) type Token = Option<Arc<dyn TokenCredential>>;

impl Authority {
    pub(super) fn new(
        settings: &AzureSettings,
        transport: Arc<dyn HttpClient>,
    ) -> Result<(Arc<Self>, Token), CredentialError> {
        let containers = settings.place.container_urls();
        let sas = |text: &str, file| -> Result<_, CredentialError> {
            Ok((Means::Sas { pairs: Mutex::new(sas_pairs(text, &containers)?), file }, None))
        };
        let (means, token) = match &settings.credential {
            Credential::Sas(text) => sas(text.reveal(), None)?,
            Credential::SasFile(path) => sas(&read(path)?, Some(path.clone()))?,
            Credential::AccountKey(key) => (Means::Key(account_key(key)?), None),
            _ => {
                let token = token(settings, transport)?;
                (Means::Token(Arc::clone(&token)), Some(token))
            }
        };
        let account = settings.place.account().to_owned();
        let version = AtomicU64::new(0);
        Ok((Arc::new(Self { account, containers, means, version }), token))
    }

    /// When the SAS ends, as it says itself.
    pub(super) fn expiry(&self) -> Option<String> {
        let Means::Sas { pairs, .. } = &self.means else { return None };
        let mut url = self.containers.first()?.clone();
        url.set_query(Some(&lock(pairs)));
        url.query_pairs().find(|(name, _)| name == "se").map(|(_, at)| at.into_owned())
    }

    /// What lets another service read a blob of this account, for a while. `blob` is its whole name.
    pub(super) async fn access(&self, place: &AzurePlace, blob: &str) -> Result<Access, Failure> {
        match &self.means {
            Means::Sas { pairs, .. } => Ok(Access::Query(lock(pairs).clone())),
            Means::Key(key) => {
                let only_https = place.service_url().scheme() == "https";
                let (account, container) = (self.account.as_str(), place.container());
                let readable = Readable { account, container, blob, only_https };
                Ok(Access::Query(sas::to_read(&readable, OffsetDateTime::now_utc() + READABLE_FOR, key)))
            }
            Means::Token(token) => {
                let token = token.get_token(&[STORAGE_SCOPE], None).await.map_err(Failure::of)?;
                Ok(Access::Bearer(Zeroizing::new(format!("Bearer {}", token.token.secret()))))
            }
        }
    }

    /// Whether it is a token that lets another service read, which not all that copy take.
    pub(super) fn is_token(&self) -> bool {
        matches!(self.means, Means::Token(_))
    }

    /// A number that tells renewals apart.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Whether there is something newer than what a refused request was made with; looks for it if there is not.
    pub(super) fn renewed_since(&self, version: u64) -> bool {
        let Means::Sas { pairs, file: Some(path) } = &self.means else { return false };
        let mut pairs = lock(pairs);
        if self.version() > version {
            return true;
        }
        // A file that cannot be read or used leaves things as they are: the refusal is what is told.
        let Some(new) = read(path).ok().and_then(|text| sas_pairs(&text, &self.containers).ok()) else {
            return false;
        };
        if *new == **pairs {
            return false;
        }
        *pairs = new;
        self.version.fetch_add(1, Ordering::SeqCst);
        true
    }
}

#[async_trait::async_trait]
impl Policy for Authority {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        if let Some(ContentMd5(digest)) = context.value() {
            request.insert_header("content-md5", BASE64_STANDARD.encode(digest));
        }
        match &self.means {
            Means::Sas { pairs, .. } => {
                let pairs = lock(pairs).clone();
                let url = request.url_mut();
                let query = match url.query() {
                    Some(query) => Zeroizing::new(format!("{query}&{}", *pairs)),
                    None => pairs,
                };
                url.set_query(Some(&query));
            }
            Means::Key(key) => {
                // It is signed, and the library leaves it to the transport where it sends XML.
                if let Body::Bytes(bytes) = request.body()
                    && !bytes.is_empty()
                {
                    let len = bytes.len().to_string();
                    request.insert_header("content-length", len);
                }
                request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
                let authorization = shared_key::authorization(request, &self.account, key);
                request.insert_header("authorization", authorization);
            }
            Means::Token(_) => {}
        }
        let (first, rest) = next.split_first().expect("the transport is the last policy");
        first.send(context, request, rest).await
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, CredentialError> {
    let failed = |source| CredentialError::File { path: path.display().to_string(), source };
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

fn token(
    settings: &AzureSettings,
    transport: Arc<dyn HttpClient>,
) -> Result<Arc<dyn TokenCredential>, CredentialError> {
    let authority = settings.authority.as_deref().unwrap_or(PUBLIC_AUTHORITY);
    let mut cloud = CustomConfiguration::default();
    authority.clone_into(&mut cloud.authority_host);
    let client_options = ClientOptions {
        transport: Some(Transport::new(transport)),
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    };
    let assertion = |client_options| Some(ClientAssertionCredentialOptions { client_options });
    let made: azure_core::Result<Arc<dyn TokenCredential>> = match &settings.credential {
        Credential::ClientSecret { tenant, client, secret } => {
            let secret = azure_core::credentials::Secret::new(secret.reveal().to_owned());
            let options = Some(ClientSecretCredentialOptions { client_options });
            ClientSecretCredential::new(tenant, client.clone(), secret, options).map(|it| it as _)
        }
        Credential::ClientCertificate { tenant, client, pem } => {
            let signer = Signer::new(authority, tenant, client, pem, settings.entropy.clone())?;
            let options = assertion(client_options);
            ClientAssertionCredential::new(tenant.clone(), client.clone(), signer, options).map(|it| it as _)
        }
        Credential::ManagedIdentity { client } => {
            let user_assigned_id = client.clone().map(UserAssignedId::ClientId);
            let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
            ManagedIdentityCredential::new(Some(options)).map(|it| it as _)
        }
        Credential::WorkloadIdentity { tenant, client, token_file } => {
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions { client_options },
                client_id: Some(client.clone()),
                tenant_id: Some(tenant.clone()),
                token_file_path: Some(token_file.clone()),
            };
            WorkloadIdentityCredential::new(Some(options)).map(|it| it as _)
        }
        Credential::AzureCli { tenant } => {
            let mut options = AzureCliCredentialOptions::default();
            options.tenant_id.clone_from(tenant);
            AzureCliCredential::new(Some(options)).map(|it| it as _)
        }
        Credential::Sas(_) | Credential::SasFile(_) | Credential::AccountKey(_) => {
            unreachable!("signatures and keys need no token")
        }
    };
    made.map_err(|error| CredentialError::Identity { source: io::Error::other(error) })
}

/// Makes assertions of a certificate.
#[derive(Debug)]
struct Signer {
    certificate: Certificate,
    audience: String,
    client: String,
    entropy: Entropy,
    made: AtomicU64,
}

impl Signer {
    fn new(
        authority: &str,
        tenant: &str,
        client: &str,
        pem: &Secret,
        entropy: Entropy,
    ) -> Result<Self, CredentialError> {
        let certificate = Certificate::from_pem(pem)?;
        let audience = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let made = AtomicU64::new(0);
        Ok(Self { certificate, audience, client: client.to_owned(), entropy, made })
    }
}

#[async_trait::async_trait]
impl ClientAssertion for Signer {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let claims = Claims {
            audience: &self.audience,
            client: &self.client,
            now: OffsetDateTime::now_utc().unix_timestamp(),
            id: self.entropy.draw16("assertion id", self.made.fetch_add(1, Ordering::Relaxed)),
        };
        self.certificate.assertion(&claims).map_err(|error| Error::new(ErrorKind::Credential, error))
    }
}
