//! Compacting the index: few blobs, however many sessions there were, and without packs that are gone (P8).
//!
//! Every backup leaves an index blob or more. Blobs of about the same length are put together, eight of them at a time,
//! so that of each length, by powers of eight, seven remain at most; blobs of [`WHOLE_LEN`] are left alone. A chunk is so
//! written again a few times over the years, and a listing has some thirty blobs and one for each million chunks. A blob
//! is also written again when a quarter of its packs are gone, and removed when all are.
//!
//! An index only gives hints, so nothing here is ever needed: a run that ends between writing and removing leaves hints
//! twice.
//!
//! # Memory
//! The blobs of one group, at most [`WHOLE_LEN`] and one blob more, opened and parsed: about four times as much.

use super::Run;
use super::sessions::Sessions;
use crate::error::EngineError;
use crate::observer::{Event, Phase, begin, tell};
use crate::pack_set::PackSet;
use crate::repository::get_sealed;
use crate::session::create;
use crate::store::BlobInfo;
use crate::unnamed::{Beginning, Unnamed};
use repo_format::{
    BlobKind, BlobName, DecisionName, Index, IndexEntry, PREFIX_INDEX, PackName, PackRef, PayloadId,
    SessionId,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// An index blob of this length is long enough: some 350,000 chunks.
const WHOLE_LEN: u64 = 16 << 20;
/// Blobs of the shortest class are shorter than this: the index of a small incremental.
const SHORTEST: u64 = 32 << 10;
/// Blobs of one class are put together when there are so many.
const TOGETHER: usize = 8;
/// A blob is written again when one in so many of its packs is gone.
const GONE_SHARE: usize = 4;
/// Entries of one index: within its limit (SPEC 12).
const ENTRIES_MAX: usize = 400_000;

/// The class of a blob's length: 0 for the shortest, nothing for those that are long enough.
fn class(len: u64) -> Option<u32> {
    (len < WHOLE_LEN).then(|| (len / SHORTEST).checked_ilog2().map_or(0, |log| log / 3 + 1))
}

/// Groups of blobs to put together, by their places. The oldest by name come first; each blob is in one group at most.
fn groups(lens: &[u64]) -> Vec<Vec<usize>> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (place, len) in lens.iter().enumerate() {
        if let Some(class) = class(*len) {
            classes.entry(class).or_default().push(place);
        }
    }
    let mut groups = Vec::new();
    for places in classes.into_values().filter(|places| places.len() >= TOGETHER) {
        let mut group = Vec::new();
        let mut group_len = 0;
        for place in places {
            if group_len + lens[place] > WHOLE_LEN && group.len() > 1 {
                groups.push(std::mem::take(&mut group));
                group_len = 0;
            }
            group.push(place);
            group_len += lens[place];
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// Which packs an index may go on listing.
struct Live<'a> {
    stored: &'a PackSet,
    delete: &'a PackSet,
}

impl Live<'_> {
    fn is_live(&self, pack: &PackRef) -> bool {
        self.stored.contains(&pack.name) && !self.delete.contains(&pack.name)
    }
}

impl Run<'_, '_, '_> {
    /// Writes indexes without what is deleted, and few of them, and removes those that they replace.
    pub(super) fn compact(&mut self, delete: &PackSet) -> Result<(), EngineError> {
        let (blobs, of_no_vm) = self.ended_indexes()?;
        let lens: Vec<u64> = blobs.iter().map(|info| info.len).collect();
        let mut groups: Vec<Vec<usize>> = groups(&lens);
        let grouped: HashSet<usize> = groups.iter().flatten().copied().collect();
        let touched: BTreeSet<SessionId> = delete.sessions().collect();
        let may_list_gone = |info: &BlobInfo| match info.name.kind() {
            Some(BlobKind::Index { session, .. }) => {
                touched.contains(&session) || of_no_vm.contains(&session)
            }
            _ => false,
        };
        if !delete.is_empty() {
            let alone =
                (0..blobs.len()).filter(|place| !grouped.contains(place) && may_list_gone(&blobs[*place]));
            groups.extend(alone.map(|place| vec![place]));
        }
        if groups.is_empty() {
            return Ok(());
        }
        begin(self.observer, Phase::CompactIndex, groups.iter().map(|group| group.len() as u64).sum())?;
        // After the indexes: what they list was in the store before them.
        let live = Live { stored: &self.stored()?, delete };
        let mut writing = None;
        let done = groups.into_iter().try_for_each(|group| {
            let group: Vec<&BlobName> = group.into_iter().map(|place| &blobs[place].name).collect();
            self.compact_group(&group, &live, &mut writing)?;
            tell(self.observer, Event::Progress(group.len() as u64))
        });
        match writing {
            // What was written holds, whatever failed behind it.
            Some(writing) => done.and(writing.end(self)),
            None => done,
        }
    }

    /// The index blobs of sessions that have ended, and the sessions of no VM among them.
    fn ended_indexes(&self) -> Result<(Vec<BlobInfo>, BTreeSet<SessionId>), EngineError> {
        let blobs = self.repository.list(PREFIX_INDEX)?;
        let sessions = Sessions::list(self.repository, [])?;
        let unnamed = self.repository.keys().vm_tag("");
        let mut of_no_vm = BTreeSet::new();
        let mut ended = Vec::new();
        for info in blobs {
            let Some(BlobKind::Index { session, .. }) = info.name.kind() else { continue };
            // By name alone: hints are no harm.
            if !sessions.has_end(session) {
                continue;
            }
            if sessions.decisions_of(session).iter().any(|decision| decision.vm == unnamed) {
                of_no_vm.insert(session);
            }
            ended.push(info);
        }
        Ok((ended, of_no_vm))
    }

    /// Puts the blobs of a group together, if it is worth it.
    fn compact_group(
        &mut self,
        group: &[&BlobName],
        live: &Live<'_>,
        writing: &mut Option<Writing>,
    ) -> Result<(), EngineError> {
        let mut read: Vec<&BlobName> = Vec::new();
        let mut merged = Merged::default();
        for name in group {
            let bytes = match get_sealed(self.repository.store(), name) {
                // It was removed, or cannot be read: then it stays, and a verification tells of it.
                Err(error) if error.is_damage() => continue,
                other => other?,
            };
            let Ok(index) = Index::open(self.repository.keys(), name, &bytes) else { continue };
            merged.add(index, live);
            read.push(name);
        }
        if read.is_empty() || (read.len() == 1 && !merged.is_worth_it()) {
            return Ok(());
        }
        for index in merged.into_indexes() {
            let writing = match writing {
                Some(writing) => writing,
                None => writing.insert(Writing::begin(self)?),
            };
            writing.put(self, &index)?;
        }
        let names: Vec<BlobName> = read.into_iter().cloned().collect();
        let refused = self.delete(&names)?;
        self.report.indexes_removed += (names.len() - refused.len()) as u64;
        Ok(())
    }
}

