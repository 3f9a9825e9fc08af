//! Disks restored as images: QEMU's own tools read them, and a reader of streams the VMDK.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod images;
mod random;
mod stream;

use keepstone_engine::DiskTarget;
use keepstone_engine::target::{
    Existing, FileTarget, ImageIdentity, Incomplete, Qcow2Target, TargetError, VhdFooter, VhdTarget,
    VmdkSettings, VmdkTarget,
};
use serde_json::Value;
use std::io;
use std::path::Path;
use std::process::Command;

pub(crate) const IDENTITY: ImageIdentity = ImageIdentity {
    id: [1, 2, 3, 4, 5, 6, 0x87, 8, 0x89, 10, 11, 12, 13, 14, 15, 16],
    time: 1_774_980_000_000,
};

/// A format, by the name that QEMU has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Raw,
    Vhd,
    Vmdk,
    Qcow2,
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [Self::Raw, Self::Vhd, Self::Vmdk, Self::Qcow2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhd => "vpc",
            Self::Vmdk => "vmdk",
            Self::Qcow2 => "qcow2",
        }
    }

    /// What the size of a disk is rounded up to.
    pub(crate) fn unit(self) -> u64 {
        match self {
            // QEMU reads a raw file so.
            Self::Raw | Self::Qcow2 => 512,
            Self::Vhd => 1 << 20,
            Self::Vmdk => 64 << 10,
        }
    }

    /// Begins a file that keeps all that comes too early.
    pub(crate) fn create(self, path: &Path, disk_bytes: u64) -> io::Result<Box<dyn DiskTarget>> {
        Ok(match self {
            Self::Raw => {
                Box::new(FileTarget::create(path, disk_bytes, Existing::Refuse, Incomplete::Removed)?)
            }
            Self::Vhd => {
                let footer = VhdFooter::new(disk_bytes, &IDENTITY)?;
                let file =
                    FileTarget::create(path, footer.file_len(), Existing::Refuse, Incomplete::Removed)?;
                Box::new(VhdTarget::new(file, footer))
            }
            Self::Vmdk => Box::new(VmdkTarget::create(path, Existing::Refuse, &vmdk(disk_bytes))?),
            Self::Qcow2 => Box::new(Qcow2Target::create(path, disk_bytes, Existing::Refuse)?),
        })
    }
}

pub(crate) fn vmdk(disk_bytes: u64) -> VmdkSettings {
    VmdkSettings { disk_bytes, kept_max: disk_bytes.min(256 << 20), identity: IDENTITY }
}

/// A disk that is zero but for some ranges.
#[derive(Clone, Debug)]
pub(crate) struct Sparse {
    pub(crate) size: u64,
    /// In order, not touching each other.
    pub(crate) data: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    pub(crate) fn write_to(&self, target: &dyn DiskTarget) -> io::Result<()> {
        let mut position = 0;
        for (offset, data) in &self.data {
            target.zero_at(position, offset - position)?;
            target.write_at(*offset, data)?;
            position = offset + data.len() as u64;
        }
        target.zero_at(position, self.size - position)
    }
}

/// Runs one of QEMU's tools, which must succeed, and returns what it printed.
pub(crate) fn qemu(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool).args(arguments).output().expect("QEMU's tools are installed");
    let [printed, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{tool} {arguments:?}: {}\n{printed}{errors}", output.status);
    printed.into_owned()
}

pub(crate) fn qemu_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&qemu("qemu-img", arguments)).unwrap()
}

/// What [`TargetError`] a failure is.
pub(crate) fn target_error(error: &io::Error) -> &TargetError {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

/// Checks an image as QEMU does, and that it has the size that it should.
pub(crate) fn check(form: Form, image: &Path, disk_bytes: u64) {
    let image = image.to_str().unwrap();
    let info = qemu_json(&["info", "--output=json", "-f", form.name(), image]);
    assert_eq!(
        info["virtual-size"],
        disk_bytes.next_multiple_of(form.unit()),
        "{form:?} {disk_bytes}: {info}"
    );
    if form == Form::Qcow2 {
        let checked = qemu_json(&["check", "--output=json", "-f", "qcow2", image]);
        for none in ["check-errors", "corruptions", "leaks"] {
            assert!(checked[none].is_null() || checked[none] == 0, "{disk_bytes}: {checked}");
        }
        assert_eq!(checked["image-end-offset"], std::fs::metadata(image).unwrap().len(), "{checked}");
    }
    // It would look for every grain.
    if form == Form::Vmdk && disk_bytes < 1 << 40 {
        qemu("qemu-img", &["check", "-f", "vmdk", image]);
    }
}
