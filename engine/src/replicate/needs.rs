//! What restore points need that is not at the destination.

use super::ReplicateError;
use crate::error::{EngineError, chain};
use crate::frames::FrameReader;
use crate::map::named::{NamedPacks, Notes};
use crate::records::{Records, Way};
use crate::replica::Presence;
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use repo_format::{Location, PackName, PackRef, SessionId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a restore point needs.
#[derive(Debug)]
pub(super) struct Needed {
    pub(super) root: Snapshot,
    /// The packs that are not at the destination.
    pub(super) missing: BTreeSet<PackRef>,
    /// The sessions of the records that its names pass through.
    pub(super) passed: BTreeSet<SessionId>,
    /// Why it cannot be copied.
    pub(super) failed: Option<String>,
}

/// Tells what restore points need.
pub(super) struct Needs<'r> {
    source: &'r Repository<'r>,
    named: NamedPacks<'r, 'r>,
    ledger: Ledger<'r>,
    /// Packs that were neither at the source nor at the destination before the records were loaded, and since.
    gone: [BTreeSet<PackName>; 2],
}

/// What is known of packs that are named, by numbers that nodes are remembered with.
struct Ledger<'r> {
    destination: Option<&'r Repository<'r>>,
    /// What is at the destination.
    presence: Presence,
    /// Those of the source.
    records: Records,
    facts: Vec<Fact>,
    /// The facts about packs.
    numbers: HashMap<PackRef, u32>,
    /// The facts that are none any more.
    free: Vec<u32>,
}

enum Fact {
    None,
    /// It is not at the destination, or a record leads on from it.
    Pack(PackRef),
    /// A node cannot be read.
    Damaged(String),
}

impl<'r> Needs<'r> {
    pub(super) fn new(
        source: &'r Repository<'r>,
        destination: Option<&'r Repository<'r>>,
    ) -> Result<Self, EngineError> {
        // Records come before maps are read: what is moved later is found by reading them again.
        let records = Records::load_readable(source)?;
        let named = NamedPacks::new(FrameReader::knowing(source, &records));
        Ok(Self { source, named, ledger: Ledger::new(destination, records), gone: Default::default() })
    }

    /// Begins anew with the records that there are now.
    pub(super) fn reload(&mut self) -> Result<(), EngineError> {
        let presence = std::mem::replace(&mut self.ledger.presence, Presence::as_asked());
        let [mut before, since] = std::mem::take(&mut self.gone);
        before.extend(since);
        *self = Self::new(self.source, self.ledger.destination)?;
        self.ledger.presence = presence;
        self.gone = [before, BTreeSet::new()];
        Ok(())
    }

    /// Notes that a pack is neither at the source nor at the destination.
    pub(super) fn note_gone(&mut self, pack: PackName) {
        self.gone[1].insert(pack);
    }

    /// Whether a pack was noted to be gone before the records were loaded.
    pub(super) fn was_gone(&self, pack: &PackName) -> bool {
        self.gone[0].contains(pack)
    }

    pub(super) fn records(&self) -> &Records {
        &self.ledger.records
    }

    /// What each of some restore points needs.
    ///
    /// # Errors
    /// A failing store. What is damaged is told of each.
    pub(super) fn of(&mut self, roots: Vec<Snapshot>) -> Result<Vec<Needed>, EngineError> {
        let facts = self.named.facts(&roots, &mut self.ledger)?;
        let ledger = &mut self.ledger;
        let mut found = Vec::with_capacity(roots.len());
        let mut ends = Vec::with_capacity(roots.len());
        for (root, facts) in roots.into_iter().zip(facts) {
            let (needed, of_root) = ledger.needed(root, &facts);
            found.push(needed);
            ends.push(of_root);
        }
        ledger.look_for(ends.iter().flatten())?;
        for (needed, ends) in found.iter_mut().zip(ends) {
            for end in ends {
                match ledger.at_destination(&end) {
                    Ok(true) => {}
                    Ok(false) => drop(needed.missing.insert(end)),
                    Err(error) => drop(needed.failed.get_or_insert_with(|| chain(&error))),
                }
            }
        }
        Ok(found)
    }

    /// Those of some packs that are not at the destination.
    pub(super) fn missing(&mut self, packs: Vec<PackRef>) -> Result<Vec<PackRef>, EngineError> {
        self.ledger.look_for(packs.iter())?;
        let mut missing = Vec::new();
        for pack in packs {
            if !self.ledger.at_destination(&pack)? {
                missing.push(pack);
            }
        }
        Ok(missing)
    }

