//! A process and its way to the store.

use crate::faults::{Kind, Rates};
use crate::rights::Role;
use crate::world::{DAY, HOUR, Site, World, told};
use keepstone_engine::BlobStore;
use keepstone_engine::store::{LateCall, Page, Put, StoreError};
use repo_format::BlobName;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One run of the program: it may end at any call, or stand still.
pub struct Process {
    name: String,
    role: Role,
    rates: Rates,
    /// How often a call is tried that fails.
    tries: u32,
    /// Blobs that no listing shows it.
    hidden: BTreeSet<BlobName>,
    is_twin: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    has_ended: bool,
    stalled_until: u64,
    /// What happened to it.
    faults: u32,
    /// What it was answered in the past that it has in common with its twin, and how often.
    past: HashMap<String, VecDeque<Answer>>,
    /// The same, kept for a twin.
    kept: Option<HashMap<String, VecDeque<Answer>>>,
    /// After so many answers, the host is copied.
    keep: u32,
}

#[derive(Clone, Debug)]
enum Answer {
    Put(Put),
    Bytes(Vec<u8>),
    Page(Page),
    Deleted,
}

enum Request<'a> {
    Put(&'a BlobName, &'a [u8]),
    Get(&'a BlobName, Option<Range<u64>>),
    List(&'a str, Option<&'a BlobName>, usize),
    Delete(&'a BlobName),
}

impl Request<'_> {
    fn verb(&self) -> &'static str {
        match self {
            Self::Put(..) => "create",
            Self::Get(..) => "read",
            Self::List(..) => "list",
            Self::Delete(_) => "delete",
        }
    }

    fn object(&self) -> &str {
        match self {
            Self::Put(name, _) | Self::Get(name, _) | Self::Delete(name) => name.as_str(),
            Self::List(prefix, ..) => prefix,
        }
    }

    fn key(&self) -> String {
        let (verb, object) = (self.verb(), self.object());
        match self {
            Self::Put(_, bytes) => format!("{verb} {object} {}", blake3::hash(bytes)),
            Self::Get(_, range) => format!("{verb} {object} {range:?}"),
            Self::List(_, from, limit) => format!("{verb} {object} {from:?} {limit}"),
            Self::Delete(_) => format!("{verb} {object}"),
        }
    }

    fn as_late(&self) -> Option<LateCall> {
        match self {
            Self::Put(name, bytes) => Some(LateCall::PutNew((*name).clone(), bytes.to_vec())),
            Self::Delete(name) => Some(LateCall::Delete((*name).clone())),
            Self::Get(..) | Self::List(..) => None,
        }
    }

    /// What can happen to it, but for what can happen to any request.
    fn faults(&self) -> &'static [Kind] {
        match self {
            Self::Put(..) => {
                &[Kind::AnswerLost, Kind::Late, Kind::Duplicate, Kind::LateDuplicate, Kind::CrashDuring]
            }
            Self::Delete(_) => &[
                Kind::Refused,
                Kind::AnswerLost,
                Kind::Late,
                Kind::Duplicate,
                Kind::LateDuplicate,
                Kind::CrashDuring,
            ],
            Self::Get(..) => &[Kind::ShortRead, Kind::FlippedRead],
            Self::List(..) => &[Kind::ListFails, Kind::ListMisses],
        }
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::Io { action: self.verb(), object: self.object().to_owned(), source }
    }
}

impl Process {
    pub fn new(world: &World, role: Role, rates: Rates) -> Self {
        let (number, tries) = (world.next_process(), world.draw(|random| random.pick(&[1, 1, 4])));
        Self {
            name: format!("{role:?}{number}"),
            role,
            rates,
            tries,
            hidden: BTreeSet::new(),
            is_twin: false,
            state: Mutex::default(),
        }
    }

    /// The same, of a host that is copied after so many answers.
    pub fn copied_after(mut self, answers: u32) -> Self {
        self.is_twin = true;
        {
            let mut state = self.state();
            (state.kept, state.keep) = (Some(HashMap::new()), answers);
        }
        self
    }

    /// The copy of a process, with the past that they have in common.
    pub fn twin(&self, world: &World) -> Self {
        let past = self.state().kept.take().unwrap_or_default();
        // Once the first one has ended their session, nobody waits for the second one: it may fail at anything.
        let state = State { faults: 1, past, ..State::default() };
        let name = format!("{}twin{}", self.name, world.next_process());
        Self {
            name,
            hidden: self.hidden.clone(),
            rates: self.rates.clone(),
            state: Mutex::new(state),
            ..*self
        }
    }

