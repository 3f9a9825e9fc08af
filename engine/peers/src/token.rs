//! Access tokens for Azure Storage, unsigned: Azurite looks at what a token says, not at who signed it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;

/// What the tokens are for, as IMDS is asked for it.
pub(crate) const RESOURCE: &str = "https://storage.azure.com";

/// The scope that clients ask Entra ID and the Azure CLI for.
pub const SCOPE: &str = "https://storage.azure.com/.default";

/// Returns a token that says that `client` may use Azure Storage within a range of times, in whole seconds. No two are
/// equal.
///
/// # Panics
/// If a time is before 1970.
#[must_use]
pub fn access_token(client: &str, valid: Range<SystemTime>) -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let claims = json!({
        "aud": RESOURCE,
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
        "appid": client,
        "iat": seconds(valid.start),
        "nbf": seconds(valid.start),
        "exp": seconds(valid.end),
        "uti": MADE.fetch_add(1, Ordering::Relaxed).to_string(),
    });
    let encode = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", encode(json!({"alg": "none", "typ": "JWT"})), encode(claims))
}

/// Returns whole seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).expect("the time is after 1970").as_secs()
}

/// How long tokens are valid: what their issuer says, and what is in the token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    pub(crate) said: Duration,
    pub(crate) actual: Duration,
}

impl Lifetime {
    /// What Entra ID gives by default.
    pub(crate) const HOUR: Self = Self { said: Duration::from_hours(1), actual: Duration::from_hours(1) };

    /// Returns a token that begins a second ago, so that without any lifetime it has ended.
    pub(crate) fn token(self, client: &str, now: SystemTime) -> String {
        let start = now - Duration::from_secs(1);
        access_token(client, start..start + self.actual)
    }
}
