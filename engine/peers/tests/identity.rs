//! The stand-ins for what gives out tokens, asked by the library that the program asks with, and Azurite, which takes
//! the tokens.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaKeyPair};
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::http::headers::Headers;
use azure_core::http::{
    AsyncRawResponse, Body, ClientMethodOptions, ClientOptions, HttpClient, Request, Transport,
};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertion, ClientAssertionCredential,
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions, Executor,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use keepstone_peers::azure_cli::{write_az, write_az_without_login};
use keepstone_peers::azurite::{Azurite, PRIMARY};
use keepstone_peers::certificates::{Certificates, ClientCertificate};
use keepstone_peers::entra::{Assertion, Entra, Grant, Proof};
use keepstone_peers::http::Way;
use keepstone_peers::imds::{Identity, Imds, SYSTEM_CLIENT};
use keepstone_peers::token::{SCOPE, access_token};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_hours(1);

/// What the library sends its requests with.
#[derive(Debug)]
struct Client {
    ca_file: Option<PathBuf>,
    proxy: Option<String>,
}

#[async_trait]
impl HttpClient for Client {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let headers: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let Body::Bytes(body) = request.body() else { panic!("a request for a token is small") };
        let way = Way { ca_file: self.ca_file.as_deref(), proxy: self.proxy.as_deref() };
        let answer = way.send(request.method().as_str(), request.url().as_str(), &headers, body);
        Ok(AsyncRawResponse::from_bytes(answer.status.into(), Headers::new(), answer.body))
    }
}

