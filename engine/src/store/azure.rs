//! A store in a container of Azure Blob Storage: the one place where synchronous and asynchronous code meet.
//!
//! Each call blocks its thread until it is done; what waits underneath is driven by the runtime whose handle the store
//! holds. So calls come from threads that may wait, and never from the runtime's own.
//!
//! A blob is made by one Put Blob with `If-None-Match: *`, and has its BLAKE3 digest in its metadata. Nothing is
//! overwritten, leased or made of blocks, and nothing is asked about the container but its listing: who may read,
//! create and list can do everything but delete.
//!
//! Every request goes through `AzureStore::tried`, which is all there is of retries. A create that meets a blob, or
//! is refused, is settled by reading back what is there: the answer of an earlier try may have been lost.
//!
//! # Memory
//! `PARTS_QUEUED + 2` parts of `PART_LEN` for each create besides the caller's bytes, and the bytes of each read.

mod certificate;
mod copying;
mod credential;
mod failure;
mod gate;
mod identity;
mod listing;
mod place;
mod rate;
mod reading;
mod replication;
mod retry;
mod sas;
mod service_error;
mod shared_key;
mod transport;

pub use credential::{Credential, CredentialError, Secret};
pub use place::{AzurePlace, PlaceError};
pub use replication::ReplicationState;
pub use retry::{Listener, RetryPolicy, Setback};
pub use service_error::{Answer, ServiceError};

use super::{BlobStore, Page, PerTier, Put, StoreError, Traffic};
use crate::entropy::Entropy;
use crate::frames::lock;
use azure_core::http::headers::Headers;
use azure_core::http::policies::Policy;
use azure_core::http::{Body, ClientMethodOptions, ClientOptions, Context, RetryOptions, Transport};
use azure_storage_blob::models::{AccessTier, BlobClientGetPropertiesOptions, BlockBlobClientUploadOptions};
use azure_storage_blob::{
    BlobClient, BlobContainerClient, BlobContainerClientOptions, BlobServiceClient, BlobServiceClientOptions,
};
use bytes::Bytes;
use failure::{Failure, header};
use futures::future::{Either, select};
use gate::{Gate, Pass};
use identity::Authority;
use md5::{Digest as _, Md5};
use repo_format::{BlobKind, BlobName, PackKind};
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use transport::{Announced, Meter, Upload};

/// The tier that data packs are created in. Archived blobs could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// For data that is read now and then.
    #[default]
    Hot,
    /// Cheaper to keep and dearer to read; kept at least 30 days.
    Cool,
    /// Cheaper still to keep; kept at least 90 days.
    Cold,
}

/// How to get at a container, and what to heed.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    /// Where it is.
    pub place: AzurePlace,
    /// Who asks.
    pub credential: Credential,
    /// Where tokens come from, as in `https://login.microsoftonline.us`, if it is not the public cloud.
    pub authority: Option<String>,
    /// The tier of new data packs. Everything else is hot.
    pub data_tier: Tier,
    /// Whether blobs are sent with an MD5 digest, which the service then compares.
    pub content_md5: bool,
    /// The most bytes a second to send.
    pub upload_limit: Option<NonZeroU64>,
    /// The most bytes a second to receive.
    pub download_limit: Option<NonZeroU64>,
    /// How long and how often to try.
    pub retry: RetryPolicy,
    /// What the waits between tries, and the ids of assertions, are drawn from.
    pub entropy: Entropy,
    /// Who is told that a request is tried again.
    pub listener: Listener,
    /// When this is raised, no request is tried again, and what is under way has [`RetryPolicy::after_stop`] to end.
    pub stop: Arc<AtomicBool>,
}

impl AzureSettings {
    /// Everything as most want it: hot, without limits and digests, in the public cloud, and nobody is told or may stop it.
    #[must_use]
    pub fn new(place: AzurePlace, credential: Credential, entropy: Entropy) -> Self {
        Self {
            place,
            credential,
            authority: None,
            data_tier: Tier::Hot,
            content_md5: false,
            upload_limit: None,
            download_limit: None,
            retry: RetryPolicy::default(),
            entropy,
            listener: Listener::nobody(),
            stop: Arc::default(),
        }
    }
}

