//! Finding snapshots.

use crate::error::EngineError;
use crate::lineage::Standing;
use crate::repository::{Repository, get_sealed};
use crate::store::{BlobInfo, StoreError};
use crate::threads;
use repo_format::{
    BlobKind, BlobName, Commit, Decision, DecisionName, Disk, PREFIX_DECISIONS, PREFIX_TOMBSTONES, SessionId,
    Tombstone, VmTag, decisions_prefix, tombstones_prefix,
};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Decisions that are read at the same time: each is a round trip to a far store.
const READ_THREADS: usize = 32;
/// Decisions that are read before what they say is handed over: some MiB of them.
const READ_AT_ONCE: usize = 4096;
/// Decisions of one VM that are read in one go on the way back to a time.
const READ_BACK: usize = 16;
/// How far the clocks of the writers of one VM may be apart: a snapshot that is older by so much was made before.
const CLOCKS_APART: u64 = 24 * 60 * 60 * 1000;

/// A committed session that was not forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The name of its decision.
    pub name: DecisionName,
    /// Its content.
    pub commit: Commit,
}

impl Snapshot {
    /// Its id.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.name.session
    }

    /// One of its disks; the only one if `key` is nothing.
    ///
    /// # Errors
    /// [`EngineError::NoSuchDisk`] or [`EngineError::DiskNotNamed`].
    pub fn disk(&self, key: Option<&str>) -> Result<&Disk, EngineError> {
        let disks = &self.commit.disks;
        let found = || disks.iter().map(|disk| disk.key.clone()).collect();
        match key {
            Some(key) => disks
                .iter()
                .find(|disk| disk.key == key)
                .ok_or_else(|| EngineError::NoSuchDisk { wanted: key.to_owned(), found: found() }),
            None => match disks.as_slice() {
                [disk] => Ok(disk),
                _ => Err(EngineError::DiskNotNamed { found: found() }),
            },
        }
    }
}

/// A blob that could not be read, and why.
pub type UnreadableBlob = (BlobName, EngineError);

/// Snapshots, and the decisions that could not be read.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Valid roots, the oldest first (by time, then id).
    pub snapshots: Vec<Snapshot>,
    /// Damaged decisions.
    pub unreadable: Vec<UnreadableBlob>,
    /// What tombstones forget.
    pub forgotten: BTreeSet<DecisionName>,
    /// Sessions that were aborted.
    pub aborted: BTreeSet<SessionId>,
    /// Sessions that repacked.
    pub repacked: BTreeSet<SessionId>,
}

/// What a user calls a snapshot by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The beginning of its id, in hex.
    Id(String),
    /// The newest of a VM.
    Latest(String),
    /// The newest of a VM that is not later than a time (milliseconds since 1970).
    AtTime(String, u64),
}

/// Which snapshots are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// Those of this VM; nothing for all VMs.
    pub vm: Option<&'a str>,
    /// At most so many of each VM, the newest (SPEC W-3).
    pub newest: Option<usize>,
    /// Those that are not older than this time, milliseconds since 1970. It is taken for granted that the clocks of the
    /// writers of one VM are less than a day apart.
    pub since: Option<u64>,
}

impl<'a> Query<'a> {
    /// What finds all snapshots of some VMs, one after another; those of all VMs if none is named.
    #[must_use]
    pub fn of_vms(vms: &'a [String]) -> Vec<Self> {
        if vms.is_empty() {
            return vec![Self::default()];
        }
        vms.iter().map(|vm| Self { vm: Some(vm), ..Self::default() }).collect()
    }
}

/// Lists the snapshots of one VM, or of all.
///
/// # Errors
/// A failing store; damaged decisions are no error but reported in the result.
pub fn list(repository: &Repository<'_>, vm: Option<&str>) -> Result<Snapshots, EngineError> {
    matching(repository, &Query { vm, ..Query::default() })
}

