//! A service with headers in its answers that it does not have by itself: what Azure tells of object replication, say.
//!
//! It stands before another server and passes on what is read. Requests with bodies that are no text are not for it.

use crate::http;
use crate::server::{Request, Server};

/// Headers to add, as names and values.
pub type Headers = Vec<(&'static str, &'static str)>;

/// The server, on a port of 127.0.0.1, until it is dropped.
#[derive(Debug)]
pub struct Annotated {
    server: Server,
}

impl Annotated {
    /// Starts one before a server such as `http://127.0.0.1:40000`. `notes` is given the path of each request and returns what
    /// a successful answer to it has as well.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start(origin: &str, notes: impl Fn(&str) -> Headers + Send + Sync + 'static) -> Self {
        let origin = origin.to_owned();
        Self { server: Server::start(None, move |request| pass(&origin, request, &notes)) }
    }

    /// Returns where it listens: scheme, host and port, without a slash at the end.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.server.address())
    }
}

/// Names of headers that are of one connection, or that are added anyway.
const OF_CONNECTION: [&str; 5] = ["connection", "content-length", "host", "keep-alive", "transfer-encoding"];

fn pass(origin: &str, request: &Request, notes: &impl Fn(&str) -> Headers) -> Vec<u8> {
    let headers: Vec<(&str, &str)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| !OF_CONNECTION.contains(name))
        .collect();
    let url = format!("{origin}{}", request.target);
    let answer = http::send(&request.method, &url, &headers, request.body.as_bytes());
    let path = request.target.split('?').next().unwrap_or_default();
    let notes = if answer.status < 300 { notes(path) } else { Headers::new() };
    // That of an answer to HEAD is the length of a body that does not follow.
    let len = match answer.header("content-length") {
        Some(len) if request.method == "HEAD" => len.to_owned(),
        _ => answer.body.len().to_string(),
    };
    let mut head =
        format!("HTTP/1.1 {} Answer\r\nContent-Length: {len}\r\nConnection: close\r\n", answer.status);
    let own = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.filter(|(name, _)| !OF_CONNECTION.contains(name)).chain(notes) {
        head.extend([name, ": ", value, "\r\n"]);
    }
    [head.as_bytes(), b"\r\n", &answer.body].concat()
}
