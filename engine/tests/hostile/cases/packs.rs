//! Chunks and packs: authentic, but not what they say they are.

use crate::Case;
use crate::forge::{Forged, World, pack_name};
use crate::raw::Raw;
use crate::verbs::Verb;
use repo_format::{
    Child, Codec, Entry, FrameKind, Location, Node, PACK_HEADER_LEN, PackHeader, PackKind, Page, PayloadId,
    SealedKind, encode_directory, open_directory, seal,
};

const BAD_ZSTD: &str = "Unrestorable > Damaged > BadZstd";
const BAD_TAG: &str = "Unrestorable > Damaged > BadTag";

/// How verbs end if the thief's pack is authentic and a chunk in it is not the one that its id calls for.
macro_rules! bad_chunk {
    ($end:expr) => {
        &[(Verb::Restore, $end), (Verb::VerifyData, "DamagedPack"), (Verb::After, "DamagedPack")]
    };
}

pub const CASES: &[Case] = &[
    Case {
        name: "a zstd frame of 16 GiB in the place of a small chunk",
        build: || zstd_chunk(&zstd(&[0xc0, 0x58], &(16_u64 << 30).to_le_bytes(), 131_072, &[])),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame that says to be small and expands to 100 MiB",
        build: || zstd_chunk(&zstd(&[0x60], &SMALL, 800, &[])),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame without its content's size",
        build: || zstd_chunk(&zstd(&[0x00, 0x58], &[], 0, &last_block(LEN))),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame with a window of 2^41 bytes",
        build: || zstd_chunk(&zstd(&[0x80, 0xff], &LEN.to_le_bytes(), 0, &last_block(LEN))),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame with a window of 16 MiB",
        build: || zstd_chunk(&zstd(&[0x80, 0x70], &LEN.to_le_bytes(), 0, &last_block(LEN))),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "two zstd frames in one",
        build: || {
            let half = zstd(&[0x60], &(2048_u16 - 256).to_le_bytes(), 0, &last_block(2048));
            zstd_chunk(&[half.clone(), half].concat())
        },
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a skippable frame before a zstd frame",
        build: || zstd_chunk(&[&SKIPPABLE, valid_zstd().as_slice()].concat()),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a skippable frame behind a zstd frame",
        build: || zstd_chunk(&[valid_zstd().as_slice(), &SKIPPABLE].concat()),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame with a dictionary",
        build: || zstd_chunk(&zstd(&[0x61, 0x07], &SMALL, 0, &last_block(LEN))),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame with another size of its content",
        build: || zstd_chunk(&zstd(&[0x60], &(LEN_16 - 255).to_le_bytes(), 0, &last_block(LEN + 1))),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame with less content than it says",
        build: || zstd_chunk(&zstd(&[0x60], &SMALL, 0, &last_block(LEN - 1))),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame with bytes behind it",
        build: || zstd_chunk(&[valid_zstd().as_slice(), b"more"].concat()),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame with a reserved bit",
        build: || zstd_chunk(&zstd(&[0x68], &SMALL, 0, &last_block(LEN))),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a zstd frame without an end",
        build: || zstd_chunk(&zstd(&[0x60], &SMALL, 0, &[])),
        expected: bad_chunk!(BAD_ZSTD),
    },
    Case {
        name: "a thousand empty blocks in a zstd frame",
        build: || zstd_chunk(&zstd(&[0x60], &SMALL, 0, &[[0; 3].repeat(1000), last_block(LEN)].concat())),
        expected: &[],
    },
    Case {
        name: "a chunk under another one's id",
        build: || {
            let world = World::new();
            let id = PayloadId([7; 32]);
            chunk(world, |keys| Forged { id, ..Forged::raw(keys, FrameKind::Chunk, &[1; LEN as usize]) })
        },
        expected: bad_chunk!("Unrestorable > Damaged > WrongId"),
    },
    Case {
        name: "a chunk that its page says to be shorter",
        build: || page_of_chunk(|at| Location { plain_len: 2048, stored_len: 2048 + 16, ..at }, 2),
        expected: LYING_PAGE,
    },
    Case {
        name: "two chunks that overlap in their pack",
        build: || page_of_chunk(|at| Location { offset: at.offset + 1, ..at }, 1),
        expected: LYING_PAGE,
    },
    Case {
        name: "a chunk that its page says to lie in the pack's directory",
        build: || page_of_chunk(|at| Location { offset: at.offset + 200, ..at }, 1),
        expected: LYING_PAGE,
    },
    Case {
        name: "a chunk in a pack that its page says to be longer",
        build: || {
            page_of_chunk(
                |at| Location {
                    pack: repo_format::PackRef { len: 1 << 20, ..at.pack },
                    offset: 1 << 19,
                    ..at
                },
                1,
            )
        },
        expected: &[
            (Verb::Restore, "Unrestorable > Short"),
            (Verb::Verify, "WrongLength"),
            (Verb::VerifyData, "WrongLength"),
            (Verb::After, "WrongLength"),
        ],
    },
    Case {
        name: "a pack with an unknown flag",
        build: || header(|bytes| bytes[11] = 1),
        expected: bad_chunk!("Unrestorable > Damaged > BadFlags"),
    },
    Case {
        name: "a pack of a newer format",
        build: || header(|bytes| bytes[8] = 1),
        expected: bad_chunk!("Unrestorable > Damaged > UnsupportedVersion"),
    },
    Case {
        name: "a data pack that says to be a map pack",
        build: || header(|bytes| bytes[10] = 2),
        expected: bad_chunk!("Unrestorable > Damaged > BadFlags"),
    },
    Case {
        name: "a pack whose directory is 2^32-1 bytes behind its start",
        build: || header(|bytes| bytes[12..16].fill(0xff)),
        expected: bad_chunk!("Unrestorable > Damaged > LimitExceeded"),
    },
    Case {
        name: "a pack with 2^32-1 frames",
        build: || header(|bytes| bytes[20..24].fill(0xff)),
        expected: bad_chunk!("Unrestorable > Damaged > the frames of a pack do not fit before its directory"),
    },
    Case {
        name: "a pack whose key hash belongs to other frames",
        build: || header(|bytes| bytes[64] ^= 1),
        expected: &[
            (Verb::Restore, BAD_TAG),
            (Verb::VerifyData, "DamagedPack"),
            (Verb::After, "DamagedPack"),
        ],
    },
    Case {
        name: "a session key that was sealed for another session",
        build: || {
            let world = chunk(World::new(), |keys| Forged::raw(keys, FrameKind::Chunk, &[1; LEN as usize]));
            let honest = world.store.names().into_iter().find(|name| name.as_str().starts_with("d/host-a/"));
            let honest = world.get(&honest.unwrap());
            change_header(&world, |bytes| bytes[96..176].copy_from_slice(&honest[96..176]));
            world
        },
        expected: bad_chunk!("Unrestorable > Damaged > BadTag"),
    },
    Case {
        name: "a pack whose directory names other chunks than its frames are",
        build: || directory(|entries| entries[0].1.id = PayloadId([7; 32])),
        expected: &[(Verb::VerifyData, "DamagedPack"), (Verb::After, "DamagedPack")],
    },
    Case {
        name: "a pack whose directory has other lengths than its frames",
        build: || directory(|entries| (entries[0].1.codec, entries[0].1.plain_len) = (Codec::Zstd, LEN + 1)),
        expected: &[(Verb::VerifyData, "DamagedPack"), (Verb::After, "DamagedPack")],
    },
    Case {
        name: "a directory of 2^32-1 frames",
        build: || raw_directory(|_| Raw::new().u32(u32::MAX).put(&[0; 42]).0),
        expected: &[(Verb::VerifyData, "DamagedPack"), (Verb::After, "DamagedPack")],
    },
];

