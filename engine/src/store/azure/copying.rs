//! Blobs that the service copies from another container by itself, so that their bytes do not pass through this program.
//!
//! # Ways
//! | way | requests to the destination | it may |
//! | --- | --- | --- |
//! | Put Blob From URL | one | create (`c`) |
//! | Put Block From URL, Put Block List | two | write (`w`) |
//! | Copy Blob | one, and more while it lasts | create (`c`) |
//!
//! They are tried in this order, and the first one that works is taken from then on. A way is left for the next one where
//! the service does not know it; the second one also where the credential does not allow to write. All have the
//! condition that there is no blob of that name, the tier and the digest in the metadata that a blob has which is created
//! here, and the condition that the source is still the blob that was looked at.
//!
//! What the service may read of the source (`r` of the blob, nothing else) is let known to it by the source's own SAS as
//! it is; by a SAS of two hours for that blob, signed with the source's key; or by a token of Entra in a header, which
//! the third way does not take.
//!
//! # What is checked
//! The service compares what it reads with the MD5 that the source has, where it has one (Put Blob gives one to every
//! blob), and tells the MD5 of what it stored. Where it does not, the copy is looked at: its length, MD5 and BLAKE3 digest must
//! be those of the source, and a copy that is under way is waited for. A blob that is there is compared in the same way.
//!
//! # Seen in Azurite 3.37
//! - Put Blob From URL: 500 without a code and without an id of the request. That is how it is known not to be there.
//! - Put Block From URL between accounts, with a SAS of the source: 201, with the MD5. With a wrong MD5 of the source 400
//!   `Md5Mismatch`; without `w` 403 `AuthorizationPermissionMismatch`. The source must have the host and port of the
//!   destination. Of an empty blob: 201.
//! - Put Block List with `If-None-Match: *`: 201, and 409 `BlobAlreadyExists` for a blob that is there; its blocks stay
//!   invisible until then.
//! - Copy Blob between accounts: 202, done at once; again 409 `BlobAlreadyExists`, with `c` alone 403
//!   `AuthorizationPermissionMismatch`. A copy has `x-ms-copy-source` with the whole SAS in its properties, so that who reads the copy
//!   can read the source for as long as the SAS lasts: the reason for it to come last.
//! - A source that is not there or elsewhere: 404 `CannotVerifyCopySource`; one whose SAS has expired, is wrong or has no
//!   `r`, or with a token: 403 with the same code.
//!
//! Put Blob From URL, tokens and copies that take a while are known from documentation only.

mod original;

use super::failure::{CANNOT_READ_SOURCE, Failure, header};
use super::{AzureStore, DIGEST_HEADER, ServiceError, access_tier, is_absent, of_tier};
use crate::store::{Put, StoreError};
use azure_core::http::headers::Headers;
use azure_core::http::{Etag, RequestContent};
use azure_storage_blob::models::{
    BlobClientStartCopyFromUrlOptions, BlockBlobClientCommitBlockListOptions,
    BlockBlobClientStageBlockFromUrlOptions, BlockBlobClientUploadBlobFromUrlOptions, BlockLookupList,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use original::Original;
use repo_format::BlobName;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How the service is asked to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Put Blob From URL.
    Whole,
    /// Put Block From URL, then Put Block List.
    Blocks,
    /// Copy Blob.
    Copy,
}

/// The ways from the best one on.
const WAYS: [Way; 3] = [Way::Whole, Way::Blocks, Way::Copy];

/// The way that worked last, as a place in [`WAYS`]; none yet if it is behind them.
#[derive(Debug)]
pub(super) struct Proven(AtomicU8);

impl Proven {
    pub(super) fn none() -> Self {
        Self(AtomicU8::new(u8::MAX))
    }

    fn is(&self, way: Way) -> bool {
        self.get() == Some(way)
    }

    fn get(&self) -> Option<Way> {
        WAYS.get(usize::from(self.0.load(Ordering::Relaxed))).copied()
    }

    fn set(&self, way: Way) {
        let place = WAYS.iter().position(|other| *other == way);
        let place = place.and_then(|place| u8::try_from(place).ok()).expect("there are few ways");
        self.0.store(place, Ordering::Relaxed);
    }
}

