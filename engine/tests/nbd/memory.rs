//! A server with a disk in memory, which loses connections where it is told to.

use crate::scripted::{Peer, Style};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tempfile::TempDir;

/// How a connection is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Before the request is looked at.
    Before,
    /// After it was done, without an answer.
    Unanswered,
    /// In the middle of its answer.
    HalfAnswered,
    /// After it was answered, and all that was not flushed is as it was before.
    PowerCut,
}

/// What a server does.
#[derive(Clone, Copy)]
pub struct Plan {
    pub style: Style,
    pub flags: u16,
    /// The number of the request, of all connections, and what happens then.
    pub loss: Option<(usize, Loss)>,
}

pub const FLUSH: u16 = 1 << 2;
pub const TRIM: u16 = 1 << 5;
pub const WRITE_ZEROES: u16 = 1 << 6;
pub const MULTI_CONN: u16 = 1 << 8;

struct Disk {
    bytes: Vec<u8>,
    flushed: Vec<u8>,
    requests: usize,
    /// Counts what ended all connections.
    cuts: usize,
    plan: Plan,
    sockets: Vec<UnixStream>,
}

/// Runs `client` beside a server of a disk with these bytes; returns what it does, and the disk.
pub fn with_memory<T>(bytes: Vec<u8>, plan: Plan, client: impl FnOnce(&str) -> T) -> (T, Vec<u8>) {
    let dir = TempDir::new().unwrap();
    let path: PathBuf = dir.path().join("nbd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let flushed = bytes.clone();
    let disk = Mutex::new(Disk { bytes, flushed, requests: 0, cuts: 0, plan, sockets: Vec::new() });
    let ended = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let (socket, _) = listener.accept().unwrap();
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let ours = socket.try_clone().unwrap();
                disk.lock().unwrap().sockets.push(socket.try_clone().unwrap());
                let disk = &disk;
                scope.spawn(move || {
                    // However a connection ends, the client says whether that was right.
                    let _ = serve(&mut Peer::over(socket), disk);
                    let _ = ours.shutdown(Shutdown::Both);
                });
            }
        });
        let result = client(&format!("nbd+unix:///?socket={}", path.display()));
        ended.store(true, Ordering::SeqCst);
        UnixStream::connect(&path).unwrap();
        result
    });
    (result, disk.into_inner().unwrap().bytes)
}

fn serve(peer: &mut Peer, disk: &Mutex<Disk>) -> io::Result<()> {
    let (plan, size, cuts) = {
        let disk = disk.lock().unwrap();
        (disk.plan, disk.bytes.len() as u64, disk.cuts)
    };
    let style = plan.style;
    peer.open_with_flags(style, size, plan.flags | 1)?;
    loop {
        let request = peer.request(style)?;
        if request.kind == 7 {
            peer.status(style, request.cookie, &[(request.length, 0)])?;
            continue;
        }
        let payload = if request.kind == 1 { peer.payload(request.length)? } else { Vec::new() };
        let mut disk = disk.lock().unwrap();
        if disk.cuts > cuts || request.kind == 2 {
            return Ok(());
        }
        let loss = plan.loss.filter(|(number, _)| *number == disk.requests).map(|(_, loss)| loss);
        disk.requests += 1;
        if loss == Some(Loss::Before) {
            return Ok(());
        }
        let range = if request.kind == 3 {
            0..0
        } else {
            let start = usize::try_from(request.offset).unwrap();
            start..start + usize::try_from(request.length).unwrap()
        };
        match request.kind {
            0 => {
                let bytes = disk.bytes[range].to_vec();
                match style {
                    Style::Simple => peer.simple(0, request.cookie, &bytes)?,
                    _ => peer.data(style, 1, request.cookie, request.offset, &bytes)?,
                }
                continue;
            }
            1 => disk.bytes[range].copy_from_slice(&payload),
            3 => {
                let Disk { bytes, flushed, .. } = &mut *disk;
                flushed.clone_from(bytes);
            }
            4 => disk.bytes[range].fill(0xee),
            6 => disk.bytes[range].fill(0),
            other => panic!("request {other}"),
        }
        match loss {
            Some(Loss::Unanswered) => return Ok(()),
            Some(Loss::HalfAnswered) => return peer.send(&[&[0x67, 0x44, 0x66]]),
            _ => {}
        }
        match style {
            Style::Simple => peer.simple(0, request.cookie, &[])?,
            _ => peer.chunk(style, 1, 0, request.cookie, &[])?,
        }
        if loss == Some(Loss::PowerCut) {
            let Disk { bytes, flushed, .. } = &mut *disk;
            bytes.clone_from(flushed);
            disk.cuts += 1;
            for socket in disk.sockets.drain(..) {
                // It may have been closed by the client.
                let _ = socket.shutdown(Shutdown::Both);
            }
            return Ok(());
        }
    }
}
