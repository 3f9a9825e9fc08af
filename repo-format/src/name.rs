//! The names of blobs (SPEC section 2).

use std::fmt;
use std::sync::Arc;

use crate::error::FormatError;
use crate::ids::{ReplicaName, SessionId, SlotName, VmTag, WriterId, parse_hex};

/// What the names of key slots begin with.
pub const PREFIX_KEYS: &str = "keys/";
/// What the names of intents begin with.
pub const PREFIX_INTENTS: &str = "s/";
/// What the names of data packs begin with.
pub const PREFIX_DATA: &str = "d/";
/// What the names of map packs begin with.
pub const PREFIX_MAP: &str = "m/";
/// What the names of indexes begin with.
pub const PREFIX_INDEX: &str = "i/";
/// What the names of decisions begin with.
pub const PREFIX_DECISIONS: &str = "r/";
/// What the names of tombstones begin with.
pub const PREFIX_TOMBSTONES: &str = "f/";
/// What the names of the pruner's generations begin with.
pub const PREFIX_GC: &str = "gc/";
/// What the names of repack records begin with.
pub const PREFIX_REPACK: &str = "k/";
/// What the names of pins begin with.
pub const PREFIX_PINS: &str = "p/";
/// What the names of objects begin with that tell what a place is.
pub const PREFIX_LINEAGE: &str = "lineage/";
/// What the names of objects begin with that tell what replicas there are, and what is confirmed at them.
pub const PREFIX_BARRIER: &str = "b/";

/// What is in a canary: a blob that says nothing but that listings show it.
pub const CANARY: &[u8] = b"keepstone canary\n";
/// The prefixes that have canaries, with a name in the middle of those that may follow: writers begin with letters
/// and digits, tags, sessions and generations with hexadecimal digits.
const CANARY_PREFIXES: [(&str, &str); 9] = [
    (PREFIX_INTENTS, "h_"),
    (PREFIX_DATA, "h_"),
    (PREFIX_MAP, "h_"),
    (PREFIX_INDEX, "h_"),
    (PREFIX_DECISIONS, "7_"),
    (PREFIX_TOMBSTONES, "7_"),
    (PREFIX_GC, "7_"),
    (PREFIX_REPACK, "7_"),
    (PREFIX_PINS, "7_"),
];
/// What the first and the last name under a prefix end with.
const CANARY_ENDS: [&str; 2] = ["-", "~"];

/// What a pack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PackKind {
    /// Chunks.
    Data = 1,
    /// Map pages and nodes.
    Map = 2,
}

impl PackKind {
    /// Reads the number that stands for a kind.
    ///
    /// # Errors
    /// Any number but 1 and 2.
    pub fn from_number(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Data),
            2 => Ok(Self::Map),
            found => Err(FormatError::BadType { what: "pack kind", found }),
        }
    }

    /// Returns what the names of packs of this kind begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Data => PREFIX_DATA,
            Self::Map => PREFIX_MAP,
        }
    }
}

/// The name of a pack, in its parts; ordered as pack tables are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName {
    /// What the pack holds.
    pub kind: PackKind,
    /// Who made it.
    pub writer: WriterId,
    /// The session that made it.
    pub session: SessionId,
    /// Its number within the session and kind, from 0.
    pub number: u32,
}

impl PackName {
    /// Returns the name of the pack's blob.
    #[must_use]
    pub fn blob(&self) -> BlobName {
        BlobName::format(format_args!("{self}"))
    }
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}-{:08x}", self.kind.prefix(), self.writer, self.session, self.number)
    }
}

/// The name of a decision, in its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionName {
    /// The VM that the session was for.
    pub vm: VmTag,
    /// The session's writer.
    pub writer: WriterId,
    /// The session's place among those of its VM.
    pub seq: u32,
    /// The session that is decided.
    pub session: SessionId,
}

impl DecisionName {
    /// Returns the name of the decision's blob.
    #[must_use]
    pub fn blob(&self) -> BlobName {
        BlobName::format(format_args!("{self}"))
    }

    /// Returns the decision whose blob has a name, if it is one's.
    #[must_use]
    pub fn of(blob: &BlobName) -> Option<Self> {
        match blob.kind() {
            Some(BlobKind::Decision(name)) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for DecisionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vm, writer, seq, session } = self;
        write!(f, "{PREFIX_DECISIONS}{vm}/{writer}/{seq:08x}-{session}")
    }
}

/// Returns what the names of a VM's decisions begin with.
#[must_use]
pub fn decisions_prefix(vm: VmTag) -> String {
    format!("{PREFIX_DECISIONS}{vm}/")
}

/// Returns what the names of a VM's tombstones begin with.
#[must_use]
pub fn tombstones_prefix(vm: VmTag) -> String {
    format!("{PREFIX_TOMBSTONES}{vm}/")
}

/// Returns what the names of a VM's pins begin with.
#[must_use]
pub fn pins_prefix(vm: VmTag) -> String {
    format!("{PREFIX_PINS}{vm}/")
}

