//! How much memory backups that run at the same time may hold, and how they share it.
//!
//! What a backup holds is counted in two units, as in [`super`]: a *region* on its way through the pipeline (its bytes and
//! their encoded form), and a *pack* that is sealed or put. There are *places*: for each, the least that a backup gets
//! along with is set aside, which is one region, one pack on its way, the open data pack, the open map pack, and a map pack
//! that becomes full together with a data pack. As many places are kept as there are backups still to come or running, as
//! ever run at a time, and as the memory has room for. What is left over is lent, in equal parts to those that have a place:
//! no backup gets more than its part, however much is free.
//!
//! # Nobody waits in a circle
//! A backup waits here in one place only, before it begins to read: for a place. There it holds nothing of the budget.
//! Inside it never waits: what it asks for beyond its least it gets or does not get, and with its least alone it comes to
//! its end. Places are set aside before anything is lent, so a loan never keeps another one from its least: a source that
//! is slow, or stands still, holds the least of one place and its own part of the rest.

use crate::error::EngineError;
use crate::observer::{Event, Observer, tell};
use repo_format::Geometry;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Who waits for a place looks so often whether to stop: those inside may stand still for long.
const STOP_LOOKED_FOR: Duration = Duration::from_millis(200);

/// A map pack of a backup that shares its memory is full at this part of a pack: maps are about a hundredth of the data, so
/// that is a request for each few GiB.
pub(super) const MAP_PACK_PART: u32 = 4;

/// The memory that backups may hold together.
#[derive(Debug)]
pub(super) struct Budget {
    units: Units,
    /// No more backups than that run at a time.
    at_a_time: usize,
    state: Mutex<State>,
    /// When somebody has left a place.
    left: Condvar,
}

/// What is counted, in bytes.
#[derive(Clone, Copy, Debug)]
struct Units {
    total: u64,
    /// What one place sets aside.
    least: u64,
    region: u64,
    pack: u64,
}

#[derive(Debug)]
struct State {
    /// Backups that run or may still come.
    expected: usize,
    inside: usize,
    /// Lent to those inside.
    lent: u64,
    /// The most that was ever set aside for those inside and lent.
    peak: u64,
}

impl Budget {
    /// One backup has all that it can use.
    pub(super) fn unlimited() -> Self {
        let units = Units { total: u64::MAX, least: 0, region: 0, pack: 0 };
        Self::new(units, 1, 1)
    }

    /// For so many backups of a repository, of which `at_a_time` run at a time. They hold at most about `memory_bytes`
    /// together, or what one needs at least if that is more.
    pub(super) fn shared(geometry: &Geometry, memory_bytes: u64, backups: usize, at_a_time: usize) -> Self {
        let (region, pack, least) = (region_bytes(geometry), geometry.pack_len.into(), least_bytes(geometry));
        Self::new(Units { total: memory_bytes.max(least), least, region, pack }, backups, at_a_time)
    }

    fn new(units: Units, backups: usize, at_a_time: usize) -> Self {
        let state = State { expected: backups, inside: 0, lent: 0, peak: 0 };
        Self { units, at_a_time, state: Mutex::new(state), left: Condvar::new() }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.units.least > 0
    }

    /// Waits for a place, until the observer wants to stop.
    pub(super) fn enter(&self, observer: &dyn Observer) -> Result<Share<'_>, EngineError> {
        let mut state = self.state();
        while state.inside > 0 && state.inside >= self.places(&state) {
            drop(state);
            tell(observer, Event::Progress(0))?;
            state = self.state();
            // Who left meanwhile is not waited for.
            let is_full = |state: &mut State| state.inside > 0 && state.inside >= self.places(state);
            let waited = self.left.wait_timeout_while(state, STOP_LOOKED_FOR, is_full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.inside += 1;
        self.note_peak(&mut state);
        Ok(Share { budget: self, regions: 0, packs: 1 })
    }

    /// Notes that one of the backups has ended, or will not come.
    pub(super) fn one_ended(&self) {
        let mut state = self.state();
        state.expected = state.expected.saturating_sub(1);
    }

    /// The most bytes that were ever held, as they are counted here.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.state().peak
    }

