//! Bytes written field by field, as no encoder of ours would.

/// Bytes under construction.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn u8(self, value: u8) -> Self {
        self.put(&[value])
    }

    pub fn u16(self, value: u16) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u32(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub fn str8(self, text: &str) -> Self {
        self.u8(u8::try_from(text.len()).expect("a short text")).put(text.as_bytes())
    }

    pub fn str16(self, text: &str) -> Self {
        self.u16(u16::try_from(text.len()).expect("a text of under 64 KiB")).put(text.as_bytes())
    }

    /// A table with one group.
    pub fn group(self, kind: u8, writer: &str, session: u8, packs: &[(u32, u32)]) -> Self {
        let count = u32::try_from(packs.len()).expect("few packs");
        let group = self.u8(kind).str8(writer).put(&[session; 16]).u32(count);
        packs.iter().fold(group, |group, (number, len)| group.u32(*number).u32(*len))
    }

    /// `location`, behind its codec.
    pub fn location(self, entry: u32, offset: u32, stored_len: u32, plain_len: u32, id: u8) -> Self {
        self.u32(entry).u32(offset).u32(stored_len).u32(plain_len).put(&[id; 32])
    }
}
