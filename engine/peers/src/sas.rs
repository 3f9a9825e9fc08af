//! Storage accounts, and shared access signatures (SAS) made with their keys.
//!
//! Microsoft, "Create a service SAS" and "Create an account SAS", for version 2020-12-06.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// The version whose strings to sign are written here. Later ones add fields that no test needs.
const VERSION: &str = "2020-12-06";

/// A storage account of the tests. Its key opens nothing but servers that tests start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: &'static str,
    /// The key, in Base64.
    pub key: &'static str,
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Account").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Account {
    /// Returns a SAS for one container and its blobs, without a leading `?`.
    ///
    /// `permissions` are letters in the order of Microsoft's documentation, such as `rcl`.
    #[must_use]
    pub fn container_sas(&self, container: &str, permissions: &str, expiry: SystemTime) -> String {
        self.service_sas(container, permissions, "", &iso(expiry))
    }

    /// Like [`Account::container_sas`], and not valid before `start`.
    #[must_use]
    pub fn container_sas_from(
        &self,
        container: &str,
        permissions: &str,
        start: SystemTime,
        expiry: SystemTime,
    ) -> String {
        self.service_sas(container, permissions, &iso(start), &iso(expiry))
    }

    /// Returns a SAS with all rights to every container and blob of the account, without a leading `?`.
    #[must_use]
    pub fn account_sas(&self, expiry: SystemTime) -> String {
        let (permissions, services, kinds, expiry) = ("rwdlac", "b", "sco", iso(expiry));
        // The empty fields are start, addresses, protocol, encryption scope, and what ends the last line.
        let fields = [self.name, permissions, services, kinds, "", &expiry, "", "", VERSION, "", ""];
        let parameters =
            [("sv", VERSION), ("ss", services), ("srt", kinds), ("sp", permissions), ("se", &expiry)];
        self.signed(&parameters, &fields)
    }

    fn service_sas(&self, container: &str, permissions: &str, start: &str, expiry: &str) -> String {
        let resource = format!("/blob/{}/{container}", self.name);
        // The empty fields are a stored policy, addresses, protocol; a snapshot, an encryption scope, and five
        // headers that answers would have.
        let fields =
            [permissions, start, expiry, &resource, "", "", "", VERSION, "c", "", "", "", "", "", "", ""];
        let parameters = [("sv", VERSION), ("sr", "c"), ("sp", permissions), ("st", start), ("se", expiry)];
        self.signed(&parameters, &fields)
    }

    /// Returns a query of the parameters that are not empty, with the signature of the fields.
    fn signed(&self, parameters: &[(&str, &str)], fields: &[&str]) -> String {
        let key = BASE64_STANDARD.decode(self.key).expect("the key is Base64");
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), fields.join("\n").as_bytes());
        let signature = BASE64_STANDARD.encode(signature);

        let sig = ("sig", signature.as_str());
        let pairs = parameters.iter().chain([&sig]).filter(|pair| !pair.1.is_empty());
        let pairs =
            pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// Returns a time in UTC, in whole seconds, as SAS have it.
fn iso(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).expect("the time is within the years 0 to 9999");
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
