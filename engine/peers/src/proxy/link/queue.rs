//! Bytes on their way: put in at one end, taken out at the other when they are due.

use crate::proxy::sockets::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Bytes that one direction of a connection holds at most: what a link of 25 Gbit/s has on its way in 20 ms.
pub(crate) const QUEUED_BYTES_MAX: usize = 64 << 20;

/// What travels.
pub(crate) enum Item {
    Bytes(Vec<u8>),
    /// The sender will send no more.
    End,
    /// The sender's connection broke.
    Reset,
}

/// One direction of a connection, between the thread that reads and the one that writes.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    room: Condvar,
    arrival: Condvar,
    closed: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<(Instant, Item)>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// Puts something in that is due at some time, not before anything that was put in earlier; waits for room.
    /// Nothing happens once the queue is closed.
    pub(crate) fn push(&self, due: Instant, item: Item) {
        let mut state = self
            .room
            .wait_while(lock(&self.state), |state| state.bytes >= QUEUED_BYTES_MAX && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return;
        }
        state.bytes += len(&item);
        state.items.push_back((due, item));
        // Else whoever takes out waits for time to pass, or not at all.
        if state.items.len() == 1 {
            self.arrival.notify_one();
        }
    }

    /// Takes out what is next, when it is due. Nothing once the queue is closed.
    pub(crate) fn pop(&self) -> Option<Item> {
        let state = self
            .arrival
            .wait_while(lock(&self.state), |state| state.items.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let due = state.items.front()?.0;
        drop(state);
        self.wait_until(due);
        let mut state = lock(&self.state);
        let (_, item) = state.items.pop_front()?;
        state.bytes -= len(&item);
        self.room.notify_one();
        Some(item)
    }

    /// Waits for a time, or for the queue to be closed.
    pub(crate) fn wait_until(&self, time: Instant) {
        let left = time.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            let waited = self.closed.wait_timeout_while(lock(&self.state), left, |state| !state.closed);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Discards what is in it and ends all waiting.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.items.clear();
        self.room.notify_all();
        self.arrival.notify_all();
        self.closed.notify_all();
    }
}

fn len(item: &Item) -> usize {
    match item {
        Item::Bytes(bytes) => bytes.len(),
        Item::End | Item::Reset => 0,
    }
}
