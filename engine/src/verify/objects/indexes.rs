//! What an index lists, compared with what there is.

use super::Objects;
use crate::error::EngineError;
use crate::frames::lock;
use crate::verify::report::FindingKind;
use repo_format::{BlobName, Index, PackName, PackRef, SessionId};
use std::collections::HashSet;

impl Objects<'_, '_, '_> {
    pub(super) fn index(
        &self,
        name: &BlobName,
        session: SessionId,
        index: &Index,
    ) -> Result<(), EngineError> {
        let younger = self.younger(index)?;
        let is_there = |pack: &&PackRef| {
            self.inventory.len(&pack.name) == Some(u64::from(pack.len)) || younger.contains(&pack.name)
        };
        // An index is written anew only when much of what it lists is gone.
        let was_deleted = |pack: &&PackRef| self.published.deleted.contains(&pack.name);
        let is_not_as_named = |pack: &&PackRef| !self.inventory.is_as_named(&pack.name);
        let (stale, wrong): (Vec<&PackRef>, Vec<&PackRef>) = index
            .packs
            .iter()
            .filter(|pack| !is_there(pack) && !was_deleted(pack))
            .partition(is_not_as_named);
        let stale: Vec<&PackRef> =
            stale.into_iter().filter(|pack| !self.left_out.may_need(&pack.name)).collect();
        if let Some(first) = stale.first() {
            self.findings.note(FindingKind::StaleIndex, name, || {
                format!(
                    "{} of the packs that it lists are not there with that length, the first is {}",
                    stale.len(),
                    first.name
                )
            });
        }
        if let Some(first) = wrong.first() {
            self.findings.note(FindingKind::WrongIndex, name, || {
                format!(
                    "{} of the packs that it lists have another length, by themselves and by maps, the first is {}",
                    wrong.len(),
                    first.name
                )
            });
        }
        let mut told = lock(&self.told);
        let number = u32::try_from(told.indexes.len()).expect("fewer than 2^32 indexes");
        told.indexes.push(name.clone());
        for pack in &index.packs {
            if is_there(&pack) {
                told.listed.entry(pack.name.clone()).or_default().push(number);
            } else {
                told.mislisted.insert(pack.name.clone());
            }
        }
        for (listed, decision) in &index.sessions {
            told.decisions.entry(*listed).or_insert_with(|| decision.clone());
            if *listed != session {
                told.listed_elsewhere.entry(*listed).or_insert_with(|| name.clone());
            }
        }
        Ok(())
    }

    /// The packs of an index that were stored since packs were listed.
    fn younger<'i>(&self, index: &'i Index) -> Result<HashSet<&'i PackName>, EngineError> {
        let mut younger = HashSet::new();
        for PackRef { name, len } in &index.packs {
            if self.inventory.len(name).is_some() || self.published.deleted.contains(name) {
                continue;
            }
            match self.repository.blob_len(&name.blob()) {
                Ok(Some(found)) if found == u64::from(*len) => drop(younger.insert(name)),
                // Something else is in its place, which is told of by itself.
                Err(error) if error.is_damage() => {}
                found => drop(found?),
            }
        }
        Ok(younger)
    }
}
