//! The limits of SPEC section 12, and the fixed sizes that follow from the layouts.

/// The longest config, in bytes.
pub const CONFIG_LEN_MAX: usize = 64 << 10;
/// The longest key slot, in bytes.
pub const SLOT_LEN_MAX: usize = 16 << 10;
/// How many key slots of each kind a reader tries.
pub const KEY_SLOTS_MAX: usize = 64;
/// The longest plaintext of a sealed object, in bytes.
pub const SEALED_PLAIN_LEN_MAX: usize = 64 << 20;

/// The longest text that tells where a replica is or is filled from, in bytes.
pub const PLACE_LEN_MAX: usize = 4096;

/// The length of the tag of AES-256-GCM, in bytes.
pub const TAG_LEN: usize = 16;
/// The length of a signature of Ed25519, in bytes.
pub const SIGNATURE_LEN: usize = 64;
/// The length of what stands before the ciphertext of a sealed object, in bytes.
pub const SEAL_HEADER_LEN: usize = 80;
/// The length of what stands before the first frame of a pack, in bytes.
pub const PACK_HEADER_LEN: usize = 176;
/// The length of a frame's entry in the directory of a pack, in bytes.
pub const DIRECTORY_ENTRY_LEN: usize = 42;
/// The shortest pack: one frame with a payload of one byte, and its directory.
pub const PACK_LEN_MIN: usize =
    PACK_HEADER_LEN + 1 + TAG_LEN + SEAL_HEADER_LEN + 4 + DIRECTORY_ENTRY_LEN + TAG_LEN;
/// The longest pack, in bytes: the highest `packLen`, and the directory and last frame on top of it.
pub const PACK_LEN_MAX: usize = (256 << 20) + (32 << 20);

/// The longest chunk that any config allows, in bytes; a config's own limit is its chunker's `max`.
pub const CHUNK_LEN_MAX: usize = 1 << 20;
/// The longest page, in bytes.
pub const PAGE_LEN_MAX: usize = 8 << 20;
/// The longest node, in bytes.
pub const NODE_LEN_MAX: usize = 32 << 20;
/// How many children a node has at most.
pub const NODE_CHILDREN_MAX: u8 = 64;
/// How many levels of nodes a map has at most.
pub const LEVELS_MAX: u8 = 10;

/// The largest disk, in bytes.
pub const DISK_SIZE_MAX: u64 = 1 << 62;
/// How many disks a snapshot has at most.
pub const DISKS_MAX: usize = 1024;
/// How many tags a snapshot has at most.
pub const TAGS_MAX: usize = 1024;
/// How many properties a snapshot has at most.
pub const PROPERTIES_MAX: usize = 1024;

const _: () = assert!(PACK_LEN_MAX <= u32::MAX as usize);
const _: () = assert!(SEALED_PLAIN_LEN_MAX <= u32::MAX as usize);
