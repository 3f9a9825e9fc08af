//! Restore points that go: by a policy, or because they were named.

use super::policy::{self, Point, Policy};
use super::{ForgetError, ForgetJob, ForgetReport, JudgedPoint, LastOnes, Times, VmPoints};
use crate::error::EngineError;
use crate::lineage;
use crate::observer::Quiet;
use crate::pins::{self, Pins};
use crate::replica::{self, Doubt};
use crate::repository::{Repository, get_sealed};
use crate::snapshots::{Query, Selector, Snapshot, UnreadableBlob};
use crate::store::BlobInfo;
use repo_format::{
    BlobKind, BlobName, DecisionName, PREFIX_DECISIONS, PREFIX_TOMBSTONES, SessionId, Tombstone, VmTag,
    decisions_prefix,
};
use std::collections::{BTreeMap, BTreeSet};

/// How far a snapshot's time may be from the store's date of its decision, and in the future.
const TIMES_APART: u64 = 24 * 60 * 60 * 1000;

/// What a policy does with the restore points of some VMs.
pub(super) fn by_policy(
    repository: &Repository<'_>,
    job: &ForgetJob<'_>,
    policy: &Policy,
    (vms, tags): (&[String], &[String]),
) -> Result<ForgetReport, EngineError> {
    let vm = if let [vm] = vms { Some(vm.as_str()) } else { None };
    let place = lineage::place(repository)?;
    let Listed { snapshots, incomplete, unreadable } = listed(repository, &place.standing.into(), vm)?;
    let Pins { pinned, unknown, unreadable: unreadable_pins, unsigned } = pins::list(repository, vm)?;
    let dates = dates(repository, vm)?;
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
            is_incomplete: incomplete.contains(&snapshot.name),
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

/// The restore points of one VM, or of all.
struct Listed {
    /// The oldest first.
    snapshots: Vec<Snapshot>,
    /// Those that are not whole: they are no replacement for others.
    incomplete: BTreeSet<DecisionName>,
    unreadable: Vec<UnreadableBlob>,
}

fn listed(repository: &Repository<'_>, doubt: &Doubt, vm: Option<&str>) -> Result<Listed, EngineError> {
    let (mut snapshots, mut incomplete) = (Vec::new(), BTreeSet::new());
    let query = Query { vm, ..Query::default() };
    let found = replica::each(repository, (doubt, &query), &Quiet, &mut |point| {
        if !point.whole.is_whole() {
            incomplete.insert(point.snapshot.name.clone());
        }
        snapshots.push(point.snapshot);
    })?;
    snapshots.sort_by_key(|snapshot| (snapshot.commit.time, snapshot.session()));
    Ok(Listed { snapshots, incomplete, unreadable: found.unreadable })
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

/// Restore points that go because they were named.
pub(super) fn named(
    repository: &Repository<'_>,
    job: &ForgetJob<'_>,
    selectors: &[Selector],
) -> Result<ForgetReport, EngineError> {
    let mut report = ForgetReport::default();
    let mut of_vms: BTreeMap<String, BTreeMap<SessionId, Snapshot>> = BTreeMap::new();
    let doubt = lineage::standing(repository)?.into();
    for selector in selectors {
        match replica::find_any(repository, &doubt, selector) {
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
    for (vm, named) in of_vms {
        let pins = pins::list(repository, Some(&vm))?;
        for session in named.keys() {
            refuse_pinned(&vm, *session, &pins)?;
        }
        report.unsigned.extend(pins.unsigned);
        report.unreadable.extend(pins.unreadable);
        let Listed { snapshots, incomplete, unreadable } = listed(repository, &doubt, Some(&vm))?;
        let goes = |snapshot: &Snapshot| named.contains_key(&snapshot.session());
        let counts = |snapshot: &&Snapshot| !incomplete.contains(&snapshot.name);
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
