//! Keys, configs and key slots of vectors (SPEC sections 3 to 5).

use crate::fields::{self, Fields, hex};
use crate::vector::{Vector, unhex};
use repo_format::{
    FormatError, InventoryKey, Keys, PublicKeys, RepositoryId, RetentionKey, RootKey, SealedSessionKey,
    SessionId, SessionKey, Slot, SlotKey, SlotKind, SlotName, UncheckedConfig, seal_slot,
};

/// The keys that a vector gives.
pub fn keys(vector: &Vector) -> Keys {
    let retention = vector.get("retention-key").map_or([0; 32], |_| retention_key(vector).public());
    let repository = RepositoryId(vector.array("repository"));
    if vector.get("inventory-key").is_some() {
        let key = InventoryKey::new(vector.array("inventory-key"));
        return Keys::from_inventory(&key, repository, PublicKeys { data: [0; 32], retention });
    }
    Keys::from_root(&RootKey::new(vector.array("root-key")), repository, retention)
}

/// The retention key that a vector gives.
pub fn retention_key(vector: &Vector) -> RetentionKey {
    RetentionKey::new(vector.array("retention-key"))
}

/// What follows from the inputs. The keys themselves cannot be asked for: they are derived here, and each of those with
/// which something is made that can be asked for is used for that, too.
pub fn all_keys(vector: &Vector) -> Fields {
    let keys = keys(vector);
    let material = [unhex(vector.input("root-key")), unhex(vector.input("repository"))].concat();
    let from_root = |context: &str| blake3::derive_key(context, &material);
    let inventory = from_root("keepstone v0 inventory");
    let from_inventory = |context: &str| blake3::derive_key(context, &inventory);
    assert_eq!(keys.local_key("any other"), from_inventory("any other"), "{}", vector.name);
    let (chunk_id, map_id) = (from_root("keepstone v0 chunk id"), from_inventory("keepstone v0 map id"));
    let vm_tag = from_inventory("keepstone v0 vm tag");
    let mut fields: Fields = [
        ("chunk-id-key", hex(&chunk_id)),
        ("inventory-key", hex(&inventory)),
        ("data-private-key", hex(&from_root("keepstone v0 data private key"))),
        ("data-public-key", hex(&keys.data_public_key())),
        ("chunker-seed", keys.data().unwrap().chunker_seed().to_string()),
        ("map-id-key", hex(&map_id)),
        ("vm-tag-key", hex(&vm_tag)),
        ("config-mac-key", hex(&from_inventory("keepstone v0 config mac"))),
        ("seal-hash-key", hex(&from_inventory("keepstone v0 seal hash"))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let keyed =
        |key: &[u8; 32], data: &[u8], len: usize| hex(&blake3::keyed_hash(key, data).as_bytes()[..len]);
    if let Some(vm) = vector.get("vm") {
        fields.insert("vm-tag".to_owned(), keys.vm_tag(vm).to_string());
        assert_eq!(fields["vm-tag"], keyed(&vm_tag, vm.as_bytes(), 16), "{}", vector.name);
    }
    if let Some(chunk) = vector.get("chunk").map(unhex) {
        fields.insert("chunk-id".to_owned(), keys.data().unwrap().chunk_id(&chunk).to_string());
        assert_eq!(fields["chunk-id"], keyed(&chunk_id, &chunk, 32), "{}", vector.name);
    }
    if let Some(map) = vector.get("map").map(unhex) {
        fields.insert("map-id".to_owned(), keys.map_id(&map).to_string());
        assert_eq!(fields["map-id"], keyed(&map_id, &map, 32), "{}", vector.name);
    }
    fields.retain(|name, _| vector.fields.contains_key(name));
    fields
}

/// Opens a session key; its bytes cannot be asked for, so that it is compared with the one that the vector tells.
pub fn session_key(vector: &Vector) -> Result<Fields, FormatError> {
    let sealed = SealedSessionKey {
        encapsulated: vector.bytes[..32].try_into().unwrap(),
        ciphertext: vector.bytes[32..].try_into().unwrap(),
    };
    let opened = keys(vector).open_session_key(&sealed, SessionId(vector.array("session")))?;
    let told = vector.fields.get("session-key").map(|key| unhex(key).try_into().unwrap());
    assert_eq!(told.map(SessionKey::new), Some(opened), "{}", vector.name);
    Ok(vector.fields.clone())
}

pub fn config(vector: &Vector) -> Result<Fields, FormatError> {
    let unchecked = UncheckedConfig::parse(&vector.bytes)?;
    let (root, repository) =
        (RootKey::new(vector.array("root-key")), RepositoryId(vector.array("repository")));
    let keys = Keys::from_root(&root, repository, unchecked.public_keys().retention);
    let config = unchecked.check(&keys)?;
    let written = config.encode(&keys);
    assert_eq!(UncheckedConfig::parse(&written)?.check(&keys)?, config, "{}", vector.name);
    if vector.get("written").is_some() {
        assert_eq!(String::from_utf8(written), String::from_utf8(vector.bytes.clone()));
    }
    Ok(fields::config(&config))
}

pub fn key_slot(vector: &Vector) -> Result<Fields, FormatError> {
    let slot = Slot::parse(&SlotName::new(vector.input("slot")).unwrap(), &vector.bytes)?;
    let mut fields = fields::slot(slot.info());
    if let Some(password) = vector.get("password").map(unhex) {
        let key = slot.open(&password)?;
        let field = format!("{}-key", slot.info().kind.as_str());
        let told = vector.fields.get(&field).expect("a slot that opens has a key of its kind");
        let bytes = unhex(told).try_into().unwrap();
        let expected = match slot.info().kind {
            SlotKind::Root => SlotKey::Root(RootKey::new(bytes)),
            SlotKind::Retention => SlotKey::Retention(RetentionKey::new(bytes)),
            SlotKind::Inventory => SlotKey::Inventory(InventoryKey::new(bytes)),
        };
        assert_eq!(key, expected, "{}", vector.name);
        fields.insert(field, told.clone());
        if vector.get("written").is_some() {
            let written = seal_slot(slot.info(), &password, &key)?;
            assert_eq!(String::from_utf8(written), String::from_utf8(vector.bytes.clone()));
        }
    }
    Ok(fields)
}
