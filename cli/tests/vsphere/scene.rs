//! A repository, a fake vCenter with a virtual machine, and the program between them.

use crate::world::{Ended, World};
use keepstone_engine::repository::NewSlot;
use keepstone_engine::store::LocalStore;
use keepstone_engine::{Entropy, Repository};
use keepstone_peers::vcenter::{DiskSpec, PASSWORD, USER, VCenter, Vm, VmSpec};
use repo_format::{Geometry, KdfParams, SlotName};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

pub const MIB: u64 = 1 << 20;
/// Where the VM is at first.
pub const VM: &str = "DC/vm/web";
/// Where the proxy is.
pub const PROXY: &str = "DC/vm/backup/proxy";
/// The disks of these tests are read by ranges of files, unless another way is tested.
pub const FOLDER: [&str; 2] = ["--transport", "folder"];
/// What the tracking of the fake counts in.
pub const BLOCK: u64 = 64 << 10;

pub struct Scene {
    pub world: World,
    pub vcenter: Arc<VCenter>,
    pub vm: Vm,
    /// Where the VM is now.
    path: Mutex<String>,
}

impl Scene {
    /// A running VM with change tracking and disks of these sizes.
    pub fn with_disks(sizes: &[u64]) -> Self {
        Self::with_vm(&VmSpec { disks: disks(sizes), ..VmSpec::default() })
    }

    pub fn with_vm(spec: &VmSpec) -> Self {
        let world = World::new();
        make_repository(&world);
        let certificates = world.path("vcenter");
        std::fs::create_dir(&certificates).expect("a new directory");
        std::fs::create_dir(world.path("tmp")).expect("a new directory");
        let vcenter = VCenter::start(&certificates);
        let vm = vcenter.add_vm(VM, spec);
        world.write("vcenter-password", PASSWORD.as_bytes());
        Self { world, vcenter: Arc::new(vcenter), vm, path: Mutex::new(VM.to_owned()) }
    }

    /// Adds the VM that the program is to take for its own machine. Its devices are below the directory.
    pub fn add_proxy(&self) -> (Vm, PathBuf) {
        let proxy = self.vcenter.add_vm(PROXY, &VmSpec { disks: disks(&[MIB]), ..VmSpec::default() });
        let root = self.world.path("root");
        std::fs::create_dir_all(root.join("sys/block")).expect("a new directory");
        proxy.make_proxy(&root);
        (proxy, root)
    }

    pub fn place(&self) -> String {
        format!("vsphere://{}/{}", self.vcenter.host(), self.path.lock().expect("no test panicked"))
    }

    /// The VM is somewhere else from now on.
    pub fn set_path(&self, path: &str) {
        path.clone_into(&mut self.path.lock().expect("no test panicked"));
    }

    /// A command about a VM with the repository, the user, the password and the pinned certificate.
    pub fn command_at(&self, place: &str, command: &[&str], more: &[&str]) -> Command {
        let mut all = vec!["--json"];
        all.extend(command);
        all.push(place);
        all.extend(["--vsphere-user", USER, "--vsphere-password-file", "vcenter-password"]);
        all.extend(["--vsphere-thumbprint", self.vcenter.thumbprint()]);
        all.extend(more);
        let mut command = self.world.command(&all);
        command.env("TMPDIR", self.world.path("tmp")).env("KEEPSTONE_DEVICE_ROOT", self.world.path("root"));
        command
    }

    pub fn command(&self, command: &[&str], more: &[&str]) -> Command {
        self.command_at(&self.place(), command, more)
    }

    /// Backs up, whatever comes of it.
    pub fn run(&self, more: &[&str]) -> Ended {
        Ended::of(self.command(&["backup"], more).output())
    }

    /// Backs up by `/folder`, checks that nothing is left and nothing forbidden was done, and returns the exit code and the
    /// report.
    pub fn back_up(&self, more: &[&str]) -> (i32, Value) {
        self.back_up_by(&[&FOLDER, more].concat())
    }

    /// The same by any way.
    pub fn back_up_by(&self, more: &[&str]) -> (i32, Value) {
        let ended = self.run(more);
        self.is_clean();
        assert!(matches!(ended.code, Some(0 | 4)), "{ended:?}");
        (ended.code.expect("the program ends by itself"), ended.json())
    }

    /// A backup that has nothing to tell of.
    pub fn back_up_well(&self, more: &[&str]) -> Value {
        let (code, report) = self.back_up(more);
        assert_eq!(code, 0, "{report}");
        report
    }

    /// A backup that fails without a trace.
    pub fn fails(&self, more: &[&str]) -> Ended {
        let ended = self.run(&[&FOLDER, more].concat());
        self.is_clean();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        ended
    }

    /// Backs up, and does something with the program when it makes the nth call of a method. Tells whether it came to
    /// that.
    pub fn run_and_at(
        &self,
        at: (&str, u64),
        act: impl FnOnce(Pid) + Send + 'static,
        more: &[&str],
    ) -> (Ended, bool) {
        self.run_command_and_at(&["backup"], at, act, more)
    }

    /// The same with any command that ends with the VM.
    pub fn run_command_and_at(
        &self,
        command: &[&str],
        (method, nth): (&str, u64),
        act: impl FnOnce(Pid) + Send + 'static,
        more: &[&str],
    ) -> (Ended, bool) {
        let (tell, program) = channel();
        let (did, done) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        self.vcenter.at(method, nth, move || {
            // It may be a call of a later run.
            if !is_over.load(Ordering::Relaxed) {
                did.send(()).expect("the test waits");
                act(program.recv().expect("the program has been started"));
            }
        });
        let mut command = self.command(command, more);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        tell.send(Pid::from_child(&child)).expect("the hook is there");
        let ended = Ended::of(child.wait_with_output());
        over.store(true, Ordering::Relaxed);
        let was = done.try_recv().is_ok();
        // Its last call may still be going on.
        self.vcenter.carried_out();
        (ended, was)
    }

