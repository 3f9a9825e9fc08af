//! The keys of packs, out of their headers: each is read once.

use super::{FrameReader, READS_AGAIN, lock};
use crate::error::EngineError;
use crate::threads;
use repo_format::{
    PACK_HEADER_LEN, PackHeader, PackKind, PackName, PackOpener, SealedSessionKey, SessionKey,
};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

/// Openers kept; one is about a hundred bytes and a key schedule.
const OPENERS_MAX: usize = 4096;

impl<'r, 's> FrameReader<'r, 's> {
    /// What opens the frames of a pack: from the cache, or by reading the pack's header.
    pub(crate) fn opener(&self, pack: &PackName) -> Result<Arc<PackOpener>, EngineError> {
        loop {
            if let Some(claim) = self.claim(pack) {
                return claim.settle(|| self.read_opener(pack));
            }
            let being_read = |openers: &mut HashMap<_, _>| matches!(openers.get(pack), Some(None));
            let openers = self.header_read.wait_while(threads::lock(&self.openers), being_read);
            let openers = openers.unwrap_or_else(PoisonError::into_inner);
            if let Some(Some(opener)) = openers.get(pack) {
                return Ok(Arc::clone(opener));
            }
            // Whoever read it failed; that may have been a failure of its own.
        }
    }

    /// Makes the caller the one who reads a pack's header, unless it was read or somebody does so.
    pub(super) fn claim<'c>(&'c self, pack: &'c PackName) -> Option<Claim<'c, 'r, 's>> {
        let mut openers = threads::lock(&self.openers);
        if openers.contains_key(pack) {
            return None;
        }
        if openers.len() >= OPENERS_MAX {
            openers.retain(|_, opener| opener.is_none());
        }
        openers.insert(pack.clone(), None);
        Some(Claim { frames: self, pack })
    }

    /// Parses the header that begins some bytes of a pack; of bytes that are damaged or too few, the header is read again.
    pub(super) fn opener_from_bytes(&self, pack: &PackName, bytes: &[u8]) -> Result<PackOpener, EngineError> {
        let header = bytes.get(..PACK_HEADER_LEN);
        match header.map(|header| self.opener_from_header(pack, header)) {
            None | Some(Err(EngineError::Damaged { .. })) => self.read_opener(pack),
            Some(result) => result,
        }
    }

    pub(super) fn read_opener(&self, pack: &PackName) -> Result<PackOpener, EngineError> {
        let mut opener = self.read_opener_once(pack);
        for _ in 0..READS_AGAIN {
            if !matches!(&opener, Err(EngineError::Damaged { .. } | EngineError::Short { .. })) {
                break;
            }
            // It may have been changed on its way.
            opener = self.read_opener_once(pack);
        }
        opener
    }

    fn read_opener_once(&self, pack: &PackName) -> Result<PackOpener, EngineError> {
        let name = pack.blob();
        let header_len = PACK_HEADER_LEN as u64;
        let bytes = self.repository.store().get(&name, Some(0..header_len))?;
        if bytes.len() < PACK_HEADER_LEN {
            return Err(EngineError::Short { name, expected: header_len });
        }
        self.opener_from_header(pack, &bytes)
    }

    /// Parses a pack's header and derives the pack's key.
    pub(crate) fn opener_from_header(
        &self,
        pack: &PackName,
        header: &[u8],
    ) -> Result<PackOpener, EngineError> {
        let name = pack.blob();
        let header = PackHeader::parse(header).map_err(EngineError::damaged(&name))?;
        let keys = self.repository.keys();
        match (&header.sealed_session_key, pack.kind) {
            (Some(sealed), PackKind::Data) => {
                let session_key = self.session_key(sealed, pack)?;
                PackOpener::new_with_session_key(keys, pack, &header, &session_key)
            }
            _ => PackOpener::new(keys, pack, &header),
        }
        .map_err(EngineError::damaged(&name))
    }

    fn session_key(
        &self,
        sealed: &SealedSessionKey,
        pack: &PackName,
    ) -> Result<Arc<SessionKey>, EngineError> {
        // The ciphertext is authenticated: the same encapsulated key with another ciphertext does not open.
        let cache_key = *blake3::Hasher::new()
            .update(&sealed.encapsulated)
            .update(&sealed.ciphertext)
            .update(&pack.session.0)
            .finalize()
            .as_bytes();
        if let Some(session_key) = lock(&self.session_keys).get(&cache_key) {
            return Ok(Arc::clone(session_key));
        }
        let opened = self.repository.keys().open_session_key(sealed, pack.session);
        let session_key = Arc::new(opened.map_err(EngineError::damaged(&pack.blob()))?);
        lock(&self.session_keys).insert(cache_key, Arc::clone(&session_key));
        Ok(session_key)
    }

    /// Has a pack's header read anew, if nobody does so already.
    pub(super) fn forget_opener(&self, pack: &PackName) {
        let mut openers = threads::lock(&self.openers);
        if let Some(Some(_)) = openers.get(pack) {
            openers.remove(pack);
        }
    }
}

/// The right to read the header of a pack, for which others wait. Dropped without an opener, it is somebody else's.
pub(super) struct Claim<'c, 'r, 's> {
    frames: &'c FrameReader<'r, 's>,
    pack: &'c PackName,
}

impl Claim<'_, '_, '_> {
    pub(super) fn settle(
        self,
        read: impl FnOnce() -> Result<PackOpener, EngineError>,
    ) -> Result<Arc<PackOpener>, EngineError> {
        let opener = Arc::new(read()?);
        threads::lock(&self.frames.openers).insert(self.pack.clone(), Some(Arc::clone(&opener)));
        Ok(opener)
    }
}

impl Drop for Claim<'_, '_, '_> {
    fn drop(&mut self) {
        let mut openers = threads::lock(&self.frames.openers);
        if let Some(None) = openers.get(self.pack) {
            openers.remove(self.pack);
        }
        drop(openers);
        self.frames.header_read.notify_all();
    }
}