/// Returns what the names of a replica's barrier objects begin with.
#[must_use]
pub fn barrier_prefix(replica: &ReplicaName) -> String {
    format!("{PREFIX_BARRIER}{replica}/")
}

/// Returns what the names of a writer's intents begin with.
#[must_use]
pub fn intents_prefix(writer: &WriterId) -> String {
    format!("{PREFIX_INTENTS}{writer}/")
}

/// Returns what the names of a session's indexes begin with.
#[must_use]
pub fn indexes_prefix(writer: &WriterId, session: SessionId) -> String {
    format!("{PREFIX_INDEX}{writer}/{session}-")
}

/// Returns what the names of a session's packs of one kind begin with.
#[must_use]
pub fn packs_prefix(kind: PackKind, writer: &WriterId, session: SessionId) -> String {
    format!("{}{writer}/{session}-", kind.prefix())
}

/// The name of a blob: 1 to 255 bytes, components of `a-z 0-9 . -` between slashes; those of canaries have a `_` or `~` as well.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName(Arc<str>);

/// What a blob is, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the parts of the names in SPEC section 2")]
pub enum BlobKind {
    /// The config.
    Config,
    /// A key slot.
    KeySlot(SlotName),
    /// An intent.
    Intent { writer: WriterId, session: SessionId },
    /// A data pack or a map pack.
    Pack(PackName),
    /// An index.
    Index { writer: WriterId, session: SessionId, number: u32 },
    /// A decision.
    Decision(DecisionName),
    /// A tombstone.
    Tombstone { vm: VmTag, session: SessionId },
    /// The condemned packs of a generation.
    Condemned(u32),
    /// The sessions that a generation waits for.
    Awaited(u32),
    /// The result of a generation.
    GcResult(u32),
    /// The seal of a generation.
    GenerationSeal(u32),
    /// A repack record.
    Repack(SessionId),
    /// A pin.
    Pin { vm: VmTag, session: SessionId, number: u32 },
    /// That a place is a replica.
    ReplicaMarker,
    /// What a promoted place is.
    Lineage(u32),
    /// What is told of a replica.
    Barrier { replica: ReplicaName, number: u32 },
    /// A canary.
    Canary,
}

