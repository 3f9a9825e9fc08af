//! One HTTP request and its answer, over a connection of their own: what tests do beside the program.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::certificates::client_config;

/// No answer of a peer on this machine takes this long; a test that waits for more hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, such as 201.
    pub status: u16,
    /// The headers' names, in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header, whose name is given in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The way to servers. Without anything, it leads to `http://HOST:PORT/PATH` only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Way<'a> {
    /// The file of the only authority to trust, for `https` URLs.
    pub ca_file: Option<&'a Path>,
    /// The proxy `http://HOST:PORT`, for `http` URLs.
    pub proxy: Option<&'a str>,
}

impl Way<'_> {
    /// Sends one request and reads its answer. `Host` and `Content-Length` are added.
    ///
    /// # Panics
    /// If there is no way to the URL, and if the server does not answer with HTTP.
    #[must_use]
    pub fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let (scheme, rest) = url.split_once("://").expect("a URL has a scheme");
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let answer = match (scheme, self.proxy, self.ca_file) {
            ("http", None, _) => {
                exchange(connect(host), &head(method, host, path, headers, body.len()), body)
            }
            ("http", Some(proxy), _) => {
                let proxy = proxy.strip_prefix("http://").expect("the proxy is an http URL");
                exchange(connect(proxy), &head(method, host, url, headers, body.len()), body)
            }
            ("https", _, Some(ca_file)) => {
                let stream = secure(host, ca_file);
                exchange(stream, &head(method, host, path, headers, body.len()), body)
            }
            ("https", _, None) => panic!("no authority was given to trust for https"),
            _ => panic!("no way leads to {scheme} URLs"),
        };
        // Queries hold signatures.
        let path = path.split('?').next().unwrap_or(path);
        answer.unwrap_or_else(|error| panic!("{method} {scheme}://{host}{path}: {error}"))
    }
}

/// Sends one request straight to an `http` URL: [`Way::send`].
///
/// # Panics
/// Like [`Way::send`].
#[must_use]
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Way::default().send(method, url, headers, body)
}

fn connect(address: &str) -> TcpStream {
    let stream =
        TcpStream::connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("the duration is not zero");
    stream
}

fn secure(address: &str, ca_file: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    let name = address.split(':').next().unwrap_or(address).to_owned();
    let name = ServerName::try_from(name).expect("the URL's host is a name or an address");
    let connection =
        ClientConnection::new(client_config(ca_file), name).expect("the configuration is complete");
    StreamOwned::new(connection, connect(address))
}

/// HTTP/1.0, so that the answer is neither chunked nor followed by anything: it ends where the connection ends.
fn head(method: &str, host: &str, target: &str, headers: &[(&str, &str)], body_len: usize) -> String {
    let mut head = format!("{method} {target} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {body_len}\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head
}

fn exchange(mut stream: impl Read + Write, head: &str, body: &[u8]) -> io::Result<Answer> {
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let head = std::str::from_utf8(head).expect("the head of an answer is text");
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("an answer has a status"),
        headers: headers.split("\r\n").filter_map(header).collect(),
        body: body.to_vec(),
    }
}

/// Returns the name, in small letters, and the value of a header.
pub(crate) fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}
