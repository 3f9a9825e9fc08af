//! The operations, each on the repository and on the bytes.

use super::disks::{Disk, Tracked, Version};
use crate::fields::Fields;
use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::diff::diff;
use keepstone_engine::index::{LocalIndex, Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::repository::{NewSlot, add_slot, remove_slot, unlock_retention};
use keepstone_engine::snapshots::{self, Snapshot};
use keepstone_engine::store::{Fault, FaultStore, LateCall, MemoryStore};
use keepstone_engine::{BlobStore, EngineError, Entropy, Repository};
use repo_format::{
    BlobKind, BlobName, ChunkerName, ChunkerParams, Geometry, KdfParams, SessionId, SlotKind, SlotName,
    Tombstone, WriterId,
};
use std::collections::{BTreeMap, BTreeSet};

const VMS: [&str; 2] = ["one", "two"];
const WRITERS: [&str; 2] = ["host-a", "host-b"];
/// Backups are this far apart; the store dates all long before, so that no session seems to be running.
pub(super) const NOW: u64 = 1_800_000_000_000;
const DISK_LEN_MAX: usize = 48 << 10;
const RETENTION_PASSWORD: &[u8] = b"retention";

/// A repository, and what must be in it.
pub(super) struct World {
    pub(super) store: MemoryStore,
    vms: [Vec<Disk>; 2],
    /// By the time of the backup that read them.
    pub(super) versions: BTreeMap<u64, Version>,
    /// Of backups that said that they succeeded.
    pub(super) reported: BTreeSet<SessionId>,
    pub(super) forgotten: BTreeSet<SessionId>,
    /// Those whose decisions were deleted, after a verification has told so. Each looks like a session that never ended,
    /// and its writer's next backup ends it.
    pub(super) undone: BTreeSet<SessionId>,
    pub(super) is_damaged: bool,
    late: Vec<LateCall>,
    /// Each writer's.
    indexes: [Option<LocalIndex>; 2],
    keys: Vec<(SlotName, Vec<u8>)>,
    drawn: u32,
}

impl World {
    pub(super) fn new() -> Self {
        let first = (SlotName::new("k0").expect("a slot's name"), b"0".to_vec());
        let mut world = Self {
            store: MemoryStore::new(),
            vms: [vec![("a", vec![0; 20_000]), ("b", vec![0; 9000])], vec![("c", vec![0; 16_384])]],
            versions: BTreeMap::new(),
            reported: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            undone: BTreeSet::new(),
            is_damaged: false,
            late: Vec::new(),
            indexes: [None, None],
            keys: vec![first.clone()],
            drawn: 0,
        };
        let entropy = world.entropy();
        let retention = (SlotName::new("retention").expect("a slot's name"), RETENTION_PASSWORD.to_vec());
        Repository::create(&world.store, geometry(), &slot(&first), &slot(&retention), &entropy)
            .expect("an empty store takes one");
        world
    }

    pub(super) fn open<'s>(&self, store: &'s dyn BlobStore) -> Result<Repository<'s>, EngineError> {
        Repository::open(store, &self.keys[0].1)
    }

    pub(super) fn has_snapshots(&self) -> bool {
        !self.reported.is_empty()
    }

    fn entropy(&mut self) -> Entropy {
        self.drawn += 1;
        Entropy::new(*blake3::hash(&self.drawn.to_le_bytes()).as_bytes())
    }

    fn disk(&mut self, fields: &mut Fields<'_>) -> &mut Vec<u8> {
        let [one, two] = &mut self.vms;
        let mut disks: Vec<&mut Disk> = one.iter_mut().chain(two).collect();
        let which = usize::from(fields.u8()) % disks.len();
        &mut disks.swap_remove(which).1
    }

    pub(super) fn write(&mut self, fields: &mut Fields<'_>) {
        let disk = self.disk(fields);
        let part = part(disk, fields);
        // Few kinds of content, so that disks share chunks.
        let seed = fields.u8() % 16;
        if seed < 12 {
            blake3::Hasher::new().update(&[seed]).finalize_xof().fill(part);
        } else {
            part.iter_mut().zip((seed..seed + 50).cycle()).for_each(|(byte, value)| *byte = value);
        }
    }

    pub(super) fn zero(&mut self, fields: &mut Fields<'_>) {
        let disk = self.disk(fields);
        part(disk, fields).fill(0);
    }

    pub(super) fn resize(&mut self, fields: &mut Fields<'_>) {
        let disk = self.disk(fields);
        disk.resize(1 + usize::from(fields.u16()) % DISK_LEN_MAX, 0);
    }

    pub(super) fn back_up(&mut self, fields: &mut Fields<'_>) {
        let (choice, time, store) =
            (Choice::read(fields), self.note_version(fields.u8()), self.store.clone());
        let result = self.run(&store, &choice, time);
        match result {
            Ok(report) => drop(self.reported.insert(report.snapshot)),
            // A full backup depends on nothing that can be damaged.
            Err(error) => assert!(self.is_damaged && !choice.full, "a backup failed: {error:?}"),
        }
        self.agrees();
    }

    pub(super) fn back_up_with_a_fault(&mut self, fields: &mut Fields<'_>) {
        let (choice, time) = (Choice::read(fields), self.note_version(fields.u8()));
        let (at, kind, further) = (u64::from(fields.u8()) % 64, fields.u8(), u64::from(fields.u8()));
        let fault = match kind % 6 {
            0 => Fault::NotApplied,
            1 => Fault::AnswerLost,
            2 => Fault::CrashBefore,
            3 => Fault::CrashAfter,
            4 => Fault::CrashDuring,
            _ => Fault::AppliedLater { further },
        };
        let store = FaultStore::new(self.store.clone(), at, fault);
        if let Ok(report) = self.run(&store, &choice, time) {
            self.reported.insert(report.snapshot);
        }
        self.late.extend(store.take_late());
        self.agrees();
    }

    /// Remembers what is about to be backed up, under a time that is the backup's.
    fn note_version(&mut self, vm: u8) -> u64 {
        let vm = usize::from(vm) % VMS.len();
        let time = NOW + self.versions.len() as u64;
        self.versions.insert(time, Version { vm, disks: self.vms[vm].clone() });
        time
    }

    fn run(
        &mut self,
        store: &dyn BlobStore,
        choice: &Choice,
        time: u64,
    ) -> Result<BackupReport, EngineError> {
        let entropy = self.entropy();
        let repository = self.open(store)?;
        let kept = self.indexes[choice.writer].take().filter(|_| !choice.index_lost);
        let mut index = if let Some(index) = kept {
            index
        } else {
            let key = repository.keys().local_key("keepstone v0 local index");
            LocalIndex::open(None, repository.config().repository, key, 1 << 20)?
        };
        if choice.synchronised {
            sync(&mut index, store, repository.keys(), &Preference::default(), &Quiet)?;
        }
        let version = &self.versions[&time];
        let source = |(key, _): &Disk| Tracked { versions: &self.versions, time, key };
        let sources: Vec<Tracked<'_>> = version.disks.iter().map(source).collect();
        let job = BackupJob {
            vm: VMS[version.vm],
            writer: &WriterId::new(WRITERS[choice.writer]).expect("a writer's name"),
            disks: sources.iter().map(|source| JobDisk::new(source.key, source)).collect(),
            reading: if choice.full { Reading::Everything } else { Reading::Changes },
            audit: Audit::Off,
            compression: Compression::Level(1),
            tags: Vec::new(),
            properties: Vec::new(),
            time,
            program: "model",
            entropy,
            unfinished: Unfinished::MayRun { ended: &[] },
            checkpoint_due: &|| choice.checkpoints,
        };
        let result = backup(&repository, &mut index, &job, &Quiet);
        self.indexes[choice.writer] = Some(index);
        result
    }

    pub(super) fn apply_late(&mut self, fields: &mut Fields<'_>) {
        if !self.late.is_empty() {
            let which = usize::from(fields.u8()) % self.late.len();
            self.late.swap_remove(which).apply(&self.store).expect("the store works");
            self.agrees();
        }
    }

    /// Changes, cuts or removes a blob that snapshots or deduplication need.
    pub(super) fn damage(&mut self, fields: &mut Fields<'_>) {
        let mut names = self.store.names();
        names.retain(|name| {
            matches!(name.kind(), Some(BlobKind::Pack(_) | BlobKind::Index { .. } | BlobKind::Decision(_)))
        });
        let (which, kind, place) = (usize::from(fields.u16()), fields.u8(), usize::from(fields.u16()));
        let Some(name) = names.get(which % names.len().max(1)) else { return };
        let mut bytes = self.store.get(name, None).expect("a listed blob is there");
        if bytes.is_empty() {
            return;
        }
        let place = place % bytes.len();
        match kind % 3 {
            0 => bytes[place] ^= 1 << (kind / 3 % 8),
            1 => bytes.truncate(place),
            _ => self.store.delete(name).expect("the store works"),
        }
        if kind % 3 < 2 {
            self.store.overwrite(name, &bytes);
        }
        self.is_damaged = true;
        self.agrees();
        if let (Some(BlobKind::Decision(decision)), 2) = (name.kind(), kind % 3) {
            self.undone.insert(decision.session);
        }
    }

    /// What `diff` says of two snapshots of one disk: every byte that differs is in it.
    pub(super) fn compare_two(&mut self, fields: &mut Fields<'_>) {
        let repository = self.open(&self.store).expect("it opens");
        let list = snapshots::list(&repository, None).expect("it lists").snapshots;
        if list.is_empty() {
            return;
        }
        let [a, b] = [fields.u8(), fields.u8()].map(|choice| &list[usize::from(choice) % list.len()]);
        for disk in &a.commit.disks {
            let Ok(other) = b.disk(Some(&disk.key)) else { continue };
            let areas = match diff(&repository, disk, other) {
                Ok(areas) => areas,
                Err(error) => {
                    assert!(self.is_damaged, "{error:?}");
                    continue;
                }
            };
            let (bytes, others) = (self.expected(a, &disk.key), self.expected(b, &disk.key));
            let differs = bytes.iter().zip(others).position(|(byte, other)| byte != other);
            let mut all = (0u64..).zip(bytes.iter().zip(others));
            let in_areas = |at: u64| areas.iter().any(|area| area.start <= at && at < area.end());
            assert!(
                all.all(|(at, (byte, other))| byte == other || in_areas(at)),
                "{areas:?} lacks {differs:?}"
            );
        }
    }

    /// What a disk of a snapshot must be.
    pub(super) fn expected(&self, snapshot: &Snapshot, key: &str) -> &[u8] {
        let version = &self.versions[&snapshot.commit.time];
        assert_eq!(VMS[version.vm], snapshot.commit.vm);
        version.bytes(key).expect("a snapshot has the disks of its version")
    }

    pub(super) fn add_key(&mut self) {
        let number = self.drawn.to_string();
        let key = (SlotName::new(&format!("k{number}")).expect("a slot's name"), number.into_bytes());
        let entropy = self.entropy();
        add_slot(&self.store, &self.keys[0].1, SlotKind::Root, &slot(&key), &entropy)
            .expect("a new slot is added");
        self.keys.insert(0, key);
        self.open(&self.store).expect("the new password opens it");
    }

    pub(super) fn remove_key(&mut self, fields: &mut Fields<'_>) {
        let which = usize::from(fields.u8()) % self.keys.len();
        let result = remove_slot(&self.store, &self.keys[which].0);
        if self.keys.len() == 1 {
            assert!(matches!(result, Err(EngineError::LastSlot { .. })), "{result:?}");
        } else {
            result.expect("one of several slots is removed");
            let (_, password) = self.keys.swap_remove(which);
            let opened = Repository::open(&self.store, &password);
            assert!(matches!(opened.err(), Some(EngineError::WrongPassword { .. })));
        }
        self.open(&self.store).expect("a password that is left opens it");
    }

    /// A tombstone, as the retention makes it.
    pub(super) fn forget(&mut self, fields: &mut Fields<'_>) {
        let store = self.store.clone();
        let repository = self.open(&store).expect("it opens");
        let list = snapshots::list(&repository, None).expect("it lists").snapshots;
        let Some(snapshot) = list.get(usize::from(fields.u8()) % list.len().max(1)) else { return };
        let session = snapshot.session();
        let retention = unlock_retention(&repository, RETENTION_PASSWORD).expect("its password opens it");
        let tombstone = Tombstone { session, time: NOW, decision: snapshot.name.clone() };
        let (name, bytes): (BlobName, Vec<u8>) = tombstone.seal(repository.keys(), &retention, [7; 32]);
        store.put_new(&name, &bytes).expect("the store works");
        self.forgotten.insert(session);
        self.agrees();
    }
}

