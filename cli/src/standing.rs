//! Which snapshots may not be whole where the repository is: all of a replica's, some of a place that was promoted.

use crate::open::Store;
use keepstone_engine::Repository;
use keepstone_engine::lineage::{self, Standing};
use keepstone_engine::replica::{self, Doubt};
use keepstone_engine::snapshots::{Selector, Snapshot};

/// Finds out which snapshots may not be whole. A place that is written to takes one listing, in Azure one question more.
///
/// # Errors
/// What the place is cannot be read, or a failing store.
pub(crate) fn doubt(store: &Store, repository: &Repository<'_>) -> anyhow::Result<Doubt> {
    Ok(match lineage::standing(repository)? {
        Standing::Replica => Doubt::All,
        Standing::Promoted(promoted) => Doubt::Of(promoted.set_aside),
        Standing::Written if store.inner().is_replicated()? => Doubt::All,
        Standing::Written => Doubt::None,
    })
}

/// Finds the snapshot that a selector means, among those that are whole where the repository is.
///
/// # Errors
/// There is none, or it is not whole; as [`doubt`].
pub(crate) fn find(
    (store, repository): (&Store, &Repository<'_>),
    selector: &Selector,
) -> anyhow::Result<Snapshot> {
    Ok(replica::find(repository, &doubt(store, repository)?, selector)?)
}
