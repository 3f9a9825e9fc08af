//! What a store does that does not keep its promises.

use crate::faults::Kind;
use crate::world::{Site, World};
use keepstone_engine::BlobStore as _;
use repo_format::{BlobKind, BlobName, PackKind};
use std::collections::BTreeSet;

/// Changes that a store takes back at most.
const TAKEN_BACK: u64 = 12;

/// Harms the store once.
pub fn one(world: &World) {
    let kind = world
        .draw(|random| random.pick(&[Kind::Torn, Kind::Emptied, Kind::Lost, Kind::Lost, Kind::RolledBack]));
    world.note_fault(kind);
    if kind == Kind::RolledBack {
        let changes = world.draw(|random| 1 + random.below(TAKEN_BACK));
        return world.take_back(changes);
    }
    // First a kind of blobs, as there are many packs and few decisions.
    let mut names = world.truth.names();
    names.retain(|name| !matches!(name.kind(), Some(BlobKind::Config | BlobKind::KeySlot(_))));
    let prefixes: BTreeSet<char> = names.iter().filter_map(|name| name.as_str().chars().next()).collect();
    let prefixes: Vec<char> = prefixes.into_iter().collect();
    if prefixes.is_empty() {
        return;
    }
    let prefix = world.draw(|random| random.pick(&prefixes));
    names.retain(|name| name.as_str().starts_with(prefix));
    let name = world.draw(|random| names[random.index(names.len())].clone());
    let bytes = world.truth.get(&name, None).expect("a listed blob is there");
    match kind {
        Kind::Torn if !bytes.is_empty() => {
            let len = world.draw(|random| random.index(bytes.len()));
            world.truth.overwrite(&name, &bytes[..len]);
        }
        Kind::Lost => world.truth.delete(&name).expect("memory does not fail"),
        _ => world.truth.overwrite(&name, b""),
    }
    world.note("the store", "harms", name.as_str(), &format!("{kind:?}"));
}

/// Deletes a data pack that a snapshot may need.
pub fn lose_a_pack(world: &World, site: Site) {
    let is_data =
        |name: &BlobName| matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Data);
    if let Some(name) = world.at(site).names().into_iter().find(is_data) {
        world.at(site).delete(&name).expect("memory does not fail");
    }
}

/// What listings do not show: some blobs of one kind, or all behind one, or half of all.
pub fn hidden(world: &World) -> BTreeSet<BlobName> {
    let names = world.truth.names();
    let (way, prefix, from) = world.draw(|random| {
        let prefix = random.pick(&["r/", "r/", "r/", "s/", "f/", "gc/", "k/", "m/", "d/", "i/"]);
        (random.below(4), prefix, random.index(names.len()))
    });
    let in_prefix = names.iter().filter(|name| name.as_str().starts_with(prefix));
    let hidden: BTreeSet<BlobName> = match way {
        0 => return BTreeSet::new(),
        1 => in_prefix.filter(|_| world.draw(|random| random.one_in(3))).cloned().collect(),
        2 => in_prefix.filter(|name| **name >= names[from]).cloned().collect(),
        _ => names.iter().filter(|_| world.draw(|random| random.one_in(2))).cloned().collect(),
    };
    if !hidden.is_empty() {
        world.note_fault(Kind::ListMisses);
    }
    hidden.into_iter().filter(|name| !matches!(name.kind(), Some(BlobKind::KeySlot(_)))).collect()
}
