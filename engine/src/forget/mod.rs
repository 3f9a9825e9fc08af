//! Forgetting snapshots: by a policy, or by name (PROTOCOL step F).
//!
//! What is forgotten has a signed tombstone and is a snapshot no more, at once and for everybody. Nothing is deleted:
//! [`crate::prune`] frees what only forgotten snapshots needed. A tombstone is one create under a name of its own, so any
//! number of hosts may forget the same, and one that was interrupted is run again.
//!
//! A policy goes by the times that snapshots say they were made at. Whoever may write snapshots may lie about them, and a
//! clock may be wrong; so a time that is more than a day off the store's own date of the decision is not believed, and its
//! snapshot stays. A repository that was copied has new dates, which is what [`Times::Trusted`] is for.

pub mod policy;

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::generations::Generations;
use crate::lineage::{self, check_is_written, standing};
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::pins::{self, Pins};
use crate::repository::{Repository, get_sealed};
use crate::session::put_twice;
use crate::snapshots::{self, Query, Selector, Snapshot, Snapshots, UnreadableBlob};
use crate::store::{BlobInfo, Put};
use policy::{Point, Policy, Reason};
use repo_format::{
    BlobKind, BlobName, DecisionName, FormatError, Intent, PREFIX_DECISIONS, PREFIX_INTENTS,
    PREFIX_TOMBSTONES, RetentionKey, SessionId, Tombstone, VmTag, decisions_prefix,
};
use std::collections::{BTreeMap, BTreeSet};

/// How far a snapshot's time may be from the store's date of its decision, and in the future.
const TIMES_APART: u64 = 24 * 60 * 60 * 1000;

/// What is to be forgotten.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// What a policy does not keep, of each VM by itself.
    Policy {
        /// What stays.
        policy: &'a Policy,
        /// Only snapshots of these VMs; of all if there are none.
        vms: &'a [String],
        /// Only snapshots with one of these tags; all if there are none. Others are neither forgotten nor counted.
        tags: &'a [String],
    },
    /// These snapshots.
    Named(&'a [Selector]),
    /// What is behind these decisions that cannot be read, or of which a prune found that they are gone: called by the
    /// beginnings of their sessions' ids, or by the names of their blobs.
    Unreadable(&'a [String]),
}

/// Whether a VM may be left without any snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastOnes {
    /// No: that is an error.
    Stay,
    /// Yes, if they were named.
    MayGo,
}

/// Whether a policy believes the times of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Only if the store dates the decision within a day of it.
    Checked,
    /// Unless it is in the future: the repository was copied, and the store dates everything anew.
    Trusted,
}

/// What is to be forgotten, and how.
#[derive(Clone, Copy, Debug)]
pub struct ForgetJob<'a> {
    /// What.
    pub what: What<'a>,
    /// Whether a VM may be left without a snapshot.
    pub last_ones: LastOnes,
    /// Whether times are believed.
    pub times: Times,
    /// Now, milliseconds since 1970.
    pub time: u64,
    /// Randomness for the tombstones.
    pub entropy: &'a Entropy,
}

