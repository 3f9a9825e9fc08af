//! An HTTPS server whose connections stay open, as vCenter's do, and whose answers may be binary and long.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::contents::Contents;
use crate::http::header;

/// A connection on which nothing comes for so long is given up.
const PATIENCE: Duration = Duration::from_mins(1);

/// The longest body that a client may send: no call of vim25 comes near.
const BODY_LEN_MAX: u64 = 16 << 20;

/// How much of a disk is sent at once.
const PIECE_LEN: u64 = 1 << 20;

/// A request, read whole.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    /// Whether the client wants no more on this connection.
    last: bool,
    /// Names in small letters.
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a cookie, with the quotes that vCenter writes around it taken off.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.headers.iter().filter(|(found, _)| found == "cookie");
        let mut pairs =
            cookies.flat_map(|(_, value)| value.split(';')).filter_map(|pair| pair.split_once('='));
        pairs.find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim().trim_matches('"'))
    }
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body,
}

impl Answer {
    /// An answer with text.
    pub(super) fn text(status: u16, content_type: &str, text: String) -> Self {
        let headers = vec![("Content-Type", content_type.to_owned())];
        Self { status, headers, body: Body::Bytes(text.into_bytes()) }
    }

    /// An answer that says no more than its status.
    pub(super) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Bytes(Vec::new()) }
    }
}

/// The body of an answer.
pub(super) enum Body {
    Bytes(Vec<u8>),
    /// A range of a disk.
    Disk {
        contents: Contents,
        start: u64,
        length: u64,
    },
}

impl Body {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Disk { length, .. } => *length,
        }
    }

    fn write_to(&self, stream: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => stream.write_all(bytes),
            Self::Disk { contents, start, length } => {
                let mut at = *start;
                while at < start + length {
                    let len = PIECE_LEN.min(start + length - at);
                    stream.write_all(&contents.read(at, len))?;
                    at += len;
                }
                Ok(())
            }
        }
    }
}

/// Answers a request; with none, the connection is cut.
type Answering = Arc<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

/// A server on a port of 127.0.0.1 that was free, until it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    pub(super) fn start(tls: Arc<ServerConfig>, answering: Answering) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of 127.0.0.1 is free");
        let address = listener.local_addr().expect("the listener is bound");
        let (stopping, open) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, opened) = (Arc::clone(&stopping), Arc::clone(&open));
        let accepting = thread::spawn(move || accept(&listener, &stopped, &opened, &tls, &answering));
        Self { address, stopping, accepting: Some(accepting), open }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection that is open, as a firewall does.
    pub(super) fn cut(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The client may have closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; without it there is nothing to wake.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        self.cut();
    }
}

fn accept(
    listener: &TcpListener,
    stopped: &AtomicBool,
    open: &Mutex<Vec<TcpStream>>,
    tls: &Arc<ServerConfig>,
    answering: &Answering,
) {
    for stream in listener.incoming() {
        if stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if let Ok(clone) = stream.try_clone() {
            open.lock().unwrap_or_else(PoisonError::into_inner).push(clone);
        }
        let (tls, answering) = (Arc::clone(tls), Arc::clone(answering));
        // A client that goes away has no answer; that it misses it is for its test to find.
        thread::spawn(move || serve(stream, tls, &answering));
    }
}

fn serve(stream: TcpStream, tls: Arc<ServerConfig>, answering: &Answering) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let Some(request) = read(&mut reader)? else { return Ok(()) };
        let stream = reader.get_mut();
        let Some(answer) = answering(&request) else {
            return stream.sock.shutdown(Shutdown::Both);
        };
        write(stream, &answer, request.method == "HEAD", request.last)?;
        if request.last {
            stream.conn.send_close_notify();
            stream.flush()?;
            return stream.sock.shutdown(Shutdown::Write);
        }
    }
}

/// Reads a request; none where the client closed the connection between two.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let closed = reader.read_line(&mut line)? == 0;
        let line = line.trim_end();
        if line.is_empty() {
            if closed && lines.is_empty() {
                return Ok(None);
            }
            break;
        }
        lines.push(line.to_owned());
    }
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let (first, headers) = lines.split_first().ok_or_else(invalid)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(invalid()) };
    let headers: Vec<_> = headers.iter().filter_map(|line| header(line)).collect();
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut request = Request { method, target, last: false, headers, body: String::new() };
    let closes = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    request.last = closes || words.next() == Some("HTTP/1.0");
    let len: u64 = request.header("content-length").unwrap_or("0").parse().map_err(io::Error::other)?;
    if len > BODY_LEN_MAX || request.header("transfer-encoding").is_some() {
        return Err(invalid());
    }
    let mut body = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8(body).map_err(|_| invalid())?;
    Ok(Some(request))
}

fn write(stream: &mut impl Write, answer: &Answer, head_only: bool, last: bool) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Answer\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str(if last { "Connection: close\r\n\r\n" } else { "\r\n" });
    // One write for a short answer, so that it travels in one record.
    match &answer.body {
        Body::Bytes(bytes) if !head_only => stream.write_all(&[head.as_bytes(), bytes].concat())?,
        body => {
            stream.write_all(head.as_bytes())?;
            if !head_only {
                body.write_to(stream)?;
            }
        }
    }
    stream.flush()
}
