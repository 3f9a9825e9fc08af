//! What threads that restore hand over to those that write, and what they know of each other.

use super::held::{Blocks, Divided, Edge, Edges, Held, Piece, divide, zeros};
use super::records::{RECORDS_MAX, Record, Records};
use crate::frames::lock;
use crate::nbd::{Closer, NbdError};
use crate::target::TargetError;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait to be written, at most. Half of it may be cells that are not complete.
const HELD_LEN: u64 = 32 << 20;
/// Bytes of blocks in part, from which on they are completed by reading.
const EDGES_LEN: u64 = 8 << 20;
/// Blocks in part that are read and written at once, of at most 64 KiB.
const EDGES_AT_ONCE: usize = 64;
/// Requests to make zero that wait, at most.
const READY_MAX: usize = 1024;

/// Everything that waits, with who waits for what.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to do for those who write.
    work: Condvar,
    /// There is room again, or something was completed, for those who restore.
    done: Condvar,
    blocks: Blocks,
    /// The disk's size.
    size: u64,
    /// Otherwise, what is answered is durable.
    can_flush: bool,
}

#[derive(Debug)]
struct State {
    held: Held,
    ready: VecDeque<Piece>,
    edges: Edges,
    /// Threads that have something in hand.
    busy: usize,
    /// Somebody waits until all is written. Nothing is added meanwhile.
    draining: bool,
    task: Option<Task>,
    records: Records,
    /// Since all was durable, a connection was lost, and perhaps with it what the server had taken.
    lost: bool,
    /// The first thread has a connection that is not known to be lost.
    first_is_up: bool,
    closers: Vec<Option<Closer>>,
    ended: Option<Ended>,
}

/// Why nothing is written any more.
#[derive(Debug)]
enum Ended {
    Failed(Arc<NbdError>),
    /// The target is done with.
    Dropped,
}

/// What the first thread does for a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Looks whether all is there that was answered.
    Check,
    Flush,
}

/// Something to do.
#[derive(Debug)]
pub(super) enum Taken {
    Pieces(Vec<Piece>),
    Request(Piece),
    Edges(Vec<Edge>),
    Task(Task),
    /// Not at this time.
    Nothing,
    /// Never again.
    End,
}

/// How a thread stands when it looks for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hands {
    /// It has nothing in hand since now, and waits.
    JustEmpty,
    /// It has had nothing in hand before, and waits.
    Empty,
    /// It has something in hand, and does not wait.
    Full,
}

impl State {
    fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    fn is_drained(&self) -> bool {
        let nothing_waits = self.held.is_empty() && self.ready.is_empty() && self.edges.is_empty();
        nothing_waits && self.busy == 0 && self.task.is_none()
    }

    fn has_room(&self) -> bool {
        let weight = self.held.weight() + self.edges.weight();
        !self.draining && weight < HELD_LEN && self.ready.len() < READY_MAX
    }

    fn must_flush(&self) -> bool {
        self.records.len() >= RECORDS_MAX
    }

    fn has_work(&self) -> bool {
        let crowded = self.held.weight() > HELD_LEN / 2;
        !self.ready.is_empty()
            || self.held.has_complete()
            || crowded
            || self.draining && !self.held.is_empty()
    }

    fn next(&mut self, is_first: bool, hands: Hands) -> Option<Taken> {
        if is_first && (self.edges_are_due() || self.task.is_some()) {
            // They are read and written alone.
            if hands == Hands::Full {
                return None;
            }
            if let Some(task) = self.task {
                return Some(Taken::Task(task));
            }
            return Some(Taken::Edges(self.edges.take(EDGES_AT_ONCE)));
        }
        if let Some(request) = self.ready.pop_front() {
            return Some(Taken::Request(request));
        }
        if let Some(pieces) = self.held.take_complete() {
            return Some(Taken::Pieces(pieces));
        }
        if self.draining || self.held.weight() > HELD_LEN / 2 {
            return self.held.take_oldest().map(Taken::Pieces);
        }
        None
    }

    fn edges_are_due(&self) -> bool {
        let last = self.draining && self.held.is_empty() && self.ready.is_empty();
        self.edges.weight() > EDGES_LEN || last && !self.edges.is_empty()
    }
}

