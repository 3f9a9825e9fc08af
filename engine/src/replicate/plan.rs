//! Which restore points are to be copied.

use super::doubts::{Doubts, Newest};
use super::objects::Objects;
use super::{Deletions, NotCopied, ReplicateJob, There};
use crate::error::{EngineError, chain};
use crate::repository::Repository;
use crate::snapshots::{self, Query};
use crate::stats::no_snapshot_of;
use crate::store::BlobInfo;
use repo_format::{
    BlobKind, BlobName, DecisionName, PREFIX_DECISIONS, PREFIX_TOMBSTONES, VmTag, decisions_prefix,
    tombstones_prefix,
};
use std::collections::BTreeSet;

/// What may have to be copied.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Decisions that are not at the destination, by VM and number: of snapshots, or of sessions that made none.
    pub(super) names: Vec<DecisionName>,
    /// Snapshots that are there.
    pub(super) there: u64,
    /// Snapshots that are not there, and are forgotten.
    pub(super) forgotten: u64,
    /// Snapshots that are newer than those, and not whole at the source.
    pub(super) incomplete: u64,
    /// Snapshots of which it is not known what they are.
    pub(super) unreadable: Vec<NotCopied>,
}

/// Checks that the source has, or had, a snapshot of each of some VMs: nothing is copied of one that it does not know.
///
/// # Errors
/// [`EngineError::NoSnapshotOf`] the first that has none; a failing store.
pub fn check_vms(source: &Repository<'_>, vms: &[String]) -> Result<(), EngineError> {
    for vm in vms {
        let mut is_known = false;
        let newest = Query { vm: Some(vm), newest: Some(1), since: None };
        let listed = snapshots::each(source, &newest, &mut |_| is_known = true)?;
        if !is_known && listed.unreadable.is_empty() && !has_forgotten(source, vm)? {
            return Err(no_snapshot_of(source, vm)?);
        }
    }
    Ok(())
}

/// Whether snapshots of a VM were forgotten: that is copied when nothing else is left of it.
fn has_forgotten(source: &Repository<'_>, vm: &str) -> Result<bool, EngineError> {
    let listed = source.list(&tombstones_prefix(source.keys().vm_tag(vm)))?;
    Ok(listed.iter().any(|info| matches!(info.name.kind(), Some(BlobKind::Tombstone { .. }))))
}

/// Whether all restore points of all VMs are to be copied.
pub(super) fn is_unfiltered(job: &ReplicateJob<'_>) -> bool {
    job.vms.is_empty() && job.last.is_none()
}

/// The tags of the VMs that are asked for; nothing if all are.
pub(super) fn tags(source: &Repository<'_>, job: &ReplicateJob<'_>) -> Option<BTreeSet<VmTag>> {
    let tag = |vm: &String| source.keys().vm_tag(vm);
    (!job.vms.is_empty()).then(|| job.vms.iter().map(tag).collect())
}

/// The tags of the VMs whose tombstones and pins are copied; nothing if all are. What is deleted at the destination must
/// be forgotten there before, whichever VM it is of.
pub(super) fn tags_of_facts(source: &Repository<'_>, job: &ReplicateJob<'_>) -> Option<BTreeSet<VmTag>> {
    tags(source, job).filter(|_| job.deletions == Deletions::Kept)
}

/// Finds what may have to be copied.
///
/// # Errors
/// A failing store.
pub(super) fn candidates(
    (source, destination): (&Repository<'_>, Option<&Repository<'_>>),
    doubts: &Doubts<'_>,
    there: &Objects,
    job: &ReplicateJob<'_>,
) -> Result<Candidates, EngineError> {
    let mut found = match job.last {
        Some(newest) => of_newest(doubts, newest, there, job)?,
        None => of_all(source, there, job)?,
    };
    if let Some(destination) = destination {
        let mut forgotten = BTreeSet::new();
        for name in found.names.iter().filter(|name| there.forgets(name)) {
            if snapshots::is_forgotten(destination, name)? {
                forgotten.insert(name.clone());
            }
        }
        found.forget(&forgotten);
    }
    found.names.sort_unstable_by(by_vm);
    Ok(found)
}

fn of_newest(
    doubts: &Doubts<'_>,
    newest: usize,
    there: &Objects,
    job: &ReplicateJob<'_>,
) -> Result<Candidates, EngineError> {
    let mut found = Candidates::default();
    for query in Query::of_vms(job.vms) {
        let Newest { names, passed_over, listed } = doubts.newest(query.vm, newest)?;
        found.incomplete += passed_over;
        found.take(names.into_iter().map(|name| (there.has(&name.blob()), name)), job.there);
        let unreadable = listed.unreadable.into_iter();
        found.unreadable.extend(unreadable.filter_map(|(name, error)| not_copied(&name, &error)));
    }
    Ok(found)
}

fn of_all(
    source: &Repository<'_>,
    there: &Objects,
    job: &ReplicateJob<'_>,
) -> Result<Candidates, EngineError> {
    let prefixes = match tags(source, job) {
        Some(tags) => tags.iter().map(|tag| (decisions_prefix(*tag), tombstones_prefix(*tag))).collect(),
        None => vec![(PREFIX_DECISIONS.to_owned(), PREFIX_TOMBSTONES.to_owned())],
    };
    let mut found = Candidates::default();
    for (decisions, tombstones) in prefixes {
        let listed = source.list(&decisions)?;
        let name = |info: &BlobInfo| Some((there.has_all_of(info), DecisionName::of(&info.name)?));
        found.take(listed.iter().filter_map(name), job.there);
        let tombstones = source.list(&tombstones)?;
        let forgotten = snapshots::tombstoned(source, &tombstones, &found.names, &mut Vec::new())?;
        found.forget(&forgotten);
    }
    Ok(found)
}

impl Candidates {
    fn forget(&mut self, forgotten: &BTreeSet<DecisionName>) {
        let before = self.names.len();
        self.names.retain(|name| !forgotten.contains(name));
        self.forgotten += (before - self.names.len()) as u64;
    }

    /// Takes those that are not at the destination, or are to be looked at all the same. Each is given with whether it is
    /// there.
    fn take(&mut self, names: impl Iterator<Item = (bool, DecisionName)>, believed: There) {
        for (is_there, name) in names {
            self.there += u64::from(is_there);
            if !is_there || believed == There::Checked {
                self.names.push(name);
            }
        }
    }
}

fn by_vm(a: &DecisionName, b: &DecisionName) -> std::cmp::Ordering {
    (a.vm, a.seq, a.session).cmp(&(b.vm, b.seq, b.session))
}

/// A decision that could not be read.
pub(super) fn not_copied(name: &BlobName, error: &EngineError) -> Option<NotCopied> {
    let name = DecisionName::of(name)?;
    Some(NotCopied { snapshot: name.session.to_string(), reason: chain(error) })
}
