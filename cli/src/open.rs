//! Getting at the repository.

use crate::password::{Asking, Password};
use crate::settings::Settings;
use crate::unsupported::{Role, local_path};
use anyhow::Context as _;
use keepstone_engine::store::{LocalStore, RecordingStore};
use keepstone_engine::{Entropy, Repository};
use std::path::Path;

/// A store whose requests are counted.
pub(crate) type Store = RecordingStore<LocalStore>;

/// Opens the store of a repository that exists.
///
/// # Errors
/// No repository was named, it is somewhere that this build cannot reach, or it cannot be opened.
pub(crate) fn store(settings: &Settings) -> anyhow::Result<Store> {
    let path = local_path(settings.repository()?, Role::Repository)?;
    let store = LocalStore::open(Path::new(path))?;
    tracing::info!(path, "the store is open");
    Ok(RecordingStore::new(store))
}

/// Makes the store of a new repository.
///
/// # Errors
/// As [`store`].
pub(crate) fn new_store(settings: &Settings) -> anyhow::Result<Store> {
    let path = local_path(settings.repository()?, Role::Repository)?;
    Ok(RecordingStore::new(LocalStore::create(Path::new(path))?))
}

/// Asks for the password and opens the repository in a store.
///
/// # Errors
/// No or a wrong password, or what is in the store is no repository.
pub(crate) fn repository<'s>(settings: &Settings, store: &'s Store) -> anyhow::Result<Repository<'s>> {
    let repository = Repository::open(store, &password(settings)?)?;
    tracing::info!(repository = %repository.config().repository, "the repository is open");
    Ok(repository)
}

/// The password that opens the repository.
///
/// # Errors
/// There is none.
pub(crate) fn password(settings: &Settings) -> anyhow::Result<Password> {
    settings.password.password("Password of the repository", Asking::Once)
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
