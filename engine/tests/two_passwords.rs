//! AES-GCM does not commit to its key: a key slot can be made that opens by two passwords. What that is good for.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod world;

use keepstone_engine::store::{BlobStore, MemoryStore};
use keepstone_engine::{EngineError, Repository};
use repo_format::{BlobName, FormatError, RootKey, Slot, SlotInfo, SlotKey, SlotKind, SlotName, seal_slot};
use world::{NOW, PASSWORD, cheap_kdf, create, open, small_geometry};

const OTHER: &[u8] = b"another password";

/// Ciphertext and tag of the slot that holds `root`.
fn sealed(info: &SlotInfo, password: &[u8], root: [u8; 32]) -> ([u8; 32], u128) {
    let text =
        String::from_utf8(seal_slot(info, password, &SlotKey::Root(RootKey::new(root))).unwrap()).unwrap();
    let (_, hex) = text.split_once("\"sealed\": \"").unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    let tag = std::array::from_fn(|at| byte(32 + at));
    (std::array::from_fn(byte), u128::from_be_bytes(tag))
}

/// What GCM makes of ciphertexts under a password's key.
struct Tags<'a> {
    info: &'a SlotInfo,
    password: &'a [u8],
    key_stream: [u8; 32],
}

impl<'a> Tags<'a> {
    fn new(info: &'a SlotInfo, password: &'a [u8]) -> Self {
        Self { info, password, key_stream: sealed(info, password, [0; 32]).0 }
    }

    /// The root key that a ciphertext holds.
    fn root(&self, ciphertext: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|at| ciphertext[at] ^ self.key_stream[at])
    }

    fn of(&self, ciphertext: [u8; 32]) -> u128 {
        sealed(self.info, self.password, self.root(ciphertext)).1
    }
}

/// A ciphertext whose second block is `bits`.
fn with_second_block(bits: u128) -> [u8; 32] {
    let mut ciphertext = [0x5a; 32];
    ciphertext[16..].copy_from_slice(&bits.to_be_bytes());
    ciphertext
}

/// Finds a ciphertext that has the same tag under both keys. A tag is affine in the bits of the ciphertext, so these
/// are 128 linear equations in the 128 bits of one block.
fn colliding(one: &Tags<'_>, other: &Tags<'_>) -> [u8; 32] {
    let difference = |bits| one.of(with_second_block(bits)) ^ other.of(with_second_block(bits));
    let mut target = difference(0);
    let mut solution = 0;
    // For sums of bits of the block: what they change in the difference, and which bits they are.
    let changes = |bit: u32| (difference(1 << bit) ^ difference(0), 1 << bit);
    let mut rows: Vec<(u128, u128)> = (0..128).map(changes).collect();
    for column in 0..128 {
        let mask = 1_u128 << column;
        let Some(found) = rows.iter().position(|(changes, _)| changes & mask != 0) else { continue };
        let (changes, bits) = rows.swap_remove(found);
        for row in rows.iter_mut().filter(|row| row.0 & mask != 0) {
            *row = (row.0 ^ changes, row.1 ^ bits);
        }
        if target & mask != 0 {
            target ^= changes;
            solution ^= bits;
        }
    }
    assert_eq!(target, 0, "the equations have no solution");
    with_second_block(solution)
}

#[test]
fn a_key_slot_that_opens_by_two_passwords_lets_nobody_in_and_locks_nobody_out() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry()).config().repository;
    let (name, label) = (SlotName::new("a").unwrap(), String::new());
    let info = SlotInfo {
        name,
        repository,
        kind: SlotKind::Root,
        label,
        created: NOW,
        kdf: cheap_kdf(),
        salt: [4; 32],
    };
    let (one, other) = (Tags::new(&info, PASSWORD), Tags::new(&info, OTHER));
    let ciphertext = colliding(&one, &other);
    let roots = [one.root(ciphertext), other.root(ciphertext)];
    let blob = seal_slot(&info, PASSWORD, &SlotKey::Root(RootKey::new(roots[0]))).unwrap();
    let slot = Slot::parse(&info.name, &blob).unwrap();
    assert!([PASSWORD, OTHER].iter().all(|password| slot.open(password).is_ok()));
    assert_ne!(roots[0], roots[1]);
    assert!(matches!(slot.open(b"a third password"), Err(FormatError::BadTag)));

    // Neither root key fits the config: the slot behind it is tried, and nothing opens by the other password.
    store.put_new(&BlobName::key_slot(&info.name), &blob).unwrap();
    open(&store);
    let opened = Repository::open(&store, OTHER);
    assert!(matches!(opened, Err(EngineError::Damaged { source: FormatError::MacMismatch, .. })));
}
