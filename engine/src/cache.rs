//! A cache in which each value is loaded by one thread, and waited for by all others that want it.

mod lru;

use crate::error::EngineError;
use crate::frames::lock;
use crate::threads::{self, Condvar};
use lru::Lru;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a value could not be loaded, for all that waited for it.
pub(crate) type Shared = Arc<EngineError>;

/// Values of a bounded weight, and those that are being loaded. Its lock is held for a look only.
pub(crate) struct Cache<K, V> {
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    kept: Lru<K, V>,
    flights: HashMap<K, Arc<Flight<V>>>,
}

/// A value that somebody is loading.
pub(crate) struct Flight<V> {
    outcome: threads::Mutex<Outcome<V>>,
    settled: Condvar,
}

enum Outcome<V> {
    Open,
    Settled(Result<V, Shared>),
    /// Whoever loaded it did not come to an end.
    GivenUp,
}

/// What is known of a value.
pub(crate) enum Found<'c, K: Clone + Eq + Hash, V: Clone> {
    Here(V),
    /// Somebody else loads it.
    Awaited(Arc<Flight<V>>),
    /// The caller is to load it.
    Claimed(Claim<'c, K, V>),
}

/// The right to load a value, for which others wait. Dropped without an outcome, it is somebody else's.
pub(crate) struct Claim<'c, K: Clone + Eq + Hash, V: Clone> {
    cache: &'c Cache<K, V>,
    key: K,
    flight: Arc<Flight<V>>,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    pub(crate) fn new(weight_max: u64) -> Self {
        Self { state: Mutex::new(State { kept: Lru::new(weight_max), flights: HashMap::new() }) }
    }

    /// A value that is here.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        lock(&self.state).kept.get(key)
    }

    /// Forgets a value, so that it is loaded anew.
    pub(crate) fn forget(&self, key: &K) {
        lock(&self.state).kept.remove(key);
    }

    pub(crate) fn find(&self, key: &K) -> Found<'_, K, V> {
        let mut state = lock(&self.state);
        if let Some(value) = state.kept.get(key) {
            return Found::Here(value);
        }
        if let Some(flight) = state.flights.get(key) {
            return Found::Awaited(Arc::clone(flight));
        }
        Found::Claimed(self.claim(&mut state, key))
    }

    /// Claims a value that is neither here nor being loaded.
    pub(crate) fn claim_absent(&self, key: &K) -> Option<Claim<'_, K, V>> {
        let mut state = lock(&self.state);
        let is_known = state.kept.contains(key) || state.flights.contains_key(key);
        (!is_known).then(|| self.claim(&mut state, key))
    }

    fn claim(&self, state: &mut State<K, V>, key: &K) -> Claim<'_, K, V> {
        let flight =
            Arc::new(Flight { outcome: threads::Mutex::new(Outcome::Open), settled: Condvar::new() });
        state.flights.insert(key.clone(), Arc::clone(&flight));
        Claim { cache: self, key: key.clone(), flight }
    }
}

impl<V: Clone> Flight<V> {
    /// Waits for the outcome; nothing if whoever loaded it gave up.
    pub(crate) fn wait(&self) -> Option<Result<V, Shared>> {
        let is_open = |outcome: &mut Outcome<V>| matches!(outcome, Outcome::Open);
        let outcome = self.settled.wait_while(threads::lock(&self.outcome), is_open);
        match &*outcome.unwrap_or_else(PoisonError::into_inner) {
            Outcome::Settled(outcome) => Some(outcome.clone()),
            Outcome::Open | Outcome::GivenUp => None,
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Claim<'_, K, V> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// What others wait for.
    pub(crate) fn flight(&self) -> Arc<Flight<V>> {
        Arc::clone(&self.flight)
    }

    /// Tells the outcome to all that wait. A value with a weight is kept.
    pub(crate) fn settle(self, outcome: Result<V, Shared>, weight: Option<u64>) {
        let mut state = lock(&self.cache.state);
        if let (Ok(value), Some(weight)) = (&outcome, weight) {
            state.kept.insert(self.key.clone(), value.clone(), weight);
        }
        state.flights.remove(&self.key);
        drop(state);
        self.flight.finish(Outcome::Settled(outcome));
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Drop for Claim<'_, K, V> {
    fn drop(&mut self) {
        let mut state = lock(&self.cache.state);
        // After it was settled, somebody else may have claimed it anew.
        if state.flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            state.flights.remove(&self.key);
        }
        drop(state);
        self.flight.finish(Outcome::GivenUp);
    }
}

impl<V> Flight<V> {
    fn finish(&self, outcome: Outcome<V>) {
        let mut open = threads::lock(&self.outcome);
        if matches!(*open, Outcome::Open) {
            *open = outcome;
            self.settled.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(cache: &Cache<u8, char>, key: u8) -> Claim<'_, u8, char> {
        match cache.find(&key) {
            Found::Claimed(claim) => claim,
            Found::Here(_) | Found::Awaited(_) => panic!("{key} is known already"),
        }
    }

    fn awaited(cache: &Cache<u8, char>, key: u8) -> Arc<Flight<char>> {
        match cache.find(&key) {
            Found::Awaited(flight) => flight,
            Found::Here(_) | Found::Claimed(_) => panic!("nobody loads {key}"),
        }
    }

    #[test]
    fn all_that_want_a_value_get_what_one_loads() {
        let cache = Cache::new(10);
        let claim = claimed(&cache, 1);
        let flight = awaited(&cache, 1);
        assert!(cache.claim_absent(&1).is_none());
        std::thread::scope(|threads| {
            let waiter = threads.spawn(|| flight.wait());
            claim.settle(Ok('a'), Some(1));
            assert!(matches!(waiter.join().unwrap(), Some(Ok('a'))));
        });
        assert_eq!(cache.get(&1), Some('a'));
    }

    #[test]
    fn a_failure_is_told_to_those_that_wait_and_is_not_kept() {
        let cache = Cache::new(10);
        let claim = claimed(&cache, 1);
        let flight = awaited(&cache, 1);
        claim.settle(Err(Arc::new(EngineError::Cancelled)), Some(1));
        assert!(matches!(flight.wait(), Some(Err(_))));
        claimed(&cache, 1).settle(Ok('b'), None);
        assert_eq!(cache.get(&1), None);
    }

    #[test]
    fn who_gives_up_leaves_it_to_another() {
        let cache = Cache::new(10);
        let claim = claimed(&cache, 1);
        let flight = awaited(&cache, 1);
        drop(claim);
        assert!(flight.wait().is_none());
        claimed(&cache, 1).settle(Ok('c'), Some(1));
        assert_eq!(cache.get(&1), Some('c'));
    }
}
