//! The stores and the one clock of a simulation, and all that happens to them.

use crate::faults::{Counts, Kind};
use crate::random::Random;
use crate::states::States;
use keepstone_engine::BlobStore as _;
use keepstone_engine::store::{LateCall, MemoryStore, Put};
use repo_format::{BlobKind, BlobName, SessionId};
use shuttle::sync::Condvar;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub const SECOND: u64 = 1000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Site {
    /// Where hosts back up to.
    Source,
    /// What restore points are copied to.
    Copy,
}

/// What all actors share.
pub struct World {
    /// What the store holds, with nothing between.
    pub truth: MemoryStore,
    /// What the store holds that restore points are copied to.
    pub copy: MemoryStore,
    /// Locked for a moment, and never while another thread has its turn.
    inner: Mutex<Inner>,
    /// Held by who waits for the clock.
    gate: shuttle::sync::Mutex<()>,
    moved: Condvar,
}

/// What is known about the store beside its content.
pub struct Inner {
    pub random: Random,
    /// The true time, milliseconds since 1970; nobody but the simulation knows it.
    now: u64,
    /// How wrong the store's clock is.
    pub store_clock: i64,
    /// How many blobs a page of a listing has at most.
    pub page_len: usize,
    /// When each actor that sleeps wakes up, and how many are awake.
    sleeping: Vec<u64>,
    awake: usize,
    late: Vec<Late>,
    pub faults: Counts,
    /// Every call of the store.
    pub log: Vec<String>,
    /// The content of each name that was ever written, and whether a twin wrote it.
    written: HashMap<(Site, String), ([u8; 32], bool)>,
    /// What each key that bytes were sent under sealed.
    sealed: HashMap<Vec<u8>, [u8; 32]>,
    /// Sessions for which a tombstone was sent.
    pub forgotten: BTreeSet<SessionId>,
    /// The latest changes, and what was there before each.
    changes: VecDeque<(BlobName, Option<Vec<u8>>)>,
    /// Whether the store may take changes back, so that a name may be free again.
    pub takes_back: bool,
    /// Nothing goes wrong any more.
    pub is_quiet: bool,
    /// Whether pruners pack again what is mostly not needed.
    pub repacks: bool,
    /// States of the stores that are not looked at yet.
    pub states: States,
    /// What must not be.
    pub violations: Vec<String>,
    /// How often something happened that a simulation is about.
    pub reached: BTreeMap<&'static str, u64>,
    processes: u32,
}

struct Late {
    due: u64,
    site: Site,
    request: LateCall,
    by_twin: bool,
}

impl World {
    pub fn new(truth: MemoryStore, mut random: Random, now: u64) -> Self {
        let store_clock = match random.below(8) {
            0 => -40 * i64::try_from(DAY).expect("a day"),
            1 => 300 * i64::try_from(DAY).expect("a day"),
            _ => 0,
        };
        let inner = Inner {
            now,
            store_clock,
            page_len: random.pick(&[usize::MAX, usize::MAX, 40, 5]),
            random,
            sleeping: Vec::new(),
            awake: 0,
            late: Vec::new(),
            faults: Counts::default(),
            log: Vec::new(),
            written: HashMap::new(),
            sealed: HashMap::new(),
            forgotten: BTreeSet::new(),
            changes: VecDeque::new(),
            takes_back: false,
            is_quiet: false,
            repacks: false,
            states: States::default(),
            violations: Vec::new(),
            reached: BTreeMap::new(),
            processes: 0,
        };
        let copy = MemoryStore::new();
        Self {
            truth,
            copy,
            inner: Mutex::new(inner),
            gate: shuttle::sync::Mutex::new(()),
            moved: Condvar::new(),
        }
    }

    /// What a store holds, with nothing between.
    pub fn at(&self, site: Site) -> &MemoryStore {
        match site {
            Site::Source => &self.truth,
            Site::Copy => &self.copy,
        }
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> u64 {
        self.inner().now
    }

    pub fn draw<T>(&self, choose: impl FnOnce(&mut Random) -> T) -> T {
        choose(&mut self.inner().random)
    }

    pub fn violated(&self, what: &str) {
        let mut inner = self.inner();
        let at = inner.log.len();
        inner.violations.push(format!("before call {at}: {what}"));
    }

    pub fn reach(&self, what: &'static str) {
        *self.inner().reached.entry(what).or_default() += 1;
    }

    /// One more actor does something.
    pub fn enter(&self) {
        self.inner().awake += 1;
    }

    /// An actor does nothing any more.
    pub fn leave(&self) {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner().rest();
        drop(gate);
        self.moved.notify_all();
    }

    /// Lets an actor sleep. If all do, time passes until the first of them wakes up.
    pub fn sleep_until(&self, until: u64) {
        if until <= self.now() {
            return;
        }
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut inner = self.inner();
            inner.sleeping.push(until);
            inner.rest();
        }
        self.moved.notify_all();
        let asleep = self.moved.wait_while(gate, |()| self.now() < until);
        drop(asleep);
    }

