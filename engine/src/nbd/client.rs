//! The connections to one export: taken by whoever reads, made when they are needed, made anew when they are lost.

use super::channel::{Channel, Socket};
use super::connection::{Connection, Piece};
use super::error::NbdError;
use super::handshake::Agreed;
use super::place::NbdPlace;
use super::settings::{Holes, NbdSettings};
use super::status::Areas;
use super::tls::Tls;
use super::wire::{BlockSizes, ExportInfo, STATE_DIRTY, STATE_HOLE, STATE_ZERO, Style};
use super::writer::Writer;
use crate::Extent;
use crate::frames::lock;
use repo_format::limits::DISK_SIZE_MAX;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The context that tells what is allocated and what is zero.
const ALLOCATION: &str = "base:allocation";
/// What the contexts of QEMU's dirty bitmaps begin with.
const BITMAP_PREFIX: &str = "qemu:dirty-bitmap:";
/// A connection beside others that is not made within this is done without: some servers let a client wait for its turn.
const FURTHER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where connections come from.
#[derive(Debug)]
enum Way {
    Place(NbdPlace),
    /// One that was made by somebody else, and cannot be made anew.
    Made(Mutex<Option<UnixStream>>),
}

/// An export of a server.
#[derive(Debug)]
pub(crate) struct Client {
    way: Way,
    tls: Option<Tls>,
    export: String,
    place: Arc<str>,
    settings: NbdSettings,
    info: ExportInfo,
    blocks: BlockSizes,
    /// Whether connections for writing look what trimming left.
    trims: bool,
    connections: Mutex<Connections>,
    given_back: Condvar,
}

#[derive(Debug)]
struct Connections {
    idle: Vec<Connection>,
    /// Idle ones, those in use, and those that are being made.
    open: usize,
    limit: usize,
}

/// What an export is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Reading,
    Writing,
}

/// What a server says of a disk when it is opened.
#[derive(Debug)]
pub(crate) struct Told {
    /// For reading: what does not read as zeros. For writing: what does not, or takes space. Everything, if the server
    /// does not tell.
    pub(crate) data: Vec<Extent>,
    pub(crate) bitmap: Bitmap,
}

/// The dirty bitmap of the settings.
#[derive(Debug)]
pub(crate) enum Bitmap {
    NotAsked,
    /// The server does not have it.
    Missing(String),
    /// What is dirty.
    Dirty(Vec<Extent>),
}

impl Client {
    /// Opens a place, and asks what is data and what is dirty there.
    pub(crate) fn open(
        place: &NbdPlace,
        purpose: Use,
        settings: NbdSettings,
    ) -> Result<(Self, Told), NbdError> {
        let shown: Arc<str> = place.to_string().into();
        Self::begin(Way::Place(place.clone()), (place.export(), shown), purpose, settings)
    }

    /// The same over a socket that is connected.
    pub(crate) fn over(
        socket: UnixStream,
        export: &str,
        purpose: Use,
        settings: NbdSettings,
    ) -> Result<(Self, Told), NbdError> {
        let place: Arc<str> = format!("{export:?} over a given socket").into();
        Self::begin(Way::Made(Mutex::new(Some(socket))), (export, place), purpose, settings)
    }

    fn begin(
        way: Way,
        (export, place): (&str, Arc<str>),
        purpose: Use,
        settings: NbdSettings,
    ) -> Result<(Self, Told), NbdError> {
        let tls = match &way {
            Way::Place(place) => Tls::of(place)?,
            Way::Made(_) => None,
        };
        let mut client = Self {
            way,
            tls,
            export: export.to_owned(),
            place,
            info: ExportInfo { size: 0, flags: 0 },
            blocks: BlockSizes::default(),
            trims: false,
            connections: Mutex::new(Connections { idle: Vec::new(), open: 1, limit: 1 }),
            given_back: Condvar::new(),
            settings,
        };
        let bitmap = client.settings.bitmap.as_ref().map(|name| format!("{BITMAP_PREFIX}{name}"));
        let allocation = (client.settings.holes == Holes::Skipped).then_some(ALLOCATION);
        let contexts: Vec<&str> = allocation.into_iter().chain(bitmap.as_deref()).collect();
        let mut connection = client.connect(&contexts, client.settings.timeout)?;
        let Agreed { style, info, blocks, contexts } = connection.agreed().clone();
        if info.size == 0 {
            return Err(NbdError::Empty { place: client.place.to_string() });
        }
        // Before all its states are asked for, which takes hours.
        if info.size > DISK_SIZE_MAX {
            return Err(NbdError::TooLarge { place: client.place.to_string(), size: info.size });
        }
        if purpose == Use::Writing && info.is_read_only() {
            return Err(NbdError::ReadOnly { place: client.place.to_string() });
        }
        (client.info, client.blocks) = (info, blocks);
        let mut ids = contexts.into_iter();
        let allocation = allocation.and_then(|_| ids.next()).flatten();
        client.trims = allocation.is_some() && info.can_trim() && !info.can_write_zeroes();
        let told = client.ask(&mut connection, (style, purpose), (allocation, ids.next().flatten()))?;
        let limit = client.limit();
        *client.lock() = Connections { idle: vec![connection], open: 1, limit };
        Ok((client, told))
    }

