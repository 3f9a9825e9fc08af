//! Encoding payloads and decoding them (PACK-2).

use std::fmt;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use crate::bytes::Reader;
use crate::error::FormatError;
use crate::frame::Codec;

/// The magic number of a zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: u32 = 0xFD2F_B528;
/// The largest window that a zstd frame may ask for unless it is as long as its content.
const WINDOW_LEN_MAX: u64 = 8 << 20;

/// Encodes payloads, one after the other, in one reused zstd context.
pub struct Encoder {
    zstd: Compressor<'static>,
    level: i32,
    scratch: Vec<u8>,
}

impl Encoder {
    /// Makes an encoder for a zstd level from 1 to 19; other levels are moved into that range.
    #[must_use]
    pub fn new(level: i32) -> Self {
        let level = level.clamp(1, 19);
        let zstd = Compressor::new(level).expect("zstd takes its own levels");
        Self { zstd, level, scratch: Vec::new() }
    }

    /// Encodes what follows at another level, as [`Encoder::new`] takes it.
    pub fn set_level(&mut self, level: i32) {
        let level = level.clamp(1, 19);
        if level != self.level {
            self.zstd.set_compression_level(level).expect("zstd takes its own levels");
            self.level = level;
        }
    }

    /// Appends the encoded payload to `out` and tells how it is encoded: raw when zstd saves under 3 %.
    pub fn encode(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Codec {
        let limit = worthwhile_len(payload.len());
        if self.scratch.len() < limit {
            self.scratch.resize(limit, 0);
        }
        let room = self.scratch.get_mut(..limit).expect("the scratch was made that long");
        // A room that is too small is how zstd is told to give up early.
        let encoded = self.zstd.compress_to_buffer(payload, room).ok().and_then(|len| room.get(..len));
        if let Some(encoded) = encoded {
            out.extend_from_slice(encoded);
            Codec::Zstd
        } else {
            out.extend_from_slice(payload);
            Codec::Raw
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

/// The longest zstd frame that is stored instead of a payload of that length; always shorter than it.
fn worthwhile_len(payload_len: usize) -> usize {
    let saving = (payload_len / 100).saturating_mul(3).max(1);
    payload_len.saturating_sub(saving)
}

/// Decodes payloads, one after the other, in one reused zstd context.
pub struct Decoder {
    zstd: Decompressor<'static>,
}

impl Decoder {
    /// Makes a decoder.
    ///
    /// # Panics
    /// If there is no memory for a zstd context.
    #[must_use]
    pub fn new() -> Self {
        Self { zstd: Decompressor::new().expect("there is memory for a zstd context") }
    }

    /// Decodes a payload of exactly `out.len()` bytes.
    ///
    /// # Errors
    /// [`FormatError::BadZstd`] if `encoded` is not what PACK-2 asks for; `out` is then undefined.
    pub fn decode_into(&mut self, codec: Codec, encoded: &[u8], out: &mut [u8]) -> Result<(), FormatError> {
        match codec {
            Codec::Raw if encoded.len() == out.len() => out.copy_from_slice(encoded),
            Codec::Raw => return Err(FormatError::BadValue("a raw payload does not have its plain length")),
            Codec::Zstd => {
                check_zstd_frame(encoded, out.len() as u64)?;
                let decoded = self.zstd.decompress_to_buffer(encoded, out);
                if !decoded.is_ok_and(|len| len == out.len()) {
                    return Err(FormatError::BadZstd);
                }
            }
        }
        Ok(())
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// Checks that the bytes are one zstd frame with this content size, no dictionary and an allowed window.
fn check_zstd_frame(encoded: &[u8], plain_len: u64) -> Result<(), FormatError> {
    let header = read_zstd_header(encoded).map_err(|_| FormatError::BadZstd)?;
    let allowed = header.is_some_and(|header| {
        header.content_len == plain_len && header.window_len <= WINDOW_LEN_MAX.max(plain_len)
    });
    // The frame's own length is found without decoding; what follows it would be decoded as another frame.
    let whole = zstd_safe::find_frame_compressed_size(encoded).is_ok_and(|len| len == encoded.len());
    if allowed && whole && (encoded.len() as u64) < plain_len { Ok(()) } else { Err(FormatError::BadZstd) }
}

struct ZstdHeader {
    content_len: u64,
    window_len: u64,
}

/// Reads the header of a zstd frame (RFC 8878, 3.1.1.1); `None` if it has no content size or needs a dictionary.
fn read_zstd_header(encoded: &[u8]) -> Result<Option<ZstdHeader>, FormatError> {
    let mut reader = Reader::new(encoded);
    if reader.u32()? != ZSTD_MAGIC {
        return Ok(None);
    }
    let descriptor = reader.u8()?;
    let single_segment = descriptor & 0x20 != 0;
    if descriptor & 0x03 != 0 {
        return Ok(None);
    }
    let window = if single_segment { None } else { Some(reader.u8()?) };
    let content_len = match descriptor >> 6 {
        0 if single_segment => u64::from(reader.u8()?),
        0 => return Ok(None),
        1 => u64::from(reader.u16()?).saturating_add(256),
        2 => u64::from(reader.u32()?),
        _ => reader.u64()?,
    };
    let window_len = window.map_or(content_len, |window| {
        let base = 1_u64 << (u32::from(window >> 3).saturating_add(10));
        (base >> 3).saturating_mul(u64::from(window & 7)).saturating_add(base)
    });
    Ok(Some(ZstdHeader { content_len, window_len }))
}
