//! What must hold in a promoted place while blobs of the lost source arrive late.

use crate::actors::{Simulation, told};
use crate::client::Client;
use crate::late::{Late, Seen, generation_of, seen_in, was_made_here, without_record};
use crate::random::Random;
use crate::rights::Role;
use crate::world::Site;
use keepstone_engine::lineage::{Standing, standing};
use keepstone_engine::observer::Quiet;
use keepstone_engine::promotion::{PromoteJob, declare_other_side_gone};
use keepstone_engine::replica::{Doubt, each};
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::snapshots::{Query, Snapshot};
use keepstone_engine::store::Put;
use keepstone_engine::verify::{Finding, FindingKind};
use keepstone_engine::{EngineError, Entropy, Repository};
use repo_format::{BlobKind, BlobName, SessionId};
use std::collections::BTreeSet;

impl Simulation {
    /// Lets blobs arrive now and then, until somebody declares that the source is gone, and after it.
    pub fn arrivals(&self) {
        let Some(late) = &self.late else { return };
        let bursts = 1 + self.world.draw(|random| random.index(8));
        let declared = self.world.draw(|random| random.index(bursts + 1));
        for (number, burst) in late.arriving.chunks(late.arriving.len().div_ceil(bursts).max(1)).enumerate() {
            if number > 0 {
                self.pause();
            }
            if number == declared {
                self.declare(late);
            }
            for (name, bytes) in burst {
                shuttle::thread::yield_now();
                self.world.tick();
                self.arrive(late, name, bytes);
            }
            self.look_at_late(late);
        }
        if !late.is_declared() {
            self.pause();
            self.declare(late);
        }
    }

    fn declare(&self, late: &Late) {
        let client = Client::new(&self.world, self.safe_process(Role::Retention));
        let declare = || {
            let repository = Repository::open(&client, crate::PASSWORD)?;
            let key = unlock_retention(&repository, crate::PASSWORD)?;
            let entropy = Entropy::new(self.world.draw(Random::bytes32));
            let job = PromoteJob { time: self.world.now(), program: "simulation", entropy: &entropy };
            declare_other_side_gone(&repository, &key, &job)?;
            standing(&repository)
        };
        // Whoever prunes from now on may not be refused, and who did before may.
        match declare() {
            Ok(Standing::Promoted(promoted)) => {
                late.progress().first_generation = Some(promoted.first_generation);
            }
            Ok(standing) => self.world.violated(&format!("a promoted place is {standing:?}")),
            Err(error) => self.world.violated(&format!("the source cannot be given up: {}", told(&error))),
        }
    }

    /// One blob arrives, unless its name is taken, or it is of a generation of the source that nobody knew of when it was
    /// given up: such a one would be taken for this place's own.
    fn arrive(&self, late: &Late, name: &BlobName, bytes: &[u8]) {
        let first_generation = late.progress().first_generation;
        if first_generation.zip(generation_of(name)).is_some_and(|(first, number)| number >= first) {
            return;
        }
        if let Some(BlobKind::Tombstone { session, .. }) = name.kind() {
            self.world.inner().forgotten.insert(session);
        }
        // What it was is noted first: who sees it knows why.
        late.progress().arrived.insert(name.clone());
        let put = self.world.create(Site::Source, name, bytes, false);
        self.world.note("late", "arrives", name.as_str(), &format!("{put:?}"));
        match name.kind() {
            _ if put != Put::Created => self.world.reach("a name was taken before its blob arrived late"),
            Some(BlobKind::Decision(_)) => self.look_at_late(late),
            Some(BlobKind::Repack(_)) => self.world.reach("a record arrived late"),
            Some(BlobKind::Tombstone { .. }) => self.world.reach("a tombstone arrived late"),
            Some(_) if generation_of(name).is_some() => self.world.reach("a generation arrived late"),
            _ => {}
        }
    }

    /// Notes what is whole by now.
    pub fn look_at_late(&self, late: &Late) {
        if let Err(error) = self.note_late(late) {
            self.world.violated(&format!("what is there cannot be read: {}", told(&error)));
        }
    }

    fn note_late(&self, late: &Late) -> Result<(), EngineError> {
        let seen = self.seen_now()?;
        let incomplete = self.incomplete_of(late, &seen);
        let mut progress = late.progress();
        for session in seen.iter().map(|seen| seen.snapshot.session()) {
            if incomplete.contains(&session) {
                if progress.parts.insert(session) {
                    self.world.reach("a restore point arrived late in part");
                }
            } else if progress.parts.contains(&session) && progress.became_whole.insert(session) {
                self.world.reach("a restore point that arrived late became whole");
            }
        }
        Ok(())
    }

    /// All restore points as they are now, and what they lack.
    pub fn seen_now(&self) -> Result<Vec<Seen>, EngineError> {
        seen_in(&self.world.truth.copied())
    }

    /// What is not whole now. That is nothing but what arrived late.
    pub fn incomplete(&self) -> Result<BTreeSet<SessionId>, EngineError> {
        let Some(late) = &self.late else { return Ok(BTreeSet::new()) };
        Ok(self.incomplete_of(late, &self.seen_now()?))
    }

    fn incomplete_of(&self, late: &Late, seen: &[Seen]) -> BTreeSet<SessionId> {
        let mut incomplete = BTreeSet::new();
        for Seen { snapshot, missing } in seen {
            let Some(missing) = missing else { continue };
            let session = snapshot.session();
            if was_made_here(snapshot) || !late.is_of(&session.to_string()) {
                self.world.violated(&format!("snapshot {session} did not arrive late and lacks {missing}"));
            } else {
                incomplete.insert(session);
            }
        }
        incomplete
    }

