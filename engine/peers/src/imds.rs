//! A stand-in for the service that tells a virtual machine in Azure what its managed identities are (IMDS).
//!
//! That has the address 169.254.169.254. Clients that take a proxy from the environment reach it here: it is the proxy
//! for that address, and for no other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::server::{Form, Reply, Request, Server};
use crate::token::{Lifetime, RESOURCE, seconds};

const TOKENS: &str = "http://169.254.169.254/metadata/identity/oauth2/token?";

/// The application that tokens of a system-assigned identity name.
pub const SYSTEM_CLIENT: &str = "5e57e000-0000-0000-0000-000000000000";

/// A managed identity of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The one that the machine has as long as it exists.
    SystemAssigned,
    /// One that exists of its own, by its client id.
    UserAssigned(String),
}

/// A running stand-in for IMDS, until it is dropped.
#[derive(Debug)]
pub struct Imds {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    asked: Vec<Identity>,
    lifetime: Lifetime,
}

impl Imds {
    /// Starts one for a machine with these identities. Tokens are valid for an hour.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start(identities: &[Identity]) -> Self {
        let state = Arc::new(Mutex::new(State { asked: Vec::new(), lifetime: Lifetime::HOUR }));
        let (answering, identities) = (Arc::clone(&state), identities.to_vec());
        let server = Server::start(None, move |request| {
            answer(request, &identities, &mut answering.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Self { server, state }
    }

    /// Returns its URL, for `HTTP_PROXY`.
    #[must_use]
    pub fn proxy(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Returns which identities tokens were asked for so far, in order, whether the machine has them or not.
    #[must_use]
    pub fn asked(&self) -> Vec<Identity> {
        self.state().asked.clone()
    }

    /// Gives tokens from now on that say to be valid for one duration, and are for another:
    /// [`grant_for`](crate::entra::Entra::grant_for).
    pub fn grant_for(&self, said: Duration, actual: Duration) {
        self.state().lifetime = Lifetime { said, actual };
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(request: &Request, identities: &[Identity], state: &mut State) -> Reply {
    let Some(query) = request.target.strip_prefix(TOKENS) else {
        return refusal(502, "this proxy leads to the tokens of managed identities only");
    };
    let query = Form::parse(query);
    if request.method != "GET" || request.header("metadata") != Some("true") {
        return refusal(400, "the header Metadata is missing");
    }
    if query.get("api-version").is_none() || query.get("resource").map(without_slash) != Some(RESOURCE) {
        return refusal(400, "the API's version is missing, or the resource is unknown");
    }
    let identity = match query.get("client_id") {
        Some(client) => Identity::UserAssigned(client.to_owned()),
        None => Identity::SystemAssigned,
    };
    state.asked.push(identity.clone());
    if !identities.contains(&identity) {
        return refusal(400, "Identity not found");
    }

    let client = match &identity {
        Identity::SystemAssigned => SYSTEM_CLIENT,
        Identity::UserAssigned(client) => client,
    };
    let (now, lifetime) = (SystemTime::now(), state.lifetime);
    let body = json!({
        "access_token": lifetime.token(client, now),
        "client_id": client,
        "expires_in": lifetime.said.as_secs().to_string(),
        "expires_on": seconds(now + lifetime.said).to_string(),
        "not_before": seconds(now).to_string(),
        "resource": RESOURCE,
        "token_type": "Bearer",
    });
    Reply { status: 200, body }
}

fn without_slash(resource: &str) -> &str {
    resource.trim_end_matches('/')
}

fn refusal(status: u16, description: &str) -> Reply {
    Reply { status, body: json!({ "error": "invalid_request", "error_description": description }) }
}
