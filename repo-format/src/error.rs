//! Why bytes are not what they should be.

use std::sync::Arc;

/// The reason for which an object, or a part of one, is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes end before the last field does.
    #[error("the bytes end too early")]
    Truncated,
    /// Bytes are left over after the last field.
    #[error("bytes are left over")]
    TrailingBytes,
    /// The first bytes are not those of such an object.
    #[error("the magic bytes are missing")]
    BadMagic,
    /// The format version is not one that this program knows; a higher one calls for a newer program.
    #[error("format version {found} is not known to this program; a higher one needs a newer Keepstone")]
    UnsupportedVersion {
        /// The version that the object declares.
        found: u64,
    },
    /// A reserved or flag field is not zero.
    #[error("a reserved field is not zero")]
    BadFlags,
    /// A type, kind or codec number has no meaning, or is not the one that is called for here.
    #[error("{what} {found} is unknown or out of place")]
    BadType {
        /// What the number is.
        what: &'static str,
        /// The number.
        found: u8,
    },
    /// A length or count is over its limit.
    #[error("{what} of {found} is over the limit of {limit}")]
    LimitExceeded {
        /// What is too long or too many.
        what: &'static str,
        /// The declared value.
        found: u64,
        /// The highest value that is allowed.
        limit: u64,
    },
    /// A list is not in strictly ascending order.
    #[error("{0} are not in strictly ascending order")]
    OutOfOrder(&'static str),
    /// A field has a value that its rule excludes.
    #[error("{0}")]
    BadValue(&'static str),
    /// Text is not UTF-8.
    #[error("text is not UTF-8")]
    BadText,
    /// A name has a form that is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Authentication failed: a wrong key, or changed bytes.
    #[error("authentication failed")]
    BadTag,
    /// A payload is not the one that its id calls for.
    #[error("the payload does not match its id")]
    WrongId,
    /// An object that is authentic otherwise lacks the retention's signature, or has a wrong one. Whoever holds the
    /// key of an ordinary user can make such an object; it is to be ignored and reported.
    #[error("the signature of the retention key is missing or wrong")]
    BadSignature,
    /// The keys at hand do not reach what is inside disks.
    #[error("this needs the data key, which the key of an inventory slot does not give")]
    NoDataKey,
    /// The key hash does not belong to the content.
    #[error("the key hash does not match the content")]
    WrongKeyHash,
    /// A payload that should be one plain zstd frame is not.
    #[error("the zstd frame is not valid")]
    BadZstd,
    /// The config's MAC does not belong to its values: a wrong key, or a changed config.
    #[error("the message authentication code does not match")]
    MacMismatch,
    /// A JSON object is not well-formed or has not exactly the members that it should have.
    #[error("the JSON is not valid")]
    Json(#[source] JsonError),
}

/// What `serde_json` found wrong; equal if the message is.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct JsonError(Arc<serde_json::Error>);

impl PartialEq for JsonError {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for JsonError {}

impl From<serde_json::Error> for FormatError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(JsonError(Arc::new(error)))
    }
}

/// A name that does not have the form of SPEC section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct NameError {
    /// What was to be named.
    pub what: &'static str,
    /// The form that such a name has.
    pub rule: &'static str,
}
