//! Decisions that cannot be read, or that are gone: what was behind them is given up.

use super::{ForgetError, ForgetReport};
use crate::error::EngineError;
use crate::generations::Generations;
use crate::lineage::standing;
use crate::repository::{Repository, get_sealed};
use crate::snapshots;
use repo_format::{BlobKind, DecisionName, Intent, PREFIX_DECISIONS, PREFIX_INTENTS, SessionId};
use std::collections::BTreeSet;

/// Decisions that cannot be read or are gone, of which nothing is to be kept.
pub(super) fn settle(repository: &Repository<'_>, wanted: &[String]) -> Result<ForgetReport, EngineError> {
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
