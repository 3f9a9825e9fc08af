//! A repository: a store, its config and its keys.

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::lineage::check_store_is_written;
pub(crate) use crate::listing::{list, list_all};
use crate::snapshots::UnreadableBlob;
use crate::store::{BlobInfo, BlobStore, Put, StoreError};
use repo_format::limits::{
    CONFIG_LEN_MAX, KEY_SLOTS_MAX, SEAL_HEADER_LEN, SEALED_PLAIN_LEN_MAX, SLOT_LEN_MAX,
};
use repo_format::{
    BlobKind, BlobName, Config, DataKeys, FormatError, Geometry, KdfParams, Keys, PREFIX_DATA,
    PREFIX_DECISIONS, PREFIX_INDEX, PREFIX_INTENTS, PREFIX_KEYS, PREFIX_MAP, RepositoryId, RetentionKey,
    RootKey, Slot, SlotInfo, SlotKey, SlotKind, SlotName, TAG_LEN, UncheckedConfig, seal_slot,
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
    /// Whether whoever opened it said that this is a replica, whatever the place itself tells.
    declared_replica: bool,
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
    /// Creates a repository in an empty store, with two key slots: `slot` gives the root key, `retention` the key that
    /// forgets and prunes.
    ///
    /// The config comes last: until it is there, nothing is a repository.
    ///
    /// # Errors
    /// [`EngineError::AlreadyARepository`], parameters out of range, or a failing store.
    pub fn create(
        store: &'s dyn BlobStore,
        geometry: Geometry,
        slot: &NewSlot<'_>,
        retention: &NewSlot<'_>,
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
        let retention_key = RetentionKey::new(entropy.draw("retention key", 0));
        let keys = Keys::from_root(&root, repository, retention_key.public());
        for (key, slot) in [(SlotKey::Root(root), slot), (SlotKey::Retention(retention_key), retention)] {
            // A slot of that name without a config is what an interrupted creation left; it is no repository's.
            let free = free_slot_name(store, slot.name)?;
            put_slot(store, repository, &key, &NewSlot { name: &free, ..*slot }, entropy)?;
        }
        let config = Config {
            repository,
            created: slot.time,
            geometry,
            data_public_key: keys.data_public_key(),
            retention_public_key: keys.retention_public(),
        };
        match store.put_new(&name, &config.encode(&keys))? {
            Put::Created | Put::Identical => Ok(Self { store, config, keys, declared_replica: false }),
            Put::Different => Err(EngineError::AlreadyARepository),
        }
    }

    /// Opens a repository with a password: of a root slot or, if it opens none of these, of an inventory slot. What is
    /// inside disks is then out of reach ([`Keys::can_read_data`]).
    ///
    /// # Errors
    /// [`EngineError::NotARepository`], [`EngineError::WrongPassword`], a damaged config, or a failing store.
    pub fn open(store: &'s dyn BlobStore, password: &[u8]) -> Result<Self, EngineError> {
        let Unlocked { config, keys, .. } = unlock(store, password, &[SlotKind::Root, SlotKind::Inventory])?;
        Ok(Self { store, config, keys, declared_replica: false })
    }

    /// Declares that the place is a replica, which it need not tell by itself: a copy that a storage service keeps, or
    /// one that was made by other means.
    #[must_use]
    pub fn as_replica(self) -> Self {
        Self { declared_replica: true, ..self }
    }

    /// Whether somebody declared it to be a replica.
    #[must_use]
    pub fn is_declared_replica(&self) -> bool {
        self.declared_replica
    }

    /// The same repository at another place, with the same keys: the config there is, byte for byte, the one here. What is
    /// declared of this place is not of that one.
    ///
    /// # Errors
    /// [`EngineError::NotARepository`], [`EngineError::ConfigMissing`], [`EngineError::OtherRepository`], a config that
    /// is damaged or written in another way, or a failing store.
    pub fn at<'t>(&self, store: &'t dyn BlobStore) -> Result<Repository<'t>, EngineError> {
        let name = BlobName::config();
        let unchecked = unchecked_config(store)?;
        let (expected, found) = (self.config.repository, unchecked.repository());
        if found != expected {
            return Err(EngineError::OtherRepository { expected, found });
        }
        let config = unchecked.check(&self.keys).map_err(EngineError::damaged(&name))?;
        let here = get_limited(self.store, &name, CONFIG_LEN_MAX)?;
        if get_limited(store, &name, CONFIG_LEN_MAX)? != here {
            let source = FormatError::BadValue("it is not byte for byte the same at both places");
            return Err(EngineError::Damaged { name, source });
        }
        Ok(Repository { store, config, keys: self.keys.clone(), declared_replica: false })
    }

    /// The same repository at a place that may have no config yet.
    pub(crate) fn same_at<'t>(&self, store: &'t dyn BlobStore) -> Repository<'t> {
        Repository { store, config: self.config.clone(), keys: self.keys.clone(), declared_replica: false }
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

    /// The keys that reading and writing what is inside disks takes.
    ///
    /// # Errors
    /// [`EngineError::NoDataKey`] if an inventory slot opened the repository.
    pub fn data_keys(&self) -> Result<&DataKeys, EngineError> {
        self.keys.data().map_err(|_| EngineError::NoDataKey)
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

/// Adds a key slot to the repository in `store`. `password` opens a slot that gives the key now: a retention slot if it
/// is to be one, else a root slot.
///
/// # Errors
/// As [`Repository::open`]; [`EngineError::WrongRetentionPassword`]; a slot of that name that exists.
pub fn add_slot(
    store: &dyn BlobStore,
    password: &[u8],
    kind: SlotKind,
    slot: &NewSlot<'_>,
    entropy: &Entropy,
) -> Result<(), EngineError> {
    check_store_is_written(store)?;
    let (repository, key) = match kind {
        SlotKind::Retention => {
            let unchecked = unchecked_config(store)?;
            let (repository, public) = (unchecked.repository(), unchecked.public_keys().retention);
            (repository, SlotKey::Retention(open_retention(store, repository, public, password)?))
        }
        SlotKind::Root | SlotKind::Inventory => {
            let Unlocked { config, keys, key } = unlock(store, password, &[SlotKind::Root])?;
            let inventory = SlotKey::Inventory(keys.inventory_key());
            (config.repository, if kind == SlotKind::Root { key } else { inventory })
        }
    };
    put_slot(store, repository, &key, slot, entropy)
}

/// Opens the retention key of a repository with the password of a retention slot.
///
/// # Errors
/// [`EngineError::WrongRetentionPassword`], slots that give another key than the config's, or a failing store.
pub fn unlock_retention(repository: &Repository<'_>, password: &[u8]) -> Result<RetentionKey, EngineError> {
    let Config { repository: id, retention_public_key, .. } = repository.config;
    open_retention(repository.store, id, retention_public_key, password)
}

/// The key slots of a repository.
#[derive(Debug)]
pub struct KeySlots {
    /// Those that a password may open. What they say is not authenticated before one does.
    pub slots: Vec<SlotInfo>,
    /// Blobs in their place that are none, or are another repository's.
    pub unreadable: Vec<UnreadableBlob>,
    /// Those that no password opens, because a reader tries no more than [`KEY_SLOTS_MAX`] of a kind (SLOT-5).
    pub untried: Vec<BlobName>,
}

/// Lists the key slots of a repository; needs no password.
///
/// # Errors
/// A failing store or a damaged config.
pub fn slots(store: &dyn BlobStore) -> Result<KeySlots, EngineError> {
    let config = unchecked_config(store)?;
    let mut loaded = load_slots(store, config.repository())?;
    let unreadable = std::mem::take(&mut loaded.unreadable);
    let slots = loaded.slots.iter().map(Slot::info).cloned().collect();
    Ok(KeySlots { slots, unreadable, untried: loaded.untried_names() })
}

/// The key slots of an open repository that no password opens, because a reader tries no more than
/// [`KEY_SLOTS_MAX`] of a kind.
pub(crate) fn untried_slots(repository: &Repository<'_>) -> Result<Vec<BlobName>, EngineError> {
    Ok(load_slots(repository.store, repository.config.repository)?.untried_names())
}

/// Removes a key slot, or what is in its place, but not the last root slot nor the last retention slot. Also in a replica:
/// whoever may create blobs can make the mark of one, and must not keep a stolen password from being revoked.
///
/// # Errors
/// [`EngineError::LastSlot`], a slot that does not exist, or a failing store.
pub fn remove_slot(store: &dyn BlobStore, name: &SlotName) -> Result<(), EngineError> {
    let blob = BlobName::key_slot(name);
    if exists(store, &blob)?.is_none() {
        return Err(StoreError::NotFound { name: blob }.into());
    }
    let (removed, left): (Vec<_>, Vec<_>) =
        slots(store)?.slots.into_iter().partition(|info| info.name == *name);
    // What cannot be read may be a root slot that can still be put right.
    let kind = removed.first().map_or(SlotKind::Root, |info| info.kind);
    if kind != SlotKind::Inventory && left.iter().all(|info| info.kind != kind) {
        return Err(EngineError::LastSlot { name: name.as_str().to_owned(), kind });
    }
    Ok(store.delete(&blob)?)
}

fn put_slot(
    store: &dyn BlobStore,
    repository: RepositoryId,
    key: &SlotKey,
    slot: &NewSlot<'_>,
    entropy: &Entropy,
) -> Result<(), EngineError> {
    let blob = BlobName::key_slot(slot.name);
    let info = SlotInfo {
        name: slot.name.clone(),
        repository,
        kind: key.kind(),
        label: slot.label.to_owned(),
        created: slot.time,
        kdf: slot.kdf,
        salt: entropy.draw("key slot salt", key.kind() as u64),
    };
    let bytes = seal_slot(&info, slot.password, key).map_err(EngineError::damaged(&blob))?;
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
    /// What the slot gave.
    key: SlotKey,
}

/// Opens a repository with the first key slot of these kinds, in their order, that the password opens and whose key is
/// the config's.
///
/// A slot is not bound to a root key, and AES-GCM not to one key: it may open with another root key, if somebody made it
/// so. What tells is the config's MAC; a slot that does not fit it must not lock out the others.
fn unlock(store: &dyn BlobStore, password: &[u8], kinds: &[SlotKind]) -> Result<Unlocked, EngineError> {
    let unchecked = unchecked_config(store)?;
    let (repository, public) = (unchecked.repository(), unchecked.public_keys());
    let tried = TriedSlots::of(load_slots(store, repository)?, kinds);
    let take = |key: SlotKey| {
        let keys = match &key {
            SlotKey::Root(root) => Keys::from_root(root, repository, public.retention),
            SlotKey::Inventory(inventory) => Keys::from_inventory(inventory, repository, public),
            SlotKey::Retention(_) => return Err((None, FormatError::BadTag)),
        };
        match unchecked.clone().check(&keys) {
            Ok(config) => Ok(Unlocked { config, keys, key }),
            Err(source) => Err((Some(BlobName::config()), source)),
        }
    };
    tried.open(password, take, |slots, damaged| EngineError::WrongPassword { slots, damaged })
}

/// Opens the first retention slot whose key is the one that the config tells the public half of.
fn open_retention(
    store: &dyn BlobStore,
    repository: RepositoryId,
    public: [u8; 32],
    password: &[u8],
) -> Result<RetentionKey, EngineError> {
    let tried = TriedSlots::of(load_slots(store, repository)?, &[SlotKind::Retention]);
    let take = |key: SlotKey| match key {
        SlotKey::Retention(key) if key.public() == public => Ok(key),
        _ => Err((None, FormatError::BadValue("the key in the slot is not the retention key of the config"))),
    };
    tried.open(password, take, |slots, damaged| EngineError::WrongRetentionPassword { slots, damaged })
}

/// The slots that a password is tried on.
struct TriedSlots {
    slots: Vec<Slot>,
    damaged: usize,
    untried: usize,
}

impl TriedSlots {
    fn of(loaded: Loaded, kinds: &[SlotKind]) -> Self {
        let rank = |slot: &Slot| kinds.iter().position(|kind| *kind == slot.info().kind);
        let mut slots: Vec<Slot> = loaded.slots.into_iter().filter(|slot| rank(slot).is_some()).collect();
        // The cheapest first: a planted slot then costs no more time than the one that is looked for.
        slots.sort_by_key(|slot| (rank(slot), slot.info().kdf.work()));
        let untried = loaded.untried.iter().filter(|(_, kind)| kind.is_none_or(|kind| kinds.contains(&kind)));
        Self { slots, damaged: loaded.unreadable.len(), untried: untried.count() }
    }

    /// Hands the keys that the password opens to `take` until it takes one. What it finds wrong is the slot's, or of the
    /// blob that it names.
    fn open<T>(
        &self,
        password: &[u8],
        take: impl Fn(SlotKey) -> Result<T, (Option<BlobName>, FormatError)>,
        wrong_password: impl Fn(usize, usize) -> EngineError,
    ) -> Result<T, EngineError> {
        let mut failed = None;
        for slot in &self.slots {
            let opened = match slot.open(password) {
                Err(FormatError::BadTag) => continue,
                opened => opened.map_err(|source| (None, source)),
            };
            match opened.and_then(&take) {
                Ok(taken) => return Ok(taken),
                Err((name, source)) => {
                    let name = name.unwrap_or_else(|| BlobName::key_slot(&slot.info().name));
                    failed.get_or_insert((name, source));
                }
            }
        }
        if let Some((name, source)) = failed {
            Err(EngineError::Damaged { name, source })
        } else if self.untried == 0 {
            Err(wrong_password(self.slots.len(), self.damaged))
        } else {
            Err(EngineError::TooManySlots { tried: self.slots.len(), untried: self.untried })
        }
    }
}

fn unchecked_config(store: &dyn BlobStore) -> Result<UncheckedConfig, EngineError> {
    let name = BlobName::config();
    let is_missing = |error: &EngineError| matches!(error, EngineError::Store(StoreError::NotFound { .. }));
    let bytes = match get_limited(store, &name, CONFIG_LEN_MAX) {
        Err(error) if is_missing(&error) => match orphan(store)? {
            // Somebody may have made the repository, and stored something in it, since it was asked for.
            Some(found) => match get_limited(store, &name, CONFIG_LEN_MAX) {
                Err(error) if is_missing(&error) => return Err(EngineError::ConfigMissing { found }),
                read => read?,
            },
            None => return Err(EngineError::NotARepository),
        },
        read => read?,
    };
    UncheckedConfig::parse(&bytes).map_err(|source| match source {
        FormatError::UnsupportedVersion { found } => EngineError::UnknownFormat { found },
        source => EngineError::Damaged { name, source },
    })
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
    /// With their kinds, as far as they were read.
    untried: Vec<(BlobName, Option<SlotKind>)>,
}

impl Loaded {
    fn untried_names(self) -> Vec<BlobName> {
        self.untried.into_iter().map(|(name, _)| name).collect()
    }
}

/// The slots that can be tried, and those that cannot: a bad one must not lock out the others, and many that were
/// planted must not go unnoticed.
fn load_slots(store: &dyn BlobStore, repository: RepositoryId) -> Result<Loaded, EngineError> {
    let mut loaded = Loaded { slots: Vec::new(), unreadable: Vec::new(), untried: Vec::new() };
    for (position, info) in list(store, PREFIX_KEYS)?.into_iter().enumerate() {
        let Some(BlobKind::KeySlot(name)) = info.name.kind() else { continue };
        if position >= SLOTS_READ_MAX {
            loaded.untried.push((info.name, None));
            continue;
        }
        let slot = get_limited(store, &info.name, SLOT_LEN_MAX)
            .and_then(|bytes| Slot::parse(&name, &bytes).map_err(EngineError::damaged(&info.name)));
        match slot {
            Ok(slot) if slot.info().repository == repository => {
                let kind = slot.info().kind;
                // Many that were planted of one kind must not crowd out those of another.
                if loaded.slots.iter().filter(|slot| slot.info().kind == kind).count() < KEY_SLOTS_MAX {
                    loaded.slots.push(slot);
                } else {
                    loaded.untried.push((info.name, Some(kind)));
                }
            }
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
