//! Where a virtual machine is, as users write it.

use super::text::uuid_digits;
use percent_encoding::percent_decode_str;
use std::fmt;

/// A virtual machine of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VSpherePlace {
    /// A name or an address, an IPv6 one without brackets.
    pub host: String,
    /// The port, 443 unless another is given.
    pub port: u16,
    /// The user to log in as, if one is given.
    pub user: Option<String>,
    /// Which VM.
    pub vm: VmPlace,
}

/// How a virtual machine is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmPlace {
    /// By names, from the datacenter or a folder above it on, the VM's own last. They are as users see them.
    Path(Vec<String>),
    /// By its instance UUID, with small letters and hyphens.
    InstanceUuid(String),
}

/// Why an address names no virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It begins with something else than `vsphere://`.
    #[error("it does not begin with vsphere://")]
    NotVSphere,
    /// There is a password in it.
    #[error(
        "there is a password in it, which would be seen by others: give it by file, command or environment"
    )]
    Password,
    /// There is no host.
    #[error("there is no host behind vsphere://")]
    NoHost,
    /// The host is none.
    #[error("what stands for the host is no name and no address")]
    BadHost,
    /// The port is none.
    #[error("the port is no number from 1 to 65535")]
    BadPort,
    /// A name is not percent-encoded UTF-8, or empty.
    #[error("a name in it is empty, or not percent-encoded UTF-8")]
    BadName,
    /// The path is too short.
    #[error(
        "it names no virtual machine: vsphere://HOST/DATACENTER/vm/NAME or vsphere://HOST/?uuid=UUID does"
    )]
    NoVm,
    /// The second name of the path is not `vm`.
    #[error("there is no /vm/ between the datacenter and the names of folder and virtual machine")]
    NoVmFolder,
    /// The UUID is none.
    #[error("the UUID does not consist of 32 hexadecimal digits")]
    BadUuid,
    /// There is a query that is not understood.
    #[error("behind the ? only uuid=UUID can stand, without a path")]
    BadQuery,
}

impl VSpherePlace {
    /// Reads `vsphere://[USER@]HOST[:PORT]/DATACENTER/vm/[FOLDER/...]NAME` or
    /// `vsphere://[USER@]HOST[:PORT]/?uuid=INSTANCE-UUID`.
    ///
    /// Names are percent-decoded; a slash in one is written `%2f`.
    ///
    /// # Errors
    /// If it is none. Errors repeat nothing of the text.
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        let rest = text.strip_prefix("vsphere://").ok_or(PlaceError::NotVSphere)?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(PlaceError::Password);
        }
        let user = user.map(decoded).transpose()?;
        let (host, port) = read_address(address)?;
        Ok(Self { host, port, user, vm: read_vm(path, query)? })
    }

    /// The path that the server finds the VM by, if it is found by one.
    #[must_use]
    pub fn inventory_path(&self) -> Option<String> {
        match &self.vm {
            VmPlace::Path(names) => {
                Some(names.iter().map(|name| escaped(name)).collect::<Vec<_>>().join("/"))
            }
            VmPlace::InstanceUuid(_) => None,
        }
    }
}

/// The path, or the UUID, for messages.
impl fmt::Display for VmPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(names) => formatter.write_str(&names.join("/")),
            Self::InstanceUuid(uuid) => write!(formatter, "with the instance UUID {uuid}"),
        }
    }
}

fn read_address(address: &str) -> Result<(String, u16), PlaceError> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(PlaceError::BadHost)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| PlaceError::BadHost)?;
        match (rest, rest.strip_prefix(':')) {
            ("", _) => (host, None),
            (_, Some(port)) => (host, Some(port)),
            _ => return Err(PlaceError::BadHost),
        }
    } else {
        let (host, port) = match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        };
        if host.is_empty() {
            return Err(PlaceError::NoHost);
        }
        let plain = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_');
        if !host.bytes().all(plain) {
            return Err(PlaceError::BadHost);
        }
        (host, port)
    };
    let port = match port {
        None => 443,
        Some(port) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port > 0).ok_or(PlaceError::BadPort)?
        }
        Some(_) => return Err(PlaceError::BadPort),
    };
    Ok((host.to_owned(), port))
}

