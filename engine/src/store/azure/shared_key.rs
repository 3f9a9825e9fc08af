//! What an account key signs.
//!
//! Source: Microsoft, "Authorize with Shared Key", Blob service, version 2015-02-21 and later.

use super::failure::header;
use super::place::SECONDARY;
use aws_lc_rs::hmac;
use azure_core::http::Request;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The headers that are signed by their place, in this order, between the method and those of Microsoft's own.
const PLACES: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// The value of `Authorization` for a request that has its `x-ms-date`.
pub(super) fn authorization(request: &Request, account: &str, key: &[u8]) -> String {
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text(request, account).as_bytes());
    format!("SharedKey {account}:{}", BASE64_STANDARD.encode(signature))
}

/// The string to sign.
fn text(request: &Request, account: &str) -> String {
    let mut text = format!("{}\n", request.method().as_str());
    for name in PLACES {
        match header(request.headers(), name) {
            // An empty body is signed as no length.
            Some("0") if name == "content-length" => {}
            Some(value) => text += value,
            None => {}
        }
        text.push('\n');
    }
    let own: BTreeMap<&str, &str> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().trim()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    for (name, value) in own {
        text.extend([name, ":", value, "\n"]);
    }
    text.extend(["/", account]);
    text += &resource(request.url().path(), account);
    // As ordered by name; a name that comes several times has its values in one line.
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.url().query_pairs() {
        parameters.entry(name.to_ascii_lowercase()).or_default().push(value.into_owned());
    }
    for (name, mut values) in parameters {
        values.sort_unstable();
        text.extend(["\n", &name, ":", &values.join(",")]);
    }
    text
}

/// The path, in which an account's secondary endpoint is signed as its primary one.
fn resource<'p>(path: &'p str, account: &str) -> Cow<'p, str> {
    let secondary = path.strip_prefix('/').and_then(|path| path.strip_prefix(account));
    match secondary.and_then(|path| path.strip_prefix(SECONDARY)) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/{account}{rest}").into(),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::http::{Method, Url};

    #[test]
    fn a_secondary_endpoint_is_signed_as_the_primary_one() {
        for (path, expected) in [
            ("/account1-secondary/backups/d", "/account1/backups/d"),
            ("/account1-secondary", "/account1"),
            ("/account1/backups", "/account1/backups"),
            ("/account12-secondary/d", "/account12-secondary/d"),
            ("/account1-secondary-2/d", "/account1-secondary-2/d"),
            ("/backups/d", "/backups/d"),
        ] {
            assert_eq!(resource(path, "account1"), expected);
        }
    }

    #[test]
    fn what_is_signed_has_the_documented_form() {
        let url = "http://127.0.0.1:1/account1/backups/d%2Fw?comp=list&Prefix=a%2Fb&maxresults=5";
        let mut request = Request::new(Url::parse(url).unwrap(), Method::Put);
        for (name, value) in [
            ("content-length", "0"),
            ("if-none-match", "*"),
            ("x-ms-version", "2026-04-06"),
            ("x-ms-date", "Sun, 22 Nov 2026 10:00:00 GMT"),
        ] {
            request.insert_header(name, value);
        }
        let expected = "PUT\n\n\n\n\n\n\n\n\n*\n\n\nx-ms-date:Sun, 22 Nov 2026 10:00:00 GMT\nx-ms-version:2026-04-06\n\
            /account1/account1/backups/d%2Fw\ncomp:list\nmaxresults:5\nprefix:a/b";
        assert_eq!(text(&request, "account1"), expected);
        request.insert_header("content-length", "12");
        assert!(text(&request, "account1").starts_with("PUT\n\n\n12\n\n"));
        // By Python's hmac module.
        let expected = "SharedKey account1:jZYQDvGzVYzIjDZ0Yr9czAVHnB0YS7gLbnVyyEACGs8=";
        assert_eq!(authorization(&request, "account1", b"key"), expected);
    }
}
