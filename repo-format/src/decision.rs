//! Decisions: how a session ended, and what a snapshot is (SPEC 10.2).

use crate::bytes::{Reader, Writer, check_sorted, parse_all};
use crate::error::FormatError;
use crate::frame::{Codec, FrameKind, Location, PackRef, check_limit};
use crate::ids::{SessionId, check_disk_key, check_tag, check_vm_name};
use crate::keys::Keys;
use crate::limits::{DISK_SIZE_MAX, DISKS_MAX, PROPERTIES_MAX, TAGS_MAX};
use crate::name::{BlobName, DecisionName, PackKind, PackName};
use crate::retention::{RetentionKey, check_signature, seal_signed};
use crate::seal::{SealedKind, open, seal};

const COMMIT: u8 = 1;
const ABORT: u8 = 2;
const REPACK: u8 = 3;
/// The codec of a root node that is not there.
const NO_MAP: u8 = 0;
const TAG_LEN_MIN: usize = 1 + 1;
const PROPERTY_LEN_MIN: usize = 1 + 2;
const DISK_LEN_MIN: usize = 2 + 8 + 1 + 1 + 8 + 8 + 1;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It made a snapshot.
    Commit(Box<Commit>),
    /// It made none.
    Abort(Abort),
    /// It repacked: it made no snapshot, and its packs and its repack record count.
    Repack(Repacked),
}

/// The end of a repack session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repacked {
    /// The session.
    pub session: SessionId,
    /// When it began.
    pub time: u64,
    /// The program that repacked, with its version: at most 255 bytes.
    pub program: String,
}

/// The end of a session that made no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The session.
    pub session: SessionId,
    /// When it was aborted.
    pub time: u64,
    /// The program that aborted it, with its version: at most 255 bytes.
    pub program: String,
    /// Who aborted it.
    pub by: AbortBy,
}

/// Who aborted a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AbortBy {
    /// Its writer.
    Writer = 1,
    /// A pruner that waited for it.
    Pruner = 2,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The session that made it; the snapshot's id.
    pub session: SessionId,
    /// The time that it is of.
    pub time: u64,
    /// The program that made it, with its version: at most 255 bytes.
    pub program: String,
    /// The VM's name.
    pub vm: String,
    /// The snapshot that it was made from.
    pub parent: Option<DecisionName>,
    /// The repack records that names in its maps pass through, sorted.
    pub via: Vec<SessionId>,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// Properties of the VM as key (at most 255 bytes) and value (at most 65535), sorted by key.
    pub properties: Vec<(String, String)>,
    /// The VM's disks, sorted by key; at least one.
    pub disks: Vec<Disk>,
    /// What making it took.
    pub totals: Totals,
}

/// A disk of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its key within the VM.
    pub key: String,
    /// Its size, in bytes.
    pub size: u64,
    /// What changed areas of a later snapshot count from: at most 65535 bytes.
    pub change_id: Option<String>,
    /// Whether all of it was read.
    pub mode: DiskMode,
    /// The bytes that the source reported as changed.
    pub changed_bytes: u64,
    /// The bytes that were read.
    pub read_bytes: u64,
    /// The root node of its map; `None` if the disk is one hole.
    pub map: Option<Location>,
}

/// How a disk was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DiskMode {
    /// All of it.
    Full = 1,
    /// What had changed since the parent.
    Incremental = 2,
}

/// What making a snapshot took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Chunks that were looked at.
    pub chunks: u64,
    /// Chunks that were stored.
    pub new_chunks: u64,
    /// Their bytes before encoding.
    pub new_bytes: u64,
    /// The bytes of all blobs that were stored.
    pub stored_bytes: u64,
    /// Of those, the bytes that are not data packs.
    pub metadata_bytes: u64,
    /// Data packs that were stored.
    pub data_packs: u32,
    /// Map packs that were stored.
    pub map_packs: u32,
}

impl Decision {
    /// Returns the session that is decided.
    #[must_use]
    pub fn session(&self) -> SessionId {
        match self {
            Self::Commit(commit) => commit.session,
            Self::Abort(abort) => abort.session,
            Self::Repack(repacked) => repacked.session,
        }
    }

