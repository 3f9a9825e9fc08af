//! A network link: bytes take their time on the way, and are counted.
//!
//! The link is an ideal one: it loses nothing and has no slow start, so that what a client reaches over it is limited
//! by the round trips that the client waits for, and by the link's bandwidth. It knows nothing of what it carries, but
//! counts requests if that is HTTP/1.1.
//!
//! Memory: for each way of a connection up to 64 MiB (`QUEUED_BYTES_MAX`) and a buffer of 256 KiB (`READ_LEN`) are on
//! their way; then the sender waits. Without a delay and a cap it is the buffer alone.

mod follower;
mod meter;
mod queue;

use super::sockets::{Listening, Sockets, end, lock, reset_when_closed};
use meter::{ConnectionMeter, Meter, Way};
use queue::{Item, Queue};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read at once: enough that system calls do not count.
const READ_LEN: usize = 256 << 10;

/// What a capped link carries in one go at least, so that connections take turns: a packet.
const TURN_LEN_MIN: u64 = 1460;

/// A capped link carries about so many turns in a second.
const TURNS_PER_SECOND: u64 = 200;

/// How long a capped link may have been idle and still make up for it: a thread wakes up later than it asked for.
const LATENESS: Duration = Duration::from_millis(4);

/// What the link is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// The time from a byte that is sent to a byte that answers it, of which each way takes half.
    pub round_trip: Duration,
    /// What all connections together can carry each way; as much as the machine can if it is not given.
    pub bytes_per_second: Option<u64>,
}

/// What went over a link since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Connections that clients made.
    pub connections: u64,
    /// The most connections at the same time.
    pub connections_at_once_max: u64,
    /// Connections that the server did not take.
    pub refused: u64,
    /// Requests that clients began to send.
    pub requests: u64,
    /// The most requests at the same time, each from its first byte that the client sent to the last byte of the
    /// answer that the client was handed.
    pub requests_at_once_max: u64,
    /// Bytes that clients sent.
    pub bytes_to_server: u64,
    /// Bytes that clients were handed.
    pub bytes_to_client: u64,
}

/// A link between clients and a server, which ends all its connections when it is dropped.
pub struct Link {
    listening: Listening,
    shared: Arc<Shared>,
}

/// What all connections have in common.
struct Shared {
    to: SocketAddr,
    settings: LinkSettings,
    sockets: Arc<Sockets>,
    meter: Meter,
    to_server: Lane,
    to_client: Lane,
}

impl Link {
    /// Starts a link from a free port of the loopback interface to a server.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(to: SocketAddr, settings: LinkSettings) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::listen(any, to, settings).expect("the loopback interface has a free port")
    }

    /// Starts a link from an address to a server.
    ///
    /// # Errors
    /// An address that cannot be listened at.
    pub fn listen(at: SocketAddr, to: SocketAddr, settings: LinkSettings) -> io::Result<Self> {
        let sockets = Arc::new(Sockets::default());
        let shared = Arc::new(Shared {
            to,
            settings,
            sockets: Arc::clone(&sockets),
            meter: Meter::default(),
            to_server: Lane::new(settings.bytes_per_second),
            to_client: Lane::new(settings.bytes_per_second),
        });
        let carrying = Arc::clone(&shared);
        let listening = Listening::start(at, sockets, move |client| carrying.carry(client))?;
        Ok(Self { listening, shared })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listening.address()
    }

    /// What went over it so far.
    #[must_use]
    pub fn counts(&self) -> LinkCounts {
        self.shared.meter.counts()
    }
}

impl Shared {
    /// Carries one connection until both ways have ended.
    fn carry(&self, client: TcpStream) {
        let accepted = Instant::now();
        let connection = self.meter.connection();
        let client = self.sockets.add(client).expect("a connection that was accepted has options");
        let Ok(server) = self.sockets.connect(self.to) else {
            self.meter.refused();
            reset_when_closed(&client);
            return;
        };
        // The client could not send before it heard from the server, and the server not before it heard of the client.
        let round_trip = self.settings.round_trip;
        let to_server = Direction {
            way: Way::ToServer,
            from: &client,
            to: &server,
            lane: &self.to_server,
            opened: accepted + round_trip,
            delay: round_trip / 2,
            connection: &connection,
        };
        let to_client = Direction {
            way: Way::ToClient,
            from: &server,
            to: &client,
            lane: &self.to_client,
            opened: accepted + round_trip / 2,
            delay: round_trip / 2,
            connection: &connection,
        };
        thread::scope(|scope| {
            scope.spawn(|| to_server.carry());
            to_client.carry();
        });
    }
}