/// Lists the snapshots that are wanted. What is unreadable or aborted is told of the decisions that were looked at.
///
/// # Errors
/// As [`list`].
pub fn matching(repository: &Repository<'_>, query: &Query<'_>) -> Result<Snapshots, EngineError> {
    let mut snapshots = Vec::new();
    let mut result = each(repository, query, &mut |snapshot| snapshots.push(snapshot))?;
    snapshots.sort_by_key(|snapshot| (snapshot.commit.time, snapshot.session()));
    result.snapshots = snapshots;
    Ok(result)
}

/// Hands over the snapshots that are wanted, in no order, and returns everything else that was found. Only
/// decisions that may be wanted are read: the newest of a VM takes one. Some thousand snapshots are in memory at a time,
/// however many there are.
///
/// # Errors
/// As [`list`].
pub fn each(
    repository: &Repository<'_>,
    query: &Query<'_>,
    take: &mut dyn FnMut(Snapshot),
) -> Result<Snapshots, EngineError> {
    try_each(repository, query, &mut |snapshot| {
        take(snapshot);
        Ok(())
    })
}

/// As [`each`] for all snapshots, so many at a time.
///
/// # Errors
/// As [`list`]; the first one of `take`, which ends it.
pub(crate) fn each_batch(
    repository: &Repository<'_>,
    at_once: usize,
    take: &mut dyn FnMut(&[Snapshot]) -> Result<(), EngineError>,
) -> Result<Snapshots, EngineError> {
    let mut batch = Vec::new();
    let found = try_each(repository, &Query::default(), &mut |snapshot| {
        batch.push(snapshot);
        if batch.len() < at_once { Ok(()) } else { take(&std::mem::take(&mut batch)) }
    })?;
    take(&batch)?;
    Ok(found)
}

/// As [`each`].
///
/// # Errors
/// As [`list`]; the first one of `take`, which ends it.
pub(crate) fn try_each(
    repository: &Repository<'_>,
    query: &Query<'_>,
    take: &mut dyn FnMut(Snapshot) -> Result<(), EngineError>,
) -> Result<Snapshots, EngineError> {
    let tag = query.vm.map(|vm| repository.keys().vm_tag(vm));
    let (decisions, tombstones) = match tag {
        Some(tag) => (decisions_prefix(tag), tombstones_prefix(tag)),
        None => (PREFIX_DECISIONS.to_owned(), PREFIX_TOMBSTONES.to_owned()),
    };
    let mut names: Vec<DecisionName> =
        repository.list(&decisions)?.iter().filter_map(|info| DecisionName::of(&info.name)).collect();
    let mut result = Snapshots::default();
    let tombstones = repository.list(&tombstones)?;
    result.forgotten = tombstoned(repository, &tombstones, &names, &mut result.unreadable)?;
    // The newest of each VM first.
    names.sort_by(|a, b| (a.vm, b.seq, b.session).cmp(&(b.vm, a.seq, a.session)));
    let mut left: Vec<Backwards<'_>> = names.chunk_by(|a, b| a.vm == b.vm).map(Backwards::new).collect();
    left.reverse();
    while !left.is_empty() {
        // As many VMs as make a batch, each to its end or to where it is known what is wanted of it.
        let mut batch: Vec<DecisionName> = Vec::new();
        let mut asked: Vec<Backwards<'_>> = Vec::new();
        while batch.len() < READ_AT_ONCE
            && let Some(mut of_vm) = left.pop()
        {
            let next = of_vm.take(query, READ_AT_ONCE - batch.len());
            batch.extend(next.iter().filter(|name| !result.forgotten.contains(name)).cloned());
            asked.push(of_vm);
        }
        let mut read = read_all(repository, &batch)?.into_iter().peekable();
        let mut unfinished = Vec::new();
        for mut of_vm in asked {
            let mut found = Vec::new();
            while let Some((name, decision)) = read.next_if(|(name, _)| name.vm == of_vm.vm()) {
                match decision {
                    Ok(Some(Decision::Commit(commit))) => found.push(Snapshot { name, commit: *commit }),
                    Ok(Some(Decision::Abort(_))) => drop(result.aborted.insert(name.session)),
                    Ok(Some(Decision::Repack(_))) => drop(result.repacked.insert(name.session)),
                    // Removed between the listing and the reading: it had a tombstone.
                    Ok(None) => {}
                    Err(error) => result.unreadable.push((name.blob(), error)),
                }
            }
            of_vm.note(query, found, take)?;
            if !of_vm.is_done() {
                unfinished.push(of_vm);
            }
        }
        left.extend(unfinished.into_iter().rev());
    }
    Ok(result)
}

