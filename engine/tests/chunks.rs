//! The vectors of SPEC 8.1: where chunks end and what is a hole, told by another implementation of the chunkers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../repo-format/tests/specification/vector.rs"]
mod vector;

use keepstone_engine::Extent;
use keepstone_engine::chunker::Chunker;
use keepstone_engine::rechunk::{Content, OldPiece, rechunk};
use keepstone_engine::region::RegionPool;
use keepstone_engine::source::MemoryDisk;
use repo_format::{ChunkerName, ChunkerParams};
use std::collections::BTreeMap;
use vector::{Vector, unhex};

/// A disk, and the extents of it that are not known to be zero.
fn disk(vector: &Vector) -> (Vec<u8>, Vec<Extent>) {
    let (mut bytes, mut allocated): (Vec<u8>, Vec<Extent>) = (Vec::new(), Vec::new());
    for piece in vector.inputs("piece") {
        let (kind, rest) = piece.split_once(' ').unwrap();
        let (what, length) = rest.split_once(' ').unwrap();
        let (start, length): (_, usize) = (bytes.len(), length.parse().unwrap());
        bytes.resize(start + length, 0);
        match kind {
            "random" => {
                blake3::Hasher::new().update(what.as_bytes()).finalize_xof().fill(&mut bytes[start..]);
            }
            "byte" => bytes[start..].fill(unhex(what)[0]),
            other => panic!("{}: {other} is no piece", vector.name),
        }
        let zeros = kind == "byte" && unhex(what) == [0];
        match allocated.last_mut() {
            _ if zeros => {}
            Some(last) if last.end() == start as u64 => last.length += length as u64,
            _ => allocated.push(Extent { start: start as u64, length: length as u64 }),
        }
    }
    (bytes, allocated)
}

/// The pieces of each region, as vectors tell them. `areas` are read, all else is known to be zero.
fn regions(vector: &Vector, disk: &MemoryDisk, areas: &[Extent]) -> BTreeMap<String, String> {
    let (min, average, max) = (vector.number("min"), vector.number("average"), vector.number("max"));
    let name = ChunkerName::parse(vector.input("chunker")).unwrap();
    let params = ChunkerParams { name, min, average, max };
    let chunker = Chunker::new(&params, vector.number("seed"));
    let region_len: u32 = vector.number("region-len");
    let pool = RegionPool::new(region_len);
    let size = disk.bytes.len() as u64;
    let region = |(number, start): (usize, u64)| {
        let length = (size - start).min(u64::from(region_len));
        let mut buffer = pool.region(disk, Extent { start, length });
        let hole = [OldPiece { start: 0, len: buffer.len(), hole: true }];
        let pieces = rechunk(&chunker, &mut buffer, &hole, areas, |_| ()).unwrap();
        let text: Vec<String> = pieces
            .iter()
            .map(|piece| {
                format!("{}{}", if piece.content == Content::Fresh(()) { 'c' } else { 'h' }, piece.len)
            })
            .collect();
        (format!("region.{number}"), text.join(" "))
    };
    (0..size).step_by(region_len as usize).enumerate().map(region).collect()
}

#[test]
fn chunks_end_where_the_vectors_say() {
    let vectors: Vec<Vector> = Vector::all().into_iter().filter(|vector| vector.object == "chunks").collect();
    assert!(vectors.len() > 35, "{} vectors are few", vectors.len());
    for vector in vectors {
        let (bytes, allocated) = disk(&vector);
        let disk = MemoryDisk::new(bytes);
        let all = [Extent { start: 0, length: disk.bytes.len() as u64 }];
        assert_eq!(regions(&vector, &disk, &all), vector.fields, "{}", vector.name);
        assert_eq!(regions(&vector, &disk, &allocated), vector.fields, "{}, zeros known", vector.name);
    }
}
