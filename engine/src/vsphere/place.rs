//! Where a virtual machine is, as users write it.

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
    let digits: String =
        text.chars().filter(|letter| *letter != '-').collect::<String>().to_ascii_lowercase();
    let valid = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let parts =
        [digits.get(..8)?, digits.get(8..12)?, digits.get(12..16)?, digits.get(16..20)?, digits.get(20..)?];
    valid.then(|| parts.join("-"))
}
