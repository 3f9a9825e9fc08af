//! What is to be fetched next, and how much of it may be in memory.

use super::plan::Window;
use crate::Extent;
use crate::frames::Fetch;
use crate::threads::{Condvar, Mutex, Sender, lock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

/// Windows that are restored at the same time: the first requests of one hide the last ones of the window before.
pub const WINDOWS_OPEN: u64 = 2;
/// Bytes of packs that are being fetched, or were and are not yet written: what 10 Gbit/s carry in 80 ms.
const BYTES_IN_FLIGHT: u64 = 96 << 20;

/// The windows that are being restored. Their requests are handed out in order, while there is room.
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is a request and room for it, or no more will come.
    request: Condvar,
    /// There is room for a window.
    room: Condvar,
    stopped: AtomicBool,
    /// Where is told what of the disk is complete.
    complete: Mutex<Option<Sender<Vec<Extent>>>>,
}

struct State {
    /// Windows that are not done, and those that are behind one that is not: in order, so that what comes too early for a
    /// stream is bounded.
    open: VecDeque<Arc<Open>>,
    /// Windows with requests that were not handed out.
    waiting: VecDeque<Arc<Open>>,
    /// The first such request of the first of them.
    next: usize,
    bytes_free: u64,
    /// No more windows come.
    is_complete: bool,
}

/// A window that is being restored.
struct Open {
    window: Window,
    /// Requests that are not done.
    left: AtomicUsize,
    /// Something of it is lost.
    has_lost: AtomicBool,
}

impl Queue {
    pub(super) fn new(complete: Sender<Vec<Extent>>) -> Self {
        let state = State {
            open: VecDeque::new(),
            waiting: VecDeque::new(),
            next: 0,
            bytes_free: BYTES_IN_FLIGHT,
            is_complete: false,
        };
        let (request, room) = (Condvar::new(), Condvar::new());
        let complete = Mutex::new(Some(complete));
        Self { state: Mutex::new(state), request, room, stopped: AtomicBool::new(false), complete }
    }

    /// Waits for room for a window. False if everything is to stop.
    pub(super) fn has_room(&self) -> bool {
        let is_full = |state: &mut State| state.open.len() as u64 >= WINDOWS_OPEN && !self.is_stopped();
        drop(self.room.wait_while(lock(&self.state), is_full).unwrap_or_else(PoisonError::into_inner));
        !self.is_stopped()
    }

    /// Adds a window, for which there is room, and of which nothing but its chunks is to be written.
    pub(super) fn add(&self, window: Window) {
        let has_lost = AtomicBool::new(!window.lost.is_empty());
        let left = AtomicUsize::new(window.fetches.len());
        if window.fetches.is_empty() {
            return self.end(&Open { window, left, has_lost });
        }
        let mut state = lock(&self.state);
        let open = Arc::new(Open { window, left, has_lost });
        state.open.push_back(Arc::clone(&open));
        state.waiting.push_back(open);
        self.request.notify_all();
    }

    /// Says that no more windows come.
    pub(super) fn complete(&self) {
        lock(&self.state).is_complete = true;
        self.request.notify_all();
    }

    /// Waits for the next request. Nothing if all were handed out, or if everything is to stop.
    pub(super) fn next(&self) -> Option<Request<'_>> {
        let mut state = lock(&self.state);
        loop {
            if self.is_stopped() {
                return None;
            }
            match state.waiting.front() {
                Some(open) => {
                    let bytes = open.window.fetches[state.next].len().min(BYTES_IN_FLIGHT);
                    if bytes <= state.bytes_free {
                        let open = Arc::clone(open);
                        return Some(self.hand_out(&mut state, open, bytes));
                    }
                }
                None if state.is_complete => return None,
                None => {}
            }
            state = self.request.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hands out the first request that was not.
    fn hand_out(&self, state: &mut State, open: Arc<Open>, bytes: u64) -> Request<'_> {
        let number = state.next;
        state.next += 1;
        state.bytes_free -= bytes;
        if state.next == open.window.fetches.len() {
            state.waiting.pop_front();
            state.next = 0;
        }
        Request { queue: self, open, number, bytes }
    }

