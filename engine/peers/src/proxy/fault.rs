//! What can happen to a request.

use super::http::{Body, Head, field};
use std::fmt;
use std::io;
use std::time::Duration;

/// A request as a plan sees it, before its body is read.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// How many requests came before it through this proxy, over all connections.
    pub number: u64,
    /// Its method, in capital letters.
    pub method: String,
    /// The path of its target, as it was sent.
    pub path: String,
    /// What follows the question mark, which may hold secrets.
    pub query: Option<String>,
    /// Its fields as they were sent, which may hold secrets.
    pub headers: Vec<(String, String)>,
    /// The length of its body; none if it comes in chunks.
    pub body_len: Option<u64>,
}

impl Request {
    pub(crate) fn new(number: u64, head: &Head, body: &Body) -> io::Result<Self> {
        let (method, target) = head.request_line()?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Ok(Self {
            number,
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            headers: head.fields.clone(),
            body_len: body.len(),
        })
    }

    /// The value of the first header of a name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }

    /// Whether it asks for something and changes nothing.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.method == "GET" || self.method == "HEAD"
    }
}

/// Signatures stand in the query and in headers: neither is shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}: {} {}", self.number, self.method, self.path)
    }
}

/// What is done to a request.
///
/// Positions count from the start of a body. They are taken modulo the body's length where its head tells that, so that
/// any number is a position in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the request and its answer pass unchanged.
    Forward,
    /// The server carries it out and answers, and the connection is closed without a byte of the answer.
    AnswerLost,
    /// The connection is reset before the server hears of the request.
    ResetAtOnce,
    /// Both connections end after so many bytes of the request's body: the server has a cut request, the client a
    /// reset. Without a body it is the head that is cut.
    RequestCut {
        /// Bytes of the body that the server gets.
        after: u64,
    },
    /// The connection is reset after the answer's head and at most so many bytes of its body. An answer without a body
    /// loses the end of its head, and one in fewer chunks the last of what ends them.
    AnswerReset {
        /// Bytes of the body that are sent.
        after: u64,
    },
    /// The same, but the connection is closed as if that were all.
    AnswerTruncated {
        /// Bytes of the body that are sent.
        after: u64,
    },
    /// The server hears nothing, and the client is refused. What it sends is read all the same.
    Refused(Refusal),
    /// The server carries it out, and the client is told otherwise.
    RefusedAfter(Refusal),
    /// The server carries it out, and its answer never comes.
    Stuck,
    /// The answer stops in its middle and never goes on.
    StuckInAnswer {
        /// Bytes of the body that are sent; see [`Fault::AnswerReset`].
        after: u64,
    },
    /// The answer's body comes in drips.
    Slow {
        /// Bytes in one drip.
        drip: usize,
        /// The time between two.
        pause: Duration,
    },
    /// A byte of the answer's body is wrong. Nothing happens to an answer without a body, or in fewer chunks.
    AnswerFlipped {
        /// Which one.
        at: u64,
    },
    /// The server is sent a request whose body has a wrong byte.
    RequestFlipped {
        /// Which one.
        at: u64,
    },
    /// The server is sent the request twice, over two connections, and the client gets the first answer after both.
    Duplicated,
    /// The connection is reset, and the server is sent the request later.
    AppliedLater {
        /// After so many later requests, before the client has the answer to the last of them; 0 for at once. None for
        /// when [`Proxy::deliver_late`](super::Proxy::deliver_late) is called, which delivers what waits for requests
        /// as well.
        further: Option<u64>,
    },
}

impl Fault {
    /// What it is, without its numbers; nothing for a request that passes unchanged.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::Forward => return None,
            Self::AnswerLost => Kind::AnswerLost,
            Self::ResetAtOnce => Kind::ResetAtOnce,
            Self::RequestCut { .. } => Kind::RequestCut,
            Self::AnswerReset { .. } => Kind::AnswerReset,
            Self::AnswerTruncated { .. } => Kind::AnswerTruncated,
            Self::Refused(refusal) => Kind::Refused(*refusal),
            Self::RefusedAfter(refusal) => Kind::RefusedAfter(*refusal),
            Self::Stuck => Kind::Stuck,
            Self::StuckInAnswer { .. } => Kind::StuckInAnswer,
            Self::Slow { .. } => Kind::Slow,
            Self::AnswerFlipped { .. } => Kind::AnswerFlipped,
            Self::RequestFlipped { .. } => Kind::RequestFlipped,
            Self::Duplicated => Kind::Duplicated,
            Self::AppliedLater { .. } => Kind::AppliedLater,
        })
    }
}