const LYING_PAGE: &[(Verb, &str)] =
    &[(Verb::Restore, BAD_TAG), (Verb::VerifyData, "ContradictoryMap"), (Verb::After, "ContradictoryMap")];

const LEN: u32 = 4096;
const LEN_16: u16 = 4096;
/// The content's size as a zstd frame has it in two bytes.
const SMALL: [u8; 2] = (LEN_16 - 256).to_le_bytes();
const SKIPPABLE: [u8; 12] = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];

/// A zstd frame: its descriptor with window or dictionary, its content's size, so many blocks of 128 KiB of zeros, and
/// other blocks.
fn zstd(descriptor: &[u8], content_len: &[u8], zero_blocks: usize, blocks: &[u8]) -> Vec<u8> {
    let zero_block = [&(((128_u32 << 10) << 3) | 2).to_le_bytes()[..3], &[0]].concat();
    [&[0x28, 0xb5, 0x2f, 0xfd], descriptor, content_len, &zero_block.repeat(zero_blocks), blocks].concat()
}

/// The last block of a zstd frame: so many zeros.
fn last_block(len: u32) -> Vec<u8> {
    [&((len << 3) | 3).to_le_bytes()[..3], &[0]].concat()
}

fn valid_zstd() -> Vec<u8> {
    zstd(&[0x60], &SMALL, 0, &last_block(LEN))
}

