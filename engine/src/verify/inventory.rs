//! Which packs there are, and whether they are as maps say.

use super::facts::concerned;
use super::findings::{FindingId, Findings};
use super::left_out::LeftOut;
use super::report::FindingKind;
use crate::error::EngineError;
use crate::frames::{FrameReader, lock};
use crate::store::BlobInfo;
use repo_format::{BlobKind, Location, PackName, PackRef};
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

/// Whether a pack is there as a map names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PackState {
    /// With the length that the map says.
    Fine,
    /// It is not there.
    Missing(FindingId),
    /// It is not there, and records lead on from it: what it held may be somewhere else.
    Moved,
    /// It has another length.
    OtherLength {
        finding: FindingId,
        /// The length that it has.
        len: u64,
    },
}

/// The packs of a repository as they were listed, and those that maps name.
pub(super) struct Inventory<'r, 's> {
    frames: &'r FrameReader<'r, 's>,
    listed: HashMap<PackName, u64>,
    named: Mutex<HashMap<PackRef, PackState>>,
}

impl<'r, 's> Inventory<'r, 's> {
    pub(super) fn new(frames: &'r FrameReader<'r, 's>, blobs: &[BlobInfo]) -> Self {
        let pack = |info: &BlobInfo| match info.name.kind() {
            Some(BlobKind::Pack(name)) => Some((name, info.len)),
            _ => None,
        };
        Self { frames, listed: blobs.iter().filter_map(pack).collect(), named: Mutex::default() }
    }

    /// The length of a pack that was listed.
    pub(super) fn len(&self, pack: &PackName) -> Option<u64> {
        self.listed.get(pack).copied()
    }

    /// The packs that were listed, with their lengths.
    pub(super) fn listed(&self) -> impl Iterator<Item = (&PackName, u64)> {
        self.listed.iter().map(|(name, len)| (name, *len))
    }

    /// The packs that maps were found to name and that are there, with their lengths, listed or asked for by name.
    pub(super) fn present(&self) -> HashMap<PackName, u64> {
        let len = |(pack, state): (&PackRef, &PackState)| match state {
            PackState::Fine => Some((pack.name.clone(), u64::from(pack.len))),
            PackState::OtherLength { len, .. } => Some((pack.name.clone(), *len)),
            PackState::Missing(_) | PackState::Moved => None,
        };
        lock(&self.named).iter().filter_map(len).collect()
    }

    /// The state of a pack that a map names; what is wrong with it becomes a finding.
    pub(super) fn state(&self, findings: &Findings, pack: &PackRef) -> Result<PackState, EngineError> {
        if let Some(state) = lock(&self.named).get(pack) {
            return Ok(*state);
        }
        let blob = pack.name.blob();
        let len = self.len_now(&pack.name)?;
        let state = match len {
            Some(len) if len == u64::from(pack.len) => PackState::Fine,
            Some(len) => {
                let detail = || format!("it is {len} bytes long and not {}, as maps say", pack.len);
                PackState::OtherLength {
                    finding: findings.note(FindingKind::WrongLength, &blob, detail),
                    len,
                }
            }
            None if self.frames.moved().leads_on(&pack.name)? => PackState::Moved,
            None => {
                let detail = || format!("it is missing; it should have {} bytes", pack.len);
                PackState::Missing(findings.note(FindingKind::MissingPack, &blob, detail))
            }
        };
        lock(&self.named).insert(pack.clone(), state);
        Ok(state)
    }

    /// The length of a pack that was listed, or that is there by now.
    fn len_now(&self, pack: &PackName) -> Result<Option<u64>, EngineError> {
        if let Some(len) = self.len(pack) {
            return Ok(Some(len));
        }
        // A listing of many pages is no snapshot of the store: what it lacks is asked for by name.
        match self.frames.repository().blob_len(&pack.blob()) {
            // Something else is in its place, which is told of by itself.
            Err(error) if error.is_damage() => Ok(None),
            other => other,
        }
    }

    /// Whether a pack is there with its length; it is no finding if it is not.
    pub(super) fn is_there(&self, pack: &PackRef) -> Result<bool, EngineError> {
        Ok(self.len_now(&pack.name)? == Some(u64::from(pack.len)))
    }

    /// Why a frame cannot be read, as far as the listing tells.
    pub(super) fn problem(
        &self,
        findings: &Findings,
        at: &Location,
    ) -> Result<Option<FindingId>, EngineError> {
        Ok(concerned(&self.state(findings, &at.pack)?, at))
    }

    /// Whether a map names a pack with the length that was listed.
    pub(super) fn is_as_named(&self, pack: &PackName) -> bool {
        let listed = self.len(pack).and_then(|len| u32::try_from(len).ok());
        listed.is_some_and(|len| {
            lock(&self.named).get(&PackRef { name: pack.clone(), len }) == Some(&PackState::Fine)
        })
    }

    /// How many packs were listed that are not among those that are needed, or that may be, and their bytes.
    pub(super) fn unneeded(&self, needed: &BTreeMap<PackName, PackState>, left_out: &LeftOut) -> (u64, u64) {
        let is_needed = |name: &PackName| needed.contains_key(name) || left_out.may_need(name);
        let unneeded = self.listed.iter().filter(|(name, _)| !is_needed(name));
        unneeded.fold((0, 0), |(packs, bytes), (_, len)| (packs + 1, bytes + len))
    }

    /// All packs that maps were found to name, with their states; a pack that is named with several lengths is
    /// told of once, with the worst one.
    pub(super) fn named(&self) -> BTreeMap<PackName, PackState> {
        let mut packs = BTreeMap::new();
        for (pack, state) in lock(&self.named).iter() {
            let known = packs.entry(pack.name.clone()).or_insert(*state);
            if *state != PackState::Fine {
                *known = *state;
            }
        }
        packs
    }
}