/// How a copy that is under way is looked at: after twice the time from time to time.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// What the service answered.
enum Outcome {
    /// It made a copy.
    Made {
        /// The digest of what it stored, if it says so.
        md5: Option<String>,
    },
    /// It does not know this way.
    Unfit(Failure),
}

impl AzureStore {
    /// Has the service create a blob from the blob of the same name in another container, and tells what is there
    /// otherwise. Afterwards the name here has the length and the digests that it has there.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the source has no such blob, [`StoreError::Io`] if it has another length, else
    /// [`StoreError::Service`]: with [`ServiceError::CopySource`] if the destination's service cannot read the source, and
    /// with [`ServiceError::Copy`] if what it made is not whole. The blob may exist afterwards. Calling again settles it.
    pub fn copy_from(&self, source: &Self, name: &BlobName, len: u64) -> Result<Put, StoreError> {
        self.changeable(ACTION, name)?;
        let original = Original::of(source, name, len)?;
        self.runtime.block_on(self.copy(&original))
    }

    fn object(&self, name: &BlobName) -> String {
        format!("{}/{name}", self.settings.place)
    }

    async fn copy(&self, original: &Original<'_>) -> Result<Put, StoreError> {
        let mut unfit = (Failure::Nonsense("it knows no way to copy"), 1);
        for way in self.ways(original) {
            match self.copy_by(way, original).await {
                Ok(Outcome::Made { md5 }) => {
                    self.check(original, md5.as_deref()).await?;
                    self.proven.set(way);
                    self.count_copy(original);
                    return Ok(Put::Created);
                }
                Ok(Outcome::Unfit(failure)) => unfit = (failure, 1),
                Err((failure, tries)) => {
                    if is_about_name(&failure)
                        && let Some(put) = self.there(original).await?
                    {
                        return Ok(put);
                    }
                    let may_not_write = is_about_name(&failure) && failure.status() == Some(403);
                    if way != Way::Blocks || !may_not_write {
                        return Err(self.not_copied(original, (failure, tries)).await);
                    }
                    unfit = (failure, tries);
                }
            }
        }
        Err(self.failed(ACTION, original.name.as_str(), unfit))
    }

    /// The ways to try: the one that worked, or all that can.
    fn ways(&self, original: &Original<'_>) -> Vec<Way> {
        let fits = |way: &Way| *way != Way::Copy || !original.source.authority.is_token();
        match self.proven.get().filter(fits) {
            Some(way) => vec![way],
            None => WAYS.into_iter().filter(fits).collect(),
        }
    }

    async fn copy_by(&self, way: Way, original: &Original<'_>) -> Result<Outcome, (Failure, u32)> {
        match way {
            Way::Whole => self.put_whole(original).await,
            Way::Blocks => self.put_blocks(original).await,
            Way::Copy => self.start_copy(original).await,
        }
    }

    async fn put_whole(&self, original: &Original<'_>) -> Result<Outcome, (Failure, u32)> {
        let client = self.blob(original.name).block_blob_client();
        self.asked(Way::Whole, original, async |url, copy_source_authorization| {
            let options = BlockBlobClientUploadBlobFromUrlOptions {
                metadata: original.metadata(),
                tier: Some(access_tier(self.tier(original.name))),
                source_content_md5: original.md5_bytes(),
                source_if_match: original.unchanged(),
                copy_source_authorization,
                ..BlockBlobClientUploadBlobFromUrlOptions::default()
            }
            .if_not_exists();
            let response = client.upload_blob_from_url(url, Some(options)).await.map_err(Failure::of)?;
            Ok(made(response.headers()))
        })
        .await
    }