/// Why nothing, or not everything, was forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// No rule of a policy keeps anything.
    #[error("the policy would keep nothing")]
    KeepsNothing,
    /// A VM would have no snapshot left.
    #[error("{vm} would have no snapshot left")]
    LastOfVm {
        /// The VM.
        vm: String,
    },
    /// A snapshot that was named is pinned, or may be: a pin of it cannot be read.
    #[error("snapshot {session} of {vm} is pinned{}", because(reason))]
    Pinned {
        /// The snapshot.
        session: SessionId,
        /// Its VM.
        vm: String,
        /// Why it is pinned, in somebody's words; may be empty.
        reason: String,
    },
    /// A snapshot was forgotten while it was being pinned.
    #[error("snapshot {session} was forgotten meanwhile")]
    Meanwhile {
        /// The snapshot.
        session: SessionId,
    },
    /// There is no such decision.
    #[error("there is no decision {wanted}")]
    NoSuchDecision {
        /// What was asked for.
        wanted: String,
    },
    /// A decision that was called unreadable can be read.
    #[error("{name} can be read")]
    Readable {
        /// The decision.
        name: BlobName,
    },
    /// Some snapshots are forgotten and others are not.
    #[error("{forgotten} of {of} snapshots were forgotten before it stopped")]
    Stopped {
        /// Those that are forgotten.
        forgotten: u64,
        /// Those that were to be.
        of: u64,
        /// What stopped it.
        source: Box<EngineError>,
    },
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// What was forgotten or would be, and what was not.
#[derive(Debug, Default)]
pub struct ForgetReport {
    /// The VMs that were looked at, by name.
    pub vms: Vec<VmPoints>,
    /// Unreadable decisions that were named and are settled.
    pub settled: Vec<DecisionName>,
    /// Snapshots that were named and had been forgotten before.
    pub forgotten_before: Vec<SessionId>,
    /// Snapshots that cannot be forgotten, because something else has the names of their tombstones.
    pub blocked: Vec<BlobName>,
    /// Decisions, tombstones and pins that could not be read.
    pub unreadable: Vec<UnreadableBlob>,
    /// Objects that lack the retention's signature and count for nothing.
    pub unsigned: Vec<BlobName>,
}

/// The restore points of one VM that a policy looked at, or that were named.
#[derive(Debug)]
pub struct VmPoints {
    /// The VM.
    pub vm: String,
    /// What a policy was not applied for: decisions of this VM that cannot be read. Everything stays.
    pub held_by: Vec<DecisionName>,
    /// The restore points, the oldest first.
    pub points: Vec<JudgedPoint>,
}

/// A restore point and what became of it, or would.
#[derive(Debug)]
pub struct JudgedPoint {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Why it stays: all reasons that there are.
    pub reasons: BTreeSet<Reason>,
    /// Whether it goes.
    pub goes: bool,
}

impl ForgetReport {
    /// The restore points that go.
    pub fn going(&self) -> impl Iterator<Item = &JudgedPoint> {
        self.vms.iter().flat_map(|vm| &vm.points).filter(|point| point.goes)
    }

    /// Tells tombstones that the retention did not sign from what cannot be read.
    fn note(&mut self, unreadable: Vec<UnreadableBlob>) {
        for (name, error) in unreadable {
            let is_unsigned = matches!(error, EngineError::Damaged { source: FormatError::BadSignature, .. });
            if is_unsigned && matches!(name.kind(), Some(BlobKind::Tombstone { .. })) {
                self.unsigned.push(name);
            } else {
                self.unreadable.push((name, error));
            }
        }
    }
}

/// Says what [`forget`] would do, and does nothing.
///
/// # Errors
/// A [`ForgetError`], a snapshot that does not exist, or a failing store.
pub fn plan(repository: &Repository<'_>, job: &ForgetJob<'_>) -> Result<ForgetReport, EngineError> {
    match job.what {
        What::Policy { policy, vms, tags } => by_policy(repository, job, policy, (vms, tags)),
        What::Named(selectors) => named(repository, job, selectors),
        What::Unreadable(wanted) => unreadable(repository, wanted),
    }
}

/// Forgets snapshots.
///
/// # Errors
/// As [`plan`]; [`ForgetError::Stopped`] if it failed or was cancelled in the middle: run again, it goes on.
pub fn forget(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &ForgetJob<'_>,
    observer: &dyn Observer,
) -> Result<ForgetReport, EngineError> {
    check_key(repository, key)?;
    let _standing = check_is_written(repository)?;
    let mut report = plan(repository, job)?;
    let going = report.going().map(|point| point.snapshot.name.clone());
    let names: Vec<DecisionName> = going.chain(report.settled.iter().cloned()).collect();
    let of = names.len() as u64;
    begin(observer, Phase::Forget, of)?;
    for (forgotten, name) in (0..).zip(&names) {
        // The one before is done: whoever stops now stops between two.
        let told = if forgotten == 0 { Ok(()) } else { tell(observer, Event::Progress(1)) };
        let stopped = |source| ForgetError::Stopped { forgotten, of, source: Box::new(source) };
        if told.and_then(|()| bury(repository, key, job, name)).map_err(stopped)? == Buried::NameTaken {
            report.blocked.push(name.blob());
        }
    }
    Ok(report)
}

