//! What the config and the key slots must be (SPEC sections 4 and 5).

use repo_format::*;

use crate::samples::*;

fn config() -> Config {
    Config {
        repository: REPOSITORY,
        created: 1_700_000_000_000,
        geometry: Geometry::default(),
        data_public_key: keys().data_public_key(),
    }
}

fn config_text() -> String {
    String::from_utf8(config().encode(&keys())).unwrap()
}

fn check_config(text: &str) -> Result<Config, FormatError> {
    UncheckedConfig::parse(text.as_bytes())?.check(&keys())
}

#[test]
fn a_config_survives() {
    let unchecked = UncheckedConfig::parse(config_text().as_bytes()).unwrap();
    assert_eq!(unchecked.repository(), REPOSITORY);
    assert_eq!(unchecked.check(&keys()), Ok(config()));
}

#[test]
fn a_config_has_exactly_its_members() {
    let text = config_text();
    let spoilt = [
        ("\"created\"", "\"extra\": 1, \"created\""),
        ("\"created\": 1700000000000,", ""),
        ("\"created\"", "\"created\": 1700000000000, \"created\""),
        ("\"min\"", "\"extra\": 1, \"min\""),
        ("\"min\": 8192,", ""),
        ("\"min\"", "\"min\": 8192, \"min\""),
        ("1700000000000", "1700000000000.0"),
        ("1700000000000", "-1"),
        ("1700000000000", "\"1700000000000\""),
        ("11111111111111111111111111111111", "1111111111111111111111111111111"),
        ("11111111111111111111111111111111", "1111111111111111111111111111111A"),
        ("\n}", "\n} x"),
        ("\n}", "\n"),
    ];
    for (from, to) in spoilt {
        assert!(text.contains(from), "{from}");
        let result = check_config(&text.replacen(from, to, 1));
        assert!(matches!(result, Err(FormatError::Json(_))), "{from} to {to}: {result:?}");
    }
    assert!(matches!(check_config(""), Err(FormatError::Json(_))));
    assert!(matches!(check_config("[]"), Err(FormatError::Json(_))));
    let chunker = text.find("\"chunker\": {").unwrap();
    let end = chunker + text[chunker..].find('}').unwrap();
    let array = format!(
        "{}\"chunker\": [\"fastcdc-2020\", 8192, 32768, 131072]{}",
        &text[..chunker],
        &text[end + 1..]
    );
    assert!(matches!(check_config(&array), Err(FormatError::Json(_))));
    let long = format!("{text}{}", " ".repeat(64 << 10));
    assert!(matches!(check_config(&long), Err(FormatError::LimitExceeded { what: "JSON length", .. })));
}

#[test]
fn a_newer_config_is_told_from_a_broken_one() {
    let newer = r#"{"keepstone": "repository", "format": 1, "unknown": {}}"#;
    assert_eq!(check_config(newer), Err(FormatError::UnsupportedVersion { found: 1 }));
    let slot = r#"{"keepstone": "key", "format": 0}"#;
    assert_eq!(check_config(slot), Err(FormatError::BadMagic));
}

#[test]
fn a_changed_config_is_rejected() {
    let text = config_text();
    let mac = text.find("\"mac\": \"").unwrap() + 8;
    let changes = [
        ("1700000000000", "1700000000001"),
        ("11111111111111111111111111111111", "11111111111111111111111111111112"),
        ("\"min\": 8192", "\"min\": 8194"),
        ("\"average\": 32768", "\"average\": 32770"),
        ("\"max\": 131072", "\"max\": 131070"),
        ("\"regionLen\": 16777216", "\"regionLen\": 8388608"),
        ("\"cellLen\": 1048576", "\"cellLen\": 524288"),
        ("\"packLen\": 33554432", "\"packLen\": 33554433"),
        (&text[mac..mac + 64], &"0".repeat(64)),
    ];
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        assert_eq!(
            check_config(&text.replacen(from, to, 1)),
            Err(FormatError::MacMismatch),
            "{from} to {to}"
        );
    }
}

