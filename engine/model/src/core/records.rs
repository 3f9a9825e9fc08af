//! Where names lead through repack records, and what is condemned.

use super::Protocol;
use super::config::World;
use super::rules::Broken;
use super::state::{Listed, PACKS, State};
use crate::set::{Packs, Sessions, Set};

/// Where names lead.
pub(super) struct Trail {
    /// The packs at the end.
    pub(super) ends: Packs,
    /// All packs on the way, the names included.
    pub(super) packs: Packs,
    /// The records that were passed.
    pub(super) records: Sessions,
}

impl Trail {
    /// The ends, if they are there, else all packs on the way.
    pub(super) fn kept(&self, there: Packs) -> Packs {
        if self.records.is_empty() || self.ends.is_within(there) { self.ends } else { self.packs }
    }
}

/// The session that a pack belongs to.
pub(super) fn owner(pack: usize) -> usize {
    pack / 2
}

/// The packs of some sessions.
pub(super) fn packs_of(sessions: Sessions) -> Packs {
    sessions.iter().flat_map(|session| [2 * session, 2 * session + 1]).collect()
}

impl State {
    /// Sessions that have a decision or a tombstone.
    pub(super) fn decided(&self) -> Sessions {
        self.commits | self.aborts | self.tombstones | self.forged.aborts
    }

    /// What the results that were published so far delete.
    pub(super) fn published_deletes(&self) -> Packs {
        self.generations.iter().fold(Set::EMPTY, |packs, generation| packs | generation.delete)
    }

    /// The packs that a root names, or those that a record moves.
    pub(super) fn names(&self, session: usize) -> Packs {
        self.tables[session].iter().fold(Set::EMPTY, |names, packs| names | *packs)
    }

    /// Records among `known` that apply to a root: they list it, or it lists them in its `via`.
    pub(super) fn applying(&self, root: usize, known: Sessions) -> Sessions {
        let listed = known.iter().filter(|&record| {
            if self.forged.records.has(record) { root == 0 } else { self.links[record].has(root) }
        });
        self.links[root] | listed.collect()
    }
}

impl Protocol {
    /// Roots: COMMITs of backups without a tombstone.
    pub(super) fn valid(&self, state: &State) -> Sessions {
        state.commits - state.tombstones - self.config.repacks
    }

    /// What is taken for valid roots.
    pub(super) fn believed_valid(&self, state: &State) -> Sessions {
        if self.config.breaks(Broken::UnsignedTombstonesBelieved) {
            return self.valid(state) - state.forged.tombstones;
        }
        self.valid(state)
    }

    /// The pack of `session` that an entry is put in, if it stores it.
    pub(super) fn own_pack(&self, session: usize, entry: usize) -> usize {
        let is_spread = self.config.has(World::TwoPacks) || self.config.has(World::Spread);
        2 * session + if is_spread { entry % 2 } else { 0 }
    }

    /// What is taken for records that count. They do if they are there, signed, and decided by a COMMIT.
    pub(super) fn believed_records(&self, state: &State) -> Sessions {
        let mut records = state.records & state.commits;
        if self.config.breaks(Broken::UndecidedRecordsCount) {
            records = state.records - state.aborts;
        }
        if self.config.breaks(Broken::UnreadableRecordSkipped) {
            records -= state.unreadable;
        }
        if self.config.breaks(Broken::UnsignedRecordsBelieved) {
            records |= state.forged.records & state.commits;
        }
        records
    }

    /// Whether the decision of a record cannot be read, so that nobody can say whether the record counts.
    pub(super) fn records_are_unreadable(&self, state: &State) -> bool {
        state.records.meets(state.commits & state.unreadable)
            && !self.config.breaks(Broken::UnreadableRecordSkipped)
    }

    /// The packs that a record leads to from one of the packs that it moves, else none.
    pub(super) fn lead(&self, state: &State, record: usize, pack: usize) -> Packs {
        if state.forged.records.has(record) {
            return if owner(pack) == 0 { Set::of(2 * record) } else { Set::EMPTY };
        }
        let moved = (0..PACKS).filter(|&entry| state.tables[record][entry].has(pack));
        moved.map(|entry| self.own_pack(record, entry)).collect()
    }

    /// Where names lead through records. Several records that move one pack lead to all their packs.
    pub(super) fn follow(&self, state: &State, names: Packs, records: Sessions) -> Trail {
        let mut trail = Trail { ends: Set::EMPTY, packs: names, records: Set::EMPTY };
        if records.is_empty() {
            trail.ends = names;
            return trail;
        }
        let mut rest = names;
        while let Some(pack) = rest.first() {
            rest.remove(pack);
            let mut is_moved = false;
            for record in records.iter() {
                let lead = self.lead(state, record, pack);
                if lead.is_empty() {
                    continue;
                }
                is_moved = true;
                trail.records.insert(record);
                rest |= lead - trail.packs;
                trail.packs |= lead;
            }
            if !is_moved {
                trail.ends.insert(pack);
            }
        }
        trail
    }

    /// The packs that a root needs, as far as these records are known.
    pub(super) fn needs(&self, state: &State, root: usize, known: Sessions) -> Packs {
        self.follow(state, state.names(root), state.applying(root, known)).ends
    }

    /// The packs that marking keeps for a root (P6). For each pack that it names these are those that it leads to, or, if one
    /// of these is not there, all on the way to them: in a promoted place a record may be there without the packs.
    pub(super) fn marked(&self, state: &State, root: usize, known: Sessions) -> Packs {
        let (names, records) = (state.names(root), state.applying(root, known));
        let kept = names.iter().map(|name| {
            let trail = self.follow(state, Set::of(name), records);
            if self.config.breaks(Broken::WayNotKept) { trail.ends } else { trail.kept(state.packs) }
        });
        kept.fold(Set::EMPTY, |packs, kept| packs | kept)
    }

    /// C as it is read after `gc/` was listed: from the newest result down, and what a result stands for is not read.
    pub(super) fn condemned_set(&self, state: &State, listed: Listed) -> Packs {
        let mut packs = state.copied.condemned;
        let mut unread = self.config.generations;
        while unread > 0 {
            let number = unread - 1;
            let generation = &state.generations[number];
            let is_void = generation.is_sealed && self.config.breaks(Broken::SealedListsVoid);
            unread -= 1;
            if listed.results.has(number) && generation.has_result && !is_void {
                packs |= generation.delete;
                if !self.config.breaks(Broken::EarlierListsUnread) {
                    packs |= generation.earlier;
                }
                unread -= covers(number) - 1;
            } else if listed.condemned.has(number) && !is_void {
                packs |= generation.condemned;
            }
        }
        packs
    }

    /// The lists of earlier generations that a result stands for.
    pub(super) fn earlier(&self, state: &State, number: usize) -> Packs {
        if self.config.breaks(Broken::EarlierListsForgotten) {
            return Set::EMPTY;
        }
        let covered = &state.generations[number + 1 - covers(number)..number];
        covered.iter().fold(Set::EMPTY, |packs, generation| packs | generation.delete)
    }
}

/// How many generations a result stands for, its own included: the lowest bit that is set in the next one's number.
fn covers(number: usize) -> usize {
    1 << (number + 1).trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn results_read_from_the_newest_down_stand_for_every_generation_once() {
        for newest in 0..1000usize {
            let mut unread = newest + 1;
            let mut read = 0;
            while unread > 0 {
                unread =
                    unread.checked_sub(covers(unread - 1)).expect("a result stands for no generation twice");
                read += 1;
            }
            assert!(read <= 10, "{read} results of {newest}");
        }
    }
}
