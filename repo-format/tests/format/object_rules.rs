//! What objects are before they are written (SPEC sections 5, 6 and 10).

use repo_format::*;

use crate::samples::*;

#[test]
fn one_salt_with_two_contents_gives_two_keys() {
    let keys = keys();
    let name = BlobName::repack(SESSION);
    let blob = |plaintext: &[u8]| seal(&keys, SealedKind::Repack, &name, SALT, plaintext);
    assert_eq!(blob(b"same"), blob(b"same"));
    let (one, two) = (blob(b"one content"), blob(b"two content"));
    assert_ne!(one[48..80], two[48..80]);
    let both = b"one content".iter().zip(b"two content").map(|(a, b)| a ^ b).collect::<Vec<_>>();
    let stream = one[80..91].iter().zip(&two[80..91]).map(|(a, b)| a ^ b).collect::<Vec<_>>();
    assert_ne!(both, stream);
}

#[test]
fn what_a_user_named_can_be_refused_before_it_is_written() {
    assert_eq!(commit().check(), Ok(()));
    let twice = Commit { tags: vec!["a".into(), "a".into()], ..commit() };
    assert_eq!(twice.check(), Err(FormatError::OutOfOrder("the tags of a snapshot")));
    let long = Commit { program: "p".repeat(256), ..commit() };
    let limit = FormatError::LimitExceeded { what: "program length", found: 256, limit: 255 };
    assert_eq!(long.check(), Err(limit));
}

#[test]
fn a_slot_with_a_label_that_is_too_long_is_not_written() {
    let slot = |label: &str| {
        let (name, kdf) = (SlotName::new("ops").unwrap(), KdfParams { memory_kib: 8, passes: 1, lanes: 1 });
        let info = SlotInfo {
            name,
            repository: REPOSITORY,
            kind: SlotKind::Root,
            label: label.into(),
            created: 1,
            kdf,
            salt: SALT,
        };
        seal_slot(&info, b"", &SlotKey::Root(root_key())).map(drop)
    };
    assert_eq!(slot(&"l".repeat(255)), Ok(()));
    let limit = FormatError::LimitExceeded { what: "label length", found: 256, limit: 255 };
    assert_eq!(slot(&"l".repeat(256)), Err(limit));
}

#[test]
fn the_defaults_are_allowed() {
    assert_eq!(KdfParams::default().check(), Ok(()));
    assert_eq!(Geometry::default().check(), Ok(()));
}
