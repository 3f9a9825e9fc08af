//! Exports of NBD servers, as users name them.

use crate::exit::Usage;
use keepstone_engine::nbd::NbdPlace;

/// Reads the name of an export; nothing if it is the name of something else.
///
/// # Errors
/// What begins like one, and is none.
pub(crate) fn export(text: &str) -> Result<Option<NbdPlace>, Usage> {
    NbdPlace::parse(text).transpose().map_err(|error| {
        Usage::new(format!("the name of the NBD export cannot be used: {error}"))
            .hint("as in nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH, with nbds for TLS")
    })
}
