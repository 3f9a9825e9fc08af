//! What becomes of backups that did not end: the next one of the same writer and VM ends them and goes on from what
//! they had stored.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod world;

use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::{Notice, Phase, Quiet};
use keepstone_engine::snapshots;
use keepstone_engine::source::{ChangedAreas, MemoryDisk, ReadPart, Since, read_each};
use keepstone_engine::store::{BlobStore, Fault, FaultStore, MemoryStore};
use keepstone_engine::{DiskSource, EngineError, Entropy, Event, Observer, Repository};
use repo_format::{BlobKind, Index, SessionId, WriterId};
use std::io;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use world::watched::{Call, Watched};
use world::{NOW, create, latest, memory_index, noise, open, restored, small_geometry, undamaged};

const MINUTE: u64 = 60_000;
const LEN: usize = 1_500_000;

/// One backup, with an index fetched anew as on another host, that checkpoints its index after every pack.
struct Run<'a> {
    vm: &'a str,
    writer: &'a str,
    seed: u8,
    /// When it begins, after `NOW`.
    after: u64,
    unfinished: Unfinished<'a>,
}

impl Run<'_> {
    fn number(seed: u8) -> Self {
        let unfinished = Unfinished::MayRun { ended: &[] };
        Run { vm: "vm", writer: "host-a", seed, after: u64::from(seed) * 60 * MINUTE, unfinished }
    }

    fn of(
        &self,
        repository: &Repository<'_>,
        disk: &dyn DiskSource,
        observer: &dyn Observer,
    ) -> Result<BackupReport, EngineError> {
        let mut index = memory_index(repository);
        sync(&mut index, repository.store(), repository.keys(), &Preference::default(), &Quiet)?;
        let job = BackupJob {
            vm: self.vm,
            writer: &WriterId::new(self.writer).unwrap(),
            disks: vec![JobDisk::new("disk0", disk)],
            reading: Reading::Changes,
            audit: Audit::Off,
            compression: Compression::Level(1),
            tags: Vec::new(),
            properties: Vec::new(),
            time: NOW + self.after,
            program: "test",
            entropy: Entropy::new([self.seed; 32]),
            unfinished: self.unfinished,
            checkpoint_due: &|| true,
        };
        backup(repository, &mut index, &job, observer)
    }
}

/// What an observer was told of sessions.
#[derive(Default)]
struct Sessions(Mutex<Vec<Event>>);

impl Observer for Sessions {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        if let Event::SessionBegins(_) | Event::Notice(_) = event {
            self.0.lock().unwrap().push(event);
        }
        ControlFlow::Continue(())
    }
}

impl Sessions {
    fn begun(&self) -> Vec<SessionId> {
        let events = self.0.lock().unwrap();
        events
            .iter()
            .filter_map(|event| if let Event::SessionBegins(id) = event { Some(*id) } else { None })
            .collect()
    }

    fn aborted(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let session = |event: &Event| match event {
            Event::Notice(Notice::UnfinishedAborted { session, .. }) => Some(session.clone()),
            _ => None,
        };
        events.iter().filter_map(session).collect()
    }
}

/// A repository in which a first backup of a disk was killed after so many store calls.
fn killed_after(calls: u64, time: u64) -> (MemoryStore, MemoryDisk, SessionId) {
    let (store, disk, sessions) = killed(calls, time);
    (store, disk, sessions.begun()[0])
}

fn killed(calls: u64, time: u64) -> (MemoryStore, MemoryDisk, Sessions) {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    store.set_time(time);
    let disk = MemoryDisk::new(noise(1, LEN));
    // Opening the repository is not what crashes.
    let opening = FaultStore::new(&store, u64::MAX, Fault::CrashAfter);
    open(&opening);
    let faulty = FaultStore::new(&store, opening.calls() + calls, Fault::CrashAfter);
    let sessions = Sessions::default();
    Run::number(1).of(&open(&faulty), &disk, &sessions).unwrap_err();
    (store, disk, sessions)
}

fn decisions(store: &MemoryStore) -> usize {
    store.names().iter().filter(|name| matches!(name.kind(), Some(BlobKind::Decision(_)))).count()
}

/// Bytes of data packs that indexes list.
fn indexed_bytes(repository: &Repository<'_>) -> u64 {
    let mut index = memory_index(repository);
    sync(&mut index, repository.store(), repository.keys(), &Preference::default(), &Quiet).unwrap();
    index.entries()
}

