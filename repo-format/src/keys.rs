//! The keys of a repository (SPEC section 3).

use std::fmt;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{Infallible, TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::FormatError;
use crate::frame::FrameKind;
use crate::ids::{ChunkId, PayloadId, RepositoryId, SessionId, VmTag};

type Dhkem = X25519HkdfSha256;

const SESSION_KEY_INFO: &[u8] = b"keepstone v0 session key";

macro_rules! secret_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes 32 bytes that nobody can guess.
            #[must_use]
            pub fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            pub(crate) fn bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                equal_in_constant_time(&self.0, &other.0)
            }
        }

        impl Eq for $name {}
    };
}

secret_type!(
    /// The key that all others of a repository follow from (KEY-1). Erased when dropped.
    RootKey
);
secret_type!(
    /// The key that all but data packs are sealed under (KEY-1): enough to list, verify structure, forget and prune.
    /// Erased when dropped.
    InventoryKey
);
secret_type!(
    /// The key that the data packs of one session are sealed under (KEY-3). Erased when dropped.
    SessionKey
);

/// A session key, sealed to the data public key (KEY-3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSessionKey {
    /// The HPKE encapsulated key.
    pub encapsulated: [u8; 32],
    /// The HPKE ciphertext.
    pub ciphertext: [u8; 48],
}

/// The public keys of a repository, as its config tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKeys {
    /// The X25519 key that session keys are sealed to.
    pub data: [u8; 32],
    /// The Ed25519 key that signatures of the retention are checked with.
    pub retention: [u8; 32],
}

/// The keys of a repository. Erased when dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Keys {
    #[zeroize(skip)]
    repository: RepositoryId,
    #[zeroize(skip)]
    public: PublicKeys,
    data: Option<DataKeys>,
    inventory: [u8; 32],
    map_id: [u8; 32],
    vm_tag: [u8; 32],
    config_mac: [u8; 32],
    seal_hash: [u8; 32],
}

/// The keys that reading and cutting the content of disks takes; only the root key gives them. Erased when dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct DataKeys {
    #[zeroize(skip)]
    chunker_seed: u64,
    private: [u8; 32],
    chunk_id: [u8; 32],
}

impl DataKeys {
    /// Returns the payload id of a chunk.
    #[must_use]
    pub fn chunk_id(&self, chunk: &[u8]) -> ChunkId {
        PayloadId(*blake3::keyed_hash(&self.chunk_id, chunk).as_bytes())
    }

    /// Returns the number that the chunker's tables are varied by.
    #[must_use]
    pub fn chunker_seed(&self) -> u64 {
        self.chunker_seed
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKeys(..)")
    }
}

impl Keys {
    /// Derives the keys of a repository from its root key. `retention_public` is what the config tells.
    #[must_use]
    pub fn from_root(root: &RootKey, repository: RepositoryId, retention_public: [u8; 32]) -> Self {
        let from_root = |context| derive(context, &[root.bytes(), &repository.0]);
        let chunk_id = from_root("keepstone v0 chunk id");
        let private = from_root("keepstone v0 data private key");
        let seed = derive("keepstone v0 chunker seed", &[&chunk_id]);
        let (seed, _) = seed.split_first_chunk::<8>().expect("32 bytes begin with 8 bytes");
        let data_public = Dhkem::sk_to_pk(&private_key(&private)).to_bytes().into();
        let public = PublicKeys { data: data_public, retention: retention_public };
        let data = DataKeys { chunker_seed: u64::from_le_bytes(*seed), private, chunk_id };
        let inventory = InventoryKey::new(from_root("keepstone v0 inventory"));
        Self { data: Some(data), ..Self::from_inventory(&inventory, repository, public) }
    }

    /// Derives the keys that follow from the inventory key: all but those of the content of disks. `public` is what
    /// the config tells.
    #[must_use]
    pub fn from_inventory(inventory: &InventoryKey, repository: RepositoryId, public: PublicKeys) -> Self {
        let from_inventory = |context| derive(context, &[inventory.bytes()]);
        Self {
            repository,
            public,
            data: None,
            inventory: *inventory.bytes(),
            map_id: from_inventory("keepstone v0 map id"),
            vm_tag: from_inventory("keepstone v0 vm tag"),
            config_mac: from_inventory("keepstone v0 config mac"),
            seal_hash: from_inventory("keepstone v0 seal hash"),
        }
    }

    /// Tells whether the keys open data packs and know the ids of chunks.
    #[must_use]
    pub fn can_read_data(&self) -> bool {
        self.data.is_some()
    }

    /// Returns the keys of the content of disks.
    ///
    /// # Errors
    /// [`FormatError::NoDataKey`] if only the inventory key is known.
    pub fn data(&self) -> Result<&DataKeys, FormatError> {
        self.data.as_ref().ok_or(FormatError::NoDataKey)
    }

    /// Returns the key that is sealed in inventory slots.
    #[must_use]
    pub fn inventory_key(&self) -> InventoryKey {
        InventoryKey(self.inventory)
    }

    /// Returns the repository that the keys are for.
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// Returns the payload id of a page or a node.
    #[must_use]
    pub fn map_id(&self, payload: &[u8]) -> PayloadId {
        PayloadId(*blake3::keyed_hash(&self.map_id, payload).as_bytes())
    }

