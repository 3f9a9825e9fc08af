//! Servers that break the protocol: each in its own way, and each has its own message.

use crate::disks::{chain, extents, nbd_error, read_ranges, settings, with_bitmap};
use crate::scripted::{ACK, Peer, Style, UNSUPPORTED, serve};
use keepstone_engine::DiskSource as _;
use keepstone_engine::nbd::{NbdError, NbdSettings, WireError};
use std::io;
use std::time::Duration;

const SIZE: u64 = 1 << 20;

/// The last message of an opening that fails.
fn opening(server: impl FnOnce(&mut Peer) -> io::Result<()> + Send) -> String {
    serve(server, settings(), |disk| chain(&disk.unwrap_err()).pop().unwrap())
}

/// The error of a read of 64 KiB at 128 KiB from a server that opens well.
fn reading(
    style: Style,
    server: impl FnOnce(&mut Peer, u64) -> io::Result<()> + Send,
) -> io::Result<Vec<Vec<u8>>> {
    let server = |peer: &mut Peer| {
        peer.open_data(style, SIZE)?;
        let request = peer.request(style)?;
        assert_eq!((request.kind, request.offset, request.length), (0, 128 << 10, 64 << 10));
        server(peer, request.cookie)
    };
    serve(server, settings(), |disk| read_ranges(&disk.unwrap(), &[(128 << 10, 64 << 10)]))
}

/// How the protocol was broken.
fn broken(style: Style, server: impl FnOnce(&mut Peer, u64) -> io::Result<()> + Send) -> WireError {
    let error = reading(style, server).unwrap_err();
    let NbdError::BadMessage { source, .. } = nbd_error(&error) else { panic!("{error}") };
    source.clone()
}

/// The same of the answer to the question for what is data.
fn broken_status(server: impl FnOnce(&mut Peer, u64) -> io::Result<()> + Send) -> WireError {
    let server = |peer: &mut Peer| {
        peer.open(Style::Structured, SIZE)?;
        let request = peer.request(Style::Structured)?;
        server(peer, request.cookie)
    };
    serve(server, settings(), |disk| match disk.unwrap_err() {
        NbdError::BadMessage { source, .. } => source,
        error => panic!("{error}"),
    })
}

