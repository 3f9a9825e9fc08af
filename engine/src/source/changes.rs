//! Changed areas from a file, for images whose changes something else has tracked.

use super::{ChangedAreas, DiskSource, FullReason, Outside, ReadPart, Since};
use crate::Extent;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::io;
use std::marker::PhantomData;

/// Areas in a changes file: 160 MB in memory. Trackers have 64 KiB blocks or larger; this many of them, each
/// apart from the next, are over a TiB of changes in one file.
const AREAS_MAX: usize = 10_000_000;

/// Bytes of a change id: what the format stores has a length of 16 bits (SPEC DEC-3).
const CHANGE_ID_LEN_MAX: usize = 0xFFFF;

/// Why a changes file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangesError {
    /// It does not have the form of one.
    #[error("the changes file is not what it should be")]
    Json {
        /// Where, and why.
        source: serde_json::Error,
    },
    /// A change id is empty or too long.
    #[error("`{member}` of the changes file is {len} bytes long, allowed are 1 to {CHANGE_ID_LEN_MAX}")]
    BadChangeId {
        /// "changeId" or "since".
        member: &'static str,
        /// Its length.
        len: usize,
    },
    /// An area has no bytes.
    #[error("changed area {index} of the changes file, at byte {start}, is empty")]
    EmptyArea {
        /// The area's place in the list, from 0.
        index: usize,
        /// Its start.
        start: u64,
    },
    /// An area is not within the disk.
    #[error(
        "changed area {index} of the changes file, {length} bytes from byte {start}, is not within the disk's {disk_bytes}"
    )]
    OutsideDisk {
        /// The area's place in the list, from 0.
        index: usize,
        /// Its start.
        start: u64,
        /// Its length.
        length: u64,
        /// The disk's size in the file.
        disk_bytes: u64,
    },
    /// An area begins before the one before it has ended.
    #[error(
        "changed area {index} of the changes file begins at byte {start}, before the end of the one before it, {previous_end}"
    )]
    OutOfOrder {
        /// The area's place in the list, from 0.
        index: usize,
        /// Its start.
        start: u64,
        /// The first byte behind the area before it.
        previous_end: u64,
    },
    /// The file is about a disk of another size.
    #[error("the changes file is for a disk of {file_bytes} bytes, the disk has {disk_bytes}")]
    OtherSize {
        /// The disk's size in the file.
        file_bytes: u64,
        /// The disk's size.
        disk_bytes: u64,
    },
}

/// A changes file: the areas of a disk that may have changed since an earlier point.
///
/// The JSON object `{"diskSize": n, "changeId": "now", "since": "then" or null, "changedArea": [{"start": n,
/// "length": n}, ...]}` with exactly these members; the areas are sorted, disjoint, not empty and on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesFile {
    disk_size: u64,
    change_id: String,
    since: Option<String>,
    areas: Vec<Extent>,
}

/// The JSON form, of which only the syntax has been checked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Unchecked {
    disk_size: u64,
    change_id: String,
    // With a function of its own the member cannot be left out: forgetting it is not the same as null.
    #[serde(deserialize_with = "Deserialize::deserialize")]
    since: Option<String>,
    #[serde(deserialize_with = "limited_areas")]
    changed_area: Vec<Area>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    start: u64,
    length: u64,
}

impl ChangesFile {
    /// Reads a changes file.
    ///
    /// # Errors
    /// A [`ChangesError`] of any kind but [`ChangesError::OtherSize`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ChangesError> {
        let Object(file) = serde_json::from_slice(bytes).map_err(|source| ChangesError::Json { source })?;
        let Unchecked { disk_size, change_id, since, changed_area } = file;
        check_change_id("changeId", &change_id)?;
        since.as_deref().map_or(Ok(()), |since| check_change_id("since", since))?;
        let mut previous_end = 0;
        let mut areas = Vec::with_capacity(changed_area.len());
        for (index, Area { start, length }) in changed_area.into_iter().enumerate() {
            let end = start.checked_add(length).filter(|end| *end <= disk_size);
            let end = end.ok_or(ChangesError::OutsideDisk { index, start, length, disk_bytes: disk_size })?;
            let area = Extent::between(start, end).ok_or(ChangesError::EmptyArea { index, start })?;
            if start < previous_end {
                return Err(ChangesError::OutOfOrder { index, start, previous_end });
            }
            previous_end = end;
            areas.push(area);
        }
        Ok(Self { disk_size, change_id, since, areas })
    }

    /// The size of the disk that the file is about, in bytes.
    #[must_use]
    pub fn disk_size(&self) -> u64 {
        self.disk_size
    }

    /// The change id of the disk as it is now.
    #[must_use]
    pub fn change_id(&self) -> &str {
        &self.change_id
    }

    /// The change id that the changes count from.
    #[must_use]
    pub fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// The areas that may have changed, sorted and disjoint.
    #[must_use]
    pub fn areas(&self) -> &[Extent] {
        &self.areas
    }
}

