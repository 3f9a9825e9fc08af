//! The devices of this machine, as its kernel shows them in files.

use super::error::TransportError;
use crate::vsphere::text::uuid_digits;
use rustix::fs::{major, minor};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// In which units the kernel tells sizes, in bytes, whatever the device's sectors are.
const SECTOR_LEN: u64 = 512;

/// What the ids of all virtual disks of VMware begin with.
const VMWARE_DISK: &str = "naa.6000c29";

/// The driver of the controllers that disks are attached to.
const DRIVER: &str = "vmw_pvscsi";

/// A block device that is no part of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockDevice {
    /// Such as `sdb`.
    pub(super) name: String,
    /// The number of its directory, so that a later device of the same name is not taken for it.
    pub(super) directory: u64,
    /// Its id, such as `naa.6000c29...`, if it tells one.
    pub(super) wwid: Option<String>,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Its place at its controller, if it is a SCSI device that tells one.
    pub(super) target: Option<i32>,
}

/// What an attached disk looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The ids that it may tell.
    pub(super) wwids: Vec<String>,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Its place at its controller.
    pub(super) unit: i32,
}

/// Which device is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// None yet.
    Nothing,
    /// This one.
    One(BlockDevice),
    /// Any of these.
    Several(Vec<String>),
}

/// Chooses the device that an attached disk became, of those that were not there before.
///
/// The one that tells the disk's id is it. Where the disks of this machine tell no ids, it is the one of the disk's length
/// at the disk's place.
pub(super) fn choose(wanted: &Wanted, before: &[BlockDevice], now: &[BlockDevice]) -> Found {
    let was_there = |device: &BlockDevice| {
        before.iter().any(|old| (&old.name, old.directory) == (&device.name, device.directory))
    };
    let new: Vec<&BlockDevice> = now.iter().filter(|device| !was_there(device)).collect();
    let has_id =
        |device: &&&BlockDevice| device.wwid.as_ref().is_some_and(|wwid| wanted.wwids.contains(wwid));
    let by_id: Vec<&BlockDevice> = new.iter().filter(has_id).copied().collect();
    let tells = |device: &BlockDevice| device.wwid.as_ref().is_some_and(|wwid| wwid.starts_with(VMWARE_DISK));
    if !by_id.is_empty() || now.iter().any(tells) {
        return one_of(&by_id);
    }
    let fits = |device: &&&BlockDevice| {
        let place = device.target.is_none_or(|target| target == wanted.unit);
        device.wwid.is_none() && device.size == wanted.size && place
    };
    one_of(&new.iter().filter(fits).copied().collect::<Vec<_>>())
}

fn one_of(devices: &[&BlockDevice]) -> Found {
    match devices {
        [] => Found::Nothing,
        [one] => Found::One((*one).clone()),
        several => Found::Several(several.iter().map(|device| device.name.clone()).collect()),
    }
}

/// The id that a disk with this UUID tells the kernel: `naa.` and its digits.
pub(super) fn wwid_of(uuid: &str) -> Option<String> {
    uuid_digits(uuid).map(|digits| format!("naa.{digits}"))
}

/// The forms of a UUID that a firmware shows: the bytes of the first three groups are in the other order where the guest
/// and the virtual firmware follow different versions of SMBIOS (from 2.6 on they are little-endian).
pub(super) fn uuid_forms(uuid: &str) -> Option<[String; 2]> {
    let digits = uuid_digits(uuid)?;
    let bytes: Vec<&str> = (0..16).filter_map(|byte| digits.get(byte * 2..byte * 2 + 2)).collect();
    let form = |order: [usize; 16]| {
        let mut text = String::new();
        for (position, byte) in order.into_iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(bytes.get(byte).expect("32 digits are 16 bytes"));
        }
        text
    };
    Some([
        form([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        form([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]),
    ])
}

/// The devices of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Devices<'a> {
    root: &'a Path,
}

impl<'a> Devices<'a> {
    /// Those of a machine whose `dev` and `sys` are in `root`.
    pub(super) fn of(root: &'a Path) -> Self {
        Self { root }
    }

    /// The UUID of this machine, in both byte orders.
    pub(super) fn own_uuid(&self) -> Result<[String; 2], TransportError> {
        let path = self.root.join("sys/class/dmi/id/product_uuid");
        let read = fs::read_to_string(&path).and_then(|text| {
            uuid_forms(text.trim())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no UUID stands there"))
        });
        read.map_err(|source| TransportError::OwnUuid { path, source })
    }

