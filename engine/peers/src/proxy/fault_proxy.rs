//! A proxy that knows HTTP/1.1 and harms requests by a plan.
//!
//! Requests and answers pass as they are, byte for byte, and are streamed; only a request that is sent twice or later
//! is held in memory. Each connection of a client has one to the server, which is made again when the server closed it.

use super::exchange::{Exchange, Failed, Then};
use super::fault::{Fault, Kind, Request};
use super::http::{Body, Head};
use super::inbound::Peer;
use super::late::{self, Late};
use super::plan::Plan;
use super::sockets::{Listening, Sockets, end, lock};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

/// A proxy between clients and a server, which ends all its connections when it is dropped.
pub struct Proxy {
    listening: Listening,
    shared: Arc<Shared>,
}

/// A request that something was done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The request's number.
    pub number: u64,
    /// Its method.
    pub method: String,
    /// Its path, without what may be secret.
    pub path: String,
    /// What was done.
    pub fault: Fault,
    /// Whether it made no difference: a byte was to be changed that was not there.
    pub missed: bool,
}

/// What went through a proxy since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that clients made.
    pub connections: u64,
    /// Requests whose head came.
    pub requests: u64,
    /// Faults that made a difference, by kind; counted before anybody can notice them.
    pub faults: BTreeMap<Kind, u64>,
    /// Requests that the server was sent later.
    pub delivered_late: u64,
    /// Connections that clients broke, and those of clients that do not speak HTTP.
    pub client_failures: u64,
    /// Requests that the server did not answer, although nothing was done to them that keeps it from that.
    pub server_failures: u64,
}

/// What all connections have in common.
pub(crate) struct Shared {
    pub(crate) to: SocketAddr,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) late: Late,
    plan: Plan,
    log: Mutex<Log>,
}

/// What happened so far.
#[derive(Default)]
struct Log {
    /// With the faults left out.
    counts: Counts,
    applied: Vec<Applied>,
}

impl Proxy {
    /// Starts a proxy on a free port of the loopback interface to a server.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(to: SocketAddr, plan: impl Into<Plan>) -> Self {
        let sockets = Arc::new(Sockets::default());
        let (late, log, plan) = (Late::default(), Mutex::default(), plan.into());
        let shared = Arc::new(Shared { to, sockets: Arc::clone(&sockets), late, plan, log });
        let serving = Arc::clone(&shared);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = Listening::start(any, sockets, move |client| serving.serve(client))
            .expect("the loopback interface has a free port");
        Self { listening, shared }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listening.address()
    }

    /// What went through it so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let log = lock(&self.shared.log);
        let mut counts = log.counts.clone();
        for kind in log.applied.iter().filter(|applied| !applied.missed).filter_map(|a| a.fault.kind()) {
            *counts.faults.entry(kind).or_default() += 1;
        }
        counts
    }

    /// What was done to which request, in the order in which it was decided.
    #[must_use]
    pub fn applied(&self) -> Vec<Applied> {
        lock(&self.shared.log).applied.clone()
    }

    /// Sends all requests to the server that are held back, and returns the statuses that it answered with.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn deliver_late(&self) -> Vec<u16> {
        let requests = self.shared.late.take_all();
        lock(&self.shared.log).counts.delivered_late += requests.len() as u64;
        let deliver = |bytes: &[u8]| self.shared.deliver(bytes).expect("the server answers a late request");
        requests.iter().map(|request| deliver(&request.bytes)).collect()
    }
}

impl Shared {
    /// Serves one connection.
    fn serve(&self, client: TcpStream) {
        lock(&self.log).counts.connections += 1;
        let stream = self.sockets.add(client).expect("a connection that was accepted has options");
        let mut client = Peer::new(stream);
        let mut server = None;
        let then = loop {
            match client.inbound.head() {
                Ok(None) => return,
                Ok(Some(head)) => match self.exchange(head, &mut client, &mut server) {
                    Ok(Then::Goes) => {}
                    Ok(then) => break then,
                    Err(Failed::Client) => {
                        lock(&self.log).counts.client_failures += 1;
                        break Then::Resets;
                    }
                    Err(Failed::Server) => {
                        lock(&self.log).counts.server_failures += 1;
                        break Then::Resets;
                    }
                },
                Err(_) => {
                    lock(&self.log).counts.client_failures += 1;
                    break Then::Resets;
                }
            }
        };
        if then == Then::Closes {
            // Closing with something unread would reset the connection and take the answer with it.
            end(&client.stream, Shutdown::Write);
            client.inbound.until_left();
        } else {
            client.reset();
        }
    }

    /// Does one request.
    fn exchange(&self, head: Head, client: &mut Peer, server: &mut Option<Peer>) -> Result<Then, Failed> {
        let body = Body::of_request(&head).map_err(|_| Failed::Client)?;
        let request = {
            let mut log = lock(&self.log);
            let request = Request::new(log.counts.requests, &head, &body).map_err(|_| Failed::Client)?;
            log.counts.requests += 1;
            request
        };
        let number = request.number;
        let fault = self.plan.choose(&request);
        if fault != Fault::Forward {
            let (method, path) = (request.method.clone(), request.path.clone());
            let applied = Applied { number, method, path, fault: fault.clone(), missed: false };
            lock(&self.log).applied.push(applied);
        }
        let then = Exchange { shared: self, client, server, request, head, body }.run(&fault);
        // Where no answer was passed on they have not been delivered yet.
        self.deliver_due(number);
        then
    }

    /// Sends the server what is due with a request.
    pub(crate) fn deliver_due(&self, number: u64) {
        for request in self.late.take_due(number) {
            lock(&self.log).counts.delivered_late += 1;
            if self.deliver(&request.bytes).is_err() {
                lock(&self.log).counts.server_failures += 1;
            }
        }
    }

    /// Sends the server a whole request over a connection of its own.
    pub(crate) fn deliver(&self, request: &[u8]) -> io::Result<u16> {
        late::deliver(&self.sockets, self.to, request)
    }

    /// Notes that what was to be done to a request made no difference.
    pub(crate) fn missed(&self, number: u64) {
        for applied in lock(&self.log).applied.iter_mut().filter(|applied| applied.number == number) {
            applied.missed = true;
        }
    }
}
