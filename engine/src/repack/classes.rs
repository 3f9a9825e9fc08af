//! Roots to which the same records apply: the same names lead to the same packs for them.

use super::frames::OldFrames;
use crate::records::{Records, Way};
use repo_format::{PackName, SessionId};
use std::collections::HashMap;
use std::rc::Rc;

/// All classes of roots that were seen.
pub(super) struct Classes<'c> {
    records: &'c Records,
    old: HashMap<PackName, u32>,
    known: HashMap<Vec<SessionId>, Rc<Class>>,
}

/// Where names lead for some roots.
pub(super) struct Class {
    /// Tells classes apart.
    pub(super) number: u32,
    /// For each name that leads to packs that are emptied, these, by their numbers.
    leads: HashMap<PackName, Vec<u32>>,
}

impl<'c> Classes<'c> {
    pub(super) fn new(records: &'c Records, old: &OldFrames) -> Self {
        let old = old.packs().filter_map(|pack| Some((pack.name.clone(), old.number(&pack.name)?))).collect();
        Self { records, old, known: HashMap::new() }
    }

    /// The class of a root.
    pub(super) fn of(&mut self, session: SessionId, via: &[SessionId]) -> Rc<Class> {
        let applying = self.records.applying(session, via);
        let key: Vec<SessionId> = applying.iter().map(|record| record.session).collect();
        if let Some(class) = self.known.get(&key) {
            return Rc::clone(class);
        }
        let mut leads = HashMap::new();
        let moved = applying.iter().flat_map(|record| record.moved());
        for name in self.old.keys().chain(moved) {
            let ends = Way::of(name, &applying).ends.into_iter();
            let emptied: Vec<u32> = ends.filter_map(|end| self.old.get(end).copied()).collect();
            if !emptied.is_empty() {
                leads.insert(name.clone(), emptied);
            }
        }
        let number = u32::try_from(self.known.len()).expect("there are fewer classes than roots");
        let class = Rc::new(Class { number, leads });
        self.known.insert(key, Rc::clone(&class));
        class
    }
}

impl Class {
    /// The packs that are emptied to which a name leads.
    pub(super) fn leads_to(&self, pack: &PackName) -> Option<&[u32]> {
        self.leads.get(pack).map(Vec::as_slice)
    }
}