/// The metadata with a blob's BLAKE3 digest, in hexadecimal.
const DIGEST: &str = "blake3";
const DIGEST_HEADER: &str = "x-ms-meta-blake3";
/// How much of a blob is copied for sending at a time.
const PART_LEN: usize = 128 << 10;
/// Parts that wait while one is sent.
const PARTS_QUEUED: usize = 2;
/// The most names that a service lists at once.
const LIST_MAX: usize = 5000;
/// Tries to reach a service that never answered: its name is wrong more often than it is down.
const FIRST_TRIES: u32 = 3;
/// How often a wait looks whether it is to end.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// The library splits longer transfers; no blob here is.
const ONE_REQUEST: usize = 1 << 40;
/// A range that ends behind this ends with the blob: no blob is that long.
const RANGE_END_MAX: u64 = 1 << 40;

/// A container in Azure Blob Storage, or what is below a prefix in one.
pub struct AzureStore {
    runtime: Handle,
    service: BlobServiceClient,
    container: BlobContainerClient,
    settings: AzureSettings,
    authority: Arc<Authority>,
    meter: Arc<Meter>,
    gate: Gate,
    proven: copying::Proven,
    drawn: AtomicU64,
    /// Whether the last request was given up after all its tries: then the next ones are not tried again until one
    /// succeeds, so that an operation that fails ends soon.
    gave_up: AtomicBool,
    /// Whether anything ever came from the endpoint.
    reached: AtomicBool,
    /// When a request first saw that the program was asked to stop.
    stopped_at: OnceLock<Instant>,
}

impl fmt::Debug for AzureStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureStore").field("place", &self.settings.place).finish_non_exhaustive()
    }
}

impl AzureStore {
    /// Prepares to use a container, without a request. Nothing is checked of it: a missing one fails the first call.
    ///
    /// # Errors
    /// A credential that cannot be used.
    pub fn new(runtime: Handle, settings: AzureSettings) -> Result<Self, CredentialError> {
        let meter = Arc::new(Meter::new(settings.upload_limit, settings.download_limit));
        let client = |source| CredentialError::Client { source };
        let transport = Arc::new(transport::Transport::new(Arc::clone(&meter)).map_err(client)?);
        let url = settings.place.container_url();
        let (authority, token) = Authority::new(&settings, Arc::clone(&transport) as _)?;
        let client_options = ClientOptions {
            per_try_policies: vec![Arc::clone(&authority) as Arc<dyn Policy>],
            retry: RetryOptions::none(),
            transport: Some(Transport::with_policy(transport)),
            ..ClientOptions::default()
        };
        let of_library = |error| client(std::io::Error::other(error));
        let options = BlobServiceClientOptions {
            client_options: client_options.clone(),
            ..BlobServiceClientOptions::default()
        };
        let service = BlobServiceClient::new(settings.place.service_url(), token.clone(), Some(options))
            .map_err(of_library)?;
        let options = BlobContainerClientOptions { client_options, ..BlobContainerClientOptions::default() };
        let container = BlobContainerClient::new(url, token, Some(options)).map_err(of_library)?;
        let (gate, drawn) = (Gate::new(), AtomicU64::new(0));
        let [gave_up, reached] = [false; 2].map(AtomicBool::new);
        Ok(Self {
            runtime,
            service,
            container,
            settings,
            authority,
            meter,
            gate,
            proven: copying::Proven::none(),
            drawn,
            gave_up,
            reached,
            stopped_at: OnceLock::new(),
        })
    }

    /// What went over the wire so far.
    pub fn traffic(&self) -> Traffic {
        Traffic { most_in_flight: self.gate.most() as u64, ..*lock(&self.meter.traffic) }
    }