    /// How many backups can have a place at a time, of those that are expected.
    fn places(&self, state: &State) -> usize {
        let room = self.units.total.checked_div(self.units.least).unwrap_or(u64::MAX);
        state.expected.min(self.at_a_time).max(state.inside).min(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Lends `bytes` to a backup that has borrowed `borrowed` of the same kind: regions or packs, each up to half of its part.
    fn lend(&self, bytes: u64, borrowed: u64) -> bool {
        let mut state = self.state();
        let set_aside = self.units.least.saturating_mul(self.places(&state) as u64);
        let rest = self.units.total.saturating_sub(set_aside);
        let part = rest / state.inside.max(1) as u64;
        let is_there = borrowed + bytes <= part / 2 && state.lent + bytes <= rest;
        if is_there {
            state.lent += bytes;
            self.note_peak(&mut state);
        }
        is_there
    }

    fn take_back(&self, bytes: u64) {
        self.state().lent -= bytes;
    }

    fn note_peak(&self, state: &mut State) {
        state.peak = state.peak.max(self.units.least * state.inside as u64 + state.lent);
    }

    // A panic elsewhere cannot leave the counts half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a backup that shares its memory gets along with.
pub(super) fn least_bytes(geometry: &Geometry) -> u64 {
    let pack = u64::from(geometry.pack_len);
    region_bytes(geometry) + 2 * pack + 2 * (pack / u64::from(MAP_PACK_PART))
}

/// What a region takes on its way: its bytes and their encoded form.
pub(super) fn region_bytes(geometry: &Geometry) -> u64 {
    2 * u64::from(geometry.region_len)
}

/// What one running backup has of a budget. All of it goes back when it is dropped.
pub(super) struct Share<'b> {
    budget: &'b Budget,
    /// Regions on their way; the first one is its own.
    regions: usize,
    /// Packs that may be on their way; the first one is its own.
    packs: usize,
}

impl Share<'_> {
    /// Whether there is room for one more region, which is taken then; never for more than `most`.
    pub(super) fn take_region(&mut self, most: usize) -> bool {
        let is_there = self.regions < most
            && (self.regions == 0 || self.borrow(self.budget.units.region, self.regions - 1));
        self.regions += usize::from(is_there);
        is_there
    }

    /// Gives back what a region took.
    pub(super) fn give_region(&mut self) {
        self.regions -= 1;
        if self.regions > 0 {
            self.budget.take_back(self.budget.units.region);
        }
    }

    /// Whether, with so many packs on their way, there is room for one more; never for more than `most`.
    pub(super) fn has_room_for_pack(&mut self, in_flight: usize, most: usize) -> bool {
        if in_flight < self.packs {
            return true;
        }
        let is_there = in_flight < most && self.borrow(self.budget.units.pack, self.packs - 1);
        self.packs += usize::from(is_there);
        in_flight < self.packs
    }

    /// Gives back what packs took that have arrived, when so many are still on their way.
    pub(super) fn packs_left(&mut self, in_flight: usize) {
        while self.packs > in_flight.max(1) {
            self.packs -= 1;
            self.budget.take_back(self.budget.units.pack);
        }
    }

    fn borrow(&self, unit: u64, borrowed: usize) -> bool {
        self.budget.lend(unit, unit * borrowed as u64)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.packs_left(0);
        while self.regions > 0 {
            self.give_region();
        }
        self.budget.state().inside -= 1;
        self.budget.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Quiet;
    use std::ops::ControlFlow;

    /// Regions of 2 and packs of 4 bytes, so the least is 12.
    fn budget(total: u64, backups: usize) -> Budget {
        Budget::new(Units { total, least: 12, region: 2, pack: 4 }, backups, backups)
    }

    fn enter(budget: &Budget) -> Share<'_> {
        budget.enter(&Quiet).unwrap()
    }

    struct Stopped;

    impl Observer for Stopped {
        fn observe(&self, _: Event) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }

    fn regions(share: &mut Share<'_>) -> usize {
        (0..9).take_while(|_| share.take_region(5)).count()
    }

    #[test]
    fn the_least_is_a_region_and_the_packs_that_it_may_fill() {
        let geometry = Geometry::default();
        let mib = |count: u64| count << 20;
        let (region, pack, map) = (mib(32), mib(32), mib(8));
        assert_eq!(Budget::shared(&geometry, 0, 1, 1).units.total, region + 2 * pack + 2 * map);
    }

    #[test]
    fn one_backup_alone_has_all_that_it_wants() {
        for budget in [Budget::unlimited(), budget(100, 1)] {
            let mut share = enter(&budget);
            assert_eq!(regions(&mut share), 5);
            let packs: Vec<bool> = (0..5).map(|in_flight| share.has_room_for_pack(in_flight, 4)).collect();
            assert_eq!(packs, [true, true, true, true, false]);
        }
    }

    #[test]
    fn what_is_set_aside_for_others_is_not_lent() {
        let budget = budget(3 * 12 + 7, 3);
        let mut share = enter(&budget);
        // Half of 7 for each kind.
        assert_eq!((regions(&mut share), share.has_room_for_pack(1, 4)), (2, false));
        budget.one_ended();
        // Half of 19.
        assert_eq!((regions(&mut share), share.has_room_for_pack(1, 4)), (3, true));
        assert!(share.has_room_for_pack(2, 4) && !share.has_room_for_pack(3, 4));
        assert_eq!(budget.peak_bytes(), 12 + 4 * 2 + 2 * 4);
    }

    #[test]
    fn nothing_is_set_aside_for_those_that_wait_for_others_to_end() {
        let budget = Budget::new(Units { total: 2 * 12 + 16, least: 12, region: 2, pack: 4 }, 40, 1);
        for _ in 0..39 {
            let mut share = enter(&budget);
            // Its own, and half of 28, but no more than it wants.
            assert_eq!((regions(&mut share), share.has_room_for_pack(1, 4)), (5, true));
            drop(share);
            budget.one_ended();
        }
        let _first = enter(&budget);
        assert!(matches!(budget.enter(&Stopped), Err(EngineError::Cancelled)), "a second place");
    }

    #[test]
    fn who_waits_for_a_place_can_be_stopped() {
        let budget = budget(12, 2);
        let first = enter(&budget);
        assert!(matches!(budget.enter(&Stopped), Err(EngineError::Cancelled)));
        assert_eq!(budget.state().inside, 1);
        drop(first);
        assert_eq!(regions(&mut enter(&budget)), 1);
    }

    #[test]
    fn the_rest_is_lent_in_equal_parts_and_comes_back() {
        let budget = budget(2 * 12 + 16, 2);
        let mut first = enter(&budget);
        assert_eq!(regions(&mut first), 5);
        let mut second = enter(&budget);
        assert_eq!(regions(&mut second), 3);
        first.give_region();
        assert!(!first.take_region(5), "it has more than its part");
        (0..2).for_each(|_| first.give_region());
        assert!(first.take_region(5));
        drop(first);
        assert_eq!(budget.state().lent, 2 * 2);
        assert_eq!(regions(&mut second), 2);
        drop(second);
        let state = budget.state();
        assert_eq!((state.lent, state.inside), (0, 0));
    }

    #[test]
    fn packs_that_have_arrived_give_back_what_they_took() {
        let budget = budget(12 + 24, 1);
        let mut share = enter(&budget);
        assert!((0..4).all(|in_flight| share.has_room_for_pack(in_flight, 8)));
        assert!(!share.has_room_for_pack(4, 8));
        share.packs_left(3);
        assert_eq!(budget.state().lent, 2 * 4);
        share.packs_left(0);
        assert_eq!(budget.state().lent, 0);
        assert!(share.has_room_for_pack(0, 8), "its own");
    }
}
