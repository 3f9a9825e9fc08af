//! The first look at maps: whether they can be read and agree with themselves, and whether the packs that they
//! name are there.

use super::facts::{Hit, chunk_hits, concerned};
use super::findings::{FindingId, Findings};
use super::inventory::{Inventory, PackState};
use super::report::FindingKind;
use super::walk::{Inspector, unreadable};
use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::moved::Where;
use repo_format::{Entry, Location, PackName, PackRef, Page};
use std::collections::{BTreeSet, HashMap};

pub(super) struct Structure<'v, 'r, 's> {
    pub(super) findings: &'v Findings,
    pub(super) inventory: &'v Inventory<'r, 's>,
    pub(super) frames: &'v FrameReader<'r, 's>,
    /// Chunks in the pages that were looked at.
    pub(super) chunks: u64,
}

impl Inspector for Structure<'_, '_, '_> {
    fn wants(&self, _: &[PackRef]) -> bool {
        true
    }

    fn page(&mut self, _: &Location, page: &Page) -> Result<Vec<Hit>, EngineError> {
        let chunks = page.entries.iter().filter(|entry| matches!(entry, Entry::Chunk(_))).count();
        self.chunks += chunks as u64;
        let mut troubled: HashMap<PackName, PackState> = HashMap::new();
        let mut moved: BTreeSet<PackName> = BTreeSet::new();
        for pack in page.packs() {
            match self.inventory.state(self.findings, &pack)? {
                PackState::Fine => {}
                PackState::Moved => drop(moved.insert(pack.name)),
                state => drop(troubled.insert(pack.name, state)),
            }
        }
        if troubled.is_empty() && moved.is_empty() {
            return Ok(Vec::new());
        }
        let lost = self.lost(page, &moved)?;
        Ok(chunk_hits(page, |at| {
            lost.get(at).copied().or_else(|| concerned(troubled.get(&at.pack.name)?, at))
        }))
    }
}

impl Structure<'_, '_, '_> {
    /// The chunks in packs that were repacked and are gone which are in none of the packs that these lead to.
    fn lost<'p>(
        &self,
        page: &'p Page,
        moved: &BTreeSet<PackName>,
    ) -> Result<HashMap<&'p Location, FindingId>, EngineError> {
        let chunks = page.entries.iter().filter_map(|entry| match entry {
            Entry::Chunk(at) => Some(at),
            Entry::Hole { .. } => None,
        });
        let chunks: Vec<&Location> = chunks.filter(|at| moved.contains(&at.pack.name)).collect();
        let mut lost = HashMap::new();
        if chunks.is_empty() {
            return Ok(lost);
        }
        let places = self.frames.moved().places(chunks.iter().copied(), moved)?;
        for (at, place) in chunks.into_iter().zip(places) {
            match place {
                Where::At(..) | Where::Named => {}
                Where::Nowhere(None) => {
                    let detail = || {
                        format!(
                            "it is missing; it should have {} bytes. Not all that is needed of it is where it was repacked to",
                            at.pack.len
                        )
                    };
                    let blob = at.pack.name.blob();
                    lost.insert(at, self.findings.note(FindingKind::MissingPack, &blob, detail));
                }
                Where::Nowhere(Some(error)) => drop(lost.insert(at, unreadable(self.findings, at, &error))),
            }
        }
        Ok(lost)
    }
}
