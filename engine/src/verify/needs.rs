//! Whether what each snapshot needs is there and stays (PROTOCOL 2): packs as names lead to them through the records that
//! apply to the snapshot.
//!
//! That something can be read, through whatever record, is not enough: a pruner goes by the records that apply. Only packs
//! that were repacked, or that a pruner has published to delete, make a difference; where maps name none of those,
//! nothing is done here.
//!
//! # Memory
//! What marking takes (see `prune::mark`), and the delete lists of all generations.

use super::Scope;
use super::facts::{Hit, chunk_hits};
use super::findings::FindingId;
use super::inventory::PackState;
use super::report::FindingKind;
use super::walk::{Inspector, Walker};
use crate::error::EngineError;
use crate::extent::Extent;
use crate::generations::Generations;
use crate::lineage::{Standing, standing};
use crate::pack_set::PackSet;
use crate::prune::mark::Marker;
use crate::records::{Record, Records, Way};
use crate::repository::{Repository, get_sealed};
use crate::snapshots::{Snapshot, is_forgotten};
use repo_format::{BlobKind, BlobName, GcResult, Location, PREFIX_GC, PackKind, PackName, PackRef, Page};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What pruners have published.
pub(super) struct Published {
    /// Packs that generations delete or have deleted.
    pub(super) deleted: PackSet,
    /// Those of them that this place's own generations do. What is deleted elsewhere explains why something is not here, and
    /// is no reason why something that is here would go.
    pub(super) going: PackSet,
    pub(super) records: Records,
    pub(super) standing: Standing,
    /// The first generation that is this place's own.
    pub(super) first_generation: u32,
}

impl Published {
    /// Lists and reads `gc/`, then `k/`: so no delete list is known without the records that explain it. Of what cannot be
    /// read nothing is known; that is told of by itself.
    pub(super) fn load(repository: &Repository<'_>) -> Result<Self, EngineError> {
        let standing = standing(repository)?;
        let mut generations = Generations::own(repository, &standing)?;
        let known = |packs: Result<PackSet, EngineError>| match packs {
            Err(error) if error.is_damage() => Ok(PackSet::default()),
            packs => packs,
        };
        let deleted = known(generations.deleted(repository))?;
        let going = match &standing {
            Standing::Written => deleted.clone(),
            Standing::Replica | Standing::Promoted(_) => known(generations.deleted_here(repository))?,
        };
        let (first_generation, records) = (generations.first(), Records::load_readable(repository)?);
        Ok(Self { deleted, going, records, standing, first_generation })
    }
}

/// The packs that maps name and that were repacked or are to be deleted, by what is wrong with what they lead to.
type Troubled = BTreeMap<PackName, FindingId>;

