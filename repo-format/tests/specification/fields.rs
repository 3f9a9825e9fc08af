//! Decoded values as the lines that vectors have for them.

use repo_format::{
    AbortBy, Awaited, Barrier, BarrierFact, BlobKind, BlobName, Child, Codec, Commit, Condemned, Config,
    Decision, Disk, Entry, FrameEntry, GcResult, GenerationSeal, Index, Intent, Lead, Lineage, LineageStep,
    Location, Node, PackHeader, PackRef, Page, Pin, RepackRecord, Repacked, ReplicaMarker, SessionId,
    SlotInfo, Tombstone, WriterId,
};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// Values by name.
pub type Fields = BTreeMap<String, String>;

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

macro_rules! fields {
    ($($name:literal: $value:expr),* $(,)?) => {
        Fields::from([$(($name.to_owned(), $value.to_string())),*])
    };
}

fn list<T: Display>(fields: &mut Fields, name: &str, values: impl IntoIterator<Item = T>) {
    fields.extend(
        values.into_iter().enumerate().map(|(number, value)| (format!("{name}.{number}"), value.to_string())),
    );
}

fn pack(pack: &PackRef) -> String {
    format!("{} {}", pack.name, pack.len)
}

/// Reads what [`pack`] writes.
pub fn read_pack(text: &str) -> PackRef {
    let (name, len) = text.split_once(' ').unwrap();
    match BlobName::parse(name).unwrap().kind() {
        Some(BlobKind::Pack(name)) => PackRef { name, len: len.parse().unwrap() },
        other => panic!("{other:?} is no pack"),
    }
}

fn location(at: &Location) -> String {
    let Location { pack: of, codec, offset, stored_len, plain_len, id } = at;
    format!("{} {} {offset} {stored_len} {plain_len} {id}", number(*codec), pack(of))
}

fn number(codec: Codec) -> u8 {
    codec as u8
}

pub fn blob_kind(kind: &BlobKind) -> Fields {
    match kind {
        BlobKind::Config => fields! { "kind": "config" },
        BlobKind::KeySlot(slot) => fields! { "kind": "key-slot", "slot": slot },
        BlobKind::Intent { writer, session } => {
            fields! { "kind": "intent", "writer": writer, "session": session }
        }
        BlobKind::Pack(name) => {
            let kind = if name.kind == repo_format::PackKind::Data { "data-pack" } else { "map-pack" };
            fields! { "kind": kind, "writer": name.writer, "session": name.session, "number": name.number }
        }
        BlobKind::Index { writer, session, number } => {
            fields! { "kind": "index", "writer": writer, "session": session, "number": number }
        }
        BlobKind::Decision(name) => fields! {
            "kind": "decision", "vm-tag": name.vm, "writer": name.writer, "seq": name.seq, "session": name.session,
        },
        BlobKind::Tombstone { vm, session } => {
            fields! { "kind": "tombstone", "vm-tag": vm, "session": session }
        }
        BlobKind::Condemned(number) => fields! { "kind": "condemned", "generation": number },
        BlobKind::Awaited(number) => fields! { "kind": "awaited", "generation": number },
        BlobKind::GcResult(number) => fields! { "kind": "result", "generation": number },
        BlobKind::GenerationSeal(number) => fields! { "kind": "generation-seal", "generation": number },
        BlobKind::Repack(session) => fields! { "kind": "repack", "session": session },
        BlobKind::Pin { vm, session, number } => {
            fields! { "kind": "pin", "vm-tag": vm, "session": session, "number": number }
        }
        BlobKind::ReplicaMarker => fields! { "kind": "replica-marker" },
        BlobKind::Lineage(number) => fields! { "kind": "lineage", "number": number },
        BlobKind::Barrier { replica, number } => {
            fields! { "kind": "barrier", "replica": replica, "number": number }
        }
        BlobKind::Canary => fields! { "kind": "canary" },
    }
}

pub fn config(config: &Config) -> Fields {
    let chunker = config.geometry.chunker;
    fields! {
        "id": config.repository, "created": config.created, "chunker": chunker.name.as_str(), "min": chunker.min,
        "average": chunker.average, "max": chunker.max, "region-len": config.geometry.region_len,
        "cell-len": config.geometry.cell_len, "pack-len": config.geometry.pack_len,
        "data-public-key": hex(&config.data_public_key),
        "retention-public-key": hex(&config.retention_public_key),
    }
}

