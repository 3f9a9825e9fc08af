//! Walking listings to their ends.
//!
//! A service gives some thousand names at a time, each page a round trip. Most listings are one page. A longer one is
//! mostly of names that begin, behind the same directory, with random digits: it is cut by the first of them, and the
//! parts are walked at the same time.

use crate::store::{BlobInfo, BlobStore, Foreign, StoreError};
use crate::threads::scope;
use repo_format::BlobName;
use std::panic::resume_unwind;

/// Names that are asked for at a time. A service gives fewer; a directory is read once for all of them.
const PAGE: usize = 1 << 18;
/// Digits of session ids and of the tags of VMs.
const ID_DIGITS: usize = 32;
const DIGITS: &str = "0123456789abcdef";
/// What comes behind all digits, and before all that begins with no digit.
const BEHIND_DIGITS: char = 'g';

/// What is kept of a blob that was listed, if anything.
type Keep<'k, T> = &'k (dyn Fn(BlobInfo) -> Option<T> + Sync);

/// Lists all blobs under a prefix, in order.
pub(crate) fn list(store: &dyn BlobStore, prefix: &str) -> Result<Vec<BlobInfo>, StoreError> {
    list_as(store, prefix, &Some)
}

/// As [`list`], and keeps no more of each blob than is wanted: there may be millions.
pub(crate) fn list_as<T: Send>(
    store: &dyn BlobStore,
    prefix: &str,
    keep: Keep<'_, T>,
) -> Result<Vec<T>, StoreError> {
    let mut blobs = Vec::new();
    let mut from: Option<BlobName> = None;
    loop {
        let page = store.list(prefix, from.as_ref(), PAGE)?;
        blobs.extend(page.blobs.into_iter().filter_map(keep));
        let Some(next) = page.next else { return Ok(blobs) };
        from = Some(match directory_of_ids(prefix, &next) {
            Some((directory, behind)) => {
                blobs.extend(by_digits(store, directory, &next, keep)?);
                behind
            }
            None => next,
        });
    }
}

/// Hands over all blobs of a store, page by page, so that not all are in memory.
pub(crate) fn for_each_blob(store: &dyn BlobStore, take: &mut dyn FnMut(BlobInfo)) -> Result<(), StoreError> {
    let mut from: Option<BlobName> = None;
    loop {
        let page = store.list("", from.as_ref(), PAGE)?;
        for info in page.blobs {
            take(info);
        }
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(()),
        }
    }
}

/// Walks a listing to its end, page by page, and keeps what is no blob too.
pub(crate) fn list_all(
    store: &dyn BlobStore,
    prefix: &str,
) -> Result<(Vec<BlobInfo>, Vec<Foreign>), StoreError> {
    list_from(store, prefix, None, &Some)
}

fn list_from<T>(
    store: &dyn BlobStore,
    prefix: &str,
    mut from: Option<BlobName>,
    keep: Keep<'_, T>,
) -> Result<(Vec<T>, Vec<Foreign>), StoreError> {
    let (mut blobs, mut foreign) = (Vec::new(), Vec::new());
    loop {
        let page = store.list(prefix, from.as_ref(), PAGE)?;
        blobs.extend(page.blobs.into_iter().filter_map(keep));
        foreign.extend(page.foreign);
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok((blobs, foreign)),
        }
    }
}

/// The directory, within a prefix, of which `name` is a blob or a directory that begins with an id; and where to go on
/// behind all of them.
fn directory_of_ids<'n>(prefix: &str, name: &'n BlobName) -> Option<(&'n str, BlobName)> {
    let name = name.as_str();
    let starts = std::iter::once(0).chain(name.match_indices('/').map(|(at, _)| at + 1));
    let is_id = |start: &usize| {
        let digits = name.get(*start..*start + ID_DIGITS);
        digits.is_some_and(|digits| digits.chars().all(|digit| DIGITS.contains(digit)))
    };
    let start = starts.skip_while(|start| *start < prefix.len()).find(is_id)?;
    let directory = &name[..start];
    Some((directory, BlobName::parse(&format!("{directory}{BEHIND_DIGITS}"))?))
}

