//! A program that runs beside this one until it is ended.

use crate::frames::lock;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use zeroize::Zeroizing;

/// How much is kept of what a program writes, its end, in bytes.
const SAID_LEN: usize = 4 << 10;
/// What stands where a secret was.
const HIDDEN: &str = "***";

/// A running program, which is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    errors: Errors,
}

impl Running {
    /// Starts a program that reads and writes nothing but errors, in which `secret` is hidden.
    ///
    /// A terminal's signals do not reach it.
    pub(super) fn start(command: &mut Command, secret: Zeroizing<String>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(theirs)).process_group(0);
        let child = command.spawn()?;
        // The command has its end of the errors as long as it is there.
        command.stderr(Stdio::null());
        Ok(Self { child, errors: Errors::read(ours, secret) })
    }

    /// How it ended, if it has.
    pub(super) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks it to end.
    pub(super) fn ask_to_end(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// The end of what it wrote until now, in one line, without the secret.
    pub(super) fn said(&self) -> String {
        self.errors.said()
    }

    /// The same after it has ended: all that it wrote is among it.
    pub(super) fn last_words(mut self) -> String {
        self.kill();
        self.errors.said()
    }

    fn kill(&mut self) {
        // A program that has ended cannot be killed, and is only waited for.
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
        self.errors.end();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a program writes, read by a thread so that it never waits for us.
struct Errors {
    socket: UnixStream,
    end: Arc<Mutex<Vec<u8>>>,
    secret: Zeroizing<String>,
    reader: Option<JoinHandle<()>>,
}

/// Shows nothing of what was written, which may hold the secret.
impl fmt::Debug for Errors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Errors").finish_non_exhaustive()
    }
}

impl Errors {
    fn read(socket: UnixStream, secret: Zeroizing<String>) -> Self {
        let end = Arc::new(Mutex::new(Vec::new()));
        let kept = SAID_LEN + secret.len();
        let reader = socket.try_clone().ok().map(|mut socket| {
            let end = Arc::clone(&end);
            #[expect(
                clippy::disallowed_methods,
                reason = "it lives as long as the program, and is joined in `end`"
            )]
            std::thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(read @ 1..) = socket.read(&mut bytes) {
                    let mut end = lock(&end);
                    end.extend_from_slice(&bytes[..read]);
                    let too_much = end.len().saturating_sub(kept);
                    end.drain(..too_much);
                }
            })
        });
        Self { socket, end, secret, reader }
    }

    fn said(&self) -> String {
        let end = lock(&self.end).clone();
        let is_cut = end.len() == SAID_LEN + self.secret.len();
        let text = String::from_utf8_lossy(&end);
        let hidden = if self.secret.is_empty() {
            text.into_owned()
        } else {
            text.replace(self.secret.as_str(), HIDDEN)
        };
        // What is left of a secret that was cut is at the beginning, and shorter than the secret.
        let shown = if is_cut { cut(&hidden, self.secret.len()) } else { &hidden };
        let lines = shown.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("; ").replace(char::is_control, " ")
    }

    /// Stops reading when all that was written is read. Also what the program left running can write no more.
    fn end(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It fails if the other side is gone, and then there is nothing to stop.
            let _gone_already = self.socket.shutdown(Shutdown::Both);
            // It does not panic.
            let _read_all = reader.join();
        }
    }
}

/// Leaves out so many bytes at the beginning of a text, and what is left of the letter there.
fn cut(text: &str, len: usize) -> &str {
    let start = (len..=text.len()).find(|start| text.is_char_boundary(*start));
    start.and_then(|start| text.get(start..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(script: &str, secret: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut running = Running::start(&mut command, Zeroizing::new(secret.to_owned())).unwrap();
        running.child.wait().unwrap();
        running.errors.end();
        running.last_words()
    }

    #[test]
    fn what_a_program_says_is_one_line_without_its_secret() {
        let script = "echo 'first: pass=s3cret!' >&2; echo >&2; printf 'second\\ts3cret!' >&2";
        assert_eq!(said(script, "s3cret!"), "first: pass=***; second ***");
        assert_eq!(said("echo nothing to hide >&2", ""), "nothing to hide");
    }

    #[test]
    fn only_the_end_is_kept_and_no_part_of_a_secret_at_its_beginning() {
        // The secret is cut at every place it can be cut at.
        for shift in 0..8 {
            let end = "-".repeat(shift);
            let script = format!("yes s3cret! | head -n 700 | tr -d '\\n' >&2; printf %s '{end}' >&2");
            let said = said(&script, "s3cret!");
            let stars = said.strip_suffix(&end).unwrap();
            assert!(said.len() <= SAID_LEN && stars.len() > 1000, "shifted by {shift}: {said}");
            assert_eq!(stars.replace('*', ""), "", "shifted by {shift}");
        }
    }

    #[test]
    fn a_program_that_left_another_one_running_is_not_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo started >&2; sleep 1000 & echo $! >&2"]);
        let mut running = Running::start(&mut command, Zeroizing::default()).unwrap();
        running.child.wait().unwrap();
        let said = running.last_words();
        let (started, other) = said.split_once("; ").unwrap();
        assert_eq!(started, "started");
        let other = Pid::from_raw(other.parse().unwrap()).unwrap();
        kill_process(other, Signal::KILL).unwrap();
    }
}
