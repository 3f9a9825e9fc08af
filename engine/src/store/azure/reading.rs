//! Reading blobs and parts of them.

use super::failure::{Failure, header};
use super::{AzureStore, DIGEST_HEADER, ONE_REQUEST, Tier, of_tier};
use azure_core::http::Etag;
use azure_core::http::headers::Headers;
use azure_storage_blob::BlobClient;
use azure_storage_blob::models::{BlobClientDownloadOptions, HttpRange};
use futures::StreamExt as _;
use repo_format::BlobName;
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::time::timeout;

/// Memory that is taken before the bytes are there; more is taken as they come.
const RESERVE_MAX: u64 = 64 << 20;

/// What was read so far.
#[derive(Default)]
struct Reading {
    bytes: Vec<u8>,
    /// That of the first answer: the rest is read of the same blob.
    etag: Option<Etag>,
    /// What it was when it had another digest than its metadata says.
    wrong: Option<blake3::Hash>,
}

impl AzureStore {
    /// Reads from `start` up to `end`, or to the blob's end. A transfer that breaks goes on where it broke.
    pub(super) async fn read(
        &self,
        name: &BlobName,
        start: u64,
        end: Option<u64>,
    ) -> Result<Vec<u8>, (Failure, u32)> {
        let (client, tier) = (self.blob(name), self.tier(name));
        let mut reading = Reading::default();
        let result = self
            .tried(
                // It depends on the answer: see `read_on`.
                |_| Duration::MAX,
                |traffic| *of_tier(&mut traffic.reads, tier) += 1,
                async |failed| self.read_on(&client, (start, end), tier, failed, &mut reading).await,
            )
            .await;
        match result {
            // The range begins behind the blob's end, and so does what is left of one that broke off at the end.
            Err((failure, _)) if failure.status() == Some(416) => Ok(reading.bytes),
            result => result.map(|()| reading.bytes),
        }
    }

    async fn read_on(
        &self,
        client: &BlobClient,
        (start, end): (u64, Option<u64>),
        tier: Tier,
        failed: u32,
        reading: &mut Reading,
    ) -> Result<(), Failure> {
        let from = start + reading.bytes.len() as u64;
        if end.is_some_and(|end| from >= end) {
            return Ok(());
        }
        let range = match end {
            Some(end) => Some(HttpRange::from(from..end)),
            None if from == 0 => None,
            None => Some(HttpRange::from(from..)),
        };
        let options = BlobClientDownloadOptions {
            range,
            if_match: reading.etag.clone(),
            parallel: Some(NonZeroUsize::MIN),
            partition_size: NonZeroUsize::new(ONE_REQUEST),
            ..BlobClientDownloadOptions::default()
        };
        let allowed = self.deadline(failed, 0, None);
        let response = timeout(allowed, client.download(Some(options))).await;
        let mut response = response.map_err(|_| Failure::Late(allowed))?.map_err(Failure::of)?;
        if first(&response.headers) != from {
            return Err(Failure::Nonsense("it is another range than was asked for"));
        }
        reading.etag = header(&response.headers, "etag").map(|etag| Etag::from(etag.to_owned()));
        let expected = header(&response.headers, "content-length").and_then(|len| len.parse::<u64>().ok());
        let room = end.map_or(u64::MAX, |end| end - from);
        if expected.is_some_and(|expected| expected > room) {
            return Err(Failure::Nonsense("it is more than was asked for"));
        }
        let reserved = usize::try_from(expected.unwrap_or(0).min(RESERVE_MAX)).unwrap_or(0);
        reading.bytes.reserve_exact(reserved);
        let mut left = room;
        let receive = async {
            while let Some(part) = response.body.next().await {
                let part = part.map_err(Failure::of)?;
                left = left
                    .checked_sub(part.len() as u64)
                    .ok_or(Failure::Nonsense("it is more than was asked for"))?;
                self.meter.count(|traffic| *of_tier(&mut traffic.read_bytes, tier) += part.len() as u64);
                reading.bytes.extend_from_slice(&part);
            }
            Ok(())
        };
        let allowed = self.deadline(failed, expected.unwrap_or(RESERVE_MAX), self.settings.download_limit);
        timeout(allowed, receive).await.map_err(|_| Failure::Late(allowed))??;
        let got = room - left;
        if expected.is_some_and(|expected| got < expected) {
            return Err(Failure::Broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let whole =
            start == 0 && total(&response.headers).is_none_or(|len| len == reading.bytes.len() as u64);
        if let Some(digest) = header(&response.headers, DIGEST_HEADER).filter(|_| whole) {
            let found = blake3::hash(&reading.bytes);
            // What comes twice in the same way was not changed on its way: it is for the caller to judge.
            if found.to_hex().as_str() != digest && reading.wrong != Some(found) {
                *reading = Reading { wrong: Some(found), ..Reading::default() };
                return Err(Failure::Broken(std::io::ErrorKind::InvalidData.into()));
            }
        }
        Ok(())
    }
}

/// The length of the whole blob, if an answer has a part of it (RFC 9110, section 14.4).
fn total(headers: &Headers) -> Option<u64> {
    header(headers, "content-range")?.rsplit_once('/')?.1.parse().ok()
}

/// Where an answer begins in the blob.
fn first(headers: &Headers) -> u64 {
    let range = header(headers, "content-range").and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).and_then(|(first, _)| first.parse().ok()).unwrap_or(0)
}
