//! Getting at the repository.

use crate::azure::{AzureOptions, Remote, Uploads};
use crate::location::Location;
use crate::password::{Asking, Password, Question};
use crate::settings::Settings;
use anyhow::Context as _;
use keepstone_engine::store::azure::AzureStore;
use keepstone_engine::store::{BlobStore, LocalStore, Page, Put, RecordingStore, StoreError};
use keepstone_engine::{Entropy, Repository};
use repo_format::BlobName;
use std::ops::Range;

/// How the repository's password can be given without a terminal.
pub(crate) const PASSWORD_OTHERWISE: &str =
    "give it with --password-file, --password-command or KEEPSTONE_PASSWORD";

/// A store whose requests are counted.
pub(crate) type Store = RecordingStore<AnyStore>;

/// A store of the kind that the repository's name asks for.
#[derive(Debug)]
pub(crate) enum AnyStore {
    /// A directory.
    Directory(LocalStore),
    /// A container.
    Azure(Box<Remote>),
}

impl AnyStore {
    fn store(&self) -> &dyn BlobStore {
        match self {
            Self::Directory(store) => store,
            Self::Azure(remote) => &remote.store,
        }
    }

    /// Whether the service that keeps it brought a blob from another place: it is the secondary endpoint of an account,
    /// or object replication wrote the blob.
    ///
    /// # Errors
    /// The blob is not there, or a service that fails.
    pub(crate) fn is_replicated(&self, name: &BlobName) -> Result<bool, StoreError> {
        match self {
            Self::Directory(_) => Ok(false),
            Self::Azure(remote) if remote.store.is_secondary() => Ok(true),
            Self::Azure(remote) => remote.store.is_replicated(name),
        }
    }

    /// The container, if it is one.
    pub(crate) fn azure(&self) -> Option<&AzureStore> {
        match self {
            Self::Directory(_) => None,
            Self::Azure(remote) => Some(&remote.store),
        }
    }
}

impl BlobStore for AnyStore {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.store().put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.store().get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.store().list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.store().delete(name)
    }
}

/// Opens the store of a repository that exists.
///
/// # Errors
/// No repository was named, it is somewhere that this build cannot reach, or it cannot be opened.
pub(crate) fn store(settings: &Settings) -> anyhow::Result<Store> {
    store_to_back_up(settings, Uploads::default())
}

/// Opens the store of a repository that exists and gets new data packs.
///
/// # Errors
/// As [`store`].
pub(crate) fn store_to_back_up(settings: &Settings, uploads: Uploads) -> anyhow::Result<Store> {
    let location = settings.location()?;
    if let Location::Directory(_) = location {
        settings.azure.refuse_for_directory(uploads)?;
    }
    store_at(settings, &settings.azure, location, uploads)
}

/// Opens the store at a place; what is said for Azure counts there only.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn store_at(
    settings: &Settings,
    azure: &AzureOptions,
    location: Location<'_>,
    uploads: Uploads,
) -> anyhow::Result<Store> {
    let store = match location {
        Location::Directory(path) => {
            let store = LocalStore::open(path)?;
            tracing::info!(path = %path.display(), "the store is open");
            AnyStore::Directory(store)
        }
        Location::Azure(place) => {
            tracing::info!(%place, "the store is in Azure");
            AnyStore::Azure(Box::new(azure.open(place, uploads, &settings.interrupt, &settings.screen)?))
        }
    };
    Ok(RecordingStore::new(store))
}

/// Makes the store of a new repository. A container must be there already.
///
/// # Errors
/// As [`store`].
pub(crate) fn new_store(settings: &Settings) -> anyhow::Result<Store> {
    match settings.location()? {
        Location::Directory(path) => {
            settings.azure.refuse_for_directory(Uploads::default())?;
            Ok(RecordingStore::new(AnyStore::Directory(LocalStore::create(path)?)))
        }
        Location::Azure(_) => store(settings),
    }
}

/// Asks for the password and opens the repository in a store.
///
/// # Errors
/// No or a wrong password, or what is in the store is no repository.
pub(crate) fn repository<'s>(settings: &Settings, store: &'s Store) -> anyhow::Result<Repository<'s>> {
    let repository = Repository::open(store, &password(settings)?)?;
    tracing::info!(repository = %repository.config().repository, "the repository is open");
    Ok(if settings.is_replica { repository.as_replica() } else { repository })
}

/// As [`repository`], for what reads or writes what is inside disks.
///
/// # Errors
/// As [`repository`]; a password that opens an inventory slot only.
pub(crate) fn repository_with_data<'s>(
    settings: &Settings,
    store: &'s Store,
) -> anyhow::Result<Repository<'s>> {
    let repository = repository(settings, store)?;
    repository.data_keys()?;
    Ok(repository)
}

/// The password that opens the repository.
///
/// # Errors
/// There is none.
pub(crate) fn password(settings: &Settings) -> anyhow::Result<Password> {
    settings.password.password(Question {
        text: "Password of the repository",
        asking: Asking::Once,
        otherwise: PASSWORD_OTHERWISE,
    })
}

/// The randomness of one operation.
///
/// # Errors
/// A system without a random source.
pub(crate) fn entropy() -> anyhow::Result<Entropy> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).context("could not get random bytes from the system")?;
    Ok(Entropy::new(*seed))
}