    /// What was made is whole, and was built on what is whole. `gone` blobs were deleted before it was begun: what was deleted
    /// since, the parent need not have lacked then.
    pub fn check_made(&self, made: SessionId, gone: u64) {
        let Some(late) = &self.late else { return };
        match self.seen_now() {
            Ok(seen) => self.check_made_in(late, &seen, (made, gone)),
            Err(error) => self.world.violated(&format!("what is there cannot be read: {}", told(&error))),
        }
    }

    fn check_made_in(&self, late: &Late, seen: &[Seen], (made, gone): (SessionId, u64)) {
        let find = |session| seen.iter().find(|seen: &&Seen| seen.snapshot.session() == session);
        let Some(Seen { snapshot, missing }) = find(made) else { return };
        if let Some(missing) = missing {
            self.world.violated(&format!("snapshot {made} was made and lacks {missing}"));
        }
        let parent = snapshot.commit.parent.as_ref();
        let is_above = |other: &Snapshot| {
            other.name.vm == snapshot.name.vm && parent.is_none_or(|parent| other.name.seq > parent.seq)
        };
        if seen.iter().any(|seen| seen.missing.is_some() && is_above(&seen.snapshot)) {
            self.world.reach("a backup passed over what is not whole");
        }
        let Some(Seen { snapshot: parent, missing }) = parent.and_then(|parent| find(parent.session)) else {
            return;
        };
        if !was_made_here(parent) && late.is_of(&parent.session().to_string()) {
            self.world.reach("a backup was built on what arrived late");
        }
        if let Some(missing) = missing
            && gone == self.world.inner().states.gone
        {
            let parent = parent.session();
            self.world.violated(&format!("snapshot {made} was built on {parent}, which lacks {missing}"));
        }
    }

    /// What a place offers: where restore points arrived late, those that are whole.
    pub fn offered(
        &self,
        repository: &Repository<'_>,
        list: Vec<Snapshot>,
    ) -> Result<Vec<Snapshot>, EngineError> {
        if self.late.is_none() {
            return Ok(list);
        }
        let (mut offered, doubt) = (Vec::new(), Doubt::from(standing(repository)?));
        let found = each(repository, (&doubt, &Query::default()), &Quiet, &mut |point| {
            if point.whole.is_whole() {
                offered.push(point.snapshot);
            }
        })?;
        if !found.unreadable.is_empty() {
            return Ok(Vec::new());
        }
        offered.sort_by_key(|snapshot| snapshot.name.clone());
        Ok(offered)
    }

    /// Whether a restore point arrived late, so that prunes that looked before delete what it needs.
    pub fn may_go(&self, session: SessionId) -> bool {
        self.late.as_ref().is_some_and(|late| late.is_of(&session.to_string()))
    }

    /// Whether a finding is about nothing but what arrived late: of restore points only those of which that is true, of
    /// other blobs only such of sessions that arrived late.
    pub fn is_of_late(&self, finding: &Finding, may_lack: &dyn Fn(&str) -> bool) -> bool {
        let Some(late) = &self.late else { return false };
        let is_of_late =
            if finding.kind == FindingKind::MissingIndex && late.unindexed.contains(&finding.blob) {
                true
            } else if finding.affected.is_empty() {
                late.sessions().iter().any(|session| finding.blob.contains(session))
            } else {
                finding
                    .affected
                    .iter()
                    .all(|affected| late.is_of(&affected.snapshot) && may_lack(&affected.snapshot))
            };
        if is_of_late {
            self.world.reach("a verification missed what had not arrived");
        }
        is_of_late
    }

    /// Tells whether packs that arrived late are gone again.
    pub fn note_pruned(&self) {
        let Some(late) = &self.late else { return };
        let names: BTreeSet<BlobName> = self.world.truth.names().into_iter().collect();
        let progress = late.progress();
        let mut gone = progress.arrived.difference(&names);
        if gone.any(|name| matches!(name.kind(), Some(BlobKind::Pack(_)))) {
            self.world.reach("a prune deleted what arrived late");
        }
    }

    /// Packs of sessions that arrived late and that nobody may delete.
    pub fn unexplained(&self) -> Result<BTreeSet<BlobName>, EngineError> {
        let Some(late) = &self.late else { return Ok(BTreeSet::new()) };
        let repository = Repository::open(&self.world.truth, crate::PASSWORD)?;
        let names = self.world.truth.names();
        Ok(late.unexplained(&names, &without_record(&repository, &names)?))
    }

    /// What was whole before is, unless it was forgotten: `whole` is that, and becomes what is whole now.
    pub fn check_whole(&self, whole: &mut BTreeSet<SessionId>) -> Result<(), EngineError> {
        let of_now = self.seen_now()?.into_iter().filter(|seen| seen.missing.is_none());
        let now: BTreeSet<SessionId> = of_now.map(|seen| seen.snapshot.session()).collect();
        let forgotten = self.world.inner().forgotten.clone();
        for session in whole.iter().filter(|session| !now.contains(session) && !forgotten.contains(session)) {
            self.world.violated(&format!("snapshot {session} was whole, and a prune destroyed it"));
        }
        *whole = now;
        Ok(())
    }

    /// Whether a prune could only fail: nobody has declared that the source is gone, or the map of a restore point that
    /// arrived late has not arrived.
    pub fn refuses(&self, error: &EngineError, was_declared: bool) -> bool {
        let Some(late) = &self.late else { return false };
        match error {
            EngineError::OtherSideMayBeThere if !was_declared => {
                self.world.reach("a prune refused, as the source might be there");
                true
            }
            EngineError::CannotMark { .. } if !late.progress().parts.is_empty() => {
                self.world.reach("a prune stopped at a map that had not arrived");
                true
            }
            _ => false,
        }
    }
}
