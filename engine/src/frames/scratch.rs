//! What threads open frames with.

use repo_format::{Codec, Decoder};

/// A payload as it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) codec: Codec,
    pub(crate) bytes: Vec<u8>,
}

/// What a thread needs to open frames, used again and again.
#[derive(Default)]
pub(crate) struct Scratch {
    /// As long as the longest payload so far, so that it is not filled with zeros for each.
    memory: Vec<u8>,
    plain_len: usize,
    /// How the payload that was opened last is encoded, if that is kept.
    pub(super) encoded: Option<Encoded>,
    decoder: Decoder,
}

impl Scratch {
    pub(super) fn keeping_encoded() -> Self {
        Self { encoded: Some(Encoded { codec: Codec::Raw, bytes: Vec::new() }), ..Self::default() }
    }

    /// The payload that was opened last.
    pub(crate) fn plain(&self) -> &[u8] {
        &self.memory[..self.plain_len]
    }

    /// What decodes, and room for a payload.
    pub(super) fn parts(&mut self, plain_len: usize) -> (&mut Decoder, &mut [u8]) {
        if self.memory.len() < plain_len {
            self.memory.resize(plain_len, 0);
        }
        self.plain_len = plain_len;
        (&mut self.decoder, &mut self.memory[..plain_len])
    }
}