fn check_change_id(member: &'static str, id: &str) -> Result<(), ChangesError> {
    if (1..=CHANGE_ID_LEN_MAX).contains(&id.len()) {
        return Ok(());
    }
    Err(ChangesError::BadChangeId { member, len: id.len() })
}

/// Reads the list of areas and stops as soon as it is too long.
fn limited_areas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Area>, D::Error> {
    deserializer.deserialize_seq(Areas { max: AREAS_MAX })
}

struct Areas {
    max: usize,
}

impl<'de> Visitor<'de> for Areas {
    type Value = Vec<Area>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} areas", self.max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Area>, A::Error> {
        let mut areas = Vec::new();
        while let Some(area) = list.next_element()? {
            if areas.len() == self.max {
                return Err(A::Error::invalid_length(self.max + 1, &self));
            }
            let Object(area) = area;
            areas.push(area);
        }
        Ok(areas)
    }
}

/// A value in the form of a JSON object. Without this, a list of the members' values would be taken as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// A source whose changes are those of a changes file.
///
/// They count only for the parent that recorded the file's `since`. For any other the source's allocated areas
/// are given, with the reason; the file's change id is passed on in both cases.
pub struct WithChanges {
    source: Box<dyn DiskSource>,
    changes: ChangesFile,
}

impl WithChanges {
    /// Puts the two together.
    ///
    /// # Errors
    /// [`ChangesError::OtherSize`].
    pub fn new(source: Box<dyn DiskSource>, changes: ChangesFile) -> Result<Self, ChangesError> {
        let (file_bytes, disk_bytes) = (changes.disk_size, source.size());
        if file_bytes != disk_bytes {
            return Err(ChangesError::OtherSize { file_bytes, disk_bytes });
        }
        Ok(Self { source, changes })
    }
}