    /// Tells what is complete with a window, unless something is missing in it.
    fn end(&self, open: &Open) {
        if self.is_stopped() || open.has_lost.load(Ordering::Relaxed) {
            return;
        }
        if let Some(complete) = lock(&self.complete).as_ref() {
            // Nobody may want to know.
            let _unheard = complete.send(open.window.covers.clone());
        }
    }

    /// Says that nothing more is told to be complete.
    pub(super) fn close(&self) {
        *lock(&self.complete) = None;
    }

    /// Makes everything stop: what was handed out is the last.
    pub(super) fn stop(&self) {
        // Under the lock, so that nobody looks at it and waits after that.
        let _state = lock(&self.state);
        self.stopped.store(true, Ordering::Relaxed);
        self.request.notify_all();
        self.room.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A request that was handed out; it is done, and its bytes are no longer in memory, when this is dropped. A panic
/// meanwhile stops everything, so that nobody waits for what will not come.
pub(super) struct Request<'q> {
    queue: &'q Queue,
    open: Arc<Open>,
    number: usize,
    bytes: u64,
}

impl Request<'_> {
    pub(super) fn window(&self) -> &Window {
        &self.open.window
    }

    pub(super) fn fetch(&self) -> &Arc<Fetch> {
        &self.open.window.fetches[self.number]
    }

    /// Says that something of its window is lost.
    pub(super) fn lose(&self) {
        self.open.has_lost.store(true, Ordering::Relaxed);
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queue.stop();
        }
        let mut state = lock(&self.queue.state);
        state.bytes_free += self.bytes;
        self.queue.request.notify_all();
        // Whoever finds that it was the last sees all that the others did.
        if self.open.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            while state.open.pop_front_if(|first| first.left.load(Ordering::Acquire) == 0).is_some() {
                self.queue.room.notify_all();
            }
            drop(state);
            self.queue.end(&self.open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::channel;
    use repo_format::{PackKind, PackName, PackRef, SessionId, WriterId};

    fn window(start: u64) -> Window {
        let writer = WriterId::new("host").expect("a writer id");
        let name = PackName { kind: PackKind::Data, writer, session: SessionId([0; 16]), number: 0 };
        let fetch = Fetch { pack: PackRef { name, len: 1000 }, range: 0..10, members: Vec::new() };
        Window {
            covers: vec![Extent { start, length: 1 }],
            fetches: vec![Arc::new(fetch)],
            ..Window::default()
        }
    }

    #[test]
    fn a_window_makes_room_only_when_those_before_it_are_done() {
        let (complete, completed) = channel();
        let queue = Queue::new(complete);
        let is_full = |queue: &Queue| lock(&queue.state).open.len() as u64 == WINDOWS_OPEN;
        queue.add(window(0));
        queue.add(window(1));
        let [first, second] = [queue.next().expect("a request"), queue.next().expect("another")];
        assert!(is_full(&queue));
        drop(second);
        assert!(is_full(&queue));
        assert_eq!(completed.recv().expect("it is open"), [Extent { start: 1, length: 1 }]);
        drop(first);
        assert!(lock(&queue.state).open.is_empty());
        assert_eq!(completed.recv().expect("it is open"), [Extent { start: 0, length: 1 }]);
    }

    #[test]
    fn nothing_is_complete_when_everything_is_to_stop_or_something_is_lost() {
        let (complete, completed) = channel();
        let queue = Queue::new(complete);
        queue.add(window(0));
        queue.add(window(1));
        queue.next().expect("a request").lose();
        let second = queue.next().expect("another");
        queue.stop();
        drop(second);
        queue.close();
        assert!(completed.recv().is_err());
    }
}
