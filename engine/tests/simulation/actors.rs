//! Who does something in the simulated world, each again and again.

use crate::client::{Client, Process};
use crate::copies::Seen;
use crate::disks::Disks;
use crate::faults::{Kind, Rates};
use crate::late::Late;
use crate::oracle::{Known, Oracle};
use crate::random::Random;
use crate::rights::Role;
use crate::scenario::{Scenario, Store};
use crate::world::{DAY, MINUTE, World};
use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::index::{LocalIndex, Preference, sync};
use keepstone_engine::observer::{Event, Notice, Quiet};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{Finding, FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, EngineError, Entropy, Observer, Repository, snapshots};
use repo_format::WriterId;
use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// What a simulation consists of.
pub struct Simulation {
    pub world: Arc<World>,
    pub disks: Arc<Disks>,
    pub oracle: Oracle,
    pub scenario: Scenario,
    /// What was seen of the copy; nothing while somebody looks at it.
    pub seen: Mutex<Option<Seen>>,
    /// What arrives late, in a place that was promoted.
    pub late: Option<Late>,
}

/// An error with its reasons.
pub fn told(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        text = format!("{text}: {reason}");
        source = reason.source();
    }
    text
}

/// Notes that a backup began anew, because a pruner had aborted its session.
struct Watching<'w>(&'w World);

