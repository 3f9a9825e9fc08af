//! A server that does what it is told, right or wrong.

use keepstone_engine::nbd::{NbdError, NbdSettings};
use keepstone_engine::source::NbdDisk;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;

/// The server's side of one connection.
pub struct Peer {
    socket: UnixStream,
}

/// A request of the client.
pub struct Request {
    pub kind: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u64,
}

/// What a server agrees to.
#[derive(Clone, Copy, PartialEq)]
pub enum Style {
    Simple,
    Structured,
    Extended,
}

pub const ACK: u32 = 1;
pub const UNSUPPORTED: u32 = 0x8000_0001;

/// Runs a server beside an opening of its disk of some size. What the server does ends with the client's end.
pub fn serve<T>(
    server: impl FnOnce(&mut Peer) -> std::io::Result<()> + Send,
    settings: NbdSettings,
    client: impl FnOnce(Result<NbdDisk, NbdError>) -> T,
) -> T {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut peer = Peer { socket: theirs };
            // The client may end first: that is what most cases come to.
            let _ = server(&mut peer);
        });
        client(NbdDisk::over(ours, "disk", settings))
    })
}

impl Peer {
    pub fn over(socket: UnixStream) -> Self {
        Self { socket }
    }

    pub fn send(&mut self, parts: &[&[u8]]) -> std::io::Result<()> {
        self.socket.write_all(&parts.concat())
    }

    fn array<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The greeting, up to the client's flags.
    pub fn greet(&mut self) -> std::io::Result<()> {
        self.send(&[b"NBDMAGICIHAVEOPT", &3_u16.to_be_bytes()])?;
        self.array::<4>().map(drop)
    }

    /// The client's flags.
    pub fn request_flags(&mut self) -> std::io::Result<()> {
        self.array::<4>().map(drop)
    }

    /// Reads a byte; false at the client's end.
    pub fn byte(&mut self) -> std::io::Result<bool> {
        Ok(self.socket.read(&mut [0])? > 0)
    }

    /// The next option and its data.
    pub fn option(&mut self) -> std::io::Result<(u32, Vec<u8>)> {
        assert_eq!(&self.array::<8>()?, b"IHAVEOPT");
        let option = u32::from_be_bytes(self.array()?);
        let mut data = vec![0; u32::from_be_bytes(self.array()?) as usize];
        self.socket.read_exact(&mut data)?;
        Ok((option, data))
    }

    pub fn reply(&mut self, option: u32, code: u32, data: &[u8]) -> std::io::Result<()> {
        let len = u32::try_from(data.len()).unwrap();
        self.reply_of_len(option, code, len, data)
    }

    pub fn reply_of_len(&mut self, option: u32, code: u32, len: u32, data: &[u8]) -> std::io::Result<()> {
        let magic = 0x0003_e889_0455_65a9_u64;
        self.send(&[
            &magic.to_be_bytes(),
            &option.to_be_bytes(),
            &code.to_be_bytes(),
            &len.to_be_bytes(),
            data,
        ])
    }

    /// The whole handshake, with the context `base:allocation` as number 7 if the style has contexts.
    pub fn open(&mut self, style: Style, size: u64) -> std::io::Result<()> {
        self.open_with_flags(style, size, 1)
    }

    /// The same with transmission flags.
    pub fn open_with_flags(&mut self, style: Style, size: u64, flags: u16) -> std::io::Result<()> {
        self.greet()?;
        loop {
            let (option, _) = self.option()?;
            match (option, style) {
                (11, Style::Extended) | (8, Style::Structured) => self.reply(option, ACK, &[])?,
                (10, Style::Extended | Style::Structured) => {
                    self.reply(option, 4, &[&7_u32.to_be_bytes()[..], b"base:allocation"].concat())?;
                    self.reply(option, ACK, &[])?;
                }
                (7, _) => {
                    let info = [&0_u16.to_be_bytes()[..], &size.to_be_bytes(), &flags.to_be_bytes()];
                    self.reply(option, 3, &info.concat())?;
                    return self.reply(option, ACK, &[]);
                }
                _ => self.reply(option, UNSUPPORTED, &[])?,
            }
        }
    }

