//! What to do next after a failure.

mod guest;
mod nbd;
mod vsphere;

pub(crate) use vsphere::finding;

use crate::commands::CannotDelete;
use crate::exit::Usage;
use crate::running::AlreadyRunning;
use keepstone_engine::EngineError;
use keepstone_engine::forget::ForgetError;
use keepstone_engine::guest::GuestError;
use keepstone_engine::index::IndexError;
use keepstone_engine::replicate::ReplicateError;
use keepstone_engine::restore::JournalError;
use keepstone_engine::source::{ChangesError, ImageError};
use keepstone_engine::store::StoreError;
use keepstone_engine::store::azure::{CredentialError, ServiceError};
use keepstone_engine::target::TargetError;
use repo_format::{BlobKind, BlobName, PackKind, SlotKind};
use std::error::Error;
use std::io;

/// Chooses the advice for a failure: that of its outermost cause that has one.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(advice)
}

fn advice(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(usage) = cause.downcast_ref::<Usage>() {
        return usage.advice().map(str::to_owned);
    }
    if let Some(error) = cause.downcast_ref::<EngineError>() {
        return engine(error).map(str::to_owned);
    }
    if let Some(error) = cause.downcast_ref::<GuestError>() {
        return match error {
            GuestError::Disk(error) => engine(error).map(str::to_owned),
            // Its source may have more to say.
            GuestError::Target { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                Some("name another target, or add --overwrite".to_owned())
            }
            error => guest::advice(error),
        };
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return store(error).map(str::to_owned);
    }
    if let Some(error) = cause.downcast_ref::<CredentialError>() {
        return credential(error).map(str::to_owned);
    }
    if cause.is::<CannotDelete>() {
        return Some(
            "use credentials that may delete too, for a container of its own perhaps, or measure this machine alone with \
             --no-repository"
                .to_owned(),
        );
    }
    if cause.is::<AlreadyRunning>() {
        return Some("wait until it is done".to_owned());
    }
    if let Some(error) = cause.downcast_ref::<JournalError>() {
        return Some(journal(error).to_owned());
    }
    if let Some(error) = cause.downcast_ref::<ChangesError>() {
        return Some(changes(error).to_owned());
    }
    if let Some(error) = cause.downcast_ref() {
        return nbd::advice(error).map(str::to_owned);
    }
    if let Some(advice) = vsphere::advice(cause) {
        return Some(advice.to_owned());
    }
    let error = cause.downcast_ref::<io::Error>()?;
    // The errors of sources and targets come wrapped in those of the operating system.
    let Some(wrapped) = error.get_ref() else { return system(error).map(str::to_owned) };
    let advice = if let Some(error) = wrapped.downcast_ref::<TargetError>() {
        target(error)
    } else if let Some(error) = wrapped.downcast_ref::<ImageError>() {
        image(error)
    } else if let Some(error) = wrapped.downcast_ref::<keepstone_engine::nbd::NbdError>() {
        nbd::advice(error)
    } else {
        vsphere::advice(wrapped).or_else(|| system(error))
    };
    advice.map(str::to_owned)
}