pub fn slot(info: &SlotInfo) -> Fields {
    fields! {
        "repository": info.repository, "kind": info.kind.as_str(), "label": info.label, "created": info.created, "memory-kib": info.kdf.memory_kib,
        "passes": info.kdf.passes, "lanes": info.kdf.lanes, "salt": hex(&info.salt),
    }
}

pub fn pack_header(header: &PackHeader) -> Fields {
    let mut fields = fields! {
        "kind": header.kind as u8, "directory-offset": header.directory_offset, "directory-length": header.directory_len,
        "frame-count": header.frame_count, "salt": hex(&header.salt), "key-hash": hex(&header.key_hash),
    };
    if let Some(sealed) = &header.sealed_session_key {
        let both = [sealed.encapsulated.as_slice(), sealed.ciphertext.as_slice()].concat();
        fields.insert("session-key".to_owned(), hex(&both));
    }
    fields
}

pub fn frames(frames: &[(u32, FrameEntry)]) -> Fields {
    let mut fields = Fields::new();
    list(
        &mut fields,
        "frame",
        frames.iter().map(|(offset, frame)| {
            let FrameEntry { kind, codec, plain_len, stored_len, id } = *frame;
            format!("{offset} {} {} {plain_len} {stored_len} {id}", kind as u8, number(codec))
        }),
    );
    fields
}

pub fn page(page: &Page) -> Fields {
    let mut fields = fields! { "first": page.first };
    list(
        &mut fields,
        "entry",
        page.entries.iter().map(|entry| match entry {
            Entry::Hole { len } => format!("hole {len}"),
            Entry::Chunk(at) => format!("chunk {}", location(at)),
        }),
    );
    fields
}

pub fn node(node: &Node) -> Fields {
    let mut fields = fields! { "level": node.level };
    for (number, child) in node.children.iter().enumerate() {
        let text = match child {
            Child::Hole => "hole".to_owned(),
            Child::Stored { at, names } => {
                list(&mut fields, &format!("child.{number}.name"), names.iter().map(pack));
                location(at)
            }
        };
        fields.insert(format!("child.{number}"), text);
    }
    fields
}

pub fn index(index: &Index) -> Fields {
    let mut fields = Fields::new();
    list(&mut fields, "session", index.sessions.iter().map(|(session, name)| format!("{session} {name}")));
    list(&mut fields, "pack", index.packs.iter().map(pack));
    list(
        &mut fields,
        "entry",
        index.entries.iter().map(|entry| {
            let repo_format::IndexEntry { id, codec, pack, offset, stored_len, plain_len } = entry;
            format!("{id} {} {pack} {offset} {stored_len} {plain_len}", number(*codec))
        }),
    );
    fields
}

pub fn intent(intent: &Intent) -> Fields {
    fields! {
        "session": intent.session, "decision": intent.decision, "generation": intent.generation, "time": intent.time,
    }
}

pub fn tombstone(tombstone: &Tombstone) -> Fields {
    fields! { "session": tombstone.session, "time": tombstone.time, "decision": tombstone.decision }
}

pub fn pin(pin: &Pin) -> Fields {
    fields! {
        "session": pin.session, "decision": pin.decision, "time": pin.time, "pinned": u8::from(pin.pinned),
        "reason": pin.reason,
    }
}

pub fn awaited(list: &Awaited) -> Fields {
    let mut fields = fields! { "condemned": hex(&list.condemned) };
    owned(&mut fields, &list.sessions);
    fields
}

fn owned(fields: &mut Fields, sessions: &[(SessionId, WriterId)]) {
    list(fields, "session", sessions.iter().map(|(session, _)| session));
    list(fields, "writer", sessions.iter().map(|(_, writer)| writer));
}

pub fn replica_marker(marker: &ReplicaMarker) -> Fields {
    fields! { "time": marker.time, "source": marker.source }
}

