//! The first look at maps: whether they can be read and agree with themselves, and whether the packs that they
//! name are there.

use super::facts::{Hit, chunk_hits, concerned};
use super::findings::Findings;
use super::inventory::{Inventory, PackState};
use super::walk::Inspector;
use crate::error::EngineError;
use repo_format::{Entry, Location, PackName, PackRef, Page};
use std::collections::HashMap;

pub(super) struct Structure<'v, 'r, 's> {
    pub(super) findings: &'v Findings,
    pub(super) inventory: &'v Inventory<'r, 's>,
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
        for pack in page.packs() {
            let state = self.inventory.state(self.findings, &pack)?;
            if state != PackState::Fine {
                troubled.insert(pack.name, state);
            }
        }
        if troubled.is_empty() {
            return Ok(Vec::new());
        }
        Ok(chunk_hits(page, |at| concerned(troubled.get(&at.pack.name)?, at)))
    }
}
