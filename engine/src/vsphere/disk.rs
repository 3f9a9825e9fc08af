//! A disk of a VM's snapshot as a source: what changed is asked of the vCenter, the bytes come by a data path.

use super::changes::{CurrentDisk, Doubt, RecordedDisk, Tracking, collect_changes, plan_read};
use super::client::VCenter;
use super::error::VSphereError;
use super::machine::{Unallocated, property};
use super::model::{MoRef, VirtualDisk, VmSnapshot};
use super::transport::{DataPath, Transport, TransportError};
use super::waiting::Waiter;
use crate::source::{ChangedAreas, DiskSource, FullReason, Outside, ReadPart, Since};
use crate::{Extent, extent};
use std::io;

/// The change id that asks for what is allocated.
const ALLOCATED: &str = "*";

/// Whether a disk's changes are tracked, of a VM where that is `enabled`, or not. A snapshot among the `older` ones that
/// has the disk without a change id was there before tracking began.
pub(super) fn tracking(enabled: Tracking, disk: &VirtualDisk, older: &[VmSnapshot]) -> Tracking {
    let mut before = older.iter().flat_map(|snapshot| &snapshot.disks).filter(|old| old.key == disk.key);
    if enabled == Tracking::On && before.any(|old| old.backing.change_id.is_none()) {
        return Tracking::BegunWithSnapshots;
    }
    enabled
}

/// What a disk's changes are asked of.
pub(super) struct Origin<'a> {
    pub(super) vcenter: &'a VCenter,
    pub(super) vm: MoRef,
    pub(super) snapshot: MoRef,
    pub(super) vm_uuid: Option<String>,
    pub(super) host_build: Option<String>,
    pub(super) tracking: Tracking,
    pub(super) unallocated: Unallocated,
}

impl Origin<'_> {
    /// What changed on a disk since a snapshot in the repository, which has it under the key, or why that is not known.
    pub(super) fn changes(
        &self,
        key: &str,
        disk: &VirtualDisk,
        since: &Since<'_>,
    ) -> Result<Result<Vec<Extent>, FullReason>, VSphereError> {
        let property = |key: &str| since.property(key).map(ToOwned::to_owned);
        // Another VM of the same name.
        if property(property::VM) != self.vm_uuid {
            return Ok(Err(FullReason::ChangeTracking(Doubt::OtherDisk)));
        }
        let recorded = RecordedDisk {
            size: since.size,
            change_id: since.change_id.map(ToOwned::to_owned),
            disk_uuid: property(&property::disk_uuid(key)),
            host_build: property(property::HOST_BUILD),
        };
        let current = CurrentDisk {
            size: disk.capacity_bytes,
            change_id: disk.backing.change_id.clone(),
            disk_uuid: disk.backing.uuid.clone(),
            host_build: self.host_build.clone(),
            tracking: self.tracking,
        };
        let from = match plan_read(&recorded, &current) {
            Ok(from) => from,
            Err(doubt) => return Ok(Err(FullReason::ChangeTracking(doubt))),
        };
        let Origin { vcenter, vm, snapshot, .. } = self;
        let areas = vcenter.changed_areas(vm, snapshot, disk, &from)?;
        Ok(areas.map_err(FullReason::ChangeTracking))
    }
}

/// A disk as the snapshot of its VM keeps it.
pub struct MachineDisk<'a> {
    key: String,
    disk: VirtualDisk,
    path: DataPath<'a>,
    origin: Origin<'a>,
}

impl<'a> MachineDisk<'a> {
    pub(super) fn new(key: String, disk: VirtualDisk, path: DataPath<'a>, origin: Origin<'a>) -> Self {
        Self { key, disk, path, origin }
    }

    /// Where it is attached: its key in the repository.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The disk in the snapshot.
    #[must_use]
    pub fn disk(&self) -> &VirtualDisk {
        &self.disk
    }

