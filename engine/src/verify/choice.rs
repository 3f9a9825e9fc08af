//! Which packs a run reads whole, and what is known of all of them.
//!
//! A part of the packs is so many bytes of them, at least one pack, in this order: those that were never read, the
//! ones that were seen first before others; then the one that was read longest ago. Each part of 1/n has at least 1/n
//! of the bytes, so n of them hold everything that was there at the first one; and what is added meanwhile is behind
//! at most as much, so that it takes no more of them.
//!
//! Packs that are known to be damaged are read besides, in every run: they do not keep others from being read, and no
//! run calls a repository sound in which they are.

use super::inventory::{Inventory, PackState};
use super::memory::{Key, Memory, Record, State};
use super::report::{ReadData, Verified};
use repo_format::PackName;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Parts per million of the whole.
const WHOLE: u128 = 1_000_000;

/// The packs that a run needs, with what is remembered of them.
pub(super) struct Remembered<'m> {
    memory: &'m mut Memory,
    /// Now, milliseconds since 1970.
    time: u64,
    packs: BTreeMap<PackName, Needed>,
}

/// A pack that is there.
#[derive(Clone, Copy)]
struct Needed {
    key: Key,
    len: u64,
    /// Whether it has the length that maps say.
    is_fine: bool,
}

impl<'m> Remembered<'m> {
    /// Begins with the packs that snapshots need; those that are gone from the repository are forgotten.
    pub(super) fn begin(
        memory: &'m mut Memory,
        time: u64,
        inventory: &Inventory<'_, '_>,
        packs: &BTreeMap<PackName, PackState>,
    ) -> Self {
        let lens: HashMap<PackName, u64> = inventory.present();
        let mut needed = BTreeMap::new();
        for (name, state) in packs {
            if let Some(len) = lens.get(name) {
                let is_fine = *state == PackState::Fine;
                needed.insert(name.clone(), Needed { key: memory.key(name, *len), len: *len, is_fine });
            }
        }
        let mut there: HashSet<Key> = inventory.listed().map(|(name, len)| memory.key(name, len)).collect();
        there.extend(needed.values().map(|needed| needed.key));
        memory.begin(time, &there);
        for needed in needed.values().filter(|needed| needed.is_fine) {
            memory.note(needed.key, State::Seen, time);
        }
        memory.save(time);
        Self { memory, time, packs: needed }
    }

    /// Chooses the packs that are read whole; one with another length than maps say is tried with any of them.
    pub(super) fn chosen(
        &self,
        packs: &BTreeMap<PackName, PackState>,
        read_data: ReadData,
    ) -> BTreeMap<PackName, PackState> {
        let part = match read_data {
            ReadData::Everything => return packs.clone(),
            ReadData::Nothing => HashSet::new(),
            ReadData::Part { ppm } => self.part(ppm),
        };
        let is_chosen = |name: &PackName| {
            self.packs.get(name).is_some_and(|needed| {
                part.contains(&needed.key)
                    || self.is_damaged(needed)
                    || (!needed.is_fine && read_data != ReadData::Nothing)
            })
        };
        packs.iter().filter(|(name, _)| is_chosen(name)).map(|(name, state)| (name.clone(), *state)).collect()
    }

    fn is_damaged(&self, needed: &Needed) -> bool {
        self.memory.get(needed.key).is_some_and(|known| known.state == State::Damaged)
    }

    fn part(&self, ppm: u32) -> HashSet<Key> {
        let total: u128 = self.packs.values().map(|needed| u128::from(needed.len)).sum();
        let share = (total * u128::from(ppm)).div_ceil(WHOLE);
        let of_part = self.packs.values().filter(|needed| needed.is_fine);
        let mut queue: Vec<(Record, Key, u64)> = of_part
            .filter_map(|needed| Some((self.memory.get(needed.key)?, needed.key, needed.len)))
            .filter(|(known, _, _)| known.state != State::Damaged)
            .collect();
        queue.sort_unstable_by_key(|(known, key, _)| (known.state, known.time, *key));
        let mut chosen = HashSet::new();
        let mut bytes = 0;
        for (_, key, len) in queue {
            if !chosen.is_empty() && bytes >= share {
                break;
            }
            bytes += u128::from(len);
            chosen.insert(key);
        }
        chosen
    }

    /// The place of a pack in the order of reading: a run that is cut off is to have read what was read longest ago.
    pub(super) fn turn(&self, pack: &PackName) -> Option<(State, u64)> {
        let known = self.memory.get(self.packs.get(pack)?.key)?;
        Some((known.state, known.time))
    }

    /// Remembers what reading packs gave, and saves it.
    pub(super) fn note(&mut self, read: impl IntoIterator<Item = (PackName, State)>) {
        for (name, state) in read {
            if let Some(needed) = self.packs.get(&name).filter(|needed| needed.is_fine) {
                self.memory.note(needed.key, state, self.time);
            }
        }
        self.memory.save(self.time);
    }

    /// Leaves out packs that turned out to be missing.
    pub(super) fn leave_out(&mut self, missing: impl IntoIterator<Item = PackName>) {
        for name in missing {
            self.packs.remove(&name);
        }
    }

    /// What is known of all packs that are needed.
    pub(super) fn verified(&self) -> Verified {
        let mut verified = Verified::default();
        for needed in self.packs.values() {
            match self.memory.get(needed.key) {
                _ if !needed.is_fine => verified.damaged_bytes += needed.len,
                Some(Record { state: State::Damaged, .. }) => verified.damaged_bytes += needed.len,
                Some(Record { state: State::Sound, time }) => {
                    verified.bytes += needed.len;
                    verified.oldest = Some(verified.oldest.map_or(time, |oldest| oldest.min(time)));
                }
                Some(Record { state: State::Seen, .. }) | None => verified.never_bytes += needed.len,
            }
        }
        verified
    }
}
