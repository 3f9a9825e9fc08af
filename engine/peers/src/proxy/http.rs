//! HTTP/1.1 messages: where a head ends, what it says, and where the body after it ends.
//!
//! A head keeps its bytes, and a body is only followed, not decoded: both pass as they came.

use std::io;

/// A head that is longer is not taken for one: servers refuse much shorter ones.
pub(crate) const HEAD_LEN_MAX: usize = 64 << 10;

/// What ends a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The length of the head that bytes begin with, if all of it is there.
///
/// # Errors
/// Bytes that are too many for a head.
pub(crate) fn head_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    let searched = &bytes[..bytes.len().min(HEAD_LEN_MAX)];
    match searched.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
        Some(at) => Ok(Some(at + HEAD_END.len())),
        None if bytes.len() >= HEAD_LEN_MAX => Err(malformed("a head that does not end")),
        None => Ok(None),
    }
}

/// The start line and the fields of a request or an answer, and the bytes that they came in.
pub(crate) struct Head {
    pub(crate) bytes: Vec<u8>,
    start: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// Takes a whole head apart, its empty line included.
    ///
    /// # Errors
    /// Bytes that are no head.
    pub(crate) fn parse(bytes: Vec<u8>) -> io::Result<Self> {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let start = lines.next().ok_or_else(|| malformed("an empty head"))?.to_owned();
        let fields = lines
            .map(|line| {
                let (name, value) =
                    line.split_once(':').ok_or_else(|| malformed("a field without a name"))?;
                Ok((name.to_owned(), value.trim().to_owned()))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { bytes, start, fields })
    }

    /// The method and the target of a request.
    ///
    /// # Errors
    /// A start line of something else.
    pub(crate) fn request_line(&self) -> io::Result<(&str, &str)> {
        let mut words = self.start.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(method), Some(target), Some(version), None) if version.starts_with("HTTP/1.") => {
                Ok((method, target))
            }
            _ => Err(malformed("a request line that is none")),
        }
    }

    /// The status of an answer.
    ///
    /// # Errors
    /// A start line of something else.
    pub(crate) fn status(&self) -> io::Result<u16> {
        let mut words = self.start.splitn(3, ' ');
        match (words.next(), words.next().map(str::parse)) {
            (Some(version), Some(Ok(status))) if version.starts_with("HTTP/1.") => Ok(status),
            _ => Err(malformed("a status line that is none")),
        }
    }

    /// The value of a field, whose name may be in any case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// Whether the sender closes the connection after this message.
    pub(crate) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || self.start.starts_with("HTTP/1.0")
            || self.start.ends_with("HTTP/1.0")
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked"))
    }

    fn content_length(&self) -> io::Result<Option<u64>> {
        self.field("content-length")
            .map(|value| value.parse().map_err(|_| malformed("a length that is no number")))
            .transpose()
    }
}

/// The value of the first field of a name, in any case.
pub(crate) fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Bytes at the start of what is left of a message.
pub(crate) struct Piece {
    pub(crate) len: usize,
    /// Whether they are of the body itself, not of what tells its chunks apart.
    pub(crate) data: bool,
}

/// What is left of a message after its head.
pub(crate) enum Body {
    /// So many bytes, which may be none.
    Length(u64),
    /// Chunks, each with its length before it.
    Chunked(Chunks),
    /// All that comes until the connection is closed.
    UntilClose,
}

/// Where in a chunked body the next byte is.
pub(crate) enum Chunks {
    /// In the line that says how long the next chunk is; what it said so far.
    Size { digits: Vec<u8> },
    /// In a chunk, of which so many bytes are left.
    Data { left: u64 },
    /// In the end of line after a chunk.
    DataEnd,
    /// In the lines after the last chunk; how much the current one holds so far.
    Trailer { line_len: usize },
    /// Behind it.
    Done,
}

impl Body {
    /// What follows the head of a request.
    ///
    /// # Errors
    /// A length that is no number.
    pub(crate) fn of_request(head: &Head) -> io::Result<Self> {
        if head.is_chunked() {
            return Ok(Self::chunked());
        }
        Ok(Self::Length(head.content_length()?.unwrap_or(0)))
    }

