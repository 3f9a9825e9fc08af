//! Which restore points a place offers: where some may not be whole, only those that are.

use super::completeness::{Completeness, Missing, Whole};
use crate::error::EngineError;
use crate::lineage::{Promoted, Standing};
use crate::map::named::ROOTS_AT_ONCE;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::repository::Repository;
use crate::snapshots::{self, Query, Selector, Snapshot, Snapshots};
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
    /// Those that were not made here since the place was promoted: what came before may not have been whole then, and what
    /// came later may not be yet.
    Of(Promoted),
}

impl From<Standing> for Doubt {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Written => Self::None,
            Standing::Replica => Self::All,
            Standing::Promoted(promoted) => Self::Of(promoted),
        }
    }
}

impl Doubt {
    /// Whether nothing has to be looked at, whatever there is.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether a restore point has to be looked at.
    #[must_use]
    pub fn is_about(&self, snapshot: &Snapshot) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Of(promoted) => !promoted.made(snapshot),
        }
    }
}

/// A restore point, and what was found of it if it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    let mut completeness = None;
    let mut look = |batch: Vec<Snapshot>, take: &mut dyn FnMut(Point) -> Result<(), EngineError>| {
        if batch.is_empty() {
            return Ok(());
        }
        let completeness = match &mut completeness {
            Some(completeness) => completeness,
            none => {
                begin(observer, Phase::Mark, 0)?;
                none.insert(completeness_for(repository, query)?)
            }
        };
        tell(observer, Event::Progress(batch.len() as u64))?;
        let found = completeness.of(&batch)?;
        batch.into_iter().zip(found).try_for_each(|(snapshot, whole)| take(Point { snapshot, whole }))
    };
    let mut batch = Vec::new();
    let found = snapshots::try_each(repository, query, &mut |snapshot| {
        if !doubt.is_about(&snapshot) {
            return take(settled(snapshot));
        }
        batch.push(snapshot);
        if batch.len() < ROOTS_AT_ONCE { Ok(()) } else { look(std::mem::take(&mut batch), take) }
    })?;
    look(batch, take)?;
    Ok(found)
}

/// A VM's snapshots, or some of them, name the packs of few sessions.
fn completeness_for<'r, 's>(
    repository: &'r Repository<'s>,
    query: &Query<'_>,
) -> Result<Completeness<'r, 's>, EngineError> {
    match (query.vm, query.newest, query.since) {
        (None, None, None) => Completeness::of_everything(repository),
        _ => Completeness::by_session(repository),
    }
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
    let (vm, time) = match selector {
        Selector::Id(_) => {
            let snapshot = snapshots::find(repository, selector)?;
            return match Looking::new(repository, doubt).missing_of(&snapshot)? {
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
        if !doubt.is_about(&meant) {
            return Ok(meant);
        }
    }
    let NewestWhole { mut whole, lacking, .. } =
        newest_whole(&mut Looking::new(repository, doubt), (vm, time), 1)?;
    match (whole.pop(), lacking) {
        (Some(snapshot), _) => Ok(snapshot),
        (None, Some((snapshot, missing))) => Err(EngineError::NoneWhole {
            vm: vm.clone(),
            newest: snapshot.session(),
            missing: Box::new(missing),
        }),
        // There is none, whole or not.
        (None, None) => snapshots::find(repository, selector),
    }
}

/// Finds the one restore point that a selector means to whoever pins or forgets it: as [`find`], and one that is named by
/// its id need not be whole.
///
/// # Errors
/// As [`find`], but for [`EngineError::NotWhole`].
pub fn find_any(
    repository: &Repository<'_>,
    doubt: &Doubt,
    selector: &Selector,
) -> Result<Snapshot, EngineError> {
    match selector {
        Selector::Id(_) => snapshots::find(repository, selector),
        Selector::Latest(_) | Selector::AtTime(..) => find(repository, doubt, selector),
    }
}

/// What is found on the way back through the restore points of a VM.
pub(crate) struct NewestWhole {
    /// Those that are whole, the newest first.
    pub(crate) whole: Vec<Snapshot>,
    /// How many were met on the way that are not.
    pub(crate) passed_over: u64,
    /// The first one of these, and what it lacks.
    lacking: Option<(Snapshot, Missing)>,
}

/// Finds the newest whole restore points of a VM that are not later than a time, at most so many.
///
/// # Errors
/// A failing store. What cannot be read is no whole restore point: an older one takes its place, as in all that has not
/// arrived.
pub(crate) fn newest_whole(
    looking: &mut Looking<'_, '_, '_>,
    (vm, time): (&str, u64),
    most: usize,
) -> Result<NewestWhole, EngineError> {
    let mut result = NewestWhole { whole: Vec::new(), passed_over: 0, lacking: None };
    let (mut looked_at, mut count) = (BTreeSet::new(), LOOKED_AT_FIRST.max(most));
    loop {
        let query = Query { vm: Some(vm), newest: Some(count), since: None };
        let found = snapshots::matching(looking.repository, &query)?.snapshots;
        for snapshot in found.iter().rev().filter(|snapshot| snapshot.commit.time <= time) {
            if result.whole.len() == most || !looked_at.insert(snapshot.session()) {
                continue;
            }
            match looking.missing_of(snapshot)? {
                None => result.whole.push(snapshot.clone()),
                Some(missing) => {
                    result.passed_over += 1;
                    result.lacking.get_or_insert((snapshot.clone(), missing));
                }
            }
        }
        if result.whole.len() == most || found.len() < count {
            return Ok(result);
        }
        count = count.saturating_mul(MORE_EACH_TIME);
    }
}

/// Looks at one restore point after another.
pub(crate) struct Looking<'r, 's, 'd> {
    repository: &'r Repository<'s>,
    doubt: &'d Doubt,
    /// What was found out, once something had to be looked at.
    completeness: Option<Completeness<'r, 's>>,
}

impl<'r, 's, 'd> Looking<'r, 's, 'd> {
    pub(crate) fn new(repository: &'r Repository<'s>, doubt: &'d Doubt) -> Self {
        Self { repository, doubt, completeness: None }
    }

    /// What a restore point lacks, if it is in doubt.
    fn missing_of(&mut self, snapshot: &Snapshot) -> Result<Option<Missing>, EngineError> {
        if !self.doubt.is_about(snapshot) {
            return Ok(None);
        }
        let completeness = match &mut self.completeness {
            Some(completeness) => completeness,
            none => none.insert(Completeness::by_session(self.repository)?),
        };
        Ok(completeness.of_one(snapshot)?.missing().cloned())
    }
}