    /// How it is read.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.path.transport()
    }

    pub(super) fn close(self, waiter: &Waiter<'_>) -> Result<(), TransportError> {
        self.path.close(waiter)
    }

    /// What a snapshot records for the next backup: nothing if changes are not tracked without a doubt.
    fn change_id(&self) -> Option<String> {
        (self.origin.tracking == Tracking::On).then(|| self.disk.backing.change_id.clone()).flatten()
    }

    /// What a full read has to read: everything, unless what is unallocated is to be skipped and all of the answer about it
    /// agrees.
    fn to_read(&self, full_reason: Option<FullReason>) -> (Vec<Extent>, Outside) {
        let everything = Extent::between(0, self.disk.capacity_bytes).into_iter().collect();
        if self.origin.unallocated == Unallocated::Read {
            return (everything, Outside::Zero { full_reason });
        }
        let Origin { vcenter, vm, snapshot, .. } = &self.origin;
        let collected = collect_changes(self.disk.capacity_bytes, |offset| {
            vcenter.query_changed_areas(vm, snapshot, self.disk.key, offset, ALLOCATED)
        });
        // The question needs VMFS and may be refused: it only saves time.
        match collected {
            Ok(Ok(allocated)) => (extent::normalized(allocated), Outside::SaidZero { full_reason }),
            Ok(Err(_)) | Err(_) => (everything, Outside::Zero { full_reason }),
        }
    }
}

impl DiskSource for MachineDisk<'_> {
    fn size(&self) -> u64 {
        self.disk.capacity_bytes
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = self.change_id();
        let mut full_reason = None;
        if let Some(since) = since {
            match self.origin.changes(&self.key, &self.disk, since).map_err(io::Error::other)? {
                Ok(areas) => return Ok(ChangedAreas { areas, outside: Outside::Unchanged, change_id }),
                Err(reason) => full_reason = Some(reason),
            }
        }
        let (areas, outside) = self.to_read(full_reason);
        Ok(ChangedAreas { areas, outside, change_id })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        self.path.source().read(parts)
    }

    /// Makes sure that the snapshot is still there: without it the VM writes to what was read.
    fn check_unchanged(&self) -> io::Result<()> {
        self.path.source().check_unchanged()?;
        let Origin { vcenter, snapshot, .. } = &self.origin;
        let frozen = vcenter.snapshot_config(snapshot).map_err(io::Error::other)?;
        let same = frozen.disks.iter().find(|disk| disk.key == self.disk.key);
        if same == Some(&self.disk) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the virtual machine's snapshot changed while it was read",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsphere::model::{Backing, BackingKind};

    fn disk(key: i32, change_id: Option<&str>) -> VirtualDisk {
        VirtualDisk {
            key,
            label: String::new(),
            controller_key: None,
            unit_number: None,
            capacity_bytes: 1 << 20,
            backing: Backing {
                kind: BackingKind::FlatVer2,
                file: None,
                uuid: None,
                change_id: change_id.map(ToOwned::to_owned),
                mode: None,
                sharing: false,
                thin: None,
                parent_file: None,
            },
        }
    }

    fn snapshot(disks: Vec<VirtualDisk>) -> VmSnapshot {
        let snapshot = MoRef::new("VirtualMachineSnapshot", "snapshot-1");
        VmSnapshot { snapshot, disks, controllers: Vec::new() }
    }

    #[test]
    fn tracking_is_doubtful_if_an_older_snapshot_has_the_disk_without_a_change_id() {
        let tracked = disk(2000, Some("id/2"));
        let before = snapshot(vec![disk(2000, None), disk(2001, Some("id/1"))]);
        let since = snapshot(vec![disk(2000, Some("id/1")), disk(2001, None)]);
        assert_eq!(tracking(Tracking::On, &tracked, &[]), Tracking::On);
        assert_eq!(tracking(Tracking::On, &tracked, std::slice::from_ref(&since)), Tracking::On);
        let both = [since, before];
        assert_eq!(tracking(Tracking::On, &tracked, &both), Tracking::BegunWithSnapshots);
        assert_eq!(tracking(Tracking::Off, &tracked, &both), Tracking::Off);
    }
}