    /// The same, to which no listing shows some blobs.
    pub fn not_seeing(mut self, hidden: BTreeSet<BlobName>) -> Self {
        self.hidden = hidden;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing went wrong between it and the store.
    pub fn is_untouched(&self) -> bool {
        self.state().faults == 0
    }

    /// Whether it has ended before it was done.
    pub fn has_ended(&self) -> bool {
        self.state().has_ended
    }
}

/// What a process sees of the store.
#[derive(Clone)]
pub struct Client {
    pub world: Arc<World>,
    pub process: Arc<Process>,
    site: Site,
}

impl Client {
    pub fn new(world: &Arc<World>, process: Process) -> Self {
        Self { world: Arc::clone(world), process: Arc::new(process), site: Site::Source }
    }

    /// What the same process sees of a store.
    pub fn at(&self, site: Site) -> Self {
        Self { site, ..self.clone() }
    }

    fn note(&self, request: &Request<'_>, outcome: &str) {
        let object = told(self.site, request.object());
        self.world.note(&self.process.name, request.verb(), &object, outcome);
    }

    /// What a twin's request must be equal in to be the same one.
    fn key(&self, request: &Request<'_>) -> String {
        told(self.site, &request.key())
    }

    fn ask(&self, request: &Request<'_>) -> Result<Answer, StoreError> {
        if let Some(answer) = self.remembered(request) {
            self.note(request, "as in the past");
            return Ok(answer);
        }
        let mut tried = 0;
        loop {
            let result = self.ask_once(request);
            tried += 1;
            let outcome = match &result {
                Ok(Answer::Put(put)) => format!("{put:?}"),
                Ok(Answer::Bytes(bytes)) => format!("{}", bytes.len()),
                Ok(Answer::Page(page)) => {
                    format!("{}{}", page.blobs.len(), if page.next.is_some() { "+" } else { "" })
                }
                Ok(Answer::Deleted) => String::new(),
                Err(error) => format!("failed: {error}"),
            };
            self.note(request, &outcome);
            let is_final = |error: &StoreError| {
                tried >= self.process.tries
                    || error.is_damage()
                    || error.is_refused_by_retention()
                    || self.process.has_ended()
            };
            match result {
                Err(error) if !is_final(&error) => {}
                Err(error) => return Err(error),
                Ok(answer) => {
                    self.remember(request, &answer);
                    return Ok(answer);
                }
            }
        }
    }

    fn remembered(&self, request: &Request<'_>) -> Option<Answer> {
        let mut state = self.process.state();
        if state.past.is_empty() {
            return None;
        }
        state.past.get_mut(&self.key(request)).and_then(VecDeque::pop_front)
    }

    fn remember(&self, request: &Request<'_>, answer: &Answer) {
        let mut state = self.process.state();
        if state.keep == 0 {
            return;
        }
        state.keep -= 1;
        if let Some(kept) = &mut state.kept {
            kept.entry(self.key(request)).or_default().push_back(answer.clone());
        }
    }

    fn ask_once(&self, request: &Request<'_>) -> Result<Answer, StoreError> {
        shuttle::thread::yield_now();
        self.check_right(request);
        let mut fault = None;
        loop {
            let stalled_until = {
                let state = self.process.state();
                if state.has_ended {
                    return Err(request.failed(io::Error::other("the process has ended")));
                }
                state.stalled_until
            };
            if stalled_until > self.world.now() {
                self.world.wait_until(stalled_until);
                continue;
            }
            if fault != Some(Kind::Stall) {
                self.world.tick();
                fault = self.draw_fault(request);
                if fault == Some(Kind::Stall) {
                    self.stall();
                    continue;
                }
            }
            break;
        }
        if let Request::Put(name, bytes) = request {
            self.world.sent(name, bytes);
        }
        self.apply_with(fault, request)
    }

    fn check_right(&self, request: &Request<'_>) {
        let role = self.process.role;
        let is_allowed = match request {
            Request::Put(name, _) => role.may_create(self.site, name),
            Request::Get(name, _) => role.may_read(name),
            Request::List(..) => true,
            Request::Delete(name) => role.may_delete(self.site, name),
        };
        if !is_allowed {
            let (verb, object) = (request.verb(), told(self.site, request.object()));
            self.world.violated(&format!("a {role:?} asked to {verb} {object}"));
        }
    }