fn engine(error: &EngineError) -> Option<&'static str> {
    Some(match error {
        EngineError::Store(error) => return store(error),
        EngineError::UnknownFormat { .. } => "use the Keepstone that made it, or a newer one",
        EngineError::EmptyDisk { .. } => "check that the path is the disk's",
        EngineError::AlreadyARepository => "use it as it is, or name another place with -r",
        EngineError::ConfigMissing { .. } => CONFIG,
        EngineError::NotARepository => "check the path; `keepstone init` makes a new repository",
        EngineError::OtherRepository { .. } => {
            "check both names; a copy of a repository is made by `keepstone replicate` into an empty place"
        }
        EngineError::WrongPassword { damaged: 1.., .. } => {
            "check the password; if it is right, put `config` and `keys/` back from a copy of this repository"
        }
        EngineError::WrongPassword { .. } => {
            "check where the password comes from: --password-file, --password-command, KEEPSTONE_PASSWORD or the profile"
        }
        EngineError::TooManySlots { .. } => {
            "move the key slots that nobody here made out of `keys/` in the repository; `keepstone key list` lists them"
        }
        EngineError::WrongRetentionPassword { .. } => {
            "give the password of a retention slot: --retention-password-file, --retention-password-command, KEEPSTONE_RETENTION_PASSWORD or the profile"
        }
        EngineError::LastSlot { kind: SlotKind::Retention, .. } => {
            "add another slot first, with `keepstone key add --kind retention`"
        }
        EngineError::LastSlot { .. } => "add another slot first, with `keepstone key add`",
        EngineError::NoDataKey => {
            "give the password of a root key slot; `keepstone key list` lists the slots with their kinds"
        }
        EngineError::NoSuchSnapshot { .. } => "`keepstone snapshots` lists those that there are",
        EngineError::NoSnapshotOf { .. } => "check the name; `keepstone snapshots` lists all that there are",
        EngineError::ForgottenMeanwhile { .. } => {
            "choose another one; `keepstone snapshots` lists those that there are"
        }
        EngineError::NotWhole { .. } | EngineError::NoneWhole { .. } => {
            "`keepstone replica status` tells what is whole here, and what the others lack"
        }
        EngineError::AmbiguousSnapshot { .. } => "give more digits of the id",
        EngineError::NoSuchDisk { .. } | EngineError::DiskNotNamed { .. } => "name one of them with --disk",
        EngineError::Damaged { name, .. } | EngineError::Short { name, .. } => damaged(name),
        EngineError::MapUnreadable { source, .. } | EngineError::Unrestorable { source, .. } => {
            return match **source {
                EngineError::Store(StoreError::NotFound { .. }) => Some(
                    "if this is a copy that is still being filled, `keepstone --replica replica status` tells what is whole in it; \
                     else --keep-going restores everything else and lists what is lost, and `keepstone verify` tells which \
                     snapshots are affected",
                ),
                EngineError::Damaged { .. } | EngineError::Short { .. } => Some(
                    "--keep-going restores everything else and lists what is lost; `keepstone verify --read-data` \
                     tells which snapshots are affected",
                ),
                _ => engine(source),
            };
        }
        EngineError::Unreadable { source, .. } => return engine(source),
        EngineError::Twin { .. } => {
            "give every host and every backup that runs at the same time its own --writer"
        }
        EngineError::MayBeRunning { .. } => {
            "wait until it is done; if its process or host is gone, add --take-over, or wait until it has been quiet for 15 minutes"
        }
        EngineError::Aborted { .. } => "run the backup again; nothing that was stored is lost",
        EngineError::PackVanished { .. } => {
            "nothing was committed; check the storage, run `keepstone verify`, and back up again"
        }
        EngineError::Journal(error) => journal(error),
        EngineError::Forget(error) => return forgetting(error),
        EngineError::CannotMark { source } if source.is_damage() => {
            "nothing was deleted: put it back from a copy of the repository; if it is lost, `keepstone verify` names the \
             snapshots to forget, and `keepstone forget --unreadable` settles a decision that cannot be read"
        }
        EngineError::CannotMark { source } => return engine(source),
        EngineError::ListingLies { .. } => {
            "nothing was deleted: check the storage, and run the same command again"
        }
        EngineError::SnapshotVanished { .. } => {
            "nothing was deleted: put its decision back from a copy of the repository; if it is lost, \
             `keepstone forget --unreadable` with its id settles it"
        }
        EngineError::TooMuchCondemned { .. } => {
            "nothing was deleted: `keepstone prune --dry-run` tells what would go; if it is to go, add --confirm-large"
        }
        EngineError::Replicate(error) => return replicating(error),
        EngineError::Index(IndexError::Directory { .. } | IndexError::Write { .. }) => {
            "name another directory with --cache-dir; the cache is safe to delete"
        }
        error => return place(error),
    })
}

/// What to do where a place is not what a command is for.
fn place(error: &EngineError) -> Option<&'static str> {
    Some(match error {
        EngineError::IsAReplica => {
            "use the repository that it is copied from, or, if that is lost, make this one the repository with \
             `keepstone replica promote`; if nobody fills this place, remove the blob `lineage/replica`, which says that it is one"
        }
        EngineError::NotAReplica => {
            "name the replica with -r; a copy that does not say that it is one takes --replica"
        }
        EngineError::NotPromoted => {
            "`keepstone replica promote` does; if it was promoted, leave out --replica and `replica` of the profile, which \
             say that it is a copy of what it was copied from"
        }
        EngineError::OtherSideMayBeThere => {
            "once nothing writes there any more: `keepstone replica promote --other-side-gone`; until then nothing is deleted here"
        }
        EngineError::NoSuchReplica { .. } => {
            "`keepstone replica add` registers one, `keepstone replica list` lists them"
        }
        _ => return None,
    })
}

