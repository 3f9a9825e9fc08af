//! Packing again what packs hold that are mostly not needed any more (PROTOCOL 4).
//!
//! A session of no VM copies what valid roots need of some packs into new ones, in the order of VMs, disks and addresses,
//! publishes a record of which pack leads to which, and then commits. Maps stay as they are: whoever reads them follows the
//! record. The old packs are deleted by a later generation, as what nothing needs any more.
//!
//! The record applies to the roots that were listed after the session began (W2). Whoever commits later and names an old
//! pack needs that pack itself, and it stays.
//!
//! # Memory
//! About 40 bytes for each frame of the packs that are emptied, at most [`FRAMES_MAX`] of them; the nodes and pages below
//! one node of level 2; [`copy::BATCH_LEN`] of payloads; and the packs that are filled or on their way,
//! [`copy::PUTS_AT_ONCE`] and two of them.

mod classes;
mod copy;
mod frames;
mod walk;

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::observer::{Observer, Phase, begin};
use crate::pack_set::PackSet;
use crate::prune::mark::Marker;
use crate::records::Records;
use crate::repository::Repository;
use crate::session::create;
use crate::snapshots;
use crate::store::Put;
use crate::unnamed::{Beginning, Unnamed};
use classes::Classes;
use copy::Copier;
use frames::OldFrames;
use repo_format::limits::SEALED_PLAIN_LEN_MAX;
use repo_format::{
    BlobKind, Decision, DecisionName, Lead, PREFIX_DECISIONS, PREFIX_INTENTS, PackKind, PackName, PackRef,
    RepackRecord, Repacked, RetentionKey, SessionId, WriterId,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use walk::Walk;

/// Frames of the packs that one session empties: what is known of them fits 80 MiB. Of chunks of the usual length these
/// are some 80 GiB; a later run goes on.
const FRAMES_MAX: usize = 2 << 20;
/// Roots that are looked at together.
const ROOTS_AT_ONCE: usize = 1024;

/// What is to be packed again.
pub(crate) struct RepackJob<'a> {
    /// The writer that the session belongs to.
    pub(crate) writer: &'a WriterId,
    /// Now, milliseconds since 1970.
    pub(crate) time: u64,
    /// The program and its version.
    pub(crate) program: &'a str,
    /// Randomness of this session.
    pub(crate) entropy: &'a Entropy,
    /// The packs to be emptied, with the lengths that they are listed with.
    pub(crate) packs: &'a PackSet,
}

/// What was packed again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepackReport {
    /// The session, in hex.
    pub session: String,
    /// Packs that are not needed any more but by what was begun meanwhile, and their bytes.
    pub emptied: u64,
    /// See `emptied`.
    pub emptied_bytes: u64,
    /// Packs that were written, and their bytes.
    pub packs: u64,
    /// See `packs`.
    pub written_bytes: u64,
    /// Payloads that were copied.
    pub frames: u64,
    /// The length of the record, in bytes.
    pub record_bytes: u64,
    /// Packs that were left as they are: what is needed of them cannot be read, or they are for a later run.
    pub left: u64,
    /// Whether somebody aborted the session before it could commit: then it was for nothing.
    pub aborted: bool,
}

/// Copies what valid roots need of some packs into new ones, and publishes where it is.
///
/// Afterwards valid roots that were there when it began need the new packs instead of the old ones.
///
/// # Errors
/// A failing store; a damaged node or page of a valid root: nobody knows then what it needs. The session is ended if that
/// is possible, and what it wrote is garbage.
pub(crate) fn repack(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &RepackJob<'_>,
    observer: &dyn Observer,
) -> Result<RepackReport, EngineError> {
    let beginning =
        Beginning { writer: job.writer, time: job.time, program: job.program, entropy: job.entropy };
    let session = Unnamed::begin(repository, beginning, observer)?;
    let run = Run { repository, key, job, session: &session, observer };
    match run.copy() {
        Ok(Some(report)) => Ok(report),
        Ok(None) => {
            session.abort(repository, beginning)?;
            Ok(RepackReport { session: session.session().to_string(), ..RepackReport::default() })
        }
        Err(error) => {
            // An offer only: the failure may be the store's, and an undecided session harms nothing.
            let _undecided = session.abort(repository, beginning);
            Err(error)
        }
    }
}

