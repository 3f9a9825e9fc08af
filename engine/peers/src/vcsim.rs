//! vcsim, govmomi's simulator of a vCenter, with what `engine/peers/vcsim` adds to it: contents of disks, delta disks
//! and changed-block tracking.
//!
//! Its datacenter is called `DC0`. What it does not emulate is said in `engine/peers/vcsim/main.go`. It is told what the
//! guests and other people do through its standard input, and ends with it: no process outlives its test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

/// It starts within half a second; a busy machine may need more.
const START_SECONDS: u64 = 60;

/// What the simulator begins with.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    /// The name of each virtual machine, with the bytes of its disks (`scsi0:0`, `scsi0:1`, ...), multiples of 1024.
    ///
    /// Half of each disk's first 64 MiB, in blocks of 256 KiB, is filled with pseudo-random bytes, the first block
    /// always. The machines are switched on, and their changes are not tracked.
    pub machines: &'a [(&'a str, &'a [u64])],
    /// The most extents in one answer of `QueryChangedDiskAreas`.
    pub page_extents: u32,
    /// The bytes in whose multiples changes are tracked.
    pub granularity: u32,
}

impl<'a> Layout<'a> {
    /// Returns a layout with these machines, and the page and granularity that were seen of real hosts.
    #[must_use]
    pub fn of(machines: &'a [(&'a str, &'a [u64])]) -> Self {
        Self { machines, page_extents: 2000, granularity: 64 << 10 }
    }
}

/// A running simulator, which ends when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct Vcsim {
    process: Child,
    pipe: Mutex<Pipe>,
    ready: Ready,
}

/// Both ends of the standard streams. The process ends when the first of them is closed.
#[derive(Debug)]
struct Pipe {
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Its first line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ready {
    address: String,
    user: String,
    password: String,
    thumbprint: String,
    certificate: String,
    machines: Vec<Machine>,
}

/// A virtual machine as it is now.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its inventory path, such as `/DC0/vm/web`.
    pub path: String,
    /// The value of its managed object reference, such as `vm-29`.
    pub object: String,
    /// Its instance UUID.
    pub instance_uuid: String,
    /// Whether it is switched on.
    pub on: bool,
    /// Whether its configuration says that changes are tracked, which they are from the next snapshot on.
    pub change_tracking: bool,
    /// Its snapshots, from the oldest to the newest.
    pub snapshots: Vec<Snapshot>,
    /// Its disks.
    pub disks: Vec<Disk>,
}

/// A snapshot of a virtual machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The value of its managed object reference.
    pub object: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Whether it was asked to quiesce the guest.
    pub quiesced: bool,
}

/// A disk of a virtual machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Where it is attached, such as `scsi0:0`.
    pub name: String,
    /// The key of the device.
    pub key: i32,
    /// Its size in bytes.
    pub capacity: u64,
    /// The datastore path of the file that takes writes, such as `[LocalDS_0] web/web.vmdk`. While there are snapshots
    /// it is a delta disk, such as `web-000001.vmdk`, of which there is no file to read.
    pub file: String,
    /// The path, on this machine, of the file with the contents of the base disk: what the oldest snapshot holds, or,
    /// without snapshots, what the guest wrote last.
    pub flat: PathBuf,
    /// The change id in the configuration of the machine, and empty if there is none.
    pub change_id: String,
}

