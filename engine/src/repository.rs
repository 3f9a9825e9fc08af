//! A repository: a store, its config and its keys.

use crate::entropy::Entropy;
use crate::error::EngineError;
pub(crate) use crate::listing::{list, list_all};
use crate::snapshots::UnreadableBlob;
use crate::store::{BlobInfo, BlobStore, Put, StoreError};
use repo_format::limits::{
    CONFIG_LEN_MAX, KEY_SLOTS_MAX, SEAL_HEADER_LEN, SEALED_PLAIN_LEN_MAX, SLOT_LEN_MAX,
};
use repo_format::{
    BlobKind, BlobName, Config, FormatError, Geometry, KdfParams, Keys, PREFIX_DATA, PREFIX_DECISIONS,
    PREFIX_INDEX, PREFIX_INTENTS, PREFIX_KEYS, PREFIX_MAP, RepositoryId, RootKey, Slot, SlotInfo, SlotName,
    TAG_LEN, UncheckedConfig, seal_slot,
};

/// The longest blob that is a sealed object.
pub(crate) const SEALED_LEN_MAX: usize = SEALED_PLAIN_LEN_MAX + SEAL_HEADER_LEN + TAG_LEN;
/// Blobs in the place of key slots that are read: what cannot be tried does not count towards SLOT-5, but thousands
/// of them are nobody's slots.
const SLOTS_READ_MAX: usize = 1024;

/// An open repository.
pub struct Repository<'s> {
    store: &'s dyn BlobStore,
    config: Config,
    keys: Keys,
}

/// What a new key slot is made of.
#[derive(Clone, Copy, Debug)]
pub struct NewSlot<'a> {
    /// The slot's name.
    pub name: &'a SlotName,
    /// Free text for people.
    pub label: &'a str,
    /// The password.
    pub password: &'a [u8],
    /// Cost of guessing it.
    pub kdf: KdfParams,
    /// Now, milliseconds since 1970.
    pub time: u64,
}

impl<'s> Repository<'s> {
    /// Creates a repository with one key slot in an empty store.
    ///
    /// The config comes last: until it is there, nothing is a repository.
    ///
    /// # Errors
    /// [`EngineError::AlreadyARepository`], parameters out of range, or a failing store.
    pub fn create(
        store: &'s dyn BlobStore,
        geometry: Geometry,
        slot: &NewSlot<'_>,
        entropy: &Entropy,
    ) -> Result<Self, EngineError> {
        let name = BlobName::config();
        geometry.check().map_err(EngineError::damaged(&name))?;
        if exists(store, &name)?.is_some() {
            return Err(EngineError::AlreadyARepository);
        }
        if let Some(found) = orphan(store)? {
            return Err(EngineError::ConfigMissing { found });
        }
        let repository = RepositoryId(entropy.draw16("repository id", 0));
        let root = RootKey::new(entropy.draw("root key", 0));
        let keys = Keys::from_root(&root, repository);
        // A slot of that name without a config is what an interrupted creation left; it belongs to no repository.
        let free = free_slot_name(store, slot.name)?;
        put_slot(store, repository, &root, &NewSlot { name: &free, ..*slot }, entropy)?;
        let config =
            Config { repository, created: slot.time, geometry, data_public_key: keys.data_public_key() };
        match store.put_new(&name, &config.encode(&keys))? {
            Put::Created | Put::Identical => Ok(Self { store, config, keys }),
            Put::Different => Err(EngineError::AlreadyARepository),
        }
    }