    /// Checks all rules of SPEC 10.2 but DEC-5.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        match self {
            Self::Commit(commit) => commit.check(),
            Self::Abort(Abort { program, .. }) | Self::Repack(Repacked { program, .. }) => {
                check_limit("program length", program.len() as u64, 255)
            }
        }
    }

    /// Encodes the content of the decision: its plaintext, but for the signature of a pruner's ABORT.
    ///
    /// # Panics
    /// If [`Decision::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a decision that is written is valid");
        let mut writer = Writer::new();
        match self {
            Self::Commit(commit) => {
                writer.u8(COMMIT).put(&commit.session.0).u64(commit.time).str8(&commit.program);
                write_commit(&mut writer, commit);
            }
            Self::Abort(abort) => {
                writer.u8(ABORT).put(&abort.session.0).u64(abort.time).str8(&abort.program);
                writer.u8(abort.by as u8);
            }
            Self::Repack(Repacked { session, time, program }) => {
                writer.u8(REPACK).put(&session.0).u64(*time).str8(program);
            }
        }
        writer.finish()
    }

    /// Parses the content of a decision: its plaintext, but for the signature of a pruner's ABORT.
    ///
    /// # Errors
    /// Bytes that break SPEC 10.2.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let decision = parse_all(bytes, read_decision)?;
        decision.check()?;
        Ok(decision)
    }

    /// Tells whether the decision is one that only the retention may make: a pruner's ABORT.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        matches!(self, Self::Abort(Abort { by: AbortBy::Pruner, .. }))
    }

    /// Seals the decision under its name.
    ///
    /// # Panics
    /// If [`Decision::check`] finds something wrong, the name is another session's or VM's, or the decision is one that
    /// is signed.
    #[must_use]
    pub fn seal(&self, keys: &Keys, name: &DecisionName, salt: [u8; 32]) -> Vec<u8> {
        assert!(!self.is_signed(), "a pruner's ABORT is signed");
        self.check_name(keys, name).expect("a decision is written under its own name");
        seal(keys, SealedKind::Decision, &name.blob(), salt, &self.encode())
    }

    /// Signs and seals a pruner's ABORT under its name.
    ///
    /// # Panics
    /// If [`Decision::check`] finds something wrong, the name is another session's, the decision is none that is signed,
    /// or the retention key is another repository's.
    #[must_use]
    pub fn seal_signed(
        &self,
        keys: &Keys,
        retention: &RetentionKey,
        name: &DecisionName,
        salt: [u8; 32],
    ) -> Vec<u8> {
        assert!(self.is_signed(), "only a pruner's ABORT is signed");
        self.check_name(keys, name).expect("a decision is written under its own name");
        seal_signed(keys, retention, (SealedKind::Decision, &name.blob()), salt, self.encode())
    }

    /// Opens the decision in the blob of that name.
    ///
    /// # Errors
    /// A blob that is not authentic, or not the decision that its name calls for; [`FormatError::BadSignature`] for a
    /// pruner's ABORT that the retention did not sign.
    pub fn open(keys: &Keys, name: &DecisionName, blob: &[u8]) -> Result<Self, FormatError> {
        let blob_name = name.blob();
        let plaintext = open(keys, SealedKind::Decision, &blob_name, blob)?;
        let decision = Self::parse(content_of(keys, &blob_name, &plaintext)?)?;
        decision.check_name(keys, name)?;
        Ok(decision)
    }

    /// DEC-5.
    fn check_name(&self, keys: &Keys, name: &DecisionName) -> Result<(), FormatError> {
        let vm_fits = match self {
            Self::Commit(commit) => keys.vm_tag(&commit.vm) == name.vm,
            Self::Abort(_) => true,
            Self::Repack(_) => keys.vm_tag("") == name.vm,
        };
        if vm_fits && self.session() == name.session {
            Ok(())
        } else {
            Err(FormatError::BadValue("the decision is not the one that its name calls for"))
        }
    }
}

