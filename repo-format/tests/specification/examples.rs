//! The examples at the end of SPEC.md: each decodes, and is encoded to the same bytes again.

use crate::decode::blob_name;
use crate::decode::decode;
use crate::fields::{Fields, hex};
use crate::keys::keys;
use crate::vector::{Vector, unhex};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::Ed25519KeyPair;
use repo_format::{SealedKind, open};
use std::collections::BTreeMap;

const KEYS: &str = "root-key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
repository: 101112131415161718191a1b1c1d1e1f";

/// The blocks of the kind `hex`, by name.
fn blocks() -> BTreeMap<&'static str, Vec<u8>> {
    let spec = include_str!("../../../SPEC.md");
    let blocks = spec.split("\n```hex ").skip(1).map(|rest| {
        let (name, rest) = rest.split_once('\n').expect("a block begins with a line of its own");
        let (block, _) = rest.split_once("\n```").expect("a block ends");
        let bytes = block.lines().flat_map(|line| unhex(line.split('#').next().unwrap_or_default().trim()));
        (name, bytes.collect())
    });
    blocks.collect()
}

/// Decodes a block as a vector of that object; its inputs are lines as in a vector's file.
fn decoded(block: &str, object: &str, inputs: &str) -> Fields {
    let bytes = hex(&blocks()[block]);
    let text = format!("rule: none\nobject: {object}\nexpect: ok\n{KEYS}\n{inputs}bytes: {bytes}\n");
    decode(&Vector::parse(block, &text)).unwrap_or_else(|failure| panic!("{block}: {failure:?}"))
}

fn value<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.get(name).map_or("", String::as_str)
}

#[test]
fn objects_decode_and_are_encoded_to_the_same_bytes() {
    let cell =
        "min: 64\naverage: 256\nmax: 1024\nregion-len: 8192\ncell-len: 4096\ndisk-size: 8192\ncell: 0\n";
    assert_eq!(value(&decoded("page", "page", cell), "entry.1"), "hole 3096");
    let place = "level: 1\nchildren: 2\npack: m/host-1/02a1a2a3a4a5a6a7a8a9aaabacadaeaf-00000000 5000\n";
    assert_eq!(value(&decoded("node", "node", place), "child.0"), "hole");
    assert_eq!(decoded("pack-table", "condemned", "").len(), 3);
    assert_eq!(decoded("index", "index", "").len(), 3);
    assert_eq!(value(&decoded("decision", "decision", ""), "disk.0.change-id"), "52/7");
    assert_eq!(value(&decoded("result", "result", ""), "covers"), "2");
    assert_eq!(value(&decoded("awaited", "awaited", ""), "writer.1"), "host-2");
    assert_eq!(value(&decoded("repack-record", "repack", ""), "lead.0"), "0 1");
    assert_eq!(value(&decoded("pin", "pin", ""), "pinned"), "1");
    assert_eq!(value(&decoded("barrier", "barrier", ""), "writer.1"), "pruner");
    assert_eq!(value(&decoded("lineage", "lineage", ""), "first-generation"), "3");
    assert_eq!(value(&decoded("replica-marker", "replica-marker", ""), "source"), "azblob://backups/vms");
    let intent = decoded("intent", "intent", "");
    assert_eq!(value(&intent, "generation"), "16909060");
    let name = "name: s/host-1/02a1a2a3a4a5a6a7a8a9aaabacadaeaf\n";
    assert_eq!(decoded("sealed-object", "intent", name), intent);
    let frame = "pack-kind: 1\ndirectory-offset: 193\n";
    let directory = decoded("pack-directory", "directory", frame);
    let name = "name: d/host-1/02a1a2a3a4a5a6a7a8a9aaabacadaeaf-00000005\n";
    let mut pack = decoded("pack", "pack", name);
    assert_eq!(pack.remove("frame.0.payload"), Some(hex(b"x")));
    assert_eq!(pack, directory);
}

#[test]
fn no_example_is_without_a_test() {
    let tested = [
        "awaited",
        "barrier",
        "config-mac-body",
        "decision",
        "index",
        "intent",
        "lineage",
        "node",
        "pack",
        "pack-directory",
        "pack-table",
        "page",
        "pin",
        "repack-record",
        "replica-marker",
        "result",
        "sealed-object",
        "signature-message",
        "slot-associated-data",
    ];
    assert_eq!(blocks().into_keys().collect::<Vec<_>>(), tested);
}

/// The value of a member of a JSON object in a vector.
fn member(vector: &Vector, name: &str) -> String {
    let json: serde_json::Value = serde_json::from_slice(&vector.bytes).unwrap();
    json[name].as_str().expect("a member that is text").to_owned()
}

fn vector(name: &str) -> Vector {
    Vector::all().into_iter().find(|vector| vector.name == name).expect("the vector is there")
}

#[test]
fn the_body_of_a_mac_is_what_the_config_was_signed_with() {
    let inventory = blake3::derive_key("keepstone v0 inventory", &root_material());
    let key = blake3::derive_key("keepstone v0 config mac", &inventory);
    let mac = blake3::keyed_hash(&key, &blocks()["config-mac-body"]);
    assert_eq!(mac.to_hex().as_str(), member(&vector("CONF-1-as-written"), "mac"));
}

#[test]
fn the_message_of_a_signature_is_what_the_retention_key_signed() {
    let tombstone = vector("SIG-1-tombstone");
    let message = &blocks()["signature-message"];
    let seed = unhex(tombstone.input("retention-key"));
    let key = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let keys = keys(&tombstone);
    let name = blob_name(&tombstone);
    let plaintext = open(&keys, SealedKind::Tombstone, &name, &tombstone.bytes).unwrap();
    let content =
        plaintext.strip_suffix(key.sign(message).as_ref()).expect("the signature is behind the content");
    assert!(message.ends_with(content));
}

fn root_material() -> Vec<u8> {
    let lines = KEYS.lines().flat_map(|line| unhex(line.split_once(": ").unwrap().1));
    lines.collect()
}

#[test]
fn the_associated_data_of_a_slot_is_what_its_key_was_sealed_with() {
    let slot = vector("SLOT-1-as-written");
    let salt: Vec<u8> = (0xe0..=0xff).collect();
    let mut key = [0; 32];
    let params = Params::new(32, 2, 2, Some(32)).unwrap();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(&unhex(slot.input("password")), &salt, &mut key)
        .unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let mut sealed = unhex(&member(&slot, "sealed"));
    let blocks = blocks();
    let aad = Aad::from(&blocks["slot-associated-data"]);
    let root = key.open_in_place(Nonce::assume_unique_for_key([0; 12]), aad, &mut sealed).unwrap();
    assert_eq!(*root, root_material()[..32]);
}
