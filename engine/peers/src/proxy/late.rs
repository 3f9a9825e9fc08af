//! Requests that are sent to the server by the proxy itself: those that it held back, and copies.

use super::http::Body;
use super::inbound::{Peer, write};
use super::sockets::{Sockets, lock};
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

/// Requests that were held back, in the order in which they came.
#[derive(Default)]
pub(crate) struct Late(Mutex<Vec<LateRequest>>);

/// A whole request whose client has been told that it failed.
pub(crate) struct LateRequest {
    /// The number of the request that it is due with; none if it is not due with any.
    pub(crate) due: Option<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Late {
    pub(crate) fn add(&self, request: LateRequest) {
        lock(&self.0).push(request);
    }

    /// Takes those that are due with a request.
    pub(crate) fn take_due(&self, number: u64) -> Vec<LateRequest> {
        lock(&self.0).extract_if(.., |request| request.due.is_some_and(|due| due <= number)).collect()
    }

    /// Takes all.
    pub(crate) fn take_all(&self) -> Vec<LateRequest> {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// Sends a whole request to the server over a connection of its own, and returns the status of the answer when all of
/// it has come.
///
/// # Errors
/// A server that does not answer.
pub(crate) fn deliver(sockets: &Sockets, to: SocketAddr, request: &[u8]) -> io::Result<u16> {
    let mut server = Peer::connect(sockets, to)?;
    // A server that refuses before it has read all may close at once: then its answer counts.
    let written = write(&server.stream, request);
    loop {
        let Some(head) = server.inbound.head()? else {
            return written.and(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        let status = head.status()?;
        if matches!(status, 100..200) {
            continue;
        }
        let mut body = Body::of_answer(&head, request.starts_with(b"HEAD "))?;
        while server.inbound.piece(&mut body)?.is_some() {}
        return Ok(status);
    }
}
