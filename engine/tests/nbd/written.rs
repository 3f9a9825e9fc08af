//! Disks that are written over NBD, by threads in any order.

use crate::disks::{KIB, MIB, settings};
use keepstone_engine::DiskTarget;
use keepstone_engine::nbd::{NbdError, NbdPlace, NbdSettings};
use keepstone_engine::target::{Existing, NbdTarget};
use std::io;
use std::sync::Mutex;
use std::thread;

/// A piece of a disk: where it begins, and its bytes, or how many zeros there are.
#[derive(Clone, Debug)]
pub enum Piece {
    Data(u64, Vec<u8>),
    Zeros(u64, u64),
}

/// Numbers that are the same in each run, by `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A disk of random data and holes, cut into pieces of odd lengths, in the order of the disk.
pub fn random_disk(seed: u64, size: u64, longest: u64) -> (Vec<u8>, Vec<Piece>) {
    let mut random = Random(seed);
    let (mut bytes, mut pieces) = (Vec::new(), Vec::new());
    while (bytes.len() as u64) < size {
        let start = bytes.len() as u64;
        let scale = if random.below(20) == 0 { 20 } else { 1 };
        let length = (1 + random.below(longest * scale)).min(size - start);
        if random.below(3) == 0 {
            bytes.resize(bytes.len() + usize::try_from(length).unwrap(), 0);
            pieces.push(Piece::Zeros(start, length));
        } else {
            let mut state = random.below(u64::MAX);
            let data = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            });
            let data: Vec<u8> = data.take(usize::try_from(length).unwrap()).collect();
            bytes.extend(&data);
            pieces.push(Piece::Data(start, data));
        }
    }
    (bytes, pieces)
}

/// The same pieces in another order: of all, or only of those that are near each other.
pub fn shuffled(mut pieces: Vec<Piece>, seed: u64, near: usize) -> Vec<Piece> {
    let mut random = Random(seed);
    for pieces in pieces.chunks_mut(near) {
        for position in (1..pieces.len()).rev() {
            let other = random.below(position as u64 + 1);
            pieces.swap(position, usize::try_from(other).unwrap());
        }
    }
    pieces
}

pub fn place(uri: &str) -> NbdPlace {
    NbdPlace::parse(uri).unwrap().unwrap()
}

pub fn open_target(uri: &str, size: u64) -> NbdTarget {
    target_with(uri, settings(), size).unwrap()
}

pub fn target_with(uri: &str, settings: NbdSettings, size: u64) -> Result<NbdTarget, NbdError> {
    NbdTarget::open(&place(uri), settings, size, Existing::Replace)
}

pub fn put(target: &dyn DiskTarget, piece: &Piece) -> io::Result<()> {
    match piece {
        Piece::Data(offset, data) => target.write_at(*offset, data),
        Piece::Zeros(offset, length) => target.zero_at(*offset, *length),
    }
}

/// Writes pieces with two threads, as a restore does, and finishes.
pub fn write(target: &dyn DiskTarget, pieces: Vec<Piece>) -> io::Result<()> {
    let pieces = Mutex::new(pieces.into_iter());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let next = || pieces.lock().unwrap().next();
                    while let Some(piece) = next() {
                        put(target, &piece)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread: thread::ScopedJoinHandle<'_, io::Result<()>>| thread.join().unwrap())
    })?;
    target.finish()
}

/// The whole disk in pieces of 64 KiB, all data.
pub fn in_pieces(bytes: &[u8]) -> Vec<Piece> {
    let offsets = (0..).step_by(usize::try_from(64 * KIB).unwrap());
    bytes
        .chunks(usize::try_from(64 * KIB).unwrap())
        .zip(offsets)
        .map(|(data, offset)| Piece::Data(offset, data.to_vec()))
        .collect()
}

/// A byte for each place, by a seed: none is zero.
pub fn full(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 512 + at / MIB + seed) % 255 + 1).unwrap()).collect()
}
