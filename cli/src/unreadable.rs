//! Decisions, tombstones and pins that cannot be read: what they say is left out of whatever is done.

use crate::console::warn;
use keepstone_engine::snapshots::UnreadableBlob;
use std::error::Error as _;

/// Tells what is left out. `place` says where it is, if that is not the repository of the command.
pub(crate) fn warn_of<'b>(unreadable: impl IntoIterator<Item = &'b UnreadableBlob>, place: &str) {
    for (name, error) in unreadable {
        let why = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        warn(&format!("{error}{why}; what {name}{place} says is left out"));
    }
}
