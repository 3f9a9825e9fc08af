//! What pruners have published under `gc/`: generations, each with what it condemned, what became of that, and its end
//! (PROTOCOL 2, SPEC 10.4).
//!
//! What ever was deleted stays condemned. A result carries the delete lists of some generations before it, so that a few
//! results, some twice the logarithm of their number, say all.

use crate::error::EngineError;
use crate::lineage::Standing;
use crate::pack_set::PackSet;
use crate::prune::Owner;
use crate::repository::{Repository, get_sealed};
use crate::store::StoreError;
use repo_format::{
    Awaited, BlobKind, BlobName, Condemned, FormatError, GcResult, GenerationSeal, PREFIX_GC, SessionId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// The generations that a listing shows.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    listed: BTreeMap<u32, Listed>,
    /// Generations that have listed whom they wait for.
    awaited: BTreeSet<u32>,
    /// The first one that is this place's own: those before it arrived from the place that it was copied from.
    first: u32,
    /// Objects without the retention role's signature, and lists of whom to wait for that are of no use: they count as if
    /// they were not there.
    pub(crate) ignored: Vec<BlobName>,
}

/// Which blobs of a generation were listed.
#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    condemned: bool,
    result: bool,
    seal: bool,
}

/// The generation that is open, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// None is; one of this number may be opened.
    Free(u32),
    /// It has condemned packs.
    Condemned(u32, CondemnedPacks),
    /// It has a result, which is to be carried out.
    Decided(u32, GcResult),
}

/// The packs that a generation condemned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CondemnedPacks {
    pub(crate) packs: PackSet,
    /// BLAKE3 of the blob that lists them. Blobs under `gc/` may get lost, and another list may then take their place.
    pub(crate) hash: [u8; 32],
}

/// Whom a generation waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WaitList {
    /// Those that it published.
    Published(BTreeSet<Owner>),
    /// It has published nobody: intents have to be listed anew, which is as good but waits for more.
    Missing,
    /// The same, but its name is taken by what nobody can use.
    Useless,
}

impl Open {
    /// Which step is the next one.
    pub(crate) fn step(&self) -> (u32, u8) {
        match self {
            Self::Free(n) => (*n, 0),
            Self::Condemned(n, _) => (*n, 1),
            Self::Decided(n, _) => (*n, 2),
        }
    }

    /// What the next step creates.
    pub(crate) fn next_name(&self) -> BlobName {
        match self {
            Self::Free(n) => BlobName::condemned(*n),
            Self::Condemned(n, _) => BlobName::result(*n),
            Self::Decided(n, _) => BlobName::generation_seal(*n),
        }
    }
}

/// What an object under `gc/` turned out to be.
enum Read<T> {
    Signed(T),
    /// It was made by somebody who is not the retention role.
    Unsigned,
    Missing,
}

impl Generations {
    /// Lists `gc/`.
    pub(crate) fn list(repository: &Repository<'_>) -> Result<Self, EngineError> {
        let mut listed: BTreeMap<u32, Listed> = BTreeMap::new();
        let mut awaited = BTreeSet::new();
        for info in repository.list(PREFIX_GC)? {
            match info.name.kind() {
                Some(BlobKind::Condemned(n)) => listed.entry(n).or_default().condemned = true,
                Some(BlobKind::Awaited(n)) => drop(awaited.insert(n)),
                Some(BlobKind::GcResult(n)) => listed.entry(n).or_default().result = true,
                Some(BlobKind::GenerationSeal(n)) => listed.entry(n).or_default().seal = true,
                _ => {}
            }
        }
        Ok(Self { listed, awaited, first: 0, ignored: Vec::new() })
    }

    /// Lists `gc/`, to go on with this place's own generations. What arrived from elsewhere was decided by what was there.
    pub(crate) fn own(repository: &Repository<'_>, standing: &Standing) -> Result<Self, EngineError> {
        let mut generations = Self::list(repository)?;
        let first = standing.first_generation();
        generations.first = match standing {
            // No prune ran here: what arrives until then is the other place's, too.
            Standing::Promoted(promoted) if !promoted.other_side_gone => {
                let last = generations.last(repository)?;
                first.max(last.map_or(0, |last| last.saturating_add(1)))
            }
            Standing::Promoted(_) | Standing::Replica | Standing::Written => first,
        };
        Ok(generations)
    }

    /// The first one that is this place's own.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// How many generations a result of generation `n` speaks of, of this place's own.
    pub(crate) fn covered_by(&self, n: u32) -> u32 {
        covered_by(n).min((n - self.first).saturating_add(1))
    }

