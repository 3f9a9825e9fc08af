//! A blob that is to be copied, as it is at its source.

use super::super::identity::Access;
use super::super::{AzureStore, DIGEST, DIGEST_HEADER};
use super::{CONTENT_MD5, Failure, decoded, header, length};
use crate::store::StoreError;
use azure_core::http::Etag;
use repo_format::BlobName;
use std::collections::HashMap;
use std::io;

/// A blob to be copied, as it is at its source.
pub(super) struct Original<'a> {
    pub(super) source: &'a AzureStore,
    pub(super) name: &'a BlobName,
    pub(super) len: u64,
    pub(super) md5: Option<String>,
    /// The BLAKE3 digest that its metadata has.
    pub(super) digest: Option<String>,
    etag: Option<String>,
}

impl<'a> Original<'a> {
    /// Looks at it.
    ///
    /// # Errors
    /// A service that fails; [`StoreError::NotFound`]; [`StoreError::Io`] if it has another length.
    pub(super) fn of(source: &'a AzureStore, name: &'a BlobName, len: u64) -> Result<Self, StoreError> {
        let headers = source.headers(name)?;
        let own = |name| header(&headers, name).map(str::to_owned);
        let found = length(&headers);
        if found != Some(len) {
            let found = found.map_or_else(|| "no".to_owned(), |found| found.to_string());
            let error = io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has {found} bytes, and not the {len} that were declared"),
            );
            return Err(StoreError::Io { action: "copy", object: source.object(name), source: error });
        }
        let [md5, digest, etag] = [CONTENT_MD5, DIGEST_HEADER, "etag"].map(own);
        Ok(Self { source, name, len, md5, digest, etag })
    }

    /// Where another service can read it, and what authorizes that beside the URL. Both are secrets.
    pub(super) async fn readable(&self) -> Result<(String, Option<String>), Failure> {
        let (source, place) = (self.source, &self.source.settings.place);
        let whole_name = format!("{}{}", place.prefix(), self.name);
        let url = source.blob(self.name).url().clone();
        Ok(match source.authority.access(place, &whole_name).await? {
            Access::Query(pairs) => (format!("{url}?{}", *pairs), None),
            Access::Bearer(token) => (url.to_string(), Some((*token).clone())),
        })
    }

    pub(super) fn metadata(&self) -> Option<HashMap<String, String>> {
        self.digest.as_ref().map(|digest| [(DIGEST.to_owned(), digest.clone())].into())
    }

    pub(super) fn md5_bytes(&self) -> Option<Vec<u8>> {
        self.md5.as_deref().and_then(decoded)
    }

    /// The condition that it is still the blob that was looked at.
    pub(super) fn unchanged(&self) -> Option<Etag> {
        self.etag.clone().map(Etag::from)
    }

    /// The id of the only block of a copy. Copies of other bytes have other ids, so that who copies at the same time does
    /// not commit them.
    pub(super) fn block(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        for part in [&self.md5, &self.digest, &self.etag] {
            hasher.update(part.as_deref().unwrap_or_default().as_bytes());
            hasher.update(&[0]);
        }
        hasher.update(&self.len.to_le_bytes());
        *hasher.finalize().as_bytes().first_chunk().expect("32 bytes are more than 16")
    }
}
