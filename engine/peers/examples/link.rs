//! A network link to try things over: `link --listen 127.0.0.1:0 --to 127.0.0.1:10000 --delay-ms 20`.
//!
//! Prints the address that it listens at, and what went over it when it is ended: by Ctrl-C, SIGTERM, or the end of its
//! standard input if that is a terminal or a pipe. `--delay-ms` is the round trip, `--mbit-per-second` caps each way.
#![expect(clippy::print_stdout, reason = "its output is for the console")]

use keepstone_peers::proxy::{Link, LinkSettings};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const USAGE: &str = "link --listen ADDRESS --to ADDRESS [--delay-ms N] [--mbit-per-second N]";

fn main() -> io::Result<()> {
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut to = None;
    let mut settings = LinkSettings::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().expect(USAGE);
        let number = || value.parse::<u64>().expect(USAGE);
        match word.as_str() {
            "--listen" => listen = value.parse().expect(USAGE),
            "--to" => to = Some(value.parse().expect(USAGE)),
            "--delay-ms" => settings.round_trip = Duration::from_millis(number()),
            "--mbit-per-second" => settings.bytes_per_second = Some(number() * 1_000_000 / 8),
            _ => panic!("{USAGE}"),
        }
    }
    let link = Link::listen(listen, to.expect(USAGE), settings)?;
    println!("{}", link.addr());
    io::stdout().flush()?;
    wait_for_end()?;
    let counts = link.counts();
    println!(
        "connections {} (most at once {}, refused {}), requests {} (most at once {}), bytes to server {}, to client {}",
        counts.connections,
        counts.connections_at_once_max,
        counts.refused,
        counts.requests,
        counts.requests_at_once_max,
        counts.bytes_to_server,
        counts.bytes_to_client,
    );
    Ok(())
}

/// Returns when the program is asked to end.
fn wait_for_end() -> io::Result<()> {
    let (asked, end) = mpsc::channel();
    let (mut signals, handler) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, handler.try_clone()?)?;
    }
    let signalled = asked.clone();
    thread::spawn(move || signals.read_exact(&mut [0]).map(|()| signalled.send(())));
    // What a shell gives to programs in the background, /dev/null, has ended from the start.
    if io::stdin().is_terminal() || fs::metadata("/dev/stdin")?.file_type().is_fifo() {
        thread::spawn(move || io::copy(&mut io::stdin(), &mut io::sink()).map(|_| asked.send(())));
    }
    end.recv().map_err(io::Error::other)
}