    pub fn sleep(&self, length: u64) {
        self.sleep_until(self.now() + length);
    }

    /// Waits for a time that another one sleeps until.
    pub fn wait_until(&self, until: u64) {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let asleep = self.moved.wait_while(gate, |()| self.now() < until);
        drop(asleep);
    }

    /// Lets the time of a call pass.
    pub fn tick(&self) {
        let has_woken = {
            let mut inner = self.inner();
            let slow = if inner.random.one_in(50) { 10 * MINUTE } else { 200 };
            let to = inner.now + inner.random.below(slow);
            inner.advance(to)
        };
        if has_woken {
            let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            drop(gate);
            self.moved.notify_all();
        }
        self.apply_late();
    }

    /// Has a request applied at a later time.
    pub fn later(&self, site: Site, request: LateCall, by_twin: bool) {
        let mut inner = self.inner();
        let delay = match inner.random.below(4) {
            0 => SECOND,
            1 => 20 * MINUTE,
            2 => 2 * DAY,
            _ => 20 * DAY,
        };
        let due = inner.now + inner.random.below(delay);
        inner.late.push(Late { due, site, request, by_twin });
    }

    /// Applies what is due.
    fn apply_late(&self) {
        loop {
            let late = {
                let mut inner = self.inner();
                let now = inner.now;
                let is_quiet = inner.is_quiet;
                let due = inner.late.iter().position(|late| late.due <= now || is_quiet);
                due.map(|position| inner.late.remove(position))
            };
            let Some(late) = late else { return };
            match &late.request {
                LateCall::PutNew(name, bytes) => {
                    let put = self.create(late.site, name, bytes, late.by_twin);
                    self.note("late", "create", &told(late.site, name.as_str()), &format!("{put:?}"));
                }
                LateCall::Delete(name) => {
                    self.remove(late.site, name);
                    self.note("late", "delete", &told(late.site, name.as_str()), "");
                }
            }
        }
    }

    /// Makes everything go well from now on; what is under way is applied.
    pub fn quiet(&self) {
        self.inner().is_quiet = true;
        self.apply_late();
    }

    /// Creates a blob in truth.
    pub fn create(&self, site: Site, name: &BlobName, bytes: &[u8], by_twin: bool) -> Put {
        let mut inner = self.inner();
        self.at(site).set_time(inner.now.saturating_add_signed(inner.store_clock));
        let put = self.at(site).put_new(name, bytes).expect("memory does not fail");
        if put == Put::Created {
            let content = *blake3::hash(bytes).as_bytes();
            inner.changed(site, name, None);
            if site == Site::Copy {
                inner.arrived(self, name, content);
            }
            let before = inner.written.insert((site, name.to_string()), (content, by_twin));
            if let Some((before, twin_before)) = before
                && before != content
                && !by_twin
                && !twin_before
                && !inner.takes_back
                && !may_be_created_anew(name)
            {
                let at = inner.log.len();
                inner
                    .violations
                    .push(format!("before call {at}: {name} was written twice with different bytes"));
            }
        }
        put
    }

    /// Deletes a blob in truth.
    pub fn remove(&self, site: Site, name: &BlobName) {
        let mut inner = self.inner();
        if let Ok(before) = self.at(site).get(name, None) {
            inner.goes(self, site, name);
            inner.changed(site, name, Some(before));
            self.at(site).delete(name).expect("memory does not fail");
            inner.gone(self, site, name);
        }
    }

    /// Makes the store what it was so many changes ago.
    pub fn take_back(&self, changes: u64) {
        let mut inner = self.inner();
        for _ in 0..changes {
            let Some((name, before)) = inner.changes.pop_back() else { return };
            match before {
                Some(bytes) => self.truth.overwrite(&name, &bytes),
                None => self.truth.delete(&name).expect("memory does not fail"),
            }
            inner.log.push(format!("the store takes back {name}"));
        }
    }