impl DiskSource for WithChanges {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let since = since.and_then(|since| since.change_id);
        let change_id = Some(self.changes.change_id.clone());
        if since.is_some() && since == self.changes.since() {
            let areas = self.changes.areas.clone();
            return Ok(ChangedAreas { areas, outside: Outside::Unchanged, change_id });
        }
        let counted_from = &self.changes.since;
        let full_reason = (since.is_some() || counted_from.is_some()).then(|| FullReason::OtherSince {
            parent: since.map(ToOwned::to_owned),
            since: counted_from.clone(),
        });
        let allocated = self.source.changed_areas(None)?;
        Ok(ChangedAreas { areas: allocated.areas, outside: Outside::Zero { full_reason }, change_id })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        self.source.read(parts)
    }

    fn check_unchanged(&self) -> io::Result<()> {
        self.source.check_unchanged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::RawImage;
    use std::error::Error;

    const EXAMPLE: &str = r#"{"diskSize": 1000, "changeId": "52/7", "since": "52/6",
        "changedArea": [{"start": 0, "length": 10}, {"start": 10, "length": 5}, {"start": 900, "length": 100}]}"#;

    fn extent(start: u64, length: u64) -> Extent {
        Extent { start, length }
    }

    /// A file with the given areas, in a disk of 1000 bytes.
    fn with_areas(areas: &str) -> Result<ChangesFile, ChangesError> {
        let text =
            format!(r#"{{"diskSize": 1000, "changeId": "b", "since": null, "changedArea": [{areas}]}}"#);
        ChangesFile::parse(text.as_bytes())
    }

    fn source(len: usize) -> Box<dyn DiskSource> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), vec![1; len]).expect("the image is written");
        Box::new(RawImage::open(file.path()).expect("the image opens"))
    }

    #[test]
    fn the_documented_form_is_read() {
        let file = ChangesFile::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((file.disk_size(), file.change_id(), file.since()), (1000, "52/7", Some("52/6")));
        assert_eq!(file.areas(), [extent(0, 10), extent(10, 5), extent(900, 100)]);
        assert_eq!(with_areas("").unwrap().since(), None);
    }

    #[test]
    fn other_forms_are_refused() {
        let cases = [
            ("", "EOF while parsing a value at line 1 column 0"),
            (r#"[1, "b", null, []]"#, "invalid type: sequence, expected an object"),
            (r#"{"changedArea": [[0, 1]]}"#, "invalid type: sequence, expected an object"),
            (r#"{"diskSize": 1, "changeId": "b", "changedArea": []}"#, "missing field `since`"),
            (r#"{"diskSize": 1, "since": null, "changedArea": []}"#, "missing field `changeId`"),
            (r#"{"diskSize": 1, "changeId": "b", "since": null}"#, "missing field `changedArea`"),
            (r#"{"changeId": "b", "since": null, "changedArea": []}"#, "missing field `diskSize`"),
            (r#"{"diskSize": 1, "diskSize": 1}"#, "duplicate field `diskSize`"),
            (r#"{"startOffset": 0}"#, "unknown field `startOffset`"),
            (r#"{"diskSize": -1}"#, "invalid value: integer `-1`"),
            (r#"{"diskSize": 1.5}"#, "invalid type: floating point"),
            (
                r#"{"diskSize": 1, "changeId": "b", "since": null, "changedArea": []} x"#,
                "trailing characters",
            ),
            (r#"{"changedArea": [{"start": 0, "length": 1, "end": 1}]}"#, "unknown field `end`"),
            (r#"{"changedArea": [{"start": 0}]}"#, "missing field `length`"),
        ];
        for (text, expected) in cases {
            let error = ChangesFile::parse(text.as_bytes()).unwrap_err();
            let why = error.source().expect("JSON errors have a source").to_string();
            assert!(why.contains(expected), "{text}: {why}");
        }
    }

    #[test]
    fn bad_areas_are_named() {
        let message = |areas| with_areas(areas).unwrap_err().to_string();
        assert_eq!(
            message(r#"{"start": 5, "length": 0}"#),
            "changed area 0 of the changes file, at byte 5, is empty"
        );
        assert_eq!(
            message(r#"{"start": 0, "length": 10}, {"start": 9, "length": 1}"#),
            "changed area 1 of the changes file begins at byte 9, before the end of the one before it, 10"
        );
        assert_eq!(
            message(r#"{"start": 999, "length": 2}"#),
            "changed area 0 of the changes file, 2 bytes from byte 999, is not within the disk's 1000"
        );
        assert!(matches!(
            with_areas(r#"{"start": 18446744073709551615, "length": 18446744073709551615}"#),
            Err(ChangesError::OutsideDisk { index: 0, start: u64::MAX, length: u64::MAX, disk_bytes: 1000 })
        ));
    }

    #[test]
    fn empty_change_ids_are_refused() {
        let text = r#"{"diskSize": 1, "changeId": "b", "since": "", "changedArea": []}"#;
        assert!(matches!(
            ChangesFile::parse(text.as_bytes()),
            Err(ChangesError::BadChangeId { member: "since", len: 0 })
        ));
    }

    #[test]
    fn too_many_areas_are_refused_at_the_first_too_many() {
        let areas = |max, text: &str| {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            (&mut deserializer).deserialize_seq(Areas { max }).map(|areas| areas.len())
        };
        let two = r#"[{"start": 0, "length": 1}, {"start": 1, "length": 1}]"#;
        assert_eq!(areas(2, two).unwrap(), 2);
        let error = areas(1, two).unwrap_err().to_string();
        assert!(error.contains("invalid length 2, expected a list of at most 1 areas"), "{error}");
    }

    #[test]
    fn changes_count_from_their_own_point_only() {
        let changes = ChangesFile::parse(EXAMPLE.as_bytes()).unwrap();
        let disk = WithChanges::new(source(1000), changes.clone()).unwrap();
        let change_id = Some("52/7".to_owned());
        let full = |full_reason| ChangedAreas {
            areas: vec![extent(0, 1000)],
            outside: Outside::Zero { full_reason },
            change_id: change_id.clone(),
        };
        let since = Since { change_id: Some("52/6"), size: 1000, properties: &[] };
        assert_eq!(
            disk.changed_areas(Some(&since)).unwrap(),
            ChangedAreas {
                areas: changes.areas().to_vec(),
                outside: Outside::Unchanged,
                change_id: change_id.clone()
            }
        );
        for parent in [None, Some("52/5")] {
            let since = Since { change_id: parent, size: 1000, properties: &[] };
            let reason = FullReason::OtherSince {
                parent: parent.map(ToOwned::to_owned),
                since: Some("52/6".to_owned()),
            };
            assert_eq!(disk.changed_areas(Some(&since)).unwrap(), full(Some(reason)));
        }
    }

    #[test]
    fn changes_since_nothing_are_no_changes() {
        let disk = WithChanges::new(source(1000), with_areas("").unwrap()).unwrap();
        let full = disk.changed_areas(None).unwrap();
        assert_eq!((full.areas, full.change_id), (vec![extent(0, 1000)], Some("b".to_owned())));
    }

    #[test]
    fn a_file_for_a_disk_of_another_size_is_refused() {
        let changes = ChangesFile::parse(EXAMPLE.as_bytes()).unwrap();
        assert!(matches!(
            WithChanges::new(source(999), changes),
            Err(ChangesError::OtherSize { file_bytes: 1000, disk_bytes: 999 })
        ));
    }
}
