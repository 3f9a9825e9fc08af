//! What changed on a disk before it is written: asked in a snapshot of the VM, as a backup asks, before the VM forgets it.
//!
//! The VM must not run between the question and the attachment, or what it wrote would be in no answer. It is seen to be
//! off before and afterwards; the sample that a restore compares elsewhere is against one that ran in between.

use super::{DiskError, Failure, Rest, alone};
use crate::Extent;
use crate::source::{ChangedAreas, FullReason, Outside, Since};
use crate::vsphere::changes::{Doubt, Tracking};
use crate::vsphere::disk::Origin;
use crate::vsphere::error::VSphereError;
use crate::vsphere::fault::FaultKind;
use crate::vsphere::machine::{Unallocated, host_build, property};
use crate::vsphere::model::{VirtualDisk, VmInfo};
use crate::vsphere::preflight::disk_key;

/// What was asked about a disk's changes, and the answer.
pub(super) struct Asked<'a> {
    pub(super) since: Since<'a>,
    /// What changed, sorted and apart, or why that is not known.
    answer: Result<Vec<Extent>, FullReason>,
}

impl Asked<'_> {
    /// The answer, about a disk of `size` bytes.
    pub(super) fn areas(&self, size: u64) -> ChangedAreas {
        let (areas, outside) = match &self.answer {
            Ok(areas) => (areas.clone(), Outside::Unchanged),
            Err(reason) => {
                let full_reason = Some(reason.clone());
                (Extent::between(0, size).into_iter().collect(), Outside::Zero { full_reason })
            }
        };
        ChangedAreas { areas, outside, change_id: None }
    }
}

impl<'a> Rest<'a> {
    /// Asks what changed on a disk since a snapshot in the repository. Any doubt is an answer.
    ///
    /// # Errors
    /// A snapshot of the VM that cannot be made or removed, or a server that cannot be asked.
    pub(super) fn ask(
        &mut self,
        since: Since<'a>,
        info: &VmInfo,
        disk: &VirtualDisk,
    ) -> Result<Asked<'a>, Failure> {
        let doubt = if since.property(property::VM) != info.instance_uuid.as_deref() {
            Some(Doubt::OtherDisk)
        } else if info.change_tracking_enabled {
            None
        } else {
            Some(Doubt::TrackingOff)
        };
        // No snapshot is needed for these.
        if let Some(doubt) = doubt {
            return Ok(Asked { since, answer: Err(FullReason::ChangeTracking(doubt)) });
        }
        let key = self.job.key;
        let host_build =
            host_build(self.job.waiter.vcenter, info).map_err(DiskError::Asking).map_err(alone)?;
        let answer = self.in_snapshot(|vcenter, snapshot| {
            let frozen = vcenter.snapshot_config(snapshot)?;
            let same =
                |found: &&VirtualDisk| found.key == disk.key && disk_key(found, &frozen.controllers) == key;
            let Some(frozen_disk) = frozen.disks.iter().find(same) else {
                return Ok(Err(FullReason::ChangeTracking(Doubt::OtherDisk)));
            };
            let origin = Origin {
                vcenter,
                vm: info.vm.clone(),
                snapshot: snapshot.clone(),
                vm_uuid: info.instance_uuid.clone(),
                host_build,
                tracking: Tracking::On,
                unallocated: Unallocated::Read,
            };
            origin.changes(key, frozen_disk, &since).or_else(|error| not_permitted(error).map(Err))
        })?;
        Ok(Asked { since, answer })
    }
}

/// That a user may not ask is no reason not to restore.
fn not_permitted(error: VSphereError) -> Result<FullReason, VSphereError> {
    match error {
        VSphereError::Fault { kind: kind @ FaultKind::NoPermission { .. }, message, .. } => {
            let fault = kind.name().to_owned();
            Ok(FullReason::ChangeTracking(Doubt::Refused { fault, message }))
        }
        error => Err(error),
    }
}