    /// The methods that a backup calls, each with how often.
    pub fn calls_of(&self, more: &[&str]) -> Vec<(String, u64)> {
        let before = self.vcenter.calls().len();
        self.back_up_by(more);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for call in &self.vcenter.calls()[before..] {
            *counts.entry(call.method.clone()).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    /// The snapshots on the vCenter that backups made.
    pub fn ours(&self) -> Vec<String> {
        let mut names = self.vm.snapshot_names();
        names.retain(|name| name.starts_with("keepstone "));
        names
    }

    /// Nothing of a backup is left on the vCenter or here, and no client did what none may do.
    pub fn is_clean(&self) {
        assert_eq!(self.vcenter.violations(), []);
        assert_eq!(self.ours(), [""; 0]);
        let left: Vec<_> =
            std::fs::read_dir(self.world.path("tmp")).unwrap().map(|entry| entry.unwrap()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Lets the sessions of programs that were killed end, as time does, and removes their temporary files.
    pub fn clear_away(&self) {
        self.vcenter.expire_sessions();
        std::fs::remove_dir_all(self.world.path("tmp")).expect("it is there");
        std::fs::create_dir(self.world.path("tmp")).expect("a new directory");
    }

    /// What a disk of a snapshot holds.
    pub fn restored(&self, snapshot: &str, key: &str) -> Vec<u8> {
        let arguments = ["-q", "restore", snapshot, "--disk", key, "--to", "-"];
        let output = self.world.command(&arguments).output().expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Restores a disk of the newest snapshot and compares it with what the VM's disk holds.
    pub fn restores(&self, key: &str, disk: usize) {
        same_bytes(&self.restored("web@latest", key), &self.vm.disk(disk).bytes());
    }

    /// The ids of the VM's snapshots in the repository.
    pub fn snapshots(&self) -> Vec<String> {
        let report = self.world.report(&["snapshots"]);
        let listed = report["snapshots"].as_array().expect("a list");
        listed.iter().map(|snapshot| snapshot["snapshot"].as_str().expect("an id").to_owned()).collect()
    }
}

/// What the snapshots in the repository have to hold.
#[derive(Default)]
pub struct History(BTreeMap<String, Vec<(String, Vec<u8>)>>);

impl History {
    /// Remembers for the snapshots that are new in the repository what the VM's disks hold now. Returns how many there
    /// are.
    pub fn note(&mut self, scene: &Scene, keys: &[&str]) -> usize {
        let mut found = 0;
        for snapshot in scene.snapshots() {
            self.0.entry(snapshot).or_insert_with(|| {
                found += 1;
                let bytes =
                    |(number, key): (usize, &&str)| ((*key).to_owned(), scene.vm.disk(number).bytes());
                keys.iter().enumerate().map(bytes).collect()
            });
        }
        found
    }

    /// Remembers the same for the snapshot that a report names.
    pub fn add(&mut self, scene: &Scene, report: &Value, keys: &[&str]) {
        let snapshot = report["snapshot"].as_str().expect("an id").to_owned();
        let bytes = |(number, key): (usize, &&str)| ((*key).to_owned(), scene.vm.disk(number).bytes());
        let before = self.0.insert(snapshot, keys.iter().enumerate().map(bytes).collect());
        assert!(before.is_none(), "a snapshot was made twice: {report}");
    }

    /// Restores every disk of every snapshot: there are no others than those that are known.
    pub fn all_restore(&self, scene: &Scene) {
        assert_eq!(scene.snapshots().len(), self.0.len());
        for (snapshot, disks) in &self.0 {
            for (key, expected) in disks {
                same_bytes(&scene.restored(snapshot, key), expected);
            }
        }
    }
}

/// Disks of these sizes.
pub fn disks(sizes: &[u64]) -> Vec<DiskSpec> {
    sizes.iter().map(|size| DiskSpec::of(*size)).collect()
}

/// The report of one disk.
pub fn disk<'r>(report: &'r Value, key: &str) -> &'r Value {
    let disks = report["disks"].as_array().expect("a list");
    disks.iter().find(|disk| disk["key"] == key).unwrap_or_else(|| panic!("no {key} in {report}"))
}

pub fn kill(program: Pid) {
    kill_process(program, Signal::KILL).expect("the program runs");
}

pub fn interrupt(program: Pid) {
    kill_process(program, Signal::INT).expect("the program runs");
}

pub fn same_bytes(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len());
    if found != expected {
        let first = found.iter().zip(expected).position(|(a, b)| a != b);
        panic!("the first byte that differs: {first:?}");
    }
}

/// A repository like any other, but for the cost of its password.
fn make_repository(world: &World) {
    let store = LocalStore::create(&world.path("repo")).expect("a new repository");
    let slot = NewSlot {
        name: &SlotName::new("first").expect("a name"),
        label: "",
        password: b"correct horse",
        kdf: KdfParams { memory_kib: 8, passes: 1, lanes: 1 },
        time: 0,
    };
    let mut seed = [0; 32];
    let place = world.path("repo").display().to_string();
    place
        .bytes()
        .enumerate()
        .for_each(|(at, byte)| seed[at % 32] ^= byte.rotate_left(u32::try_from(at / 32).unwrap()));
    let retention = NewSlot { name: &SlotName::new("retention").expect("a name"), ..slot };
    Repository::create(&store, Geometry::default(), &slot, &retention, &Entropy::new(seed))
        .expect("a new repository");
}