    /// The tier that data packs are created in.
    pub fn data_tier(&self) -> Tier {
        self.settings.data_tier
    }

    fn blob(&self, name: &BlobName) -> BlobClient {
        self.container.blob_client(&format!("{}{name}", self.settings.place.prefix()))
    }

    /// The tier that a blob is created in, and is taken to be in: reading it does not tell.
    fn tier(&self, name: &BlobName) -> Tier {
        match name.kind() {
            Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Data => self.settings.data_tier,
            _ => Tier::Hot,
        }
    }

    /// Makes a request until it succeeds or there is no point in another try. `once` is given the number of tries that
    /// failed.
    async fn tried<T>(
        &self,
        deadline: impl Fn(u32) -> Duration,
        count: impl Fn(&mut Traffic),
        mut once: impl AsyncFnMut(u32) -> Result<T, Failure>,
    ) -> Result<T, (Failure, u32)> {
        let began = Instant::now();
        let (mut failed, mut renewed) = (0, false);
        loop {
            let permit = self.gate.permits().acquire().await.expect("the gate is never closed");
            let pass = self.gate.entered(permit);
            self.meter.count(&count);
            let allowed = deadline(failed);
            let used = self.authority.version();
            let failure = match self.ended(allowed, once(failed)).await {
                Ok(value) => {
                    pass.succeeded();
                    self.gave_up.store(false, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            self.leave(pass, &failure);
            failed += 1;
            let refused = matches!(failure.status(), Some(401 | 403));
            if refused && !renewed && self.authority.renewed_since(used) {
                renewed = true;
                self.meter.count(|traffic| traffic.retries += 1);
                continue;
            }
            let unreached = matches!(failure, Failure::Unreached(_));
            let hopeless = unreached && failed >= FIRST_TRIES && !self.reached.load(Ordering::Relaxed);
            if hopeless || !failure.is_transient() {
                return Err((failure, failed));
            }
            let random = self.random();
            let wait = self.settings.retry.wait(failed, began.elapsed(), random, failure.retry_after());
            let Some(wait) = wait else {
                self.gave_up.store(true, Ordering::Relaxed);
                return Err((failure, failed));
            };
            let (why, of_tries) = (failure.brief(), self.settings.retry.tries);
            self.settings.listener.tell(&Setback { why, failed_tries: failed, of_tries, wait });
            if !self.waited(wait).await {
                return Err((failure, failed));
            }
            self.meter.count(|traffic| traffic.retries += 1);
        }
    }

    /// Waits for the end of a try, within the time that it has and as long as the program is not stopped.
    async fn ended<T>(
        &self,
        allowed: Duration,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let request = tokio::time::timeout(allowed, request);
        let result = match select(pin!(request), pin!(self.stopped())).await {
            Either::Left((result, _)) => result.unwrap_or(Err(Failure::Late(allowed))),
            Either::Right(((), _)) => Err(Failure::Broken(std::io::ErrorKind::Interrupted.into())),
        };
        let is_somebody = result.as_ref().map_or_else(Failure::is_from_somebody, |_| true);
        self.reached.fetch_or(is_somebody, Ordering::Relaxed);
        result
    }

    /// Leaves the gate after a failure, which may tell to send less.
    fn leave(&self, pass: Pass<'_>, failure: &Failure) {
        if failure.is_throttling() {
            self.meter.count(|traffic| traffic.throttled += 1);
        }
        if failure.is_congestion() {
            pass.congested();
        }
    }

    /// Ends when a program that was asked to stop has waited long enough for what is under way.
    async fn stopped(&self) {
        while !self.settings.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(STOP_CHECK).await;
        }
        let now = Instant::now();
        let after_stop = self.settings.retry.after_stop;
        // What begins after that is small: an index and the decision that ends the session.
        let until = (*self.stopped_at.get_or_init(|| now) + after_stop).max(now + after_stop / 4);
        tokio::time::sleep_until(until).await;
    }

    /// Waits before another try; false if there is to be none.
    async fn waited(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            if self.settings.stop.load(Ordering::Relaxed) || self.gave_up.load(Ordering::Relaxed) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            tokio::time::sleep(left.min(STOP_CHECK)).await;
        }
    }

    /// A number that the next call does not give.
    fn random(&self) -> u64 {
        let drawn =
            self.settings.entropy.draw("wait between tries", self.drawn.fetch_add(1, Ordering::Relaxed));
        u64::from_le_bytes(*drawn.first_chunk().expect("32 bytes are more than 8"))
    }

    /// How long a try may take that moves so many bytes under a limit that all of them share.
    fn deadline(&self, failed: u32, bytes: u64, limit: Option<NonZeroU64>) -> Duration {
        let share = limit.map(|limit| limit.get() / self.gate.limit() as u64);
        self.settings.retry.deadline(failed, bytes, share)
    }

    /// The error of a verb on a blob or a prefix.
    fn failed(&self, action: &'static str, object: &str, (failure, tries): (Failure, u32)) -> StoreError {
        let object = format!("{}/{object}", self.settings.place);
        StoreError::Service {
            action,
            object,
            source: failure.finally(tries, self.authority.expiry().as_deref()),
        }
    }

    /// The error of a create that was refused although there is no such blob.
    fn not_created(
        &self,
        action: &'static str,
        name: &BlobName,
        (failure, tries): (Failure, u32),
    ) -> StoreError {
        let mut error = self.failed(action, name.as_str(), (failure, tries));
        if let StoreError::Service { source: source @ ServiceError::Refused { .. }, .. } = &mut error
            && let Some(answer) = source.answer().filter(|answer| answer.may_tell_of_replication())
        {
            *source = ServiceError::ReplicationWrites { answer: answer.clone() };
        }
        error
    }

    async fn create(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        let digest = blake3::hash(bytes).to_hex().to_string();
        let tier = self.tier(name);
        let md5 = self.settings.content_md5.then(|| Md5::digest(bytes).to_vec());
        let created = self
            .tried(
                |failed| self.deadline(failed, bytes.len() as u64, self.settings.upload_limit),
                |traffic| *of_tier(&mut traffic.writes, tier) += 1,
                async |_| self.put_blob(name, bytes, tier, &digest, md5.as_deref()).await,
            )
            .await;
        match created {
            Ok(()) => {
                let len = bytes.len() as u64;
                self.meter.count(|traffic| *of_tier(&mut traffic.written_bytes, tier) += len);
                Ok(Put::Created)
            }
            // A create that meets a blob; or one that may not overwrite, and is answered so before the condition.
            Err((failure, tries)) if matches!(failure.status(), Some(403 | 409 | 412)) => {
                match self.compare(name, bytes, &digest).await {
                    Ok(Some(put)) => Ok(put),
                    Ok(None) => Err(self.not_created("create", name, (failure, tries))),
                    _ => Err(self.failed("create", name.as_str(), (failure, tries))),
                }
            }
            Err(failure) => Err(self.failed("create", name.as_str(), failure)),
        }
    }

    async fn put_blob(
        &self,
        name: &BlobName,
        bytes: &[u8],
        tier: Tier,
        digest: &str,
        md5: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let (parts, received) = tokio::sync::mpsc::channel(PARTS_QUEUED);
        let mut context = Context::new().with_value(Upload(Mutex::new(Some(received))));
        if let Some(md5) = md5 {
            context.insert(identity::ContentMd5(md5.to_vec()));
        }
        let options = BlockBlobClientUploadOptions {
            metadata: Some([(DIGEST.to_owned(), digest.to_owned())].into()),
            partition_size: NonZeroU64::new(ONE_REQUEST as u64),
            tier: Some(access_tier(tier)),
            method_options: ClientMethodOptions { context },
            ..BlockBlobClientUploadOptions::default()
        }
        .if_not_exists();
        let announced = Body::SeekableStream(Box::new(Announced(bytes.len() as u64)));
        let client = self.blob(name);
        let send = client.upload(announced.into(), Some(options));
        let feed = async {
            for part in bytes.chunks(PART_LEN) {
                self.meter.pass(self.meter.upload.as_ref(), part.len()).await;
                if parts.send(Bytes::copy_from_slice(part)).await.is_err() {
                    // The request is over before its body is; its answer tells why.
                    break;
                }
            }
            drop(parts);
        };
        // An answer that comes before all is sent ends the sending.
        let result = match select(pin!(send), pin!(feed)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), send)) => send.await,
        };
        result.map(drop).map_err(Failure::of)
    }

    /// Finds out what has a name: by length and digest, or by all of its bytes where somebody else's tool put it there.
    async fn compare(
        &self,
        name: &BlobName,
        bytes: &[u8],
        digest: &str,
    ) -> Result<Option<Put>, (Failure, u32)> {
        let headers = match self.head(name).await {
            Err((failure, _)) if is_absent(&failure) => return Ok(None),
            result => result?,
        };
        let len = header(&headers, "content-length").and_then(|len| len.parse::<u64>().ok());
        if len != Some(bytes.len() as u64) {
            return Ok(Some(Put::Different));
        }
        let same = match header(&headers, DIGEST_HEADER) {
            Some(there) => there.eq_ignore_ascii_case(digest),
            None => self.read(name, 0, None).await? == bytes,
        };
        Ok(Some(if same { Put::Identical } else { Put::Different }))
    }

    async fn head(&self, name: &BlobName) -> Result<Headers, (Failure, u32)> {
        let client = self.blob(name);
        let count = |traffic: &mut Traffic| traffic.reads.hot += 1;
        self.tried(
            |failed| self.deadline(failed, 0, None),
            count,
            async |_| {
                let options = BlobClientGetPropertiesOptions::default();
                let response = client.get_properties(Some(options)).await.map_err(Failure::of)?;
                Ok(response.headers().clone())
            },
        )
        .await
    }
}