/// One session.
struct Run<'a, 'r, 's> {
    repository: &'r Repository<'s>,
    key: &'a RetentionKey,
    job: &'a RepackJob<'a>,
    session: &'a Unnamed,
    observer: &'a dyn Observer,
}

/// A root that needs something of the packs that are emptied.
struct Affected {
    name: DecisionName,
    time: u64,
}

impl Run<'_, '_, '_> {
    /// Copies, publishes and commits; nothing if there is nothing to copy.
    fn copy(&self) -> Result<Option<RepackReport>, EngineError> {
        let records = self.session.condemned.records();
        let (old, left) = self.old_frames()?;
        if old.is_empty() {
            return Ok(None);
        }
        let mut classes = Classes::new(records, &old);
        let affected = self.alone(self.affected(&mut classes, records, &old)?)?;
        if affected.is_empty() {
            return Ok(None);
        }
        begin(self.observer, Phase::Repack, old.bytes())?;
        let mut copier = Copier::new(self.repository, self.job, self.session, old, self.observer)?;
        let mut applies_to = Vec::with_capacity(affected.len());
        for root in &affected {
            // Forgotten and removed since it was listed.
            let Some(Decision::Commit(commit)) = snapshots::read(self.repository, &root.name)? else {
                continue;
            };
            let class = classes.of(root.name.session, &commit.via);
            Walk::new(self.repository, &class, &mut copier).root(&commit)?;
            applies_to.push(root.name.session);
        }
        let done = copier.finish()?;
        if done.leads.is_empty() {
            return Ok(None);
        }
        applies_to.sort_unstable();
        self.publish(&done, applies_to, left).map(Some)
    }

    /// Those roots whose sessions' ids nobody else uses. A record names sessions by their ids, and these are no secret: a
    /// thief's root with the id of a session that runs would have the record apply to that session's root too, of which
    /// nothing was copied. The intents are listed after the roots, and nobody knows an id before its intent is there.
    fn alone(&self, mut affected: Vec<Affected>) -> Result<Vec<Affected>, EngineError> {
        let mut uses: BTreeMap<SessionId, BTreeSet<WriterId>> = BTreeMap::new();
        let mut ends: BTreeMap<SessionId, usize> = BTreeMap::new();
        for prefix in [PREFIX_INTENTS, PREFIX_DECISIONS] {
            for info in self.repository.list(prefix)? {
                match info.name.kind() {
                    Some(BlobKind::Intent { writer, session }) => {
                        uses.entry(session).or_default().insert(writer);
                    }
                    Some(BlobKind::Decision(name)) => {
                        *ends.entry(name.session).or_default() += 1;
                        uses.entry(name.session).or_default().insert(name.writer);
                    }
                    _ => {}
                }
            }
        }
        affected.retain(|root| {
            let session = &root.name.session;
            ends.get(session).is_none_or(|count| *count == 1)
                && uses.get(session).is_none_or(|writers| writers.len() == 1)
        });
        Ok(affected)
    }

    /// The frames of the packs to be emptied, and how many packs are left for another run.
    fn old_frames(&self) -> Result<(OldFrames, u64), EngineError> {
        let can_read_data = self.repository.keys().can_read_data();
        let may_be_emptied = |pack: &PackRef| {
            !self.session.condemned.contains(&pack.name) && (can_read_data || pack.name.kind == PackKind::Map)
        };
        let packs: Vec<PackRef> = self.job.packs.iter().filter(may_be_emptied).collect();
        OldFrames::read(self.repository, &packs, FRAMES_MAX)
    }

    /// The valid roots that name what is emptied, by VM and from the newest: in this order their data is put.
    fn affected(
        &self,
        classes: &mut Classes<'_>,
        records: &Records,
        old: &OldFrames,
    ) -> Result<Vec<Affected>, EngineError> {
        let watched: BTreeSet<PackName> =
            records.repacked().cloned().chain(old.packs().map(|pack| pack.name.clone())).collect();
        let watched: Vec<PackName> = watched.into_iter().collect();
        let mut marker = Marker::new(self.repository, watched.iter().cloned());
        let mut affected = Vec::new();
        // What cannot be read is no root that the record applies to: what it needs stays where it is.
        let _others = snapshots::each_batch(self.repository, ROOTS_AT_ONCE, &mut |batch| {
            for (root, named) in batch.iter().zip(marker.named(batch)?) {
                let class = classes.of(root.session(), &root.commit.via);
                if named.iter().any(|number| class.leads_to(&watched[*number as usize]).is_some()) {
                    affected.push(Affected { name: root.name.clone(), time: root.commit.time });
                }
            }
            Ok(())
        })?;
        affected.sort_by(|a, b| {
            let order = |root: &Affected| (root.name.vm, std::cmp::Reverse((root.name.seq, root.time)));
            order(a).cmp(&order(b))
        });
        Ok(affected)
    }

    /// The record before the decision: once the session is committed, it counts.
    fn publish(
        &self,
        copied: &copy::Copied,
        applies_to: Vec<SessionId>,
        left: u64,
    ) -> Result<RepackReport, EngineError> {
        let session = self.session.session();
        let record = record(self.session.decision.clone(), applies_to, &copied.leads);
        let encoded_len = record.encode().len();
        if encoded_len > SEALED_PLAIN_LEN_MAX - repo_format::limits::SIGNATURE_LEN {
            return Err(EngineError::BadJob("the record of a repack would be longer than it may be"));
        }
        let emptied: PackSet = copied.leads.keys().cloned().collect();
        let (name, bytes) =
            record.seal(self.repository.keys(), self.key, self.job.entropy.draw("record salt", 0));
        create(self.repository.store(), &name, &bytes)?;
        let end = Repacked { session, time: self.job.time, program: self.job.program.to_owned() };
        let salt = self.job.entropy.draw("decision salt", 0);
        let decision = Decision::Repack(end).seal(self.repository.keys(), &self.session.decision, salt);
        let store = self.repository.store();
        let blob = self.session.decision.blob();
        let put = store.put_new(&blob, &decision).or_else(|_| store.put_new(&blob, &decision))?;
        Ok(RepackReport {
            session: session.to_string(),
            emptied: emptied.len() as u64,
            emptied_bytes: emptied.bytes(),
            packs: copied.packs.len() as u64,
            written_bytes: copied.packs.iter().map(|pack| u64::from(pack.len)).sum(),
            frames: copied.frames,
            record_bytes: bytes.len() as u64,
            left: left + copied.left,
            aborted: put == Put::Different,
        })
    }
}

fn record(
    decision: DecisionName,
    applies_to: Vec<SessionId>,
    leads: &BTreeMap<PackRef, BTreeSet<PackRef>>,
) -> RepackRecord {
    let all: BTreeSet<&PackRef> = leads.keys().chain(leads.values().flatten()).collect();
    let packs: Vec<PackRef> = all.into_iter().cloned().collect();
    let number = |pack: &PackRef| {
        let place = packs.binary_search(pack).expect("the table was made of all packs");
        u32::try_from(place).expect("a record has fewer than 2^32 packs")
    };
    let lead = |(old, new): (&PackRef, &BTreeSet<PackRef>)| Lead {
        old: number(old),
        new: new.iter().map(number).collect(),
    };
    let leads = leads.iter().map(lead).collect();
    RepackRecord { session: decision.session, decision, applies_to, packs, leads }
}
