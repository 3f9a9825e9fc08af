//! Disks that runs of this program which were killed left attached to the proxy.

use super::TransportSettings;
use super::error::TransportError;
use super::hotadd::{Attached, is_of};
use super::proxy;
use crate::vsphere::model::{Backing, VirtualDisk, VmInfo};
use crate::vsphere::tasks::AttachMode;
use crate::vsphere::waiting::Waiter;

/// Detaches the disks of a VM that the proxy has for reading, and returns how many those were.
pub(super) fn detach(
    waiter: &Waiter<'_>,
    vm: &VmInfo,
    settings: &TransportSettings,
) -> Result<usize, TransportError> {
    let proxy = match proxy::find(waiter.vcenter, settings, &vm.vm) {
        Ok(proxy) => proxy,
        // Nothing could be attached to what cannot be found without a name.
        Err(TransportError::OwnUuid { .. } | TransportError::NotAVm { .. }) => return Ok(0),
        Err(error) => return Err(error),
    };
    if proxy.vm == vm.vm {
        return Ok(0);
    }
    let left = leftovers(vm, &proxy);
    let count = left.len();
    for attached in left {
        if let Err(source) = attached.detach(waiter) {
            return Err(attached.still_there(None, source));
        }
    }
    Ok(count)
}

/// The disks of a proxy that are files of a VM, attached to be read.
fn leftovers(vm: &VmInfo, proxy: &VmInfo) -> Vec<Attached> {
    let is_left = |attached: &&VirtualDisk| vm.disks.iter().any(|own| belongs(attached, &own.backing));
    let attached =
        proxy.disks.iter().filter(|disk| disk.backing.mode.as_deref() == Some(AttachMode::Reading.word()));
    attached
        .filter(is_left)
        .filter_map(|disk| {
            Some(Attached::of(proxy, disk, disk.backing.file.as_deref()?, AttachMode::Reading))
        })
        .collect()
}

/// Whether an attached disk is a file of a VM's disk: the file itself, the one below it, or one of the same disk beside
/// them, as snapshots make more of.
fn belongs(attached: &VirtualDisk, own: &Backing) -> bool {
    let files = [&own.file, &own.parent_file].into_iter().flatten();
    if files.clone().any(|file| is_of(attached, file, AttachMode::Reading)) {
        return true;
    }
    let same_disk = own.uuid.is_some() && own.uuid == attached.backing.uuid;
    let directory = |file: &str| file.rsplit_once('/').map(|(directory, _)| directory.to_owned());
    let place = attached.backing.file.as_deref().and_then(directory);
    same_disk && place.is_some() && files.map(|file| directory(file)).any(|own| own == place)
}