#[test]
fn what_a_killed_backup_had_indexed_is_not_stored_again() {
    let (store, disk, session) = killed_after(60, NOW);
    let repository = open(&store);
    let indexed = indexed_bytes(&repository);
    assert!(indexed > 100, "only {indexed} chunks were indexed before the crash");
    let sessions = Sessions::default();
    let report = Run::number(2).of(&repository, &disk, &sessions).unwrap();
    assert_eq!(sessions.aborted(), [session.to_string()]);
    assert_eq!(report.chunks - report.new_chunks, indexed, "all that was indexed is used");
    assert!(restored(&repository, &latest(&repository, "vm"), "disk0").unwrap() == disk.bytes);
    assert_eq!(snapshots::list(&repository, None).unwrap().aborted, [session].into());
    undamaged(&repository);
}

#[test]
fn a_session_that_stored_something_lately_is_left_alone_and_the_backup_refused() {
    let (store, disk, session) = killed_after(60, NOW);
    let repository = open(&store);
    let before = store.names();
    let run = Run { after: 15 * MINUTE - 1, ..Run::number(2) };
    match run.of(&repository, &disk, &Quiet) {
        Err(EngineError::MayBeRunning { session: found, vm, quiet_millis }) => {
            assert_eq!((found, vm.as_str(), quiet_millis), (session, "vm", 15 * MINUTE - 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.names(), before);
    Run { after: 15 * MINUTE, ..run }.of(&repository, &disk, &Quiet).unwrap();
}

#[test]
fn a_session_dated_in_the_future_counts_as_running() {
    let (store, disk, _) = killed_after(60, NOW + 600 * MINUTE);
    let refused = Run::number(2).of(&open(&store), &disk, &Quiet);
    assert!(matches!(refused, Err(EngineError::MayBeRunning { quiet_millis: 0, .. })), "{refused:?}");
}

#[test]
fn a_session_that_is_known_to_have_ended_is_aborted_at_once() {
    for known in [true, false] {
        let (store, disk, session) = killed_after(60, NOW);
        let ended = [session];
        let unfinished = if known { Unfinished::MayRun { ended: &ended } } else { Unfinished::Ended };
        let run = Run { after: 1, unfinished, ..Run::number(2) };
        run.of(&open(&store), &disk, &Quiet).unwrap();
        assert_eq!(decisions(&store), 2);
    }
}

#[test]
fn sessions_of_other_writers_and_vms_are_left_alone() {
    let (store, disk, _) = killed_after(60, NOW);
    let repository = open(&store);
    for run in [Run { writer: "host-b", ..Run::number(2) }, Run { vm: "other", ..Run::number(3) }] {
        let sessions = Sessions::default();
        run.of(&repository, &disk, &sessions).unwrap();
        assert_eq!(sessions.aborted(), Vec::<String>::new());
    }
    assert_eq!(decisions(&store), 2);
}

#[test]
fn a_session_is_aborted_whatever_it_had_stored() {
    let mut seen = [0; 2];
    for calls in 0..20 {
        let (store, disk, begun) = killed(calls, NOW);
        let count = |prefix| store.names().iter().filter(|name| name.as_str().starts_with(prefix)).count();
        let (intents, packs) = (count("s/"), count("d/"));
        let sessions = Sessions::default();
        Run::number(2).of(&open(&store), &disk, &sessions).unwrap();
        let expected = if intents == 0 { Vec::new() } else { vec![begun.begun()[0].to_string()] };
        assert_eq!(sessions.aborted(), expected, "after {calls} calls");
        seen[usize::from(packs > 0)] += intents;
    }
    assert!(
        seen.iter().all(|sessions| *sessions > 0),
        "with nothing but an intent, and with packs: {seen:?}"
    );
}

/// A disk that cannot be read from an offset on.
struct Failing(MemoryDisk, u64);

impl Failing {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.1 {
            return Err(io::Error::other("the cable was pulled"));
        }
        self.0.read_at(offset, buffer)
    }
}

impl DiskSource for Failing {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        self.0.changed_areas(since)
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_source_that_fails_in_the_middle_loses_little_of_what_was_stored() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let disk = MemoryDisk::new(noise(1, LEN));
    let failed = Run::number(1).of(&repository, &Failing(disk.clone(), 1_000_000), &Quiet);
    assert!(matches!(failed, Err(EngineError::Source { .. })), "{failed:?}");
    assert_eq!(decisions(&store), 1, "the session is aborted");
    let packs = repository.list("d/").unwrap().len();
    assert!(packs >= 2, "{packs} packs were stored before the failure");
    let indexed = indexed_bytes(&repository);
    assert!(indexed > 50, "only {indexed} chunks were indexed");
    let report = Run::number(2).of(&repository, &disk, &Quiet).unwrap();
    assert_eq!(report.chunks - report.new_chunks, indexed);
    undamaged(&repository);
}

/// Interrupts a backup at one of its events, and adds up what it was told to be stored.
struct Interrupting {
    at: usize,
    seen: AtomicUsize,
    transferred: AtomicU64,
}

impl Observer for Interrupting {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        if let Event::Transferred(bytes) = event {
            self.transferred.fetch_add(bytes, Ordering::Relaxed);
        }
        match self.seen.fetch_add(1, Ordering::Relaxed) {
            seen if seen == self.at => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Bytes of map packs, of indexes, and of the data packs that these list.
fn findable_bytes(repository: &Repository<'_>) -> u64 {
    let maps: u64 = repository.list("m/").unwrap().iter().map(|info| info.len).sum();
    let indexes = repository.list("i/").unwrap().into_iter().map(|info| {
        let bytes = repository.store().get(&info.name, None).unwrap();
        let index = Index::open(repository.keys(), &info.name, &bytes).unwrap();
        info.len + index.packs.iter().map(|pack| u64::from(pack.len)).sum::<u64>()
    });
    maps + indexes.sum::<u64>()
}

#[test]
fn an_interrupt_at_any_event_forgets_nothing_that_was_told_to_be_stored() {
    let base = MemoryStore::new();
    create(&base, small_geometry());
    let disk = MemoryDisk::new(noise(1, LEN));
    let mut forgotten = Vec::new();
    for at in 0.. {
        let store = base.copied();
        let repository = open(&store);
        let interrupting =
            Interrupting { at, seen: AtomicUsize::default(), transferred: AtomicU64::default() };
        match Run::number(1).of(&repository, &disk, &interrupting) {
            Err(EngineError::Cancelled) => {}
            other => {
                other.unwrap();
                assert!(at > 20, "only {at} events");
                break;
            }
        }
        let (told, found) = (interrupting.transferred.into_inner(), findable_bytes(&repository));
        if told > found {
            forgotten.push((at, told, found));
        }
    }
    assert_eq!(forgotten, []);
}

#[test]
fn a_session_that_is_decided_meanwhile_is_not_called_aborted() {
    let (store, disk, session) = killed_after(60, NOW);
    // Another process decides it just before this one would.
    let outrun = Watched::new(&store, |call| {
        if let Call::Put(name) = call
            && matches!(name.kind(), Some(BlobKind::Decision(decision)) if decision.session == session)
        {
            store.put_new(name, b"decided").unwrap();
        }
    });
    let sessions = Sessions::default();
    Run::number(2).of(&open(&outrun), &disk, &sessions).unwrap();
    assert_eq!(sessions.aborted(), Vec::<String>::new());
}

/// Runs another backup when the first one is about to commit.
struct Overtaken<'a> {
    overtake: &'a (dyn Fn() + Sync),
    done: Mutex<bool>,
}

impl Observer for Overtaken<'_> {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        if matches!(event, Event::Phase { phase: Phase::Commit, .. })
            && !std::mem::replace(&mut *self.done.lock().unwrap(), true)
        {
            (self.overtake)();
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn a_backup_that_is_overtaken_begins_again_and_both_are_valid() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let (first, second) = (MemoryDisk::new(noise(1, LEN)), MemoryDisk::new(noise(2, LEN)));
    let overtake = || {
        let run = Run { unfinished: Unfinished::Ended, ..Run::number(2) };
        run.of(&repository, &second, &Quiet).unwrap();
    };
    let overtaken = Overtaken { overtake: &overtake, done: Mutex::default() };
    Run { after: 600 * MINUTE, ..Run::number(1) }.of(&repository, &first, &overtaken).unwrap();
    let list = snapshots::list(&repository, None).unwrap();
    assert_eq!((list.snapshots.len(), list.aborted.len()), (2, 1));
    for (snapshot, disk) in list.snapshots.iter().zip([&second, &first]) {
        assert!(restored(&repository, snapshot, "disk0").unwrap() == disk.bytes);
    }
    undamaged(&repository);
}

#[test]
fn a_second_backup_of_a_running_one_is_refused_and_harms_it_not() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    store.set_time(NOW);
    let disk = MemoryDisk::new(noise(1, LEN));
    let second = || {
        let refused = Run { after: MINUTE, ..Run::number(2) }.of(&repository, &disk, &Quiet);
        assert!(matches!(refused, Err(EngineError::MayBeRunning { .. })), "{refused:?}");
    };
    let watched = Overtaken { overtake: &second, done: Mutex::default() };
    Run { after: 0, ..Run::number(1) }.of(&repository, &disk, &watched).unwrap();
    assert!(restored(&repository, &latest(&repository, "vm"), "disk0").unwrap() == disk.bytes);
    assert_eq!(decisions(&store), 1);
    undamaged(&repository);
}
