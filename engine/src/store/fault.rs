//! A store that fails on purpose, for tests.

use super::{BlobStore, Page, Put, StoreError};
use crate::frames::lock;
use repo_format::BlobName;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
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
    /// The call fails, and so does every repetition of it; all else works. It is applied right after so many further
    /// calls of this store (0: at once), or when [`FaultStore::take_late`] has it applied.
    AppliedLater {
        /// Calls that come before.
        further: u64,
    },
    /// The call is not applied, and neither is any later one: the process ended while the call was under way. It is
    /// applied when [`FaultStore::take_late`] has it applied.
    CrashDuring,
    /// From the call on, nothing is deleted: the container keeps what it has (WORM), and says so. All else works.
    DeletesRefused,
    /// From the call on, nothing is created or deleted: the credential does not allow it. All else works.
    ChangesForbidden,
}

/// A request that changes something and whose sender has been told that it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LateCall {
    /// A create.
    PutNew(BlobName, Vec<u8>),
    /// A deletion.
    Delete(BlobName),
}

impl LateCall {
    /// Applies the request to a store: a create whose name has been taken meanwhile changes nothing.
    ///
    /// # Errors
    /// Those of the store.
    pub fn apply(&self, store: &dyn BlobStore) -> Result<(), StoreError> {
        match self {
            Self::PutNew(name, bytes) => store.put_new(name, bytes).map(drop),
            Self::Delete(name) => store.delete(name),
        }
    }
}

/// A store of which one call, or every one from that on, fails.
#[derive(Debug)]
pub struct FaultStore<S> {
    inner: S,
    at: u64,
    fault: Fault,
    calls: AtomicU64,
    /// What was under way when it failed.
    failed: Mutex<Option<LateCall>>,
    /// The same, until it is applied.
    late: Mutex<Option<LateCall>>,
    /// The call after which it is.
    due: u64,
}

impl<S: BlobStore> FaultStore<S> {
    /// Lets call number `at` (the first is 0, all verbs count) fail in the given way.
    pub fn new(inner: S, at: u64, fault: Fault) -> Self {
        let due = match fault {
            Fault::AppliedLater { further } => at.saturating_add(further),
            _ => u64::MAX,
        };
        let (calls, failed, late) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
        Self { inner, at, fault, calls, failed, late, due }
    }

    /// Lets no call fail, but applies an earlier request right after call number `at`.
    pub fn with_late(inner: S, at: u64, late: LateCall) -> Self {
        // No call has that number.
        let store = Self::new(inner, u64::MAX, Fault::NotApplied);
        Self { late: Mutex::new(Some(late)), due: at, ..store }
    }

    /// Calls so far. A test has tried every call when this is not greater than the call that was to fail.
    pub fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    /// The store underneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The request that failed and has not been applied yet, for the caller to apply it. Nothing if the call that
    /// failed changes nothing.
    pub fn take_late(&self) -> Option<LateCall> {
        lock(&self.late).take()
    }

