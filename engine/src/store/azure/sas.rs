//! A shared access signature made with an account's key, that lets another service read one blob.
//!
//! Source: Microsoft, "Create a service SAS", version 2020-12-06 and later.

use aws_lc_rs::hmac;
use azure_core::time::OffsetDateTime;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// The version whose string to sign is written here: later ones add fields for what is not signed.
const VERSION: &str = "2020-12-06";

/// One blob, and how it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readable<'a> {
    pub(super) account: &'a str,
    pub(super) container: &'a str,
    /// Its whole name in the container, as it is without any encoding.
    pub(super) blob: &'a str,
    /// Whether the signature must not be used without TLS.
    pub(super) only_https: bool,
}

/// The name-value pairs of a signature that allows to read that blob until then, and nothing else.
pub(super) fn to_read(readable: &Readable<'_>, until: OffsetDateTime, key: &[u8]) -> Zeroizing<String> {
    let (expiry, protocol) = (iso(until), if readable.only_https { "https" } else { "https,http" });
    let text = text(readable, &expiry, protocol);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let signature = BASE64_STANDARD.encode(signature);
    let mut pairs = Zeroizing::new(String::with_capacity(256));
    for (name, value) in
        [("sv", VERSION), ("sr", "b"), ("sp", "r"), ("se", &expiry), ("spr", protocol), ("sig", &signature)]
    {
        let separator = if pairs.is_empty() { "" } else { "&" };
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        pairs.extend([separator, name, "="].into_iter().chain(value));
    }
    pairs
}

/// The string to sign.
fn text(readable: &Readable<'_>, expiry: &str, protocol: &str) -> String {
    let Readable { account, container, blob, .. } = readable;
    let resource = format!("/blob/{account}/{container}/{blob}");
    // The empty fields are the start, a stored policy and addresses; then a snapshot, an encryption scope, and five headers
    // that answers would have.
    ["r", "", expiry, &resource, "", "", protocol, VERSION, "b", "", "", "", "", "", "", ""].join("\n")
}

/// A time in whole seconds, as signatures have it.
fn iso(at: OffsetDateTime) -> String {
    let (date, month) = (at.date(), u8::from(at.month()));
    let [hour, minute, second] = [at.hour(), at.minute(), at.second()];
    format!("{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year(), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_has_the_documented_form() {
        let until = OffsetDateTime::from_unix_timestamp(1_795_514_523).expect("a time");
        let readable =
            Readable { account: "account1", container: "backups", blob: "p/d/w/1", only_https: true };
        let expected = "r\n\n2026-11-24T10:02:03Z\n/blob/account1/backups/p/d/w/1\n\n\nhttps\n2020-12-06\nb\n\n\n\n\n\n\n";
        assert_eq!(text(&readable, &iso(until), "https"), expected);
        // By Python's hmac module.
        let signature = "qHvPi8OFRB6v%2FTW19LVPzlYjLSPXVSTCZOQUebLDr4A%3D";
        let expected =
            format!("sv=2020%2D12%2D06&sr=b&sp=r&se=2026%2D11%2D24T10%3A02%3A03Z&spr=https&sig={signature}");
        assert_eq!(*to_read(&readable, until, b"key"), expected);
    }
}