impl Commit {
    /// Checks all rules of SPEC 10.2 but DEC-5, so that what a user named can be refused before it is encoded.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        check_limit("program length", self.program.len() as u64, 255)?;
        check_vm_name(&self.vm)?;
        check_sorted("the records of a snapshot", &self.via)?;
        check_limit("number of tags", self.tags.len() as u64, TAGS_MAX)?;
        check_sorted("the tags of a snapshot", &self.tags)?;
        self.tags.iter().try_for_each(|tag| check_tag(tag))?;
        check_limit("number of properties", self.properties.len() as u64, PROPERTIES_MAX)?;
        if !self.properties.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(FormatError::OutOfOrder("the properties of a snapshot"));
        }
        for (key, value) in &self.properties {
            check_limit("length of a property's key", key.len() as u64, 255)?;
            check_limit("length of a property", value.len() as u64, usize::from(u16::MAX))?;
        }
        check_limit("number of disks", self.disks.len() as u64, DISKS_MAX)?;
        if self.disks.is_empty() {
            return Err(FormatError::BadValue("a snapshot has no disk"));
        }
        if !self.disks.is_sorted_by(|a, b| a.key < b.key) {
            return Err(FormatError::OutOfOrder("the disks of a snapshot"));
        }
        self.disks.iter().try_for_each(Disk::check)
    }
}

impl Disk {
    fn check(&self) -> Result<(), FormatError> {
        check_disk_key(&self.key)?;
        if !(1..=DISK_SIZE_MAX).contains(&self.size) {
            return Err(FormatError::BadValue("the size of a disk is not allowed"));
        }
        let change_id_len = self.change_id.as_ref().map_or(0, String::len);
        check_limit("length of a change id", change_id_len as u64, usize::from(u16::MAX))?;
        self.map.as_ref().map_or(Ok(()), |map| map.check(FrameKind::Node))
    }
}

/// The plaintext without the signature, which is checked, if it is of the kind that has one (DEC-6).
fn content_of<'a>(keys: &Keys, name: &BlobName, plaintext: &'a [u8]) -> Result<&'a [u8], FormatError> {
    let mut reader = Reader::new(plaintext);
    // Which decision it is shows before its end; what else is wrong with it is found when it is parsed.
    if !read_decision(&mut reader).is_ok_and(|decision| decision.is_signed()) {
        return Ok(plaintext);
    }
    let content_len = plaintext.len().saturating_sub(reader.rest().len());
    let (content, signature) = plaintext.split_at_checked(content_len).ok_or(FormatError::Truncated)?;
    check_signature(keys, (SealedKind::Decision, name), content, signature)?;
    Ok(content)
}

fn read_decision(reader: &mut Reader<'_>) -> Result<Decision, FormatError> {
    let verdict = reader.u8()?;
    let (session, time, program) = (reader.session()?, reader.u64()?, reader.str8()?.to_owned());
    match verdict {
        COMMIT => Ok(Decision::Commit(Box::new(read_commit(reader, session, time, program)?))),
        ABORT => Ok(Decision::Abort(Abort { session, time, program, by: read_by(reader)? })),
        REPACK => Ok(Decision::Repack(Repacked { session, time, program })),
        found => Err(FormatError::BadType { what: "verdict", found }),
    }
}

fn write_commit(writer: &mut Writer, commit: &Commit) {
    writer.str8(&commit.vm).u8(u8::from(commit.parent.is_some()));
    if let Some(parent) = &commit.parent {
        writer.decision_name(parent);
    }
    writer.sessions(&commit.via);
    writer.short_count(commit.tags.len());
    for tag in &commit.tags {
        writer.str8(tag);
    }
    writer.short_count(commit.properties.len());
    for (key, value) in &commit.properties {
        writer.str8(key).str16(value);
    }
    writer.short_count(commit.disks.len());
    for disk in &commit.disks {
        write_disk(writer, disk);
    }
    let Totals { chunks, new_chunks, new_bytes, stored_bytes, metadata_bytes, data_packs, map_packs } =
        commit.totals;
    writer.u64(chunks).u64(new_chunks).u64(new_bytes).u64(stored_bytes).u64(metadata_bytes);
    writer.u32(data_packs).u32(map_packs);
}

