//! A repository, a fake vCenter with one virtual machine, and the program between them.

use crate::world::{Ended, World};
use keepstone_peers::vcenter::{DiskSpec, PASSWORD, USER, VCenter, Vm, VmSpec};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

pub const VM: &str = "DC/vm/web";

pub struct Scene {
    pub world: World,
    pub vcenter: VCenter,
    pub vm: Vm,
}

impl Scene {
    /// A running VM with change tracking and disks of these sizes.
    pub fn with_disks(sizes: &[u64]) -> Self {
        let disks = sizes.iter().map(|size| DiskSpec::of(*size)).collect();
        Self::with_vm(&VmSpec { disks, ..VmSpec::default() })
    }

    pub fn with_vm(spec: &VmSpec) -> Self {
        let world = World::with_repository();
        let certificates = world.path("vcenter");
        std::fs::create_dir(&certificates).expect("a new directory");
        let vcenter = VCenter::start(&certificates);
        let vm = vcenter.add_vm(VM, spec);
        world.write("vcenter-password", PASSWORD.as_bytes());
        Self { world, vcenter, vm }
    }

    pub fn place(&self) -> String {
        format!("vsphere://{}/{VM}", self.vcenter.host())
    }

    /// A command with the repository, the user, the password and the pinned certificate.
    pub fn command(&self, command: &[&str], more: &[&str]) -> Command {
        let mut all = vec!["--json"];
        all.extend(command);
        let place = self.place();
        all.push(&place);
        all.extend(["--vsphere-user", USER, "--vsphere-password-file", "vcenter-password"]);
        all.extend(["--vsphere-thumbprint", self.vcenter.thumbprint()]);
        all.extend(more);
        self.world.command(&all)
    }

    pub fn run(&self, more: &[&str]) -> Ended {
        Ended::of(self.command(&["backup"], more).output())
    }

    /// Backs up by `/folder`, checks that nothing is left and nothing forbidden was done, and returns the exit code and the
    /// report.
    pub fn back_up(&self, more: &[&str]) -> (i32, Value) {
        let ended = self.run(&[&["--transport", "folder"], more].concat());
        self.is_clean();
        let report = ended.json();
        (ended.code.expect("the program ends by itself"), report)
    }

    /// Nothing of a backup is left on the vCenter, and no client did what none may do.
    pub fn is_clean(&self) {
        assert_eq!(self.vcenter.violations(), []);
        let ours = |name: &String| name.starts_with("keepstone ");
        assert_eq!(self.vm.snapshot_names().into_iter().filter(ours).collect::<Vec<_>>(), [""; 0]);
    }

    /// Restores a disk of the newest snapshot and compares it with what the VM's disk holds.
    pub fn restores(&self, key: &str, disk: usize) {
        let restored: PathBuf = self.world.path("restored.raw");
        let arguments = ["restore", "web@latest", "--disk", key, "--to", "restored.raw", "--overwrite"];
        self.world.run(&arguments).done();
        let (restored, expected) =
            (std::fs::read(restored).expect("the disk is restored"), self.vm.disk(disk).bytes());
        assert_eq!(restored.len(), expected.len());
        let first = restored.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(first, None, "the first byte that differs");
    }
}
