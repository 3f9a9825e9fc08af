//! Requests to a server, over HTTPS only.

use super::error::VSphereError;
use super::soap::{self, Question};
use super::xml::Element;
use crate::tls::{self, Trust, WrongThumbprint};
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, RANGE, SET_COOKIE};
use reqwest::redirect::Policy;
use std::io::Read;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long an answer may be: a VM with many snapshots and devices takes some hundred KiB, a page of changed areas 300.
const ANSWER_LEN_MAX: u64 = 64 << 20;

/// How long an unused connection is kept: less than servers keep it, so that none is used that the server just closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The cookie that carries a session.
const SESSION_COOKIE: &str = "vmware_soap_session";

/// The way to one server.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    /// `HOST:PORT`, with brackets around an IPv6 address.
    host: String,
}

/// A session's cookie.
pub(super) type Cookie = Zeroizing<String>;

/// An answer with what is to be known of its head.
pub(super) struct Answer {
    pub(super) response: Element,
    pub(super) cookie: Option<Cookie>,
}

impl Connection {
    /// Prepares to ask a server; sends nothing. Takes no proxies from the environment: servers are near.
    pub(super) fn new(
        (host, port): (&str, u16),
        trust: &Trust,
        (connect_timeout, answer_timeout): (Duration, Duration),
    ) -> Result<Self, VSphereError> {
        let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let config = tls::client_config(trust, None)?;
        let client = Client::builder()
            .tls_backend_preconfigured((*config).clone())
            .https_only(true)
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(connect_timeout)
            .timeout(answer_timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build();
        match client {
            Ok(client) => Ok(Self { client, host }),
            Err(error) => Err(failed(&host, error)),
        }
    }

    /// The host and the port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Asks a question.
    pub(super) fn ask(&self, question: &Question, cookie: Option<&Cookie>) -> Result<Answer, VSphereError> {
        let method = question.method;
        let request = self
            .client
            .post(format!("https://{}/sdk", self.host))
            .header(CONTENT_TYPE, "text/xml; charset=utf-8")
            .header("SOAPAction", format!("\"{}\"", soap::ACTION))
            .body(question.envelope());
        let response = self.send(request, cookie)?;
        let status = response.status().as_u16();
        let cookie = session_cookie(response.headers());
        let mut body = Vec::new();
        let read = response.take(ANSWER_LEN_MAX + 1).read_to_end(&mut body);
        read.map_err(|error| self.broken(error))?;
        if body.len() as u64 > ANSWER_LEN_MAX {
            return Err(VSphereError::TooLong { method, limit: ANSWER_LEN_MAX });
        }
        Ok(Answer { response: soap::answer(method, status, &body)?, cookie })
    }

    /// Gets the bytes of a file from `start` on, as many as `buffer` takes, and returns the length of the file.
    pub(super) fn get(
        &self,
        path: (&[&str], &[(&str, &str)]),
        cookie: &Cookie,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<u64, VSphereError> {
        const METHOD: &str = "GET /folder";
        let malformed = |what: String| VSphereError::Malformed { method: METHOD, what };
        let (segments, query) = path;
        let url = reqwest::Url::parse(&format!("https://{}/", self.host));
        let mut url = url.map_err(|error| malformed(format!("the host makes no URL: {error}")))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url.query_pairs_mut().extend_pairs(query);

        let last = (buffer.len() as u64).checked_sub(1).and_then(|len| start.checked_add(len));
        let last = last.ok_or_else(|| malformed("no bytes are asked for, or too many".to_owned()))?;
        let request = self.client.get(url).header(RANGE, format!("bytes={start}-{last}"));
        let mut response = self.send(request, Some(cookie))?;
        let status = response.status().as_u16();
        if status != 206 {
            return Err(VSphereError::Status { method: METHOD, status });
        }
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let range = range.ok_or_else(|| malformed("it says not which range it is".to_owned()))?;
        let len = file_len(range, (start, last))
            .ok_or_else(|| malformed(format!("it is of the range {range:?}, not {start}-{last}")))?;
        response.read_exact(buffer).map_err(|error| self.broken(error))?;
        let longer = response.read(&mut [0]).map_err(|error| self.broken(error))?;
        if longer > 0 {
            return Err(malformed("it is longer than the range".to_owned()));
        }
        Ok(len)
    }

    fn send(&self, request: RequestBuilder, cookie: Option<&Cookie>) -> Result<Response, VSphereError> {
        let request = match cookie {
            None => request,
            Some(cookie) => {
                let text = Zeroizing::new(format!("{SESSION_COOKIE}={}", cookie.as_str()));
                let value = HeaderValue::from_str(&text).map(|mut value| {
                    value.set_sensitive(true);
                    value
                });
                let value = value.map_err(|_| VSphereError::Malformed {
                    method: "Login",
                    what: "the session's cookie holds what none can hold".to_owned(),
                })?;
                request.header(COOKIE, value)
            }
        };
        request.send().map_err(|error| failed(&self.host, error))
    }

    fn broken(&self, error: std::io::Error) -> VSphereError {
        match error.downcast::<reqwest::Error>() {
            Ok(error) => failed(&self.host, error),
            Err(error) => VSphereError::Connection { host: self.host.clone(), source: error.into() },
        }
    }
}

/// Says how a request failed. URLs of requests hold nothing secret, but say nothing either.
fn failed(host: &str, error: reqwest::Error) -> VSphereError {
    let (host, error) = (host.to_owned(), error.without_url());
    if let Some(source) = WrongThumbprint::among_causes(&error) {
        return VSphereError::WrongThumbprint { host, source };
    }
    match tls::tls_cause(&error).cloned() {
        Some(source) => VSphereError::Tls { host, source: source.into() },
        None => VSphereError::Connection { host, source: error.into() },
    }
}

/// Returns the value of the session's cookie as it is to be sent back, with its quotes if it has any.
fn session_cookie(headers: &HeaderMap) -> Option<Cookie> {
    headers.get_all(SET_COOKIE).iter().find_map(|value| {
        let (pair, _) = value.to_str().ok()?.split_once(';').or(Some((value.to_str().ok()?, "")))?;
        let (name, value) = pair.split_once('=')?;
        (name.trim() == SESSION_COOKIE).then(|| Zeroizing::new(value.trim().to_owned()))
    })
}

/// Returns the length of a file, of which an answer says that it is the range that was asked for.
fn file_len(content_range: &str, (start, last): (u64, u64)) -> Option<u64> {
    let rest = content_range.trim().strip_prefix("bytes ")?;
    let (range, len) = rest.split_once('/')?;
    let (found_start, found_last) = range.split_once('-')?;
    let same = found_start.parse() == Ok(start) && found_last.parse() == Ok(last);
    let len = len.parse().ok()?;
    (same && last < len).then_some(len)
}
