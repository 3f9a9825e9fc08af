//! The devices of a proxy, as files below a directory: what its kernel shows of attached disks.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::contents::BLOCK_LEN;
use super::machine::Disk;
use super::state::State;

/// Makes the devices of a proxy's disks that have none yet.
pub(super) fn show_devices(state: &mut State, vm: &str) {
    let (wwid_files, held) = (state.wwid_files, state.devices_held);
    let Some(machine) = state.machines.get_mut(vm) else { return };
    let Some(directory) = &machine.proxy else { return };
    if held {
        return;
    }
    for disk in machine.disks.iter_mut().filter(|disk| disk.device.is_none()) {
        let mut names = ('a'..='z').map(|letter| format!("sd{letter}"));
        let name = names.find(|name| !directory.join("dev").join(name).exists());
        let name = name.expect("a proxy of a test has fewer than 27 disks");
        show(directory, &name, disk, wwid_files);
        disk.device = Some(name);
    }
}

fn show(directory: &Path, name: &str, disk: &Disk, wwid_file: bool) {
    let block = directory.join("sys/block").join(name);
    let capacity = disk.contents.capacity();
    let write = || {
        fs::create_dir_all(directory.join("dev"))?;
        let device = File::create_new(directory.join("dev").join(name))?;
        device.set_len(capacity)?;
        for number in disk.contents.allocated() {
            let start = number * BLOCK_LEN;
            let len = BLOCK_LEN.min(capacity - start);
            device.write_all_at(&disk.contents.read(start, len), start)?;
        }
        // The directory's name appears last, so that a device that is found is whole.
        let making = directory.join(format!("making-{name}"));
        fs::create_dir_all(making.join("device"))?;
        fs::write(making.join("size"), format!("{}\n", capacity / 512))?;
        if wwid_file {
            fs::write(making.join("device/wwid"), format!("{}\n", wwid(&disk.uuid)))?;
        }
        fs::create_dir_all(directory.join("sys/block"))?;
        fs::rename(making, &block)
    };
    write()
        .unwrap_or_else(|error| panic!("cannot make the device {name} in {}: {error}", directory.display()));
}

/// Returns the name that a disk's UUID gives it: `naa.6000c29…`.
fn wwid(uuid: &str) -> String {
    format!("naa.{}", uuid.replace('-', "").to_lowercase())
}

/// Takes over what was written to a disk's device. Nobody is told that it changed.
pub(super) fn take_contents(directory: &Path, name: &str, disk: &mut Disk) {
    let path = directory.join("dev").join(name);
    let capacity = disk.contents.capacity();
    let mut read = || {
        let device = File::open(&path)?;
        let mut start = 0;
        while start < capacity {
            let len = BLOCK_LEN.min(capacity - start);
            let mut bytes = vec![0; usize::try_from(len).expect("a block fits in memory")];
            device.read_exact_at(&mut bytes, start)?;
            if disk.contents.read(start, len) != bytes {
                disk.contents.write(start, &bytes);
            }
            start += len;
        }
        Ok::<(), std::io::Error>(())
    };
    read().unwrap_or_else(|error| panic!("cannot read the device {}: {error}", path.display()));
}

/// Removes a device.
pub(super) fn remove_device(directory: &Path, name: &str) {
    let removed = fs::remove_dir_all(directory.join("sys/block").join(name))
        .and_then(|()| fs::remove_file(directory.join("dev").join(name)));
    removed.unwrap_or_else(|error| {
        panic!("cannot remove the device {name} of {}: {error}", directory.display())
    });
}
