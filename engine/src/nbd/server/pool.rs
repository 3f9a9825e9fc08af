//! The threads that do what one client asks for, and what of it may be in memory.

use crate::frames::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{Builder, Scope};

/// Requests of one client that are done at a time.
pub const WORKERS_MAX: usize = 16;
/// Requests of one client that are being done or wait for that.
const REQUESTS_MAX: usize = 64;
/// What of the requests of one client and their replies is in memory: the longest that there may be.
const BYTES_IN_FLIGHT: u64 = super::handshake::BLOCK_MAX as u64;

/// Tasks, and threads that do them; these are started when they are needed.
pub(super) struct Pool<T> {
    state: Mutex<State<T>>,
    /// There is a task, or there will be no more.
    task: Condvar,
    /// There is room for more.
    room: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    workers: usize,
    idle: usize,
    requests: usize,
    bytes: u64,
    is_complete: bool,
}

impl<T: Send> Pool<T> {
    pub(super) fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            workers: 0,
            idle: 0,
            requests: 0,
            bytes: 0,
            is_complete: false,
        };
        Self { state: Mutex::new(state), task: Condvar::new(), room: Condvar::new() }
    }

    /// Waits until a request with so many bytes may be in memory, at most [`BYTES_IN_FLIGHT`].
    pub(super) fn reserve(&self, bytes: u64) -> Room<'_, T> {
        let bytes = bytes.min(BYTES_IN_FLIGHT);
        let is_full =
            |state: &mut State<T>| state.bytes + bytes > BYTES_IN_FLIGHT || state.requests == REQUESTS_MAX;
        let state = self.room.wait_while(lock(&self.state), is_full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.bytes += bytes;
        state.requests += 1;
        drop(state);
        Room { pool: self, bytes }
    }

    /// Has a task done by a thread of `scope`.
    pub(super) fn submit<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        task: T,
        work: impl Fn(T) + Copy + Send + 'scope,
    ) {
        let mut state = lock(&self.state);
        state.waiting.push_back(task);
        if state.idle < state.waiting.len() && state.workers < WORKERS_MAX {
            state.workers += 1;
            drop(state);
            let started = Builder::new().spawn_scoped(scope, move || {
                while let Some(task) = self.next() {
                    work(task);
                }
            });
            if started.is_err() {
                self.do_without_another(work);
            }
        } else {
            drop(state);
            self.task.notify_one();
        }
    }

    /// Has what waits done by the threads that there are, or by this one: the system has no more.
    fn do_without_another(&self, work: impl Fn(T)) {
        let mut state = lock(&self.state);
        state.workers -= 1;
        let task = if state.workers == 0 { state.waiting.pop_front() } else { None };
        drop(state);
        self.task.notify_one();
        task.into_iter().for_each(work);
    }

    fn next(&self) -> Option<T> {
        let mut state = lock(&self.state);
        state.idle += 1;
        let has_none = |state: &mut State<T>| state.waiting.is_empty() && !state.is_complete;
        let mut state = self.task.wait_while(state, has_none).unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state.waiting.pop_front()
    }

    /// Says that no more tasks come: what waits is done, and the threads end.
    pub(super) fn complete(&self) {
        lock(&self.state).is_complete = true;
        self.task.notify_all();
    }
}

/// Room that a request has, until it is answered.
pub(super) struct Room<'p, T> {
    pool: &'p Pool<T>,
    bytes: u64,
}

impl<T> Drop for Room<'_, T> {
    fn drop(&mut self) {
        let mut state = lock(&self.pool.state);
        state.bytes -= self.bytes;
        state.requests -= 1;
        self.pool.room.notify_all();
    }
}
