//! Identifiers that look drawn and are the same in every run.

/// A generator of identifiers (`SplitMix64`).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws the name of an epoch of tracking; vSphere's begin with 52.
    pub(super) fn epoch(&mut self) -> [u8; 16] {
        let mut epoch = [0; 16];
        epoch[..8].copy_from_slice(&self.number().to_be_bytes());
        epoch[8..].copy_from_slice(&self.number().to_be_bytes());
        epoch[0] = 0x52;
        epoch
    }

    /// Draws a UUID that begins with some digits.
    pub(super) fn uuid(&mut self, prefix: &str) -> String {
        let drawn = format!("{:016x}{:016x}", self.number(), self.number());
        let digits = format!("{prefix}{}", &drawn[prefix.len()..]);
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }
}