    /// The condemned set C (PROTOCOL 2): of each generation `result.delete` if it has a result, else `condemned` unless
    /// it is sealed.
    ///
    /// # Errors
    /// A failing store; an object that is damaged: nobody knows then what must not be referenced.
    pub(crate) fn condemned(&mut self, repository: &Repository<'_>) -> Result<PackSet, EngineError> {
        let mut packs = self.deleted(repository)?;
        let numbers: Vec<(u32, Listed)> = self.listed.iter().map(|(n, listed)| (*n, *listed)).collect();
        for (n, listed) in numbers {
            // Of a result that is unsigned nothing is ever deleted, and no other can take its place.
            if !listed.condemned || listed.result {
                continue;
            }
            // A listing is no snapshot: it may show a seal and not the result that was there before it, which was read
            // all the same. An unsigned seal seals nothing.
            if listed.seal && !matches!(self.seal(repository, n)?, Read::Unsigned) {
                continue;
            }
            if let Read::Signed(list) = self.read_condemned(repository, n)? {
                packs.extend(list.packs.iter());
            }
        }
        Ok(packs)
    }

    /// All that generations with a result delete or have deleted.
    pub(crate) fn deleted(&mut self, repository: &Repository<'_>) -> Result<PackSet, EngineError> {
        self.deleted_in(repository, 0..=u32::MAX)
    }

    /// All that this place's own generations delete or have deleted.
    pub(crate) fn deleted_here(&mut self, repository: &Repository<'_>) -> Result<PackSet, EngineError> {
        self.deleted_in(repository, self.first..=u32::MAX)
    }

    /// All that generations of a range delete or have deleted, and maybe more that earlier ones have.
    pub(crate) fn deleted_in(
        &mut self,
        repository: &Repository<'_>,
        generations: RangeInclusive<u32>,
    ) -> Result<PackSet, EngineError> {
        let mut packs = PackSet::default();
        let with_result = |(n, listed): (&u32, &Listed)| (listed.result || listed.seal).then_some(*n);
        let mut numbers: Vec<u32> = self.listed.range(generations).filter_map(with_result).collect();
        while let Some(n) = numbers.pop() {
            let Read::Signed(result) = self.result(repository, n)? else { continue };
            packs.extend(result.delete);
            packs.extend(result.earlier);
            // The next one that this result does not speak of.
            while numbers.last().is_some_and(|before| n - before < result.covers) {
                numbers.pop();
            }
        }
        Ok(packs)
    }

    /// What a pruner goes on with (P0): the first generation that is not at its end.
    ///
    /// One of which a blob is unsigned cannot be used, whatever else there is of it: that name is taken for ever. What it
    /// condemned with a signature stays condemned.
    pub(crate) fn first_open(&mut self, repository: &Repository<'_>) -> Result<Open, EngineError> {
        for n in self.first..u32::MAX {
            let Some(&listed) = self.listed.get(&n) else { return Ok(Open::Free(n)) };
            // Signed or not: nothing is done under a number whose seal's name is taken.
            if listed.seal {
                continue;
            }
            if let Some(open) = self.open(repository, n, listed)? {
                return Ok(open);
            }
        }
        Err(EngineError::BadJob("there are as many generations as there can be"))
    }

    /// How far a generation is that is not sealed; nothing if it cannot be used.
    fn open(
        &mut self,
        repository: &Repository<'_>,
        n: u32,
        listed: Listed,
    ) -> Result<Option<Open>, EngineError> {
        if listed.result {
            return match self.result(repository, n)? {
                Read::Signed(result) => Ok(Some(Open::Decided(n, result))),
                Read::Unsigned => Ok(None),
                Read::Missing => Err(EngineError::ListingLies { name: BlobName::result(n) }),
            };
        }
        match self.read_condemned(repository, n)? {
            Read::Signed(list) => Ok(Some(Open::Condemned(n, list))),
            Read::Unsigned => Ok(None),
            Read::Missing => Err(EngineError::ListingLies { name: BlobName::condemned(n) }),
        }
    }

    /// The number behind the last generation that anybody published something of who may.
    pub(crate) fn after_all(&mut self, repository: &Repository<'_>) -> Result<u32, EngineError> {
        let none_left = EngineError::BadJob("there are as many generations as there can be");
        self.last(repository)?.map_or(Ok(0), |last| last.checked_add(1).ok_or(none_left))
    }