    async fn put_blocks(&self, original: &Original<'_>) -> Result<Outcome, (Failure, u32)> {
        let client = self.blob(original.name).block_blob_client();
        let id = original.block();
        let staged = self.asked(Way::Blocks, original, async |url, copy_source_authorization| {
            let options = BlockBlobClientStageBlockFromUrlOptions {
                source_content_md5: original.md5_bytes(),
                source_if_match: original.unchanged(),
                copy_source_authorization,
                ..BlockBlobClientStageBlockFromUrlOptions::default()
            };
            let staged = client.stage_block_from_url(&id, 0, url, Some(options)).await;
            Ok(made(staged.map_err(Failure::of)?.headers()))
        });
        let md5 = match staged.await? {
            Outcome::Made { md5 } => md5,
            unfit @ Outcome::Unfit(_) => return Ok(unfit),
        };
        let tier = self.tier(original.name);
        self.tried(
            |failed| self.deadline(failed, 0, None),
            |traffic| *of_tier(&mut traffic.writes, tier) += 1,
            async |_| {
                let options = BlockBlobClientCommitBlockListOptions {
                    metadata: original.metadata(),
                    tier: Some(access_tier(tier)),
                    blob_content_md5: md5.as_deref().and_then(decoded),
                    if_none_match: Some(Etag::from("*")),
                    ..BlockBlobClientCommitBlockListOptions::default()
                };
                let list = BlockLookupList { latest: Some(vec![id.to_vec()]), ..BlockLookupList::default() };
                let list = RequestContent::try_from(list).map_err(Failure::of)?;
                client.commit_block_list(list, Some(options)).await.map(drop).map_err(Failure::of)
            },
        )
        .await?;
        Ok(Outcome::Made { md5 })
    }

    async fn start_copy(&self, original: &Original<'_>) -> Result<Outcome, (Failure, u32)> {
        let client = self.blob(original.name);
        self.asked(Way::Copy, original, async |url, _| {
            let options = BlobClientStartCopyFromUrlOptions {
                metadata: original.metadata(),
                tier: Some(access_tier(self.tier(original.name))),
                source_if_match: original.unchanged(),
                if_none_match: Some(Etag::from("*")),
                ..BlobClientStartCopyFromUrlOptions::default()
            };
            client.start_copy_from_url(url, Some(options)).await.map(drop).map_err(Failure::of)?;
            // It may be under way, and no answer tells a digest.
            Ok(Outcome::Made { md5: None })
        })
        .await
    }

    /// Makes a request that moves the blob until the service answers what counts. `once` is given the URL that the service
    /// can read, and what authorizes that in a header.
    async fn asked(
        &self,
        way: Way,
        original: &Original<'_>,
        once: impl AsyncFn(String, Option<String>) -> Result<Outcome, Failure>,
    ) -> Result<Outcome, (Failure, u32)> {
        let tier = self.tier(original.name);
        self.tried(
            |failed| self.deadline(failed, original.len, self.settings.upload_limit),
            |traffic| *of_tier(&mut traffic.writes, tier) += 1,
            async |_| {
                let len = usize::try_from(original.len).unwrap_or(usize::MAX);
                self.meter.pass(self.meter.upload.as_ref(), len).await;
                let (url, authorization) = original.readable().await?;
                match once(url, authorization).await {
                    Err(failure) if is_unknown(&failure) && !self.proven.is(way) => {
                        Ok(Outcome::Unfit(failure))
                    }
                    result => result,
                }
            },
        )
        .await
    }

    /// Makes sure of a copy that the service says it made.
    async fn check(&self, original: &Original<'_>, md5: Option<&str>) -> Result<(), StoreError> {
        if md5.is_some() && md5 == original.md5.as_deref() {
            return Ok(());
        }
        match self.there(original).await? {
            Some(Put::Created | Put::Identical) => Ok(()),
            Some(Put::Different) => {
                Err(self.not_whole(original, "it has another length or digest than its source"))
            }
            None => Err(self.not_whole(original, "it is not there")),
        }
    }

    /// Finds out what has the name of a copy, and waits for one that is under way.
    async fn there(&self, original: &Original<'_>) -> Result<Option<Put>, StoreError> {
        let name = original.name;
        let (began, mut wait) = (Instant::now(), FIRST_LOOK);
        loop {
            let headers = match self.head(name).await {
                Err((failure, _)) if is_absent(&failure) => return Ok(None),
                result => result.map_err(|failure| self.failed("read", name.as_str(), failure))?,
            };
            match header(&headers, "x-ms-copy-status") {
                Some("pending")
                    if began.elapsed() < self.settings.retry.patience && self.waited(wait).await =>
                {
                    wait = (2 * wait).min(LONGEST_LOOK);
                }
                Some("pending") => return Err(self.not_whole(original, "the service still copies")),
                Some("failed" | "aborted") => {
                    return Err(
                        self.not_whole(original, "the service gave up copying, and left an empty blob")
                    );
                }
                _ => return self.compared(original, &headers).await.map(Some),
            }
        }
    }

