//! What is text: the config, key slots, names, changes files.

use crate::fields::Fields;
use crate::samples::{self, keys, root_key};
use keepstone_engine::Extent;
use keepstone_engine::source::{ChangesFile, DiskSource, MemoryDisk, Outside, Since, WithChanges};
use repo_format::{
    BlobKind, BlobName, ChunkerName, ChunkerParams, Config, Geometry, Keys, PayloadId, ReplicaName,
    SessionId, Slot, SlotName, UncheckedConfig, VmTag, WriterId, check_disk_key, check_tag, check_vm_name,
    seal_slot,
};

/// A config; the same bytes are also taken as the values of one, which is encoded if they are allowed.
pub fn config(data: &[u8]) -> bool {
    check_config_of_values(data);
    let Ok(unchecked) = UncheckedConfig::parse(data) else { return false };
    let keys = Keys::from_root(&root_key(), unchecked.repository(), unchecked.public_keys().retention);
    let Ok(config) = unchecked.check(&keys) else { return false };
    assert_eq!(config.geometry.check(), Ok(()));
    check_config(&config, &keys);
    true
}

fn check_config_of_values(data: &[u8]) {
    let mut fields = Fields::new(data);
    let created = fields.u64();
    let (min, average, max) = (fields.u32(), fields.u32(), fields.u32());
    let (region_len, cell_len, pack_len) = (fields.u32(), fields.u32(), fields.u32());
    let name = if fields.u32() & 1 == 0 { ChunkerName::FastCdc2020 } else { ChunkerName::MinCdcHash4 };
    let average = if name == ChunkerName::MinCdcHash4 { min.midpoint(max) } else { average };
    let chunker = ChunkerParams { name, min, average, max };
    let geometry = Geometry { chunker, region_len, cell_len, pack_len };
    if geometry.check().is_ok() {
        check_config(&Config { created, geometry, ..samples::config() }, keys());
    }
}

fn check_config(config: &Config, keys: &Keys) {
    let again = UncheckedConfig::parse(&config.encode(keys)).and_then(|again| again.check(keys));
    assert_eq!(again.as_ref(), Ok(config));
}

/// A key slot; it is opened and sealed again if its parameters ask for little work.
pub fn key_slot(data: &[u8]) -> bool {
    let name = samples::slot_name();
    let Ok(slot) = Slot::parse(&name, data) else { return false };
    let info = slot.info();
    assert_eq!(info.check(), Ok(()));
    if u64::from(info.kdf.memory_kib) * u64::from(info.kdf.passes) <= 64 {
        let key = samples::slot_key(info.kind);
        if let Ok(opened) = slot.open(samples::PASSWORD) {
            assert_eq!(opened, key);
        }
        let blob = seal_slot(info, samples::PASSWORD, &key).expect("the slot was checked");
        let again = Slot::parse(&name, &blob).expect("what was sealed is a slot");
        assert_eq!(again.info(), info);
        assert_eq!(again.open(samples::PASSWORD), Ok(key));
    }
    true
}

/// Text that may be the name of a blob, or one of the parts of such names.
pub fn blob_name(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    for is_name in [check_vm_name(text), check_disk_key(text), check_tag(text)].map(|checked| checked.is_ok())
    {
        assert!(!is_name || (1..=255).contains(&text.len()));
    }
    let parts = [
        text.parse::<PayloadId>().map(|id| id.to_string()),
        text.parse::<SessionId>().map(|id| id.to_string()),
        text.parse::<VmTag>().map(|tag| tag.to_string()),
        text.parse::<WriterId>().map(|writer| writer.to_string()),
        text.parse::<SlotName>().map(|slot| slot.to_string()),
        text.parse::<ReplicaName>().map(|replica| replica.to_string()),
    ];
    assert!(parts.into_iter().flatten().all(|part| part == text), "an id is written in two ways");
    let Some(name) = BlobName::parse(text) else { return false };
    assert_eq!(name.as_str(), text);
    let Some(kind) = name.kind() else { return false };
    let rebuilt = match &kind {
        BlobKind::Config => BlobName::config(),
        BlobKind::KeySlot(slot) => BlobName::key_slot(slot),
        BlobKind::Intent { writer, session } => BlobName::intent(writer, *session),
        BlobKind::Pack(pack) => pack.blob(),
        BlobKind::Index { writer, session, number } => BlobName::index(writer, *session, *number),
        BlobKind::Decision(decision) => decision.blob(),
        BlobKind::Tombstone { vm, session } => BlobName::tombstone(*vm, *session),
        BlobKind::Condemned(generation) => BlobName::condemned(*generation),
        BlobKind::Awaited(generation) => BlobName::awaited(*generation),
        BlobKind::GcResult(generation) => BlobName::result(*generation),
        BlobKind::GenerationSeal(generation) => BlobName::generation_seal(*generation),
        BlobKind::Repack(session) => BlobName::repack(*session),
        BlobKind::Pin { vm, session, number } => BlobName::pin(*vm, *session, *number),
        BlobKind::ReplicaMarker => BlobName::replica_marker(),
        BlobKind::Lineage(number) => BlobName::lineage(*number),
        BlobKind::Barrier { replica, number } => BlobName::barrier(replica, *number),
        BlobKind::Canary => {
            let canaries = BlobName::canaries();
            canaries.into_iter().find(|canary| *canary == name).expect("it is one of the canaries")
        }
    };
    assert_eq!(rebuilt, name, "{kind:?} has another name");
    true
}

/// A changes file.
pub fn changes_file(data: &[u8]) -> bool {
    let Ok(file) = ChangesFile::parse(data) else { return false };
    let mut previous_end = 0;
    for area in file.areas() {
        assert!(area.length > 0 && area.start >= previous_end);
        previous_end = area.start.checked_add(area.length).expect("an area is on the disk");
    }
    assert!(previous_end <= file.disk_size());
    let area = |area: &Extent| serde_json::json!({"start": area.start, "length": area.length});
    let again = serde_json::json!({
        "diskSize": file.disk_size(),
        "changeId": file.change_id(),
        "since": file.since(),
        "changedArea": file.areas().iter().map(area).collect::<Vec<_>>(),
    });
    assert_eq!(ChangesFile::parse(again.to_string().as_bytes()).ok().as_ref(), Some(&file));
    check_source(file);
    true
}

/// A disk of the file's size has its changes, a disk of another size cannot be put together with it.
fn check_source(file: ChangesFile) {
    const DISK_LEN: u64 = 1000;
    let disk = MemoryDisk::new(vec![0; usize::try_from(DISK_LEN).expect("a short disk")]);
    let (size, since, areas) = (file.disk_size(), file.since().map(str::to_owned), file.areas().to_vec());
    let Ok(source) = WithChanges::new(Box::new(disk), file) else {
        assert_ne!(size, DISK_LEN);
        return;
    };
    let asked = since.as_deref().map(|id| Since { change_id: Some(id), size, properties: &[] });
    let changed = source.changed_areas(asked.as_ref()).expect("memory can be read");
    if since.is_some() {
        assert_eq!((changed.areas, changed.outside), (areas, Outside::Unchanged));
    }
}
