//! A place of its own in somebody's container.

use keepstone_engine::BlobStore;
use keepstone_engine::store::{Foreign, Page, Put, StoreError};
use repo_format::BlobName;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Threads that remove blobs.
const REMOVERS: usize = 8;

/// A store of the blobs whose names begin with a prefix in another store. It knows which of them it made, and removes no
/// others.
pub(super) struct Below<'a> {
    inner: &'a dyn BlobStore,
    /// With a slash at its end.
    prefix: String,
    made: Mutex<BTreeSet<BlobName>>,
}

impl<'a> Below<'a> {
    /// Begins without a request. `prefix` is components of names with a slash behind each.
    pub(super) fn new(inner: &'a dyn BlobStore, prefix: String) -> Self {
        Self { inner, prefix, made: Mutex::default() }
    }

    /// What the names begin with in the other store.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How many blobs it made that were not removed.
    pub(super) fn left(&self) -> usize {
        self.made().len()
    }

    /// Removes the blobs that it made.
    ///
    /// # Errors
    /// The first that could not be removed; as many others as possible are.
    pub(super) fn remove_all(&self) -> Result<(), StoreError> {
        let names: Vec<BlobName> = self.made().iter().cloned().collect();
        let next = AtomicUsize::new(0);
        let remove = || {
            let mut outcome = Ok(());
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                outcome = outcome.and(self.delete(name));
            }
            outcome
        };
        std::thread::scope(|threads| {
            let removers: Vec<_> = (0..REMOVERS.min(names.len())).map(|_| threads.spawn(remove)).collect();
            let outcomes = removers.into_iter().map(|remover| remover.join().expect("nothing panics there"));
            outcomes.fold(Ok(()), Result::and)
        })
    }

    fn made(&self) -> MutexGuard<'_, BTreeSet<BlobName>> {
        // A set of names is never half changed.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outer(&self, name: &BlobName) -> Result<BlobName, StoreError> {
        BlobName::parse(&format!("{}{name}", self.prefix)).ok_or_else(|| StoreError::Io {
            action: "name",
            object: format!("{}{name}", self.prefix),
            source: std::io::ErrorKind::InvalidInput.into(),
        })
    }

    /// A name of the other store as it is here.
    fn inner_name(&self, name: &BlobName) -> Option<BlobName> {
        BlobName::parse(name.as_str().strip_prefix(&self.prefix)?)
    }
}

impl BlobStore for Below<'_> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        let outer = self.outer(name)?;
        // Before it is there, since a create that fails may have been applied. The prefix is nobody else's.
        self.made().insert(name.clone());
        self.inner.put_new(&outer, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.inner.get(&self.outer(name)?, range).map_err(|error| match error {
            // Whoever asks knows the blob by the name that it has here.
            StoreError::NotFound { .. } => StoreError::NotFound { name: name.clone() },
            other => other,
        })
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        let from = from.map(|from| self.outer(from)).transpose()?;
        let page = self.inner.list(&format!("{}{prefix}", self.prefix), from.as_ref(), limit)?;
        let blobs = page.blobs.into_iter().filter_map(|mut info| {
            info.name = self.inner_name(&info.name)?;
            Some(info)
        });
        let foreign = page.foreign.into_iter().filter_map(|foreign| {
            let name = foreign.name.strip_prefix(&self.prefix)?.to_owned();
            Some(Foreign { name, ..foreign })
        });
        // Names with the prefix are neighbours: behind one without it there is nothing more.
        let next = page.next.as_ref().and_then(|next| self.inner_name(next));
        Ok(Page { blobs: blobs.collect(), next, foreign: foreign.collect() })
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(&self.outer(name)?)?;
        self.made().remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstone_engine::store::{MemoryStore, conformance};
    use std::sync::Arc;

    fn name(text: &str) -> BlobName {
        BlobName::parse(text).unwrap()
    }

    fn names(store: &dyn BlobStore) -> Vec<String> {
        store.list("", None, 100).unwrap().blobs.iter().map(|info| info.name.to_string()).collect()
    }

    /// A store of its own, for the suite, which opens stores that live as long as they like.
    struct Owned(Arc<MemoryStore>);

    impl Owned {
        fn below(&self) -> Below<'_> {
            Below::new(&*self.0, "bench/host/7/".to_owned())
        }
    }

    impl BlobStore for Owned {
        fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
            self.below().put_new(name, bytes)
        }

        fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
            self.below().get(name, range)
        }

        fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
            self.below().list(prefix, from, limit)
        }

        fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
            self.below().delete(name)
        }
    }

    #[test]
    fn it_is_a_store_among_the_blobs_of_others() {
        conformance::check(&|| {
            let store = Arc::new(MemoryStore::new());
            for other in ["a", "bench/host/6/z", "bench/host/7", "bench/host/70/a", "bench/host/8/a", "z"] {
                store.put_new(&name(other), b"another's").unwrap();
            }
            Box::new(move || Box::new(Owned(Arc::clone(&store))))
        });
    }

    #[test]
    fn only_what_it_made_is_removed() {
        let store = MemoryStore::new();
        let below = Below::new(&store, "bench/host/7/".to_owned());
        store.put_new(&name("bench/host/7/from-elsewhere"), b"").unwrap();
        store.put_new(&name("config"), b"").unwrap();
        for number in 0..20 {
            below.put_new(&name(&format!("d/{number}")), b"x").unwrap();
        }
        below.delete(&name("d/3")).unwrap();
        assert_eq!(below.left(), 19);
        below.remove_all().unwrap();
        assert_eq!(below.left(), 0);
        assert_eq!(names(&store), ["bench/host/7/from-elsewhere", "config"]);
    }
}
