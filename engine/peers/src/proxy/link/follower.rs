//! Where messages begin and end in bytes that go by.

use crate::proxy::http::{Body, HEAD_LEN_MAX, Head, head_len, malformed};
use std::io;

/// A step in following one direction of a connection.
pub(crate) enum Step {
    /// The first byte of a message.
    Begun,
    /// Its head: [`Follower::body`] must be told before anything else what comes after it.
    Head(Head),
    /// Its last byte.
    Ended,
}

/// Follows the messages in one direction of a connection, in whatever pieces their bytes come.
#[derive(Default)]
pub(crate) struct Follower {
    head: Vec<u8>,
    body: Option<Body>,
}

impl Follower {
    /// Takes bytes up to the next step; none if they are used up before one.
    ///
    /// # Errors
    /// Bytes that are not HTTP/1.1; nothing can be followed any more.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> io::Result<Option<Step>> {
        if let Some(body) = &mut self.body {
            while !body.is_done() && !bytes.is_empty() {
                let piece = body.take(bytes)?;
                *bytes = &bytes[piece.len..];
            }
            if !body.is_done() {
                return Ok(None);
            }
            self.body = None;
            return Ok(Some(Step::Ended));
        }
        let Some(first) = bytes.first() else { return Ok(None) };
        if self.head.is_empty() {
            if !first.is_ascii_uppercase() {
                return Err(malformed("a message that does not begin with a word"));
            }
            self.head.push(*first);
            *bytes = &bytes[1..];
            return Ok(Some(Step::Begun));
        }
        let before = self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(HEAD_LEN_MAX)]);
        let Some(len) = head_len(&self.head)? else {
            *bytes = &[];
            return Ok(None);
        };
        self.head.truncate(len);
        *bytes = &bytes[len - before..];
        Head::parse(std::mem::take(&mut self.head)).map(Step::Head).map(Some)
    }

    /// Says what follows the head that the last step was.
    pub(crate) fn body(&mut self, body: Body) {
        self.body = Some(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = "PUT /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\
        GET /b HTTP/1.1\r\n\r\n\
        PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: 1\r\n\r\n\
        GET /d HTTP/1.1\r\n\r\n";

    /// The targets and ends of requests that come in some pieces.
    fn steps(pieces: &[&[u8]]) -> io::Result<String> {
        let (mut follower, mut steps) = (Follower::default(), String::new());
        for mut piece in pieces.iter().copied() {
            while let Some(step) = follower.next(&mut piece)? {
                match step {
                    Step::Begun => steps.push('<'),
                    Step::Head(head) => {
                        steps.push_str(head.request_line()?.1);
                        follower.body(Body::of_request(&head)?);
                    }
                    Step::Ended => steps.push('>'),
                }
            }
        }
        Ok(steps)
    }

    #[test]
    fn messages_are_told_apart_in_whatever_pieces_they_come() {
        let bytes = MESSAGES.as_bytes();
        for at in 0..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(steps(&[first, second]).unwrap(), "</a></b></c></d>", "{at}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(steps(&single).unwrap(), "</a></b></c></d>");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let endless = format!("GET /a HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LEN_MAX));
        let wrong_size = MESSAGES.replace("5;x=1", "5z");
        let long_chunk = MESSAGES.replace("5;x=1", "4");
        for bytes in [
            "\u{16}\u{3}",
            "GET /a\r\n\r\n",
            "GET /a HTTP/1.1\r\nno field\r\n\r\n",
            &endless,
            &wrong_size,
            &long_chunk,
        ] {
            let error = steps(&[bytes.as_bytes()]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
    }
}