    fn ask(
        &self,
        connection: &mut Connection,
        (style, purpose): (Style, Use),
        (allocation, bitmap): (Option<u32>, Option<u32>),
    ) -> Result<Told, NbdError> {
        let size = self.info.size;
        let is_data: fn(u64) -> bool = match purpose {
            Use::Reading => |state| state & STATE_ZERO == 0,
            Use::Writing => |state| state & (STATE_ZERO | STATE_HOLE) != STATE_ZERO | STATE_HOLE,
        };
        let is_dirty: fn(u64) -> bool = |state| state & STATE_DIRTY != 0;
        let mut wanted: Vec<(u32, Areas)> = Vec::new();
        wanted.extend(allocation.map(|id| (id, Areas::unknown(size, is_data))));
        wanted.extend(bitmap.map(|id| (id, Areas::unknown(size, is_dirty))));
        debug_assert!(wanted.is_empty() || style != Style::Simple, "contexts need structured replies");
        connection.ask_states(size, &mut wanted)?;
        let mut areas = wanted.into_iter().map(|(_, areas)| areas.into_areas());
        let data = allocation.and_then(|_| areas.next());
        let dirty = bitmap.and_then(|_| areas.next());
        Ok(Told {
            data: data.unwrap_or_else(|| Extent::between(0, size).into_iter().collect()),
            bitmap: match (&self.settings.bitmap, dirty) {
                (None, _) => Bitmap::NotAsked,
                (Some(name), None) => Bitmap::Missing(name.clone()),
                (Some(_), Some(dirty)) => Bitmap::Dirty(dirty),
            },
        })
    }

    /// How many connections there may be.
    fn limit(&self) -> usize {
        if self.info.can_multi_conn() { self.settings.connections.max(1) } else { 1 }
    }

