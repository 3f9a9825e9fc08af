//! A stand-in for Entra ID: the endpoint that gives applications tokens (OAuth 2.0, RFC 6749 section 4.4), over TLS.
//!
//! It believes every application, and remembers how it was asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::certificates::{Certificates, ClientCertificate};
use crate::server::{Form, Reply, Request, Server};
use crate::token::Lifetime;

/// The form's value for an assertion (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An application asked for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The directory (tenant) in the URL's path.
    pub tenant: String,
    /// The application (client) id.
    pub client: String,
    /// What the token is to be for.
    pub scope: String,
    /// How the application proved who it is.
    pub proof: Proof,
}

/// How an application proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By a password.
    Secret(String),
    /// By a statement that its key, or somebody whom it is federated with, signed.
    Assertion(Assertion),
}

/// A signed statement of who somebody is (a JWT, RFC 7519).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion(pub String);

impl Assertion {
    /// Returns what it says about its signature.
    ///
    /// # Panics
    /// If it is no JWT.
    #[must_use]
    pub fn head(&self) -> Value {
        serde_json::from_slice(&self.part(0)).expect("the first part of a JWT is JSON")
    }

    /// Returns what it states.
    ///
    /// # Panics
    /// If it is no JWT.
    #[must_use]
    pub fn claims(&self) -> Value {
        serde_json::from_slice(&self.part(1)).expect("the second part of a JWT is JSON")
    }

    /// Tells whether a certificate's key signed it, by PS256.
    ///
    /// # Panics
    /// If it is no JWT.
    #[must_use]
    pub fn is_signed_by(&self, certificate: &ClientCertificate) -> bool {
        let (text, _) = self.0.rsplit_once('.').expect("a JWT has dots");
        certificate.signed(text.as_bytes(), &self.part(2))
    }

    fn part(&self, number: usize) -> Vec<u8> {
        let part = self.0.split('.').nth(number).expect("a JWT has three parts");
        BASE64_URL_SAFE_NO_PAD.decode(part).expect("the parts of a JWT are Base64")
    }
}

/// A running stand-in for Entra ID, until it is dropped.
#[derive(Debug)]
pub struct Entra {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    grants: Vec<Grant>,
    lifetime: Lifetime,
    /// The number of the error that every request gets.
    refusal: Option<u32>,
}

impl Entra {
    /// Starts one that gives tokens for an hour.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start(certificates: &Certificates) -> Self {
        let state = State { grants: Vec::new(), lifetime: Lifetime::HOUR, refusal: None };
        let state = Arc::new(Mutex::new(state));
        let answering = Arc::clone(&state);
        let server = Server::start(Some(certificates.server_config()), move |request| {
            answer(request, &mut answering.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Self { server, state }
    }

    /// Returns its URL, for `AZURE_AUTHORITY_HOST`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("https://{}", self.server.address())
    }

    /// Returns who asked so far, in order, whether they got a token or not.
    #[must_use]
    pub fn grants(&self) -> Vec<Grant> {
        self.state().grants.clone()
    }

    /// Gives tokens from now on that say to be valid for one duration, and are for another. Clients ask for new ones
    /// before the first; storage accepts none after the second, and no token at all whose second is zero.
    pub fn grant_for(&self, said: Duration, actual: Duration) {
        let mut state = self.state();
        state.lifetime = Lifetime { said, actual };
        state.refusal = None;
    }

    /// Refuses every request from now on with an error of Entra ID's numbers, such as 7000222 for an expired secret.
    pub fn refuse(&self, error: u32) {
        self.state().refusal = Some(error);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(request: &Request, state: &mut State) -> Reply {
    let tenant = request.target.strip_prefix('/').and_then(|rest| rest.strip_suffix("/oauth2/v2.0/token"));
    let (Some(tenant), "POST") = (tenant, request.method.as_str()) else {
        return refusal(404, 90_002);
    };
    let Some(grant) = grant(tenant, &Form::parse(&request.body)) else {
        return refusal(400, 900_144);
    };
    let token = state.lifetime.token(&grant.client, SystemTime::now());
    state.grants.push(grant);
    if let Some(error) = state.refusal {
        return refusal(401, error);
    }
    let seconds = state.lifetime.said.as_secs();
    let body = json!({
        "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token,
    });
    Reply { status: 200, body }
}

fn grant(tenant: &str, form: &Form) -> Option<Grant> {
    if form.get("grant_type") != Some("client_credentials") {
        return None;
    }
    let owned = |name| form.get(name).map(str::to_owned);
    let proof = match form.get("client_assertion_type") {
        None => Proof::Secret(owned("client_secret")?),
        Some(ASSERTION_TYPE) => Proof::Assertion(Assertion(owned("client_assertion")?)),
        Some(_) => return None,
    };
    Some(Grant { tenant: tenant.to_owned(), client: owned("client_id")?, scope: owned("scope")?, proof })
}

fn refusal(status: u16, error: u32) -> Reply {
    let description =
        format!("AADSTS{error}: The request was refused, as the test wanted or since it is malformed.");
    let body = json!({ "error": "invalid_client", "error_description": description, "error_codes": [error] });
    Reply { status, body }
}
