//! Which snapshots may not be whole where the repository is: all of a replica's, some of a place that was promoted.

use crate::open::Store;
use keepstone_engine::Repository;
use keepstone_engine::lineage::{self, Standing};
use keepstone_engine::replica::{self, Doubt};
use keepstone_engine::snapshots::{Selector, Snapshot};
use keepstone_engine::store::StoreError;
use repo_format::BlobName;

/// Finds out which snapshots may not be whole. A place that is written to takes one listing, in Azure one question more.
///
/// # Errors
/// What the place is cannot be read, or a failing store.
pub(crate) fn doubt(store: &Store, repository: &Repository<'_>) -> anyhow::Result<Doubt> {
    Ok(doubt_of(lineage::standing(repository)?, &|name| store.inner().is_replicated(name))?)
}

/// As [`doubt`]. `is_replicated` tells of a blob whether the service brought it from another place.
///
/// Of a place that was promoted it is asked about the blob that says so: if that was brought, it is another place that was
/// promoted, and this is a copy of it. Its other blobs may have been brought before it was promoted.
fn doubt_of(
    standing: Standing,
    is_replicated: &dyn Fn(&BlobName) -> Result<bool, StoreError>,
) -> Result<Doubt, StoreError> {
    let is_brought = match &standing {
        Standing::Replica => true,
        Standing::Promoted(promoted) => is_replicated(&BlobName::lineage(promoted.number))?,
        Standing::Written => is_replicated(&BlobName::config())?,
    };
    Ok(if is_brought { Doubt::All } else { standing.into() })
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

#[cfg(test)]
mod tests {
    use super::*;
    use keepstone_engine::lineage::Promoted;
    use repo_format::LineageId;
    use std::collections::BTreeSet;

    /// A place that was promoted and then told again that it is.
    fn promoted() -> Promoted {
        Promoted {
            number: 2,
            id: LineageId([7; 16]),
            time: 0,
            date: None,
            other_side_gone: true,
            first_generation: 4,
            set_aside: BTreeSet::new(),
        }
    }

    /// What is in doubt where the service brought these blobs.
    fn of(standing: Standing, brought: &[BlobName]) -> Doubt {
        doubt_of(standing, &|name| Ok(brought.contains(name))).expect("nothing fails")
    }

    #[test]
    fn all_is_in_doubt_in_a_copy_that_the_service_keeps_of_a_promoted_place() {
        let brought = [BlobName::config(), BlobName::lineage(1), BlobName::lineage(2)];
        assert_eq!(of(Standing::Promoted(promoted()), &brought), Doubt::All);
    }

    #[test]
    fn what_the_service_brought_before_a_place_was_promoted_is_no_doubt_since() {
        let before = [BlobName::config(), BlobName::lineage(1)];
        assert_eq!(of(Standing::Promoted(promoted()), &before), Doubt::Of(promoted()));
    }

    #[test]
    fn a_copy_that_the_service_keeps_is_in_doubt_and_a_place_that_is_written_to_is_not() {
        assert_eq!(of(Standing::Written, &[BlobName::config()]), Doubt::All);
        assert_eq!(of(Standing::Written, &[]), Doubt::None);
        assert_eq!(of(Standing::Replica, &[]), Doubt::All);
    }

    #[test]
    fn a_service_that_does_not_say_is_no_place_that_is_written_to() {
        let failing = |name: &BlobName| Err(StoreError::NotFound { name: name.clone() });
        assert!(doubt_of(Standing::Written, &failing).is_err());
        assert!(doubt_of(Standing::Promoted(promoted()), &failing).is_err());
    }
}
