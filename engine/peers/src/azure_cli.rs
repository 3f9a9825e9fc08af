//! A stand-in for the Azure CLI: a script `az` that prints tokens, for a directory that comes first in `PATH`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::json;

use crate::token::{SCOPE, seconds};

/// Writes a script `az` which, asked for a token for storage, prints this one, and fails with anything else.
///
/// # Panics
/// If it cannot be written, and if the time is before 1970.
pub fn write_az(directory: &Path, token: &str, expiry: SystemTime) {
    let expires = Timestamp::try_from(expiry).expect("the time is within the years 0 to 9999");
    let answer = json!({
        "accessToken": token,
        "expiresOn": expires.strftime("%Y-%m-%d %H:%M:%S.000000").to_string(),
        "expires_on": seconds(expiry),
        "subscription": "00000000-0000-0000-0000-000000000000",
        "tenant": "00000000-0000-0000-0000-000000000000",
        "tokenType": "Bearer",
    });
    write_script(
        directory,
        &format!(
            "case \"$*\" in\n  'account get-access-token -o json --scope {SCOPE}'*) ;;\n  \
             *) echo \"az: not understood: $*\" >&2; exit 2 ;;\nesac\ncat <<'END'\n{answer}\nEND\n"
        ),
    );
}

/// Writes a script `az` that fails as the Azure CLI does when nobody is logged in.
///
/// # Panics
/// If it cannot be written.
pub fn write_az_without_login(directory: &Path) {
    write_script(directory, "echo \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n");
}

/// A file of another name is renamed, so that a script that runs is read to its end.
fn write_script(directory: &Path, body: &str) {
    let (file, new) = (directory.join("az"), directory.join("az.new"));
    let written = fs::write(&new, format!("#!/bin/sh\n{body}"))
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&new, &file));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
}
