//! Pins: snapshots that stay whatever a policy says (SPEC 10.6).
//!
//! A pin is signed, so that whoever may only back up can neither hold space for ever nor let go of what others hold. Of the
//! signed pins of a snapshot the one with the highest number decides. One that cannot be read may be that one: then nobody
//! knows, and the snapshot stays.

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::forget::{ForgetError, check_key};
use crate::lineage::check_is_written;
use crate::repository::{Repository, get_sealed};
use crate::session::put_twice;
use crate::snapshots::{self, Snapshot, UnreadableBlob};
use crate::store::{Put, StoreError};
use repo_format::{
    BlobKind, BlobName, FormatError, PREFIX_PINS, Pin, RetentionKey, SessionId, VmTag, pins_prefix,
};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers that are tried for a new pin: others may have them, or somebody who may not pin has taken them.
const NUMBERS_TRIED: u32 = 64;

/// What is pinned.
#[derive(Debug, Default)]
pub struct Pins {
    /// The pinned snapshots, each with the pin that decides. They may have been forgotten all the same, by their names.
    pub pinned: BTreeMap<SessionId, Pin>,
    /// Snapshots of which it is not known: a pin that may decide cannot be read.
    pub unknown: BTreeSet<SessionId>,
    /// Pins that cannot be read.
    pub unreadable: Vec<UnreadableBlob>,
    /// Pins that the retention did not sign. They count for nothing.
    pub unsigned: Vec<BlobName>,
}

/// What is to become of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning<'a> {
    /// It stays, whatever a policy says.
    Pinned {
        /// Why, in words for people; at most 255 bytes.
        reason: &'a str,
    },
    /// The rules apply to it again.
    NotPinned,
}

/// What [`set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is as was asked for now.
    Made,
    /// It was so before.
    None,
}

/// Lists the pins of a VM's snapshots, or of all.
///
/// # Errors
/// A failing store.
pub fn list(repository: &Repository<'_>, vm: Option<&str>) -> Result<Pins, EngineError> {
    let prefix = vm.map_or_else(|| PREFIX_PINS.to_owned(), |vm| pins_prefix(repository.keys().vm_tag(vm)));
    let mut pins = Pins::default();
    for ((_, session), names) in named(repository, &prefix)? {
        if let Some((_, pin)) = deciding(repository, session, names, &mut pins)?.filter(|(_, pin)| pin.pinned)
        {
            pins.pinned.insert(session, pin);
        }
    }
    Ok(pins)
}

/// The snapshots that are pinned, or may be.
///
/// # Errors
/// As [`list`].
pub fn pinned(repository: &Repository<'_>) -> Result<BTreeSet<SessionId>, EngineError> {
    let Pins { pinned, unknown, .. } = list(repository, None)?;
    Ok(pinned.into_keys().chain(unknown).collect())
}

/// Pins a snapshot, or takes its pin away.
///
/// A forget that runs at the same time may have looked at the pins before.
///
/// # Errors
/// A reason that is too long; [`ForgetError::Meanwhile`]; a failing store.
pub fn set(
    repository: &Repository<'_>,
    key: &RetentionKey,
    snapshot: &Snapshot,
    (pinning, time): (Pinning<'_>, u64),
    entropy: &Entropy,
) -> Result<Change, EngineError> {
    check_key(repository, key)?;
    let _standing = check_is_written(repository)?;
    let (vm, session) = (snapshot.name.vm, snapshot.session());
    let reason = match pinning {
        Pinning::Pinned { reason } => reason.to_owned(),
        Pinning::NotPinned => String::new(),
    };
    let is_pinned = pinning != Pinning::NotPinned;
    let pin = Pin { session, decision: snapshot.name.clone(), time, pinned: is_pinned, reason };
    if pin.check().is_err() {
        return Err(EngineError::BadJob("the reason for a pin is longer than 255 bytes"));
    }
    let names = named(repository, &pins_prefix(vm))?.remove(&(vm, session)).unwrap_or_default();
    let mut pins = Pins::default();
    let decides = deciding(repository, session, names, &mut pins)?;
    let is_known = !pins.unknown.contains(&session);
    let before = decides.as_ref().map(|(_, pin)| (pin.pinned, pin.reason.as_str())).unwrap_or_default();
    if is_known && before == (pin.pinned, &pin.reason) {
        return Ok(Change::None);
    }
    let unreadable = pins.unreadable.iter().filter_map(|(name, _)| number(name));
    let last = decides.as_ref().map(|(number, _)| *number).into_iter().chain(unreadable).max();
    put(repository, key, &pin, last.map_or(Some(0), |last| last.checked_add(1)), entropy)?;
    if snapshots::is_forgotten(repository, &snapshot.name)? {
        return Err(ForgetError::Meanwhile { session }.into());
    }
    Ok(Change::Made)
}

/// Creates a pin under the first free number.
fn put(
    repository: &Repository<'_>,
    key: &RetentionKey,
    pin: &Pin,
    first: Option<u32>,
    entropy: &Entropy,
) -> Result<(), EngineError> {
    let mut next = first;
    for _ in 0..NUMBERS_TRIED {
        let Some(number) = next else { break };
        let (name, bytes) =
            pin.seal(repository.keys(), key, number, entropy.draw("pin salt", u64::from(number)));
        match put_twice(repository.store(), &name, &bytes)? {
            Put::Created | Put::Identical => return Ok(()),
            Put::Different => next = number.checked_add(1),
        }
    }
    Err(EngineError::Twin { name: BlobName::pin(pin.decision.vm, pin.session, next.unwrap_or(u32::MAX)) })
}

type Names = BTreeMap<(VmTag, SessionId), Vec<BlobName>>;

/// The pins of each snapshot, by their numbers.
fn named(repository: &Repository<'_>, prefix: &str) -> Result<Names, EngineError> {
    let mut names = Names::new();
    for info in repository.list(prefix)? {
        if let Some(BlobKind::Pin { vm, session, .. }) = info.name.kind() {
            names.entry((vm, session)).or_default().push(info.name);
        }
    }
    Ok(names)
}

/// The pin of a snapshot that decides, and its number; what else comes to light is added to `pins`.
fn deciding(
    repository: &Repository<'_>,
    session: SessionId,
    names: Vec<BlobName>,
    pins: &mut Pins,
) -> Result<Option<(u32, Pin)>, EngineError> {
    for name in names.into_iter().rev() {
        let bytes = match get_sealed(repository.store(), &name) {
            Ok(bytes) => bytes,
            Err(EngineError::Store(StoreError::NotFound { .. })) => continue,
            Err(error) if error.is_damage() => {
                pins.unknown.insert(session);
                pins.unreadable.push((name, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        match Pin::open(repository.keys(), &name, &bytes) {
            Ok(pin) => return Ok(number(&name).map(|number| (number, pin))),
            Err(FormatError::BadSignature) => pins.unsigned.push(name),
            Err(source) => {
                pins.unknown.insert(session);
                pins.unreadable.push((name.clone(), EngineError::Damaged { name, source }));
            }
        }
    }
    Ok(None)
}

fn number(name: &BlobName) -> Option<u32> {
    match name.kind() {
        Some(BlobKind::Pin { number, .. }) => Some(number),
        _ => None,
    }
}