    /// Notes that bytes were sent: whoever sees them all must not see two contents under one key.
    ///
    /// A key of a sealed object follows from its type, salt and key hash, that of a pack from its salt and key hash
    /// and the session's key (SPEC 6, 7), and all nonces count from zero. So the same of these with other bytes is a
    /// nonce used twice.
    pub fn sent(&self, name: &BlobName, bytes: &[u8]) {
        let mut keys: Vec<(Vec<u8>, &[u8])> = Vec::new();
        match name.kind() {
            Some(BlobKind::Pack(_)) => {
                if let (Some(head), Some(directory)) = (bytes.get(..96), directory_of(bytes)) {
                    keys.push(([&head[10..11], &head[32..96]].concat(), bytes));
                    keys.push(([&directory[10..11], &directory[16..80]].concat(), directory));
                }
            }
            Some(BlobKind::Config | BlobKind::KeySlot(_)) | None => {}
            Some(kind) => {
                if let BlobKind::Tombstone { session, .. } = kind {
                    self.inner().forgotten.insert(session);
                }
                let salt_and_hash = bytes.get(16..80);
                keys.extend(salt_and_hash.map(|key| ([&bytes[10..11], key].concat(), bytes)));
            }
        }
        for (key, sealed) in keys {
            let content = *blake3::hash(sealed).as_bytes();
            let mut inner = self.inner();
            if inner.sealed.insert(key, content).is_some_and(|before| before != content) {
                let at = inner.log.len();
                inner
                    .violations
                    .push(format!("before call {at}: a key and nonce were used twice, in {name}"));
            }
        }
    }

    pub fn note(&self, who: &str, verb: &str, object: &str, outcome: &str) {
        let mut inner = self.inner();
        let mut line = String::with_capacity(96);
        write!(line, "{} {who} {verb} {object} {outcome}", inner.now).expect("a string takes everything");
        inner.log.push(line);
    }

    pub fn note_fault(&self, kind: Kind) {
        self.inner().faults.note(kind);
    }

    pub fn next_process(&self) -> u32 {
        let mut inner = self.inner();
        inner.processes += 1;
        inner.processes
    }
}

/// Whether a name may be used again for something else: that of a list of sessions that a generation waits for, which a
/// pruner removes where it reads it damaged (P-4), and any that was listed after its `condemned` tells enough.
fn may_be_created_anew(name: &BlobName) -> bool {
    matches!(name.kind(), Some(BlobKind::Awaited(_)))
}

/// How an object of a store is called in the log.
pub fn told(site: Site, object: &str) -> String {
    match site {
        Site::Source => object.to_owned(),
        Site::Copy => format!("copy:{object}"),
    }
}

/// The sealed directory of a pack.
fn directory_of(pack: &[u8]) -> Option<&[u8]> {
    let offset: [u8; 4] = pack.get(12..16)?.try_into().ok()?;
    let directory = pack.get(usize::try_from(u32::from_le_bytes(offset)).ok()?..)?;
    (directory.len() >= 80).then_some(directory)
}

/// Changes that can be taken back.
const CHANGES_KEPT: usize = 20;

impl Inner {
    /// Whether a content may have been written under a name: it was the last one, or one of a twin was.
    pub fn may_have_been(&self, site: Site, name: &BlobName, content: [u8; 32]) -> bool {
        let written = self.written.get(&(site, name.to_string()));
        written.is_some_and(|(last, by_twin)| *by_twin || *last == content)
    }

    fn changed(&mut self, site: Site, name: &BlobName, before: Option<Vec<u8>>) {
        if self.takes_back && site == Site::Source {
            self.changes.push_back((name.clone(), before));
            if self.changes.len() > CHANGES_KEPT {
                self.changes.pop_front();
            }
        }
    }

    /// Whether somebody has woken up.
    fn advance(&mut self, to: u64) -> bool {
        self.now = self.now.max(to);
        let asleep = self.sleeping.len();
        let now = self.now;
        self.sleeping.retain(|until| *until > now);
        self.awake += asleep - self.sleeping.len();
        asleep > self.sleeping.len()
    }

    /// One actor less is awake.
    fn rest(&mut self) {
        self.awake -= 1;
        if self.awake == 0
            && let Some(first) = self.sleeping.iter().min().copied()
        {
            self.advance(first);
        }
    }

    /// Lets much time pass, when nobody does anything.
    pub fn pass(&mut self, length: u64) {
        let to = self.now + length;
        self.advance(to);
    }
}