    /// The disk's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.info.size
    }

    /// The server, as errors name it.
    pub(crate) fn place(&self) -> String {
        self.place.to_string()
    }

    /// What requests must begin and end at multiples of, but for the disk's end, in bytes.
    pub(crate) fn block_len(&self) -> u64 {
        self.blocks.minimum.into()
    }

    /// The longest request, in bytes.
    pub(crate) fn request_len_max(&self) -> u64 {
        self.blocks.maximum.into()
    }

    /// Reads all pieces. A connection that is lost meanwhile is made anew, and what is missing asked for again.
    pub(crate) fn read(&self, mut pieces: Vec<Piece<'_>>) -> Result<(), NbdError> {
        let mut tries = 0;
        while !pieces.is_empty() {
            let failure = match self.take() {
                Err(failure) => failure,
                Ok(mut connection) => match connection.read(&mut pieces) {
                    Ok(result) => {
                        self.give_back(connection);
                        return result;
                    }
                    Err(failure) => {
                        self.forget();
                        failure
                    }
                },
            };
            if !failure.is_of_the_connection() || !matches!(self.way, Way::Place(_)) {
                return Err(failure);
            }
            if tries == self.settings.reconnects {
                let place = self.place.to_string();
                return Err(NbdError::GaveUp { place, done: "read", tries, source: Box::new(failure) });
            }
            if tries > 0 {
                pause(self.settings.reconnect_pause);
            }
            tries += 1;
            pieces.retain(|piece| !piece.is_whole());
            pieces.iter_mut().for_each(Piece::begin_anew);
        }
        Ok(())
    }

    pub(crate) fn settings(&self) -> &NbdSettings {
        &self.settings
    }

    /// Whether the server can be told to make durable what it has answered; otherwise all that is.
    pub(crate) fn can_flush(&self) -> bool {
        self.info.can_flush()
    }

    /// Whether the server says that it makes zero by itself.
    pub(crate) fn can_write_zeroes(&self) -> bool {
        self.info.can_write_zeroes()
    }

    /// Whether the server does not make zero by itself, but can give up blocks and tell which read as zeros.
    pub(crate) fn trims(&self) -> bool {
        self.trims
    }

    /// How many connections may write at a time.
    pub(crate) fn writers_max(&self) -> usize {
        self.limit()
    }

    /// Whether a connection that is lost can be made anew.
    pub(crate) fn can_reconnect(&self) -> bool {
        matches!(self.way, Way::Place(_))
    }

    /// A connection to write over: the one by which the export was opened, or else a new one.
    pub(crate) fn writer(&self) -> Result<Writer, NbdError> {
        let idle = self.lock().idle.pop();
        idle.map_or_else(|| self.connect_again(self.settings.timeout), Ok).map(Writer::new)
    }

    /// A connection to write over beside another one, if the server lets us have it.
    pub(crate) fn further_writer(&self) -> Result<Option<Writer>, NbdError> {
        match self.connect_again(self.settings.timeout.min(FURTHER_TIMEOUT)) {
            Ok(connection) => Ok(Some(Writer::new(connection))),
            Err(error) if error.is_of_the_connection() || error.is_silence() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes back a connection over which nothing is unanswered; it is said goodbye to in the end.
    pub(crate) fn take_back(&self, writer: Writer) {
        self.lock().idle.push(writer.into_connection());
    }

    /// A connection for the caller alone: an idle one, a further one, or the next that is given back.
    fn take(&self) -> Result<Connection, NbdError> {
        let mut connections = self.lock();
        loop {
            if let Some(connection) = connections.idle.pop() {
                return Ok(connection);
            }
            if connections.open < connections.limit {
                // Without any other there is nothing to do but to wait.
                let timeout = match connections.open {
                    0 => self.settings.timeout,
                    _ => self.settings.timeout.min(FURTHER_TIMEOUT),
                };
                connections.open += 1;
                drop(connections);
                let made = self.connect_again(timeout);
                connections = self.lock();
                match made {
                    Ok(connection) => return Ok(connection),
                    Err(error) => {
                        connections.open -= 1;
                        self.given_back.notify_all();
                        let is_refused = error.is_of_the_connection() || error.is_silence();
                        if connections.open == 0 || !is_refused {
                            return Err(error);
                        }
                        // It does with those that there are.
                        connections.limit = connections.open;
                    }
                }
            } else {
                let waited = self.given_back.wait(connections);
                connections = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn give_back(&self, connection: Connection) {
        self.lock().idle.push(connection);
        self.given_back.notify_one();
    }

    /// One was lost; those that are idle may be, too.
    fn forget(&self) {
        let mut connections = self.lock();
        connections.open -= 1 + connections.idle.len();
        connections.limit = self.limit();
        let idle = std::mem::take(&mut connections.idle);
        drop(connections);
        self.given_back.notify_all();
        drop(idle);
    }

    /// Makes a connection after the first one, to the same export as that.
    fn connect_again(&self, timeout: Duration) -> Result<Connection, NbdError> {
        let contexts = if self.trims { &[ALLOCATION][..] } else { &[] };
        let mut connection = self.connect(contexts, timeout).map_err(|error| match error {
            // It is one, as is known, and takes leave without a word where it has no room for another client.
            NbdError::NotNbd { place } => {
                NbdError::Lost { place, source: io::ErrorKind::UnexpectedEof.into() }
            }
            error => error,
        })?;
        connection.channel().set_timeout(self.settings.timeout)?;
        let (before, after) = (self.info, connection.agreed().info);
        let place = self.place.to_string();
        if before.size != after.size {
            return Err(NbdError::SizeChanged { place, before: before.size, after: after.size });
        }
        if before.flags != after.flags {
            return Err(NbdError::OtherExport { place, before: before.flags, after: after.flags });
        }
        Ok(connection)
    }

    fn connect(&self, contexts: &[&str], timeout: Duration) -> Result<Connection, NbdError> {
        let socket = match &self.way {
            Way::Place(place) => Socket::connect(place, self.settings.connect_timeout)?,
            Way::Made(socket) => {
                let socket = lock(socket).take().expect("there is one connection over a given socket");
                Socket::Unix(socket)
            }
        };
        let channel = Channel::new(socket, Arc::clone(&self.place), timeout)?;
        Connection::open(channel, self.tls.as_ref(), &self.export, contexts)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connections> {
        // Nothing panics while it has the lock.
        lock(&self.connections)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut self.lock().idle);
        idle.into_iter().for_each(Connection::close);
    }
}

/// Waits. There is no sleeping in this crate, but a channel on which nothing comes.
fn pause(duration: Duration) {
    let (_open, silent) = channel::<()>();
    let _nothing = silent.recv_timeout(duration);
}