/// The session that compacted indexes belong to.
struct Writing {
    session: Unnamed,
    entropy: crate::entropy::Entropy,
    next: u32,
}

impl Writing {
    fn begin(run: &mut Run<'_, '_, '_>) -> Result<Self, EngineError> {
        let entropy = run.draw();
        let session = Unnamed::begin(run.repository, run.beginning(&entropy), run.observer)?;
        Ok(Self { session, entropy, next: 0 })
    }

    fn put(&mut self, run: &mut Run<'_, '_, '_>, index: &Index) -> Result<(), EngineError> {
        let name = BlobName::index(run.job.writer, self.session.session(), self.next);
        let salt = self.entropy.draw("index salt", u64::from(self.next));
        self.next += 1;
        create(run.repository.store(), &name, &index.seal(run.repository.keys(), &name, salt))?;
        run.report.indexes_written += 1;
        Ok(())
    }

    fn end(self, run: &Run<'_, '_, '_>) -> Result<(), EngineError> {
        self.session.abort(run.repository, run.beginning(&self.entropy))
    }
}

impl Run<'_, '_, '_> {
    fn beginning<'b>(&'b self, entropy: &'b crate::entropy::Entropy) -> Beginning<'b> {
        Beginning { writer: self.job.writer, time: self.job.time, program: self.job.program, entropy }
    }
}

/// What several indexes list, as far as it is still there.
#[derive(Default)]
struct Merged {
    decisions: BTreeMap<SessionId, DecisionName>,
    packs: BTreeMap<PackName, (PackRef, Vec<IndexEntry>)>,
    /// Packs that were listed, and those of them that are gone.
    listed: usize,
    gone: usize,
}

