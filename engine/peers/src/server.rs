//! A small HTTP server, with or without TLS: a thread for each connection, one request on each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::http::header;

/// A connection on which nothing comes for so long is given up.
const PATIENCE: Duration = Duration::from_mins(1);

/// A request, read whole.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// What stands behind the method: a path and a query, or a whole URL if it was sent to a proxy.
    pub(crate) target: String,
    /// Names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// An answer with JSON.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: serde_json::Value,
}

impl From<Reply> for Vec<u8> {
    fn from(Reply { status, body }: Reply) -> Self {
        answer(status, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }
}

/// Returns all bytes of an answer, behind which the connection is closed.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Answer\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let head = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A server on a port of 127.0.0.1 that was free, until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// Answers a request with all bytes of an answer; with none, the connection is closed.
type Answering = Arc<dyn Fn(&Request) -> Vec<u8> + Send + Sync>;

impl Server {
    pub(crate) fn start<A: Into<Vec<u8>>>(
        tls: Option<Arc<ServerConfig>>,
        answering: impl Fn(&Request) -> A + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of 127.0.0.1 is free");
        let address = listener.local_addr().expect("the listener is bound");
        let stopping = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stopping);
        let answering: Answering = Arc::new(move |request| answering(request).into());
        let accepting = thread::spawn(move || accept(&listener, &stopped, tls.as_ref(), &answering));
        Self { address, stopping, accepting: Some(accepting) }
    }

    /// Returns the host and the port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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
    }
}

fn accept(
    listener: &TcpListener,
    stopped: &AtomicBool,
    tls: Option<&Arc<ServerConfig>>,
    answering: &Answering,
) {
    for stream in listener.incoming() {
        if stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let (tls, answering) = (tls.cloned(), Arc::clone(answering));
        // A client that goes away has no answer; that it misses it is for its test to find.
        thread::spawn(move || serve(stream, tls, &answering));
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, answering: &Answering) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    match tls {
        None => serve_one(stream, answering).map(drop),
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            let mut stream = serve_one(StreamOwned::new(connection, stream), answering)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
    }
}

fn serve_one<S: Read + Write>(stream: S, answering: &Answering) -> io::Result<S> {
    let mut reader = BufReader::new(stream);
    let request = read(&mut reader)?;
    let mut stream = reader.into_inner();
    stream.write_all(&answering(&request))?;
    stream.flush()?;
    Ok(stream)
}

fn read(reader: &mut impl BufRead) -> io::Result<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let (first, headers) = lines.split_first().ok_or_else(invalid)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(invalid()) };
    let headers: Vec<_> = headers.iter().filter_map(|line| header(line)).collect();

    let mut request =
        Request { method: method.to_owned(), target: target.to_owned(), headers, body: String::new() };
    let len = request.header("content-length").unwrap_or("0").parse().map_err(io::Error::other)?;
    reader.take(len).read_to_string(&mut request.body)?;
    Ok(request)
}

/// A form or a query: names and values.
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn parse(text: &str) -> Self {
        let decoded =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}