/// What to do about a snapshot that was not forgotten.
fn forgetting(error: &ForgetError) -> Option<&'static str> {
    Some(match error {
        ForgetError::KeepsNothing => "give at least one rule a number above 0, as in --keep-daily 14",
        ForgetError::LastOfVm { .. } => {
            "add --force, if nothing of this VM is ever to be restored again from this repository"
        }
        ForgetError::Pinned { .. } => "`keepstone unpin` takes the pin away, if it is to go all the same",
        ForgetError::NoSuchDecision { .. } => "`keepstone verify` names those that cannot be read",
        ForgetError::Readable { .. } => "forget its snapshot by the id, without --unreadable",
        ForgetError::Stopped { source, .. } => {
            return Some(engine(source).unwrap_or("run the same command again: it goes on where it stopped"));
        }
        _ => return None,
    })
}

/// What to do about a place that nothing is copied to.
fn replicating(error: &ReplicateError) -> Option<&'static str> {
    Some(match error {
        ReplicateError::NotAReplica => {
            "name an empty place; if it is a copy that was made in another way, add --adopt, and nothing may be written \
             to it any more"
        }
        ReplicateError::Promoted | ReplicateError::WrittenTo { .. } => {
            "name another place; what it has and the source has not is taken over by `keepstone import`"
        }
        ReplicateError::OtherLength { .. } => {
            "delete the blob at the destination, and run the same command again, with --check"
        }
        ReplicateError::OtherBytes { .. } => {
            "`keepstone verify` of either place tells which one is damaged; delete it at the destination if it is that one"
        }
        ReplicateError::NotListed { .. } => "check the storage, and run the same command again",
        _ => return None,
    })
}

/// What to do about the journal of a restore.
fn journal(error: &JournalError) -> &'static str {
    match error {
        JournalError::Other { .. } => "go on with that restore, or leave out --resume to begin this one",
        JournalError::Busy { .. } => "wait until it is done, or name another target",
        JournalError::NotAJournal { .. } => "move it away or remove it, or name another target",
        _ => "check that its directory can be written and has room",
    }
}

const CONFIG: &str =
    "put the blob `config` back from a copy of the repository; without it nothing can be read";

/// What to do about a damaged blob, by what it is. A repository whose config is damaged cannot be verified.
fn damaged(name: &BlobName) -> &'static str {
    match name.kind() {
        Some(BlobKind::Config) => CONFIG,
        Some(BlobKind::KeySlot(_)) => {
            "put the key slot back from a copy of the repository, or open the repository by another password"
        }
        Some(
            BlobKind::Condemned(_)
            | BlobKind::GcResult(_)
            | BlobKind::GenerationSeal(_)
            | BlobKind::Repack(_),
        ) => {
            "put it back from a copy of the repository; until then nothing is backed up, and all can be restored"
        }
        Some(BlobKind::Barrier { .. }) => {
            "it takes the last number that there is: find out who made it, and remove it"
        }
        Some(BlobKind::Lineage(_)) => {
            "nothing was deleted: if this place was promoted, run `keepstone --replica replica promote` again, which tells it \
             anew if it has to; if the blob is named again then, or the place never was a replica, nobody needs it: find out who \
             made it, and remove it"
        }
        Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Map => MAP,
        _ => {
            "`keepstone verify --read-data` tells which snapshots are affected; others can still be restored"
        }
    }
}

/// A part of a disk's map: what an incremental backup cannot do without, and a full one can.
const MAP: &str = "`keepstone verify` tells which snapshots are affected; others can still be restored, and \
    `keepstone backup --full` needs nothing of it";

fn store(error: &StoreError) -> Option<&'static str> {
    Some(match error {
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
            "something else is in the place of a blob; move it away, and put the blob back from a copy of the repository"
        }
        StoreError::NotFound { name } => match name.kind() {
            Some(BlobKind::KeySlot(_)) => "`keepstone key list` lists those that there are",
            Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Map => MAP,
            _ => "`keepstone verify` tells which snapshots are affected; others can still be restored",
        },
        StoreError::Io { action: "open", source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "check the path; `keepstone init` makes a new repository"
        }
        StoreError::Io { source, .. } => return system(source),
        StoreError::Service { source, .. } => return service(source),
        StoreError::Unsuitable { .. } => "name an empty or a new directory on a local disk",
        _ => return None,
    })
}

