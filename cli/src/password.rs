//! Where the password comes from.

use crate::exit::Usage;
use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::{Zeroize, Zeroizing};

/// The longest password: enough for a file of random bytes, little enough for one that was named by mistake.
const PASSWORD_LEN_MAX: usize = 4096;

/// A password, wiped when it is dropped.
pub(crate) type Password = Zeroizing<Vec<u8>>;

/// One place that a password is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file.
    File(PathBuf),
    /// What a shell command prints.
    Command(String),
    /// An environment variable.
    Environment(&'static str),
    /// A question at the terminal.
    Terminal,
}

/// Whether a password is asked for once or, because it is new, twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// It opens something that exists.
    Once,
    /// It is new, and a slip of the finger would lose everything.
    Twice,
}

/// What is asked at the terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// The words, without a colon.
    pub(crate) text: &'a str,
    /// Once or twice.
    pub(crate) asking: Asking,
    /// How else the password can be given, where there is no terminal.
    pub(crate) otherwise: &'static str,
}

impl Origin {
    /// Gets the password.
    ///
    /// # Errors
    /// A source that cannot be read, or an empty password.
    pub(crate) fn password(&self, question: Question<'_>) -> anyhow::Result<Password> {
        let password = match self {
            Self::File(path) => without_line_end(read_file(path)?),
            Self::Command(command) => without_line_end(run(command)?),
            Self::Environment(name) => {
                let value = std::env::var_os(name).unwrap_or_default();
                Zeroizing::new(value.into_vec())
            }
            Self::Terminal => ask(question)?,
        };
        if password.is_empty() {
            bail!(Usage::new("the password is empty"));
        }
        checked(password)
    }
}

/// Asks at the terminal for a password that need not be given.
///
/// # Errors
/// No terminal, or two passwords that differ.
pub(crate) fn ask_for_one_or_none(question: Question<'_>) -> anyhow::Result<Option<Password>> {
    let password = checked(ask(question)?)?;
    Ok(Some(password).filter(|password| !password.is_empty()))
}

fn checked(password: Password) -> anyhow::Result<Password> {
    if password.len() > PASSWORD_LEN_MAX {
        bail!(Usage::new(format!("the password is longer than {PASSWORD_LEN_MAX} bytes")));
    }
    Ok(password)
}

fn read_file(path: &Path) -> anyhow::Result<Password> {
    let read = File::open(path).and_then(read_limited);
    read.with_context(|| format!("could not read the password file {}", path.display()))
}

fn run(command: &str) -> anyhow::Result<Password> {
    let failed = || "could not run the password command".to_owned();
    let mut child =
        Command::new("sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn().with_context(failed)?;
    let output = child.stdout.take().expect("the output was asked for");
    let password = read_limited(output).with_context(failed)?;
    let status = child.wait().with_context(failed)?;
    if !status.success() {
        bail!("the password command failed: {status}");
    }
    Ok(password)
}

/// Reads at most one byte more than the longest password and its line end.
fn read_limited(input: impl Read) -> std::io::Result<Password> {
    // All of it at once, so that no copy stays behind in memory.
    let mut password = Zeroizing::new(Vec::with_capacity(PASSWORD_LEN_MAX + 3));
    let limit = u64::try_from(PASSWORD_LEN_MAX + 3).expect("a small number");
    input.take(limit).read_to_end(&mut password)?;
    Ok(password)
}

fn without_line_end(mut password: Password) -> Password {
    if password.last() == Some(&b'\n') {
        password.pop();
        if password.last() == Some(&b'\r') {
            password.pop();
        }
    }
    password
}

fn ask(question: Question<'_>) -> anyhow::Result<Password> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Usage::new("no password was given and there is no terminal to ask at").hint(question.otherwise)
    })?;
    let password = read_line(&mut terminal, &format!("{}: ", question.text))?;
    if question.asking == Asking::Twice && read_line(&mut terminal, "The same again: ")? != password {
        bail!(Usage::new("the two passwords are not the same"));
    }
    Ok(password)
}

/// Reads a line without showing it.
///
/// Keys are read one by one, Ctrl-C among them, so that the terminal is as before however this ends.
fn read_line(terminal: &mut File, question: &str) -> anyhow::Result<Password> {
    const FAILED: &str = "could not ask for the password";
    let before = tcgetattr(&*terminal).context(FAILED)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    silent.special_codes[SpecialCodeIndex::VMIN] = 1;
    silent.special_codes[SpecialCodeIndex::VTIME] = 0;
    // Before the question, so that nothing of a quick answer is shown or lost.
    tcsetattr(&*terminal, OptionalActions::Flush, &silent).context(FAILED)?;
    let asked = terminal.write_all(question.as_bytes()).context(FAILED);
    let line = asked.and_then(|()| read_keys(terminal));
    restore(terminal, &before).context(FAILED)?;
    line
}

fn restore(terminal: &mut File, before: &Termios) -> std::io::Result<()> {
    tcsetattr(&*terminal, OptionalActions::Flush, before)?;
    terminal.write_all(b"\n")
}

fn read_keys(keys: &mut impl Read) -> anyhow::Result<Password> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_LEN_MAX + 1));
    let mut key = [0];
    loop {
        let read = keys.read(&mut key).context("could not read the password")?;
        match key[0] {
            _ if read == 0 => break,
            // Ctrl-D ends a line too, Ctrl-C gives up.
            b'\r' | b'\n' | 0x04 => break,
            0x03 => bail!(keepstone_engine::EngineError::Cancelled),
            // Backspace takes a whole character of UTF-8, Ctrl-U everything.
            0x08 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            0x15 => line.clear(),
            byte if line.len() <= PASSWORD_LEN_MAX => line.push(byte),
            _ => {}
        }
    }
    key.zeroize();
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Vec<u8> {
        read_keys(&mut &*keys).expect("a line").to_vec()
    }

    #[test]
    fn a_line_can_be_corrected_while_it_is_typed() {
        assert_eq!(typed(b"secret\nmore"), b"secret");
        assert_eq!(typed(b"secret"), b"secret");
        assert_eq!(typed("wrong\u{15}se\u{e4}\u{7f}cret\r".as_bytes()), b"secret");
        assert!(read_keys(&mut &b"sec\x03ret\n"[..]).is_err());
    }

    #[test]
    fn one_line_end_does_not_count() {
        let trimmed = |text: &[u8]| without_line_end(Zeroizing::new(text.to_vec())).to_vec();
        assert_eq!(trimmed(b"secret\n"), b"secret");
        assert_eq!(trimmed(b"secret\r\n"), b"secret");
        assert_eq!(trimmed(b" secret \n\n"), b" secret \n");
    }
}