/// The blobs of a directory whose names begin with a digit, from one of them on.
fn by_digits<T: Send>(
    store: &dyn BlobStore,
    directory: &str,
    from: &BlobName,
    keep: Keep<'_, T>,
) -> Result<Vec<T>, StoreError> {
    let first = from.as_str()[directory.len()..].chars().next();
    let digits = DIGITS.chars().skip_while(|digit| first.is_some_and(|first| *digit < first));
    let parts: Vec<Result<_, StoreError>> = scope(|threads| {
        let running: Vec<_> = digits
            .map(|digit| {
                let from = (Some(digit) == first).then(|| from.clone());
                threads.spawn(move || list_from(store, &format!("{directory}{digit}"), from, keep))
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let mut blobs = Vec::new();
    for part in parts {
        blobs.extend(part?.0);
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, Page, Put};
    use std::collections::BTreeSet;
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A store that gives few names at a time, as a service does.
    struct Service {
        inner: MemoryStore,
        page: usize,
        pages: AtomicUsize,
    }

    impl BlobStore for Service {
        fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
            self.inner.put_new(name, bytes)
        }

        fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
            self.inner.get(name, range)
        }

        fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
            self.pages.fetch_add(1, Ordering::Relaxed);
            self.inner.list(prefix, from, limit.min(self.page))
        }

        fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
            self.inner.delete(name)
        }
    }

    fn service(names: impl IntoIterator<Item = String>, page: usize) -> (Service, BTreeSet<String>) {
        let inner = MemoryStore::new();
        let names: BTreeSet<String> = names.into_iter().collect();
        for name in &names {
            inner.put_new(&BlobName::parse(name).unwrap(), b"").unwrap();
        }
        (Service { inner, page, pages: AtomicUsize::new(0) }, names)
    }

    fn id(number: u64) -> String {
        blake3::hash(&number.to_le_bytes()).to_hex()[..ID_DIGITS].to_owned()
    }

    #[test]
    fn a_long_listing_has_every_name_once_and_in_order() {
        let of_writers = ["a", "host-1", "host-10", "zz"].into_iter().flat_map(|writer| {
            (0..120).flat_map(move |number| {
                let id = id(number);
                [format!("i/{writer}/{id}-0"), format!("i/{writer}/{id}-1"), format!("s/{writer}/{id}")]
            })
        });
        let of_machines = (0..50).flat_map(|number| {
            (0..4).map(move |seq| format!("r/{}/w/{seq:08x}-{}", id(number), id(number * 10 + seq)))
        });
        let others = ["config", "i/host-1/-odd", "i/host-1/odd", "i/host-1/zodd", "r/odd"].map(str::to_owned);
        let all = of_writers.chain(of_machines).chain(others);
        let (service, names) = service(all, 7);
        for prefix in ["", "i/", "i/host-1", "i/host-1/", "i/host-1/4", "r/", "s/", "s/zz/", "x/"] {
            let listed: Vec<String> = list(&service, prefix)
                .unwrap()
                .into_iter()
                .map(|info| info.name.as_str().to_owned())
                .collect();
            let expected: Vec<String> =
                names.iter().filter(|name| name.starts_with(prefix)).cloned().collect();
            assert_eq!(listed, expected, "{prefix:?}");
        }
    }

    #[test]
    fn a_listing_of_one_page_takes_one_request_and_a_long_one_few_more_than_its_pages() {
        let names = || (0..1000).map(|number| format!("s/w/{}", id(number)));
        let (short, _) = service(names(), 1000);
        list(&short, "s/").unwrap();
        assert_eq!(short.pages.into_inner(), 1);
        let (long, _) = service(names(), 100);
        list(&long, "s/").unwrap();
        let pages = long.pages.into_inner();
        assert!(pages <= 10 + 2 * DIGITS.len(), "{pages}");
    }
}
