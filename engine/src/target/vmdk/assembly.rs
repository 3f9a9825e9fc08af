//! Grains that were written in part.

use super::layout::GRAIN;
use crate::frames::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The pieces of grains, until nothing of a grain is missing. Their memory is that of the data in them.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    grains: Mutex<BTreeMap<u64, Pieces>>,
}

/// The data of a grain, by where it goes; the rest is zero.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Bytes that are known, with those that are zero.
    known: u64,
    data: Vec<(u64, Vec<u8>)>,
}

impl Assembly {
    /// Adds a piece of a grain of `grain_len` bytes: `length` bytes at `start`, zeros unless there is data. Returns
    /// the grain if nothing of it is missing.
    pub(super) fn add(
        &self,
        grain: u64,
        grain_len: u64,
        (start, length): (u64, u64),
        data: Option<&[u8]>,
    ) -> Option<Pieces> {
        let data = data.map(<[u8]>::to_vec);
        let mut grains = lock(&self.grains);
        let pieces = grains.entry(grain).or_default();
        pieces.known += length;
        pieces.data.extend(data.map(|data| (start, data)));
        if pieces.known < grain_len { None } else { grains.remove(&grain) }
    }
}

impl Pieces {
    /// Puts the grain together. Nothing if all of it is zero.
    pub(super) fn joined(&self, grain: &mut [u8]) -> bool {
        debug_assert_eq!(crate::target::len_of(grain), GRAIN);
        grain.fill(0);
        for (start, data) in &self.data {
            let start = usize::try_from(*start).expect("a place in a grain");
            grain[start..start + data.len()].copy_from_slice(data);
        }
        !self.data.is_empty()
    }
}
