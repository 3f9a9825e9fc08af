//! Faults of the vSphere interface.

use super::model::MoRef;
use super::xml::Element;

/// A fault, as a call or a task ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which one.
    pub kind: FaultKind,
    /// The server's message, in its language.
    pub message: String,
}

/// The faults that a backup tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// A file cannot be used: one of the type `FileFault` or of one below it.
    File {
        /// The type.
        name: String,
        /// The file, if it is told.
        file: Option<String>,
    },
    /// An argument is not allowed.
    InvalidArgument {
        /// Which one, if it is told.
        property: Option<String>,
    },
    /// The session has ended.
    NotAuthenticated,
    /// The user or the password is wrong.
    InvalidLogin,
    /// The user lacks a privilege.
    NoPermission {
        /// The privilege, such as `VirtualMachine.State.CreateSnapshot`, if it is told.
        privilege: Option<String>,
        /// On what, if it is told.
        object: Option<MoRef>,
    },
    /// An object is there no longer.
    ManagedObjectNotFound {
        /// Which one, if it is told.
        object: Option<MoRef>,
    },
    /// Another task is at work on the object.
    TaskInProgress,
    /// A VM is powered on, or is not.
    InvalidPowerState,
    /// An object is not in a state for this.
    InvalidState {
        /// The type.
        name: String,
    },
    /// The guest did not quiesce its applications.
    ApplicationQuiesce,
    /// The guest did not quiesce its file systems.
    FilesystemQuiesce,
    /// A snapshot could not be made or used for another reason.
    Snapshot {
        /// The type.
        name: String,
    },
    /// A datastore is full.
    NoDiskSpace,
    /// The server does not know the method, or cannot do it with this object.
    NotSupported {
        /// The type.
        name: String,
    },
    /// Any other.
    Other {
        /// The type.
        name: String,
    },
}

/// The types below `FileFault`, but `NoDiskSpace`.
const FILE_FAULTS: [&str; 10] = [
    "FileFault",
    "CannotAccessFile",
    "CannotCreateFile",
    "CannotDeleteFile",
    "FileAlreadyExists",
    "FileLocked",
    "FileNameTooLong",
    "FileNotFound",
    "FileNotWritable",
    "FileTooLarge",
];

/// The types below `InvalidState` that are not told apart.
const STATE_FAULTS: [&str; 8] = [
    "InvalidState",
    "CannotAccessLocalSource",
    "InvalidDatastoreState",
    "InvalidHostState",
    "MethodDisabled",
    "MismatchedBundle",
    "OperationDisabledByGuest",
    "VAppOperationInProgress",
];

/// The types below `SnapshotFault` that are not told apart.
const SNAPSHOT_FAULTS: [&str; 9] = [
    "SnapshotFault",
    "InvalidSnapshotFormat",
    "MemorySnapshotOnIndependentDisk",
    "MultipleSnapshotsNotSupported",
    "SnapshotDisabled",
    "SnapshotIncompatibleDeviceInVm",
    "SnapshotLocked",
    "SnapshotNoChange",
    "TooManySnapshotLevels",
];

impl FaultKind {
    /// The name of its type in the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::File { name, .. }
            | Self::InvalidState { name }
            | Self::Snapshot { name }
            | Self::NotSupported { name }
            | Self::Other { name } => name,
            Self::InvalidArgument { .. } => "InvalidArgument",
            Self::NotAuthenticated => "NotAuthenticated",
            Self::InvalidLogin => "InvalidLogin",
            Self::NoPermission { .. } => "NoPermission",
            Self::ManagedObjectNotFound { .. } => "ManagedObjectNotFound",
            Self::TaskInProgress => "TaskInProgress",
            Self::InvalidPowerState => "InvalidPowerState",
            Self::ApplicationQuiesce => "ApplicationQuiesceFault",
            Self::FilesystemQuiesce => "FilesystemQuiesceFault",
            Self::NoDiskSpace => "NoDiskSpace",
        }
    }

    /// Reads an element whose type is a fault.
    pub(super) fn read(element: &Element) -> Self {
        let name = element.xsi_type.as_deref().unwrap_or_else(|| {
            // Some servers leave out the type and name the element by it.
            element.name.strip_suffix("Fault").filter(|name| !name.is_empty()).unwrap_or(&element.name)
        });
        let text =
            |child: &str| element.child(child).map(|found| found.text.trim()).filter(|text| !text.is_empty());
        let object = |child: &str| element.child(child).and_then(|found| found.moref().ok());
        match name {
            "InvalidArgument" | "InvalidRequest" => {
                Self::InvalidArgument { property: text("invalidProperty").map(str::to_owned) }
            }
            "NotAuthenticated" => Self::NotAuthenticated,
            "InvalidLogin" => Self::InvalidLogin,
            "NoPermission" => no_permission(element),
            "ManagedObjectNotFound" => Self::ManagedObjectNotFound { object: object("obj") },
            "TaskInProgress" => Self::TaskInProgress,
            "InvalidPowerState" => Self::InvalidPowerState,
            "ApplicationQuiesce" | "ApplicationQuiesceFault" => Self::ApplicationQuiesce,
            "FilesystemQuiesce" | "FilesystemQuiesceFault" => Self::FilesystemQuiesce,
            "NoDiskSpace" => Self::NoDiskSpace,
            "NotSupported" | "MethodNotFound" | "NotImplemented" => {
                Self::NotSupported { name: name.to_owned() }
            }
            _ if FILE_FAULTS.contains(&name) || name == "File" => {
                let name = if name == "File" { "FileFault" } else { name };
                Self::File { name: name.to_owned(), file: text("file").map(str::to_owned) }
            }
            _ if STATE_FAULTS.contains(&name) => Self::InvalidState { name: name.to_owned() },
            _ if SNAPSHOT_FAULTS.contains(&name) || name == "Snapshot" => {
                let name = if name == "Snapshot" { "SnapshotFault" } else { name };
                Self::Snapshot { name: name.to_owned() }
            }
            _ => Self::Other { name: name.to_owned() },
        }
    }
}

/// Reads what is missing: one privilege on one object, or since vSphere 7.0.3 also a list of them.
fn no_permission(element: &Element) -> FaultKind {
    let listed = element.child("missingPrivileges");
    let privilege = element
        .child("privilegeId")
        .or_else(|| listed.and_then(|listed| listed.child("privilegeIds")))
        .map(|found| found.text.trim().to_owned())
        .filter(|text| !text.is_empty());
    let object = element
        .child("object")
        .or_else(|| listed.and_then(|listed| listed.child("entity")))
        .and_then(|found| found.moref().ok());
    FaultKind::NoPermission { privilege, object }
}

impl Fault {
    /// Reads a fault with its message, as tasks and missing properties have it.
    pub(super) fn read_localized(element: &Element) -> Self {
        let kind = match element.child("fault") {
            Some(fault) => FaultKind::read(fault),
            None => FaultKind::Other { name: "unknown".to_owned() },
        };
        let message = element.child("localizedMessage").map(|found| found.text.clone()).unwrap_or_default();
        Self { kind, message }
    }
}
