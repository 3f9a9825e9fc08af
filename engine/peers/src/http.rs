//! One HTTP request and its answer, over a connection of their own: what tests do beside the program.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// No answer of a peer on this machine takes this long; a test that waits for more hangs.
const ANSWER_SECONDS: u64 = 60;

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

/// Sends one request to `http://HOST:PORT/PATH` and reads its answer. `Host` and `Content-Length` are added.
///
/// # Panics
/// If the URL is of another kind, and if the server does not answer with HTTP.
#[must_use]
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} does not begin with http://"));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut connection = TcpStream::connect(authority)
        .unwrap_or_else(|error| panic!("cannot connect to {authority}: {error}"));
    let patience = Some(Duration::from_secs(ANSWER_SECONDS));
    connection.set_read_timeout(patience).expect("the duration is not zero");

    exchange(&mut connection, &head(method, authority, path, headers, body.len()), body).unwrap_or_else(
        |error| panic!("{method} {authority}{path_only}: {error}", path_only = without_query(path)),
    )
}

/// Returns the path alone: queries hold signatures.
fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// HTTP/1.0, so that the answer is neither chunked nor followed by anything: it ends where the connection ends.
fn head(method: &str, host: &str, path: &str, headers: &[(&str, &str)], body_len: usize) -> String {
    let path = if path.is_empty() { "/" } else { path };
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {body_len}\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head
}

fn exchange(connection: &mut (impl Read + Write), head: &str, body: &[u8]) -> std::io::Result<Answer> {
    connection.write_all(head.as_bytes())?;
    connection.write_all(body)?;
    connection.flush()?;
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let head = std::str::from_utf8(head).expect("the head of an answer is text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a header has a colon");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    Answer {
        status: status.expect("an answer has a status"),
        headers: headers.collect(),
        body: body.to_vec(),
    }
}