/// One way of the link, which all connections share.
struct Lane {
    bytes_per_second: Option<u64>,
    /// When all that was to be sent has been.
    free: Mutex<Instant>,
}

impl Lane {
    fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free: Mutex::new(Instant::now()) }
    }

    /// What one connection sends before it is another's turn.
    fn turn_len(&self) -> usize {
        let len = self.bytes_per_second.map_or(READ_LEN as u64, |rate| rate / TURNS_PER_SECOND);
        usize::try_from(len.max(TURN_LEN_MIN)).map_or(READ_LEN, |len| len.min(READ_LEN))
    }

    /// When bytes that could be sent at some time begin to be, and when they have been.
    fn take(&self, len: usize, ready: Instant) -> (Instant, Instant) {
        let Some(rate) = self.bytes_per_second else { return (ready, ready) };
        let takes = Duration::from_nanos(len as u64 * 1_000_000_000 / rate.max(1));
        let mut free = lock(&self.free);
        let begin = free.max(ready.checked_sub(LATENESS).unwrap_or(ready));
        *free = begin + takes;
        (begin, *free)
    }
}

/// One way of one connection.
struct Direction<'a> {
    way: Way,
    from: &'a TcpStream,
    to: &'a TcpStream,
    lane: &'a Lane,
    /// Before that nothing can have been sent.
    opened: Instant,
    delay: Duration,
    connection: &'a ConnectionMeter<'a>,
}

impl Direction<'_> {
    fn carry(&self) {
        if self.delay.is_zero() && self.lane.bytes_per_second.is_none() {
            self.copy();
            return;
        }
        let queue = Queue::default();
        thread::scope(|scope| {
            scope.spawn(|| self.read(&queue));
            self.write(&queue);
        });
    }

    /// Passes bytes on as they come.
    fn copy(&self) {
        let mut meter = self.connection.way(self.way);
        let mut buffer = vec![0; READ_LEN];
        loop {
            match read(self.from, &mut buffer) {
                Ok(0) => return end(self.to, Shutdown::Write),
                Ok(len) => {
                    meter.count(&buffer[..len]);
                    if self.to().write_all(&buffer[..len]).is_err() {
                        return reset_when_closed(self.from);
                    }
                }
                Err(_) => return reset_when_closed(self.to),
            }
        }
    }

    /// Reads bytes and sends them off.
    fn read(&self, queue: &Queue) {
        let mut meter = (self.way == Way::ToServer).then(|| self.connection.way(self.way));
        let mut buffer = vec![0; self.lane.turn_len()];
        loop {
            let result = read(self.from, &mut buffer);
            let ready = Instant::now().max(self.opened);
            let item = match result {
                Ok(0) => Item::End,
                Ok(len) => {
                    if let Some(meter) = &mut meter {
                        meter.count(&buffer[..len]);
                    }
                    let (begin, sent) = self.lane.take(len, ready);
                    // No more than this connection's turn is taken from others.
                    queue.wait_until(begin);
                    queue.push(sent.max(ready) + self.delay, Item::Bytes(buffer[..len].to_vec()));
                    continue;
                }
                Err(_) => Item::Reset,
            };
            return queue.push(ready + self.delay, item);
        }
    }

    /// Hands bytes over when they have arrived.
    fn write(&self, queue: &Queue) {
        let mut meter = (self.way == Way::ToClient).then(|| self.connection.way(self.way));
        while let Some(item) = queue.pop() {
            match item {
                Item::Bytes(bytes) => {
                    // Before the client can have them and look at the counts.
                    if let Some(meter) = &mut meter {
                        meter.count(&bytes);
                    }
                    if self.to().write_all(&bytes).is_err() {
                        reset_when_closed(self.from);
                        break;
                    }
                }
                Item::End => return end(self.to, Shutdown::Write),
                Item::Reset => return reset_when_closed(self.to),
            }
        }
        queue.close();
    }

    /// A reference of its own to what is written to, since writing changes the reference.
    fn to(&self) -> &TcpStream {
        self.to
    }
}

fn read(mut from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
