//! Ways to the data of a snapshot's disks, against the fake vCenter. No library of VMware's takes part: nbdkit serves a
//! file in its stead.

mod folder;
mod hotadd;
mod nbdkit;

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keepstone_engine::source::ReadPart;
use keepstone_engine::tls::Trust;
use keepstone_engine::vsphere::{
    AddController, DataPath, Datacenter, MoRef, Quiescing, Reader, Transport, TransportChoice,
    TransportError, TransportSettings, VCenter, VCenterSettings, VmInfo, VmSnapshot, Waiter,
};
use keepstone_peers::vcenter::{self, DiskSpec, PASSWORD, USER, VmSpec};
use tempfile::TempDir;
use zeroize::Zeroizing;

const MIB: u64 = 1 << 20;

/// A pause that takes no time: the fake goes on with its tasks whenever it is asked.
type Pause<'a> = &'a (dyn Fn(Duration) -> ControlFlow<()> + Sync);

fn at_once(_: Duration) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A fake vCenter with a VM to be read and a proxy, and a session with it.
struct World {
    fake: vcenter::VCenter,
    vm: vcenter::Vm,
    /// How many it has.
    disks: usize,
    proxy: vcenter::Vm,
    vcenter: VCenter,
    settings: TransportSettings,
    directory: TempDir,
}

impl World {
    fn new(vm: &VmSpec, proxy: &VmSpec) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, run_dir) = (directory.path().join("root"), directory.path().join("run"));
        fs::create_dir_all(root.join("sys/class/dmi/id")).unwrap();
        fs::create_dir_all(root.join("sys/block")).unwrap();
        fs::create_dir(&run_dir).unwrap();
        let fake = vcenter::VCenter::start(directory.path());
        let disks = vm.disks.len();
        let vm = fake.add_vm("DC0/vm/web", vm);
        let proxy = fake.add_vm("DC0/vm/backup/proxy", proxy);
        fs::write(root.join("sys/class/dmi/id/product_uuid"), format!("{}\n", proxy.bios_uuid())).unwrap();
        proxy.make_proxy(&root);
        for number in 0..disks {
            vm.disk(number).write(0, &content(number, vm.disk(number).size()));
        }
        let host = fake.host();
        let (host, port) = host.split_once(':').unwrap();
        let server = VCenterSettings {
            host: host.to_owned(),
            port: port.parse().unwrap(),
            user: USER.to_owned(),
            password: Zeroizing::new(PASSWORD.to_owned()),
            trust: Trust::Thumbprint(fake.thumbprint().parse().unwrap()),
            connect_timeout: Duration::from_mins(1),
            answer_timeout: Duration::from_mins(1),
            pause: Arc::new(|_| {}),
        };
        let settings = TransportSettings {
            choice: TransportChoice::Auto,
            proxy_vm: None,
            add_controller: AddController::Never,
            root,
            nbdkit: PathBuf::from("nbdkit"),
            vddk_dir: None,
            run_dir,
            server: server.clone(),
            hidden_variables: Vec::new(),
        };
        let vcenter = VCenter::connect(&server).unwrap();
        Self { fake, vm, disks, proxy, vcenter, settings, directory }
    }

    fn with_disks(sizes: &[u64]) -> Self {
        Self::new(&with_disks(sizes), &with_disks(&[2 * MIB]))
    }

    fn waiter<'a>(&'a self, pause: Pause<'a>) -> Waiter<'a> {
        Waiter { vcenter: &self.vcenter, pause, patience: Duration::from_mins(10) }
    }

    /// Freezes the VM's disks; what is written to them afterwards is in no backup.
    fn freeze(&self) -> Frozen {
        let vm = MoRef::new("VirtualMachine", self.vm.id());
        let task = self.vcenter.create_snapshot(&vm, "keepstone", "", Quiescing::None);
        let snapshot = self.waiter(&at_once).task("create a snapshot", task).unwrap().unwrap();
        let contents = (0..self.disks).map(|number| self.vm.disk(number).bytes()).collect();
        for number in 0..self.disks {
            self.vm.disk(number).write(0, &[0xEE; 4096]);
        }
        Frozen {
            vm: self.vcenter.vm(&vm).unwrap(),
            datacenter: self.vcenter.datacenter_of(&vm).unwrap(),
            snapshot: self.vcenter.snapshot_config(&snapshot).unwrap(),
            contents,
        }
    }

    fn reader<'v, 'a>(&'v self, frozen: &'a Frozen, settings: &'a TransportSettings) -> Reader<'v, 'a> {
        let waiter = self.waiter(&at_once);
        let Frozen { vm, datacenter, snapshot, .. } = frozen;
        Reader { waiter, cleaning: waiter, vm, datacenter, snapshot, settings }
    }

    /// Only this way.
    fn only(&self, transport: Transport) -> TransportSettings {
        TransportSettings { choice: TransportChoice::Only(transport), ..self.settings.clone() }
    }

    fn leftovers(&self, frozen: &Frozen) -> Result<usize, TransportError> {
        Reader::detach_leftovers(&self.waiter(&at_once), &frozen.vm, &self.settings)
    }

    /// Removes the snapshot and ends the session: no rule was broken.
    fn end(self, frozen: &Frozen) {
        let removed = self.vcenter.remove_snapshot(&frozen.snapshot.snapshot);
        self.waiter(&at_once).task("remove the snapshot", removed).unwrap();
        self.vcenter.logout().unwrap();
        assert_eq!(self.fake.violations(), []);
    }
}

/// A VM whose disks are frozen.
struct Frozen {
    vm: VmInfo,
    datacenter: Datacenter,
    snapshot: VmSnapshot,
    contents: Vec<Vec<u8>>,
}

fn with_disks(sizes: &[u64]) -> VmSpec {
    VmSpec { disks: sizes.iter().map(|size| DiskSpec::of(*size)).collect(), ..VmSpec::default() }
}

/// Bytes that differ from place to place and from disk to disk.
fn content(seed: usize, size: u64) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..size).map(byte).collect()
}

/// All bytes of a disk, read in parts of several lengths with several in each call.
fn read_all(path: &DataPath<'_>) -> Vec<u8> {
    let source = path.source();
    let mut bytes = vec![0xAA; usize::try_from(source.size()).unwrap()];
    let mut offset = 0;
    let mut parts = Vec::new();
    for (number, buffer) in bytes.chunks_mut(300_001).enumerate() {
        let (first, second) = buffer.split_at_mut(buffer.len() * (number % 3) / 3);
        for buffer in [first, second].into_iter().filter(|buffer| !buffer.is_empty()) {
            let part = ReadPart { offset, buffer };
            offset += part.buffer.len() as u64;
            parts.push(part);
        }
    }
    for several in parts.chunks_mut(5) {
        source.read(several).unwrap();
    }
    bytes
}

/// The names of ways that were refused.
fn refused(refused: &[(Transport, TransportError)]) -> Vec<Transport> {
    refused.iter().map(|(transport, _)| *transport).collect()
}