    /// Those that there are now: what is made of others, such as volumes and loops, is left out.
    pub(super) fn list(&self) -> Result<Vec<BlockDevice>, TransportError> {
        let path = self.root.join("sys/block");
        let read = || -> io::Result<Vec<BlockDevice>> {
            let mut devices = Vec::new();
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                match read_device(&entry.path(), name) {
                    Ok(device) => devices.extend(device),
                    // It went away meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            devices.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(devices)
        };
        read().map_err(|source| TransportError::Devices { path: path.clone(), source })
    }

    /// Asks the kernel to look for new devices at controllers of virtual machines.
    pub(super) fn rescan(&self) -> io::Result<()> {
        for host in fs::read_dir(self.root.join("sys/class/scsi_host"))? {
            let host = host?.path();
            // Other controllers, which may be slow to look at, have nothing to do with it.
            let other = fs::read_to_string(host.join("proc_name")).is_ok_and(|name| name.trim() != DRIVER);
            if !other {
                OpenOptions::new().write(true).open(host.join("scan"))?.write_all(b"- - -\n")?;
            }
        }
        Ok(())
    }

    /// The device's file.
    pub(super) fn node(&self, device: &BlockDevice) -> PathBuf {
        self.root.join("dev").join(&device.name)
    }

    /// Whether the device's file is of the device: one that a container has may be of an earlier device.
    pub(super) fn is_node_of(&self, device: &BlockDevice) -> io::Result<bool> {
        let metadata = fs::metadata(self.node(device))?;
        if !metadata.file_type().is_block_device() {
            return Ok(true);
        }
        let numbers = fs::read_to_string(self.root.join("sys/block").join(&device.name).join("dev"))?;
        let number = metadata.rdev();
        Ok(numbers.trim() == format!("{}:{}", major(number), minor(number)))
    }
}

/// Reads one device; none if it is made of others.
fn read_device(path: &Path, name: String) -> io::Result<Option<BlockDevice>> {
    let device = path.join("device");
    if !device.try_exists()? {
        return Ok(None);
    }
    let directory = fs::metadata(path)?.ino();
    let sectors: Option<u64> = fs::read_to_string(path.join("size"))?.trim().parse().ok();
    let size = sectors.and_then(|sectors| sectors.checked_mul(SECTOR_LEN));
    let size =
        size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{name} has no size")))?;
    // A device without an id has no such file, or one that cannot be read.
    let wwid = fs::read_to_string(device.join("wwid")).ok();
    let wwid = wwid.map(|wwid| wwid.trim().to_ascii_lowercase()).filter(|wwid| !wwid.is_empty());
    let target = fs::read_link(&device).ok().and_then(|link| scsi_target(&link));
    Ok(Some(BlockDevice { name, directory, wwid, size, target }))
}

/// Reads the target of a SCSI address, `HOST:CHANNEL:TARGET:LUN`, which a link ends with.
fn scsi_target(link: &Path) -> Option<i32> {
    let address = link.file_name()?.to_str()?;
    let numbers: Vec<i32> = address.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    match numbers.as_slice() {
        [_, _, target, _] => Some(*target),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6000C29a-1b2c-3D4e-5f60-718293a4b5c6";

    fn device(name: &str, directory: u64, wwid: Option<&str>, size: u64, target: Option<i32>) -> BlockDevice {
        BlockDevice { name: name.to_owned(), directory, wwid: wwid.map(str::to_owned), size, target }
    }

    fn wanted() -> Wanted {
        Wanted { wwids: vec![wwid_of(UUID).unwrap()], size: 1 << 20, unit: 3 }
    }

    #[test]
    fn an_id_is_made_of_the_digits_of_a_uuid() {
        let expected = Some("naa.6000c29a1b2c3d4e5f60718293a4b5c6".to_owned());
        assert_eq!(wwid_of(UUID), expected);
        assert_eq!(wwid_of("60 00 C2 9a 1b 2c 3d 4e-5f 60 71 82 93 a4 b5 c6"), expected);
        for text in
            ["", "6000C29a", "6000C29a-1b2c-3D4e-5f60-718293a4b5cg", "naa.6000c29a1b2c3d4e5f60718293a4b5c6"]
        {
            assert_eq!(wwid_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_uuid_of_the_firmware_is_tried_in_both_byte_orders() {
        assert_eq!(
            uuid_forms("420A1B2C-3D4E-5F60-7182-93A4B5C6D7E8"),
            Some([
                "420a1b2c-3d4e-5f60-7182-93a4b5c6d7e8".to_owned(),
                "2c1b0a42-4e3d-605f-7182-93a4b5c6d7e8".to_owned(),
            ])
        );
        assert_eq!(uuid_forms("Not Settable"), None);
    }

    #[test]
    fn a_new_device_with_the_disks_id_is_it_whatever_else_is_new() {
        let ours = device("sdc", 3, Some("naa.6000c29a1b2c3d4e5f60718293a4b5c6"), 1 << 20, Some(3));
        let before = [device("sda", 1, Some("naa.6000c29000000000000000000000000a"), 1 << 20, Some(0))];
        let now = [before[0].clone(), device("sdb", 2, None, 1 << 20, Some(3)), ours.clone()];
        assert_eq!(choose(&wanted(), &before, &now), Found::One(ours.clone()));
        // It was there before under the same name, but it was another one.
        let before = [BlockDevice { directory: 7, ..ours.clone() }];
        assert_eq!(choose(&wanted(), &before, std::slice::from_ref(&ours)), Found::One(ours.clone()));
        assert_eq!(
            choose(&wanted(), std::slice::from_ref(&ours), std::slice::from_ref(&ours)),
            Found::Nothing
        );
        let twin = device("sdd", 4, ours.wwid.as_deref(), 1 << 20, Some(4));
        let names = vec!["sdc".to_owned(), "sdd".to_owned()];
        assert_eq!(choose(&wanted(), &[], &[ours, twin]), Found::Several(names));
    }

    #[test]
    fn a_device_without_id_is_not_taken_where_disks_tell_theirs() {
        let before = [device("sda", 1, Some("naa.6000c29000000000000000000000000a"), 1 << 20, None)];
        let now = [before[0].clone(), device("sdb", 2, None, 1 << 20, Some(3))];
        assert_eq!(choose(&wanted(), &before, &now), Found::Nothing);
    }

    #[test]
    fn without_ids_a_device_is_known_by_its_length_and_its_place() {
        let fitting = device("sdb", 2, None, 1 << 20, Some(3));
        let nowhere = device("sdc", 3, None, 1 << 20, None);
        let others = [
            device("sdd", 4, None, (1 << 20) + 512, Some(3)),
            device("sde", 5, None, 1 << 20, Some(2)),
            device("sdf", 6, Some("t10.ATA_QEMU"), 1 << 20, Some(3)),
        ];
        assert_eq!(choose(&wanted(), &[], &others), Found::Nothing);
        let with = |device: &BlockDevice| [others.as_slice(), std::slice::from_ref(device)].concat();
        assert_eq!(choose(&wanted(), &[], &with(&fitting)), Found::One(fitting.clone()));
        assert_eq!(choose(&wanted(), &[], &with(&nowhere)), Found::One(nowhere.clone()));
        let names = vec!["sdb".to_owned(), "sdc".to_owned()];
        assert_eq!(choose(&wanted(), &[], &[fitting, nowhere]), Found::Several(names));
    }

    #[test]
    fn devices_are_read_as_the_kernel_shows_them() {
        let root = tempfile::tempdir().unwrap();
        let block = root.path().join("sys/block");
        let target = root.path().join("sys/devices/host2/target2:0:3/2:0:3:0");
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("wwid"), "naa.6000C29A1B2C3D4E5F60718293A4B5C6\n").unwrap();
        fs::create_dir_all(block.join("sdb")).unwrap();
        fs::write(block.join("sdb/size"), "2048\n").unwrap();
        std::os::unix::fs::symlink(&target, block.join("sdb/device")).unwrap();
        // A volume and a device that just went away.
        fs::create_dir_all(block.join("dm-0")).unwrap();
        std::os::unix::fs::symlink("nowhere", block.join("sdc")).unwrap();
        let directory = fs::metadata(block.join("sdb")).unwrap().ino();
        let expected =
            device("sdb", directory, Some("naa.6000c29a1b2c3d4e5f60718293a4b5c6"), 1 << 20, Some(3));
        assert_eq!(Devices::of(root.path()).list().unwrap(), [expected]);
    }

    #[test]
    fn only_controllers_of_virtual_machines_are_asked_to_look_again() {
        let root = tempfile::tempdir().unwrap();
        let hosts = root.path().join("sys/class/scsi_host");
        for (host, driver) in [("host0", Some("ahci")), ("host1", Some("vmw_pvscsi")), ("host2", None)] {
            fs::create_dir_all(hosts.join(host)).unwrap();
            fs::write(hosts.join(host).join("scan"), "").unwrap();
            if let Some(driver) = driver {
                fs::write(hosts.join(host).join("proc_name"), format!("{driver}\n")).unwrap();
            }
        }
        Devices::of(root.path()).rescan().unwrap();
        let asked = |host: &str| fs::read_to_string(hosts.join(host).join("scan")).unwrap();
        assert_eq!([asked("host0"), asked("host1"), asked("host2")], ["", "- - -\n", "- - -\n"]);
    }
}
