//! A store that fails on purpose, for tests.

use super::{BlobStore, Page, Put, StoreError};
use repo_format::BlobName;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call is not applied and fails; later ones work.
    NotApplied,
    /// The call is applied and reported as failed (the answer is lost); later ones work.
    AnswerLost,
    /// The call is not applied, and neither is any later one: the process ended just before it.
    CrashBefore,
    /// The call is applied but its answer never seen, and no later call is applied: the process ended just
    /// after it.
    CrashAfter,
}

/// A store of which one call, or every one from that on, fails.
#[derive(Debug)]
pub struct FaultStore<S> {
    inner: S,
    at: u64,
    fault: Fault,
    calls: AtomicU64,
}

impl<S: BlobStore> FaultStore<S> {
    /// Lets call number `at` (the first is 0, all verbs count) fail in the given way.
    pub fn new(inner: S, at: u64, fault: Fault) -> Self {
        Self { inner, at, fault, calls: AtomicU64::new(0) }
    }

    /// Calls so far. A test has tried every call when this is not greater than the call that was to fail.
    pub fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    /// The store underneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn call<T>(
        &self,
        (action, object): (&'static str, &str),
        apply: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let call = self.calls.fetch_add(1, SeqCst);
        let crashes = matches!(self.fault, Fault::CrashBefore | Fault::CrashAfter);
        if call < self.at || (call > self.at && !crashes) {
            return apply();
        }
        if call == self.at && matches!(self.fault, Fault::AnswerLost | Fault::CrashAfter) {
            apply()?;
        }
        let source = io::Error::new(io::ErrorKind::ConnectionAborted, "injected fault");
        Err(StoreError::Io { action, object: object.to_owned(), source })
    }
}

impl<S: BlobStore> BlobStore for FaultStore<S> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.call(("create", name.as_str()), || self.inner.put_new(name, bytes))
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.call(("read", name.as_str()), || self.inner.get(name, range))
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.call(("list", prefix), || self.inner.list(prefix, from, limit))
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.call(("delete", name.as_str()), || self.inner.delete(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    /// Puts the blobs a, b, c with the given fault at b; returns which puts succeeded, and the names there.
    fn three_puts(fault: Fault) -> ([bool; 3], Vec<String>) {
        let store = FaultStore::new(MemoryStore::new(), 1, fault);
        let succeeded = ["a", "b", "c"]
            .map(|name| store.put_new(&BlobName::parse(name).expect("a valid name"), b"x").is_ok());
        assert_eq!(store.calls(), 3);
        (succeeded, store.inner().names().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_call_that_is_not_applied_leaves_nothing() {
        assert_eq!(three_puts(Fault::NotApplied), ([true, false, true], vec!["a".into(), "c".into()]));
    }

    #[test]
    fn a_call_whose_answer_is_lost_is_applied() {
        let names = vec!["a".into(), "b".into(), "c".into()];
        assert_eq!(three_puts(Fault::AnswerLost), ([true, false, true], names));
    }

    #[test]
    fn nothing_is_applied_after_a_crash() {
        assert_eq!(three_puts(Fault::CrashBefore), ([true, false, false], vec!["a".into()]));
        assert_eq!(three_puts(Fault::CrashAfter), ([true, false, false], vec!["a".into(), "b".into()]));
    }
}
