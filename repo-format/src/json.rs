//! What the two JSON objects share: members that are exactly told, and byte strings in hexadecimal.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::error::FormatError;
use crate::frame::check_limit;
use crate::ids::parse_hex;

/// Parses a JSON object of a format that is known, and of no other type than `keepstone`.
pub(crate) fn parse_object<T: DeserializeOwned>(
    bytes: &[u8],
    keepstone: &str,
    len_max: usize,
) -> Result<T, FormatError> {
    check_limit("JSON length", bytes.len() as u64, len_max)?;
    // A newer format may have other members, so its number is looked for first.
    let head: Object<Head> = serde_json::from_slice(bytes)?;
    if head.0.keepstone != keepstone {
        return Err(FormatError::BadMagic);
    }
    if head.0.format != 0 {
        return Err(FormatError::UnsupportedVersion { found: head.0.format });
    }
    let object: Object<T> = serde_json::from_slice(bytes)?;
    Ok(object.0)
}

#[derive(serde::Deserialize)]
struct Head {
    keepstone: String,
    format: u64,
}

/// A struct that is read from a JSON object only: serde would take an array of its members as well.
#[derive(serde::Serialize)]
#[serde(transparent)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// Bytes that stand in JSON as lower-case hexadecimal digits.
#[derive(Clone, Copy)]
pub(crate) struct Hex<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format_args!("expected {N} bytes as lower-case hexadecimal digits"))
        })
    }
}

/// Renders a JSON object as it is stored: indented, for whoever looks at it, with a newline at its end.
pub(crate) fn render_object<T: Serialize>(object: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(object).expect("numbers and text can be rendered");
    bytes.push(b'\n');
    bytes
}