impl Vcsim {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    /// If it was not built, or does not start.
    #[must_use]
    pub fn start(layout: &Layout<'_>) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/vcsim");
        assert!(program.is_file(), "vcsim is not in target/tools: run `make test`, or `make vcsim`");
        let mut command = Command::new(program);
        command.arg("-page").arg(layout.page_extents.to_string());
        command.arg("-granularity").arg(layout.granularity.to_string());
        for (name, disks) in layout.machines {
            let sizes: Vec<String> = disks.iter().map(ToString::to_string).collect();
            command.arg("-machine").arg(format!("{name}={}", sizes.join(",")));
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program can be executed");
        let mut answers = BufReader::new(process.stdout.take().expect("standard output is piped"));
        let (said, listening) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            answers.read_line(&mut line).expect("vcsim writes text");
            // Nobody waits any more if the start was given up.
            let _ = said.send((line, answers));
        });
        let Ok((line, answers)) = listening.recv_timeout(Duration::from_secs(START_SECONDS)) else {
            process.kill().expect("the process was not waited for");
            panic!("vcsim did not listen within {START_SECONDS} s");
        };
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("vcsim said `{line}`, which this version of the tests does not know ({error}): run `make vcsim`")
        });
        let commands = process.stdin.take();
        Self { process, pipe: Mutex::new(Pipe { commands, answers }), ready }
    }

    /// Returns where it listens, with TLS, such as `127.0.0.1:40000`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.ready.address
    }

    /// Returns the name of the only user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.ready.user
    }

    /// Returns the password of [`Vcsim::user`], which holds characters that XML and shells take for their own.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.ready.password
    }

    /// Returns the SHA-256 of its certificate, as openssl prints it: `AA:BB:...`.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.ready.thumbprint
    }

    /// Returns its certificate, for 127.0.0.1 and localhost, in PEM. It signed itself, so it is the authority as well.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.ready.certificate
    }

    /// Returns the names of the machines that it began with, in their order.
    pub fn machine_names(&self) -> impl Iterator<Item = &str> {
        self.ready.machines.iter().map(|machine| machine.name.as_str())
    }

    /// Returns a machine as it is now.
    ///
    /// # Panics
    /// If there is none of the name, or vcsim has ended.
    #[must_use]
    pub fn machine(&self, name: &str) -> Machine {
        let all = self.run(&json!({ "do": "list" }));
        let all: Vec<Machine> =
            serde_json::from_value(all).expect("vcsim and this module agree: run `make vcsim`");
        all.into_iter()
            .find(|machine| machine.name == name)
            .unwrap_or_else(|| panic!("vcsim has no machine named {name}"))
    }

    /// Lets the guest write pseudo-random bytes that are made from the seed, or zeros without one.
    ///
    /// # Panics
    /// If there is no such disk, if the range is empty or not inside the disk, or vcsim has ended.
    pub fn write(&self, machine: &str, disk: &str, offset: u64, length: u64, seed: Option<u64>) {
        self.run(&json!({
            "do": "write", "machine": machine, "disk": disk, "offset": offset, "length": length, "seed": seed,
        }));
    }

    /// Copies what the guest would read now, the whole disk, to a file, with holes where there are zeros.
    ///
    /// # Panics
    /// If there is no such disk, the file cannot be written, or vcsim has ended.
    pub fn save(&self, machine: &str, disk: &str, file: &Path) {
        self.run(&json!({ "do": "save", "machine": machine, "disk": disk, "file": file }));
    }

    /// Returns what the guest would read now, the whole disk.
    ///
    /// # Panics
    /// Like [`Vcsim::save`].
    #[must_use]
    pub fn contents(&self, machine: &str, disk: &str) -> Vec<u8> {
        let flat =
            self.machine(machine).disks.into_iter().find(|found| found.name == disk).map(|found| found.flat);
        // It is removed with the disks.
        let copy =
            flat.unwrap_or_else(|| panic!("machine {machine} has no disk {disk}")).with_extension("copy");
        self.save(machine, disk, &copy);
        let contents = fs::read(&copy).expect("vcsim wrote the copy");
        fs::remove_file(copy).expect("the copy is there");
        contents
    }

    /// Lets somebody else make a snapshot of a machine.
    ///
    /// # Panics
    /// If it fails, or vcsim has ended.
    pub fn create_snapshot(&self, machine: &str, name: &str) {
        self.run(&json!({ "do": "snapshot", "machine": machine, "name": name }));
    }

    /// Lets somebody else remove a snapshot, whose name must be the only one of its kind.
    ///
    /// # Panics
    /// If it fails, or vcsim has ended.
    pub fn remove_snapshot(&self, machine: &str, name: &str) {
        self.run(&json!({ "do": "remove-snapshot", "machine": machine, "name": name }));
    }

    /// Forgets the changes of all disks of a machine, as after a loss of power or a migration of the disks: the next
    /// snapshot begins another epoch.
    ///
    /// # Panics
    /// If there is no such machine, or vcsim has ended.
    pub fn reset_tracking(&self, machine: &str) {
        self.run(&json!({ "do": "reset-tracking", "machine": machine }));
    }

    /// Switches a machine off.
    ///
    /// # Panics
    /// If it is off, or vcsim has ended.
    pub fn switch_off(&self, machine: &str) {
        self.run(&json!({ "do": "power", "machine": machine, "on": false }));
    }

    /// Returns how many sessions are logged in.
    ///
    /// # Panics
    /// If vcsim has ended.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.run(&json!({ "do": "sessions" })).as_u64().expect("vcsim answers with a number")
    }

    /// Ends all sessions, as when nobody used them for long, and returns how many there were.
    ///
    /// # Panics
    /// If vcsim has ended.
    pub fn end_sessions(&self) -> u64 {
        self.run(&json!({ "do": "end-sessions" })).as_u64().expect("vcsim answers with a number")
    }

    fn run(&self, command: &Value) -> Value {
        // A command that panicked was answered.
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = pipe.commands.as_mut().expect("standard input is open until this is dropped");
        writeln!(commands, "{command}").expect("vcsim has not ended");
        let mut line = String::new();
        pipe.answers.read_line(&mut line).expect("vcsim writes text");
        let mut answer: Value = serde_json::from_str(&line).expect("vcsim has not ended");
        assert!(answer.get("error").is_none(), "vcsim was told {command}: {}", answer["error"]);
        answer["result"].take()
    }
}

impl Drop for Vcsim {
    fn drop(&mut self) {
        self.pipe.get_mut().unwrap_or_else(PoisonError::into_inner).commands = None;
        self.process.wait().expect("a child is there to be waited for");
    }
}