/// A snapshot of a disk of one chunk that was forged.
fn chunk(world: World, forge: impl Fn(&repo_format::Keys) -> Forged) -> World {
    let frame = forge(&world.keys);
    // A second chunk, so that what is said of the first one may reach too far and still lie in the pack.
    let other = Forged::raw(&world.keys, FrameKind::Chunk, &crate::world::noise(5, LEN as usize));
    let at = world.store_frames(PackKind::Data, 0, &[frame, other]).remove(0);
    commit_chunks(world, vec![at])
}

fn commit_chunks(mut world: World, chunks: Vec<Location>) -> World {
    let size = chunks.iter().map(|at| u64::from(at.plain_len)).sum();
    let page = Page { first: 0, entries: chunks.into_iter().map(Entry::Chunk).collect() };
    let at = world.store(FrameKind::Page, 0, &page.encode());
    let node = Node { level: 1, children: vec![Child::Stored { at, names: page.packs() }] };
    let root = world.store_node(1, &node);
    world.commit_map(size, root);
    world.first.commit.disks[0].change_id.as_ref().unwrap();
    world
}

fn zstd_chunk(encoded: &[u8]) -> World {
    let world = World::new();
    let plain_len = LEN.max(u32::try_from(encoded.len()).unwrap() + 1);
    if plain_len == LEN {
        return chunk(world, |keys| Forged::zstd_chunk(keys, LEN, encoded.to_vec()));
    }
    // A frame is shorter than its payload, and a chunk of this config at most 4 KiB: the bomb needs larger ones.
    let mut geometry = world.geometry;
    (geometry.chunker.max, geometry.cell_len, geometry.region_len) = (1 << 20, 1 << 20, 1 << 20);
    chunk(World::with(geometry), |keys| Forged::zstd_chunk(keys, plain_len, encoded.to_vec()))
}

/// A snapshot whose page says something else of its chunk, so many times.
fn page_of_chunk(change: impl Fn(Location) -> Location, times: usize) -> World {
    let world = World::new();
    let chunks = [crate::world::noise(1, LEN as usize), crate::world::noise(2, LEN as usize)];
    let frames = chunks.map(|chunk| Forged::raw(&world.keys, FrameKind::Chunk, &chunk));
    let at = change(world.store_frames(PackKind::Data, 0, &frames).remove(0));
    commit_chunks(world, vec![at; times])
}

fn change_header(world: &World, change: impl Fn(&mut [u8])) {
    let name = pack_name(PackKind::Data, 0).blob();
    let mut blob = world.get(&name);
    change(&mut blob);
    world.put(&name, &blob);
}

fn header(change: impl Fn(&mut [u8])) -> World {
    let world = chunk(World::new(), |keys| Forged::raw(keys, FrameKind::Chunk, &[1; LEN as usize]));
    change_header(&world, change);
    world
}

fn directory(change: impl Fn(&mut Vec<(u32, repo_format::FrameEntry)>)) -> World {
    raw_directory(|mut entries| {
        change(&mut entries);
        encode_directory(&entries.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>())
    })
}

/// Seals another directory for the thief's pack, of the same length.
fn raw_directory(plaintext: impl Fn(Vec<(u32, repo_format::FrameEntry)>) -> Vec<u8>) -> World {
    let world = chunk(World::new(), |keys| Forged::raw(keys, FrameKind::Chunk, &[1; LEN as usize]));
    let name = pack_name(PackKind::Data, 0);
    let mut blob = world.get(&name.blob());
    let header = PackHeader::parse(&blob[..PACK_HEADER_LEN]).unwrap();
    let at = header.directory_offset as usize;
    let entries = open_directory(&world.keys, &name, &header, &blob[at..]).unwrap();
    let mut plaintext = plaintext(entries);
    plaintext.resize(4 + 2 * 42, 0);
    blob.truncate(at);
    blob.extend(seal(&world.keys, SealedKind::PackDirectory, &name.blob(), [3; 32], &plaintext));
    world.put(&name.blob(), &blob);
    world
}