fn read_vm(path: &str, query: Option<&str>) -> Result<VmPlace, PlaceError> {
    match query {
        Some(query) if path.is_empty() => {
            let uuid = query.strip_prefix("uuid=").ok_or(PlaceError::BadQuery)?;
            Ok(VmPlace::InstanceUuid(uuid_text(uuid).ok_or(PlaceError::BadUuid)?))
        }
        Some(_) => Err(PlaceError::BadQuery),
        None => {
            let path = path.strip_suffix('/').unwrap_or(path);
            if path.is_empty() {
                return Err(PlaceError::NoVm);
            }
            let names = path.split('/').map(decoded).collect::<Result<Vec<_>, _>>()?;
            // A datacenter may stand in folders of its own, but a VM is always below the folder `vm` of one.
            match names.iter().skip(1).position(|name| name == "vm") {
                None if names.len() < 3 => Err(PlaceError::NoVm),
                None => Err(PlaceError::NoVmFolder),
                Some(position) if position + 2 == names.len() => Err(PlaceError::NoVm),
                Some(_) => Ok(VmPlace::Path(names)),
            }
        }
    }
}

fn decoded(name: &str) -> Result<String, PlaceError> {
    // What follows each percent sign has to be two digits, or the name would be taken for another one.
    let mut after = name.split('%').skip(1);
    let encoded = after.all(|rest| {
        rest.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    });
    match percent_decode_str(name).decode_utf8() {
        Ok(name) if encoded && !name.is_empty() => Ok(name.into_owned()),
        _ => Err(PlaceError::BadName),
    }
}

/// Writes a name as the inventory has it.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f").replace('\\', "%5c")
}