/// Refuses a key that signs for another repository.
pub(crate) fn check_key(repository: &Repository<'_>, key: &RetentionKey) -> Result<(), EngineError> {
    if key.public() == repository.keys().retention_public() {
        Ok(())
    } else {
        Err(EngineError::BadJob("the retention key is another repository's"))
    }
}

#[derive(PartialEq, Eq)]
enum Buried {
    /// There is an authentic tombstone now, this one or an earlier one.
    Yes,
    /// Something else has its name.
    NameTaken,
}

fn bury(
    repository: &Repository<'_>,
    key: &RetentionKey,
    job: &ForgetJob<'_>,
    name: &DecisionName,
) -> Result<Buried, EngineError> {
    let tombstone = Tombstone { session: name.session, time: job.time, decision: name.clone() };
    let number = u64::from_le_bytes(*name.session.0.first_chunk().expect("16 bytes begin with 8"));
    let (blob, bytes) = tombstone.seal(repository.keys(), key, job.entropy.draw("tombstone salt", number));
    match put_twice(repository.store(), &blob, &bytes)? {
        Put::Created | Put::Identical => Ok(Buried::Yes),
        Put::Different if snapshots::is_forgotten(repository, name)? => Ok(Buried::Yes),
        Put::Different => Ok(Buried::NameTaken),
    }
}

fn by_policy(
    repository: &Repository<'_>,
    job: &ForgetJob<'_>,
    policy: &Policy,
    (vms, tags): (&[String], &[String]),
) -> Result<ForgetReport, EngineError> {
    let vm = if let [vm] = vms { Some(vm.as_str()) } else { None };
    let Snapshots { snapshots, unreadable, .. } =
        snapshots::matching(repository, &Query { vm, ..Query::default() })?;
    let Pins { pinned, unknown, unreadable: unreadable_pins, unsigned } = pins::list(repository, vm)?;
    let dates = dates(repository, vm)?;
    let place = lineage::place(repository)?;
    let set_aside: BTreeSet<&DecisionName> = place.standing.set_aside().collect();
    let promoted = place.lineage.as_ref().and_then(|promoted| promoted.date);
    let mut held: BTreeMap<VmTag, Vec<DecisionName>> = BTreeMap::new();
    for (name, _) in &unreadable {
        if let Some(name) = DecisionName::of(name) {
            held.entry(name.vm).or_default().push(name);
        }
    }
    let mut of_vms: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        let Snapshot { commit, .. } = &snapshot;
        let is_wanted = (vms.is_empty() || vms.contains(&commit.vm))
            && (tags.is_empty() || tags.iter().any(|tag| commit.tags.contains(tag)));
        if is_wanted {
            of_vms.entry(commit.vm.clone()).or_default().push(snapshot);
        }
    }
    let judge = |(vm, snapshots): (String, Vec<Snapshot>)| {
        let held_by = held.get(&repository.keys().vm_tag(&vm)).cloned().unwrap_or_default();
        let point = |snapshot: &Snapshot| Point {
            session: snapshot.session(),
            time: snapshot.commit.time,
            seq: snapshot.name.seq,
            is_pinned: pinned.contains_key(&snapshot.session()) || unknown.contains(&snapshot.session()),
            is_doubtful: is_doubtful(snapshot, job, (dates.get(&snapshot.name.blob()), promoted)),
            is_set_aside: set_aside.contains(&snapshot.name),
        };
        let points: Vec<Point> = snapshots.iter().map(point).collect();
        let judged = snapshots.into_iter().zip(policy::reasons(policy, &points));
        let points = judged.map(|(snapshot, reasons)| {
            let goes = held_by.is_empty() && reasons.is_empty();
            JudgedPoint { snapshot, reasons, goes }
        });
        VmPoints { vm, points: points.collect(), held_by: held_by.clone() }
    };
    let mut report = ForgetReport {
        vms: of_vms.into_iter().map(judge).collect(),
        unreadable: unreadable_pins,
        unsigned,
        ..ForgetReport::default()
    };
    report.note(unreadable);
    Ok(report)
}

