//! Virtual machines of a vCenter Server or an ESXi host, by the part of their SOAP interface that a backup needs.
//!
//! [`VCenter`] asks, one blocking request at a time, and waits for nothing: tasks are looked at with
//! [`VCenter::task`] as often as the caller likes. What changed between two snapshots is decided by [`changes`],
//! which is pure. [`Machine`] is a VM while it is backed up, and the order in which all of this happens.

mod any;
pub mod changes;
mod client;
mod connection;
mod datastore;
mod devices;
mod disk;
mod error;
mod fault;
mod guard;
mod journal;
mod machine;
mod model;
mod place;
pub mod preflight;
mod privileges;
mod properties;
mod snapshot_name;
mod soap;
mod tasks;
mod text;
mod transport;
mod vm;
mod waiting;
mod writing;
mod xml;

#[doc(hidden)]
pub use any::{AnyAnswer, read_any_answer};
pub use client::{Pause, UuidKind, VCenter, VCenterSettings};
pub use datastore::DatastorePath;
pub use error::VSphereError;
pub use fault::{Fault, FaultKind};
pub use guard::{Consistency, Guard, GuardError, NotMade, QuiescePolicy, TakeOver};
pub use journal::Journal;
pub use machine::{
    Enabling, Failed, Machine, MachineError, MachineJob, Problem, Told, Unallocated, privileges, property,
};
pub use model::{
    About, Backing, BackingKind, BusSharing, ConnectionState, Controller, ControllerKind, Datacenter, MoRef,
    NetworkAdapter, Power, ServerTime, SnapshotNode, VirtualDisk, VmInfo, VmSnapshot,
};
pub use place::{PlaceError, VSpherePlace, VmPlace};
pub use snapshot_name::SnapshotName;
pub use tasks::{AttachDisk, AttachMode, Quiescing, Task, TaskState};
pub use transport::{
    AddController, DataPath, FolderError, NoTransport, NotFlat, ProxyVm, Reader, Transport, TransportChoice,
    TransportError, TransportSettings,
};
pub use waiting::{WaitError, Waiter};
pub use writing::{
    DiskError, DiskJob, DiskTold, NewDisk, NewDiskJob, NotOpened, Refusal, RestoreNotes, Running, Unwritable,
    VmDisk, Written,
};
