//! The small objects: what tells of restore points and is not in packs.

use super::sound::read_object;
use super::{Run, plan};
use crate::error::EngineError;
use crate::listing::list_as;
use crate::repository::Repository;
use crate::store::{BlobInfo, StoreError};
use repo_format::{
    BlobKind, BlobName, Decision, DecisionName, FormatError, Index, Intent, Keys, PREFIX_DECISIONS,
    PREFIX_INDEX, PREFIX_PINS, PREFIX_REPACK, PREFIX_TOMBSTONES, Pin, RepackRecord, SessionId, Tombstone,
    VmTag, decisions_prefix, pins_prefix, tombstones_prefix,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Objects that are read at a time: each of those that are longest has some MiB.
const OBJECTS_AT_ONCE: usize = 1024;

/// Which objects of some kinds are at the destination.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// The lengths of objects, by their names.
    lens: HashMap<[u8; 16], u32>,
}

impl Objects {
    /// Lists decisions, tombstones, pins and records: of some VMs, if they are told.
    pub(super) fn list(
        destination: Option<&Repository<'_>>,
        vms: Option<&BTreeSet<VmTag>>,
    ) -> Result<Self, EngineError> {
        let mut objects = Self::default();
        let Some(destination) = destination else { return Ok(objects) };
        let mut prefixes = vec![PREFIX_REPACK.to_owned()];
        match vms {
            Some(vms) => {
                prefixes.extend(vms.iter().flat_map(|vm| of_vm(*vm)));
                prefixes.push(decisions_prefix(destination.keys().vm_tag("")));
            }
            None => prefixes.extend([PREFIX_DECISIONS, PREFIX_TOMBSTONES, PREFIX_PINS].map(str::to_owned)),
        }
        for prefix in prefixes {
            objects.add(destination, &prefix)?;
        }
        Ok(objects)
    }

    /// Lists what begins with a prefix.
    pub(super) fn add(&mut self, destination: &Repository<'_>, prefix: &str) -> Result<(), EngineError> {
        let listed =
            list_as(destination.store(), prefix, &|info: BlobInfo| Some(entry(&info.name, info.len)))?;
        self.lens.extend(listed);
        Ok(())
    }

    pub(super) fn has(&self, name: &BlobName) -> bool {
        self.lens.contains_key(&key(name))
    }

    /// Whether an object is there as long as it is at the source. One that is not was damaged, or somebody took its name:
    /// who creates it is told.
    pub(super) fn has_all_of(&self, info: &BlobInfo) -> bool {
        let (key, len) = entry(&info.name, info.len);
        self.lens.get(&key) == Some(&len)
    }

    /// Whether a tombstone is there for a session of that name. It was authentic when it was copied.
    pub(super) fn forgets(&self, name: &DecisionName) -> bool {
        self.has(&BlobName::tombstone(name.vm, name.session))
    }

    fn note(&mut self, name: &BlobName, len: u64) {
        self.lens.extend([entry(name, len)]);
    }
}

/// The decisions of sessions of no VM.
fn decisions_of_no_vm(source: &Repository<'_>) -> Result<BTreeMap<SessionId, DecisionName>, EngineError> {
    let listed = source.list(&decisions_prefix(source.keys().vm_tag("")))?;
    let decisions = listed.iter().filter_map(|info| DecisionName::of(&info.name));
    Ok(decisions.map(|name| (name.session, name)).collect())
}

fn key(name: &BlobName) -> [u8; 16] {
    *blake3::hash(name.as_str().as_bytes()).as_bytes().first_chunk().expect("32 bytes begin with 16 bytes")
}

/// A name, and a length: no object is so long that it takes more.
fn entry(name: &BlobName, len: u64) -> ([u8; 16], u32) {
    (key(name), u32::try_from(len).unwrap_or(u32::MAX))
}

fn of_vm(vm: VmTag) -> [String; 3] {
    [decisions_prefix(vm), tombstones_prefix(vm), pins_prefix(vm)]
}

/// Whether an object is what its name calls for, and signed if it has to be.
fn check(keys: &Keys, name: &BlobName, bytes: &[u8]) -> Result<(), FormatError> {
    match name.kind() {
        Some(BlobKind::Intent { .. }) => Intent::open(keys, name, bytes).map(drop),
        Some(BlobKind::Decision(decision)) => Decision::open(keys, &decision, bytes).map(drop),
        Some(BlobKind::Index { .. }) => Index::open(keys, name, bytes).map(drop),
        Some(BlobKind::Tombstone { .. }) => Tombstone::open(keys, name, bytes).map(drop),
        Some(BlobKind::Repack(_)) => RepackRecord::open(keys, name, bytes).map(drop),
        Some(BlobKind::Pin { .. }) => Pin::open(keys, name, bytes).map(drop),
        _ => Err(FormatError::BadValue("it is no object that is copied")),
    }
}

/// What became of an object.
enum Copied {
    /// It is there, so many bytes long.
    Done(u64),
    /// It is not at the source (any more).
    Gone,
    /// It is no use, which a verification tells more about.
    Useless,
}

