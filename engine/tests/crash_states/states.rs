//! All states, each settled.

use crate::operations::{Operation, Scene};
use crate::random::Random;
use crate::recorded::{Recorded, RecordedStore};
use crate::scheduler::Turns;
use keepstone_engine::BlobStore as _;
use keepstone_engine::store::{LateCall, MemoryStore};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A task's stack; the compressor and the cipher put tables there.
const STACK_LEN: usize = 1 << 20;
const LENGTH_MAX: usize = 3;
const OUTCOMES: u64 = 3;
/// Threads that settle states, each those that follow from other first operations.
const THREADS: usize = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sequences: u64,
    /// A crash at a call of a sequence's last operation, in one outcome.
    states: u64,
    /// Those that differ in what is in the store, was acknowledged or comes late, and were settled.
    settled: u64,
}

/// What a thread goes through.
struct Walk {
    /// Settled by this thread or another.
    known: Arc<Mutex<HashSet<[u8; 32]>>>,
    counts: Counts,
    path: Vec<Operation>,
}

impl Walk {
    /// Goes on from a scene with each operation.
    fn from(&mut self, scene: &Scene, operations: &[Operation]) {
        for operation in operations {
            self.path.push(*operation);
            let (mut after, recorded) = run(scene.copied(), *operation);
            if recorded.changes.is_empty() {
                // As if nobody had done anything: what follows is what follows from the scene.
                after = scene.copied();
            }
            self.crash(scene, *operation, &after, &recorded);
            if self.path.len() < LENGTH_MAX {
                self.from(&after, &Operation::ALL);
            }
            self.path.pop();
        }
    }

    /// Settles a crash of the operation at each of its calls.
    fn crash(&mut self, scene: &Scene, operation: Operation, after: &Scene, recorded: &Recorded) {
        self.counts.sequences += 1;
        self.counts.states += OUTCOMES * recorded.calls;
        for (number, change) in recorded.changes.iter().enumerate() {
            let crash = Crash { scene, operation, store: &change.before, change: number };
            // Not applied, as at each call before it since the last change; and applied later.
            self.settle(&crash, None);
            self.settle(&crash, Some((&change.request, When::BeforePrunes)));
            self.settle(&crash, Some((&change.request, When::AfterPrunes)));
        }
        // The answer of the last change was lost, or of a call after it.
        let change = recorded.changes.len();
        self.settle(&Crash { scene, operation, store: &after.store, change }, None);
    }

    fn settle(&mut self, crash: &Crash<'_>, late: Option<(&LateCall, When)>) {
        for recovery in [Recovery::Again, Recovery::None] {
            if !self.known.lock().unwrap().insert(crash.fingerprint(late, recovery)) {
                continue;
            }
            self.counts.settled += 1;
            let told = late.map(|(late, when)| (name_of(late), when));
            let what = format!("{:?}, change {}, late: {told:?}, {recovery:?}", self.path, crash.change);
            let names = crash.store.names();
            let (scene, late) =
                (crash.scene.with(crash.store.copied()), late.map(|(late, when)| (late.clone(), when)));
            let operation = crash.operation;
            let settled = catch_unwind(AssertUnwindSafe(|| {
                scheduled(move || scene.settle(operation, late.as_ref(), recovery));
            }));
            if let Err(panic) = settled {
                eprintln!("{what}, of {names:?}");
                resume_unwind(panic);
            }
        }
    }
}

/// A process that ended.
struct Crash<'a> {
    /// What was before the operation.
    scene: &'a Scene,
    operation: Operation,
    /// What it left.
    store: &'a MemoryStore,
    /// The number of the change that was next.
    change: usize,
}

/// When a request is applied whose sender has ended.
#[derive(Clone, Copy, Debug)]
enum When {
    BeforePrunes,
    AfterPrunes,
}

/// What is done before anybody prunes.
#[derive(Clone, Copy, Debug)]
enum Recovery {
    /// The operation is run again.
    Again,
    /// Nothing.
    None,
}

impl Crash<'_> {
    /// What a state is told from others by.
    fn fingerprint(&self, late: Option<(&LateCall, When)>, recovery: Recovery) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for name in self.store.names() {
            let bytes = self.store.get(&name, None).expect("a listed blob is there");
            hasher.update(name.as_str().as_bytes()).update(blake3::hash(&bytes).as_bytes());
        }
        let late = late.map(|(late, when)| (name_of(late), when));
        let operation = matches!(recovery, Recovery::Again).then_some(self.operation);
        // A snapshot that was being forgotten may be forgotten or not.
        let may_go = (self.operation == Operation::Forget).then(|| self.scene.oldest());
        hasher.update(format!("{operation:?} {may_go:?} {} {late:?}", self.scene.told()).as_bytes());
        *hasher.finalize().as_bytes()
    }
}

impl Scene {
    /// Goes on after a crash until nothing is left to do, and checks what is there then.
    fn settle(mut self, operation: Operation, late: Option<&(LateCall, When)>, recovery: Recovery) {
        let store = self.store.clone();
        self.skip();
        match recovery {
            Recovery::Again => self.run(operation, &store).expect("the second time nothing fails"),
            Recovery::None if operation == Operation::Forget => self.let_go(),
            Recovery::None => {}
        }
        let apply = |late: &LateCall| late.apply(&store).expect("memory does not fail");
        if let Some((late, When::BeforePrunes)) = late {
            apply(late);
        }
        self.clean();
        self.check();
        if let Some((late, When::AfterPrunes)) = late {
            apply(late);
            self.clean();
            self.check();
        }
    }
}

fn name_of(late: &LateCall) -> &str {
    match late {
        LateCall::PutNew(name, _) | LateCall::Delete(name) => name.as_str(),
    }
}

/// Runs an operation to its end.
fn run(mut scene: Scene, operation: Operation) -> (Scene, Recorded) {
    scheduled(move || {
        let store = RecordedStore::new(&scene.store);
        scene.run(operation, &store).unwrap_or_else(|error| panic!("{operation:?}: {error:?}"));
        (scene, store.into_recorded())
    })
}

/// Runs `body` with one thread of the scheduler at a time, always in the same order.
fn scheduled<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let mut config = Config::new();
    config.stack_size = STACK_LEN;
    config.max_steps = MaxSteps::None;
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    let (body, result) = (Mutex::new(Some(body)), Arc::new(Mutex::new(None)));
    let slot = Arc::clone(&result);
    Runner::new(Turns::new(Random::new(1)), config).run(move || {
        let body = body.lock().unwrap().take().expect("it is run once");
        let done = body();
        *slot.lock().unwrap() = Some(done);
    });
    let result = result.lock().unwrap().take();
    result.expect("it was run")
}

#[test]
fn a_crash_at_any_call_of_any_short_sequence_harms_nothing() {
    let known = Arc::<Mutex<HashSet<[u8; 32]>>>::default();
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Counts::default());
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                while let Some(first) = Operation::ALL.get(next.fetch_add(1, Relaxed)) {
                    let known = Arc::clone(&known);
                    let mut walk = Walk { known, counts: Counts::default(), path: Vec::new() };
                    walk.from(&scheduled(Scene::new), &[*first]);
                    let counts = walk.counts;
                    let mut total = total.lock().unwrap();
                    total.sequences += counts.sequences;
                    total.states += counts.states;
                    total.settled += counts.settled;
                }
            });
        }
    });
    let Counts { sequences, states, settled } = *total.lock().unwrap();
    println!("{sequences} sequences, {states} crashes, {settled} different states");
    assert_eq!(sequences, 6 + 6 * 6 + 6 * 6 * 6);
    assert!(states > 10_000 && settled > 1000);
}
