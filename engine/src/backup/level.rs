//! zstd's level while a backup runs.

use std::ops::RangeInclusive;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

/// How hard new chunks are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compression {
    /// At one of zstd's levels, 1 to 19.
    Level(i32),
    /// At whichever level lets neither the processors nor the store wait: one more while packs wait for the store, one
    /// less while the store waits for packs. So how chunks are stored depends on how fast things are; which are does not.
    Auto {
        /// The level to begin with.
        first: i32,
        /// Levels that are not left.
        bounds: RangeInclusive<i32>,
    },
}

/// Regions after which the level is thought about: enough new data for a few packs, and few enough that the level is
/// right soon.
const REGIONS: u32 = 8;
/// Of them, so many that all found the same to be slower make a difference.
const REGIONS_ALIKE: u32 = 6;

/// The level that is in use, and what there is to say for another one.
#[derive(Debug)]
pub(super) struct Level {
    bounds: RangeInclusive<i32>,
    current: AtomicI32,
}

/// What was seen since the level was thought about.
#[derive(Debug, Default)]
pub(super) struct Seen {
    regions: u32,
    store_was_slower: u32,
    processors_were_slower: u32,
}

/// Who waited for whom when a region's new chunks went into packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slower {
    /// They had to wait, because no more packs may be on their way.
    Store,
    /// No pack was on its way, while tasks waited for a processor.
    Processors,
    Neither,
}

impl Level {
    pub(super) fn new(compression: &Compression) -> Self {
        let (first, bounds) = match compression {
            Compression::Level(level) => (*level, *level..=*level),
            Compression::Auto { first, bounds } => (*first, bounds.clone()),
        };
        Self { current: AtomicI32::new(first), bounds }
    }

    pub(super) fn current(&self) -> i32 {
        self.current.load(Relaxed)
    }

    /// Takes notice of a region with new chunks, and now and then changes the level.
    pub(super) fn note(&self, seen: &mut Seen, slower: Slower) {
        seen.regions += 1;
        match slower {
            Slower::Store => seen.store_was_slower += 1,
            Slower::Processors => seen.processors_were_slower += 1,
            Slower::Neither => {}
        }
        if seen.regions < REGIONS {
            return;
        }
        let step = i32::from(seen.store_was_slower >= REGIONS_ALIKE)
            - i32::from(seen.processors_were_slower >= REGIONS_ALIKE);
        self.current.store((self.current() + step).clamp(*self.bounds.start(), *self.bounds.end()), Relaxed);
        *seen = Seen::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(compression: &Compression, noted: &[Slower]) -> Vec<i32> {
        let (level, mut seen) = (Level::new(compression), Seen::default());
        let mut levels = vec![level.current()];
        for &slower in noted {
            level.note(&mut seen, slower);
            if levels.last() != Some(&level.current()) {
                levels.push(level.current());
            }
        }
        levels
    }

    #[test]
    fn the_level_follows_the_slower_side_within_its_bounds() {
        let auto = Compression::Auto { first: 2, bounds: 1..=4 };
        assert_eq!(levels(&auto, &[Slower::Store; 100]), [2, 3, 4]);
        let turn = [[Slower::Store; 16].as_slice(), &[Slower::Processors; 100]].concat();
        assert_eq!(levels(&auto, &turn), [2, 3, 4, 3, 2, 1]);
        assert_eq!(levels(&auto, &[Slower::Neither; 100]), [2]);
    }

    #[test]
    fn a_mixture_changes_nothing_and_is_forgotten() {
        let mixture = [[Slower::Store; 5].as_slice(), &[Slower::Neither; 3]].concat().repeat(9);
        assert_eq!(levels(&Compression::Auto { first: 1, bounds: 1..=4 }, &mixture), [1]);
    }

    #[test]
    fn a_level_that_was_given_stays() {
        assert_eq!(levels(&Compression::Level(7), &[Slower::Store; 100]), [7]);
        assert_eq!(levels(&Compression::Level(7), &[Slower::Processors; 100]), [7]);
    }
}
