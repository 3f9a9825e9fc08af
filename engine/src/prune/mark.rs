//! Marking: which packs valid roots need (PROTOCOL 2, P1 and P6).
//!
//! # Memory
//! That of [`NamedPacks`], with a fact for each watched pack that a node names or one below it, and some bytes for each
//! pack that is needed.

use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::map::named::{NamedPacks, Notes, ROOTS_AT_ONCE};
use crate::pack_set::PackSet;
use crate::records::{Records, Way};
use crate::replica::Presence;
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use repo_format::{Location, PackName, PackRef};
use std::collections::{BTreeSet, HashMap};

/// What roots need, of those that were marked so far.
pub(crate) struct Marker<'r, 's> {
    repository: &'r Repository<'s>,
    named: NamedPacks<'r, 's>,
    watched: Watched,
    /// Which packs are there that records lead to, if something was marked.
    presence: Option<Presence>,
}

/// Packs of which it matters which root names them; the others are needed if any root names them.
struct Watched {
    /// By their numbers.
    packs: Vec<PackName>,
    numbers: HashMap<PackName, u32>,
    /// All packs that were named and are not watched, and those that watched ones lead to.
    needed: PackSet,
}

impl<'r, 's> Marker<'r, 's> {
    /// `watched` are packs of which is to be told which roots name them.
    pub(crate) fn new(repository: &'r Repository<'s>, watched: impl IntoIterator<Item = PackName>) -> Self {
        let packs: Vec<PackName> = watched.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let numbers = (0u32..).zip(&packs).map(|(number, pack)| (pack.clone(), number)).collect();
        let named = NamedPacks::new(FrameReader::new(repository));
        let watched = Watched { packs, numbers, needed: PackSet::default() };
        Self { repository, named, watched, presence: None }
    }

    /// Marks what valid roots need through the records that apply to each, the same in all calls; all packs that any of
    /// those records moves must be watched. What was moved is needed where it was, too, until all that records lead to is
    /// there: a promoted replica may have a record without the packs (PROTOCOL 8).
    ///
    /// # Errors
    /// A failing store, or a damaged node: what it names is not known, so nothing may be deleted.
    pub(crate) fn mark(&mut self, roots: &[Snapshot], records: &Records) -> Result<(), EngineError> {
        let presence = if let Some(presence) = self.presence.take() {
            presence
        } else {
            let mut presence = Presence::as_asked();
            presence.look_for(self.repository, records.leads().map(|(_, _, new)| new))?;
            presence
        };
        let presence = &*self.presence.insert(presence);
        for roots in roots.chunks(ROOTS_AT_ONCE) {
            for (root, named) in roots.iter().zip(self.named.facts(roots, &mut self.watched)?) {
                let applying = records.applying_to(root);
                for number in named {
                    let name = &self.watched.packs[number as usize];
                    for pack in Way::of(name, &applying).needed(&|new| presence.has(new)) {
                        self.watched.needed.insert_name(pack, 0);
                    }
                }
            }
        }
        Ok(())
    }

    /// For each root, the watched packs that it names, by their numbers, sorted.
    pub(crate) fn named(&mut self, roots: &[Snapshot]) -> Result<Vec<Vec<u32>>, EngineError> {
        self.named.facts(roots, &mut self.watched)
    }

    /// The packs that the marked roots need.
    pub(crate) fn into_needed(self) -> PackSet {
        self.watched.needed
    }
}

impl Notes for Watched {
    fn note(&mut self, named: &[Vec<PackRef>]) -> Result<Vec<Vec<u32>>, EngineError> {
        let of_list = |packs: &Vec<PackRef>| {
            let mut numbers = Vec::new();
            for pack in packs {
                match self.numbers.get(&pack.name) {
                    Some(number) => numbers.push(*number),
                    None => self.needed.insert(pack),
                }
            }
            numbers.sort_unstable();
            numbers
        };
        Ok(named.iter().map(of_list).collect())
    }

    fn out_of_reach(&self, _: &Location) -> Option<u32> {
        None
    }

    fn unreadable(&mut self, _: &Location, damage: EngineError) -> Result<u32, EngineError> {
        Err(damage)
    }
}
