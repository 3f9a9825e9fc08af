//! What went over the wire to a store that charges for it.

/// A number for each tier that blobs are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerTier {
    /// Of blobs in the hot tier.
    pub hot: u64,
    /// Of blobs in the cool tier.
    pub cool: u64,
    /// Of blobs in the cold tier.
    pub cold: u64,
}

impl PerTier {
    /// Returns all of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.hot + self.cool + self.cold
    }
}

/// Requests that were sent, as a service counts and charges them, those of failed tries included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that create a blob, by the tier it is created in.
    pub writes: PerTier,
    /// Requests that read a blob or its properties, by the tier that such blobs are now created in: no answer tells.
    pub reads: PerTier,
    /// Requests for a page of a listing.
    pub lists: u64,
    /// Requests that delete a blob.
    pub deletes: u64,
    /// Tries after the first one of a request.
    pub retries: u64,
    /// Answers that told to send less.
    pub throttled: u64,
    /// Bytes of blobs that were created, by the tier they are in.
    pub written_bytes: PerTier,
    /// Bytes of blobs that were read, by the same tiers.
    pub read_bytes: PerTier,
    /// Bytes of blobs that the service created by copying them from elsewhere, by the tier they are in: they came without
    /// passing through this program.
    pub copied_bytes: PerTier,
    /// Bytes of blobs that were read by a service that copied them elsewhere, by the tiers of [`Traffic::reads`].
    pub lent_bytes: PerTier,
    /// Bytes of request bodies that were sent, also of tries that failed.
    pub bytes_out: u64,
    /// Bytes of answers' bodies that were received, listings and errors included.
    pub bytes_in: u64,
    /// The most requests that were under way at one time.
    pub most_in_flight: u64,
}