/// The kinds of [`Fault`], for counting and drawing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named like a fault, which says what it is")]
pub enum Kind {
    AnswerLost,
    ResetAtOnce,
    RequestCut,
    AnswerReset,
    AnswerTruncated,
    Refused(Refusal),
    RefusedAfter(Refusal),
    Stuck,
    StuckInAnswer,
    Slow,
    AnswerFlipped,
    RequestFlipped,
    Duplicated,
    AppliedLater,
}

impl Kind {
    /// Whether it can make a difference to a request.
    #[must_use]
    pub fn concerns(self, request: &Request) -> bool {
        match self {
            Self::RequestCut | Self::RequestFlipped => request.body_len != Some(0),
            Self::AnswerFlipped | Self::Slow => request.method == "GET",
            Self::RefusedAfter(_) | Self::Duplicated | Self::AppliedLater => !request.is_read(),
            _ => true,
        }
    }
}

/// How a server refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The code of Azure's errors, in a header and in the body; none for what a gateway in between answers.
    pub code: Option<&'static str>,
    /// The seconds that the client is told to wait.
    pub retry_after_seconds: Option<u64>,
}

impl Refusal {
    /// The account has more requests than it may have, or is being moved.
    pub const SERVER_BUSY: Self = Self::azure(503, "ServerBusy");
    /// A partition of the account did not answer in time, and may have carried the request out.
    pub const OPERATION_TIMED_OUT: Self = Self::azure(500, "OperationTimedOut");
    /// Something failed in the server.
    pub const INTERNAL_ERROR: Self = Self::azure(500, "InternalError");
    /// The client has more requests than it may have.
    pub const TOO_MANY_REQUESTS: Self = Self::azure(429, "TooManyRequests");
    /// A signature that is wrong or has expired.
    pub const AUTHENTICATION_FAILED: Self = Self::azure(403, "AuthenticationFailed");
    /// Rights that do not suffice.
    pub const PERMISSION_MISMATCH: Self = Self::azure(403, "AuthorizationPermissionMismatch");
    /// A gateway that waited too long for the request.
    pub const REQUEST_TIMEOUT: Self = Self::gateway(408);
    /// A gateway that could not reach the server.
    pub const BAD_GATEWAY: Self = Self::gateway(502);
    /// A gateway that waited too long for the server.
    pub const GATEWAY_TIMEOUT: Self = Self::gateway(504);

    /// An error of Azure's.
    #[must_use]
    pub const fn azure(status: u16, code: &'static str) -> Self {
        Self { status, code: Some(code), retry_after_seconds: None }
    }

    /// An error of something between the client and Azure.
    #[must_use]
    pub const fn gateway(status: u16) -> Self {
        Self { status, code: None, retry_after_seconds: None }
    }

    /// The same, with a time to wait.
    #[must_use]
    pub const fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    /// The answer, whose body is left out for HEAD.
    pub(crate) fn answer(self, to_head: bool, closes: bool) -> Vec<u8> {
        let code = self.code.map(|code| format!("x-ms-error-code: {code}\r\n")).unwrap_or_default();
        let wait = self.retry_after_seconds.map(|s| format!("Retry-After: {s}\r\n")).unwrap_or_default();
        let body = self.code.map(|code| {
            format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
                 <Error><Code>{code}</Code><Message>Injected fault.</Message></Error>"
            )
        });
        let body = body.unwrap_or_else(|| "<html><body>Injected fault.</body></html>".to_owned());
        let kind = if self.code.is_some() { "application/xml" } else { "text/html" };
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let mut answer = format!(
            "HTTP/1.1 {} Refused\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{code}{wait}{connection}\r\n",
            self.status,
            body.len()
        );
        if !to_head {
            answer.push_str(&body);
        }
        answer.into_bytes()
    }
}