    /// Opens a repository with a password.
    ///
    /// # Errors
    /// [`EngineError::NotARepository`], [`EngineError::WrongPassword`], a damaged config, or a failing store.
    pub fn open(store: &'s dyn BlobStore, password: &[u8]) -> Result<Self, EngineError> {
        let Unlocked { config, keys, .. } = unlock(store, password)?;
        Ok(Self { store, config, keys })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &'s dyn BlobStore {
        self.store
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// All blobs under a prefix.
    ///
    /// # Errors
    /// A failing store.
    pub fn list(&self, prefix: &str) -> Result<Vec<BlobInfo>, EngineError> {
        Ok(list(self.store, prefix)?)
    }

    /// The length of a blob, or nothing if there is none: one request.
    ///
    /// # Errors
    /// A failing store.
    pub fn blob_len(&self, name: &BlobName) -> Result<Option<u64>, EngineError> {
        Ok(exists(self.store, name)?)
    }
}

/// Adds a key slot to the repository in `store`, which `password` opens.
///
/// # Errors
/// As [`Repository::open`]; a slot of that name that exists.
pub fn add_slot(
    store: &dyn BlobStore,
    password: &[u8],
    slot: &NewSlot<'_>,
    entropy: &Entropy,
) -> Result<(), EngineError> {
    let Unlocked { config, root, .. } = unlock(store, password)?;
    put_slot(store, config.repository, &root, slot, entropy)
}

/// The key slots of a repository.
#[derive(Debug)]
pub struct KeySlots {
    /// Those that a password may open. What they say is not authenticated before one does.
    pub slots: Vec<SlotInfo>,
    /// Blobs in their place that are none, or are another repository's.
    pub unreadable: Vec<UnreadableBlob>,
    /// Those that no password opens, because a reader tries no more than [`KEY_SLOTS_MAX`] (SLOT-5).
    pub untried: Vec<BlobName>,
}

/// Lists the key slots of a repository; needs no password.
///
/// # Errors
/// A failing store or a damaged config.
pub fn slots(store: &dyn BlobStore) -> Result<KeySlots, EngineError> {
    let config = unchecked_config(store)?;
    let Loaded { slots, unreadable, untried } = load_slots(store, config.repository())?;
    Ok(KeySlots { slots: slots.iter().map(Slot::info).cloned().collect(), unreadable, untried })
}

/// The key slots of an open repository that no password opens, because a reader tries no more than
/// [`KEY_SLOTS_MAX`].
pub(crate) fn untried_slots(repository: &Repository<'_>) -> Result<Vec<BlobName>, EngineError> {
    Ok(load_slots(repository.store, repository.config.repository)?.untried)
}

/// Removes a key slot, or what is in its place, but not the last one that a password may open.
///
/// # Errors
/// [`EngineError::LastSlot`], a slot that does not exist, or a failing store.
pub fn remove_slot(store: &dyn BlobStore, name: &SlotName) -> Result<(), EngineError> {
    let blob = BlobName::key_slot(name);
    if exists(store, &blob)?.is_none() {
        return Err(StoreError::NotFound { name: blob }.into());
    }
    if slots(store)?.slots.iter().all(|info| info.name == *name) {
        return Err(EngineError::LastSlot { name: name.as_str().to_owned() });
    }
    Ok(store.delete(&blob)?)
}

fn put_slot(
    store: &dyn BlobStore,
    repository: RepositoryId,
    root: &RootKey,
    slot: &NewSlot<'_>,
    entropy: &Entropy,
) -> Result<(), EngineError> {
    let blob = BlobName::key_slot(slot.name);
    let info = SlotInfo {
        name: slot.name.clone(),
        repository,
        label: slot.label.to_owned(),
        created: slot.time,
        kdf: slot.kdf,
        salt: entropy.draw("key slot salt", 0),
    };
    let bytes = seal_slot(&info, slot.password, root).map_err(EngineError::damaged(&blob))?;
    match store.put_new(&blob, &bytes)? {
        Put::Created | Put::Identical => Ok(()),
        Put::Different => Err(EngineError::Twin { name: blob }),
    }
}

/// The name, or with a number behind it if it is taken.
fn free_slot_name(store: &dyn BlobStore, name: &SlotName) -> Result<SlotName, EngineError> {
    let taken = list(store, PREFIX_KEYS)?;
    let is_free = |name: &SlotName| !taken.iter().any(|info| info.name == BlobName::key_slot(name));
    let numbered = (2..).map_while(|number: u32| SlotName::new(&format!("{}-{number}", name.as_str())).ok());
    let mut names = std::iter::once(name.clone()).chain(numbered).take(KEY_SLOTS_MAX);
    names.find(is_free).ok_or(EngineError::AlreadyARepository)
}

/// What a password opened.
struct Unlocked {
    config: Config,
    keys: Keys,
    root: RootKey,
}

/// Opens a repository with the first key slot that the password opens and whose root key is the config's.
///
/// A slot is not bound to a root key, and AES-GCM not to one key: it may open with another root key, if somebody made it
/// so. What tells is the config's MAC; a slot that does not fit it must not lock out the others.
fn unlock(store: &dyn BlobStore, password: &[u8]) -> Result<Unlocked, EngineError> {
    let unchecked = unchecked_config(store)?;
    let repository = unchecked.repository();
    let Loaded { mut slots, unreadable, untried } = load_slots(store, repository)?;
    // The cheapest first: a planted slot then costs no more time than the one that is looked for.
    slots.sort_by_key(|slot| slot.info().kdf.work());
    let mut failed = None;
    for slot in &slots {
        let root = match slot.open(password) {
            Ok(root) => root,
            Err(FormatError::BadTag) => continue,
            Err(source) => {
                failed.get_or_insert((BlobName::key_slot(&slot.info().name), source));
                continue;
            }
        };
        let keys = Keys::from_root(&root, repository);
        match unchecked.clone().check(&keys) {
            Ok(config) => return Ok(Unlocked { config, keys, root }),
            Err(source) => drop(failed.get_or_insert((BlobName::config(), source))),
        }
    }
    if let Some((name, source)) = failed {
        Err(EngineError::Damaged { name, source })
    } else if untried.is_empty() {
        Err(EngineError::WrongPassword { slots: slots.len(), damaged: unreadable.len() })
    } else {
        Err(EngineError::TooManySlots { tried: slots.len(), untried: untried.len() })
    }
}

fn unchecked_config(store: &dyn BlobStore) -> Result<UncheckedConfig, EngineError> {
    let name = BlobName::config();
    match get_limited(store, &name, CONFIG_LEN_MAX) {
        Ok(bytes) => UncheckedConfig::parse(&bytes).map_err(|source| match source {
            FormatError::UnsupportedVersion { found } => EngineError::UnknownFormat { found },
            source => EngineError::Damaged { name, source },
        }),
        Err(EngineError::Store(StoreError::NotFound { .. })) => Err(match orphan(store)? {
            Some(found) => EngineError::ConfigMissing { found },
            None => EngineError::NotARepository,
        }),
        Err(error) => Err(error),
    }
}

/// A blob that only a repository has, other than its config and key slots.
fn orphan(store: &dyn BlobStore) -> Result<Option<BlobName>, StoreError> {
    for prefix in [PREFIX_DECISIONS, PREFIX_INTENTS, PREFIX_DATA, PREFIX_MAP, PREFIX_INDEX] {
        let mut from = None;
        loop {
            let page = store.list(prefix, from.as_ref(), 1)?;
            if let Some(info) = page.blobs.into_iter().next() {
                return Ok(Some(info.name));
            }
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
    }
    Ok(None)
}

struct Loaded {
    slots: Vec<Slot>,
    unreadable: Vec<UnreadableBlob>,
    untried: Vec<BlobName>,
}

/// The slots that can be tried, and those that cannot: a bad one must not lock out the others, and many that were
/// planted must not go unnoticed.
fn load_slots(store: &dyn BlobStore, repository: RepositoryId) -> Result<Loaded, EngineError> {
    let mut loaded = Loaded { slots: Vec::new(), unreadable: Vec::new(), untried: Vec::new() };
    for (position, info) in list(store, PREFIX_KEYS)?.into_iter().enumerate() {
        let Some(BlobKind::KeySlot(name)) = info.name.kind() else { continue };
        if loaded.slots.len() >= KEY_SLOTS_MAX || position >= SLOTS_READ_MAX {
            loaded.untried.push(info.name);
            continue;
        }
        let slot = get_limited(store, &info.name, SLOT_LEN_MAX)
            .and_then(|bytes| Slot::parse(&name, &bytes).map_err(EngineError::damaged(&info.name)));
        match slot {
            Ok(slot) if slot.info().repository == repository => loaded.slots.push(slot),
            Ok(_) => {
                let source = FormatError::BadValue("the key slot is another repository's");
                loaded.unreadable.push((info.name.clone(), EngineError::Damaged { name: info.name, source }));
            }
            Err(error) if error.is_damage() => loaded.unreadable.push((info.name, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

/// Reads a blob that is not to be longer than a limit of the format; of one that is, no more than the limit.
pub(crate) fn get_limited(
    store: &dyn BlobStore,
    name: &BlobName,
    limit: usize,
) -> Result<Vec<u8>, EngineError> {
    let bytes = store.get(name, Some(0..limit as u64 + 1))?;
    if bytes.len() > limit {
        let (found, limit) = (bytes.len() as u64, limit as u64);
        let source = FormatError::LimitExceeded { what: "blob length", found, limit };
        return Err(EngineError::Damaged { name: name.clone(), source });
    }
    Ok(bytes)
}

/// Reads the blob of a sealed object.
pub(crate) fn get_sealed(store: &dyn BlobStore, name: &BlobName) -> Result<Vec<u8>, EngineError> {
    get_limited(store, name, SEALED_LEN_MAX)
}

/// Looks up one name by listing it: what a writer without the right to read packs can do.
pub(crate) fn exists(store: &dyn BlobStore, name: &BlobName) -> Result<Option<u64>, StoreError> {
    let page = store.list(name.as_str(), None, 1)?;
    Ok(page.blobs.into_iter().find(|info| info.name == *name).map(|info| info.len))
}
