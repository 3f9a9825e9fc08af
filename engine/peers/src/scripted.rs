//! A server over TLS that answers with the very bytes that a test gives it, as no well-behaved one would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::certificates::Certificates;
use crate::server::{self, Server};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Such as `GET`.
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

impl Asked {
    /// Returns the first header of a name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// A server on a port of 127.0.0.1, until it is dropped.
#[derive(Debug)]
pub struct Scripted {
    server: Server,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// Starts one that shows a certificate and answers each request, which has a connection of its own, with bytes;
    /// with none it closes the connection.
    ///
    /// # Panics
    /// If no port is free, or the certificate cannot be read.
    #[must_use]
    pub fn start(
        certificates: &Certificates,
        answering: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let server = Server::start(Some(certificates.server_config()), move |request| {
            let asked = Asked {
                method: request.method.clone(),
                target: request.target.clone(),
                headers: request.headers.clone(),
                body: request.body.clone(),
            };
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
            answering(&asked)
        });
        Self { server, asked }
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns what arrived so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns all bytes of a well-formed answer.
#[must_use]
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    server::answer(status, headers, body)
}