/// Notes what a snapshot needs and lacks, or is about to lose. Returns the packs that snapshots need.
pub(super) fn check(
    scope: &Scope<'_, '_, '_>,
    published: &Published,
) -> Result<BTreeMap<PackName, PackState>, EngineError> {
    let Published { deleted, going, records, .. } = published;
    let mut needed = scope.inventory.named();
    let watched: BTreeSet<PackName> =
        needed.keys().filter(|pack| records.is_repacked(pack) || deleted.contains(pack)).cloned().collect();
    if watched.is_empty() {
        return Ok(needed);
    }
    let named: BTreeMap<PackName, PackState> =
        watched.iter().filter_map(|pack| Some((pack.clone(), needed.remove(pack)?))).collect();
    let repository = scope.frames.repository();
    let new: HashMap<PackName, PackRef> =
        records.leads().map(|(_, _, new)| (new.name.clone(), new.clone())).collect();
    let copied = Copied { scope, published, named: &named, new: &new, asked: RefCell::default() };
    let watched: Vec<PackName> = watched.into_iter().collect();
    let mut marker = Marker::new(repository, watched.iter().cloned());
    for (position, root) in scope.snapshots.iter().enumerate() {
        let of_root: Vec<&PackName> = match marker.named(std::slice::from_ref(root)) {
            Ok(numbers) => {
                numbers.into_iter().flatten().filter_map(|number| watched.get(number as usize)).collect()
            }
            // What it names is not known, which is told of already: nothing that it may need counts as unneeded.
            Err(error) if error.is_damage() => watched.iter().collect(),
            Err(error) => return Err(error),
        };
        let applying = records.applying_to(root);
        let mut ends = Vec::new();
        for name in of_root {
            let way = Way::of(name, &applying);
            if let Some(there) = copied.kept((name, &way), &applying)? {
                needed.extend(there.into_iter().map(|pack| (pack.clone(), PackState::Fine)));
                continue;
            }
            for end in way.ends {
                let state = match (named.get(end), new.get(end)) {
                    (Some(state), _) => *state,
                    (None, Some(end)) => scope.inventory.state(scope.findings, end)?,
                    (None, None) => continue,
                };
                ends.push((name, end, state));
            }
        }
        // What is deleted was not needed when that was published: if it is of a snapshot, this was forgotten before.
        if ends.iter().any(|(_, end, _)| deleted.contains(end)) && is_forgotten(repository, &root.name)? {
            scope.findings.forget(position);
            continue;
        }
        let mut troubled = Troubled::new();
        for (name, end, state) in ends {
            if let Some(finding) = problem(scope, (end, state), (deleted, going), root)? {
                troubled.insert(name.clone(), finding);
            }
            needed.insert(end.clone(), state);
        }
        affect(scope, (position, root), &troubled)?;
    }
    Ok(needed)
}

/// A place that was copied from another one: a record may be there without the packs that it leads to. Then what they would
/// hold is needed where it was before, and stays there (SPEC, what a pruner does).
struct Copied<'c, 'v, 'r, 's> {
    scope: &'c Scope<'v, 'r, 's>,
    published: &'c Published,
    named: &'c BTreeMap<PackName, PackState>,
    new: &'c HashMap<PackName, PackRef>,
    /// Whether packs are there that no map names, as far as that was asked.
    asked: RefCell<HashMap<PackName, bool>>,
}

impl Copied<'_, '_, '_, '_> {
    /// The packs on the way of a name that are there, if those that it leads to are not and these suffice.
    fn kept<'p>(
        &self,
        (name, way): (&'p PackName, &Way<'p>),
        applying: &[&'p Record],
    ) -> Result<Option<BTreeSet<&'p PackName>>, EngineError> {
        if self.published.standing == Standing::Written {
            return Ok(None);
        }
        let (mut there, mut absent) = (BTreeSet::new(), false);
        for end in &way.ends {
            absent |= !self.is_there(end)?;
        }
        if !absent {
            return Ok(None);
        }
        for pack in &way.packs {
            if self.is_there(pack)? && !self.published.going.contains(pack) {
                there.insert(*pack);
            }
        }
        // A pack is available if all is to which some record leads from it.
        let mut available = there.clone();
        let is_moved = |pack: &PackName, available: &BTreeSet<&PackName>| {
            applying.iter().any(|record| {
                let leads = record.leads_from(pack);
                !leads.is_empty() && leads.iter().all(|new| available.contains(&new.name))
            })
        };
        let next = |available: &BTreeSet<&PackName>| {
            let mut others = way.packs.iter().filter(|pack| !available.contains(*pack));
            others.find(|pack| is_moved(pack, available)).copied()
        };
        while let Some(pack) = next(&available) {
            available.insert(pack);
        }
        Ok(available.contains(name).then_some(there))
    }

    fn is_there(&self, pack: &PackName) -> Result<bool, EngineError> {
        let new = match (self.named.get(pack), self.new.get(pack)) {
            (Some(state), _) => return Ok(*state == PackState::Fine),
            (None, None) => return Ok(false),
            (None, Some(new)) => new,
        };
        if let Some(known) = self.asked.borrow().get(pack) {
            return Ok(*known);
        }
        let is_there = self.scope.inventory.is_there(new)?;
        self.asked.borrow_mut().insert(pack.clone(), is_there);
        Ok(is_there)
    }
}