/// How a backup is run.
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of the input")]
struct Choice {
    writer: usize,
    full: bool,
    synchronised: bool,
    index_lost: bool,
    checkpoints: bool,
}

impl Choice {
    fn read(fields: &mut Fields<'_>) -> Self {
        let bits = fields.u8();
        let bit = |number: u8| bits >> number & 1 == 1;
        Self {
            writer: usize::from(bit(1)),
            full: bit(0),
            synchronised: !bit(2),
            index_lost: bit(3),
            checkpoints: bit(4),
        }
    }
}

/// A part of a disk: a start and a length, cut at its end.
fn part<'d>(disk: &'d mut [u8], fields: &mut Fields<'_>) -> &'d mut [u8] {
    let (start, len) = (usize::from(fields.u16()) % disk.len(), usize::from(fields.u16()));
    let end = (start + len).min(disk.len());
    &mut disk[start..end]
}

fn slot((name, password): &(SlotName, Vec<u8>)) -> NewSlot<'_> {
    let kdf = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };
    NewSlot { name, label: "model", password, kdf, time: NOW }
}

fn geometry() -> Geometry {
    Geometry {
        chunker: ChunkerParams { name: ChunkerName::FastCdc2020, min: 64, average: 256, max: 1024 },
        region_len: 16 << 10,
        cell_len: 4 << 10,
        pack_len: 64 << 10,
    }
}
