//! Requests of the transmission phase.

use super::Style;

const MAGIC: u32 = 0x2560_9513;
const MAGIC_EXTENDED: u32 = 0x21e4_1c71;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) enum RequestKind {
    /// `NBD_CMD_READ`.
    Read,
    /// `NBD_CMD_WRITE`: its bytes follow the message.
    Write,
    /// `NBD_CMD_DISC`: the last request, which has no reply.
    Disconnect,
    /// `NBD_CMD_FLUSH`: of all that was answered before.
    Flush,
    /// `NBD_CMD_TRIM`: afterwards the bytes may be anything.
    Trim,
    /// `NBD_CMD_WRITE_ZEROES` without a flag: with holes where the server can make them, and however slow it is. With
    /// `FAST_ZERO` it would rather fail, and zeros would have to be sent, which is never faster.
    WriteZeroes,
    /// `NBD_CMD_BLOCK_STATUS`.
    BlockStatus,
}

impl RequestKind {
    fn code(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disconnect => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::WriteZeroes => 6,
            Self::BlockStatus => 7,
        }
    }

    /// Extended headers say of a request that its length is that of what follows.
    fn flags(self, style: Style) -> u16 {
        const PAYLOAD_LEN: u16 = 1 << 5;
        if self == Self::Write && style == Style::Extended { PAYLOAD_LEN } else { 0 }
    }
}

/// A request, without the data that follows if it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) struct Request {
    pub(in crate::nbd) kind: RequestKind,
    /// By which its reply is known.
    pub(in crate::nbd) cookie: u64,
    pub(in crate::nbd) offset: u64,
    /// In bytes; below 4 GiB unless the style is extended.
    pub(in crate::nbd) length: u64,
}

impl Request {
    /// Appends the message.
    ///
    /// # Panics
    /// When the length does not fit the style.
    pub(in crate::nbd) fn encode(&self, style: Style, message: &mut Vec<u8>) {
        let magic = if style == Style::Extended { MAGIC_EXTENDED } else { MAGIC };
        message.extend(magic.to_be_bytes());
        message.extend(self.kind.flags(style).to_be_bytes());
        message.extend(self.kind.code().to_be_bytes());
        message.extend(self.cookie.to_be_bytes());
        message.extend(self.offset.to_be_bytes());
        if style == Style::Extended {
            message.extend(self.length.to_be_bytes());
        } else {
            let length = u32::try_from(self.length).expect("requests of 32 bits are made for this style");
            message.extend(length.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_32_bits_or_64() {
        let request = Request {
            kind: RequestKind::BlockStatus,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1112_1314_1516_1718,
            length: 0xfffe_0000,
        };
        let encoded = |style| {
            let mut message = Vec::new();
            request.encode(style, &mut message);
            message
        };
        let compact = [
            0x25, 0x60, 0x95, 0x13, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16,
            0x17, 0x18, 0xff, 0xfe, 0, 0,
        ];
        assert_eq!(encoded(Style::Simple), compact);
        assert_eq!(encoded(Style::Structured), compact);
        let extended = [
            0x21, 0xe4, 0x1c, 0x71, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16,
            0x17, 0x18, 0, 0, 0, 0, 0xff, 0xfe, 0, 0,
        ];
        assert_eq!(encoded(Style::Extended), extended);
    }

    #[test]
    fn only_a_write_with_extended_headers_says_that_bytes_follow() {
        let encoded = |style, kind| {
            let mut message = Vec::new();
            Request { kind, cookie: 7, offset: 9, length: 5 }.encode(style, &mut message);
            message[4..8].to_vec()
        };
        for (kind, code) in [
            (RequestKind::Write, 1),
            (RequestKind::Flush, 3),
            (RequestKind::Trim, 4),
            (RequestKind::WriteZeroes, 6),
        ] {
            let flags = if code == 1 { 0x20 } else { 0 };
            assert_eq!(encoded(Style::Extended, kind), [0, flags, 0, code]);
            assert_eq!(encoded(Style::Structured, kind), [0, 0, 0, code]);
            assert_eq!(encoded(Style::Simple, kind), [0, 0, 0, code]);
        }
    }
}
