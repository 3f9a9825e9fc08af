//! Disks in pieces of any length, in any order, from several threads.

use crate::{Form, check, qemu};
use keepstone_engine::DiskTarget;
use proptest::prelude::*;
use std::{fmt, fs};
use tempfile::TempDir;

const THREADS: usize = 3;

/// What is in a piece.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Told to be zero.
    Hole,
    /// Written, and zero.
    Zeros,
    /// A byte that is repeated.
    Same(u8),
    /// Incompressible.
    Noise(u64),
}

#[derive(Clone)]
struct Piece {
    start: usize,
    bytes: Vec<u8>,
    is_hole: bool,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, bytes, is_hole } = self;
        write!(f, "{} bytes at {start}, {:?}, hole: {is_hole}", bytes.len(), bytes.first())
    }
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        3 => Just(Content::Hole),
        1 => Just(Content::Zeros),
        2 => (1..=u8::MAX).prop_map(Content::Same),
        3 => (1..u64::MAX).prop_map(Content::Noise),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 1..2000usize,
        3 => 1..200_000usize,
        1 => 1..700_000usize,
        1 => (1..8usize).prop_map(|clusters| clusters << 16),
    ]
}

/// Pieces that cover a disk, shuffled.
fn pieces() -> impl Strategy<Value = (usize, Vec<Piece>)> {
    proptest::collection::vec((length(), content()), 1..40).prop_flat_map(|all| {
        let mut start = 0;
        let pieces: Vec<Piece> = all
            .into_iter()
            .map(|(length, content)| {
                let bytes = match content {
                    Content::Hole | Content::Zeros => vec![0; length],
                    Content::Same(byte) => vec![byte; length],
                    Content::Noise(seed) => noise(seed, length),
                };
                start += length;
                Piece { start: start - length, bytes, is_hole: matches!(content, Content::Hole) }
            })
            .collect();
        (Just(start), Just(pieces).prop_shuffle())
    })
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

fn write(target: &dyn DiskTarget, pieces: &[Piece]) {
    std::thread::scope(|threads| {
        for first in 0..THREADS {
            threads.spawn(move || {
                for Piece { start, bytes, is_hole } in pieces.iter().skip(first).step_by(THREADS) {
                    let start = u64::try_from(*start).unwrap();
                    if *is_hole {
                        target.zero_at(start, bytes.len() as u64).unwrap();
                    } else {
                        target.write_at(start, bytes).unwrap();
                    }
                }
            });
        }
    });
    target.finish().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn pieces_in_any_order_become_the_disk((size, pieces) in pieces()) {
        let mut disk = vec![0; size];
        for Piece { start, bytes, .. } in &pieces {
            disk[*start..][..bytes.len()].copy_from_slice(bytes);
        }
        let dir = TempDir::new().unwrap();
        for form in Form::ALL {
            let image = dir.path().join(form.name());
            let disk_bytes = u64::try_from(size).unwrap();
            write(form.create(&image, disk_bytes).unwrap().as_ref(), &pieces);
            check(form, &image, disk_bytes);
            let raw = dir.path().join("read");
            let [image, out] = [&image, &raw].map(|path| path.to_str().unwrap());
            qemu("qemu-img", &["convert", "-f", form.name(), "-O", "raw", image, out]);
            let mut expected = disk.clone();
            expected.resize(size.next_multiple_of(usize::try_from(form.unit()).unwrap()), 0);
            prop_assert!(fs::read(&raw).unwrap() == expected, "{:?}", form);
        }
    }
}
