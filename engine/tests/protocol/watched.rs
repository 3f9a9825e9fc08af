//! A store that tells a test of every call and lets it act before the call is applied.

use keepstone_engine::BlobStore;
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use repo_format::BlobName;
use std::io;
use std::ops::Range;
use std::sync::Mutex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Put,
    Get,
    List,
    Delete,
}

/// A call: the verb, and the name or prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub verb: Verb,
    pub object: String,
}

impl Call {
    pub fn is(&self, verb: Verb, prefix: &str) -> bool {
        self.verb == verb && self.object.starts_with(prefix)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    Begins(Call),
    Ended(Call),
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is applied and answered.
    Given,
    /// It is applied and fails.
    Lost,
    /// It is not applied and fails.
    Refused,
}

pub struct WatchedStore<'a> {
    inner: &'a MemoryStore,
    log: Mutex<Vec<Moment>>,
    before: Box<dyn Fn(&Call) -> Answer + Send + Sync + 'a>,
}

impl<'a> WatchedStore<'a> {
    /// Calls `before` with every call, before it is applied.
    pub fn new(inner: &'a MemoryStore, before: impl Fn(&Call) -> Answer + Send + Sync + 'a) -> Self {
        Self { inner, log: Mutex::default(), before: Box::new(before) }
    }

    /// What happened so far; forgotten afterwards.
    pub fn take_log(&self) -> Vec<Moment> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn call<T>(
        &self,
        verb: Verb,
        object: &str,
        apply: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let call = Call { verb, object: object.to_owned() };
        self.log.lock().unwrap().push(Moment::Begins(call.clone()));
        let answer = (self.before)(&call);
        let result = if answer == Answer::Refused { None } else { Some(apply()) };
        self.log.lock().unwrap().push(Moment::Ended(call));
        if let (Answer::Given, Some(result)) = (answer, result) {
            return result;
        }
        let source = io::Error::new(io::ErrorKind::ConnectionAborted, "injected fault");
        Err(StoreError::Io { action: "create", object: object.to_owned(), source })
    }
}

impl BlobStore for WatchedStore<'_> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.call(Verb::Put, name.as_str(), || self.inner.put_new(name, bytes))
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.call(Verb::Get, name.as_str(), || self.inner.get(name, range))
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.call(Verb::List, prefix, || self.inner.list(prefix, from, limit))
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.call(Verb::Delete, name.as_str(), || self.inner.delete(name))
    }
}