impl Queue {
    pub(super) fn new(blocks: Blocks, size: u64, can_flush: bool, threads: usize) -> Self {
        let state = State {
            held: Held::default(),
            ready: VecDeque::new(),
            edges: Edges::default(),
            busy: 0,
            draining: false,
            task: None,
            records: Records::default(),
            lost: false,
            first_is_up: true,
            closers: std::iter::repeat_with(|| None).take(threads).collect(),
            ended: None,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new(), blocks, size, can_flush }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for what those who write do, or for their failure.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        until: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>, NbdError> {
        let waits = |state: &mut State| !until(state) && !state.is_over();
        let state = self.done.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        match &state.ended {
            Some(Ended::Failed(failure)) => Err(NbdError::Writing(Arc::clone(failure))),
            Some(Ended::Dropped) => unreachable!("nobody calls a target that is being dropped"),
            None => Ok(state),
        }
    }

    /// Adds a piece within a cell when there is room.
    pub(super) fn hold(&self, piece: Piece) -> Result<Result<(), TargetError>, NbdError> {
        let mut state = self.wait(self.lock(), State::has_room)?;
        let added = state.held.add(piece, self.size);
        let (has_work, must_flush) = (state.has_work(), state.must_flush());
        drop(state);
        if has_work {
            self.work.notify_all();
        }
        if must_flush {
            self.flush_if(State::must_flush)?;
        }
        Ok(added)
    }

    /// Adds a request when there is room.
    pub(super) fn request(&self, request: Piece) -> Result<(), NbdError> {
        let mut state = self.wait(self.lock(), State::has_room)?;
        state.ready.push_back(request);
        let must_flush = state.must_flush();
        drop(state);
        self.work.notify_all();
        if must_flush { self.flush_if(State::must_flush) } else { Ok(()) }
    }

    /// Has all written and made durable that was added before.
    pub(super) fn flush(&self) -> Result<(), NbdError> {
        self.flush_if(|_| true)
    }

    fn flush_if(&self, is_due: impl Fn(&State) -> bool) -> Result<(), NbdError> {
        let mut state = self.wait(self.lock(), |state| !state.draining)?;
        if !is_due(&state) {
            return Ok(());
        }
        state.draining = true;
        loop {
            self.work.notify_all();
            state = self.wait(state, State::is_drained)?;
            if std::mem::take(&mut state.lost) {
                let again: Vec<Piece> =
                    state.records.zeros().iter().flat_map(|range| zeros(range.start, range.end())).collect();
                state.ready.extend(again);
                state = self.perform(state, Task::Check)?;
            } else if self.can_flush {
                state = self.perform(state, Task::Flush)?;
                if !state.lost {
                    break;
                }
            } else {
                break;
            }
        }
        state.records.clear();
        state.draining = false;
        self.done.notify_all();
        Ok(())
    }

    fn perform<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        task: Task,
    ) -> Result<MutexGuard<'a, State>, NbdError> {
        state.task = Some(task);
        self.work.notify_all();
        self.wait(state, State::is_drained)
    }

    /// Takes something to do. The first thread does what no other may do at the same time.
    pub(super) fn take(&self, is_first: bool, hands: Hands) -> Taken {
        let mut state = self.lock();
        if hands == Hands::JustEmpty {
            state.busy -= 1;
            if state.is_drained() {
                self.done.notify_all();
            }
        }
        loop {
            if state.is_over() {
                return Taken::End;
            }
            if let Some(taken) = state.next(is_first, hands) {
                if hands != Hands::Full {
                    state.busy += 1;
                }
                drop(state);
                self.done.notify_all();
                return taken;
            }
            if hands == Hands::Full {
                return Taken::Nothing;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until there is something to do that a further connection is worth; false if there will not be.
    pub(super) fn wait_for_work(&self) -> bool {
        let waits = |state: &mut State| !(state.is_over() || state.first_is_up && state.has_work());
        let state = self.work.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        !state.is_over()
    }

    /// Makes requests of pieces, and keeps what is of blocks in part.
    pub(super) fn divide(&self, pieces: &[Piece]) -> VecDeque<Piece> {
        let Divided { mut requests, parts } = divide(pieces, self.blocks);
        if !parts.is_empty() {
            let mut state = self.lock();
            requests.extend(parts.into_iter().filter_map(|part| state.edges.add(part, self.blocks)));
            drop(state);
            self.work.notify_all();
        }
        requests
    }

    pub(super) fn put_back_edges(&self, edges: Vec<Edge>) {
        self.lock().edges.put_back(edges);
    }

    /// Gives to others what a thread had in hand, which has nothing now.
    pub(super) fn give_back(&self, requests: Vec<Piece>) {
        let mut state = self.lock();
        state.busy -= 1;
        state.ready.extend(requests);
        drop(state);
        self.work.notify_all();
    }

    /// A change was answered.
    pub(super) fn record(&self, record: Record, is_first: bool) {
        let mut state = self.lock();
        state.records.add(record);
        if is_first && !state.first_is_up {
            state.first_is_up = true;
            drop(state);
            self.work.notify_all();
        }
    }

    pub(super) fn records(&self) -> Records {
        self.lock().records.clone()
    }

    pub(super) fn task_done(&self) {
        self.lock().task = None;
    }

    /// A thread has a connection.
    pub(super) fn connected(&self, number: usize, closer: Closer) {
        let mut state = self.lock();
        state.first_is_up |= number == 0;
        state.closers[number] = Some(closer);
        drop(state);
        self.work.notify_all();
    }

    /// A thread has lost its connection.
    pub(super) fn lost(&self, number: usize) {
        let mut state = self.lock();
        state.lost = true;
        // Until the first thread knows better.
        state.first_is_up = false;
        state.closers[number] = None;
    }

    /// Waits before another try, unless all is over.
    pub(super) fn pause(&self, pause: Duration) {
        let waited = self.work.wait_timeout_while(self.lock(), pause, |state| !state.is_over());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// Ends everything with a failure; the first one counts.
    pub(super) fn fail(&self, error: NbdError) {
        self.lock().ended.get_or_insert_with(|| Ended::Failed(Arc::new(error)));
        self.notify_everybody();
    }

    /// Ends everything. What is on its way is cut off.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.ended.get_or_insert(Ended::Dropped);
        if state.busy > 0 {
            state.closers.iter().flatten().for_each(Closer::close);
        }
        drop(state);
        self.notify_everybody();
    }

    fn notify_everybody(&self) {
        self.work.notify_all();
        self.done.notify_all();
    }
}
