//! How the program ends.

use crate::console::lines;
use crate::hint;
use keepstone_engine::EngineError;
use keepstone_engine::forget::ForgetError;
use keepstone_engine::guest::GuestError;
use keepstone_engine::store::azure::CredentialError;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// The program's exit codes: part of its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything was done.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// It was called in a way that cannot be meant.
    Usage = 2,
    /// Stored data is damaged.
    Damage = 3,
    /// Everything was done, and something needs attention.
    Attention = 4,
    /// It was interrupted.
    Interrupted = 130,
}

impl Exit {
    /// The one of two that a user has to know of.
    pub(crate) fn worse(self, other: Self) -> Self {
        if self == Self::Done { other } else { self }
    }

    /// The worst of several, which have nothing to do with each other: an interruption, damage, a failure, wrong usage,
    /// attention.
    pub(crate) fn worst(exits: impl IntoIterator<Item = Self>) -> Self {
        let rank = |exit: &Self| match exit {
            Self::Done => 0,
            Self::Attention => 1,
            Self::Usage => 2,
            Self::Failed => 3,
            Self::Damage => 4,
            Self::Interrupted => 5,
        };
        exits.into_iter().max_by_key(rank).unwrap_or(Self::Done)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A call that cannot be meant; exit code 2.
#[derive(Debug)]
pub(crate) struct Usage {
    what: String,
    hint: Option<String>,
}

impl Usage {
    /// Says what is wrong with the call.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// Says what to do instead.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do instead.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for Usage {}

/// Tells a failure on standard error and returns the exit code that goes with it.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    // Nothing is left to report to when standard error is closed.
    let _ = io::stderr().write_all(describe(error).as_bytes());
    code(error)
}

/// The text of a failure: what failed, why, and what to do next.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let what = std::iter::once(format!("keepstone: error: {error}"));
    let why = error.chain().skip(1).map(|cause| format!("  caused by: {cause}"));
    let next = hint::hint(error).map(|hint| format!("  hint: {hint}"));
    lines(what.chain(why).chain(next))
}

/// The exit code of a failure.
pub(crate) fn code(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if cause.is::<Usage>() || cause.is::<CredentialError>() {
            return Exit::Usage;
        }
        if let Some(error) = cause.downcast_ref::<EngineError>() {
            return engine_code(error);
        }
        if let Some(GuestError::Disk(error)) = cause.downcast_ref() {
            return engine_code(error);
        }
    }
    Exit::Failed
}