    /// Those of some packs that are at the destination, with whatever length.
    pub(super) fn there(&mut self, names: Vec<PackName>) -> Result<Vec<PackName>, EngineError> {
        let packs: Vec<PackRef> = names.into_iter().map(|name| PackRef { name, len: 0 }).collect();
        self.ledger.look_for(packs.iter())?;
        let is_there = |pack: &PackRef| self.ledger.presence.len(&pack.name).is_some();
        Ok(packs.into_iter().filter(is_there).map(|pack| pack.name).collect())
    }

    /// Whether a pack is at the destination that was looked for.
    pub(super) fn is_there(&self, pack: &PackRef) -> bool {
        self.ledger.presence.has(pack)
    }

    /// Notes that a pack was copied.
    pub(super) fn note(&mut self, pack: &PackRef) {
        self.ledger.presence.insert(pack);
    }

    /// Forgets of all nodes which packs they name that are at the destination now.
    pub(super) fn forget_what_is_there(&mut self) {
        let Ledger { presence, records, facts, numbers, free, .. } = &mut self.ledger;
        let mut forgotten = HashSet::new();
        for (number, fact) in (0u32..).zip(facts.iter_mut()) {
            if let Fact::Pack(pack) = fact
                && presence.has(pack)
                && !records.is_repacked(&pack.name)
            {
                numbers.remove(pack);
                *fact = Fact::None;
                forgotten.insert(number);
            }
        }
        if !forgotten.is_empty() {
            self.named.retain(&|fact| !forgotten.contains(&fact));
            free.extend(forgotten);
        }
    }
}

impl<'r> Ledger<'r> {
    fn new(destination: Option<&'r Repository<'r>>, records: Records) -> Self {
        let (facts, numbers, free) = (Vec::new(), HashMap::new(), Vec::new());
        Self { destination, presence: Presence::as_asked(), records, facts, numbers, free }
    }

    fn look_for<'p>(&mut self, packs: impl Iterator<Item = &'p PackRef>) -> Result<(), EngineError> {
        match self.destination {
            Some(destination) => self.presence.look_for(destination, packs),
            None => Ok(()),
        }
    }

    /// Whether a pack is at the destination.
    ///
    /// # Errors
    /// [`ReplicateError::OtherLength`].
    fn at_destination(&self, pack: &PackRef) -> Result<bool, EngineError> {
        match self.presence.len(&pack.name) {
            None => Ok(false),
            Some(len) if len == pack.len => Ok(true),
            Some(len) => {
                let (found, expected) = (u64::from(len), u64::from(pack.len));
                Err(ReplicateError::OtherLength { name: pack.name.blob(), found, expected }.into())
            }
        }
    }

    /// What a root needs but for its packs, and these: where the names lead that it has.
    fn needed(&self, root: Snapshot, facts: &[u32]) -> (Needed, BTreeSet<PackRef>) {
        let applying = self.records.applying_to(&root);
        let mut needed = Needed { root, missing: BTreeSet::new(), passed: BTreeSet::new(), failed: None };
        let mut ends = BTreeSet::new();
        for fact in facts {
            match &self.facts[*fact as usize] {
                Fact::None => {}
                Fact::Pack(pack) => {
                    let way = Way::of(&pack.name, &applying);
                    if way.ends.contains(&pack.name) {
                        ends.insert(pack.clone());
                    }
                    ends.extend(way.new.into_iter().cloned());
                    needed.passed.extend(way.passed);
                }
                Fact::Damaged(reason) => drop(needed.failed.get_or_insert_with(|| reason.clone())),
            }
        }
        (needed, ends)
    }

    fn number(&mut self, fact: Fact) -> u32 {
        if let Some(number) = self.free.pop() {
            self.facts[number as usize] = fact;
            return number;
        }
        self.facts.push(fact);
        u32::try_from(self.facts.len() - 1).expect("facts are in memory")
    }
}

impl Notes for Ledger<'_> {
    fn note(&mut self, named: &[Vec<PackRef>]) -> Result<Vec<Vec<u32>>, EngineError> {
        self.look_for(named.iter().flatten())?;
        let mut noted = Vec::with_capacity(named.len());
        for packs in named {
            let mut facts = Vec::new();
            for pack in packs {
                if self.presence.has(pack) && !self.records.is_repacked(&pack.name) {
                    continue;
                }
                let known = self.numbers.get(pack).copied();
                facts.push(known.unwrap_or_else(|| {
                    let number = self.number(Fact::Pack(pack.clone()));
                    self.numbers.insert(pack.clone(), number);
                    number
                }));
            }
            facts.sort_unstable();
            noted.push(facts);
        }
        Ok(noted)
    }

    fn out_of_reach(&self, _: &Location) -> Option<u32> {
        None
    }

    fn unreadable(&mut self, _: &Location, damage: EngineError) -> Result<u32, EngineError> {
        Ok(self.number(Fact::Damaged(chain(&damage))))
    }
}
