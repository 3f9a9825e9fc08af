//! Whose turn it is.

use crate::random::Random;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// Runs one execution. Lets a thread go on for a while before another one has its turn; how long, the seed decides.
#[derive(Debug)]
pub struct Turns {
    random: Random,
    /// A thread goes on in all but one of so many cases.
    patience: u64,
    is_begun: bool,
}

impl Turns {
    pub fn new(mut random: Random) -> Self {
        let patience = random.pick(&[1, 2, 8, 32]);
        Self { random, patience, is_begun: false }
    }
}

impl Scheduler for Turns {
    fn new_execution(&mut self) -> Option<Schedule> {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        is_first.then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let goes_on = |id: &TaskId| runnable.iter().any(|task| task.id() == *id);
        if let Some(current) = current.filter(goes_on)
            && !is_yielding
            && !self.random.one_in(self.patience)
        {
            return Some(current);
        }
        Some(runnable[self.random.index(runnable.len())].id())
    }

    fn next_u64(&mut self) -> u64 {
        self.random.next()
    }
}
