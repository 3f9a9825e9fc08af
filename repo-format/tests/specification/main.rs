//! SPEC.md by machine: a vector for every rule and a rule for every vector, and examples that decode to what they say.
#![expect(clippy::unwrap_used, reason = "helpers are as much of a test as the functions that call them")]

mod decode;
mod examples;
mod fields;
mod generator;
mod keys;
mod packs;
mod rules;
mod vector;

use decode::{Failure, decode};
use repo_format::FormatError;
use std::fmt::Write;
use vector::Vector;

/// The kinds of failure that vectors tell, and what they stand for here.
fn kind_of(error: &FormatError) -> &'static str {
    match error {
        FormatError::Truncated => "truncated",
        FormatError::TrailingBytes => "trailing-bytes",
        FormatError::BadMagic => "bad-magic",
        FormatError::UnsupportedVersion { .. } => "unsupported-version",
        FormatError::BadFlags => "reserved-not-zero",
        FormatError::BadType { .. } => "bad-type",
        FormatError::LimitExceeded { .. } => "limit-exceeded",
        FormatError::OutOfOrder(_) => "out-of-order",
        FormatError::BadValue(_) => "bad-value",
        FormatError::BadText => "bad-text",
        FormatError::Name(_) => "bad-name",
        FormatError::BadTag => "bad-tag",
        FormatError::BadSignature => "bad-signature",
        FormatError::NoDataKey => "no-data-key",
        FormatError::WrongId => "wrong-id",
        FormatError::WrongKeyHash => "wrong-key-hash",
        FormatError::BadZstd => "bad-zstd",
        FormatError::MacMismatch => "mac-mismatch",
        FormatError::Json(_) => "bad-json",
        other => panic!("vectors have no kind of failure for {other:?}"),
    }
}

/// Kinds of failure that stand for several causes, so that vectors have the message as well.
const SHARED: [&str; 6] =
    ["bad-type", "limit-exceeded", "out-of-order", "bad-value", "bad-name", "unsupported-version"];

/// What a vector is found to be, in the words of its own lines; nothing if it is what it says.
fn difference(vector: &Vector) -> Option<String> {
    let found = match decode(vector) {
        Ok(fields) if vector.expect == "ok" => {
            // A vector without fields says that its bytes are taken, and no more.
            let same = vector.fields.is_empty() || fields == vector.fields;
            return (!same).then(|| format!("decodes to {fields:#?}"));
        }
        Ok(fields) => return Some(format!("is taken, as {fields:#?}")),
        Err(Failure::Ignored) => {
            return (vector.expect != "ignored").then(|| "is ignored".to_owned());
        }
        Err(Failure::Rejected(error)) => error,
    };
    let (kind, says) = (kind_of(&found), found.to_string());
    let same_text = match vector.get("says") {
        Some(text) => text == says,
        None => !SHARED.contains(&kind),
    };
    (vector.expect != kind || !same_text).then(|| format!("is {kind}: {says}"))
}

#[test]
fn every_vector_is_what_it_says() {
    let mut differences = String::new();
    let mut checked = 0;
    for vector in Vector::all().iter().filter(|vector| decode::is_decoded(&vector.object)) {
        checked += 1;
        if let Some(difference) = difference(vector) {
            writeln!(differences, "{} {difference}", vector.name).unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
    assert!(checked > 600, "{checked} vectors are few");
}