#[test]
fn a_config_with_another_public_key_is_rejected_even_if_its_mac_is_right() {
    // The MAC key follows from the inventory key, which a host has that may not read data.
    let mac_key = blake3::derive_key("keepstone v0 config mac", &inventory_key());
    let body =
        crate::raw::Raw::new().put(b"keepstone config").u32(0).put(&REPOSITORY.0).u64(1_700_000_000_000);
    let body = body.str8("fastcdc-2020").u32(8192).u32(32_768).u32(131_072);
    let body = body.u32(16 << 20).u32(1 << 20).u32(32 << 20).put(&[9; 32]).0;
    let mac = blake3::keyed_hash(&mac_key, &body).to_hex();
    let text = config_text();
    let key = text.find("\"dataPublicKey\": \"").unwrap() + 18;
    let old_mac = text.find("\"mac\": \"").unwrap() + 8;
    let text =
        text.replace(&text[key..key + 64], &"09".repeat(32)).replace(&text[old_mac..old_mac + 64], &mac);
    let error = FormatError::BadValue("the data public key is not that of the root key");
    assert_eq!(check_config(&text), Err(error));
}

fn inventory_key() -> [u8; 32] {
    blake3::derive_key("keepstone v0 inventory", &[&[0x44; 32][..], &REPOSITORY.0].concat())
}

#[test]
fn parameters_that_break_a_rule_are_rejected() {
    let base = Geometry::default();
    let chunker =
        |min, average, max| Geometry { chunker: ChunkerParams { min, average, max, ..base.chunker }, ..base };
    let allowed = [
        base,
        chunker(64, 256, 1024),
        chunker(1024, 1024, 1024),
        chunker(64, 256, 1 << 20),
        Geometry { cell_len: 131_072, region_len: 131_072, ..base },
        Geometry { region_len: 64 << 20, pack_len: 64 << 10, ..base },
        Geometry { region_len: 3 << 20, pack_len: 256 << 20, ..base },
    ];
    for geometry in allowed {
        assert_eq!(geometry.check(), Ok(()), "{geometry:?}");
    }
    let refused = [
        chunker(62, 256, 1024),
        chunker(65, 256, 1024),
        chunker(64, 254, 1024),
        chunker(64, 257, 1024),
        chunker(64, 256, 1022),
        chunker(64, 256, 1025),
        chunker(512, 256, 1024),
        chunker(64, 2048, 1024),
        chunker(64, 256, (1 << 20) + 2),
        Geometry { cell_len: 65_536, ..base },
        Geometry { cell_len: 2 << 20, ..base },
        Geometry { cell_len: (1 << 20) - 1, ..base },
        Geometry { cell_len: 0, ..base },
        Geometry { region_len: 0, ..base },
        Geometry { region_len: 1 << 19, ..base },
        Geometry { region_len: (1 << 20) + 1, ..base },
        Geometry { region_len: 65 << 20, ..base },
        Geometry { pack_len: (64 << 10) - 1, ..base },
        Geometry { pack_len: (256 << 20) + 1, ..base },
    ];
    for geometry in refused {
        assert!(geometry.check().is_err(), "{geometry:?}");
    }
    let tiny = Geometry { cell_len: 2048, region_len: 2048, ..chunker(64, 256, 1024) };
    assert!(tiny.check().is_err());
    let unknown = config_text().replace("fastcdc-2020", "fastcdc-2016");
    assert_eq!(check_config(&unknown), Err(FormatError::BadValue("the chunker is not known")));
}

/// The least work that is allowed.
const QUICK: KdfParams = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };

fn slot_info() -> SlotInfo {
    SlotInfo {
        name: SlotName::new("ops").unwrap(),
        repository: REPOSITORY,
        label: "Operators".into(),
        created: 1_700_000_000_000,
        kdf: QUICK,
        salt: SALT,
    }
}

fn slot_text() -> String {
    String::from_utf8(seal_slot(&slot_info(), b"secret", &root_key()).unwrap()).unwrap()
}

fn parse_slot(text: &str) -> Result<Slot, FormatError> {
    Slot::parse(&slot_info().name, text.as_bytes())
}