/// What is wrong with a pack that a snapshot needs.
fn problem(
    scope: &Scope<'_, '_, '_>,
    (pack, state): (&PackName, PackState),
    (deleted, going): (&PackSet, &PackSet),
    root: &Snapshot,
) -> Result<Option<FindingId>, EngineError> {
    let (findings, blob) = (scope.findings, pack.blob());
    let generation = |finding: FindingId, tells: &str| match deleting(scope.frames.repository(), pack)? {
        Some(n) => {
            findings.tell_once(finding, &format!("generation {n} {tells}"));
            Ok::<_, EngineError>(finding)
        }
        None => Ok(finding),
    };
    let is_deleted = deleted.contains(pack);
    Ok(match state {
        PackState::Missing(finding) if is_deleted => Some(generation(finding, "has deleted it")?),
        PackState::Missing(finding) => Some(finding),
        PackState::Moved => {
            let detail = || {
                format!(
                    "it is missing, and snapshot {} needs it: what it held can be read where it was repacked to, but the \
                     record of that does not apply to the snapshot",
                    root.session()
                )
            };
            let finding = findings.note(FindingKind::MissingPack, &blob, detail);
            Some(if is_deleted { generation(finding, "has deleted it")? } else { finding })
        }
        PackState::Fine | PackState::OtherLength { .. } if going.contains(pack) => {
            let detail = || "a snapshot needs it, and a prune is about to delete it".to_owned();
            Some(generation(findings.note(FindingKind::CondemnedPack, &blob, detail), "is to delete it")?)
        }
        PackState::Fine | PackState::OtherLength { .. } => None,
    })
}

/// The generation whose result deletes a pack.
fn deleting(repository: &Repository<'_>, pack: &PackName) -> Result<Option<u32>, EngineError> {
    for info in repository.list(PREFIX_GC)? {
        let Some(BlobKind::GcResult(n)) = info.name.kind() else { continue };
        let bytes = match get_sealed(repository.store(), &BlobName::result(n)) {
            Err(error) if error.is_damage() => continue,
            bytes => bytes?,
        };
        let is_in = |result: GcResult| result.delete.iter().any(|listed| listed.name == *pack);
        if GcResult::open(repository.keys(), n, &bytes).is_ok_and(is_in) {
            return Ok(Some(n));
        }
    }
    Ok(None)
}

/// Adds to findings the parts of a snapshot's disks that name packs; of packs of maps, all of them.
fn affect(
    scope: &Scope<'_, '_, '_>,
    (position, root): (usize, &Snapshot),
    troubled: &Troubled,
) -> Result<(), EngineError> {
    if troubled.is_empty() {
        return Ok(());
    }
    let whole = troubled.iter().filter(|(pack, _)| pack.kind == PackKind::Map);
    let whole: Vec<FindingId> = whole.map(|(_, finding)| *finding).collect();
    for (number, disk) in root.commit.disks.iter().enumerate() {
        let mut naming = Naming(troubled);
        let mut walker = Walker::new(scope.frames, scope.findings, scope.inventory, &mut naming);
        for Hit { finding, extent } in walker.disk(disk)? {
            scope.findings.affect(finding, (position, number), extent);
        }
        for finding in &whole {
            scope.findings.affect(*finding, (position, number), Extent { start: 0, length: disk.size });
        }
    }
    Ok(())
}

/// Finds the chunks that lie in some packs by what pages say.
struct Naming<'t>(&'t Troubled);

impl Inspector for Naming<'_> {
    fn wants(&self, names: &[PackRef]) -> bool {
        names.iter().any(|pack| self.0.contains_key(&pack.name))
    }

    fn page(&mut self, _: &Location, page: &Page) -> Result<Vec<Hit>, EngineError> {
        Ok(chunk_hits(page, |at| self.0.get(&at.pack.name).copied()))
    }
}
