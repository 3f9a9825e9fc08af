//! A listening socket, and all connections that come from it and end with it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Locks what no holder leaves half done, even when it panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sockets that are open, so that whoever waits for one can be woken.
#[derive(Default)]
pub(crate) struct Sockets {
    state: Mutex<Open>,
    ended: Condvar,
}

#[derive(Default)]
struct Open {
    has_ended: bool,
    // Weak, so that a socket is closed by whoever uses it, and at once.
    sockets: Vec<Weak<TcpStream>>,
}

impl Sockets {
    /// Connects to a server.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<Arc<TcpStream>> {
        self.add(TcpStream::connect(to)?)
    }

    /// Takes a connected socket in.
    pub(crate) fn add(&self, stream: TcpStream) -> io::Result<Arc<TcpStream>> {
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        let mut open = lock(&self.state);
        open.sockets.retain(|socket| socket.strong_count() > 0);
        open.sockets.push(Arc::downgrade(&stream));
        if open.has_ended {
            end(&stream, Shutdown::Both);
        }
        Ok(stream)
    }

    /// Waits for some time, or for the end of all connections.
    pub(crate) fn pause(&self, time: Duration) {
        let waited = self.ended.wait_timeout_while(lock(&self.state), time, |open| !open.has_ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn has_ended(&self) -> bool {
        lock(&self.state).has_ended
    }

    /// Ends all connections, later ones too.
    fn end(&self) {
        let mut open = lock(&self.state);
        open.has_ended = true;
        self.ended.notify_all();
        for socket in open.sockets.iter().filter_map(Weak::upgrade) {
            end(&socket, Shutdown::Both);
        }
    }
}

/// Ends one or both directions of a connection. One that has ended already stays so.
pub(crate) fn end(stream: &TcpStream, how: Shutdown) {
    match stream.shutdown(how) {
        Ok(()) => {}
        // The other side was faster.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
        Err(error) => panic!("could not shut a connection down: {error}"),
    }
}

/// Lets the closing of a socket reset the connection: what has not been sent is discarded, and the other side is told
/// so. Wakes whoever reads from it.
pub(crate) fn reset_when_closed(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))
        .expect("the option of lingering can be set on every TCP socket");
    end(stream, Shutdown::Read);
}

/// Accepts connections, each served in a thread of its own, until it is dropped.
pub(crate) struct Listening {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    sockets: Arc<Sockets>,
    acceptor: Option<JoinHandle<()>>,
}

impl Listening {
    /// Listens at an address, port 0 for any, and serves each connection by a function that returns when its sockets,
    /// all of which are among `sockets`, have ended.
    pub(crate) fn start(
        at: SocketAddr,
        sockets: Arc<Sockets>,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::bind(at)?);
        let address = listener.local_addr()?;
        let (accepting, still_open) = (Arc::clone(&listener), Arc::clone(&sockets));
        let acceptor = thread::spawn(move || accept(&accepting, &still_open, &Arc::new(serve)));
        Ok(Self { address, listener, sockets, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.sockets.end();
        // Wakes the acceptor: an end of a listening socket is an error of `accept`.
        rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both)
            .expect("a listening socket can be shut down");
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
            && !thread::panicking()
        {
            panic!("a thread of a proxy panicked, as it said above");
        }
    }
}

fn accept<F: Fn(TcpStream) + Send + Sync + 'static>(
    listener: &TcpListener,
    sockets: &Sockets,
    serve: &Arc<F>,
) {
    let mut serving: Vec<JoinHandle<()>> = Vec::new();
    for stream in listener.incoming() {
        match stream {
            _ if sockets.has_ended() => break,
            Ok(stream) => {
                let serve = Arc::clone(serve);
                serving.push(thread::spawn(move || serve(stream)));
            }
            // A client that left while it was waiting.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => panic!("could not accept a connection: {error}"),
        }
        for ended in serving.extract_if(.., |thread| thread.is_finished()) {
            join(ended);
        }
    }
    serving.into_iter().for_each(join);
}

fn join(thread: JoinHandle<()>) {
    thread.join().expect("the thread of a connection does not panic");
}