impl Client {
    fn options(self, authority: &str) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        authority.clone_into(&mut cloud.authority_host);
        ClientOptions {
            transport: Some(Transport::new(Arc::new(self))),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..ClientOptions::default()
        }
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Returns a token, or why there is none.
fn token(credential: &dyn TokenCredential) -> Result<String, String> {
    match wait(credential.get_token(&[SCOPE], None)) {
        Ok(token) => Ok(token.token.secret().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the application that a token names.
fn application(token: &str) -> Value {
    Assertion(token.to_owned()).claims()["appid"].clone()
}

/// Entra ID, and the files with which it is trusted.
fn entra() -> (Entra, Certificates, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::make_in(directory.path());
    (Entra::start(&certificates), certificates, directory)
}

fn options(entra: &Entra, certificates: &Certificates) -> ClientOptions {
    Client { ca_file: Some(certificates.ca_file()), proxy: None }.options(&entra.authority())
}

fn with_secret(entra: &Entra, certificates: &Certificates) -> Arc<ClientSecretCredential> {
    let options = ClientSecretCredentialOptions { client_options: options(entra, certificates) };
    ClientSecretCredential::new("tenant", "client".to_owned(), "secret &+%".into(), Some(options)).unwrap()
}

#[test]
fn azurite_accepts_tokens_until_they_end() {
    let (entra, certificates, _directory) = entra();
    let azurite = Azurite::start_with_tokens(&certificates);
    azurite.create_container(&PRIMARY, "tokens");
    let ca_file = certificates.ca_file();
    let put = |name: &str, token: &str| {
        let url = format!("{}/tokens/{name}", azurite.endpoint(&PRIMARY));
        let authorization = format!("Bearer {token}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("x-ms-version", "2024-11-04"),
            ("x-ms-blob-type", "BlockBlob"),
        ];
        let answer = Way { ca_file: Some(&ca_file), proxy: None }.send("PUT", &url, &headers, b"");
        (answer.status, answer.header("x-ms-error-code").unwrap_or_default().to_owned())
    };

    let valid = token(&*with_secret(&entra, &certificates)).unwrap();
    entra.grant_for(HOUR, Duration::ZERO);
    let ended = token(&*with_secret(&entra, &certificates)).unwrap();

    let refused = (403, "AuthenticationFailed".to_owned());
    assert_eq!(
        [put("first", &valid), put("second", &ended), put("third", "nonsense")],
        [(201, String::new()), refused.clone(), refused]
    );
}

#[test]
fn entra_id_remembers_secrets_and_tokens_are_asked_for_again_when_they_end() {
    let (entra, certificates, _directory) = entra();
    let credential = with_secret(&entra, &certificates);
    let first = token(&*credential).unwrap();
    assert_eq!(token(&*credential).unwrap(), first, "an hour's token is kept");

    // The library asks again five minutes before a token's end.
    entra.grant_for(Duration::from_secs(10), HOUR);
    let credential = with_secret(&entra, &certificates);
    let second = token(&*credential).unwrap();
    let third = token(&*credential).unwrap();

    assert!(first != second && second != third);
    assert_eq!(application(&third), "client");
    let grant = Grant {
        tenant: "tenant".to_owned(),
        client: "client".to_owned(),
        scope: SCOPE.to_owned(),
        proof: Proof::Secret("secret &+%".to_owned()),
    };
    assert_eq!(entra.grants(), vec![grant; 3]);
}

#[test]
fn entra_id_refuses_with_the_error_that_the_test_wants() {
    let (entra, certificates, _directory) = entra();
    entra.refuse(7_000_222);
    let error = token(&*with_secret(&entra, &certificates)).unwrap_err();
    assert!(error.contains("AADSTS7000222"), "{error}");

    entra.grant_for(HOUR, HOUR);
    assert!(token(&*with_secret(&entra, &certificates)).is_ok());
    assert_eq!(entra.grants().len(), 2);
}

#[derive(Debug)]
struct Stated(String);

#[async_trait]
impl ClientAssertion for Stated {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.clone())
    }
}

/// Returns a JWT that a certificate's key signed by PS256.
fn signed(certificate: &ClientCertificate, claims: &Value) -> String {
    let key = PrivatePkcs8KeyDer::from_pem_slice(certificate.pem.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let head = json!({"alg": "PS256", "typ": "JWT"}).to_string();
    let text = format!("{}.{}", encode(head.as_bytes()), encode(claims.to_string().as_bytes()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    format!("{text}.{}", encode(&signature))
}

#[test]
fn entra_id_remembers_assertions_and_who_signed_them_is_told() {
    let (entra, certificates, _directory) = entra();
    let (mine, other) = (ClientCertificate::make(), ClientCertificate::make());
    let claims = json!({"iss": "client", "aud": entra.authority()});
    let stated = Stated(signed(&mine, &claims));
    let options = ClientAssertionCredentialOptions { client_options: options(&entra, &certificates) };
    let credential =
        ClientAssertionCredential::new("tenant".to_owned(), "client".to_owned(), stated, Some(options))
            .unwrap();
    token(&*credential).unwrap();

    let [Grant { proof: Proof::Assertion(assertion), .. }] = &entra.grants()[..] else {
        panic!("{:?} is not one assertion", entra.grants())
    };
    assert_eq!((assertion.head()["alg"].as_str(), assertion.claims()), (Some("PS256"), claims));
    assert!(assertion.is_signed_by(&mine) && !assertion.is_signed_by(&other));
}

fn managed(imds: &Imds, user: Option<&str>) -> Arc<ManagedIdentityCredential> {
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: user.map(|client| UserAssignedId::ClientId(client.to_owned())),
        client_options: Client { ca_file: None, proxy: Some(imds.proxy()) }.options("https://unused.invalid"),
    };
    ManagedIdentityCredential::new(Some(options)).unwrap()
}

#[test]
fn a_machine_has_the_tokens_of_its_own_identities_only() {
    let imds = Imds::start(&[Identity::SystemAssigned, Identity::UserAssigned("mine".to_owned())]);

    assert_eq!(application(&token(&*managed(&imds, None)).unwrap()), SYSTEM_CLIENT);
    assert_eq!(application(&token(&*managed(&imds, Some("mine"))).unwrap()), "mine");
    let error = token(&*managed(&imds, Some("other"))).unwrap_err();
    assert!(error.contains("has not been assigned"), "{error}");

    let user = |client: &str| Identity::UserAssigned(client.to_owned());
    assert_eq!(imds.asked(), [Identity::SystemAssigned, user("mine"), user("other")]);
}

#[test]
fn tokens_of_a_machine_are_asked_for_again_when_they_end() {
    let imds = Imds::start(&[Identity::SystemAssigned]);
    let credential = managed(&imds, None);
    imds.grant_for(Duration::from_secs(10), HOUR);
    let first = token(&*credential).unwrap();
    imds.grant_for(HOUR, HOUR);
    let second = token(&*credential).unwrap();
    assert!(first != second);
    assert_eq!(token(&*credential).unwrap(), second);
    assert_eq!(imds.asked(), [Identity::SystemAssigned, Identity::SystemAssigned]);
}

#[test]
fn the_proxy_to_managed_identities_leads_nowhere_else_and_wants_their_header() {
    let imds = Imds::start(&[Identity::SystemAssigned]);
    let proxy = imds.proxy();
    let way = Way { ca_file: None, proxy: Some(&proxy) };
    let tokens = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com";
    let metadata = [("metadata", "true")];
    assert_eq!(way.send("GET", tokens, &metadata, b"").status, 200);
    assert_eq!(way.send("GET", tokens, &[], b"").status, 400);
    assert_eq!(way.send("GET", "http://other.invalid/", &metadata, b"").status, 502);
}

/// Runs commands with a directory first in `PATH`.
#[derive(Debug)]
struct With(PathBuf);

#[async_trait]
impl Executor for With {
    async fn run(&self, program: &OsStr, arguments: &[&OsStr]) -> io::Result<Output> {
        let path = format!("{}:/usr/bin:/bin", self.0.display());
        Command::new(program).args(arguments).env("PATH", path).output()
    }
}

fn logged_in(directory: &Path, tenant: Option<&str>) -> Arc<AzureCliCredential> {
    let options = AzureCliCredentialOptions {
        executor: Some(Arc::new(With(directory.to_owned()))),
        tenant_id: tenant.map(str::to_owned),
        ..AzureCliCredentialOptions::default()
    };
    AzureCliCredential::new(Some(options)).unwrap()
}

#[test]
fn the_azure_cli_prints_the_token_that_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    for tenant in [None, Some("tenant")] {
        let written = access_token("user", now..now + HOUR);
        write_az(directory.path(), &written, now + HOUR);
        assert_eq!(token(&*logged_in(directory.path(), tenant)).unwrap(), written);
    }

    write_az_without_login(directory.path());
    let error = token(&*logged_in(directory.path(), None)).unwrap_err();
    assert!(error.contains("az login"), "{error}");
}
