//! What the service says of copies that it makes by itself in another region: by object replication, and of accounts
//! whose secondary endpoint can be read.
//!
//! The headers are those that Microsoft documents of Get Blob Properties. The emulator has none of them; it answers
//! what is asked of a secondary endpoint.

use super::failure::{Failure, header};
use super::service_error::ServiceError;
use super::{AzureStore, is_absent};
use crate::store::StoreError;
use azure_core::http::headers::Headers;
use repo_format::BlobName;

/// On a blob that object replication wrote: the policy that it belongs to.
const WRITTEN_BY: &str = "x-ms-or-policy-id";
/// What the names of the headers begin with that a replicated blob has, one for each rule of a policy.
const RULE: &str = "x-ms-or-";

/// How far object replication is with a blob at its source. What several rules say is told by the least of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplicationState {
    /// It is at its destination.
    Complete,
    /// It will be there.
    Pending,
    /// It will not be there: an archived blob, say, or a destination that may not be written any more.
    Failed,
}

impl AzureStore {
    /// Whether this is the secondary endpoint of an account, which is only read.
    #[must_use]
    pub fn is_secondary(&self) -> bool {
        self.settings.place.is_secondary()
    }

    /// Whether object replication wrote a blob here. So this container is one of its destinations.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] or [`StoreError::Service`].
    pub fn is_replicated(&self, name: &BlobName) -> Result<bool, StoreError> {
        self.headers(name).map(|headers| header(&headers, WRITTEN_BY).is_some())
    }

    /// How far object replication is with a blob of this container, if any rule of it concerns the blob. None has looked
    /// at a new blob for a while.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] or [`StoreError::Service`].
    pub fn replication_of(&self, name: &BlobName) -> Result<Option<ReplicationState>, StoreError> {
        self.headers(name).map(|headers| state(&headers))
    }

    /// The time in milliseconds since 1970 before which everything that was written to the account can be read at this
    /// secondary endpoint. None at another endpoint, where the service does not know it now, and where it does not tell
    /// who asks: a SAS of the container does not suffice.
    ///
    /// # Errors
    /// [`StoreError::Service`].
    pub fn last_sync_time(&self) -> Result<Option<u64>, StoreError> {
        if !self.is_secondary() {
            return Ok(None);
        }
        let asked = self.tried(
            |failed| self.deadline(failed, 0, None),
            |traffic| traffic.reads.hot += 1,
            async |_| {
                let response = self.service.get_statistics(None).await.map_err(Failure::of)?;
                response.into_model().map_err(Failure::of)
            },
        );
        match self.runtime.block_on(asked) {
            Ok(statistics) => {
                let at = statistics.geo_replication.and_then(|geo| geo.last_sync_time);
                Ok(at.and_then(|at| u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()))
            }
            Err((failure, _)) if failure.status() == Some(403) => Ok(None),
            Err(failure) => Err(self.failed("read", "the statistics of the account", failure)),
        }
    }

    /// The properties of a blob, as headers have them.
    pub(super) fn headers(&self, name: &BlobName) -> Result<Headers, StoreError> {
        self.runtime.block_on(self.head(name)).map_err(|failure| match failure {
            (failure, _) if is_absent(&failure) => StoreError::NotFound { name: name.clone() },
            failure => self.failed("read", name.as_str(), failure),
        })
    }

    /// Refuses what would change something at a secondary endpoint, without a request.
    pub(super) fn changeable(&self, action: &'static str, name: &BlobName) -> Result<(), StoreError> {
        if !self.is_secondary() {
            return Ok(());
        }
        let object = format!("{}/{name}", self.settings.place);
        Err(StoreError::Service { action, object, source: ServiceError::Secondary })
    }
}

fn state(headers: &Headers) -> Option<ReplicationState> {
    let of_rules = headers.iter().filter(|(name, _)| {
        name.as_str().strip_prefix(RULE).is_some_and(|rule| rule.contains('_') && name.as_str() != WRITTEN_BY)
    });
    let states = of_rules.map(|(_, value)| match value.as_str().to_ascii_lowercase().as_str() {
        "complete" | "completed" => ReplicationState::Complete,
        "failed" => ReplicationState::Failed,
        _ => ReplicationState::Pending,
    });
    states.max()
}