impl BlobStore for AzureStore {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.changeable("create", name)?;
        self.runtime.block_on(self.create(name, bytes))
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        let (start, end) = range.map_or((0, None), |range| (range.start, Some(range.end)));
        let read = async {
            if end.is_some_and(|end| end <= start) {
                return self.head(name).await.map(|_| Vec::new());
            }
            self.read(name, start, end.filter(|end| *end < RANGE_END_MAX)).await
        };
        self.runtime.block_on(read).map_err(|failure| match failure {
            (failure, _) if is_absent(&failure) => StoreError::NotFound { name: name.clone() },
            failure => self.failed("read", name.as_str(), failure),
        })
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.runtime.block_on(self.list_page(prefix, from, limit))
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.changeable("delete", name)?;
        let client = self.blob(name);
        let deleted = self.tried(
            |failed| self.deadline(failed, 0, None),
            |traffic| traffic.deletes += 1,
            async |_| client.delete(None).await.map(drop).map_err(Failure::of),
        );
        match self.runtime.block_on(deleted) {
            Err((failure, _)) if is_absent(&failure) => Ok(()),
            result => result.map_err(|failure| self.failed("delete", name.as_str(), failure)),
        }
    }
}

/// Whether the service says that there is no such blob. A 404 of somebody else, such as a wrong endpoint's, does not.
fn is_absent(failure: &Failure) -> bool {
    failure.status() == Some(404) && matches!(failure.code(), "BlobNotFound" | "ResourceNotFound")
}

fn access_tier(tier: Tier) -> AccessTier {
    match tier {
        Tier::Hot => AccessTier::Hot,
        Tier::Cool => AccessTier::Cool,
        Tier::Cold => AccessTier::Cold,
    }
}

fn of_tier(numbers: &mut PerTier, tier: Tier) -> &mut u64 {
    match tier {
        Tier::Hot => &mut numbers.hot,
        Tier::Cool => &mut numbers.cool,
        Tier::Cold => &mut numbers.cold,
    }
}
