//! Packs that are missing, cut off or damaged.

use crate::lab::{run, world};
use crate::world::open;
use keepstone_engine::BlobStore;
use keepstone_engine::verify::FindingKind;
use repo_format::{BlobKind, PackKind};

#[test]
fn a_missing_data_pack_is_named_with_what_is_lost() {
    for read_data in [false, true] {
        let world = world();
        let repository = open(&world.store);
        let pack = world.packs(PackKind::Data, &world.first)[2].clone();
        let affected = world.affected(&repository, &world.frames(repository.keys(), &pack));
        assert!(!affected.is_empty());
        world.store.delete(&pack.blob()).unwrap();
        // Its chunks are still in an index.
        let mut report = run(&world.store, read_data);
        let stale = report.findings.pop().unwrap();
        assert_eq!((stale.kind, stale.is_damage()), (FindingKind::StaleIndex, false));
        world.expect(&report, FindingKind::MissingPack, &pack.blob(), &affected);
    }
}

#[test]
fn a_truncated_data_pack_loses_what_was_cut_off() {
    for read_data in [false, true] {
        let world = world();
        let repository = open(&world.store);
        let pack = world.packs(PackKind::Data, &world.first)[1].clone();
        let frames = world.frames(repository.keys(), &pack);
        let cut = frames.len() / 2;
        let affected = world.affected(&repository, &frames[cut..]);
        let bytes = world.get(&pack.blob());
        world.store.overwrite(&pack.blob(), &bytes[..frames[cut].0 as usize + 3]);
        let mut report = run(&world.store, read_data);
        assert_eq!(report.findings.pop().unwrap().kind, FindingKind::StaleIndex);
        world.expect(&report, FindingKind::WrongLength, &pack.blob(), &affected);
    }
}

#[test]
fn an_empty_data_pack_loses_everything_in_it() {
    let world = world();
    let repository = open(&world.store);
    let pack = world.packs(PackKind::Data, &world.other)[0].clone();
    let affected = world.affected(&repository, &world.frames(repository.keys(), &pack));
    world.store.overwrite(&pack.blob(), &[]);
    let mut report = run(&world.store, true);
    assert_eq!(report.findings.pop().unwrap().kind, FindingKind::StaleIndex);
    world.expect(&report, FindingKind::WrongLength, &pack.blob(), &affected);
}

#[test]
fn a_flipped_bit_in_a_chunk_loses_that_chunk() {
    let world = world();
    let repository = open(&world.store);
    let pack = world.packs(PackKind::Data, &world.first)[0].clone();
    let frames = world.frames(repository.keys(), &pack);
    let damaged = [frames[3], frames[9]];
    let affected = world.affected(&repository, &damaged);
    let mut bytes = world.get(&pack.blob());
    for (offset, frame) in damaged {
        bytes[(offset + frame.stored_len / 2) as usize] ^= 4;
    }
    world.store.overwrite(&pack.blob(), &bytes);
    assert_eq!(run(&world.store, false).findings, []);
    world.expect(&run(&world.store, true), FindingKind::DamagedPack, &pack.blob(), &affected);
}

#[test]
fn a_damaged_header_loses_the_pack_and_a_damaged_directory_nothing() {
    let world = world();
    let repository = open(&world.store);
    let pack = world.packs(PackKind::Data, &world.other)[1].clone();
    let affected = world.affected(&repository, &world.frames(repository.keys(), &pack));
    let bytes = world.get(&pack.blob());
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        world.store.overwrite(&pack.blob(), &bytes);
        run(&world.store, true)
    };
    for at in [0, 40, 70, 100, 140] {
        world.expect(&flipped(at), FindingKind::DamagedPack, &pack.blob(), &affected);
    }
    world.expect(&flipped(bytes.len() - 30), FindingKind::DamagedPack, &pack.blob(), &[]);
}

#[test]
fn a_pack_in_the_place_of_another_is_damage() {
    let world = world();
    let repository = open(&world.store);
    let packs = world.packs(PackKind::Data, &world.first);
    let affected = world.affected(&repository, &world.frames(repository.keys(), &packs[1]));
    let mut bytes = world.get(&packs[2].blob());
    bytes.resize(world.get(&packs[1].blob()).len(), 0);
    world.store.overwrite(&packs[1].blob(), &bytes);
    world.expect(&run(&world.store, true), FindingKind::DamagedPack, &packs[1].blob(), &affected);
}

#[test]
fn every_byte_of_every_pack_matters() {
    let world = world();
    for name in world.store.names() {
        let Some(BlobKind::Pack(_)) = name.kind() else { continue };
        let bytes = world.get(&name);
        for at in (0..bytes.len()).step_by(bytes.len() / 3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            world.store.overwrite(&name, &damaged);
            let report = run(&world.store, true);
            let found: Vec<_> =
                report.findings.iter().map(|found| (found.kind, found.blob.as_str())).collect();
            assert_eq!(found, [(FindingKind::DamagedPack, name.as_str())], "byte {at}");
        }
        world.store.overwrite(&name, &bytes);
    }
}