    fn call<T>(
        &self,
        (action, object): (&'static str, &str),
        request: impl Fn() -> Option<LateCall>,
        apply: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let call = self.calls.fetch_add(1, SeqCst);
        let result = self.answer(call, (action, object), request, apply);
        if call >= self.due
            && let Some(late) = self.take_late()
        {
            late.apply(&self.inner)?;
        }
        result
    }

    fn answer<T>(
        &self,
        call: u64,
        (action, object): (&'static str, &str),
        request: impl Fn() -> Option<LateCall>,
        apply: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let fails = match self.fault {
            Fault::CrashBefore | Fault::CrashAfter | Fault::CrashDuring => call >= self.at,
            Fault::NotApplied | Fault::AnswerLost => call == self.at,
            Fault::DeletesRefused => call >= self.at && action == "delete",
            Fault::ChangesForbidden => call >= self.at && matches!(action, "create" | "delete"),
            Fault::AppliedLater { .. } => {
                call == self.at || (call > self.at && self.is_repeated(request().as_ref()))
            }
        };
        if !fails {
            return apply();
        }
        if call == self.at {
            match self.fault {
                Fault::AnswerLost | Fault::CrashAfter => drop(apply()?),
                Fault::AppliedLater { .. } | Fault::CrashDuring => {
                    let request = request();
                    (*lock(&self.failed)).clone_from(&request);
                    *lock(&self.late) = request;
                }
                Fault::NotApplied | Fault::CrashBefore | Fault::DeletesRefused | Fault::ChangesForbidden => {}
            }
        }
        let source = match self.fault {
            Fault::DeletesRefused => rustix::io::Errno::PERM.into(),
            Fault::ChangesForbidden => rustix::io::Errno::ACCESS.into(),
            _ => io::Error::new(io::ErrorKind::ConnectionAborted, "injected fault"),
        };
        Err(StoreError::Io { action, object: object.to_owned(), source })
    }

    fn is_repeated(&self, request: Option<&LateCall>) -> bool {
        request.is_some() && lock(&self.failed).as_ref() == request
    }
}

impl<S: BlobStore> BlobStore for FaultStore<S> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        let request = || Some(LateCall::PutNew(name.clone(), bytes.to_vec()));
        self.call(("create", name.as_str()), request, || self.inner.put_new(name, bytes))
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.call(("read", name.as_str()), || None, || self.inner.get(name, range))
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.call(("list", prefix), || None, || self.inner.list(prefix, from, limit))
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        let request = || Some(LateCall::Delete(name.clone()));
        self.call(("delete", name.as_str()), request, || self.inner.delete(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn name(text: &str) -> BlobName {
        BlobName::parse(text).expect("a valid name")
    }

    fn names(store: &MemoryStore) -> Vec<String> {
        store.names().iter().map(ToString::to_string).collect()
    }

    /// Puts the blobs a, b, c with the given fault at b; returns which puts succeeded, and the names there.
    fn three_puts(fault: Fault) -> ([bool; 3], Vec<String>) {
        let store = FaultStore::new(MemoryStore::new(), 1, fault);
        let succeeded = ["a", "b", "c"].map(|text| store.put_new(&name(text), b"x").is_ok());
        assert_eq!(store.calls(), 3);
        (succeeded, names(store.inner()))
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
        assert_eq!(three_puts(Fault::CrashDuring), ([true, false, false], vec!["a".into()]));
    }

    #[test]
    fn a_late_call_is_applied_after_the_calls_that_come_before_it() {
        let at_once = Fault::AppliedLater { further: 0 };
        assert_eq!(three_puts(at_once), ([true, false, true], vec!["a".into(), "b".into(), "c".into()]));
        let later = Fault::AppliedLater { further: 3 };
        assert_eq!(three_puts(later), ([true, false, true], vec!["a".into(), "c".into()]));
    }

    #[test]
    fn a_late_call_fails_again_until_it_is_applied_and_meets_what_is_there_then() {
        let store = FaultStore::new(MemoryStore::new(), 0, Fault::AppliedLater { further: u64::MAX });
        assert!(store.put_new(&name("a"), b"late").is_err());
        assert!(store.put_new(&name("a"), b"late").is_err());
        assert_eq!(store.put_new(&name("a"), b"other").unwrap(), Put::Created);
        let late = store.take_late().unwrap();
        assert_eq!((&late, store.take_late()), (&LateCall::PutNew(name("a"), b"late".to_vec()), None));
        late.apply(store.inner()).unwrap();
        assert_eq!(store.inner().get(&name("a"), None).unwrap(), b"other");
    }

    #[test]
    fn an_earlier_request_is_applied_during_a_later_run() {
        let late = LateCall::PutNew(name("late"), b"x".to_vec());
        let store = FaultStore::with_late(MemoryStore::new(), 1, late);
        store.put_new(&name("a"), b"x").unwrap();
        assert_eq!(names(store.inner()), ["a"]);
        store.put_new(&name("b"), b"x").unwrap();
        assert_eq!(names(store.inner()), ["a", "b", "late"]);
    }

    #[test]
    fn a_container_that_keeps_what_it_has_takes_new_blobs_and_says_why_nothing_goes() {
        let store = FaultStore::new(MemoryStore::new(), 0, Fault::DeletesRefused);
        store.put_new(&name("a"), b"x").unwrap();
        assert!(store.delete(&name("a")).unwrap_err().is_refused_by_retention());
        assert_eq!(
            (names(store.inner()), store.get(&name("a"), None).unwrap()),
            (vec!["a".into()], vec![b'x'])
        );
    }

    #[test]
    fn who_may_change_nothing_can_still_read() {
        let store = FaultStore::new(MemoryStore::new(), 1, Fault::ChangesForbidden);
        store.put_new(&name("a"), b"x").unwrap();
        assert!(store.put_new(&name("b"), b"x").is_err());
        assert!(!store.delete(&name("a")).unwrap_err().is_refused_by_retention());
        assert_eq!(
            (names(store.inner()), store.get(&name("a"), None).unwrap()),
            (vec!["a".into()], vec![b'x'])
        );
    }
}
