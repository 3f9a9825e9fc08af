//! Key slots: a key of the repository under a password (SPEC section 5).

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::aead::{AeadKey, ZERO_NONCE};
use crate::bytes::Writer;
use crate::error::FormatError;
use crate::frame::check_limit;
use crate::ids::{RepositoryId, SlotName};
use crate::json::{Hex, Object, parse_object, render_object};
use crate::keys::{InventoryKey, RootKey};
use crate::limits::{SLOT_LEN_MAX, TAG_LEN};
use crate::retention::RetentionKey;

const KEEPSTONE: &str = "key";
const KDF: &str = "argon2id";
const SEALED_LEN: usize = 32 + TAG_LEN;
/// The longest label, in bytes.
const LABEL_LEN_MAX: usize = 255;
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 16;
/// How much memory times passes a slot may ask for: about what takes some seconds.
const WORK_MAX: u64 = 1 << 22;

/// What deriving a slot's key costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes that the memory is divided into.
    pub lanes: u32,
}

impl Default for KdfParams {
    /// Returns 64 MiB, 3 passes, 4 lanes: the second choice that RFC 9106 recommends.
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl KdfParams {
    /// Returns the memory, in KiB, times the passes: what deriving a key takes time in proportion to.
    #[must_use]
    pub fn work(&self) -> u64 {
        u64::from(self.memory_kib).saturating_mul(u64::from(self.passes))
    }

    /// Checks that the work is neither too little to be of use nor too much to be borne (SLOT-4).
    ///
    /// # Errors
    /// The parameter that is not allowed.
    pub fn check(&self) -> Result<(), FormatError> {
        let allowed = (1..=LANES_MAX).contains(&self.lanes)
            && (1..=PASSES_MAX).contains(&self.passes)
            && (self.lanes.saturating_mul(8)..=MEMORY_KIB_MAX).contains(&self.memory_kib)
            && self.work() <= WORK_MAX;
        if allowed {
            Ok(())
        } else {
            Err(FormatError::BadValue("the parameters of the key derivation are not allowed"))
        }
    }
}

/// What is in a key slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotKind {
    /// The root key: backs up, restores, and opens all there is to read.
    Root,
    /// The seed of the retention key: forgets and prunes.
    Retention,
    /// The inventory key: lists and verifies structure, but reads no data.
    Inventory,
}

impl SlotKind {
    /// Returns the word that stands for the kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Retention => "retention",
            Self::Inventory => "inventory",
        }
    }

    /// Reads the word that stands for a kind.
    ///
    /// # Errors
    /// Any other word.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let kinds = [Self::Root, Self::Retention, Self::Inventory];
        let found = kinds.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or(FormatError::BadValue("the kind of a key slot is not known"))
    }
}

/// The key that a slot seals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotKey {
    /// The key that all others follow from.
    Root(RootKey),
    /// The key that forgets and prunes.
    Retention(RetentionKey),
    /// The key that everything but data packs is sealed under.
    Inventory(InventoryKey),
}

impl SlotKey {
    /// Returns the kind of the slots that seal such a key.
    #[must_use]
    pub fn kind(&self) -> SlotKind {
        match self {
            Self::Root(_) => SlotKind::Root,
            Self::Retention(_) => SlotKind::Retention,
            Self::Inventory(_) => SlotKind::Inventory,
        }
    }

    fn new(kind: SlotKind, bytes: [u8; 32]) -> Self {
        match kind {
            SlotKind::Root => Self::Root(RootKey::new(bytes)),
            SlotKind::Retention => Self::Retention(RetentionKey::new(bytes)),
            SlotKind::Inventory => Self::Inventory(InventoryKey::new(bytes)),
        }
    }

    fn bytes(&self) -> &[u8; 32] {
        match self {
            Self::Root(key) => key.bytes(),
            Self::Retention(key) => key.seed(),
            Self::Inventory(key) => key.bytes(),
        }
    }
}

/// What a key slot tells in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// The slot's name.
    pub name: SlotName,
    /// The repository.
    pub repository: RepositoryId,
    /// What is in the slot.
    pub kind: SlotKind,
    /// What the operator called it: at most 255 bytes.
    pub label: String,
    /// When it was made.
    pub created: u64,
    /// What deriving its key costs.
    pub kdf: KdfParams,
    /// 32 random bytes, new for every slot.
    pub salt: [u8; 32],
}

impl SlotInfo {
    /// Checks the label and the parameters.
    ///
    /// # Errors
    /// A label that is too long, or parameters that SLOT-4 excludes.
    pub fn check(&self) -> Result<(), FormatError> {
        check_limit("label length", self.label.len() as u64, LABEL_LEN_MAX)?;
        self.kdf.check()
    }

