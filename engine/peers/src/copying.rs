//! A blob service that copies: Put Blob From URL and Copy Blob as Microsoft documents them, where Azurite lacks them or is
//! done at once.
//!
//! It reads the source over HTTP, so that whoever has it judges what authorizes that. It looks at nothing that
//! authorizes its own requests, and has no other operations than Get Blob and Get Blob Properties. Its blobs are in memory.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest as _, Md5};

use crate::http;
use crate::server::{Request, Server};

/// What the service does with the next request to copy, instead of copying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It copies, and closes the connection without an answer.
    LosesAnswer,
    /// It refuses.
    Refuses {
        /// The status.
        status: u16,
        /// The code of the error; none is sent if it is empty.
        code: &'static str,
        /// The status that it says the source answered.
        source_status: Option<u16>,
    },
    /// It makes an empty blob, as a service that overlooks where to copy from.
    MakesEmpty,
}

/// A request to copy, as it arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Asked {
    /// The path of the blob to be created.
    pub path: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
}

impl Asked {
    /// Returns the first header of a name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The source's URL and what authorizes it are secrets.
impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("path", &self.path).finish_non_exhaustive()
    }
}

/// How a Copy Blob goes on after its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// So often Get Blob Properties says that it is under way.
    pub pending: u32,
    /// Whether it fails in the end.
    pub fails: bool,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Blob>,
    asked: Vec<Asked>,
    deeds: VecDeque<Deed>,
    knows_put_from_url: bool,
    course: Course,
}

#[derive(Clone)]
struct Blob {
    bytes: Vec<u8>,
    metadata: Vec<(String, String)>,
    tier: Option<String>,
    /// What is under way.
    copy: Option<(Course, Vec<u8>)>,
}

/// A service on a port of 127.0.0.1, until it is dropped.
pub struct CopyingService {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl CopyingService {
    /// Starts one that knows Put Blob From URL.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start() -> Self {
        Self::of(State { knows_put_from_url: true, ..State::default() })
    }

    /// Starts one that knows Copy Blob only.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start_copying_later(course: Course) -> Self {
        Self::of(State { course, ..State::default() })
    }

    fn of(state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let server = Server::start(None, move |request| answer(&shared, request));
        Self { server, state }
    }

    /// Returns the endpoint of an account, any one.
    #[must_use]
    pub fn endpoint(&self, account: &str) -> String {
        format!("http://{}/{account}", self.server.address())
    }

    /// Does these things with the next requests to copy, one with each.
    pub fn next(&self, deeds: impl IntoIterator<Item = Deed>) {
        lock(&self.state).deeds.extend(deeds);
    }

    /// Returns the requests to copy that arrived so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state).asked.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(state: &Mutex<State>, request: &Request) -> Vec<u8> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    match (request.method.as_str(), request.header("x-ms-copy-source")) {
        ("HEAD" | "GET", _) => read(&mut lock(state), path, request.method == "HEAD"),
        ("PUT", Some(source)) if !query.contains("comp=") => copy(state, path, source, request),
        _ => refused(400, "UnsupportedHttpVerb", None),
    }
}

fn read(state: &mut State, path: &str, only_head: bool) -> Vec<u8> {
    let Some(blob) = state.blobs.get_mut(path) else { return refused(404, "BlobNotFound", None) };
    let mut headers = blob.metadata.clone();
    if let Some((course, bytes)) = &mut blob.copy {
        let status = match (course.pending, course.fails) {
            (1.., _) => "pending",
            (0, true) => "failed",
            (0, false) => "success",
        };
        if status == "success" {
            blob.bytes.clone_from(bytes);
        }
        course.pending = course.pending.saturating_sub(1);
        headers.push(("x-ms-copy-status".to_owned(), status.to_owned()));
    }
    headers.push(("ETag".to_owned(), "\"0x1\"".to_owned()));
    headers.push(("Content-MD5".to_owned(), md5(&blob.bytes)));
    headers.extend(blob.tier.iter().map(|tier| ("x-ms-access-tier".to_owned(), tier.clone())));
    let mut answer = head(200, &headers, blob.bytes.len());
    if !only_head {
        answer.extend_from_slice(&blob.bytes);
    }
    answer
}

fn copy(state: &Mutex<State>, path: &str, source: &str, request: &Request) -> Vec<u8> {
    let (deed, knows_put_from_url, course) = {
        let mut state = lock(state);
        state.asked.push(Asked { path: path.to_owned(), headers: request.headers.clone() });
        (state.deeds.pop_front(), state.knows_put_from_url, state.course)
    };
    if let Some(Deed::Refuses { status, code, source_status }) = deed {
        return refused(status, code, source_status);
    }
    let is_put = request.header("x-ms-blob-type").is_some();
    if is_put != knows_put_from_url {
        return refused(400, "UnsupportedHeader", None);
    }
    let token = request.header("x-ms-copy-source-authorization");
    let authorization: Vec<_> = token.iter().map(|token| ("authorization", *token)).collect();
    let version = ("x-ms-version", request.header("x-ms-version").unwrap_or_default());
    let read = http::send("GET", source, &[authorization, vec![version]].concat(), &[]);
    if read.status != 200 {
        return refused(read.status, "CannotVerifyCopySource", Some(read.status));
    }
    let mut state = lock(state);
    if request.header("if-none-match") == Some("*") && state.blobs.contains_key(path) {
        return refused(409, "BlobAlreadyExists", None);
    }
    if request.header("x-ms-source-content-md5").is_some_and(|expected| expected != md5(&read.body)) {
        return refused(400, "Md5Mismatch", None);
    }
    let metadata =
        request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-meta-")).cloned().collect();
    let tier = request.header("x-ms-access-tier").map(str::to_owned);
    let (bytes, copy) = match deed {
        Some(Deed::MakesEmpty) => (Vec::new(), None),
        _ if is_put => (read.body, None),
        _ => (Vec::new(), Some((course, read.body))),
    };
    let headers = [("Content-MD5".to_owned(), md5(&bytes))];
    state.blobs.insert(path.to_owned(), Blob { bytes, metadata, tier, copy });
    match deed {
        Some(Deed::LosesAnswer) => Vec::new(),
        _ if is_put => head(201, &headers, 0),
        _ => head(202, &[], 0),
    }
}

fn refused(status: u16, code: &str, source_status: Option<u16>) -> Vec<u8> {
    let code = Some(code)
        .filter(|code| !code.is_empty())
        .map(|code| ("x-ms-error-code".to_owned(), code.to_owned()));
    let source = source_status.map(|status| ("x-ms-copy-source-status-code".to_owned(), status.to_string()));
    head(status, &code.into_iter().chain(source).collect::<Vec<_>>(), 0)
}

/// The head of an answer. An answer to HEAD has the length of a body that does not follow.
fn head(status: u16, headers: &[(String, String)], body_len: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Answer\r\nx-ms-request-id: 1\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    format!("{head}Content-Length: {body_len}\r\nConnection: close\r\n\r\n").into_bytes()
}

fn md5(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Md5::digest(bytes))
}
