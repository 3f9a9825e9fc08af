//! Who copies restore points to another store.

use crate::actors::{Simulation, told};
use crate::client::Client;
use crate::faults::Kind;
use crate::random::Random;
use crate::rights::Role;
use crate::world::Site;
use keepstone_engine::observer::Quiet;
use keepstone_engine::replicate::{
    Deletions, Place, Preparing, ReplicateJob, ReplicateReport, Route, Taking, There, prepare, replicate,
    whole_at,
};
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::{EngineError, Entropy, Repository, barrier};
use repo_format::{ReplicaName, SessionId, WriterId};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

/// The name under which the copy is registered.
const REPLICA: &str = "west";

/// How restore points are copied.
#[derive(Clone)]
struct Copying {
    vms: Vec<String>,
    last: Option<usize>,
    there: There,
    deletions: Deletions,
    jobs: NonZeroUsize,
    /// Whether the source is told what is whole at the copy, if it is registered.
    confirms: bool,
    time: u64,
    seed: [u8; 32],
}

pub fn replica_name() -> ReplicaName {
    ReplicaName::new(REPLICA).expect("a replica's name")
}

impl Simulation {
    /// Registers the copy: the source keeps what it packed again until that is confirmed there.
    pub fn register(&self) -> Result<(), EngineError> {
        let client = Client::new(&self.world, self.safe_process(Role::Retention));
        let repository = Repository::open(&client, crate::PASSWORD)?;
        let key = unlock_retention(&repository, crate::PASSWORD)?;
        let entropy = Entropy::new(self.world.draw(Random::bytes32));
        let time = self.world.now();
        barrier::register(&repository, &key, (&replica_name(), "the copy"), time, &entropy)?;
        Ok(())
    }

    /// Copies again and again.
    pub fn replicator(&self, times: u64) {
        let mut offset = 0;
        for _ in 0..times {
            self.pause();
            let copying = self.choose_copying(self.clock(&mut offset));
            let role = role_of(&copying);
            if self.world.draw(|random| random.chance(self.scenario.twins)) {
                self.world.note_fault(Kind::Twin);
                let answers = self.world.draw(|random| u32::try_from(random.below(60)).expect("few"));
                let first = Client::new(&self.world, self.process(role).copied_after(answers));
                self.copy_and_note(&first, &copying);
                let second = Client::new(&self.world, first.process.twin(&self.world));
                self.copy_and_note(&second, &copying);
                self.world.reach("a replicator was resumed twice");
            } else {
                self.copy_and_note(&Client::new(&self.world, self.process(role)), &copying);
            }
            self.check_states();
        }
    }

    fn choose_copying(&self, time: u64) -> Copying {
        let vms = self.scenario.vms;
        self.world.draw(|random| Copying {
            vms: (0..vms).filter(|_| random.one_in(6)).map(|vm| format!("vm{vm}")).collect(),
            last: random.one_in(4).then(|| 1 + random.index(2)),
            there: if random.one_in(4) { There::Checked } else { There::Whole },
            deletions: if random.one_in(2) { Deletions::Followed } else { Deletions::Kept },
            jobs: if random.one_in(4) { NonZeroUsize::MIN.saturating_add(2) } else { NonZeroUsize::MIN },
            confirms: random.one_in(2),
            time,
            seed: random.bytes32(),
        })
    }

    fn copy_and_note(&self, client: &Client, copying: &Copying) {
        let gone = self.world.inner().states.gone;
        let result = self.copy(client, copying);
        let is_undisturbed = client.process.is_untouched() && self.is_honest();
        let is_same = gone == self.world.inner().states.gone;
        match result {
            Ok(report) => {
                self.note_copying(&report);
                if !report.failed.is_empty() && is_undisturbed && is_same {
                    self.world.violated(&format!("copying failed for nothing: {:?}", report.failed));
                }
                if is_undisturbed && !report.ignored.is_empty() {
                    self.world.violated(&format!("copying ignored what is sound: {:?}", report.ignored));
                }
            }
            Err(error) if is_undisturbed => {
                self.world.violated(&format!("copying failed for nothing: {}", told(&error)));
            }
            Err(_) => self.world.reach("copying failed"),
        }
    }

    fn note_copying(&self, report: &ReplicateReport) {
        self.world.reach("copying went as far as it could");
        let happened = [
            (report.snapshots.copied > 0, "restore points were copied"),
            (report.snapshots.there > 0 && report.snapshots.copied > 0, "newer restore points were copied"),
            (report.repacks > 0, "what was packed again was copied"),
            (report.deleted.packs.count > 0, "packs were deleted at the copy"),
            (report.deleted.snapshots > 0, "forgotten restore points were deleted at the copy"),
            (!report.failed.is_empty(), "a restore point could not be copied"),
        ];
        for (_, what) in happened.iter().filter(|(has, _)| *has) {
            self.world.reach(what);
        }
    }

    /// Copies everything when nothing goes wrong any more.
    pub fn copy_at_last(&self) -> Result<(), EngineError> {
        let copying = Copying {
            vms: Vec::new(),
            last: None,
            deletions: Deletions::Followed,
            confirms: true,
            ..self.choose_copying(self.world.now())
        };
        let client = Client::new(&self.world, self.safe_process(role_of(&copying)));
        let report = self.copy(&client, &copying)?;
        self.note_copying(&report);
        if !report.failed.is_empty() || !report.ignored.is_empty() {
            self.world.violated(&format!("in the end, not all was copied: {report:?}"));
        }
        Ok(())
    }

    fn copy(&self, client: &Client, copying: &Copying) -> Result<ReplicateReport, EngineError> {
        let source = Repository::open(client, crate::PASSWORD)?;
        let confirmed = if copying.confirms { confirmed(&source)? } else { None };
        let entropy = Entropy::new(copying.seed);
        let there = client.at(Site::Copy);
        let preparing = Preparing::Made { told: "the source", time: copying.time };
        let place = prepare(&source, &there, Taking::OwnReplica, preparing, &entropy)?;
        let Place::Ready(destination) = place else { unreachable!("it was to be made ready") };
        let job = ReplicateJob {
            vms: &copying.vms,
            last: copying.last,
            there: copying.there,
            deletions: copying.deletions,
            jobs: copying.jobs,
        };
        let report = replicate(&source, &destination, Route::ThroughHost, &job, &Quiet)?;
        if let Some(confirmed) = confirmed {
            let key = unlock_retention(&source, crate::PASSWORD)?;
            let whole = whole_at(&source, &destination, &confirmed)?;
            let told = (&replica_name(), &whole);
            let new = barrier::confirm(&source, &key, told, copying.time, &entropy)?;
            if new > 0 {
                self.world.reach("it was confirmed what is whole at the copy");
            }
        }
        Ok(report)
    }
}

/// What is confirmed of the copy, if it is registered.
pub fn confirmed(source: &Repository<'_>) -> Result<Option<BTreeSet<(SessionId, WriterId)>>, EngineError> {
    let registered = barrier::list(source)?.registered;
    let found = registered.into_iter().find(|replica| replica.name == replica_name());
    Ok(found.map(|replica| replica.confirmed))
}

fn role_of(copying: &Copying) -> Role {
    match copying.deletions {
        Deletions::Kept => Role::Replicator,
        Deletions::Followed => Role::Follower,
    }
}