pub fn lineage(lineage: &Lineage) -> Fields {
    let mut fields = fields! {
        "number": lineage.number, "id": lineage.id, "time": lineage.time,
        "step": match lineage.step {
            LineageStep::Promoted => "promoted", LineageStep::OtherSideGone => "other-side-gone",
        },
        "first-generation": lineage.first_generation,
    };
    list(&mut fields, "set-aside", &lineage.set_aside);
    fields
}

pub fn barrier(barrier: &Barrier) -> Fields {
    let mut fields = fields! { "replica": barrier.replica, "number": barrier.number, "time": barrier.time };
    let what = match &barrier.fact {
        BarrierFact::Registered { place } => {
            fields.insert("place".to_owned(), place.clone());
            "registered"
        }
        BarrierFact::Removed => "removed",
        BarrierFact::Confirmed { sessions } => {
            owned(&mut fields, sessions);
            "confirmed"
        }
    };
    fields.insert("what".to_owned(), what.to_owned());
    fields
}

pub fn generation_seal(seal: &GenerationSeal) -> Fields {
    let mut fields = Fields::new();
    list(&mut fields, "roster", &seal.roster);
    fields
}

pub fn decision(decision: &Decision) -> Fields {
    match decision {
        Decision::Commit(commit) => self::commit(commit),
        Decision::Abort(abort) => fields! {
            "verdict": "abort", "session": abort.session, "time": abort.time, "program": abort.program,
            "by": match abort.by { AbortBy::Writer => "writer", AbortBy::Pruner => "pruner" },
        },
        Decision::Repack(Repacked { session, time, program }) => fields! {
            "verdict": "repack", "session": session, "time": time, "program": program,
        },
    }
}

fn commit(commit: &Commit) -> Fields {
    let totals = commit.totals;
    let mut fields = fields! {
        "verdict": "commit", "session": commit.session, "time": commit.time, "program": commit.program, "vm": commit.vm,
        "chunks": totals.chunks, "new-chunks": totals.new_chunks, "new-bytes": totals.new_bytes,
        "stored-bytes": totals.stored_bytes, "metadata-bytes": totals.metadata_bytes,
        "data-packs": totals.data_packs, "map-packs": totals.map_packs,
    };
    if let Some(parent) = &commit.parent {
        fields.insert("parent".to_owned(), parent.to_string());
    }
    list(&mut fields, "via", &commit.via);
    list(&mut fields, "tag", &commit.tags);
    for (number, (key, value)) in commit.properties.iter().enumerate() {
        fields.insert(format!("property.{number}.key"), key.clone());
        fields.insert(format!("property.{number}.value"), value.clone());
    }
    for (number, disk) in commit.disks.iter().enumerate() {
        fields.extend(
            self::disk(disk).into_iter().map(|(name, value)| (format!("disk.{number}.{name}"), value)),
        );
    }
    fields
}

fn disk(disk: &Disk) -> Fields {
    let mut fields = fields! {
        "key": disk.key, "size": disk.size, "mode": disk.mode as u8, "changed-bytes": disk.changed_bytes,
        "read-bytes": disk.read_bytes,
    };
    if let Some(change_id) = &disk.change_id {
        fields.insert("change-id".to_owned(), change_id.clone());
    }
    if let Some(root) = &disk.map {
        fields.insert("root".to_owned(), location(root));
    }
    fields
}

pub fn condemned(condemned: &Condemned) -> Fields {
    let mut fields = Fields::new();
    list(&mut fields, "pack", condemned.packs.iter().map(pack));
    fields
}

pub fn result(result: &GcResult) -> Fields {
    let mut fields = Fields::new();
    list(&mut fields, "delete", result.delete.iter().map(pack));
    list(&mut fields, "rescued", result.rescued.iter().map(pack));
    fields.insert("covers".to_owned(), result.covers.to_string());
    list(&mut fields, "earlier", result.earlier.iter().map(pack));
    fields
}

pub fn repack(record: &RepackRecord) -> Fields {
    let mut fields = fields! { "session": record.session, "decision": record.decision };
    list(&mut fields, "applies-to", &record.applies_to);
    list(&mut fields, "pack", record.packs.iter().map(pack));
    let lead = |lead: &Lead| {
        let new: Vec<String> = lead.new.iter().map(ToString::to_string).collect();
        format!("{} {}", lead.old, new.join(" "))
    };
    list(&mut fields, "lead", record.leads.iter().map(lead));
    fields
}