#[test]
fn what_is_no_nbd_server_is_told_from_one() {
    let other = r#"what answers at "disk" over a given socket is not an NBD server"#;
    assert_eq!(opening(|peer| peer.send(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"])), other);
    assert_eq!(opening(|peer| peer.send(&[b"NBDMAGIC", &[0; 8]])), other);
    assert_eq!(opening(|_| Ok(())), other);
    let old = opening(|peer| peer.send(&[b"NBDMAGIC", &0x0000_4202_8186_1253_u64.to_be_bytes(), &[0; 136]]));
    assert!(old.contains("speaks the oldstyle protocol"), "{old}");
}

#[test]
fn a_disk_that_is_too_large_is_refused_before_its_states_are_asked_for() {
    let told = opening(|peer| peer.open(Style::Structured, (4 << 60) + 1));
    let bytes = "4611686018427387905 bytes, and 4611686018427387904 are allowed";
    assert_eq!(told, format!(r#"the disk "disk" over a given socket has {bytes}"#));
}

#[test]
fn a_handshake_that_cannot_be_is_refused() {
    fn first(reply: impl Fn(&mut Peer, u32) -> io::Result<()> + Send) -> String {
        opening(move |peer| {
            peer.greet()?;
            let (option, _) = peer.option()?;
            reply(peer, option)?;
            peer.option().map(drop)
        })
    }
    assert_eq!(
        first(|peer, _| peer.send(&[&[0xff; 20]])),
        "the reply to an option begins with 0xffffffffffffffff"
    );
    assert_eq!(first(|peer, _| peer.reply(8, ACK, &[])), "option 11 was answered as if it were option 8");
    assert_eq!(first(|peer, option| peer.reply(option, 3, &[])), "the reply to an option is of type 0x3");
    assert_eq!(first(|peer, option| peer.reply(option, 77, &[])), "the reply to an option is of type 0x4d");
    assert_eq!(
        first(|peer, option| peer.reply_of_len(option, ACK, u32::MAX, &[])),
        "the reply to an option is 4294967295 bytes long, more than 65536"
    );
}

/// A handshake in which the export is opened in a way of its own.
fn going(go: impl Fn(&mut Peer, u32) -> io::Result<()> + Send) -> String {
    opening(move |peer| {
        peer.greet()?;
        loop {
            match peer.option()? {
                (7, _) => break go(peer, 7),
                (option, _) => peer.reply(option, UNSUPPORTED, &[])?,
            }
        }
    })
}

#[test]
fn an_export_that_cannot_be_is_refused() {
    let export = |size: u64| [&[0, 0][..], &size.to_be_bytes(), &[0, 1]].concat();
    let told = |info: Vec<u8>| {
        going(move |peer, option| {
            peer.reply(option, 3, &info)?;
            peer.reply(option, ACK, &[])
        })
    };
    assert_eq!(told(vec![0, 1, b'x']), "the server opened the export without telling its size");
    assert_eq!(
        told(export(u64::MAX)),
        "the export has a size of 18446744073709551615 bytes, more than any disk"
    );
    assert_eq!(told(export(0)), r#"the disk "disk" over a given socket is empty"#);
    assert_eq!(
        told(export(1)[..7].to_vec()),
        "what is told of the export has a length that does not fit what is in it"
    );
    let sizes = [&[0, 3][..], &[0, 0, 0, 3], &[0; 4], &[0; 4]].concat();
    assert_eq!(told(sizes), "blocks of 3 to 0 bytes, best 0, cannot be");
    let endless = going(|peer, option| {
        loop {
            peer.reply(option, 3, &[0, 1])?;
        }
    });
    assert_eq!(endless, "there are more than 10000 replies to one option");
    for (code, expected) in [
        (0x8000_0002, "refuses the export: its settings forbid it (not \\u{1b}[31mhere)"),
        (0x8000_0007, "refuses the export: it is shutting down (not \\u{1b}[31mhere)"),
        (0x8000_0009, "refuses the export: error 0x80000009 (not \\u{1b}[31mhere)"),
        (0x8000_0005, "wants TLS"),
    ] {
        let message = going(move |peer, option| peer.reply(option, code, b"not \x1b[31mhere"));
        assert!(message.ends_with(expected), "{message}");
    }
}

#[test]
fn a_context_that_was_not_asked_for_is_refused() {
    let message = opening(|peer| {
        peer.greet()?;
        peer.option()?;
        peer.reply(11, ACK, &[])?;
        peer.option()?;
        peer.reply(10, 4, b"\0\0\0\x01qemu:dirty-bitmap:x")
    });
    assert_eq!(message, "the server selected a metadata context that was not asked for");
}

#[test]
fn an_old_server_that_ends_the_connection_has_no_such_export() {
    let message = opening(|peer| {
        peer.send(&[b"NBDMAGICIHAVEOPT", &0_u16.to_be_bytes()])?;
        peer.request_flags()?;
        assert_eq!(peer.option()?, (1, b"disk".to_vec()));
        Ok(())
    });
    assert!(message.starts_with(r#"there is no export "disk""#), "{message}");
}

#[test]
fn chunks_come_in_any_order_and_holes_are_zeros() {
    for style in [Style::Structured, Style::Extended] {
        let read = reading(style, |peer, cookie| {
            let start = 128 << 10;
            peer.data(style, 0, cookie, start + 60_000, &[3; 5536])?;
            peer.hole(style, 0, cookie, start, 50_000)?;
            peer.data(style, 0, cookie, start + 50_000, &[2; 10_000])?;
            peer.chunk(style, 1, 0, cookie, &[])
        });
        let expected = [vec![0; 50_000], vec![2; 10_000], vec![3; 5536]].concat();
        assert!(read.unwrap() == [expected]);
    }
}

#[test]
fn requests_are_answered_in_any_order() {
    let server = |peer: &mut Peer| {
        peer.open(Style::Simple, 4 << 20)?;
        let mut requests = Vec::new();
        for _ in 0..12 {
            requests.push(peer.request(Style::Simple)?);
        }
        while let Some(request) = requests.pop() {
            let byte = u8::try_from(request.offset >> 18).unwrap();
            peer.simple(0, request.cookie, &vec![byte; usize::try_from(request.length).unwrap()])?;
        }
        Ok(())
    };
    let read = serve(server, settings(), |disk| read_ranges(&disk.unwrap(), &[(0, 3 << 20)]));
    let expected: Vec<u8> = (0..12).flat_map(|byte| vec![byte; 256 << 10]).collect();
    assert!(read.unwrap() == [expected]);
}

#[test]
fn a_reply_to_nothing_is_refused() {
    let unknown = |cookie| WireError::UnknownCookie { cookie };
    assert_eq!(broken(Style::Simple, |peer, _| peer.simple(0, 99, &[])), unknown(99));
    let twice = broken(Style::Structured, |peer, cookie| {
        peer.hole(Style::Structured, 0, cookie, 128 << 10, 4096)?;
        peer.hole(Style::Structured, 1, cookie.wrapping_sub(1), 132 << 10, 60 << 10)
    });
    assert!(matches!(twice, WireError::UnknownCookie { .. }), "{twice:?}");
}

#[test]
fn a_reply_of_another_style_is_refused() {
    let style = Style::Structured;
    assert_eq!(broken(style, |peer, cookie| peer.simple(0, cookie, &[])), WireError::NotStructured);
    let magic = |found| WireError::Magic { what: "a reply", found };
    assert_eq!(broken(style, |peer, _| peer.send(&[&[0xab; 32]])), magic(0xabab_abab));
    let chunk = broken(Style::Simple, |peer, cookie| peer.hole(style, 1, cookie, 128 << 10, 65536));
    assert_eq!(chunk, magic(0x668e_33ef));
    let wide = broken(style, |peer, cookie| peer.hole(Style::Extended, 1, cookie, 128 << 10, 65536));
    assert_eq!(wide, magic(0x6e8a_278c));
    let unknown = broken(style, |peer, cookie| peer.chunk(style, 1, 9, cookie, &[]));
    assert_eq!(unknown, WireError::UnexpectedType { what: "a reply", found: 9 });
    let status = broken(style, |peer, cookie| peer.status(style, cookie, &[(1, 1)]));
    assert_eq!(status, WireError::UnexpectedType { what: "the reply to a read", found: 5 });
}

#[test]
fn what_lies_outside_of_the_request_is_refused() {
    let start: u64 = 128 << 10;
    for (offset, length) in
        [(start - 1, 2), (start + 65535, 2), (0, 1), (u64::MAX, 2), (start, 0), (start, u32::MAX)]
    {
        let error =
            broken(Style::Structured, |peer, cookie| peer.hole(Style::Structured, 1, cookie, offset, length));
        let (asked_offset, asked_length) = (start, 65536);
        let length = length.into();
        assert_eq!(error, WireError::Outside { offset, length, asked_offset, asked_length });
    }
    // Of the bytes of such a chunk none is read.
    for style in [Style::Structured, Style::Extended] {
        let len = if style == Style::Extended { 1 << 60 } else { u64::from(u32::MAX) };
        let error =
            broken(style, |peer, cookie| peer.chunk_of_len(style, 1, 1, cookie, len, &start.to_be_bytes()));
        assert!(matches!(error, WireError::Outside { .. }), "{error:?}");
    }
}

#[test]
fn what_comes_twice_or_not_at_all_is_refused() {
    let (style, start) = (Style::Structured, 128 << 10);
    for (first, second) in
        [((0, 100), (99, 1)), ((0, 65536), (0, 65536)), ((50, 10), (0, 51)), ((50, 10), (55, 1))]
    {
        let error = broken(style, |peer, cookie| {
            peer.hole(style, 0, cookie, start + first.0, first.1)?;
            peer.hole(style, 1, cookie, start + second.0, second.1)
        });
        assert_eq!(error, WireError::Overlap { offset: start + second.0 });
    }
    let missing = broken(style, |peer, cookie| {
        peer.hole(style, 0, cookie, start, 100)?;
        peer.hole(style, 1, cookie, start + 101, 65435)
    });
    assert_eq!(missing, WireError::Incomplete { offset: start, asked: 65536, told: 65535 });
    let nothing = broken(style, |peer, cookie| peer.chunk(style, 1, 0, cookie, &[]));
    assert_eq!(nothing, WireError::Incomplete { offset: start, asked: 65536, told: 0 });
}

#[test]
fn chunks_of_a_wrong_length_and_without_end_are_refused() {
    let style = Style::Structured;
    let of_len = |kind: u16, len: usize| {
        broken(style, move |peer, cookie| peer.chunk(style, 1, kind, cookie, &[&vec![0; len]]))
    };
    assert_eq!(of_len(0, 1), WireError::OtherLength { what: "a chunk of a reply" });
    assert_eq!(of_len(1, 8), WireError::OtherLength { what: "a chunk of data" });
    assert_eq!(of_len(2, 11), WireError::OtherLength { what: "a chunk of a reply" });
    assert_eq!(of_len(0x8001, 5), WireError::OtherLength { what: "a message about a failure" });
    assert_eq!(
        of_len(0x8001, 5000),
        WireError::TooLong { what: "a message about a failure", length: 5000, limit: 4110 }
    );
    let endless = broken(style, |peer, cookie| {
        loop {
            peer.chunk(style, 0, 0, cookie, &[])?;
        }
    });
    assert_eq!(endless, WireError::TooMany { what: "chunks in a reply", limit: 144 });
    let bytes = broken(style, |peer, cookie| {
        for offset in (0..65536).step_by(2) {
            peer.data(style, 0, cookie, (128 << 10) + offset, &[1])?;
        }
        Ok(())
    });
    assert_eq!(bytes, WireError::TooMany { what: "chunks in a reply", limit: 144 });
}

#[test]
fn a_failure_is_told_with_its_place_and_message_and_ends_only_its_request() {
    let style = Style::Structured;
    let server = |peer: &mut Peer| {
        peer.open_data(style, SIZE)?;
        let request = peer.request(style)?;
        peer.data(style, 0, request.cookie, request.offset, &[1; 100])?;
        let failure =
            [&5_u32.to_be_bytes()[..], &7_u16.to_be_bytes(), b"bad\nbad", &70_000_u64.to_be_bytes()];
        peer.chunk(style, 0, 0x8002, request.cookie, &failure)?;
        peer.chunk(style, 1, 0, request.cookie, &[])?;
        let request = peer.request(style)?;
        peer.data(style, 1, request.cookie, request.offset, &[9; 512])
    };
    serve(server, settings(), |disk| {
        let disk = disk.unwrap();
        let error = read_ranges(&disk, &[(65536, 65536)]).unwrap_err();
        assert_eq!(
            chain(&error),
            [
                r#"the server of "disk" over a given socket could not read 65536 bytes at 70000: EIO, an input or output error (bad\nbad)"#
            ]
        );
        assert_eq!(read_ranges(&disk, &[(512, 512)]).unwrap(), [vec![9; 512]]);
    });
}

#[test]
fn a_connection_that_ends_in_the_middle_is_an_error() {
    for server in [
        (|peer: &mut Peer, cookie| peer.chunk_of_len(Style::Structured, 1, 1, cookie, 65544, &[0; 1000]))
            as fn(&mut Peer, u64) -> io::Result<()>,
        |_, _| Ok(()),
        |peer, _| peer.send(&[&[0x66]]),
    ] {
        // Whatever chunk it was: here its place is 0, which nobody asked for, or nothing came.
        let error = reading(Style::Structured, server).unwrap_err();
        let error = nbd_error(&error);
        assert!(matches!(error, NbdError::Lost { .. } | NbdError::BadMessage { .. }), "{error}");
    }
    let cut = reading(Style::Structured, |peer, cookie| {
        let start = (128_u64 << 10).to_be_bytes();
        peer.chunk_of_len(Style::Structured, 1, 1, cookie, 65544, &[&start[..], &[1; 999]].concat())
    });
    assert!(matches!(nbd_error(&cut.unwrap_err()), NbdError::Lost { .. }));
}

#[test]
fn a_server_that_stops_talking_is_given_up_wherever_it_stops() {
    let quick = NbdSettings { timeout: Duration::from_millis(100), ..settings() };
    let silent = |peer: &mut Peer| peer.request(Style::Simple).map(drop);
    for server in [
        (|_: &mut Peer| Ok(())) as fn(&mut Peer) -> io::Result<()>,
        |peer| peer.greet(),
        |peer| peer.open(Style::Structured, SIZE),
    ] {
        let server = move |peer: &mut Peer| {
            server(peer)?;
            // It waits for the client's end.
            while peer.byte()? {}
            Ok(())
        };
        let error = serve(server, quick.clone(), |disk| disk.unwrap_err());
        assert!(matches!(error, NbdError::TimedOut { .. }), "{error}");
    }
    let server = move |peer: &mut Peer| {
        peer.open(Style::Simple, SIZE)?;
        silent(peer)?;
        while peer.byte()? {}
        Ok(())
    };
    let error = serve(server, quick, |disk| read_ranges(&disk.unwrap(), &[(0, 512)]).unwrap_err());
    assert!(matches!(nbd_error(&error), NbdError::TimedOut { .. }), "{error}");
}

#[test]
fn states_that_cannot_be_are_refused() {
    let style = Style::Structured;
    let status =
        |states: &'static [(u64, u64)]| broken_status(move |peer, cookie| peer.status(style, cookie, states));
    let other_length = WireError::OtherLength { what: "a chunk about the state of blocks" };
    assert_eq!(status(&[]), other_length);
    assert_eq!(status(&[(0, 0)]), WireError::StatusLength { offset: 0, length: 0 });
    assert_eq!(status(&[(4096, 0), (0, 2)]), WireError::StatusLength { offset: 4096, length: 0 });
    let chunk = |kind: u16, data: &'static [u8]| {
        broken_status(move |peer, cookie| peer.chunk(style, 1, kind, cookie, &[data]))
    };
    assert_eq!(chunk(5, &[0, 0, 0, 7, 0, 0, 0, 1, 0]), other_length);
    assert_eq!(chunk(5, &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0]), WireError::OtherContext);
    assert_eq!(chunk(0, &[]), WireError::NoStatus { offset: 0 });
    let what = "the reply to a question for the state of blocks";
    assert_eq!(chunk(2, &[0; 12]), WireError::UnexpectedType { what, found: 1 });
    assert_eq!(broken_status(|peer, cookie| peer.simple(0, cookie, &[])), WireError::NoStatus { offset: 0 });
    assert_eq!(
        broken_status(|peer, cookie| peer.chunk_of_len(style, 1, 5, cookie, u64::from(u32::MAX) - 3, &[])),
        WireError::TooMany { what: "states in one chunk of a reply", limit: 8 << 20 }
    );
    let endless = broken_status(|peer, cookie| {
        loop {
            peer.chunk(style, 0, 0, cookie, &[])?;
        }
    });
    let what = "chunks in a reply about the state of blocks";
    assert_eq!(endless, WireError::TooMany { what, limit: 16 });
}

#[test]
fn states_of_64_bits_are_understood() {
    let size = 40 << 40;
    let server = |peer: &mut Peer| {
        peer.open(Style::Extended, size)?;
        let request = peer.request(Style::Extended)?;
        assert_eq!((request.kind, request.offset, request.length), (7, 0, size));
        peer.status(Style::Extended, request.cookie, &[(1 << 40, 3), (1 << 36, 0), (1 << 37, 1)])?;
        let request = peer.request(Style::Extended)?;
        assert_eq!((request.offset, request.length), ((1 << 40) + (3 << 36), size - (1 << 40) - (3 << 36)));
        // It says more than was asked for.
        peer.status(Style::Extended, request.cookie, &[(1 << 60, 2)])
    };
    serve(server, with_bitmap("x"), |disk| {
        let areas = disk.unwrap().changed_areas(None).unwrap().areas;
        assert_eq!(areas, extents(&[(1 << 40, 3 << 36)]));
    });
}

#[test]
fn a_failed_question_for_states_is_told() {
    let server = |peer: &mut Peer| {
        peer.open(Style::Structured, SIZE)?;
        let request = peer.request(Style::Structured)?;
        let failure = [&22_u32.to_be_bytes()[..], &0_u16.to_be_bytes()];
        peer.chunk(Style::Structured, 1, 0x8001, request.cookie, &failure)
    };
    let message = opening(server);
    assert!(
        message.ends_with("could not tell the state of 1048576 bytes at 0: EINVAL, an invalid request"),
        "{message}"
    );
}

#[test]
fn a_server_that_tells_states_byte_by_byte_is_not_listened_to_for_ever() {
    let size = 1 << 40;
    let server = |peer: &mut Peer| {
        peer.open(Style::Structured, size)?;
        loop {
            let request = peer.request(Style::Structured)?;
            if request.kind != 7 {
                return Ok(());
            }
            peer.status(Style::Structured, request.cookie, &[(1, 2)])?;
        }
    };
    // What was not told after 64 Ki questions is taken for data.
    let areas = serve(server, settings(), |disk| disk.unwrap().changed_areas(None).unwrap().areas);
    assert_eq!(areas, extents(&[(65536, size - 65536)]));
}
