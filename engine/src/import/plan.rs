//! What is to be imported: decided before anything is written.

use super::{IMPORTED_FROM, Taken, origin};
use crate::diff::diff_of_places;
use crate::error::EngineError;
use crate::lineage::{LINEAGE_PROPERTY, Standing, check_is_written};
use crate::replica::{Completeness, Whole};
use crate::repository::Repository;
use crate::snapshots::{self, Query, Selector, Snapshot, Snapshots, UnreadableBlob, tombstoned_sessions};
use repo_format::{DecisionName, Disk, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// VMs that an error lists.
const VMS_TOLD: usize = 10;

/// What is wanted of the other place.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Only restore points of these VMs; of all if there are none.
    pub vms: &'a [String],
    /// Only these restore points, whatever was forgotten here; all if there are none.
    pub snapshots: &'a [Selector],
}

/// The VMs to look at, and what of them.
#[derive(Debug)]
pub struct Chosen {
    /// The VMs, by name.
    pub vms: Vec<ChosenVm>,
    /// Decisions and tombstones there that could not be read.
    pub unreadable: Vec<UnreadableBlob>,
}

/// A VM to look at.
#[derive(Debug)]
pub struct ChosenVm {
    /// Its name.
    pub vm: String,
    /// The restore points there that were named; all if none was.
    pub named: BTreeSet<SessionId>,
}

/// Finds the VMs there that something is wanted of.
///
/// # Errors
/// [`EngineError::IsAReplica`], two repositories, a VM or snapshot that is not there, or a failing store.
pub fn choose(
    into: &Repository<'_>,
    from: &Repository<'_>,
    wanted: &Wanted<'_>,
) -> Result<Chosen, EngineError> {
    check_is_written(into)?;
    if into.config() != from.config() {
        return Err(EngineError::BadJob("only another place of the same repository can be imported from"));
    }
    let mut vms: BTreeMap<String, BTreeSet<SessionId>> = BTreeMap::new();
    if !wanted.snapshots.is_empty() {
        for selector in wanted.snapshots {
            let found = snapshots::find(from, selector)?;
            vms.entry(found.commit.vm.clone()).or_default().insert(found.session());
        }
        let vms = vms.into_iter().map(|(vm, named)| ChosenVm { vm, named }).collect();
        return Ok(Chosen { vms, unreadable: Vec::new() });
    }
    let mut note = |snapshot: Snapshot| {
        vms.entry(snapshot.commit.vm).or_default();
    };
    let newest = Query { newest: Some(1), ..Query::default() };
    let Snapshots { unreadable, .. } = snapshots::each(from, &newest, &mut note)?;
    if let Some(vm) = wanted.vms.iter().find(|vm| !vms.contains_key(*vm)) {
        let found: Vec<String> = vms.keys().take(VMS_TOLD).cloned().collect();
        let others = vms.len() - found.len();
        return Err(EngineError::NoSnapshotOf { vm: vm.clone(), found, others });
    }
    let is_wanted = |vm: &String| wanted.vms.is_empty() || wanted.vms.contains(vm);
    let vms = vms.into_iter().filter(|(vm, _)| is_wanted(vm));
    Ok(Chosen { vms: vms.map(|(vm, named)| ChosenVm { vm, named }).collect(), unreadable })
}

/// What is to be done with the restore points there of one VM.
#[derive(Debug)]
pub struct VmPlan {
    /// The VM's name.
    pub vm: String,
    /// Those that are wanted, in the order of their numbers.
    pub points: Vec<PlannedPoint>,
    /// Decisions and tombstones there that could not be read.
    pub unreadable: Vec<UnreadableBlob>,
    /// All restore points there.
    pub(super) there: Vec<Snapshot>,
    /// What is the same here, by their ids there.
    pub(super) same: BTreeMap<SessionId, Snapshot>,
}

/// A restore point there, and what is to be done with it.
#[derive(Debug)]
pub struct PlannedPoint {
    /// As it is there.
    pub original: Snapshot,
    /// What is to be done.
    pub fate: Fate,
}

/// What is to be done with a restore point of another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not here: it is imported.
    Missing,
    /// It is here, as this snapshot: there is nothing to do.
    Here {
        /// Under its own id, or under the one that it was imported as.
        snapshot: SessionId,
    },
    /// It was here and was forgotten: it stays so unless it is named.
    Forgotten,
}