fn write_disk(writer: &mut Writer, disk: &Disk) {
    writer.str8(&disk.key).u64(disk.size).u8(u8::from(disk.change_id.is_some()));
    if let Some(change_id) = &disk.change_id {
        writer.str16(change_id);
    }
    writer.u8(disk.mode as u8).u64(disk.changed_bytes).u64(disk.read_bytes);
    let Some(Location { pack, codec, offset, stored_len, plain_len, id }) = &disk.map else {
        writer.u8(NO_MAP);
        return;
    };
    writer.u8(*codec as u8).str8(pack.name.writer.as_str()).put(&pack.name.session.0);
    writer.u32(pack.name.number).u32(pack.len).u32(*offset).u32(*stored_len).u32(*plain_len).put(&id.0);
}

fn read_commit(
    reader: &mut Reader<'_>,
    session: SessionId,
    time: u64,
    program: String,
) -> Result<Commit, FormatError> {
    let vm = reader.str8()?.to_owned();
    let parent = if reader.flag()? { Some(reader.decision_name()?) } else { None };
    let via = reader.sessions("the records of a snapshot")?;
    let count = reader.short_count("number of tags", TAGS_MAX, TAG_LEN_MIN)?;
    let tags = (0..count).map(|_| Ok(reader.str8()?.to_owned())).collect::<Result<_, FormatError>>()?;
    let count = reader.short_count("number of properties", PROPERTIES_MAX, PROPERTY_LEN_MIN)?;
    let properties = (0..count)
        .map(|_| Ok((reader.str8()?.to_owned(), reader.str16()?.to_owned())))
        .collect::<Result<_, FormatError>>()?;
    let count = reader.short_count("number of disks", DISKS_MAX, DISK_LEN_MIN)?;
    let disks = (0..count).map(|_| read_disk(reader)).collect::<Result<_, _>>()?;
    let totals = Totals {
        chunks: reader.u64()?,
        new_chunks: reader.u64()?,
        new_bytes: reader.u64()?,
        stored_bytes: reader.u64()?,
        metadata_bytes: reader.u64()?,
        data_packs: reader.u32()?,
        map_packs: reader.u32()?,
    };
    Ok(Commit { session, time, program, vm, parent, via, tags, properties, disks, totals })
}

fn read_disk(reader: &mut Reader<'_>) -> Result<Disk, FormatError> {
    let (key, size) = (reader.str8()?.to_owned(), reader.u64()?);
    let change_id = if reader.flag()? { Some(reader.str16()?.to_owned()) } else { None };
    let mode = match reader.u8()? {
        1 => DiskMode::Full,
        2 => DiskMode::Incremental,
        found => return Err(FormatError::BadType { what: "disk mode", found }),
    };
    let (changed_bytes, read_bytes) = (reader.u64()?, reader.u64()?);
    let map = match reader.u8()? {
        NO_MAP => None,
        codec => Some(read_root_location(reader, Codec::from_number(codec)?)?),
    };
    Ok(Disk { key, size, change_id, mode, changed_bytes, read_bytes, map })
}

fn read_root_location(reader: &mut Reader<'_>, codec: Codec) -> Result<Location, FormatError> {
    let (writer, session, number) = (reader.writer()?, reader.session()?, reader.u32()?);
    let name = PackName { kind: PackKind::Map, writer, session, number };
    Ok(Location {
        pack: PackRef { name, len: reader.u32()? },
        codec,
        offset: reader.u32()?,
        stored_len: reader.u32()?,
        plain_len: reader.u32()?,
        id: reader.payload_id()?,
    })
}

fn read_by(reader: &mut Reader<'_>) -> Result<AbortBy, FormatError> {
    match reader.u8()? {
        1 => Ok(AbortBy::Writer),
        2 => Ok(AbortBy::Pruner),
        found => Err(FormatError::BadType { what: "the author of an ABORT", found }),
    }
}