    /// SLOT-3.
    fn associated_data(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put(b"keepstone key slot").u32(0).put(&self.repository.0);
        writer.str8(self.name.as_str()).str8(self.kind.as_str()).str8(&self.label).u64(self.created);
        writer.u32(self.kdf.memory_kib).u32(self.kdf.passes).u32(self.kdf.lanes).put(&self.salt);
        writer.finish()
    }

    /// SLOT-2.
    fn key(&self, password: &[u8]) -> Result<AeadKey, FormatError> {
        let refused = |_| FormatError::BadValue("the key derivation refuses the password");
        let KdfParams { memory_kib, passes, lanes } = self.kdf;
        let params = Params::new(memory_kib, passes, lanes, Some(32)).expect("the parameters were checked");
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password, &self.salt, key.as_mut_slice())
            .map_err(refused)?;
        Ok(AeadKey::new(&key))
    }
}

/// Makes the blob of a key slot: a key under a password.
///
/// # Errors
/// A key of another kind than `info` tells; a label or parameters that are not allowed; a password of 4 GiB or more.
pub fn seal_slot(info: &SlotInfo, password: &[u8], key: &SlotKey) -> Result<Vec<u8>, FormatError> {
    info.check()?;
    if key.kind() != info.kind {
        return Err(FormatError::BadValue("the key is not of the slot's kind"));
    }
    let mut sealed = *key.bytes();
    let tag = info.key(password)?.seal(ZERO_NONCE, &info.associated_data(), &mut sealed);
    let mut both = [0; SEALED_LEN];
    let (key_place, tag_place) = both.split_at_mut(32);
    key_place.copy_from_slice(&sealed);
    tag_place.copy_from_slice(&tag);
    let KdfParams { memory_kib, passes, lanes } = info.kdf;
    Ok(render_object(&SlotJson {
        keepstone: KEEPSTONE.to_owned(),
        format: 0,
        repository: Hex(info.repository.0),
        kind: info.kind.as_str().to_owned(),
        label: info.label.clone(),
        created: info.created,
        kdf: Object(KdfJson { name: KDF.to_owned(), memory_kib, passes, lanes, salt: Hex(info.salt) }),
        sealed: Hex(both),
    }))
}

/// A key slot that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    info: SlotInfo,
    sealed: [u8; SEALED_LEN],
}

impl Slot {
    /// Parses the blob of the key slot of that name.
    ///
    /// # Errors
    /// Bytes that break SLOT-1 or SLOT-4; [`FormatError::UnsupportedVersion`] for a newer format.
    pub fn parse(name: &SlotName, bytes: &[u8]) -> Result<Self, FormatError> {
        let json: SlotJson = parse_object(bytes, KEEPSTONE, SLOT_LEN_MAX)?;
        let KdfJson { name: kdf_name, memory_kib, passes, lanes, salt } = json.kdf.0;
        if kdf_name != KDF {
            return Err(FormatError::BadValue("the key derivation of a key slot is not known"));
        }
        let info = SlotInfo {
            name: name.clone(),
            repository: RepositoryId(json.repository.0),
            kind: SlotKind::parse(&json.kind)?,
            label: json.label,
            created: json.created,
            kdf: KdfParams { memory_kib, passes, lanes },
            salt: salt.0,
        };
        info.check()?;
        Ok(Self { info, sealed: json.sealed.0 })
    }

    /// Returns what the slot tells in the clear.
    #[must_use]
    pub fn info(&self) -> &SlotInfo {
        &self.info
    }

    /// Opens the slot; takes as long as its parameters say.
    ///
    /// # Errors
    /// [`FormatError::BadTag`] for a wrong password or a slot that was changed.
    pub fn open(&self, password: &[u8]) -> Result<SlotKey, FormatError> {
        let mut sealed = Zeroizing::new(self.sealed);
        let key = self.info.key(password)?;
        let opened = key.open(ZERO_NONCE, &self.info.associated_data(), sealed.as_mut_slice())?;
        let key = <[u8; 32]>::try_from(&*opened).map_err(|_| FormatError::BadTag)?;
        Ok(SlotKey::new(self.info.kind, key))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotJson {
    keepstone: String,
    format: u32,
    repository: Hex<16>,
    kind: String,
    label: String,
    created: u64,
    kdf: Object<KdfJson>,
    sealed: Hex<SEALED_LEN>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KdfJson {
    name: String,
    #[serde(rename = "memoryKiB")]
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Hex<32>,
}
