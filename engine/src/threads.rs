//! Where threads come from that read and write blobs, and what they meet in: the standard library and rayon, or, with
//! the feature `shuttle`, a scheduler that a test controls.
//!
//! Only what a thread may wait for has to come from here. A lock that is held for a moment and across no call of this
//! module is the standard library's in both.

#[cfg(not(feature = "shuttle"))]
mod system {
    pub(crate) use rayon::current_num_threads as parallelism;
    pub(crate) use std::sync::atomic::AtomicBool;
    pub(crate) use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread::scope;

    /// How many of `threads` that wait for the store or a source there are.
    pub(crate) fn waiting(threads: usize) -> usize {
        threads
    }

    /// Where tasks for the pool are handed over.
    #[derive(Clone, Copy)]
    pub(crate) struct Tasks<'o, 't>(&'o rayon::Scope<'t>);

    impl<'t> Tasks<'_, 't> {
        /// Has something done by the pool.
        pub(crate) fn spawn(self, work: impl FnOnce() + Send + 't) {
            self.0.spawn(|_| work());
        }
    }

    /// Runs `body` here, and the tasks that it hands over in the pool. Returns when all have ended; the first panic of
    /// one is passed on.
    pub(crate) fn tasks<'t, R>(body: impl FnOnce(Tasks<'_, 't>) -> R) -> R {
        rayon::in_place_scope(|scope| body(Tasks(scope)))
    }
}

#[cfg(feature = "shuttle")]
mod explored {
    use super::lock;
    pub(crate) use shuttle::sync::atomic::AtomicBool;
    pub(crate) use shuttle::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    use shuttle::thread;
    use std::any::Any;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::{Arc, PoisonError};

    type Task<'t> = Box<dyn FnOnce() + Send + 't>;
    /// The first panic of a scope. No thread waits for its lock.
    type FirstPanic = std::sync::Mutex<Option<Box<dyn Any + Send>>>;

    /// Threads of the pool: with one, tasks would not meet each other.
    const POOL_THREADS: usize = 2;

    /// Threads that wait, at most: each more is orders to try in which nothing else happens.
    const WAITING_THREADS: usize = 3;

    pub(crate) fn parallelism() -> usize {
        POOL_THREADS
    }

    pub(crate) fn waiting(threads: usize) -> usize {
        threads.min(WAITING_THREADS)
    }

    /// A scope of threads.
    pub(crate) struct Threads<'scope, 'env> {
        scope: &'scope thread::Scope<'scope, 'env>,
        panic: Arc<FirstPanic>,
    }

    impl<'scope> Threads<'scope, '_> {
        pub(crate) fn spawn<T: Send + 'scope>(
            &self,
            work: impl FnOnce() -> T + Send + 'scope,
        ) -> Running<'scope, T> {
            let panic = Arc::clone(&self.panic);
            Running {
                thread: self.scope.spawn(move || keep_panic(&panic, work)),
                panic: Arc::clone(&self.panic),
            }
        }
    }

    /// A thread of a scope.
    pub(crate) struct Running<'scope, T> {
        thread: thread::ScopedJoinHandle<'scope, Option<T>>,
        panic: Arc<FirstPanic>,
    }

    impl<T> Running<'_, T> {
        /// Waits for the thread; its panic, or the first one of its scope.
        pub(crate) fn join(self) -> thread::Result<T> {
            let passed_on =
                || -> Box<dyn Any + Send> { Box::new("the scope's first panic was passed on already") };
            let panic = || self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.thread.join()?.ok_or_else(|| panic().unwrap_or_else(passed_on))
        }
    }

    /// As [`std::thread::scope`]; a panic of a thread is kept until all have ended.
    pub(crate) fn scope<'env, T>(body: impl for<'scope> FnOnce(&Threads<'scope, 'env>) -> T) -> T {
        let panic = Arc::<FirstPanic>::default();
        let result = thread::scope(|scope| {
            // The scope wakes its thread whenever the last of the others ends, whatever it waits for just then. So one
            // stays until the body has ended.
            let (alive, ended) = channel::<()>();
            scope.spawn(move || {
                let _nothing_is_sent = ended.recv();
            });
            let threads = Threads { scope, panic: Arc::clone(&panic) };
            let result = catch_unwind(AssertUnwindSafe(|| body(&threads)));
            drop(alive);
            result
        });
        pass_on(result, &panic)
    }

    /// Where tasks for the pool are handed over.
    #[derive(Clone, Copy)]
    pub(crate) struct Tasks<'o, 't>(&'o Sender<Task<'t>>);

    impl<'t> Tasks<'_, 't> {
        pub(crate) fn spawn(self, work: impl FnOnce() + Send + 't) {
            assert!(self.0.send(Box::new(work)).is_ok(), "the pool waits for tasks until the scope ends");
        }
    }

    /// Runs `body` here, and the tasks that it hands over in a pool of [`POOL_THREADS`] threads.
    pub(crate) fn tasks<'t, R>(body: impl FnOnce(Tasks<'_, 't>) -> R) -> R {
        let panic = FirstPanic::default();
        let (queue, waiting) = channel::<Task<'t>>();
        let waiting = Mutex::new(waiting);
        let result = thread::scope(|scope| {
            for _ in 0..POOL_THREADS {
                scope.spawn(|| {
                    loop {
                        let task = lock(&waiting).recv();
                        let Ok(task) = task else { return };
                        keep_panic(&panic, task);
                    }
                });
            }
            let result = catch_unwind(AssertUnwindSafe(|| body(Tasks(&queue))));
            drop(queue);
            result
        });
        pass_on(result, &panic)
    }

    fn keep_panic<T>(first: &FirstPanic, work: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => Some(result),
            Err(panic) => {
                first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                None
            }
        }
    }

    /// What a scope's body came to, or its panic, or the first one of a thread. A panic must not leave the scope before
    /// all threads have ended: the scope does not wait for them then.
    fn pass_on<T>(result: thread::Result<T>, panic: &FirstPanic) -> T {
        let result = result.unwrap_or_else(|panic| resume_unwind(panic));
        let panic = panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        panic.map_or(result, |panic| resume_unwind(panic))
    }
}

#[cfg(feature = "shuttle")]
pub(crate) use explored::*;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(feature = "shuttle"))]
pub(crate) use system::*;

/// As [`crate::frames::lock`], for a lock that is held while something is waited for.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the same with each item, with at most so many at the same time; the results are in the order of the items. For
/// what waits, as requests to a store do.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], at_once: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let results: std::sync::Mutex<Vec<(usize, R)>> = std::sync::Mutex::default();
    scope(|scope| {
        for _ in 0..items.len().min(waiting(at_once)) {
            scope.spawn(|| {
                loop {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(position) else { return };
                    let result = work(item);
                    crate::frames::lock(&results).push((position, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(position, _)| *position);
    results.into_iter().map(|(_, result)| result).collect()
}
