//! The way to the network: what comes and goes is counted and held to its limits here, and no error tells a URL, which
//! may hold a signature.

use super::rate::Rate;
use crate::frames::lock;
use crate::store::Traffic;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{AsyncRawResponse, Body, Context, HttpClient, Method, Request};
use azure_core::stream::SeekableStream;
use bytes::Bytes;
use futures::io::AsyncRead;
use futures::stream::{Stream, StreamExt, unfold};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// What every answer of a blob service has.
const REQUEST_ID: &str = "x-ms-request-id";
/// What is read of an answer that is a listing: 5000 names of 1024 characters, each escaped, with their properties.
const LISTING_LEN_MAX: u64 = 64 << 20;
/// What is read of an answer that is neither a listing nor a blob: an error or a token. The library holds it whole.
const ANSWER_LEN_MAX: u64 = 1 << 20;
/// How long a connection is kept that nobody uses; services close them after a few minutes.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Counts and limits, shared by all requests.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) traffic: Mutex<Traffic>,
    pub(super) upload: Option<Rate>,
    pub(super) download: Option<Rate>,
    began: Instant,
}

impl Meter {
    pub(super) fn new(upload: Option<NonZeroU64>, download: Option<NonZeroU64>) -> Self {
        let [upload, download] = [upload, download].map(|limit| limit.map(Rate::new));
        Self { traffic: Mutex::default(), upload, download, began: Instant::now() }
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Traffic)) {
        add(&mut lock(&self.traffic));
    }

    /// Waits until so many bytes may be moved.
    pub(super) async fn pass(&self, rate: Option<&Rate>, bytes: usize) {
        if let Some(rate) = rate {
            let now = self.began.elapsed();
            let at = rate.take(bytes as u64, now);
            if at > now {
                tokio::time::sleep_until(self.began + at).await;
            }
        }
    }
}

/// A request's body that arrives in parts; the transport takes it out of the request's context.
pub(super) struct Upload(pub(super) Mutex<Option<Receiver<Bytes>>>);

/// What stands in a request for an [`Upload`]: the library needs to know its length.
#[derive(Clone, Debug)]
pub(super) struct Announced(pub(super) u64);

impl AsyncRead for Announced {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
        _: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Err(std::io::ErrorKind::Unsupported.into()))
    }
}

#[async_trait::async_trait]
impl SeekableStream for Announced {
    async fn reset(&mut self) -> azure_core::Result<()> {
        Ok(())
    }

    fn len(&self) -> Option<u64> {
        Some(self.0)
    }
}

/// The last policy of every pipeline, and the HTTP client of the token credentials.
#[derive(Debug)]
pub(super) struct Transport {
    client: reqwest::Client,
    meter: Arc<Meter>,
}

impl Transport {
    /// Takes its proxies and certificate authorities from where reqwest finds them.
    pub(super) fn new(meter: Arc<Meter>) -> Result<Self, std::io::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| std::io::Error::other(error.without_url()))?;
        Ok(Self { client, meter })
    }

    async fn exchange(
        &self,
        request: &Request,
        body: reqwest::Body,
    ) -> azure_core::Result<reqwest::Response> {
        let mut headers = reqwest::header::HeaderMap::with_capacity(16);
        for (name, value) in request.headers().iter() {
            let name = reqwest::header::HeaderName::from_bytes(name.as_str().as_bytes());
            let value = reqwest::header::HeaderValue::from_str(value.as_str());
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Error::with_message(ErrorKind::Other, "a header holds what none can hold"));
            };
            headers.insert(name, value);
        }
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes())
            .map_err(|_| Error::with_message(ErrorKind::Other, "a method that is none"))?;
        let to_send = self.client.request(method, request.url().clone());
        let sent = to_send.headers(headers).body(body).send().await;
        sent.map_err(|error| {
            let kind = if error.is_connect() { ErrorKind::Connection } else { ErrorKind::Io };
            Error::with_error(kind, error.without_url(), "the request failed")
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        Ok(self.response(self.sent(request).await?, ANSWER_LEN_MAX))
    }
}

#[async_trait::async_trait]
impl Policy for Transport {
    async fn send(&self, context: &Context, request: &mut Request, _: &[Arc<dyn Policy>]) -> PolicyResult {
        let parts = context.value::<Upload>().and_then(|upload| lock(&upload.0).take());
        let response = match parts {
            Some(parts) => {
                let body = reqwest::Body::wrap_stream(counted(parts, Arc::clone(&self.meter)));
                self.exchange(request, body).await?
            }
            None => self.sent(request).await?,
        };
        if response.status().is_success() && !response.headers().contains_key(REQUEST_ID) {
            // A page to log in to a network, say. Read as a listing it would be an empty one, and as a blob damaged.
            return Err(Error::with_message(ErrorKind::DataConversion, "the answer has no id of a request"));
        }
        let is_listing = request.url().query_pairs().any(|(name, value)| name == "comp" && value == "list");
        let len_max = match request.method() {
            _ if !response.status().is_success() => ANSWER_LEN_MAX,
            Method::Get if is_listing => LISTING_LEN_MAX,
            // Whoever reads a blob knows how much of it is wanted.
            Method::Get => u64::MAX,
            _ => ANSWER_LEN_MAX,
        };
        Ok(self.response(response, len_max))
    }
}

impl Transport {
    /// Sends a request whose body is in memory.
    async fn sent(&self, request: &Request) -> azure_core::Result<reqwest::Response> {
        let Body::Bytes(bytes) = request.body() else {
            return Err(Error::with_message(ErrorKind::Other, "a body has no bytes"));
        };
        self.meter.count(|traffic| traffic.bytes_out += bytes.len() as u64);
        self.exchange(request, reqwest::Body::from(bytes.clone())).await
    }

    /// The library's form of an answer, with a body that is counted and limited, and ends with an error behind so many
    /// bytes.
    fn response(&self, response: reqwest::Response, len_max: u64) -> AsyncRawResponse {
        let status = response.status().as_u16().into();
        let fields: HashMap<HeaderName, HeaderValue> = response
            .headers()
            .iter()
            .filter_map(|(name, value)| {
                let value = value.to_str().ok()?.to_owned();
                Some((HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value)))
            })
            .collect();
        let meter = Arc::clone(&self.meter);
        let mut room = len_max;
        let body = response.bytes_stream().then(move |part| {
            let meter = Arc::clone(&meter);
            let left = part.as_ref().map_or(Some(room), |part| room.checked_sub(part.len() as u64));
            room = left.unwrap_or(0);
            async move {
                let part = part.map_err(|error| {
                    Error::with_error(ErrorKind::Io, error.without_url(), "the answer broke off")
                })?;
                meter.count(|traffic| traffic.bytes_in += part.len() as u64);
                if left.is_none() {
                    return Err(Error::with_message(ErrorKind::DataConversion, "the answer is too long"));
                }
                meter.pass(meter.download.as_ref(), part.len()).await;
                Ok(part)
            }
        });
        AsyncRawResponse::new(status, Headers::from(fields), Box::pin(body))
    }
}

fn counted(parts: Receiver<Bytes>, meter: Arc<Meter>) -> impl Stream<Item = std::io::Result<Bytes>> {
    unfold((parts, meter), |(mut parts, meter)| async move {
        let part = parts.recv().await?;
        meter.count(|traffic| traffic.bytes_out += part.len() as u64);
        Some((Ok(part), (parts, meter)))
    })
}