    fn draw_fault(&self, request: &Request<'_>) -> Option<Kind> {
        if self.world.inner().is_quiet {
            return None;
        }
        let of_all = [Kind::Unavailable, Kind::CrashBefore, Kind::CrashAfter, Kind::Stall];
        let mut kinds = of_all.iter().chain(request.faults());
        let drawn = kinds.find(|kind| {
            let ppm = self.process.rates.of(**kind);
            self.world.draw(|random| random.chance(ppm))
        });
        let kind = *drawn?;
        self.world.note_fault(kind);
        // A stall and what comes twice give no wrong or missing answer.
        if !matches!(kind, Kind::Stall | Kind::Duplicate | Kind::LateDuplicate) {
            self.process.state().faults += 1;
        }
        Some(kind)
    }

    fn stall(&self) {
        let until = {
            let length = self.world.draw(|random| {
                let most = random.pick(&[HOUR, 2 * DAY, 20 * DAY]);
                random.below(most)
            });
            self.world.now() + length
        };
        self.process.state().stalled_until = until;
        self.world.sleep_until(until);
    }

    fn apply_with(&self, fault: Option<Kind>, request: &Request<'_>) -> Result<Answer, StoreError> {
        let lost =
            |what: &'static str| Err(request.failed(io::Error::new(io::ErrorKind::ConnectionAborted, what)));
        let end = || self.process.state().has_ended = true;
        match fault {
            Some(Kind::Unavailable | Kind::ListFails) => lost("the service is not available"),
            Some(Kind::AnswerLost) => {
                self.apply(request)?;
                lost("the answer was lost")
            }
            Some(Kind::Late) => {
                self.leave_under_way(request);
                lost("the request timed out")
            }
            Some(Kind::CrashBefore) => {
                end();
                lost("the process has ended")
            }
            Some(Kind::CrashAfter) => {
                self.apply(request)?;
                end();
                lost("the process has ended")
            }
            Some(Kind::CrashDuring) => {
                self.leave_under_way(request);
                end();
                lost("the process has ended")
            }
            Some(Kind::Refused) => Err(request.failed(rustix::io::Errno::PERM.into())),
            Some(Kind::Duplicate) => {
                self.apply(request)?;
                self.apply(request)
            }
            Some(Kind::LateDuplicate) => {
                let answer = self.apply(request)?;
                self.leave_under_way(request);
                Ok(answer)
            }
            Some(Kind::ShortRead | Kind::FlippedRead | Kind::ListMisses) => {
                let mut answer = self.apply(request)?;
                self.world.draw(|random| match &mut answer {
                    Answer::Bytes(bytes) if !bytes.is_empty() => {
                        let at = random.index(bytes.len());
                        match fault {
                            Some(Kind::ShortRead) => bytes.truncate(at),
                            _ => bytes[at] ^= 1 << random.below(8),
                        }
                    }
                    Answer::Page(page) => page.blobs.retain(|_| !random.one_in(3)),
                    _ => {}
                });
                Ok(answer)
            }
            _ => self.apply(request),
        }
    }

    fn leave_under_way(&self, request: &Request<'_>) {
        if let Some(late) = request.as_late() {
            self.world.later(self.site, late, self.process.is_twin);
        }
    }

    fn apply(&self, request: &Request<'_>) -> Result<Answer, StoreError> {
        Ok(match request {
            Request::Put(name, bytes) => {
                Answer::Put(self.world.create(self.site, name, bytes, self.process.is_twin))
            }
            Request::Get(name, range) => Answer::Bytes(self.world.at(self.site).get(name, range.clone())?),
            Request::List(prefix, from, limit) => {
                let limit = (*limit).min(self.world.inner().page_len);
                let mut page = self.world.at(self.site).list(prefix, *from, limit)?;
                page.blobs.retain(|info| !self.process.hidden.contains(&info.name));
                Answer::Page(page)
            }
            Request::Delete(name) => {
                self.world.remove(self.site, name);
                Answer::Deleted
            }
        })
    }
}

impl BlobStore for Client {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        match self.ask(&Request::Put(name, bytes))? {
            Answer::Put(put) => Ok(put),
            other => unreachable!("a create is answered by what became of it, not {other:?}"),
        }
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        match self.ask(&Request::Get(name, range))? {
            Answer::Bytes(bytes) => Ok(bytes),
            other => unreachable!("a read is answered by bytes, not {other:?}"),
        }
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        match self.ask(&Request::List(prefix, from, limit))? {
            Answer::Page(page) => Ok(page),
            other => unreachable!("a listing is answered by a page, not {other:?}"),
        }
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.ask(&Request::Delete(name)).map(drop)
    }
}