/// The decisions of one VM, from the newest backwards, as far as they are wanted.
struct Backwards<'n> {
    names: &'n [DecisionName],
    /// Those that were read.
    next: usize,
    /// Snapshots that were handed over.
    found: usize,
    /// Everything that is wanted was found.
    is_enough: bool,
}

impl<'n> Backwards<'n> {
    fn new(names: &'n [DecisionName]) -> Self {
        Self { names, next: 0, found: 0, is_enough: false }
    }

    fn vm(&self) -> VmTag {
        self.names[0].vm
    }

    fn is_done(&self) -> bool {
        self.is_enough || self.next == self.names.len()
    }

    /// The next decisions to read, at most `room` but at least one. Those with the same number stay together.
    fn take(&mut self, query: &Query<'_>, room: usize) -> &'n [DecisionName] {
        let left = &self.names[self.next..];
        let wanted = match (query.newest, query.since) {
            (Some(newest), None) => newest.saturating_sub(self.found),
            (Some(newest), Some(_)) => newest.saturating_sub(self.found).min(READ_BACK),
            (None, Some(_)) => READ_BACK,
            (None, None) => left.len(),
        };
        let mut end = wanted.min(room).clamp(1, left.len());
        while query.newest.is_some() && left.get(end).is_some_and(|next| next.seq == left[end - 1].seq) {
            end += 1;
        }
        self.next += end;
        &left[..end]
    }

    /// Hands over what is wanted of the snapshots that were found among the decisions read last.
    fn note(
        &mut self,
        query: &Query<'_>,
        mut found: Vec<Snapshot>,
        take: &mut dyn FnMut(Snapshot) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        found.sort_by_key(|snapshot| Reverse((snapshot.name.seq, snapshot.commit.time, snapshot.session())));
        for snapshot in found {
            let time = snapshot.commit.time;
            if query.since.is_some_and(|since| time < since) {
                self.is_enough |= query.since.is_some_and(|since| since - time >= CLOCKS_APART);
            } else if query.newest.is_none_or(|newest| self.found < newest) {
                self.found += 1;
                take(snapshot)?;
            }
        }
        self.is_enough |= query.newest.is_some_and(|newest| self.found >= newest);
        Ok(())
    }
}

/// Finds the one snapshot that a selector means.
///
/// # Errors
/// [`EngineError::NoSuchSnapshot`], [`EngineError::AmbiguousSnapshot`], a decision that cannot be read and may be of the
/// snapshot that is meant, or a failing store.
pub fn find(repository: &Repository<'_>, selector: &Selector) -> Result<Snapshot, EngineError> {
    let (vm, wanted) = match selector {
        Selector::Id(id) => (None, id.clone()),
        Selector::Latest(vm) => (Some(vm.as_str()), format!("{vm}@latest")),
        Selector::AtTime(vm, _) => (Some(vm.as_str()), format!("of {vm} that is so old")),
    };
    let mut found = match selector {
        Selector::Id(id) => find_by_id(repository, id)?,
        Selector::Latest(_) => {
            not_later(matching(repository, &Query { vm, newest: Some(1), since: None })?, u64::MAX)?
        }
        Selector::AtTime(_, time) => not_later(back_to(repository, vm, *time)?, *time)?,
    };
    match (selector, found.len()) {
        (Selector::Id(_), 2..) => Err(EngineError::AmbiguousSnapshot {
            wanted,
            found: found.iter().map(Snapshot::session).collect(),
        }),
        _ => found.pop().ok_or(EngineError::NoSuchSnapshot { wanted }),
    }
}

/// The snapshots of one VM from the newest one back to the last that is not later than a time.
fn back_to(repository: &Repository<'_>, vm: Option<&str>, time: u64) -> Result<Snapshots, EngineError> {
    let mut since = time.saturating_sub(CLOCKS_APART);
    loop {
        let found = matching(repository, &Query { vm, newest: None, since: Some(since) })?;
        if since == 0 || found.snapshots.iter().any(|snapshot| snapshot.commit.time <= time) {
            return Ok(found);
        }
        // The VM was not backed up for a while: twice as far back.
        since = time.saturating_sub((time - since).saturating_mul(2));
    }
}

/// The snapshots of one VM that are not later than a time. A decision that cannot be read could be of the last of them,
/// unless a later one that can be read is: an older snapshot must not silently take its place.
fn not_later(listed: Snapshots, time: u64) -> Result<Vec<Snapshot>, EngineError> {
    let Snapshots { mut snapshots, unreadable, .. } = listed;
    let later = snapshots.iter().filter(|snapshot| snapshot.commit.time > time);
    let first_later = later.map(|snapshot| snapshot.name.seq).min();
    snapshots.retain(|snapshot| snapshot.commit.time <= time);
    let last = snapshots.last().map(|snapshot| snapshot.name.seq);
    for (name, error) in unreadable {
        if let Some(name) = DecisionName::of(&name)
            && last.is_none_or(|last| name.seq >= last)
            && first_later.is_none_or(|later| name.seq <= later)
        {
            return Err(error);
        }
    }
    Ok(snapshots)
}

/// Reads only the decisions whose names fit.
fn find_by_id(repository: &Repository<'_>, prefix: &str) -> Result<Vec<Snapshot>, EngineError> {
    let mut found = Vec::new();
    for info in repository.list(PREFIX_DECISIONS)? {
        let Some(name) = DecisionName::of(&info.name) else { continue };
        if !name.session.to_string().starts_with(prefix) {
            continue;
        }
        if let Some(Decision::Commit(commit)) = read(repository, &name)?
            && !is_forgotten(repository, &name)?
        {
            found.push(Snapshot { name, commit: *commit });
        }
    }
    Ok(found)
}

/// Whether one session has an authentic tombstone.
pub(crate) fn is_forgotten(repository: &Repository<'_>, name: &DecisionName) -> Result<bool, EngineError> {
    let tombstone = BlobName::tombstone(name.vm, name.session);
    let decided = std::slice::from_ref(name);
    let tombstones = repository.list(tombstone.as_str())?;
    Ok(tombstoned(repository, &tombstones, decided, &mut Vec::new())?.contains(name))
}

/// The newest snapshot of a VM, and what came to light on the way to it.
pub(crate) struct Newest {
    pub(crate) snapshot: Option<Snapshot>,
    /// Decisions and tombstones that could not be read.
    pub(crate) unreadable: Vec<UnreadableBlob>,
    /// A decided session that began after the snapshot, or beside it, and is no snapshot (any more).
    pub(crate) later: Option<SessionId>,
    /// All sessions of the VM that have a decision or a tombstone, by name alone.
    pub(crate) ended: BTreeSet<SessionId>,
}

/// The parent of a new snapshot (SPEC W-3).
pub(crate) fn newest(
    repository: &Repository<'_>,
    vm: VmTag,
    standing: &Standing,
) -> Result<Newest, EngineError> {
    let Decided { mut names, forgotten, ended, mut unreadable } = decided(repository, vm)?;
    names.sort_by_key(|name| Reverse(name.seq));
    let mut best: Option<Snapshot> = None;
    // What was not whole when this place was promoted may lack what a new snapshot would inherit.
    let set_aside: BTreeSet<&DecisionName> = standing.set_aside().collect();
    for name in names.iter().filter(|name| !forgotten.contains(name) && !set_aside.contains(name)) {
        if best.as_ref().is_some_and(|best| best.name.seq > name.seq) {
            break;
        }
        match read(repository, name) {
            Ok(Some(Decision::Commit(commit))) => {
                let rank = |snapshot: &Snapshot| (snapshot.commit.time, snapshot.session());
                let found = Snapshot { name: name.clone(), commit: *commit };
                if best.as_ref().is_none_or(|best| rank(&found) > rank(best)) {
                    best = Some(found);
                }
            }
            Ok(_) => {}
            Err(error @ EngineError::Damaged { .. }) => unreadable.push((name.blob(), error)),
            Err(error) => return Err(error),
        }
    }
    let later = best.as_ref().and_then(|best| {
        let mut beside = names.iter().filter(|name| name.seq >= best.name.seq);
        beside.find(|name| name.session != best.session()).map(|name| name.session)
    });
    Ok(Newest { snapshot: best, unreadable, later, ended })
}

/// The parent of an imported snapshot: that one, if it is a snapshot (still).
pub(crate) fn given(
    repository: &Repository<'_>,
    vm: VmTag,
    parent: Option<&DecisionName>,
) -> Result<Newest, EngineError> {
    let Decided { names, forgotten, ended, mut unreadable } = decided(repository, vm)?;
    let there = parent.filter(|parent| names.contains(parent) && !forgotten.contains(parent));
    let snapshot = match there.map(|name| (name, read(repository, name))) {
        Some((name, Ok(Some(Decision::Commit(commit))))) => {
            Some(Snapshot { name: name.clone(), commit: *commit })
        }
        Some((name, Err(error @ EngineError::Damaged { .. }))) => {
            unreadable.push((name.blob(), error));
            None
        }
        Some((_, Err(error))) => return Err(error),
        Some((_, Ok(_))) | None => None,
    };
    Ok(Newest { snapshot, unreadable, later: None, ended })
}

/// Which sessions of a VM are decided.
struct Decided {
    names: Vec<DecisionName>,
    forgotten: BTreeSet<DecisionName>,
    ended: BTreeSet<SessionId>,
    unreadable: Vec<UnreadableBlob>,
}

fn decided(repository: &Repository<'_>, vm: VmTag) -> Result<Decided, EngineError> {
    let listed = repository.list(&decisions_prefix(vm))?;
    let names: Vec<DecisionName> = listed.iter().filter_map(|info| DecisionName::of(&info.name)).collect();
    let mut unreadable = Vec::new();
    let tombstones = repository.list(&tombstones_prefix(vm))?;
    let forgotten = tombstoned(repository, &tombstones, &names, &mut unreadable)?;
    let buried = tombstones.iter().filter_map(|info| match info.name.kind() {
        Some(BlobKind::Tombstone { session, .. }) => Some(session),
        _ => None,
    });
    let ended = names.iter().map(|name| name.session).chain(buried).collect();
    Ok(Decided { names, forgotten, ended, unreadable })
}

/// Whether a snapshot is another one, or was built on it by way of snapshots that are all still there.
pub(crate) fn descends(
    repository: &Repository<'_>,
    snapshot: &Snapshot,
    from: &DecisionName,
) -> Result<bool, EngineError> {
    let (mut name, mut parent) = (snapshot.name.clone(), snapshot.commit.parent.clone());
    while name != *from {
        // A parent's number is smaller (SPEC 10.2), so this ends.
        let Some(next) = parent.filter(|next| next.seq >= from.seq && next.seq < name.seq) else {
            return Ok(false);
        };
        let Some(Decision::Commit(commit)) = read(repository, &next)? else { return Ok(false) };
        (name, parent) = (next, commit.parent);
    }
    Ok(true)
}

/// Reads one decision; nothing if there is none.
pub(crate) fn read(
    repository: &Repository<'_>,
    name: &DecisionName,
) -> Result<Option<Decision>, EngineError> {
    let blob = name.blob();
    match get_sealed(repository.store(), &blob) {
        Ok(bytes) => {
            let decision = Decision::open(repository.keys(), name, &bytes);
            Ok(Some(decision.map_err(EngineError::damaged(&blob))?))
        }
        Err(EngineError::Store(StoreError::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

type Read = Result<Option<Decision>, EngineError>;

/// Reads decisions, several at a time; the order is that of `names`. Only a damaged one is no failure.
fn read_all(
    repository: &Repository<'_>,
    names: &[DecisionName],
) -> Result<Vec<(DecisionName, Read)>, EngineError> {
    let decisions = threads::each(names, READ_THREADS, |name| read(repository, name));
    let read = names.iter().zip(decisions).map(|(name, decision)| match decision {
        Err(error) if !matches!(error, EngineError::Damaged { .. }) => Err(error),
        other => Ok((name.clone(), other)),
    });
    read.collect()
}

/// Those of some sessions, whatever their VMs, that have an authentic tombstone.
pub(crate) fn tombstoned_sessions(
    repository: &Repository<'_>,
    sessions: &BTreeSet<SessionId>,
) -> Result<BTreeSet<SessionId>, EngineError> {
    let is_wanted = |_: VmTag, session| sessions.contains(&session);
    let listed = repository.list(PREFIX_TOMBSTONES)?;
    let names = buried(repository, &listed, &is_wanted, &mut Vec::new())?;
    Ok(names.into_iter().map(|name| name.session).collect())
}

/// Those of some decisions that have an authentic tombstone. A damaged one hides nothing and is reported.
///
/// It forgets the decision that it names, and no other with the same session id: ids are no secret, and whoever may create
/// blobs may use one again.
pub(crate) fn tombstoned(
    repository: &Repository<'_>,
    tombstones: &[BlobInfo],
    decided: &[DecisionName],
    unreadable: &mut Vec<UnreadableBlob>,
) -> Result<BTreeSet<DecisionName>, EngineError> {
    let decided: BTreeSet<(VmTag, SessionId)> = decided.iter().map(|name| (name.vm, name.session)).collect();
    let is_wanted = |vm, session| decided.contains(&(vm, session));
    buried(repository, tombstones, &is_wanted, unreadable)
}

/// The decisions that authentic tombstones forget, of those tombstones that are wanted by their names.
fn buried(
    repository: &Repository<'_>,
    tombstones: &[BlobInfo],
    is_wanted: &dyn Fn(VmTag, SessionId) -> bool,
    unreadable: &mut Vec<UnreadableBlob>,
) -> Result<BTreeSet<DecisionName>, EngineError> {
    let wanted = |info: &BlobInfo| match info.name.kind() {
        Some(BlobKind::Tombstone { vm, session }) if is_wanted(vm, session) => Some(info.name.clone()),
        _ => None,
    };
    let names: Vec<BlobName> = tombstones.iter().filter_map(wanted).collect();
    let blobs = threads::each(&names, READ_THREADS, |name| get_sealed(repository.store(), name));
    let mut forgotten = BTreeSet::new();
    for (name, bytes) in names.into_iter().zip(blobs) {
        let bytes = match bytes {
            Err(error) if error.is_damage() => {
                unreadable.push((name, error));
                continue;
            }
            other => other?,
        };
        match Tombstone::open(repository.keys(), &name, &bytes) {
            Ok(tombstone) => drop(forgotten.insert(tombstone.decision)),
            Err(source) => unreadable.push((name.clone(), EngineError::Damaged { name, source })),
        }
    }
    Ok(forgotten)
}
