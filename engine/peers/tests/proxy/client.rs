//! A client that sends bytes and shows those that come back, or how they ended.
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing on this machine takes this long; a test that waits for more hangs.
const PATIENCE: Duration = Duration::from_mins(1);

pub struct Client(pub TcpStream);

/// All that came, and whether a reset ended it.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub text: String,
    pub is_reset: bool,
}

pub fn closed(text: &str) -> Received {
    Received { text: text.to_owned(), is_reset: false }
}

pub fn reset(text: &str) -> Received {
    Received { text: text.to_owned(), is_reset: true }
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// Sends what a server may refuse to read to the end.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Reads so many bytes.
    pub fn read(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Says that nothing more will be sent.
    pub fn leave(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads until the connection ends.
    pub fn read_all(&mut self) -> Received {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        let is_reset = loop {
            match self.0.read(&mut buffer) {
                Ok(0) => break false,
                Ok(len) => bytes.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
                Err(error) => panic!("reading failed: {error}"),
            }
        };
        Received { text: String::from_utf8(bytes).unwrap(), is_reset }
    }
}

/// Sends a request over a connection of its own and reads until that ends.
pub fn exchange(addr: SocketAddr, request: &str) -> Received {
    let mut client = Client::connect(addr);
    client.send(request);
    client.read_all()
}

pub fn put(path: &str, body: &str) -> String {
    format!(
        "PUT {path} HTTP/1.1\r\nHost: blobs\r\nIf-None-Match: *\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A request after which the server closes the connection.
pub fn last(request: &str) -> String {
    request.replacen("\r\n", "\r\nConnection: close\r\n", 1)
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: blobs\r\n\r\n")
}

pub const CREATED: &str = "HTTP/1.1 201 Text\r\nX-Server: tiny\r\nContent-Length: 0\r\n\r\n";
pub const FOUND: &str = "HTTP/1.1 200 Text\r\nX-Server: tiny\r\nContent-Length: 11\r\n\r\n";
