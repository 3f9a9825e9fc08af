//! A directory with a repository, images and a password in it, and the program run there as a user would.
#![allow(dead_code, reason = "each test binary uses its own part")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_keepstone");
pub const MIB: usize = 1 << 20;

pub struct World {
    pub dir: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    /// A directory with the file `password`.
    pub fn new() -> Self {
        let world = Self { dir: TempDir::new().expect("a temporary directory") };
        world.write("password", b"correct horse\n");
        world
    }

    /// The same with the repository `repo`.
    pub fn with_repository() -> Self {
        let world = Self::new();
        world.run(&["init"]).done();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("the file is written");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("the file is read")
    }

    /// A command in the directory, with nothing in its environment.
    pub fn bare(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("TZ", "UTC");
        command
    }

    /// The program with the repository and the password of this world.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(PROGRAM);
        command.args(["-r", "repo", "--password-file", "password"]).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output())
    }

    /// Starts a backup of `disk.raw` that takes a while, and returns when it has begun to read, with its messages.
    pub fn slow_backup(&self, vm: &str) -> (Child, BufReader<ChildStderr>) {
        let backup = ["-v", "--threads", "1", "backup", "--vm", vm, "disk.raw", "--compression", "19"];
        let mut command = self.command(&backup);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut messages = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("phase=Backup") {
            line.clear();
            assert_ne!(messages.read_line(&mut line).expect("a pipe"), 0, "the backup never began");
        }
        (child, messages)
    }

    /// Runs a command that succeeds, and reads its report.
    pub fn report(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[&["--json"], arguments].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.json()
    }

    /// Writes a changes file: areas of 64 KiB by their number.
    pub fn changes(
        &self,
        name: &str,
        disk_len: usize,
        since: Option<&str>,
        change_id: &str,
        areas: &[usize],
    ) {
        let areas: Vec<Value> =
            areas.iter().map(|area| serde_json::json!({"start": area << 16, "length": 1 << 16})).collect();
        let changes = serde_json::json!({
            "diskSize": disk_len, "changeId": change_id, "since": since, "changedArea": areas,
        });
        self.write(name, changes.to_string().as_bytes());
    }
}

impl Ended {
    pub fn of(output: std::io::Result<Output>) -> Self {
        let output = output.expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The run succeeded; its standard output.
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The exit code and the messages, for a snapshot.
    pub fn told(&self) -> String {
        assert_eq!(self.stdout, "", "{self:?}");
        format!("{}exit code {}", self.stderr, self.code.expect("it was not killed"))
    }
}

/// Reproducible bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The member `key` as text.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value} is no text")).to_owned()
}

/// The names of an object's members, in the order of the report.
pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}