impl Run<'_> {
    /// Copies objects that are not at the destination. One that is gone at the source is left out; one that nobody can
    /// use is told in the report, and so is one that is another at the destination.
    ///
    /// Returns how many are at the destination now.
    pub(super) fn copy_objects(&mut self, names: &[BlobName]) -> Result<u64, EngineError> {
        let mut done = 0;
        for names in names.chunks(OBJECTS_AT_ONCE) {
            self.moved(0)?;
            let (source, copier) = (self.source, &self.copier);
            let results = copier.each(names, |name| {
                let check = |bytes: &[u8]| check(source.keys(), name, bytes);
                let bytes = match read_object(source.store(), name, check) {
                    Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(Copied::Gone),
                    Err(error) if error.is_damage() => return Ok(Copied::Useless),
                    other => other?.0,
                };
                copier.object(name, &bytes).map(|()| Copied::Done(bytes.len() as u64))
            })?;
            for (name, result) in names.iter().zip(results) {
                match result {
                    Ok(Copied::Done(len)) => {
                        done += 1;
                        self.objects.note(name, len);
                    }
                    Ok(Copied::Gone) => {}
                    // Somebody took its name at the destination, or it was damaged there.
                    Err(error) => self.fail_of(name, &error),
                    Ok(Copied::Useless) => self.report.ignored.push(name.as_str().to_owned()),
                }
            }
        }
        Ok(done)
    }

    /// Copies tombstones and pins of the VMs that are asked for.
    pub(super) fn copy_facts(&mut self) -> Result<(), EngineError> {
        let prefixes = match plan::tags_of_facts(self.source, self.job) {
            Some(vms) => vms.iter().flat_map(|vm| of_vm(*vm).into_iter().skip(1)).collect(),
            None => vec![PREFIX_TOMBSTONES.to_owned(), PREFIX_PINS.to_owned()],
        };
        for prefix in prefixes {
            let is_fact = |info: &BlobInfo| {
                matches!(info.name.kind(), Some(BlobKind::Tombstone { .. } | BlobKind::Pin { .. }))
            };
            let listed = self.source.list(&prefix)?.into_iter().filter(is_fact);
            let missing = listed.filter(|info| !self.objects.has_all_of(info));
            let names: Vec<BlobName> = missing.map(|info| info.name).collect();
            self.report.facts += self.copy_objects(&names)?;
        }
        Ok(())
    }

    /// Copies the indexes of some sessions that are not at the destination.
    pub(super) fn copy_indexes(&mut self, sessions: &BTreeSet<SessionId>) -> Result<(), EngineError> {
        self.list_indexes()?;
        let missing = self.indexes.as_mut();
        let of =
            |missing: &mut Indexes| sessions.iter().filter_map(|id| missing.remove(id)).flatten().collect();
        let names: Vec<BlobName> = missing.map(of).unwrap_or_default();
        self.report.indexes += self.copy_objects(&names)?;
        Ok(())
    }

    /// Copies the other indexes: all of them, or those of sessions of no VM, which pruners made out of all.
    pub(super) fn copy_other_indexes(&mut self) -> Result<(), EngineError> {
        self.list_indexes()?;
        let mut sessions: BTreeSet<SessionId> =
            self.indexes.iter().flat_map(BTreeMap::keys).copied().collect();
        if !plan::is_unfiltered(self.job) {
            let mut unnamed = decisions_of_no_vm(self.source)?;
            unnamed.retain(|session, _| sessions.contains(session));
            // Those that were aborted are, and a repack session is there if something of it is needed.
            self.read(&unnamed.values().cloned().collect::<Vec<_>>())?;
            let is_decided = |name: &DecisionName| self.objects.has(&name.blob());
            sessions.retain(|session| unnamed.get(session).is_some_and(is_decided));
        }
        let of_sessions = self.indexes.iter().flatten().filter(|(session, _)| sessions.contains(session));
        let owner = |name: &BlobName| match name.kind() {
            Some(BlobKind::Index { writer, session, .. }) => Some((writer, session)),
            _ => None,
        };
        let owners = of_sessions.flat_map(|(_, names)| names.iter().filter_map(owner)).collect();
        self.copy_sessions(owners, &BTreeSet::new())?;
        self.copy_indexes(&sessions)
    }

    /// Lists the indexes that are not at the destination, unless that was done.
    fn list_indexes(&mut self) -> Result<(), EngineError> {
        if self.indexes.is_some() {
            return Ok(());
        }
        if let Some(destination) = self.destination {
            self.objects.add(destination, PREFIX_INDEX)?;
        }
        let mut missing = Indexes::new();
        for info in self.source.list(PREFIX_INDEX)? {
            if let Some(BlobKind::Index { session, .. }) = info.name.kind()
                && !self.objects.has_all_of(&info)
            {
                missing.entry(session).or_default().push(info.name);
            }
        }
        self.indexes = Some(missing);
        Ok(())
    }
}

/// Index blobs by the sessions that made them.
pub(super) type Indexes = BTreeMap<SessionId, Vec<BlobName>>;