#[test]
fn a_slot_opens_with_its_password_only() {
    let slot = parse_slot(&slot_text()).unwrap();
    assert_eq!(slot.info(), &slot_info());
    assert_eq!(slot.open(b"secret"), Ok(root_key()));
    assert_eq!(slot.open(b"Secret"), Err(FormatError::BadTag));
    assert_eq!(slot.open(b""), Err(FormatError::BadTag));
}

#[test]
fn a_slot_is_bound_to_all_that_it_tells() {
    let text = slot_text();
    let sealed = text.find("\"sealed\": \"").unwrap() + 11;
    let changes = [
        ("11111111111111111111111111111111", "11111111111111111111111111111112"),
        ("Operators", "operators"),
        ("1700000000000", "1700000000001"),
        ("\"memoryKiB\": 8", "\"memoryKiB\": 9"),
        ("\"passes\": 1", "\"passes\": 2"),
        ("3333", "3334"),
        (&text[sealed..sealed + 4], "0000"),
    ];
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        let slot = parse_slot(&text.replacen(from, to, 1)).unwrap();
        assert_eq!(slot.open(b"secret"), Err(FormatError::BadTag), "{from} to {to}");
    }
    let renamed = Slot::parse(&SlotName::new("other").unwrap(), text.as_bytes()).unwrap();
    assert_eq!(renamed.open(b"secret"), Err(FormatError::BadTag));
}

#[test]
fn slots_that_break_a_rule_are_rejected() {
    let text = slot_text();
    let kdf = FormatError::BadValue("the parameters of the key derivation are not allowed");
    let kind = FormatError::BadValue("the kind of a key slot or of its key derivation is not known");
    let broken = [
        ("\"memoryKiB\": 8", "\"memoryKiB\": 7", kdf.clone()),
        ("\"memoryKiB\": 8", "\"memoryKiB\": 1048577", kdf.clone()),
        ("\"passes\": 1", "\"passes\": 0", kdf.clone()),
        ("\"passes\": 1", "\"passes\": 65", kdf.clone()),
        ("\"lanes\": 1", "\"lanes\": 0", kdf.clone()),
        ("\"lanes\": 1", "\"lanes\": 2", kdf.clone()),
        ("\"lanes\": 1", "\"lanes\": 17", kdf),
        ("\"root\"", "\"put\"", kind.clone()),
        ("argon2id", "argon2i", kind),
        ("\"format\": 0", "\"format\": 1", FormatError::UnsupportedVersion { found: 1 }),
        ("\"key\"", "\"repository\"", FormatError::BadMagic),
    ];
    for (from, to, error) in broken {
        assert!(text.contains(from), "{from}");
        assert_eq!(parse_slot(&text.replacen(from, to, 1)), Err(error), "{from} to {to}");
    }
    for (from, to) in
        [("\"label\"", "\"extra\": 1, \"label\""), ("\"passes\": 1,", ""), ("\"kind\": \"root\",", "")]
    {
        assert!(text.contains(from), "{from}");
        assert!(matches!(parse_slot(&text.replacen(from, to, 1)), Err(FormatError::Json(_))), "{from}");
    }
    let long = format!("{text}{}", " ".repeat(16 << 10));
    assert!(matches!(parse_slot(&long), Err(FormatError::LimitExceeded { .. })));
    let label = SlotInfo { label: "l".repeat(256), ..slot_info() };
    assert!(matches!(seal_slot(&label, b"", &root_key()), Err(FormatError::LimitExceeded { .. })));
}

#[test]
fn work_is_limited_before_any_is_done() {
    let check = |memory_kib, passes, lanes| KdfParams { memory_kib, passes, lanes }.check();
    assert_eq!(KdfParams::default().check(), Ok(()));
    assert_eq!(check(1 << 20, 4, 16), Ok(()));
    assert!(check(1 << 20, 5, 16).is_err());
    assert_eq!(check(65_536, 64, 1), Ok(()));
    assert!(check(65_537, 64, 1).is_err());
    assert!(check(u32::MAX, u32::MAX, u32::MAX).is_err());
}