    /// The handshake, and that all is data.
    pub fn open_data(&mut self, style: Style, size: u64) -> std::io::Result<()> {
        self.open(style, size)?;
        if style != Style::Simple {
            let request = self.request(style)?;
            self.status(style, request.cookie, &[(size, 0)])?;
        }
        Ok(())
    }

    /// The bytes that follow a request to write.
    pub fn payload(&mut self, length: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub fn request(&mut self, style: Style) -> std::io::Result<Request> {
        let magic = u32::from_be_bytes(self.array()?);
        let (expected, wide) =
            if style == Style::Extended { (0x21e4_1c71, true) } else { (0x2560_9513, false) };
        assert_eq!(magic, expected);
        let [_, _, kind_high, kind_low] = self.array()?;
        let kind = u16::from_be_bytes([kind_high, kind_low]);
        let cookie = u64::from_be_bytes(self.array()?);
        let offset = u64::from_be_bytes(self.array()?);
        let length =
            if wide { u64::from_be_bytes(self.array()?) } else { u32::from_be_bytes(self.array()?).into() };
        Ok(Request { kind, cookie, offset, length })
    }

    pub fn simple(&mut self, error: u32, cookie: u64, data: &[u8]) -> std::io::Result<()> {
        self.send(&[&0x6744_6698_u32.to_be_bytes(), &error.to_be_bytes(), &cookie.to_be_bytes(), data])
    }

    /// A chunk that says to be as long as it is.
    pub fn chunk(
        &mut self,
        style: Style,
        flags: u16,
        kind: u16,
        cookie: u64,
        data: &[&[u8]],
    ) -> std::io::Result<()> {
        let data = data.concat();
        self.chunk_of_len(style, flags, kind, cookie, data.len() as u64, &data)
    }

    pub fn chunk_of_len(
        &mut self,
        style: Style,
        flags: u16,
        kind: u16,
        cookie: u64,
        len: u64,
        data: &[u8],
    ) -> std::io::Result<()> {
        let (flags, kind, cookie) = (flags.to_be_bytes(), kind.to_be_bytes(), cookie.to_be_bytes());
        if style == Style::Extended {
            let (magic, offset) = (0x6e8a_278c_u32.to_be_bytes(), 0_u64.to_be_bytes());
            self.send(&[&magic, &flags, &kind, &cookie, &offset, &len.to_be_bytes(), data])
        } else {
            let (magic, len) = (0x668e_33ef_u32.to_be_bytes(), u32::try_from(len).unwrap().to_be_bytes());
            self.send(&[&magic, &flags, &kind, &cookie, &len, data])
        }
    }

    pub fn data(
        &mut self,
        style: Style,
        flags: u16,
        cookie: u64,
        offset: u64,
        bytes: &[u8],
    ) -> std::io::Result<()> {
        self.chunk(style, flags, 1, cookie, &[&offset.to_be_bytes(), bytes])
    }

    pub fn hole(
        &mut self,
        style: Style,
        flags: u16,
        cookie: u64,
        offset: u64,
        len: u32,
    ) -> std::io::Result<()> {
        self.chunk(style, flags, 2, cookie, &[&offset.to_be_bytes(), &len.to_be_bytes()])
    }

    /// The states of context 7: lengths and flags.
    pub fn status(&mut self, style: Style, cookie: u64, states: &[(u64, u64)]) -> std::io::Result<()> {
        let mut data = 7_u32.to_be_bytes().to_vec();
        if style == Style::Extended {
            data.extend(u32::try_from(states.len()).unwrap().to_be_bytes());
        }
        for (length, state) in states {
            if style == Style::Extended {
                data.extend([length.to_be_bytes(), state.to_be_bytes()].concat());
            } else {
                let [length, state] = [length, state].map(|n| u32::try_from(*n).unwrap().to_be_bytes());
                data.extend([length, state].concat());
            }
        }
        self.chunk(style, 1, if style == Style::Extended { 6 } else { 5 }, cookie, &[&data])
    }
}
