//! Backups of several VMs at the same time, which share memory, processors and the local index.

use crate::world::{NOW, create, memory_index, mixed, open, restored, small_geometry, undamaged, writer};
use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Together, Unfinished, backup_together,
};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::source::{ChangedAreas, MemoryDisk, Outside, ReadPart, Since};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{DiskSource, EngineError, Entropy, Event, Observer};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex};
use std::thread::scope;
use std::time::Duration;

/// Who waits so long for others will wait for ever.
const PATIENCE: Duration = Duration::from_mins(1);
const REGION_LEN: usize = 64 << 10;
/// What a region takes, and the least that a backup gets along with, with the geometry of the tests.
const REGION: u64 = 128 << 10;
const LEAST: u64 = REGION + (128 << 10) + (32 << 10);
const LEN: usize = 20 * REGION_LEN + 1000;

/// What all backups of a test tell of themselves.
#[derive(Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ended: BTreeSet<usize>,
    /// Backups that have begun to read and have not told of all that they read, and the most at a time.
    reading: BTreeSet<usize>,
    reading_most: usize,
    /// Bytes of each that it told of.
    done: BTreeMap<usize, u64>,
    /// Bytes that were read and of which no progress was told yet, and the most at a time.
    ahead: u64,
    ahead_most: u64,
}

impl Board {
    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        state.reading_most = state.reading_most.max(state.reading.len());
        state.ahead_most = state.ahead_most.max(state.ahead);
        self.changed.notify_all();
    }

    fn wait(&self, enough: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let (state, waited) =
            self.changed.wait_timeout_while(state, PATIENCE, |state| !enough(state)).unwrap();
        assert!(!waited.timed_out(), "only {:?} have ended", state.ended);
    }
}

/// The disk of a VM, which may wait for others before it is read.
struct Disk<'b> {
    number: usize,
    inner: MemoryDisk,
    board: &'b Board,
    /// It answers no read before these have ended.
    waits_for: BTreeSet<usize>,
    tells_changes: bool,
}

impl<'b> Disk<'b> {
    fn new(number: usize, board: &'b Board) -> Self {
        let inner = MemoryDisk::new(mixed(number as u64 * 1000, LEN));
        Self { number, inner, board, waits_for: BTreeSet::new(), tells_changes: false }
    }

    fn waiting_for(number: usize, board: &'b Board, waits_for: impl IntoIterator<Item = usize>) -> Self {
        Self { waits_for: waits_for.into_iter().collect(), ..Self::new(number, board) }
    }
}

impl DiskSource for Disk<'_> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = Some("now".to_owned());
        if self.tells_changes && since.is_some() {
            return Ok(ChangedAreas { areas: Vec::new(), outside: Outside::Unchanged, change_id });
        }
        Ok(ChangedAreas { change_id, ..self.inner.changed_areas(None)? })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        self.board.note(|state| {
            state.reading.insert(self.number);
            state.ahead += parts.iter().map(|part| part.buffer.len() as u64).sum::<u64>();
        });
        self.board.wait(|state| self.waits_for.is_subset(&state.ended));
        self.inner.read(parts)
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Watching<'b> {
    number: usize,
    board: &'b Board,
}

impl Observer for Watching<'_> {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        if let Event::Progress(bytes) = event {
            self.board.note(|state| {
                state.ahead = state.ahead.saturating_sub(bytes);
                let done = state.done.entry(self.number).or_default();
                *done += bytes;
                if *done == LEN as u64 {
                    state.reading.remove(&self.number);
                }
            });
        }
        ControlFlow::Continue(())
    }
}

fn vm(number: usize) -> String {
    format!("vm{number}")
}