    /// The last generation that anybody published something of who may, as far as it can be read.
    fn last(&mut self, repository: &Repository<'_>) -> Result<Option<u32>, EngineError> {
        let numbers: Vec<u32> = self.listed.keys().rev().copied().collect();
        for n in numbers {
            let is_signed = match (self.seal(repository, n), self.result(repository, n)) {
                (Ok(Read::Signed(_)), _) | (_, Ok(Read::Signed(_))) => true,
                (Err(error), _) | (_, Err(error)) if !error.is_damage() => return Err(error),
                (Err(_), _) | (_, Err(_)) => true,
                _ => match self.read_condemned(repository, n) {
                    Err(error) if !error.is_damage() => return Err(error),
                    Ok(Read::Unsigned | Read::Missing) => false,
                    Ok(Read::Signed(_)) | Err(_) => true,
                },
            };
            if is_signed {
                return Ok(Some(n));
            }
        }
        Ok(None)
    }

    /// The valid roots at the end of the last generation of this place's own that ended.
    pub(crate) fn roster(&mut self, repository: &Repository<'_>) -> Result<Vec<SessionId>, EngineError> {
        let sealed: Vec<u32> = self
            .listed
            .range(self.first..)
            .rev()
            .filter(|(_, listed)| listed.seal)
            .map(|(n, _)| *n)
            .collect();
        for n in sealed {
            if let Read::Signed(seal) = self.seal(repository, n)? {
                return Ok(seal.roster);
            }
        }
        Ok(Vec::new())
    }

    /// Whether a generation has listed whom it waits for, to be read or not.
    pub(crate) fn has_wait_list(&self, n: u32) -> bool {
        self.awaited.contains(&n)
    }

    /// Whom a generation waits for that condemned these packs.
    pub(crate) fn wait_list(
        &mut self,
        repository: &Repository<'_>,
        n: u32,
        condemned: &CondemnedPacks,
    ) -> Result<WaitList, EngineError> {
        let name = BlobName::awaited(n);
        let open = |bytes: &[u8]| Awaited::open(repository.keys(), n, bytes);
        match self.read(repository, name.clone(), open) {
            Ok(Read::Signed(list)) if list.condemned == condemned.hash => {
                return Ok(WaitList::Published(list.sessions.into_iter().collect()));
            }
            Ok(Read::Missing) => return Ok(WaitList::Missing),
            Ok(Read::Signed(_) | Read::Unsigned) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
        self.ignore(name);
        Ok(WaitList::Useless)
    }

    fn read_condemned(
        &mut self,
        repository: &Repository<'_>,
        n: u32,
    ) -> Result<Read<CondemnedPacks>, EngineError> {
        let open = |bytes: &[u8]| {
            let packs = Condemned::open(repository.keys(), n, bytes)?.packs.into_iter().collect();
            Ok(CondemnedPacks { packs, hash: blake3::hash(bytes).into() })
        };
        self.read(repository, BlobName::condemned(n), open)
    }

    fn result(&mut self, repository: &Repository<'_>, n: u32) -> Result<Read<GcResult>, EngineError> {
        let open = |bytes: &[u8]| GcResult::open(repository.keys(), n, bytes);
        self.read(repository, BlobName::result(n), open)
    }

    fn seal(&mut self, repository: &Repository<'_>, n: u32) -> Result<Read<GenerationSeal>, EngineError> {
        let open = |bytes: &[u8]| GenerationSeal::open(repository.keys(), n, bytes);
        self.read(repository, BlobName::generation_seal(n), open)
    }

    fn ignore(&mut self, name: BlobName) {
        if !self.ignored.contains(&name) {
            self.ignored.push(name);
        }
    }

    fn read<T>(
        &mut self,
        repository: &Repository<'_>,
        name: BlobName,
        open: impl Fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Read<T>, EngineError> {
        let bytes = match get_sealed(repository.store(), &name) {
            Ok(bytes) => bytes,
            Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(Read::Missing),
            Err(error) => return Err(error),
        };
        match open(&bytes) {
            Ok(object) => Ok(Read::Signed(object)),
            Err(FormatError::BadSignature) => {
                self.ignore(name);
                Ok(Read::Unsigned)
            }
            Err(source) => Err(EngineError::Damaged { name, source }),
        }
    }
}

/// How many generations a result of generation `n` speaks of: itself and those before it (SPEC 10.4). As in a binary
/// counter, so that every list is written again some log2(n) times and a reader skips from result to result.
fn covered_by(n: u32) -> u32 {
    let ordinal = u64::from(n) + 1;
    let lowest = 1u64 << ordinal.trailing_zeros();
    u32::try_from(lowest).unwrap_or(u32::MAX)
}