fn service(error: &ServiceError) -> Option<&'static str> {
    Some(match error {
        ServiceError::Expired { .. } => {
            "make a new SAS and run the same command again; what was stored is used again"
        }
        ServiceError::Unauthenticated { .. } => {
            "check that the key or the SAS is whole and of this account, and that this host's clock is right"
        }
        ServiceError::Forbidden { .. } => {
            "a backup host needs to read, create and list, and so does `forget`; `prune` and removing a key slot need to \
             delete too; docs/azure.md lists the rights of each role, and a new role assignment takes some minutes"
        }
        ServiceError::NoContainer { .. } => {
            "make it with `az storage container create`, or check the repository's name"
        }
        ServiceError::Busy { .. } => {
            "run the same command again later, perhaps with --limit-upload or --limit-download; what was stored is used \
             again"
        }
        ServiceError::Refused { answer, .. } if answer.status >= 500 => {
            "run the same command again later; what was stored is used again"
        }
        ServiceError::Connection { .. } => {
            "check the endpoint, the name server, and the proxy (HTTPS_PROXY, NO_PROXY), and run the same command again; \
             what was stored is used again"
        }
        ServiceError::Late { .. } => {
            "check the network, and run the same command again; what was stored is used again"
        }
        ServiceError::Token { .. } => {
            "check the identity's tenant, client id and secret, and the way to where its tokens come from"
        }
        ServiceError::Unordered { .. } => {
            "the account has a hierarchical namespace; use one with a flat namespace"
        }
        ServiceError::Nonsense(_) => "check that the endpoint is that of a blob service",
        ServiceError::CopySource { .. } => {
            "the destination's service reads the source itself: the source's credential must allow to read, also from there \
             (no addresses in a SAS, no network rule in between); if it cannot, add --through-host"
        }
        ServiceError::Copy(_) => {
            "copy again; if it stays so, delete that blob at the destination and copy it once more"
        }
        ServiceError::Secondary => {
            "name the account without -secondary, or another place that can be written"
        }
        ServiceError::ReplicationWrites { .. } => {
            "write to the source of the replication, or end the replication policy first"
        }
        _ => return None,
    })
}

fn credential(error: &CredentialError) -> Option<&'static str> {
    Some(match error {
        CredentialError::ConnectionStringForm | CredentialError::ConnectionStringWithoutSecret => {
            "`az storage account show-connection-string` prints one"
        }
        CredentialError::OtherAccount { .. } | CredentialError::OtherContainer { .. } => {
            "check the repository's name, or use a credential for it"
        }
        CredentialError::SasForm => {
            "give the whole SAS token or URL, as `az storage container generate-sas` prints it"
        }
        CredentialError::KeyForm => "`az storage account keys list` prints the keys",
        CredentialError::Certificate(_) => "docs/azure.md tells what must be in the file",
        CredentialError::File { .. } => "check the path, and whether this user may read it",
        _ => return None,
    })
}

fn system(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check who owns it, and whether this user may use it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room and run the command again",
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system writable",
        _ => return None,
    })
}

fn changes(error: &ChangesError) -> &'static str {
    match error {
        ChangesError::OtherSize { .. } => "check that the changes file and the disk belong together",
        _ => "`keepstone backup --help` describes the file; without --changes the disk is read in full",
    }
}

fn image(error: &ImageError) -> Option<&'static str> {
    Some(match error {
        ImageError::WrongKind { .. } => "name a raw image or a block device",
        ImageError::Shrunk { .. } | ImageError::SizeChanged { .. } => {
            "back up a disk that nothing writes to: a snapshot of it, or a copy"
        }
        ImageError::Io { source, .. } => return system(source),
        _ => return None,
    })
}

fn target(error: &TargetError) -> Option<&'static str> {
    Some(match error {
        TargetError::Exists { .. } => "name another target, or add --overwrite",
        TargetError::WrongKind { .. } => "name a file that does not exist yet, or a block device",
        TargetError::NotOurs { .. } => "move it away or remove it, or name another target",
        TargetError::Busy { .. } => "wait until it is done, or name another target",
        TargetError::Mounted { .. } => "unmount it first, if it is the right device",
        TargetError::InUse { .. } => {
            "find what uses it (a mounted partition, LVM, RAID, swap), if it is the right device"
        }
        TargetError::TooSmall { .. } => "name a device that is at least as large",
        TargetError::TooLarge { .. } | TargetError::TooMuch { .. } => {
            "restore it with --format raw, and have the tool convert it that takes it in"
        }
        TargetError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "check the path; directories are not made"
        }
        TargetError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            "make room, and run the same command again with --resume"
        }
        TargetError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
            "what reads the output closed it before it had the whole disk"
        }
        TargetError::Io { source, .. } => return system(source),
        _ => return None,
    })
}
