//! The VM that this program runs in, which disks of others are attached to.

use super::devices::{Devices, uuid_forms};
use super::error::TransportError;
use super::{Reader, TransportSettings};
use crate::vsphere::client::{UuidKind, VCenter};
use crate::vsphere::error::VSphereError;
use crate::vsphere::model::{MoRef, Power, VmInfo};
use crate::vsphere::place::{VSpherePlace, VmPlace};
use percent_encoding::percent_decode_str;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

const FIND: &str = "find the virtual machine to attach disks to";

/// What the user needs on the proxy. Adding a controller needs one more, when it comes to that.
const PRIVILEGES: [&str; 2] = ["VirtualMachine.Config.AddExistingDisk", "VirtualMachine.Config.RemoveDisk"];

/// How the proxy is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyVm {
    /// By its instance UUID or that of its firmware.
    Uuid(String),
    /// By its inventory path (`DATACENTER/vm/FOLDER/NAME`), or by what stands behind `vm/` of it if it is in the
    /// datacenter of the VM whose disks are read: a mere name, for one. Slashes in names are written `%2f`.
    Path(String),
}

impl fmt::Display for ProxyVm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => write!(formatter, "with the UUID {uuid}"),
            Self::Path(path) => formatter.write_str(path),
        }
    }
}

/// Takes 32 hexadecimal digits for a UUID, and anything else for a path.
impl FromStr for ProxyVm {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match uuid_forms(text) {
            Some([uuid, _]) => Self::Uuid(uuid),
            None => Self::Path(text.to_owned()),
        })
    }
}

/// Finds the proxy; `vm` is in the datacenter that a mere name is looked for in.
pub(super) fn find(
    vcenter: &VCenter,
    settings: &TransportSettings,
    vm: &MoRef,
) -> Result<VmInfo, TransportError> {
    let asking = |source| TransportError::Asking { what: FIND, source };
    let found = if let Some(proxy) = &settings.proxy_vm {
        let found = match proxy {
            ProxyVm::Uuid(uuid) => first(
                [UuidKind::Instance, UuidKind::Bios].map(|kind| move || vcenter.find_by_uuid(uuid, kind)),
            ),
            ProxyVm::Path(path) => found(find_by_path(vcenter, settings, path, vm)),
        };
        found.map_err(asking)?.ok_or_else(|| TransportError::NoSuchProxy { proxy: proxy.clone() })?
    } else {
        let forms = Devices::of(&settings.root).own_uuid()?;
        let uuid = forms[0].clone();
        let found = first(forms.map(|form| move || vcenter.find_by_uuid(&form, UuidKind::Bios)));
        let none = || TransportError::NotAVm { uuid, host: vcenter.host().to_owned() };
        found.map_err(asking)?.ok_or_else(none)?
    };
    vcenter.vm(&found).map_err(asking)
}

/// Looks at a proxy that may take disks of the reader's VM.
pub(super) fn fit(reader: &Reader<'_, '_>) -> Result<VmInfo, TransportError> {
    let proxy = find(reader.waiter.vcenter, reader.settings, &reader.vm.vm)?;
    let name = proxy.name.clone();
    if proxy.vm == reader.vm.vm {
        return Err(TransportError::ProxyIsSource { proxy: name });
    }
    if proxy.power != Power::On {
        return Err(TransportError::ProxyNotRunning { proxy: name });
    }
    if !proxy.snapshots.is_empty() {
        let snapshots = proxy.snapshots.into_iter().map(|snapshot| snapshot.name).collect();
        return Err(TransportError::ProxyHasSnapshots { proxy: name, snapshots });
    }
    let missing = reader.waiter.vcenter.missing_privileges(&proxy.vm, &PRIVILEGES);
    let missing = missing.map_err(|source| TransportError::Asking { what: FIND, source })?;
    match missing {
        // A server that does not tell refuses when it is asked to attach.
        Some(privileges) if !privileges.is_empty() => {
            Err(TransportError::Privileges { proxy: name, privileges })
        }
        _ => Ok(proxy),
    }
}

fn find_by_path(
    vcenter: &VCenter,
    settings: &TransportSettings,
    path: &str,
    vm: &MoRef,
) -> Result<MoRef, VSphereError> {
    let path = path.trim_matches('/');
    let is_whole = path.split('/').skip(1).any(|name| name == "vm");
    let whole =
        if is_whole { path.to_owned() } else { format!("{}/vm/{path}", vcenter.datacenter_of(vm)?.path) };
    let names = whole.split('/').map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
    vcenter.find_vm(&VSpherePlace {
        host: settings.server.host.clone(),
        port: settings.server.port,
        user: None,
        vm: VmPlace::Path(names.collect()),
    })
}

fn first<const N: usize>(
    searches: [impl FnOnce() -> Result<MoRef, VSphereError>; N],
) -> Result<Option<MoRef>, VSphereError> {
    for search in searches {
        if let Some(vm) = found(search())? {
            return Ok(Some(vm));
        }
    }
    Ok(None)
}

fn found(found: Result<MoRef, VSphereError>) -> Result<Option<MoRef>, VSphereError> {
    match found {
        Ok(vm) => Ok(Some(vm)),
        Err(VSphereError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_by_a_uuid_or_by_a_path() {
        let uuid = ProxyVm::Uuid("420a1b2c-3d4e-5f60-7182-93a4b5c6d7e8".to_owned());
        for text in ["420A1B2C-3D4E-5F60-7182-93A4B5C6D7E8", "420a1b2c3d4e5f60718293a4b5c6d7e8"] {
            assert_eq!(text.parse(), Ok(uuid.clone()));
        }
        for text in ["proxy-1", "DC0/vm/backup/proxy-1", "420a1b2c"] {
            assert_eq!(text.parse(), Ok(ProxyVm::Path(text.to_owned())));
        }
    }
}