/// Decides what is to be done with the restore points there of one VM. Nothing is written.
///
/// # Errors
/// A failing store. What is damaged there is told, or found when it is read.
pub fn plan(into: &Repository<'_>, from: &Repository<'_>, chosen: &ChosenVm) -> Result<VmPlan, EngineError> {
    let Snapshots { snapshots: mut there, unreadable, .. } = snapshots::list(from, Some(&chosen.vm))?;
    there.sort_by_key(|snapshot| (snapshot.name.seq, snapshot.commit.time, snapshot.session()));
    let here = Here::list(into, &chosen.vm)?;
    let mut same = BTreeMap::new();
    for original in &there {
        if let Some(found) = here.same(into, (from, original))? {
            same.insert(original.session(), found.clone());
        }
    }
    let is_wanted = |id: &SessionId| chosen.named.is_empty() || chosen.named.contains(id);
    let wanted: Vec<&Snapshot> = there.iter().filter(|original| is_wanted(&original.session())).collect();
    let missing = wanted.iter().filter(|original| !same.contains_key(&original.session()));
    let taken = Taken::list(into, into.keys().vm_tag(&chosen.vm))?;
    let ids = |original: &Snapshot| {
        let mut ids = taken.of(into, origin(original));
        ids.extend([origin(original), original.session()]);
        ids
    };
    let buried = tombstoned_sessions(into, &missing.flat_map(|original| ids(original)).collect())?;
    let fate = |original: &Snapshot| match same.get(&original.session()) {
        Some(found) => Fate::Here { snapshot: found.session() },
        None if !chosen.named.is_empty() => Fate::Missing,
        None if ids(original).iter().any(|id| buried.contains(id)) => Fate::Forgotten,
        None => Fate::Missing,
    };
    let point = |original: &Snapshot| PlannedPoint { original: original.clone(), fate: fate(original) };
    let points = wanted.into_iter().map(point).collect();
    Ok(VmPlan { vm: chosen.vm.clone(), points, unreadable, there, same })
}

/// The restore points here of a VM.
struct Here {
    /// By what they are, wherever they were imported from.
    by_origin: BTreeMap<SessionId, Vec<Snapshot>>,
}

impl Here {
    fn list(into: &Repository<'_>, vm: &str) -> Result<Self, EngineError> {
        let mut by_origin: BTreeMap<SessionId, Vec<Snapshot>> = BTreeMap::new();
        let standing = check_is_written(into)?;
        let set_aside: BTreeSet<&DecisionName> = standing.set_aside().collect();
        let mut snapshots = snapshots::list(into, Some(vm))?.snapshots;
        // They may never be whole.
        snapshots.retain(|snapshot| !set_aside.contains(&snapshot.name));
        if let Standing::Promoted(_) = standing {
            // Nor what arrived since.
            let whole = Completeness::by_session(into)?.of(&snapshots)?;
            let mut whole = whole.iter().map(Whole::is_whole);
            snapshots.retain(|_| whole.next().unwrap_or_default());
        }
        for snapshot in snapshots {
            by_origin.entry(origin(&snapshot)).or_default().push(snapshot);
        }
        Ok(Self { by_origin })
    }

    /// What is the same here as a restore point there.
    fn same(
        &self,
        into: &Repository<'_>,
        (from, original): (&Repository<'_>, &Snapshot),
    ) -> Result<Option<&Snapshot>, EngineError> {
        for found in self.by_origin.get(&origin(original)).into_iter().flatten() {
            if is_same((into, found), (from, original))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Whether two snapshots are the same restore point. Only what can be read of both is compared: what cannot is not the
/// same.
fn is_same(
    (into, found): (&Repository<'_>, &Snapshot),
    (from, original): (&Repository<'_>, &Snapshot),
) -> Result<bool, EngineError> {
    if found == original {
        return Ok(true);
    }
    let (a, b) = (&found.commit, &original.commit);
    let of_disk = |disk: &Disk| (disk.key.clone(), disk.size, disk.change_id.clone());
    let are_alike = a.vm == b.vm
        && a.time == b.time
        && a.tags == b.tags
        && a.disks.iter().map(of_disk).eq(b.disks.iter().map(of_disk))
        && properties(found).eq(properties(original));
    if !are_alike {
        return Ok(false);
    }
    for (here, there) in a.disks.iter().zip(&b.disks) {
        let sides = ((into, found.session(), here), (from, original.session(), there));
        match diff_of_places(sides.0, sides.1) {
            Ok(differing) if differing.is_empty() => {}
            Ok(_) | Err(EngineError::TooManyAreas | EngineError::ForgottenMeanwhile { .. }) => {
                return Ok(false);
            }
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Those that a restore point has wherever it is.
fn properties(snapshot: &Snapshot) -> impl Iterator<Item = &(String, String)> {
    let of_a_place = [IMPORTED_FROM, LINEAGE_PROPERTY];
    snapshot.commit.properties.iter().filter(move |(key, _)| !of_a_place.contains(&key.as_str()))
}