impl Merged {
    fn add(&mut self, index: Index, live: &Live<'_>) {
        let Index { sessions, packs, entries } = index;
        let is_live: Vec<bool> = packs.iter().map(|pack| live.is_live(pack)).collect();
        self.listed += packs.len();
        self.gone += is_live.iter().filter(|live| !**live).count();
        let mut of_pack: Vec<Vec<IndexEntry>> = packs.iter().map(|_| Vec::new()).collect();
        for entry in entries {
            let place = entry.pack as usize;
            if is_live.get(place) == Some(&true) {
                of_pack[place].push(entry);
            }
        }
        let decisions: BTreeMap<SessionId, DecisionName> = sessions.into_iter().collect();
        for (pack, entries) in packs.into_iter().zip(of_pack).filter(|(_, entries)| !entries.is_empty()) {
            if let Some(decision) = decisions.get(&pack.name.session) {
                self.decisions.insert(pack.name.session, decision.clone());
                let listed = &mut self.packs.entry(pack.name.clone()).or_insert_with(|| (pack, Vec::new())).1;
                listed.extend(entries);
            }
        }
    }

    /// Whether one index alone is worth writing again.
    fn is_worth_it(&self) -> bool {
        self.gone * GONE_SHARE >= self.listed
    }

    /// Indexes that list all packs. An index lists a chunk once, so a pack all of whose chunks are in others is listed in
    /// the next one.
    fn into_indexes(self) -> Vec<Index> {
        let mut indexes = Vec::new();
        let mut left: Vec<(PackRef, Vec<IndexEntry>)> = self.packs.into_values().collect();
        while !left.is_empty() {
            let (mut ids, mut packs, mut entries, mut later) =
                (HashSet::<PayloadId>::new(), Vec::new(), Vec::new(), Vec::new());
            for (pack, of_pack) in left {
                let is_full = !entries.is_empty() && entries.len() + of_pack.len() > ENTRIES_MAX;
                if is_full || of_pack.iter().all(|entry| ids.contains(&entry.id)) {
                    later.push((pack, of_pack));
                    continue;
                }
                let number = u32::try_from(packs.len()).expect("an index has fewer than 2^32 packs");
                let is_first = |entry: &IndexEntry| ids.insert(entry.id);
                entries.extend(
                    of_pack.into_iter().filter(is_first).map(|entry| IndexEntry { pack: number, ..entry }),
                );
                packs.push(pack);
            }
            entries.sort_unstable_by_key(|entry| entry.id);
            let sessions: BTreeSet<SessionId> = packs.iter().map(|pack| pack.name.session).collect();
            let decision = |session: SessionId| Some((session, self.decisions.get(&session)?.clone()));
            let sessions = sessions.into_iter().filter_map(decision).collect();
            indexes.push(Index { sessions, packs, entries });
            left = later;
        }
        indexes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many blobs remain of `sessions` indexes of some length, each compacted after it came.
    fn after(sessions: usize, len: u64) -> Vec<u64> {
        let mut lens: Vec<u64> = Vec::new();
        for _ in 0..sessions {
            lens.push(len);
            loop {
                let groups = groups(&lens);
                if groups.is_empty() {
                    break;
                }
                let grouped: HashSet<usize> = groups.iter().flatten().copied().collect();
                let merged = groups.iter().map(|group| group.iter().map(|place| lens[*place]).sum::<u64>());
                let merged: Vec<u64> = merged.collect();
                let mut place = 0;
                lens.retain(|_| {
                    place += 1;
                    !grouped.contains(&(place - 1))
                });
                lens.extend(merged);
            }
        }
        lens
    }

    #[test]
    fn blobs_stay_few_however_many_sessions_there_were() {
        for len in [1 << 10, 5 << 10, 100 << 10, 1 << 20] {
            for sessions in [100, 1_000, 10_000] {
                let lens = after(sessions, len);
                assert_eq!(lens.iter().sum::<u64>(), sessions as u64 * len);
                let long = sessions as u64 * len / (WHOLE_LEN / 2) + 1;
                let bound = 5 * TOGETHER as u64 + long;
                assert!(lens.len() as u64 <= bound, "{} blobs of {sessions} of {len} bytes", lens.len());
            }
        }
    }

    #[test]
    fn long_blobs_and_few_ones_are_left_alone() {
        assert_eq!(groups(&[WHOLE_LEN; 20]), Vec::<Vec<usize>>::new());
        assert_eq!(groups(&[1000; TOGETHER - 1]), Vec::<Vec<usize>>::new());
        assert_eq!(groups(&[1000; TOGETHER]), [(0..TOGETHER).collect::<Vec<_>>()]);
    }

    #[test]
    fn a_group_is_not_longer_than_a_blob_should_be() {
        let lens = [5 << 20; 20];
        let all: Vec<usize> = groups(&lens).into_iter().flatten().collect();
        assert_eq!(all.len(), groups(&lens).iter().map(Vec::len).sum::<usize>());
        for group in groups(&lens) {
            assert!(group.iter().map(|place| lens[*place]).sum::<u64>() <= WHOLE_LEN);
        }
    }
}
