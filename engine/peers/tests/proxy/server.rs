//! A server of blobs in a few lines, which knows nothing of the proxy's way to read HTTP and tells what it was sent.
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// What a server does with a connection besides answering.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Keeps,
    /// Closes it after each answer without having said so.
    ClosesSilently,
    /// Answers each request as too large and closes, without reading its body.
    RefusesEarly,
    /// Answers when so many requests have come.
    Gathers(usize),
}

pub struct Server {
    pub addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    log: Mutex<Vec<String>>,
    logged: Condvar,
}

impl Server {
    pub fn start() -> Self {
        Self::with(Manner::Keeps)
    }

    /// The threads end with the connections, which the client's side closes.
    pub fn with(manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&serving));
                thread::spawn(move || {
                    state.note("connection".to_owned());
                    state.serve(&stream, manner);
                });
            }
        });
        Self { addr, state }
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.state.blobs.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
    }

    pub fn blob(&self, name: &str) -> Option<Vec<u8>> {
        self.state.blobs.lock().unwrap().get(name).cloned()
    }

    /// What happened, when so much has.
    pub fn log(&self, count: usize) -> Vec<String> {
        let log = self.state.log.lock().unwrap();
        self.state.logged.wait_while(log, |log| log.len() < count).unwrap().clone()
    }
}

impl State {
    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
        self.logged.notify_all();
    }

    fn serve(&self, mut stream: &TcpStream, manner: Manner) {
        let mut from = BufReader::new(stream);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if from.read_line(&mut line).unwrap_or(0) == 0 {
                    if !lines.is_empty() {
                        self.note(format!("cut head of {}", lines.len()));
                    }
                    return;
                }
                if line == "\r\n" {
                    break;
                }
                lines.push(line.trim_end().to_owned());
            }
            let mut words = lines[0].split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let value = |name: &str| {
                lines.iter().find_map(|line| Some(line.to_lowercase().strip_prefix(name)?.trim().to_owned()))
            };
            if manner == Manner::RefusesEarly {
                self.note(format!("refused {method} {path}"));
                let answer = "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).unwrap();
                return;
            }
            if value("expect:").is_some() {
                self.note("told to go on".to_owned());
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            }
            let body = if value("transfer-encoding:").is_some() {
                chunks(&mut from)
            } else {
                let len = value("content-length:").map_or(0, |len| len.parse().unwrap());
                exactly(&mut from, &mut vec![0; len])
            };
            let body = match body {
                Ok(body) => body,
                Err(got) => return self.note(format!("cut {method} {path} after {got}")),
            };
            let (status, answer) = self.answer(method, path, value("if-none-match:").is_some(), &body);
            self.note(format!("{method} {path} {} -> {status}", body.len()));
            if let Manner::Gathers(count) = manner {
                let log = self.log.lock().unwrap();
                let come = |log: &Vec<String>| log.iter().filter(|line| line.contains("->")).count();
                drop(self.logged.wait_while(log, |log| come(log) < count).unwrap());
            }
            if stream.write_all(&answer).is_err() || value("connection:").is_some() {
                return;
            }
            if manner == Manner::ClosesSilently {
                stream.shutdown(std::net::Shutdown::Both).unwrap();
                return self.note("closed".to_owned());
            }
        }
    }

    fn answer(&self, method: &str, path: &str, is_create: bool, body: &[u8]) -> (u16, Vec<u8>) {
        let mut blobs = self.blobs.lock().unwrap();
        let plain = |status: u16, body: &[u8]| {
            let len = if method == "HEAD" { 11 } else { body.len() };
            let mut answer =
                format!("HTTP/1.1 {status} Text\r\nX-Server: tiny\r\nContent-Length: {len}\r\n\r\n");
            if method == "HEAD" {
                return (status, answer.into_bytes());
            }
            answer.push_str(std::str::from_utf8(body).unwrap());
            (status, answer.into_bytes())
        };
        match (method, blobs.get(path)) {
            ("PUT", Some(_)) if is_create => plain(409, b"taken"),
            ("PUT", _) => {
                blobs.insert(path.to_owned(), body.to_vec());
                plain(201, b"")
            }
            ("GET", Some(blob)) if path.contains("chunked") => {
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for chunk in blob.chunks(3) {
                    answer.extend_from_slice(format!("{:x};extended\r\n", chunk.len()).as_bytes());
                    answer.extend_from_slice(chunk);
                    answer.extend_from_slice(b"\r\n");
                }
                answer.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
                (200, answer)
            }
            ("GET" | "HEAD", Some(blob)) => plain(200, blob),
            ("DELETE", Some(_)) => {
                blobs.remove(path);
                (204, b"HTTP/1.1 204 Gone\r\n\r\n".to_vec())
            }
            _ => plain(404, b"nothing"),
        }
    }
}

/// Fills a buffer, or says how much there was.
fn exactly(from: &mut impl Read, buffer: &mut [u8]) -> Result<Vec<u8>, usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..]) {
            Ok(0) | Err(_) => return Err(got),
            Ok(len) => got += len,
        }
    }
    Ok(buffer.to_vec())
}

fn chunks(from: &mut impl BufRead) -> Result<Vec<u8>, usize> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).unwrap_or(0) == 0 {
            return Err(body.len());
        }
        let len = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; len + 2];
        body.extend_from_slice(&exactly(from, &mut chunk).map_err(|got| body.len() + got)?[..len]);
        if len == 0 {
            return Ok(body);
        }
    }
}
