//! Servers that break the protocol while they are written: each in its own way.

use crate::disks::{nbd_error, settings};
use crate::memory::FLUSH;
use crate::scripted::{Peer, Request, Style};
use keepstone_engine::DiskTarget as _;
use keepstone_engine::nbd::{NbdError, WireError};
use keepstone_engine::target::{Existing, NbdTarget};
use std::io;
use std::os::unix::net::UnixStream;
use std::thread;

const SIZE: u64 = 256 << 10;

/// The error of writing a disk of one cell to a server that does something with the request for it.
fn writing(style: Style, answer: impl FnOnce(&mut Peer, &Request) -> io::Result<()> + Send) -> io::Error {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut peer = Peer::over(theirs);
            // The client may end first: that is what most cases come to.
            let _ = peer.open_with_flags(style, SIZE, FLUSH | 1).and_then(|()| {
                if style != Style::Simple {
                    let request = peer.request(style)?;
                    peer.status(style, request.cookie, &[(SIZE, 0)])?;
                }
                let request = peer.request(style)?;
                assert_eq!((request.kind, request.offset, request.length), (1, 0, SIZE));
                assert_eq!(peer.payload(SIZE)?, vec![7; 256 << 10]);
                answer(&mut peer, &request)
            });
        });
        let target = NbdTarget::over(ours, "disk", settings(), SIZE, Existing::Replace).unwrap();
        target.write_at(0, &vec![7; 256 << 10]).unwrap();
        target.finish().unwrap_err()
    })
}

/// How the protocol was broken.
fn broken(style: Style, answer: impl FnOnce(&mut Peer, &Request) -> io::Result<()> + Send) -> WireError {
    let error = writing(style, answer);
    let NbdError::Writing(inner) = nbd_error(&error) else { panic!("{error}") };
    let NbdError::BadMessage { source, .. } = &**inner else { panic!("{error}") };
    source.clone()
}

#[test]
fn an_answer_to_nothing_is_refused() {
    for style in [Style::Simple, Style::Structured] {
        let cookie = broken(style, |peer, request| peer.simple(0, request.cookie.wrapping_add(1), &[]));
        assert!(matches!(cookie, WireError::UnknownCookie { .. }), "{cookie}");
    }
    // The second is taken for the answer to the flush.
    let twice = broken(Style::Structured, |peer, request| {
        peer.chunk(Style::Structured, 1, 0, request.cookie, &[])?;
        peer.chunk(Style::Structured, 1, 0, request.cookie, &[])?;
        peer.request(Style::Structured).map(drop)
    });
    assert!(matches!(twice, WireError::UnknownCookie { .. }), "{twice}");
}

#[test]
fn an_answer_that_is_none_to_a_write_is_refused() {
    let style = Style::Structured;
    let what = "the reply to a write";
    let data = broken(style, |peer, request| peer.data(style, 1, request.cookie, 0, &[1; 512]));
    assert_eq!(data, WireError::UnexpectedType { what, found: 1 });
    let hole = broken(style, |peer, request| peer.hole(style, 1, request.cookie, 0, 512));
    assert_eq!(hole, WireError::UnexpectedType { what, found: 1 });
    let long = broken(style, |peer, request| peer.chunk(style, 1, 0, request.cookie, &[&[0; 4]]));
    assert_eq!(long, WireError::OtherLength { what: "a chunk of a reply" });
    let endless = broken(style, |peer, request| {
        loop {
            peer.chunk(style, 0, 0, request.cookie, &[])?;
        }
    });
    assert_eq!(endless, WireError::TooMany { what: "chunks in the reply to a write", limit: 16 });
    let magic = broken(style, |peer, _| peer.send(&[&[0xff; 32]]));
    assert_eq!(magic, WireError::Magic { what: "a reply", found: 0xffff_ffff });
    let simple = broken(Style::Extended, |peer, request| peer.simple(0, request.cookie, &[]));
    assert_eq!(simple, WireError::Magic { what: "a reply", found: 0x6744_6698 });
}

#[test]
fn what_a_server_says_of_its_failure_is_told() {
    for style in [Style::Structured, Style::Extended] {
        let error = writing(style, |peer, request| {
            let message = b"the \x1b[31mdisk";
            let chunk =
                [&28_u32.to_be_bytes()[..], &13_u16.to_be_bytes(), &message[..13], &4096_u64.to_be_bytes()];
            peer.chunk(style, 0, 0x8002, request.cookie, &chunk)?;
            peer.chunk(style, 1, 0, request.cookie, &[])
        });
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let told = "could not write 262144 bytes at 4096: ENOSPC, no space left (the \\u{1b}[31mdisk)";
        assert!(error.to_string().ends_with(told), "{error}");
    }
}

#[test]
fn a_connection_over_a_given_socket_is_not_made_anew() {
    for bytes in [0, 3, 15] {
        let error = writing(Style::Simple, |peer, request| {
            let reply = [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &request.cookie.to_be_bytes()].concat();
            peer.send(&[&reply[..bytes]])
        });
        let NbdError::Writing(inner) = nbd_error(&error) else { panic!("{error}") };
        assert!(matches!(**inner, NbdError::Lost { .. }), "{error}");
    }
}