/// When the store says that each decision was created.
fn dates(repository: &Repository<'_>, vm: Option<&str>) -> Result<BTreeMap<BlobName, u64>, EngineError> {
    let prefix =
        vm.map_or_else(|| PREFIX_DECISIONS.to_owned(), |vm| decisions_prefix(repository.keys().vm_tag(vm)));
    let listed = repository.list(&prefix)?.into_iter();
    Ok(listed.map(|BlobInfo { name, modified, .. }| (name, modified)).collect())
}

/// Whether a snapshot's time is not to be relied on. What was there before the place was promoted has arrived from elsewhere:
/// when it was created here says nothing.
fn is_doubtful(
    snapshot: &Snapshot,
    job: &ForgetJob<'_>,
    (date, promoted): (Option<&u64>, Option<u64>),
) -> bool {
    let time = snapshot.commit.time;
    let is_off = match job.times {
        Times::Checked if date.zip(promoted).is_some_and(|(date, promoted)| *date < promoted) => false,
        Times::Checked => date.is_none_or(|date| date.abs_diff(time) > TIMES_APART),
        Times::Trusted => false,
    };
    is_off || time > job.time.saturating_add(TIMES_APART)
}

fn named(
    repository: &Repository<'_>,
    job: &ForgetJob<'_>,
    selectors: &[Selector],
) -> Result<ForgetReport, EngineError> {
    let mut report = ForgetReport::default();
    let mut of_vms: BTreeMap<String, BTreeMap<SessionId, Snapshot>> = BTreeMap::new();
    for selector in selectors {
        match snapshots::find(repository, selector) {
            Ok(snapshot) => {
                let of_vm = of_vms.entry(snapshot.commit.vm.clone()).or_default();
                of_vm.insert(snapshot.session(), snapshot);
            }
            Err(error @ EngineError::NoSuchSnapshot { .. }) => match selector {
                Selector::Id(id) => match forgotten_before(repository, id)? {
                    Some(session) => report.forgotten_before.push(session),
                    None => return Err(error),
                },
                Selector::Latest(_) | Selector::AtTime(..) => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    let standing = standing(repository)?;
    let set_aside: BTreeSet<&DecisionName> = standing.set_aside().collect();
    for (vm, named) in of_vms {
        let pins = pins::list(repository, Some(&vm))?;
        for session in named.keys() {
            refuse_pinned(&vm, *session, &pins)?;
        }
        report.unsigned.extend(pins.unsigned);
        report.unreadable.extend(pins.unreadable);
        let Snapshots { snapshots, unreadable, .. } = snapshots::list(repository, Some(&vm))?;
        let goes = |snapshot: &Snapshot| named.contains_key(&snapshot.session());
        // What may not be whole does not count, and is nobody's last one.
        let counts = |snapshot: &&Snapshot| !set_aside.contains(&snapshot.name);
        let mut counting = snapshots.iter().filter(counts).peekable();
        let is_last = counting.peek().is_some() && counting.all(goes);
        if is_last && job.last_ones == LastOnes::Stay {
            return Err(ForgetError::LastOfVm { vm }.into());
        }
        report.note(unreadable);
        let points = snapshots.into_iter().filter(|snapshot| named.contains_key(&snapshot.session()));
        let points =
            points.map(|snapshot| JudgedPoint { snapshot, reasons: BTreeSet::new(), goes: true }).collect();
        report.vms.push(VmPoints { vm, held_by: Vec::new(), points });
    }
    Ok(report)
}

fn refuse_pinned(vm: &str, session: SessionId, pins: &Pins) -> Result<(), ForgetError> {
    let pin = pins.pinned.get(&session);
    if pin.is_none() && !pins.unknown.contains(&session) {
        return Ok(());
    }
    let reason = pin.map(|pin| pin.reason.clone()).unwrap_or_default();
    Err(ForgetError::Pinned { session, vm: vm.to_owned(), reason })
}

/// A session that an id prefix can only mean, if it is forgotten: a forget that was interrupted is run again.
fn forgotten_before(repository: &Repository<'_>, id: &str) -> Result<Option<SessionId>, EngineError> {
    for info in repository.list(PREFIX_TOMBSTONES)? {
        let Some(BlobKind::Tombstone { session, .. }) = info.name.kind() else { continue };
        if session.to_string().starts_with(id) {
            let bytes = get_sealed(repository.store(), &info.name)?;
            if Tombstone::open(repository.keys(), &info.name, &bytes).is_ok() {
                return Ok(Some(session));
            }
        }
    }
    Ok(None)
}

fn unreadable(repository: &Repository<'_>, wanted: &[String]) -> Result<ForgetReport, EngineError> {
    let mut report = ForgetReport::default();
    let listed = repository.list(PREFIX_DECISIONS)?;
    let decisions: Vec<DecisionName> =
        listed.iter().filter_map(|info| DecisionName::of(&info.name)).collect();
    for wanted in wanted {
        let fits = |name: &&DecisionName| {
            name.session.to_string().starts_with(wanted) || name.blob().as_str() == wanted
        };
        let found: Vec<&DecisionName> = decisions.iter().filter(fits).collect();
        let gone;
        let name = match found.as_slice() {
            [] => {
                let nothing = || ForgetError::NoSuchDecision { wanted: wanted.clone() };
                gone = vanished(repository, wanted)?.ok_or_else(nothing)?;
                &gone
            }
            [name] => *name,
            several => {
                let found = several.iter().map(|name| name.session).collect();
                return Err(EngineError::AmbiguousSnapshot { wanted: wanted.clone(), found });
            }
        };
        if snapshots::is_forgotten(repository, name)? {
            report.forgotten_before.push(name.session);
            continue;
        }
        match snapshots::read(repository, name) {
            Err(error @ EngineError::Damaged { .. }) => {
                report.settled.push(name.clone());
                report.unreadable.push((name.blob(), error));
            }
            Err(error) => return Err(error),
            Ok(None) => report.settled.push(name.clone()),
            Ok(Some(_)) => return Err(ForgetError::Readable { name: name.blob() }.into()),
        }
    }
    Ok(report)
}

/// The decision of a snapshot that was there when the last prune ended, and is gone: its intent still tells its name. A
/// session that no prune has seen as a snapshot may be running.
fn vanished(repository: &Repository<'_>, wanted: &str) -> Result<Option<DecisionName>, EngineError> {
    let roster = Generations::own(repository, &standing(repository)?)?.roster(repository)?;
    let seen: BTreeSet<SessionId> =
        roster.into_iter().filter(|session| session.to_string().starts_with(wanted)).collect();
    if seen.is_empty() {
        return Ok(None);
    }
    for info in repository.list(PREFIX_INTENTS)? {
        if let Some(BlobKind::Intent { session, .. }) = info.name.kind()
            && seen.contains(&session)
        {
            let bytes = get_sealed(repository.store(), &info.name)?;
            let intent = Intent::open(repository.keys(), &info.name, &bytes);
            return Ok(Some(intent.map_err(EngineError::damaged(&info.name))?.decision));
        }
    }
    Ok(None)
}