impl BlobName {
    /// Takes a name that has the form of a blob's, whether or not SPEC section 2 gives it a meaning.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let component = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        };
        let has_form = text.len() <= 255 && text.split('/').all(component);
        (has_form || is_canary(text)).then(|| Self(text.into()))
    }

    fn format(text: fmt::Arguments<'_>) -> Self {
        Self(text.to_string().into())
    }

    /// Returns the name of the config.
    #[must_use]
    pub fn config() -> Self {
        Self("config".into())
    }

    /// Returns the name of a key slot.
    #[must_use]
    pub fn key_slot(slot: &SlotName) -> Self {
        Self::format(format_args!("{PREFIX_KEYS}{slot}"))
    }

    /// Returns the name of a session's intent.
    #[must_use]
    pub fn intent(writer: &WriterId, session: SessionId) -> Self {
        Self::format(format_args!("{PREFIX_INTENTS}{writer}/{session}"))
    }

    /// Returns the name of a session's index.
    #[must_use]
    pub fn index(writer: &WriterId, session: SessionId, number: u32) -> Self {
        Self::format(format_args!("{PREFIX_INDEX}{writer}/{session}-{number:08x}"))
    }

    /// Returns the name of a snapshot's tombstone.
    #[must_use]
    pub fn tombstone(vm: VmTag, session: SessionId) -> Self {
        Self::format(format_args!("{PREFIX_TOMBSTONES}{vm}/{session}"))
    }

    /// Returns the name of a generation's list of condemned packs.
    #[must_use]
    pub fn condemned(generation: u32) -> Self {
        Self::format(format_args!("{PREFIX_GC}{generation:08x}/condemned"))
    }

    /// Returns the name of the list of sessions that a generation waits for.
    #[must_use]
    pub fn awaited(generation: u32) -> Self {
        Self::format(format_args!("{PREFIX_GC}{generation:08x}/awaited"))
    }

    /// Returns the name of a generation's result.
    #[must_use]
    pub fn result(generation: u32) -> Self {
        Self::format(format_args!("{PREFIX_GC}{generation:08x}/result"))
    }

    /// Returns the name of a generation's seal.
    #[must_use]
    pub fn generation_seal(generation: u32) -> Self {
        Self::format(format_args!("{PREFIX_GC}{generation:08x}/sealed"))
    }

    /// Returns the name of a session's repack record.
    #[must_use]
    pub fn repack(session: SessionId) -> Self {
        Self::format(format_args!("{PREFIX_REPACK}{session}"))
    }

    /// Returns the name of a pin.
    #[must_use]
    pub fn pin(vm: VmTag, session: SessionId, number: u32) -> Self {
        Self::format(format_args!("{PREFIX_PINS}{vm}/{session}-{number:08x}"))
    }

    /// Returns the name of the object that tells that a place is a replica.
    #[must_use]
    pub fn replica_marker() -> Self {
        Self::format(format_args!("{PREFIX_LINEAGE}replica"))
    }

    /// Returns the name of the object with that number about what a promoted place is.
    #[must_use]
    pub fn lineage(number: u32) -> Self {
        Self::format(format_args!("{PREFIX_LINEAGE}{number:08x}"))
    }

    /// Returns the name of the object with that number about a replica.
    #[must_use]
    pub fn barrier(replica: &ReplicaName, number: u32) -> Self {
        Self::format(format_args!("{PREFIX_BARRIER}{replica}/{number:08x}"))
    }

    /// Returns the names of all canaries: of each prefix the first, one in the middle and the last.
    #[must_use]
    pub fn canaries() -> Vec<Self> {
        let [first, last] = CANARY_ENDS;
        let of_prefix = |(prefix, middle): (&str, &str)| {
            [first, middle, last].map(|end| Self::format(format_args!("{prefix}{end}")))
        };
        CANARY_PREFIXES.into_iter().flat_map(of_prefix).collect()
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells what the blob is; `None` if the name is not one of SPEC section 2 (NAME-3).
    #[must_use]
    pub fn kind(&self) -> Option<BlobKind> {
        if is_canary(&self.0) {
            return Some(BlobKind::Canary);
        }
        let mut parts = self.0.split('/');
        let kind = match parts.next()? {
            "config" => BlobKind::Config,
            "keys" => BlobKind::KeySlot(SlotName::new(parts.next()?).ok()?),
            "s" => BlobKind::Intent {
                writer: parse_writer(parts.next()?)?,
                session: parse_session(parts.next()?)?,
            },
            "d" => parse_pack(PackKind::Data, &mut parts)?,
            "m" => parse_pack(PackKind::Map, &mut parts)?,
            "i" => {
                let writer = parse_writer(parts.next()?)?;
                let (session, number) = parse_numbered(parts.next()?)?;
                BlobKind::Index { writer, session, number }
            }
            "r" => {
                let vm = parse_tag(parts.next()?)?;
                let writer = parse_writer(parts.next()?)?;
                let (seq, session) = parts.next()?.split_once('-')?;
                let (seq, session) = (parse_number(seq)?, parse_session(session)?);
                BlobKind::Decision(DecisionName { vm, writer, seq, session })
            }
            "f" => {
                BlobKind::Tombstone { vm: parse_tag(parts.next()?)?, session: parse_session(parts.next()?)? }
            }
            "gc" => {
                let generation = parse_number(parts.next()?)?;
                match parts.next()? {
                    "condemned" => BlobKind::Condemned(generation),
                    "awaited" => BlobKind::Awaited(generation),
                    "result" => BlobKind::GcResult(generation),
                    "sealed" => BlobKind::GenerationSeal(generation),
                    _ => return None,
                }
            }
            "k" => BlobKind::Repack(parse_session(parts.next()?)?),
            "p" => {
                let vm = parse_tag(parts.next()?)?;
                let (session, number) = parse_numbered(parts.next()?)?;
                BlobKind::Pin { vm, session, number }
            }
            "lineage" => match parts.next()? {
                "replica" => BlobKind::ReplicaMarker,
                number => BlobKind::Lineage(parse_number(number)?),
            },
            "b" => {
                let replica = ReplicaName::new(parts.next()?).ok()?;
                BlobKind::Barrier { replica, number: parse_number(parts.next()?)? }
            }
            _ => return None,
        };
        parts.next().is_none().then_some(kind)
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobName({self})")
    }
}

fn is_canary(name: &str) -> bool {
    let ends = |end: &str, middle: &str| end == middle || CANARY_ENDS.contains(&end);
    CANARY_PREFIXES
        .iter()
        .any(|(prefix, middle)| name.strip_prefix(prefix).is_some_and(|end| ends(end, middle)))
}

fn parse_pack<'a>(kind: PackKind, parts: &mut impl Iterator<Item = &'a str>) -> Option<BlobKind> {
    let writer = parse_writer(parts.next()?)?;
    let (session, number) = parse_numbered(parts.next()?)?;
    Some(BlobKind::Pack(PackName { kind, writer, session, number }))
}

fn parse_numbered(text: &str) -> Option<(SessionId, u32)> {
    let (session, number) = text.split_once('-')?;
    Some((parse_session(session)?, parse_number(number)?))
}

fn parse_writer(text: &str) -> Option<WriterId> {
    WriterId::new(text).ok()
}

fn parse_session(text: &str) -> Option<SessionId> {
    parse_hex(text).map(SessionId)
}

fn parse_tag(text: &str) -> Option<VmTag> {
    parse_hex(text).map(VmTag)
}

fn parse_number(text: &str) -> Option<u32> {
    parse_hex(text).map(u32::from_be_bytes)
}
