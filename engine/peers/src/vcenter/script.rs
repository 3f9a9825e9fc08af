//! What a test wants to happen at which call, and what was called.

use std::collections::BTreeMap;

use super::fault::Fault;

/// A call that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method, such as `CreateSnapshot_Task`, or `GET /folder` and `HEAD /folder`.
    pub method: String,
    /// The object that it was called on (`vm-24`), or the path on the datastore.
    pub object: String,
}

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// With a fault, at once.
    Fault(Fault),
    /// With a fault of the task that it starts, which is in vain.
    Task(Fault),
    /// With no more than a status of HTTP.
    Status(u16),
    /// The connection is cut, and the call is not carried out.
    Dropped,
    /// The call is carried out, and the connection is cut instead of an answer.
    AnswerLost,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A closure of the test's.
pub(super) type Hook = Box<dyn FnOnce() + Send>;

/// What was called, and what is to happen.
#[derive(Default)]
pub(super) struct Script {
    pub(super) calls: Vec<Call>,
    counts: BTreeMap<String, u64>,
    /// At which of a method's calls.
    failures: Vec<(String, u64, Failure)>,
    every: BTreeMap<String, Failure>,
    hooks: Vec<(String, u64, Hook)>,
    /// Calls with closures that are not carried out yet.
    pub(super) acting: usize,
    /// For how many polls the tasks of a method run on.
    pub(super) slow: BTreeMap<String, u64>,
}

impl Script {
    /// Plans a failure of the nth call from now.
    pub(super) fn fail(&mut self, method: &str, nth: u64, failure: Failure) {
        let at = self.number(method, nth);
        self.failures.push((method.to_owned(), at, failure));
    }

    /// Lets every call of a method fail that nothing else is planned for.
    pub(super) fn fail_every(&mut self, method: &str, failure: Failure) {
        self.every.insert(method.to_owned(), failure);
    }

    /// Lets no call of a method fail any more.
    pub(super) fn heal(&mut self, method: &str) {
        self.every.remove(method);
        self.failures.retain(|(planned, ..)| planned != method);
    }

    pub(super) fn hook(&mut self, method: &str, nth: u64, hook: Hook) {
        let at = self.number(method, nth);
        self.hooks.push((method.to_owned(), at, hook));
    }

    fn number(&self, method: &str, nth: u64) -> u64 {
        assert!(nth > 0, "calls are counted from 1");
        self.counts.get(method).copied().unwrap_or(0) + nth
    }

    /// Records a call, and returns what is to happen at it: first closures, in the order in which they were planned,
    /// then a failure.
    pub(super) fn record(&mut self, method: &str, object: &str) -> (Vec<Hook>, Option<Failure>) {
        self.calls.push(Call { method: method.to_owned(), object: object.to_owned() });
        let count = self.counts.entry(method.to_owned()).or_insert(0);
        *count += 1;
        let count = *count;
        let due = |planned: &str, at: u64| planned == method && at == count;
        let hooks = self.hooks.extract_if(.., |(planned, at, _)| due(planned, *at)).map(|(_, _, hook)| hook);
        let hooks: Vec<Hook> = hooks.collect();
        self.acting += usize::from(!hooks.is_empty());
        let failure = self.failures.iter().position(|(planned, at, _)| due(planned, *at));
        let failure = failure.map(|position| self.failures.remove(position).2);
        (hooks, failure.or_else(|| self.every.get(method).cloned()))
    }
}
