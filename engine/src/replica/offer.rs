//! Which restore points a place offers: where some may not be whole, only those that are.

use super::completeness::{Completeness, Missing, Whole};
use crate::error::EngineError;
use crate::map::named::ROOTS_AT_ONCE;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::repository::Repository;
use crate::snapshots::{self, Query, Selector, Snapshot, Snapshots};
use repo_format::DecisionName;
use std::collections::BTreeSet;

/// Restore points of a VM that are looked at first on the way back to one that is whole.
const LOOKED_AT_FIRST: usize = 4;
/// How many times as many are looked at then.
const MORE_EACH_TIME: usize = 4;

/// Which restore points may not be whole in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// None: the repository is written to here, and what is not there is lost.
    None,
    /// Any: they are copied from elsewhere.
    All,
    /// These: they were not whole when the place was promoted.
    Of(BTreeSet<DecisionName>),
}

impl Doubt {
    /// Whether nothing has to be looked at.
    #[must_use]
    pub fn is_none(&self) -> bool {
        match self {
            Self::None => true,
            Self::All => false,
            Self::Of(names) => names.is_empty(),
        }
    }

    /// Whether a restore point has to be looked at.
    #[must_use]
    pub fn is_about(&self, name: &DecisionName) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Of(names) => names.contains(name),
        }
    }
}

/// A restore point, and what was found of it if it was looked at.
#[derive(Clone, Debug)]
pub struct Point {
    /// The restore point.
    pub snapshot: Snapshot,
    /// Whether it is whole; those that are not in doubt are.
    pub whole: Whole,
}

/// Hands over the restore points that are wanted, in no order, each with whether it is whole. Returns everything else that
/// was found. Some thousand are in memory at a time, however many there are.
///
/// # Errors
/// A failing store, or [`EngineError::Cancelled`].
pub fn each(
    repository: &Repository<'_>,
    (doubt, query): (&Doubt, &Query<'_>),
    observer: &dyn Observer,
    take: &mut dyn FnMut(Point),
) -> Result<Snapshots, EngineError> {
    try_each(repository, (doubt, query), observer, &mut |point| {
        take(point);
        Ok(())
    })
}

/// As [`each`].
///
/// # Errors
/// As [`each`]; the first one of `take`, which ends it.
pub(crate) fn try_each(
    repository: &Repository<'_>,
    (doubt, query): (&Doubt, &Query<'_>),
    observer: &dyn Observer,
    take: &mut dyn FnMut(Point) -> Result<(), EngineError>,
) -> Result<Snapshots, EngineError> {
    let settled = |snapshot| Point { snapshot, whole: Whole::Yes };
    if doubt.is_none() {
        return snapshots::try_each(repository, query, &mut |snapshot| take(settled(snapshot)));
    }
    // A VM's snapshots, or some of them, name the packs of few sessions.
    let mut completeness = match (query.vm, query.newest, query.since) {
        (None, None, None) => Completeness::of_everything(repository)?,
        _ => Completeness::by_session(repository)?,
    };
    begin(observer, Phase::Mark, 0)?;
    let mut look = |batch: Vec<Snapshot>, take: &mut dyn FnMut(Point) -> Result<(), EngineError>| {
        tell(observer, Event::Progress(batch.len() as u64))?;
        let found = completeness.of(&batch)?;
        batch.into_iter().zip(found).try_for_each(|(snapshot, whole)| take(Point { snapshot, whole }))
    };
    let mut batch = Vec::new();
    let found = snapshots::try_each(repository, query, &mut |snapshot| {
        if !doubt.is_about(&snapshot.name) {
            return take(settled(snapshot));
        }
        batch.push(snapshot);
        if batch.len() < ROOTS_AT_ONCE { Ok(()) } else { look(std::mem::take(&mut batch), take) }
    })?;
    look(batch, take)?;
    Ok(found)
}

/// Finds the one restore point that a selector means, among those that are whole: the newest of a VM is the newest whole
/// one.
///
/// # Errors
/// As [`snapshots::find`]; [`EngineError::NotWhole`] for one that is named by its id, [`EngineError::NoneWhole`] if a VM
/// has some and none is.
pub fn find(
    repository: &Repository<'_>,
    doubt: &Doubt,
    selector: &Selector,
) -> Result<Snapshot, EngineError> {
    if doubt.is_none() {
        return snapshots::find(repository, selector);
    }
    let mut completeness = Completeness::by_session(repository)?;
    let mut missing_of = |snapshot: &Snapshot| -> Result<Option<Missing>, EngineError> {
        if !doubt.is_about(&snapshot.name) {
            return Ok(None);
        }
        Ok(completeness.of_one(snapshot)?.missing().cloned())
    };
    let (vm, time) = match selector {
        Selector::Id(_) => {
            let snapshot = snapshots::find(repository, selector)?;
            return match missing_of(&snapshot)? {
                None => Ok(snapshot),
                Some(missing) => {
                    Err(EngineError::NotWhole { snapshot: snapshot.session(), missing: Box::new(missing) })
                }
            };
        }
        Selector::Latest(vm) => (vm, u64::MAX),
        Selector::AtTime(vm, time) => (vm, *time),
    };
    if let Doubt::Of(_) = doubt {
        // Where the repository is written to, an older one does not silently take the place of one that cannot be read.
        let meant = snapshots::find(repository, selector)?;
        if !doubt.is_about(&meant.name) {
            return Ok(meant);
        }
    }
    let mut newest: Option<(Snapshot, Missing)> = None;
    let (mut looked_at, mut count) = (BTreeSet::new(), LOOKED_AT_FIRST);
    loop {
        let query = Query { vm: Some(vm), newest: Some(count), since: None };
        // What cannot be read is no whole restore point: an older one takes its place, as in all that has not arrived.
        let found = snapshots::matching(repository, &query)?.snapshots;
        for snapshot in found.iter().rev().filter(|snapshot| snapshot.commit.time <= time) {
            if !looked_at.insert(snapshot.session()) {
                continue;
            }
            match missing_of(snapshot)? {
                None => return Ok(snapshot.clone()),
                Some(missing) => drop(newest.get_or_insert((snapshot.clone(), missing))),
            }
        }
        if found.len() < count {
            break;
        }
        count = count.saturating_mul(MORE_EACH_TIME);
    }
    match newest {
        Some((snapshot, missing)) => Err(EngineError::NoneWhole {
            vm: vm.clone(),
            newest: snapshot.session(),
            missing: Box::new(missing),
        }),
        // There is none, whole or not.
        None => snapshots::find(repository, selector),
    }
}