impl Observer for Watching<'_> {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Notice(Notice::SessionAborted { .. }) => {
                self.0.reach("a backup was aborted and began anew");
            }
            Event::Notice(Notice::UnfinishedAborted { .. }) => {
                self.0.reach("a backup ended one that had not");
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// How a backup is run.
#[derive(Clone)]
struct Choice {
    version: usize,
    time: u64,
    seed: [u8; 32],
    reading: Reading,
    unfinished: Unfinished<'static>,
    checkpoints: u32,
    is_synchronised: bool,
}

impl Simulation {
    pub fn process(&self, role: Role) -> Process {
        Process::new(&self.world, role, self.scenario.rates.clone())
    }

    /// A process that nothing happens to.
    pub fn safe_process(&self, role: Role) -> Process {
        Process::new(&self.world, role, Rates::none())
    }

    pub fn pause(&self) {
        let length = self.world.draw(|random| random.below(self.scenario.pace));
        self.world.sleep(length);
    }

    pub fn is_honest(&self) -> bool {
        self.scenario.store == Store::Honest
    }

    /// What a host's clock shows; it may be wrong.
    pub fn clock(&self, offset: &mut i64) -> u64 {
        let ppm = self.scenario.clock_steps;
        let step = self.world.draw(|random| {
            let is_set = random.chance(ppm);
            let size = random.pick(&[MINUTE, DAY, 400 * DAY]);
            is_set.then(|| {
                i64::try_from(random.below(2 * size)).expect("years") - i64::try_from(size).expect("years")
            })
        });
        if let Some(step) = step {
            self.world.note_fault(Kind::ClockStep);
            *offset = step;
        }
        self.world.now().saturating_add_signed(*offset)
    }

    /// Backs up its VMs again and again.
    pub fn writer(&self, name: &'static str, vms: &[usize]) {
        let (mut index, mut offset) = (None, 0);
        for _ in 0..self.scenario.backups {
            self.pause();
            let time = self.clock(&mut offset);
            let choice = self.choose(vms, time);
            if self.world.draw(|random| random.chance(self.scenario.twins)) {
                self.back_up_twice(name, &choice);
            } else {
                let client = Client::new(&self.world, self.process(Role::Writer));
                drop(self.back_up(name, &choice, &client, &mut index));
            }
        }
    }

    fn choose(&self, vms: &[usize], time: u64) -> Choice {
        self.world.draw(|random| {
            let vm = random.pick(vms);
            Choice {
                version: self.disks.next_version(vm, random),
                time,
                seed: random.bytes32(),
                reading: if random.one_in(4) { Reading::Everything } else { Reading::Changes },
                unfinished: if random.one_in(2) {
                    Unfinished::Ended
                } else {
                    Unfinished::MayRun { ended: &[] }
                },
                checkpoints: random.pick(&[0, 1, 2]),
                is_synchronised: !random.one_in(3),
            }
        })
    }

    /// Backs up a VM once more; that ends whatever its writer began and did not end.
    pub fn back_up_at_last(&self, name: &str, vm: usize) {
        let mut choice = self.choose(&[vm], self.world.now());
        choice.unfinished = Unfinished::Ended;
        let client = Client::new(&self.world, self.safe_process(Role::Writer));
        if let Err(error) = self.back_up(name, &choice, &client, &mut None) {
            self.world.violated(&format!("the last backup failed: {}", told(&error)));
        }
    }

    /// One host is copied while it backs up, and both go on: with the same randomness, and the same disks or others.
    fn back_up_twice(&self, name: &'static str, choice: &Choice) {
        self.world.note_fault(Kind::Twin);
        let answers = self.world.draw(|random| u32::try_from(random.below(60)).expect("few"));
        let first = Client::new(&self.world, self.process(Role::Writer).copied_after(answers));
        let mut other = choice.clone();
        if self.world.draw(|random| random.one_in(2)) {
            other.version = self.world.draw(|random| self.disks.other_version(choice.version, random));
        }
        self.world.reach("a writer was resumed twice");
        // The first one runs into the fork, and on; the second one begins there, at once or days later.
        drop(self.back_up(name, choice, &first, &mut None));
        let second = Client::new(&self.world, first.process.twin(&self.world));
        if self.world.draw(|random| random.one_in(2)) {
            self.pause();
        }
        drop(self.back_up(name, &other, &second, &mut None));
    }

    fn back_up(
        &self,
        name: &str,
        choice: &Choice,
        client: &Client,
        index: &mut Option<LocalIndex>,
    ) -> Result<BackupReport, EngineError> {
        let gone = self.world.inner().states.gone;
        let result = self.run_backup(name, choice, client, index);
        match &result {
            Ok(report) => {
                let before = self.oracle.known().acknowledged.insert(report.snapshot, choice.version);
                // A store that takes back what it acknowledged lets a twin be the second one. Any store lets it create
                // the decision again once that was forgotten and removed (engine/model/README.md, twins).
                let must_be_once =
                    self.is_honest() && !self.world.inner().forgotten.contains(&report.snapshot);
                if must_be_once && before.is_some_and(|version| version != choice.version) {
                    self.world.violated(&format!("snapshot {} was reported twice", report.snapshot));
                }
                self.world.reach("a backup succeeded");
                self.note_report(report);
                self.check_made(report.snapshot, gone);
            }
            Err(EngineError::Aborted { .. }) => self.world.reach("a writer found its session aborted"),
            Err(EngineError::Twin { .. }) => self.world.reach("a writer found its twin"),
            Err(EngineError::MayBeRunning { .. }) => {
                self.world.reach("a writer found that it may be running");
            }
            Err(error) if client.process.is_untouched() && self.is_honest() => {
                self.world.violated(&format!("a backup failed for nothing: {}", told(error)));
            }
            Err(_) => self.world.reach("a backup failed"),
        }
        result
    }

    fn note_report(&self, report: &BackupReport) {
        if report.packs > 2 {
            self.world.reach("a session filled several packs");
        }
    }

    fn run_backup(
        &self,
        name: &str,
        choice: &Choice,
        client: &Client,
        index: &mut Option<LocalIndex>,
    ) -> Result<BackupReport, EngineError> {
        let repository = Repository::open(client, crate::PASSWORD)?;
        let mut local = match index.take() {
            Some(index) => index,
            None => crate::world_index(&repository)?,
        };
        if choice.is_synchronised {
            sync(&mut local, client, repository.keys(), &Preference::default(), &Quiet)?;
        }
        let sources = self.disks.sources(choice.version);
        let asked = AtomicU32::new(0);
        let job = BackupJob {
            vm: &self.disks.version(choice.version).vm,
            writer: &WriterId::new(name).expect("a writer's name"),
            disks: sources.iter().map(|source| JobDisk::new(source.key, source)).collect(),
            reading: choice.reading,
            audit: Audit::Off,
            compression: Compression::Level(1),
            tags: vec![format!("v{}", choice.version)],
            properties: Vec::new(),
            time: choice.time,
            program: "simulation",
            entropy: Entropy::new(choice.seed),
            unfinished: choice.unfinished,
            checkpoint_due: &|| {
                choice.checkpoints > 0 && asked.fetch_add(1, Relaxed).is_multiple_of(choice.checkpoints)
            },
        };
        let result = backup(&repository, &mut local, &job, &Watching(&self.world));
        *index = Some(local);
        result
    }

    /// Restores and verifies now and then.
    pub fn reader(&self, times: u64) {
        for _ in 0..times {
            self.pause();
            let client = Client::new(&self.world, self.process(Role::Reader));
            let verifies = self.world.draw(|random| random.one_in(3));
            let before = self.oracle.known().clone();
            let result = if verifies { self.verify(&client) } else { self.restore(&client, &before) };
            match result {
                Err(error) if client.process.is_untouched() && self.is_honest() => {
                    self.world.violated(&format!("a reader failed for nothing: {}", told(&error)));
                }
                Err(_) => self.world.reach("a reader failed"),
                Ok(()) => self.world.reach("a reader succeeded"),
            }
        }
    }

    fn restore(&self, client: &Client, before: &Known) -> Result<(), EngineError> {
        let repository = Repository::open(client, crate::PASSWORD)?;
        let list = snapshots::list(&repository, None)?;
        if client.process.is_untouched() && self.is_honest() {
            self.lists_all(&list.snapshots, before);
        }
        let gone = self.world.inner().states.gone;
        let offered = self.offered(&repository, list.snapshots)?;
        let Some(snapshot) = self.world.draw(|random| choose(random, &offered)) else { return Ok(()) };
        match self.oracle.restore(&self.world, &repository, snapshot) {
            Err(error) if self.world.inner().forgotten.contains(&snapshot.session()) => {
                self.world.reach("a restore met a snapshot that was forgotten meanwhile");
                drop(error);
                Ok(())
            }
            Err(_) if self.may_go(snapshot.session()) && gone != self.world.inner().states.gone => {
                self.world.reach("a restore met a snapshot that arrived late and was pruned meanwhile");
                Ok(())
            }
            result => result,
        }
    }

    /// What was acknowledged before is listed, unless it was forgotten.
    pub fn lists_all(&self, list: &[snapshots::Snapshot], before: &Known) {
        let forgotten = self.world.inner().forgotten.clone();
        for session in before.acknowledged.keys().filter(|session| !forgotten.contains(session)) {
            if !list.iter().any(|snapshot| snapshot.session() == *session) {
                self.world.violated(&format!("snapshot {session} was acknowledged and is not listed"));
            }
        }
        for snapshot in list.iter().filter(|snapshot| before.forgotten.contains(&snapshot.session())) {
            self.world.violated(&format!("snapshot {} was forgotten and is listed", snapshot.session()));
        }
    }

    /// Two copies of one host decide one session twice, if the first one was tidied away before the second began.
    pub fn is_of_twins(&self, finding: &Finding) -> bool {
        finding.kind == FindingKind::ContradictorySession && self.world.inner().faults.of(Kind::Twin) > 0
    }

    fn verify(&self, client: &Client) -> Result<(), EngineError> {
        let repository = Repository::open(client, crate::PASSWORD)?;
        let job = VerifyJob::everything(ReadData::Everything, self.world.now());
        let report = verify(&repository, &job, &Quiet)?;
        let is_wrong = |finding: &&Finding| {
            finding.is_damage() && !self.is_of_twins(finding) && !self.is_of_late(finding, &|_| true)
        };
        let findings: Vec<&Finding> = report.findings.iter().filter(is_wrong).collect();
        if self.is_honest() && client.process.is_untouched() && !findings.is_empty() {
            self.world.violated(&format!("verify found damage where there is none: {findings:?}"));
        }
        Ok(())
    }

    /// Carries blobs to another store, in any order and never all, and restores from there.
    pub fn copier(&self, blobs: u64, times: u64) {
        let replica = MemoryStore::new();
        for _ in 0..times {
            self.pause();
            for _ in 0..blobs {
                shuttle::thread::yield_now();
                self.copy_one(&replica);
            }
            self.read_replica(&replica.copied());
        }
    }

    fn copy_one(&self, replica: &MemoryStore) {
        let names = self.world.truth.names();
        let name = self.world.draw(|random| names[random.index(names.len())].clone());
        if let Ok(bytes) = self.world.truth.get(&name, None) {
            replica.overwrite(&name, &bytes);
        }
        let copied = replica.names();
        let name = self.world.draw(|random| copied[random.index(copied.len())].clone());
        if names.binary_search(&name).is_err() {
            replica.delete(&name).expect("memory does not fail");
        }
    }

    /// A restore from whatever subset gives what was backed up, or fails.
    fn read_replica(&self, replica: &MemoryStore) {
        let Ok(repository) = Repository::open(replica, crate::PASSWORD) else { return };
        let Ok(list) = snapshots::list(&repository, None) else { return };
        for snapshot in &list.snapshots {
            match self.oracle.restore(&self.world, &repository, snapshot) {
                Ok(()) => self.world.reach("a replica had a whole snapshot"),
                Err(_) => self.world.reach("a replica had a part of a snapshot"),
            }
        }
    }
}

pub fn choose<'l, T>(random: &mut Random, list: &'l [T]) -> Option<&'l T> {
    (!list.is_empty()).then(|| &list[random.index(list.len())])
}