    /// Returns the payload id of a payload of any kind (PACK-6).
    ///
    /// # Errors
    /// [`FormatError::NoDataKey`] for a chunk if only the inventory key is known.
    pub fn payload_id(&self, kind: FrameKind, payload: &[u8]) -> Result<PayloadId, FormatError> {
        match kind {
            FrameKind::Chunk => Ok(self.data()?.chunk_id(payload)),
            FrameKind::Page | FrameKind::Node => Ok(self.map_id(payload)),
        }
    }

    /// Checks that a payload is the one that its id calls for (PACK-6).
    ///
    /// # Errors
    /// [`FormatError::WrongId`]; [`FormatError::NoDataKey`] for a chunk if only the inventory key is known.
    pub fn check_payload(&self, kind: FrameKind, id: PayloadId, payload: &[u8]) -> Result<(), FormatError> {
        if equal_in_constant_time(&self.payload_id(kind, payload)?.0, &id.0) {
            Ok(())
        } else {
            Err(FormatError::WrongId)
        }
    }

    /// Returns what stands for a VM's name in the names of blobs.
    #[must_use]
    pub fn vm_tag(&self, vm: &str) -> VmTag {
        let hash = blake3::keyed_hash(&self.vm_tag, vm.as_bytes());
        VmTag(*hash.as_bytes().first_chunk().expect("32 bytes begin with 16 bytes"))
    }

    /// Returns the X25519 key that session keys are sealed to.
    #[must_use]
    pub fn data_public_key(&self) -> [u8; 32] {
        self.public.data
    }

    /// Returns the Ed25519 key that signatures of the retention are checked with.
    #[must_use]
    pub fn retention_public(&self) -> [u8; 32] {
        self.public.retention
    }

    /// Derives a key for local use, such as the checksums of a cache, from the inventory key.
    ///
    /// `context` must be one that SPEC.md does not use.
    #[must_use]
    pub fn local_key(&self, context: &str) -> [u8; 32] {
        derive(context, &[&self.inventory])
    }

    pub(crate) fn inventory(&self) -> &[u8; 32] {
        &self.inventory
    }

    pub(crate) fn config_mac(&self, body: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.config_mac, body)
    }

    pub(crate) fn seal_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.seal_hash)
    }

    /// Opens the session key in the header of a data pack.
    ///
    /// # Errors
    /// [`FormatError::BadTag`] if it was not sealed to this repository for this session; [`FormatError::NoDataKey`]
    /// if only the inventory key is known.
    pub fn open_session_key(
        &self,
        sealed: &SealedSessionKey,
        session: SessionId,
    ) -> Result<SessionKey, FormatError> {
        let encapsulated = <Dhkem as Kem>::EncappedKey::from_bytes(&sealed.encapsulated)
            .expect("an encapsulated X25519 key has 32 bytes");
        let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, Dhkem>(
            &OpModeR::Base,
            &private_key(&self.data()?.private),
            &encapsulated,
            &session_key_info(self.repository),
            &sealed.ciphertext,
            &session.0,
        );
        let opened = Zeroizing::new(opened.map_err(|_| FormatError::BadTag)?);
        opened.as_slice().try_into().map(SessionKey).map_err(|_| FormatError::BadTag)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("repository", &self.repository).finish_non_exhaustive()
    }
}

/// Seals a session key to a data public key. `seed` is 32 bytes that nobody can guess, new for every call.
///
/// # Errors
/// [`FormatError::BadValue`] if `public` is not usable as a key.
pub fn seal_session_key(
    key: &SessionKey,
    public: &[u8; 32],
    repository: RepositoryId,
    session: SessionId,
    seed: [u8; 32],
) -> Result<SealedSessionKey, FormatError> {
    let unusable = |_| FormatError::BadValue("the data public key is not usable");
    let public = <Dhkem as Kem>::PublicKey::from_bytes(public).map_err(unusable)?;
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, Dhkem>(
        &OpModeS::Base,
        &public,
        &session_key_info(repository),
        key.bytes(),
        &session.0,
        &mut SeededRng::new(seed),
    )
    .map_err(unusable)?;
    Ok(SealedSessionKey {
        encapsulated: encapsulated.to_bytes().into(),
        ciphertext: ciphertext.try_into().expect("32 bytes and a tag of 16 bytes are 48 bytes"),
    })
}

fn private_key(bytes: &[u8; 32]) -> <Dhkem as Kem>::PrivateKey {
    <Dhkem as Kem>::PrivateKey::from_bytes(bytes).expect("any 32 bytes are a private key of X25519")
}

fn session_key_info(repository: RepositoryId) -> Vec<u8> {
    [SESSION_KEY_INFO, &repository.0].concat()
}

/// `derive(context, material)` of SPEC section 1, the material given in parts.
pub(crate) fn derive(context: &str, material: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in material {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

pub(crate) fn equal_in_constant_time(a: &[u8; 32], b: &[u8; 32]) -> bool {
    // `blake3::Hash` compares in constant time, which arrays do not.
    blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b)
}

/// The bytes that follow from a seed: HPKE asks for a generator, and its caller has the random bytes.
struct SeededRng(blake3::OutputReader);

impl SeededRng {
    fn new(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let mut hasher = blake3::Hasher::new_derive_key("keepstone v0 hpke randomness");
        hasher.update(seed.as_slice());
        Self(hasher.finalize_xof())
    }
}

impl TryRng for SeededRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(target);
        Ok(())
    }
}

impl TryCryptoRng for SeededRng {}