/// The exit code of a failure of the engine. What is damaged or missing is damage in every command, whichever meets it.
fn engine_code(error: &EngineError) -> Exit {
    match error {
        EngineError::Cancelled => Exit::Interrupted,
        EngineError::BadName { .. }
        | EngineError::BadJob(_)
        | EngineError::Forget(ForgetError::KeepsNothing) => Exit::Usage,
        EngineError::Forget(ForgetError::Stopped { source, .. }) => engine_code(source),
        error if error.is_damage() => Exit::Damage,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use keepstone_engine::guest::System;
    use keepstone_engine::index::IndexError;
    use keepstone_engine::replica::{DamagedNode, Missing, MissingBlob};
    use keepstone_engine::replicate::ReplicateError;
    use keepstone_engine::restore::{JournalError, JournalHead};
    use keepstone_engine::source::{ChangesError, ImageError};
    use keepstone_engine::store::StoreError;
    use keepstone_engine::store::azure::{Answer, PlaceError, ServiceError};
    use keepstone_engine::target::TargetError;
    use repo_format::{
        BlobName, FormatError, ReplicaName, RepositoryId, SessionId, SlotKind, SlotName, check_tag,
    };
    use std::path::PathBuf;
    use std::time::Duration;

    fn blob() -> BlobName {
        BlobName::key_slot(&SlotName::new("first").unwrap())
    }

    fn pack() -> BlobName {
        BlobName::parse("m/host-a/00000000000000000000000000000000-00000000").unwrap()
    }

    fn index() -> BlobName {
        BlobName::parse("i/host-a/00000000000000000000000000000000-00000000").unwrap()
    }

    fn io_error(kind: io::ErrorKind) -> io::Error {
        kind.into()
    }

    fn head() -> JournalHead {
        JournalHead {
            repository: text("00"),
            snapshot: text("0af3"),
            disk: text("disk0"),
            disk_bytes: 9,
            target: text("disk.raw"),
        }
    }

    fn text(text: &str) -> String {
        text.to_owned()
    }

    fn replica(name: &str) -> ReplicaName {
        ReplicaName::new(name).unwrap()
    }

    fn missing() -> Missing {
        let names = vec![MissingBlob { name: pack(), len: 5 << 20, found: None }];
        Missing { blobs: 3, bytes: 12 << 20, at_least: true, names, damaged: Vec::new() }
    }

    fn damaged() -> EngineError {
        EngineError::Damaged { name: blob(), source: FormatError::BadTag }
    }

    fn not_found() -> StoreError {
        StoreError::NotFound { name: blob() }
    }

    fn store_error(action: &'static str, kind: io::ErrorKind) -> EngineError {
        StoreError::Io { action, object: text("repo/config"), source: io_error(kind) }.into()
    }

    fn of_target(error: TargetError) -> EngineError {
        EngineError::Target { offset: 0, source: error.into() }
    }

    fn of_source(error: ImageError) -> EngineError {
        EngineError::Source { disk: text("disk0"), source: error.into() }
    }

    fn stopped(source: EngineError) -> EngineError {
        ForgetError::Stopped { forgotten: 3, of: 7, source: Box::new(source) }.into()
    }

    /// Errors of the repository and its store.
    fn repository_errors() -> Vec<EngineError> {
        let unrestorable = |source| EngineError::Unrestorable {
            disk: text("disk0"),
            offset: 0,
            length: 9,
            source: Box::new(source),
        };
        vec![
            EngineError::Cancelled,
            store_error("open", io::ErrorKind::NotFound),
            store_error("create", io::ErrorKind::StorageFull),
            store_error("read", io::ErrorKind::PermissionDenied),
            store_error("list", io::ErrorKind::TimedOut),
            StoreError::Unsuitable { path: text("repo"), reason: "the directory is not empty" }.into(),
            not_found().into(),
            damaged(),
            EngineError::Short { name: blob(), expected: 7 },
            EngineError::AlreadyARepository,
            EngineError::NotARepository,
            EngineError::UnknownFormat { found: 1 },
            EngineError::OtherRepository { expected: RepositoryId([1; 16]), found: RepositoryId([2; 16]) },
            EngineError::MayBeRunning { session: SessionId([7; 16]), vm: "web".into(), quiet_millis: 65_432 },
            EngineError::WrongPassword { slots: 2, damaged: 0 },
            EngineError::TooManySlots { tried: 64, untried: 7 },
            EngineError::ConfigMissing { found: pack() },
            EngineError::Damaged { name: BlobName::config(), source: FormatError::BadTag },
            EngineError::Damaged { name: index(), source: FormatError::BadTag },
            StoreError::NotFound { name: pack() }.into(),
            EngineError::LastSlot { name: text("first"), kind: SlotKind::Root },
            EngineError::LastSlot { name: text("retention"), kind: SlotKind::Retention },
            EngineError::WrongRetentionPassword { slots: 1, damaged: 1 },
            EngineError::NoDataKey,
            EngineError::MapUnreadable { offset: 0, source: Box::new(damaged()) },
            unrestorable(damaged()),
            unrestorable(StoreError::NotFound { name: pack() }.into()),
            unrestorable(store_error("read", io::ErrorKind::TimedOut)),
            EngineError::NoSnapshotOf {
                vm: "webb".into(),
                found: vec!["db".into(), "web".into()],
                others: 3,
            },
            EngineError::ForgottenMeanwhile { snapshot: SessionId([7; 16]) },
            EngineError::Twin { name: blob() },
            EngineError::Aborted { session: SessionId([7; 16]) },
            EngineError::PackVanished { name: blob() },
            EngineError::CannotMark { source: Box::new(damaged()) },
            EngineError::CannotMark { source: Box::new(store_error("read", io::ErrorKind::TimedOut)) },
            EngineError::ListingLies { name: pack() },
            EngineError::SnapshotVanished { session: SessionId([7; 16]) },
            EngineError::NotWhole { snapshot: SessionId([7; 16]), missing: Box::new(missing()) },
            EngineError::NoneWhole {
                vm: "web".to_owned(),
                newest: SessionId([7; 16]),
                missing: Box::new(Missing {
                    damaged: vec![DamagedNode { blob: pack(), reason: "it does not open".to_owned() }],
                    at_least: true,
                    ..Missing::default()
                }),
            },
            EngineError::IsAReplica,
            EngineError::NotAReplica,
            EngineError::NotPromoted,
            EngineError::OtherSideMayBeThere,
            EngineError::NoSuchReplica {
                name: replica("west"),
                found: vec![replica("east"), replica("north")],
            },
            EngineError::TooMuchCondemned { condemned: 7_000_000, stored: 9_000_000, limit: 20 },
            ReplicateError::NotAReplica.into(),
            ReplicateError::Promoted.into(),
            ReplicateError::WrittenTo { name: pack() }.into(),
            ReplicateError::OtherLength { name: pack(), found: 6, expected: 7 }.into(),
            ReplicateError::OtherBytes { name: pack() }.into(),
            ReplicateError::NotListed { name: pack() }.into(),
            ForgetError::KeepsNothing.into(),
            ForgetError::LastOfVm { vm: text("web") }.into(),
            ForgetError::Pinned { session: SessionId([7; 16]), vm: text("web"), reason: text("the audit") }
                .into(),
            ForgetError::Meanwhile { session: SessionId([7; 16]) }.into(),
            ForgetError::NoSuchDecision { wanted: text("0af3") }.into(),
            ForgetError::Readable { name: blob() }.into(),
            stopped(store_error("create", io::ErrorKind::PermissionDenied)),
            stopped(EngineError::Cancelled),
            IndexError::Write { path: PathBuf::from("cache"), source: io_error(io::ErrorKind::StorageFull) }
                .into(),
        ]
    }

    /// Errors of a store in Azure.
    fn service_errors() -> Vec<EngineError> {
        let answer = |status, code| Answer { status, code: text(code), request: text("7-7") };
        let refused = || answer(403, "AuthenticationFailed");
        let errors = [
            ServiceError::Expired { at: text("2026-11-22T10:00Z"), answer: refused() },
            ServiceError::Unauthenticated { answer: refused() },
            ServiceError::Forbidden { answer: answer(403, "AuthorizationPermissionMismatch") },
            ServiceError::NoContainer { answer: answer(404, "ContainerNotFound") },
            ServiceError::Busy { tries: 10, answer: answer(503, "ServerBusy") },
            ServiceError::Refused { tries: 1, answer: answer(409, "BlobImmutableDueToPolicy") },
            ServiceError::Refused { tries: 10, answer: answer(500, "InternalError") },
            ServiceError::Connection { tries: 10, source: io_error(io::ErrorKind::ConnectionRefused) },
            ServiceError::Late { tries: 10, waited: Duration::from_secs(94) },
            ServiceError::Token { source: io_error(io::ErrorKind::NotFound) },
            ServiceError::Unordered { first: text("d/b"), second: text("d/a") },
            ServiceError::Nonsense("it cannot be decoded"),
        ];
        let object = || text("azblob://account1/backups/config");
        errors
            .into_iter()
            .map(|source| StoreError::Service { action: "read", object: object(), source }.into())
            .collect()
    }

    /// Credentials that cannot be used.
    fn credential_errors() -> Vec<CredentialError> {
        let place = || text("https://account1.blob.core.windows.net/backups");
        vec![
            CredentialError::ConnectionStringForm,
            CredentialError::OtherAccount { found: text("account2"), wanted: text("account1") },
            PlaceError::Endpoint { endpoint: text("ftp://host") }.into(),
            CredentialError::SasForm,
            CredentialError::OtherContainer { found: text("https://host/other"), wanted: place() },
            CredentialError::KeyForm,
            CredentialError::Certificate("it holds no certificate in PEM"),
            CredentialError::File { path: text("sas"), source: io_error(io::ErrorKind::NotFound) },
            CredentialError::Identity { source: io_error(io::ErrorKind::InvalidInput) },
        ]
    }

    /// Errors of jobs, sources and targets.
    fn job_errors() -> Vec<EngineError> {
        let path = || text("/dev/sdz");
        vec![
            EngineError::BadName { what: "tag", name: String::new(), source: check_tag("").unwrap_err() },
            EngineError::BadJob("a disk is empty"),
            EngineError::NoSuchSnapshot { wanted: text("web@latest") },
            EngineError::AmbiguousSnapshot {
                wanted: text("0707"),
                found: vec![SessionId([7; 16]), SessionId([8; 16])],
            },
            EngineError::NoSuchDisk { wanted: text("disk7"), found: vec![text("disk0")] },
            EngineError::DiskNotNamed { found: vec![text("data"), text("system")] },
            of_source(ImageError::Shrunk { path: path(), offset: 5, size: 9 }),
            EngineError::SourceAt {
                disk: text("disk0"),
                offset: 5 << 20,
                source: io_error(io::ErrorKind::PermissionDenied),
            },
            of_source(ImageError::WrongKind { path: path(), what: "a pipe" }),
            EngineError::TargetUnread { offset: 4096, source: io_error(io::ErrorKind::PermissionDenied) },
            EngineError::Journal(JournalError::Busy { path: path() }),
            EngineError::Journal(JournalError::NotAJournal { path: path() }),
            EngineError::Journal(JournalError::Other { path: path(), found: Box::new(head()) }),
            EngineError::Journal(JournalError::Io {
                action: "write",
                path: path(),
                source: io_error(io::ErrorKind::StorageFull),
            }),
            of_target(TargetError::Exists { path: path() }),
            of_target(TargetError::WrongKind { path: path(), wanted: "regular file" }),
            of_target(TargetError::NotOurs { path: path() }),
            of_target(TargetError::Busy { path: path() }),
            of_target(TargetError::Mounted { path: path(), mounted_at: text("/mnt") }),
            of_target(TargetError::InUse { path: path() }),
            of_target(TargetError::TooSmall { path: path(), device_bytes: 5, disk_bytes: 9 }),
            of_target(TargetError::Io {
                action: "write",
                path: path(),
                source: io_error(io::ErrorKind::StorageFull),
            }),
            of_target(TargetError::Io {
                action: "write",
                path: text("the stream"),
                source: io_error(io::ErrorKind::BrokenPipe),
            }),
        ]
    }

    /// Errors of the files of guests.
    fn guest_errors() -> Vec<GuestError> {
        let damaged = || Box::new(FormatError::BadTag);
        vec![
            damaged_disk(),
            GuestError::NoVolumes,
            GuestError::TableDamaged,
            GuestError::NoSuchVolume { wanted: 7, found: vec![1, 5] },
            GuestError::NothingRead { found: vec![(1, System::Swap), (2, System::Lvm)] },
            GuestError::NotRead { volume: 2, system: System::BitLocker },
            GuestError::NotRead { volume: 3, system: System::Btrfs },
            GuestError::SeveralVolumes { path: text("/etc"), volumes: vec![1, 5] },
            GuestError::NotFound { path: text("/etc/fstab") },
            GuestError::NotADirectory { path: text("/etc/fstab") },
            GuestError::IsADirectory { path: text("/etc") },
            GuestError::Special { path: text("/dev/sda") },
            GuestError::TooManyLinks { path: text("/loop") },
            GuestError::Damaged { system: System::Ext4, source: damaged() },
            GuestError::Unsupported { system: System::Xfs, source: damaged() },
            of_copy(io::ErrorKind::AlreadyExists),
            of_copy(io::ErrorKind::StorageFull),
        ]
    }

    fn damaged_disk() -> GuestError {
        GuestError::Disk(damaged())
    }

    fn of_copy(kind: io::ErrorKind) -> GuestError {
        GuestError::Target { action: "write", path: PathBuf::from("copy/fstab"), source: io_error(kind) }
    }

    #[test]
    fn every_failure_is_told_with_its_causes_and_what_to_do_next() {
        let engine = repository_errors().into_iter().chain(job_errors()).chain(service_errors());
        let engine = engine.map(anyhow::Error::new);
        let credentials = credential_errors().into_iter().map(|error| {
            anyhow::Error::new(error).context("the credential cannot be used (AZURE_STORAGE_SAS_TOKEN)")
        });
        let changes = ChangesError::OtherSize { file_bytes: 5, disk_bytes: 9 };
        let own = [
            Err::<(), _>(changes)
                .context("the changes of disk \"disk0\", c.json, cannot be used")
                .unwrap_err(),
            Usage::new("no repository was named").hint("name it with -r REPO").into(),
            anyhow::anyhow!("the password command failed"),
        ];
        let guest = guest_errors().into_iter().map(anyhow::Error::new);
        let told = engine
            .chain(guest)
            .chain(credentials)
            .chain(own)
            .map(|error| format!("{}[{:?}]\n\n", describe(&error), code(&error)));
        insta::assert_snapshot!(told.collect::<String>());
    }
}
