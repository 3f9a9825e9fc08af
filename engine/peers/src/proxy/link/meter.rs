//! What a link counts.

use super::LinkCounts;
use super::follower::{Follower, Step};
use crate::proxy::http::{Body, Head};
use crate::proxy::sockets::lock;
use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

/// The counts of all connections together.
#[derive(Default)]
pub(crate) struct Meter {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: LinkCounts,
    connections: u64,
    requests: u64,
}

impl Meter {
    pub(crate) fn counts(&self) -> LinkCounts {
        lock(&self.state).counts
    }

    /// Counts a connection that the server did not take.
    pub(crate) fn refused(&self) {
        lock(&self.state).counts.refused += 1;
    }

    /// Begins to count a connection.
    pub(crate) fn connection(&self) -> ConnectionMeter<'_> {
        let mut state = lock(&self.state);
        state.connections += 1;
        state.counts.connections += 1;
        state.counts.connections_at_once_max = state.counts.connections_at_once_max.max(state.connections);
        ConnectionMeter { meter: self, waiting: Mutex::default() }
    }
}

/// The counts of one connection; what it left unanswered ends when it is dropped.
pub(crate) struct ConnectionMeter<'a> {
    meter: &'a Meter,
    waiting: Mutex<Waiting>,
}

/// Requests without an answer.
#[derive(Default)]
struct Waiting {
    begun: u64,
    /// For each one whose head was seen, in their order, whether its method is HEAD.
    to_head: VecDeque<bool>,
}

impl Drop for ConnectionMeter<'_> {
    fn drop(&mut self) {
        let begun = lock(&self.waiting).begun;
        let mut state = lock(&self.meter.state);
        state.requests -= begun;
        state.connections -= 1;
    }
}

/// The way of bytes through a link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

impl ConnectionMeter<'_> {
    /// Counts the messages on one way.
    pub(crate) fn way(&self, way: Way) -> WayMeter<'_> {
        WayMeter { connection: self, way, follower: Some(Follower::default()), is_interim: false }
    }

    fn request_begins(&self) {
        lock(&self.waiting).begun += 1;
        let mut state = lock(&self.meter.state);
        state.requests += 1;
        state.counts.requests += 1;
        state.counts.requests_at_once_max = state.counts.requests_at_once_max.max(state.requests);
    }

    fn request_ends(&self) {
        let mut waiting = lock(&self.waiting);
        // An answer to nothing is not counted.
        if waiting.begun > 0 {
            waiting.begun -= 1;
            lock(&self.meter.state).requests -= 1;
        }
    }
}

/// The counts of one way of one connection.
pub(crate) struct WayMeter<'a> {
    connection: &'a ConnectionMeter<'a>,
    way: Way,
    /// Nothing when it is no HTTP/1.1 that goes this way.
    follower: Option<Follower>,
    /// Whether the answer that is on its way only tells to wait for another.
    is_interim: bool,
}

impl WayMeter<'_> {
    /// Counts bytes as sent by the client, or as handed to it.
    pub(crate) fn count(&mut self, bytes: &[u8]) {
        {
            let mut state = lock(&self.connection.meter.state);
            match self.way {
                Way::ToServer => state.counts.bytes_to_server += bytes.len() as u64,
                Way::ToClient => state.counts.bytes_to_client += bytes.len() as u64,
            }
        }
        if let Some(mut follower) = self.follower.take()
            && self.follow(&mut follower, bytes).is_ok()
        {
            self.follower = Some(follower);
        }
    }

    /// Goes through all steps in some bytes.
    fn follow(&mut self, follower: &mut Follower, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(step) = follower.next(&mut bytes)? {
            match (step, self.way) {
                (Step::Begun, Way::ToServer) => self.connection.request_begins(),
                (Step::Head(head), Way::ToServer) => {
                    let to_head = head.request_line()?.0 == "HEAD";
                    lock(&self.connection.waiting).to_head.push_back(to_head);
                    follower.body(Body::of_request(&head)?);
                }
                (Step::Head(head), Way::ToClient) => {
                    self.is_interim = matches!(head.status()?, 100..200);
                    follower.body(self.body_of_answer(&head)?);
                }
                (Step::Ended, Way::ToClient) if !self.is_interim => self.connection.request_ends(),
                (Step::Begun | Step::Ended, _) => {}
            }
        }
        Ok(())
    }

    fn body_of_answer(&self, head: &Head) -> io::Result<Body> {
        if self.is_interim {
            return Ok(Body::Length(0));
        }
        let to_head = lock(&self.connection.waiting).to_head.pop_front();
        // A server may refuse a request whose head it has not seen whole.
        Body::of_answer(head, to_head.unwrap_or(false))
    }
}