/// Writes a UUID in the form 8-4-4-4-12, whatever hyphens it had.
fn uuid_text(text: &str) -> Option<String> {
    let digits = uuid_digits(text)?;
    let parts =
        [digits.get(..8)?, digits.get(8..12)?, digits.get(12..16)?, digits.get(16..20)?, digits.get(20..)?];
    Some(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(names: &[&str]) -> VmPlace {
        VmPlace::Path(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_place_is_read_with_all_its_parts() {
        let place =
            VSpherePlace::parse("vsphere://backup%40vsphere.local@vc-1.example:8443/DC%201/vm/Team/web/");
        let expected = VSpherePlace {
            host: "vc-1.example".to_owned(),
            port: 8443,
            user: Some("backup@vsphere.local".to_owned()),
            vm: path(&["DC 1", "vm", "Team", "web"]),
        };
        assert_eq!(place, Ok(expected));
    }

    #[test]
    fn a_user_may_hold_an_at_sign() {
        let place = VSpherePlace::parse("vsphere://backup@vsphere.local@vc/DC/vm/web").unwrap();
        assert_eq!((place.user.as_deref(), place.host.as_str()), (Some("backup@vsphere.local"), "vc"));
    }

    #[test]
    fn hosts_are_names_and_addresses_with_and_without_ports() {
        let cases = [
            ("vc", "vc", 443),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("[fd00::1]", "fd00::1", 443),
            ("[fd00::1]:65535", "fd00::1", 65535),
        ];
        for (address, host, port) in cases {
            let place = VSpherePlace::parse(&format!("vsphere://{address}/DC/vm/web")).unwrap();
            assert_eq!((place.host.as_str(), place.port, place.user), (host, port, None));
        }
    }

    #[test]
    fn names_are_written_to_the_inventory_as_it_escapes_them() {
        let place = VSpherePlace::parse("vsphere://vc/Europe/DC/vm/a%2fb/50%25%5coff%20%c3%a9").unwrap();
        assert_eq!(place.vm, path(&["Europe", "DC", "vm", "a/b", "50%\\off \u{e9}"]));
        assert_eq!(place.inventory_path().as_deref(), Some("Europe/DC/vm/a%2fb/50%25%5coff \u{e9}"));
        assert_eq!(place.vm.to_string(), "Europe/DC/vm/a/b/50%\\off \u{e9}");
    }

    #[test]
    fn an_instance_uuid_is_read_in_any_spelling() {
        let expected = VmPlace::InstanceUuid("5025f0b2-1111-2222-3333-444455556666".to_owned());
        let spellings = [
            "5025F0B2-1111-2222-3333-444455556666",
            "5025f0b2111122223333444455556666",
            "5025f0b21111-22223333444455556666",
        ];
        for uuid in spellings {
            let place = VSpherePlace::parse(&format!("vsphere://vc/?uuid={uuid}")).unwrap();
            assert_eq!((&place.vm, place.inventory_path()), (&expected, None));
        }
        assert_eq!(VSpherePlace::parse(&format!("vsphere://vc?uuid={}", spellings[0])).unwrap().vm, expected);
    }

    #[test]
    fn each_mistake_has_its_error() {
        let cases = [
            ("https://vc/DC/vm/web", PlaceError::NotVSphere),
            ("vsphere:///DC/vm/web", PlaceError::NoHost),
            ("vsphere://me@/DC/vm/web", PlaceError::NoHost),
            ("vsphere://v c/DC/vm/web", PlaceError::BadHost),
            ("vsphere://[vc]/DC/vm/web", PlaceError::BadHost),
            ("vsphere://[fd00::1/DC/vm/web", PlaceError::BadHost),
            ("vsphere://[fd00::1]1/DC/vm/web", PlaceError::BadHost),
            ("vsphere://vc:/DC/vm/web", PlaceError::BadPort),
            ("vsphere://vc:0/DC/vm/web", PlaceError::BadPort),
            ("vsphere://vc:+1/DC/vm/web", PlaceError::BadPort),
            ("vsphere://vc:65536/DC/vm/web", PlaceError::BadPort),
            ("vsphere://fd00::1/DC/vm/web", PlaceError::BadPort),
            ("vsphere://vc", PlaceError::NoVm),
            ("vsphere://vc/", PlaceError::NoVm),
            ("vsphere://vc/DC", PlaceError::NoVm),
            ("vsphere://vc/DC/vm", PlaceError::NoVm),
            ("vsphere://vc/DC/web", PlaceError::NoVm),
            ("vsphere://vc/Europe/DC/vm", PlaceError::NoVm),
            ("vsphere://vc/DC/host/web", PlaceError::NoVmFolder),
            ("vsphere://vc/DC/vm//web", PlaceError::BadName),
            ("vsphere://vc/DC/vm/%", PlaceError::BadName),
            ("vsphere://vc/DC/vm/%2", PlaceError::BadName),
            ("vsphere://vc/DC/vm/%zz", PlaceError::BadName),
            ("vsphere://vc/DC/vm/%ff", PlaceError::BadName),
            ("vsphere://vc/?uuid=5025", PlaceError::BadUuid),
            ("vsphere://vc/?uuid=5025f0b2111122223333\u{e9}44455556666", PlaceError::BadUuid),
            ("vsphere://vc/?name=web", PlaceError::BadQuery),
            ("vsphere://vc/DC/vm/web?uuid=5025f0b2111122223333444455556666", PlaceError::BadQuery),
        ];
        for (text, expected) in cases {
            assert_eq!(VSpherePlace::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_password_is_refused_and_repeated_by_no_error() {
        for text in [
            "vsphere://me:hunter2@vc/DC/vm/web",
            "vsphere://me:hunter2/@vc/DC/vm/web",
            "vsphere://me:hunter2?@vc",
        ] {
            let refused = VSpherePlace::parse(text).unwrap_err();
            assert!(!format!("{refused} {refused:?}").contains("hunter2"), "{text}");
        }
        assert_eq!(VSpherePlace::parse("vsphere://me:@vc/DC/vm/web"), Err(PlaceError::Password));
    }
}
