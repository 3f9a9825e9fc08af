//! What is in the repository and is no blob.

use super::findings::Findings;
use super::report::FindingKind;
use crate::store::Foreign;
use repo_format::BlobName;

/// What can follow the directories of the names of SPEC section 2, with zeros for ids and numbers.
const ENDINGS: [&str; 9] = [
    "a",
    "00000000000000000000000000000000",
    "a/00000000000000000000000000000000",
    "00000000000000000000000000000000-00000000",
    "a/00000000000000000000000000000000-00000000",
    "00000000000000000000000000000000/00000000000000000000000000000000",
    "00000000-00000000000000000000000000000000",
    "a/00000000-00000000000000000000000000000000",
    "00000000000000000000000000000000/a/00000000-00000000000000000000000000000000",
];
/// The same for generations.
const GENERATION_ENDINGS: [&str; 2] = ["sealed", "00000000/sealed"];

/// Notes what is no blob, but for empty directories that blobs may have been in or will be in.
pub(super) fn check(findings: &Findings, foreign: &[Foreign]) {
    for Foreign { name, what } in foreign.iter().filter(|foreign| !is_of_the_format(&foreign.name)) {
        findings.note_of(FindingKind::UnknownName, name, || {
            format!("it is {what} and no blob; it was not followed or read")
        });
    }
}

/// Whether it is a directory that blobs with a meaning can be in.
fn is_of_the_format(name: &str) -> bool {
    let has_meaning =
        |ending: &&str| BlobName::parse(&format!("{name}{ending}")).is_some_and(|blob| blob.kind().is_some());
    name.ends_with('/') && ENDINGS.iter().chain(&GENERATION_ENDINGS).any(has_meaning)
}