    /// Compares a blob with the one that it is to be a copy of: by length and digests, or by all bytes where one of them was
    /// put there by somebody else's tool.
    async fn compared(&self, original: &Original<'_>, headers: &Headers) -> Result<Put, StoreError> {
        if length(headers) != Some(original.len) {
            return Ok(Put::Different);
        }
        let pairs = [
            (original.md5.as_deref(), header(headers, CONTENT_MD5)),
            (original.digest.as_deref(), header(headers, DIGEST_HEADER)),
        ];
        let mut known = pairs.into_iter().filter_map(|(there, here)| there.zip(here)).peekable();
        let same = if known.peek().is_some() {
            known.all(|(there, here)| there == here)
        } else {
            let (name, source) = (original.name, original.source);
            let there = source.read(name, 0, None).await;
            let there = there.map_err(|failure| source.failed("read", name.as_str(), failure))?;
            let here = self.read(name, 0, None).await;
            here.map_err(|failure| self.failed("read", name.as_str(), failure))? == there
        };
        Ok(if same { Put::Identical } else { Put::Different })
    }

    /// The error of a copy that was not made.
    async fn not_copied(&self, original: &Original<'_>, (failure, tries): (Failure, u32)) -> StoreError {
        let (name, source) = (original.name, original.source);
        if failure.source_status() == Some(404)
            && let Err((gone, _)) = source.head(name).await
            && is_absent(&gone)
        {
            return StoreError::NotFound { name: name.clone() };
        }
        match failure {
            Failure::Answer { answer, .. } if answer.code == CANNOT_READ_SOURCE => StoreError::Service {
                action: ACTION,
                object: self.object(name),
                source: ServiceError::CopySource { from: source.object(name).into(), answer },
            },
            failure => self.not_created(ACTION, name, (failure, tries)),
        }
    }

    fn not_whole(&self, original: &Original<'_>, why: &'static str) -> StoreError {
        let (object, source) = (self.object(original.name), ServiceError::Copy(why));
        StoreError::Service { action: ACTION, object, source }
    }

    fn count_copy(&self, original: &Original<'_>) {
        let (source, len) = (original.source, original.len);
        let [here, there] = [self, source].map(|store| store.tier(original.name));
        self.meter.count(|traffic| *of_tier(&mut traffic.copied_bytes, here) += len);
        source.meter.count(|traffic| {
            *of_tier(&mut traffic.reads, there) += 1;
            *of_tier(&mut traffic.lent_bytes, there) += len;
        });
    }
}

/// What is done, as errors say it.
const ACTION: &str = "copy to";
const CONTENT_MD5: &str = "content-md5";

fn made(headers: &Headers) -> Outcome {
    Outcome::Made { md5: header(headers, CONTENT_MD5).map(str::to_owned) }
}

fn decoded(md5: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(md5).ok().filter(|md5| md5.len() == 16)
}

fn length(headers: &Headers) -> Option<u64> {
    header(headers, "content-length").and_then(|len| len.parse().ok())
}

/// Whether a service that answers so may not know what it was asked for.
fn is_unknown(failure: &Failure) -> bool {
    match (failure.status(), failure.code()) {
        // Azurite says nothing more of what it does not emulate.
        (Some(500), "") | (Some(405 | 501), _) => true,
        (Some(400), code) => matches!(
            code,
            "UnsupportedHeader" | "UnsupportedHttpVerb" | "InvalidHeaderValue" | "MissingRequiredHeader"
        ),
        _ => false,
    }
}

/// Whether a refusal may be one because the name is taken: by an earlier try whose answer was lost, or by somebody who
/// copied at the same time, after whom blocks are gone.
fn is_about_name(failure: &Failure) -> bool {
    let about_blocks = matches!(failure.code(), "InvalidBlockList" | "InvalidBlobOrBlock");
    failure.source_status().is_none() && (about_blocks || matches!(failure.status(), Some(403 | 409 | 412)))
}
