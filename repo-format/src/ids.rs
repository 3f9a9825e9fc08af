//! Ids and short names (SPEC section 2).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::NameError;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                parse_hex(text)
                    .map(Self)
                    .ok_or(NameError { what: $what, rule: concat!($len, " bytes as lower-case hexadecimal digits") })
            }
        }
    };
}

id_type!(
    /// The keyed hash of a payload: what a chunk, a page or a node is known by. Written as 64 hex digits.
    PayloadId, 32, "a payload id"
);
id_type!(
    /// The id of a repository. Written as 32 hex digits.
    RepositoryId, 16, "a repository id"
);
id_type!(
    /// The id of a session, and of the snapshot that it became. Written as 32 hex digits.
    SessionId, 16, "a session id"
);
id_type!(
    /// The id of a lineage: of one promotion of one copy of a repository. Written as 32 hex digits.
    LineageId, 16, "a lineage id"
);
id_type!(
    /// What stands for a VM's name in the names of blobs. Written as 32 hex digits.
    VmTag, 16, "a VM tag"
);

/// The payload id of a chunk.
pub type ChunkId = PayloadId;

/// Reads exactly `N` bytes of lower-case hexadecimal digits.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (hex_digit(*high)? << 4) | hex_digit(*low)?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.checked_sub(b'a')?.checked_add(10),
        _ => None,
    }
}

macro_rules! label_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a name of 1 to 63 characters of `a-z 0-9 -` that begins with a letter or digit.
            ///
            /// # Errors
            /// Any other text.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if is_label(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError {
                        what: $what,
                        rule: "1 to 63 characters of a-z, 0-9 and -, beginning with a letter or digit",
                    })
                }
            }

            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

label_type!(
    /// The name of a writer: a backup host, or a pruner.
    WriterId, "the name of a writer"
);
label_type!(
    /// The name of a key slot.
    SlotName, "the name of a key slot"
);
label_type!(
    /// The name by which a repository knows one of its replicas.
    ReplicaName, "the name of a replica"
);

fn is_label(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().next().is_some_and(|first| first != b'-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Checks the name of a VM: 1 to 255 bytes without control characters (NAME-4).
///
/// # Errors
/// Any other text.
pub fn check_vm_name(text: &str) -> Result<(), NameError> {
    check_text(
        text,
        255,
        "",
        NameError { what: "the name of a VM", rule: "1 to 255 bytes without control characters" },
    )
}

/// Checks the key of a disk: 1 to 128 bytes without control characters, `=`, `:` and `/` (NAME-4).
///
/// # Errors
/// Any other text.
pub fn check_disk_key(text: &str) -> Result<(), NameError> {
    let rule = "1 to 128 bytes without control characters, =, : and /";
    check_text(text, 128, "=:/", NameError { what: "the key of a disk", rule })
}

/// Checks a tag: 1 to 128 bytes without control characters (NAME-4).
///
/// # Errors
/// Any other text.
pub fn check_tag(text: &str) -> Result<(), NameError> {
    check_text(text, 128, "", NameError { what: "a tag", rule: "1 to 128 bytes without control characters" })
}

fn check_text(text: &str, max_len: usize, excluded: &str, error: NameError) -> Result<(), NameError> {
    let allowed = |c: char| !c.is_control() && !excluded.contains(c);
    if (1..=max_len).contains(&text.len()) && text.chars().all(allowed) { Ok(()) } else { Err(error) }
}