    /// What follows the head of an answer to a request, to HEAD or not.
    ///
    /// # Errors
    /// A length that is no number.
    pub(crate) fn of_answer(head: &Head, to_head: bool) -> io::Result<Self> {
        if to_head || matches!(head.status()?, 100..200 | 204 | 304) {
            return Ok(Self::Length(0));
        }
        if head.is_chunked() {
            return Ok(Self::chunked());
        }
        Ok(head.content_length()?.map_or(Self::UntilClose, Self::Length))
    }

    fn chunked() -> Self {
        Self::Chunked(Chunks::Size { digits: Vec::new() })
    }

    /// The body's length, if the head tells it.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Length(len) => Some(*len),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Whether all of it has been taken.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Done))
    }

    /// Takes bytes of one kind from the start of some, at least one if there are any.
    ///
    /// # Errors
    /// Chunks that are none.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<Piece> {
        match self {
            Self::Length(left) => Ok(take_data(left, bytes)),
            Self::UntilClose => Ok(Piece { len: bytes.len(), data: true }),
            Self::Chunked(chunks) => {
                if let Chunks::Data { left } = chunks {
                    let piece = take_data(left, bytes);
                    if *left == 0 {
                        *chunks = Chunks::DataEnd;
                    }
                    return Ok(piece);
                }
                let mut len = 0;
                while len < bytes.len() && !matches!(chunks, Chunks::Data { .. } | Chunks::Done) {
                    chunks.step(bytes[len])?;
                    len += 1;
                }
                Ok(Piece { len, data: false })
            }
        }
    }
}

fn take_data(left: &mut u64, bytes: &[u8]) -> Piece {
    let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= len as u64;
    Piece { len, data: true }
}

impl Chunks {
    /// Goes over one byte that is none of a chunk.
    fn step(&mut self, byte: u8) -> io::Result<()> {
        match self {
            Self::Size { digits } if byte != b'\n' => {
                // Extensions may follow the digits.
                if digits.len() < 1024 {
                    digits.push(byte);
                    return Ok(());
                }
                return Err(malformed("a chunk without a length"));
            }
            Self::Size { digits } => {
                let line = String::from_utf8_lossy(digits);
                let size = line.split(';').next().unwrap_or_default().trim();
                *self = match u64::from_str_radix(size, 16) {
                    Ok(0) => Self::Trailer { line_len: 0 },
                    Ok(left) => Self::Data { left },
                    Err(_) => return Err(malformed("a chunk whose length is no number")),
                };
            }
            Self::DataEnd if byte == b'\n' => *self = Self::Size { digits: Vec::new() },
            Self::DataEnd if byte == b'\r' => {}
            Self::DataEnd => return Err(malformed("a chunk that is longer than it says")),
            Self::Trailer { line_len: 0 } if byte == b'\n' => *self = Self::Done,
            Self::Trailer { line_len } if byte == b'\n' => *line_len = 0,
            Self::Trailer { line_len } => *line_len += usize::from(byte != b'\r'),
            Self::Data { .. } | Self::Done => unreachable!("those bytes are not gone over one by one"),
        }
        Ok(())
    }
}

/// What bytes are that are none of HTTP/1.1.
pub(crate) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_answers_follow_their_head_and_what_was_asked() {
        let len = |head: &str, to_head| {
            let head = Head::parse(format!("HTTP/1.1 {head}\r\n\r\n").into_bytes()).unwrap();
            match Body::of_answer(&head, to_head).unwrap() {
                Body::Length(len) => len.to_string(),
                Body::Chunked(_) => "chunks".to_owned(),
                Body::UntilClose => "all".to_owned(),
            }
        };
        assert_eq!(len("200 OK\r\ncontent-length:  7", false), "7");
        assert_eq!(len("200 OK\r\nContent-Length: 7", true), "0");
        assert_eq!(len("304 Same\r\nContent-Length: 7", false), "0");
        assert_eq!(len("204 Gone", false), "0");
        assert_eq!(len("100 Continue", false), "0");
        assert_eq!(len("200 OK\r\nTransfer-Encoding: gzip, Chunked", false), "chunks");
        assert_eq!(len("200 OK", false), "all");
    }
}
