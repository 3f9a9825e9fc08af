//! Disks that were backed up, and places to copy to.

use crate::world::{Ended, MIB, PROGRAM, World, noise, text};
use keepstone_peers::azurite::{Account, Azurite};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// The length of each disk.
const DISK: usize = 2 * MIB;

/// Bytes of several VMs, and of the second day of the first one.
pub fn world_with_backups(vms: u64) -> World {
    let world = World::with_repository();
    for vm in 0..vms {
        world.write(&format!("vm{vm}.raw"), &noise(vm + 1, DISK));
        world.run(&["-q", "backup", "--vm", &format!("vm{vm}"), &format!("vm{vm}.raw")]).done();
    }
    let mut disk = noise(1, DISK);
    disk[MIB..MIB + 70_000].copy_from_slice(&noise(99, 70_000));
    world.write("vm0.raw", &disk);
    world.run(&["-q", "backup", "--vm", "vm0", "vm0.raw"]).done();
    world
}

/// The program with another repository than that of the world.
pub fn at(world: &World, repository: &str, arguments: &[&str]) -> Command {
    let mut command = world.bare(PROGRAM);
    command.args(["-r", repository, "--password-file", "password", "--retention-password-file", "password"]);
    command.args(arguments);
    command
}

/// Every VM restores from there as it was backed up last.
pub fn assert_restores(world: &World, vms: u64, command: &dyn Fn(&[&str]) -> Command) {
    for vm in 0..vms {
        let (latest, target) = (format!("vm{vm}@latest"), format!("restored{vm}.raw"));
        let restore = ["-q", "restore", &latest, "--to", &target, "--overwrite"];
        Ended::of(command(&restore).output()).done();
        assert!(world.read(&target) == world.read(&format!("vm{vm}.raw")), "vm{vm} is another disk");
    }
    let snapshots = Ended::of(command(&["--json", "snapshots"]).output());
    let ids: Vec<Value> = snapshots.json()["snapshots"].as_array().unwrap().clone();
    assert_eq!(ids.len() as u64, vms + 1);
    assert!(ids.iter().all(|line| text(line, "vm").starts_with("vm")));
}

/// What a run reports that copied something, without what differs from run to run.
pub fn counts(report: &Value) -> Value {
    let snapshots = &report["snapshots"];
    json!([snapshots["copied"], snapshots["there"], report["failed"].as_array().map(Vec::len)])
}

/// A container in an account of the shared Azurite.
pub struct Container {
    pub account: Account,
    pub name: &'static str,
}

impl Container {
    pub fn new(account: Account, name: &'static str) -> Self {
        Azurite::shared().create_container(&account, name);
        Self { account, name }
    }

    /// The repository's name.
    pub fn place(&self) -> String {
        self.place_by(&Azurite::shared().endpoint(&self.account))
    }

    /// The same by another way to the service.
    pub fn place_by(&self, endpoint: &str) -> String {
        format!("azblob://{}/{}/site?endpoint={endpoint}", self.account.name, self.name)
    }

    pub fn sas(&self, rights: &str) -> String {
        self.account.container_sas(self.name, rights, SystemTime::now() + Duration::from_hours(1))
    }
}
