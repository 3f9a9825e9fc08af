//! Packs that are damaged: which of the chunks that maps name in them can be read all the same.

use super::Scope;
use super::data::{Batch, Checked};
use super::facts::{Hit, moved_chunks};
use super::walk::{Inspector, unreadable};
use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::observer::{Event, tell};
use repo_format::{Entry, FrameKind, Location, PackName, PackRef, Page};
use std::collections::{HashMap, HashSet};

/// Plain bytes of chunks that are tried together.
const TRIED_AT_ONCE: u64 = 32 << 20;

/// Tries each chunk that a map names in a damaged pack.
pub(super) fn try_damaged(
    scope: &Scope<'_, '_, '_>,
    batch: &mut Batch,
    names_hold: bool,
) -> Result<(), EngineError> {
    let is_damaged = |(name, checked): (&PackName, &Checked)| {
        matches!(checked, Checked::Damaged { .. }).then(|| (name.clone(), HashSet::new()))
    };
    let (wanted, frames) = (batch.iter().filter_map(is_damaged).collect(), scope.frames);
    let mut collect = Collect { wanted, names_hold, frames };
    if collect.wanted.is_empty() {
        return Ok(());
    }
    scope.walk(&mut collect, 0)?;
    for (name, locations) in collect.wanted {
        let mut locations: Vec<Location> = locations.into_iter().collect();
        locations.sort_unstable_by_key(|at| (at.offset, at.stored_len, at.id));
        let Some(Checked::Damaged { finding, unreadable }) = batch.get_mut(&name) else { continue };
        *unreadable = unreadable_chunks(scope, &name, &locations)?;
        scope.findings.tell_more(
            *finding,
            &format!(
                "{} of the {} chunks that maps name in it cannot be read",
                unreadable.len(),
                locations.len()
            ),
        );
        tell(scope.observer, Event::Progress(0))?;
    }
    Ok(())
}

fn unreadable_chunks(
    scope: &Scope<'_, '_, '_>,
    name: &PackName,
    locations: &[Location],
) -> Result<HashSet<Location>, EngineError> {
    if locations.iter().all(|at| at.pack.name == *name) && !scope.frames.moved().knows(name) {
        match scope.frames.opener(name) {
            Ok(_) => {}
            // No frame can be read, and there is no other place.
            Err(error) if error.is_damage() => return Ok(locations.iter().cloned().collect()),
            Err(error) => return Err(error),
        }
    }
    let mut failed = HashSet::new();
    let mut rest = locations;
    while !rest.is_empty() {
        let mut plain_bytes = 0;
        let fits = |at: &&Location| {
            plain_bytes += u64::from(at.plain_len);
            plain_bytes <= TRIED_AT_ONCE
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = later;
        let results = scope.frames.read_each(FrameKind::Chunk, now)?;
        for (at, result) in now.iter().zip(results) {
            if let Err(error) = result {
                unreadable(scope.findings, at, &error);
                failed.insert(at.clone());
            }
        }
    }
    Ok(failed)
}

/// Collects the chunks that maps name in some packs.
struct Collect<'v, 'r, 's> {
    wanted: HashMap<PackName, HashSet<Location>>,
    names_hold: bool,
    frames: &'v FrameReader<'r, 's>,
}

impl Inspector for Collect<'_, '_, '_> {
    fn wants(&self, names: &[PackRef]) -> bool {
        let may_lead_there =
            |pack: &PackRef| self.wanted.contains_key(&pack.name) || self.frames.moved().knows(&pack.name);
        !self.names_hold || names.iter().any(may_lead_there)
    }

    fn page(&mut self, _: &Location, page: &Page) -> Result<Vec<Hit>, EngineError> {
        let moved = moved_chunks(self.frames, page)?;
        for entry in &page.entries {
            let Entry::Chunk(at) = entry else { continue };
            let pack = moved.get(at).map_or(&at.pack.name, |pack| &pack.name);
            if let Some(locations) = self.wanted.get_mut(pack) {
                locations.insert(at.clone());
            }
        }
        Ok(Vec::new())
    }
}