/// Backs up all disks at the same time, each of a VM of its own.
fn back_up_all(
    store: &MemoryStore,
    disks: &[Disk<'_>],
    memory_bytes: u64,
    audit: Audit,
) -> (Vec<Result<BackupReport, EngineError>>, u64) {
    let repository = open(store);
    let index = memory_index(&repository);
    let geometry = &repository.config().geometry;
    let together = Together::new(index, geometry, memory_bytes, disks.len(), disks.len());
    let reports = scope(|threads| {
        let running: Vec<_> = disks
            .iter()
            .map(|disk| {
                let (repository, together) = (&repository, &together);
                threads.spawn(move || {
                    let seed = disk.number as u8 + if disk.tells_changes { 100 } else { 0 };
                    let job = BackupJob {
                        vm: &vm(disk.number),
                        writer: &writer(),
                        disks: vec![JobDisk::new("disk0", disk)],
                        reading: Reading::Changes,
                        audit,
                        compression: Compression::Level(1),
                        tags: Vec::new(),
                        properties: Vec::new(),
                        time: NOW + u64::from(seed),
                        program: "test",
                        entropy: Entropy::new([seed; 32]),
                        unfinished: Unfinished::Ended,
                        checkpoint_due: &|| false,
                    };
                    let watching = Watching { number: disk.number, board: disk.board };
                    let report = backup_together(repository, together, &job, &watching);
                    together.one_ended();
                    disk.board.note(|state| {
                        state.ended.insert(disk.number);
                    });
                    report
                })
            })
            .collect();
        running.into_iter().map(|running| running.join().unwrap()).collect()
    });
    (reports, together.peak_bytes())
}

/// Asserts that every disk is in the repository as it is.
fn all_are_there(store: &MemoryStore, disks: &[Disk<'_>]) {
    let repository = open(store);
    for disk in disks {
        let snapshot = find(&repository, &Selector::Latest(vm(disk.number))).unwrap();
        let expected = mixed(disk.number as u64 * 1000, LEN);
        assert!(restored(&repository, &snapshot, "disk0").unwrap() == expected, "{}", vm(disk.number));
    }
    undamaged(&repository);
}

fn empty() -> MemoryStore {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    store
}

#[test]
fn sources_that_stand_still_keep_no_other_backup_from_its_end() {
    let (store, board) = (empty(), Board::default());
    let disks = [
        Disk::waiting_for(0, &board, [2, 3, 4, 5]),
        Disk::waiting_for(1, &board, [2, 3, 4, 5]),
        Disk::new(2, &board),
        Disk::new(3, &board),
        Disk::new(4, &board),
        Disk::new(5, &board),
    ];
    // There is a place for one more than stand still.
    let memory_bytes = 3 * LEAST;
    let (reports, peak) = back_up_all(&store, &disks, memory_bytes, Audit::Off);
    assert!(reports.iter().all(Result::is_ok), "{reports:?}");
    assert!(peak <= memory_bytes, "{peak}");
    all_are_there(&store, &disks);
}

#[test]
fn each_backup_reads_though_all_others_wait_for_it() {
    // Each waits for those before it: whoever held what the first one needs would wait for ever.
    let (store, board) = (empty(), Board::default());
    let disks: Vec<Disk<'_>> = (0..4).map(|number| Disk::waiting_for(number, &board, 0..number)).collect();
    let memory_bytes = 4 * LEAST + 3 * REGION;
    let (reports, peak) = back_up_all(&store, &disks, memory_bytes, Audit::Off);
    assert!(reports.iter().all(Result::is_ok), "{reports:?}");
    assert!(peak <= memory_bytes, "{peak}");
    all_are_there(&store, &disks);
}

#[test]
fn however_many_backups_run_what_they_hold_is_bounded() {
    for places in [1, 2] {
        let (store, board) = (empty(), Board::default());
        let disks: Vec<Disk<'_>> = (0..8).map(|number| Disk::new(number, &board)).collect();
        let memory_bytes = places * LEAST + REGION;
        let (reports, peak) = back_up_all(&store, &disks, memory_bytes, Audit::Off);
        assert!(reports.iter().all(Result::is_ok), "{reports:?}");
        assert!((places * LEAST..=memory_bytes).contains(&peak), "{peak}");
        let state = board.state.lock().unwrap();
        assert!(state.reading_most as u64 <= places, "{} read at a time", state.reading_most);
        let regions = state.ahead_most / REGION_LEN as u64;
        assert!(regions * REGION <= memory_bytes - places * (LEAST - REGION), "{regions} regions at a time");
        drop(state);
        all_are_there(&store, &disks);
    }
}

#[test]
fn a_backup_that_fails_gives_back_what_it_held() {
    let (store, board) = (empty(), Board::default());
    let disks: Vec<Disk<'_>> = (0..6)
        .map(|number| {
            let disk = Disk::new(number, &board);
            // One that is longer than it can be read.
            let inner = if number % 2 == 0 { disk.inner } else { MemoryDisk::new(Vec::new()) };
            Disk { inner, ..disk }
        })
        .collect();
    let (reports, _) = back_up_all(&store, &disks, LEAST, Audit::Off);
    let failed: Vec<bool> = reports.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, false, true, false, true]);
    let whole: Vec<Disk<'_>> = disks.into_iter().filter(|disk| disk.number % 2 == 0).collect();
    all_are_there(&store, &whole);
}

#[test]
fn an_audit_of_a_source_that_stands_still_leaves_the_processors_to_others() {
    let (store, board) = (empty(), Board::default());
    let first: Vec<Disk<'_>> = (0..3).map(|number| Disk::new(number, &board)).collect();
    let (reports, _) = back_up_all(&store, &first, 8 * LEAST, Audit::Off);
    assert!(reports.iter().all(Result::is_ok), "{reports:?}");

    let board = Board::default();
    let audited = |number| Disk { tells_changes: true, ..Disk::waiting_for(number, &board, [7]) };
    let disks = [audited(0), audited(1), audited(2), Disk::new(7, &board)];
    let everything = Audit::Share { ppm: 1_000_000, seed: Some(1) };
    let (reports, _) = back_up_all(&store, &disks, 8 * LEAST, everything);
    let audited_bytes: Vec<Option<u64>> = reports
        .iter()
        .map(|report| report.as_ref().unwrap().disks[0].audit.as_ref().map(|audit| audit.audited_bytes))
        .collect();
    let all = Some(LEN as u64);
    assert_eq!(audited_bytes, [all, all, all, None]);
    all_are_there(&store, &disks);
}
