//! Tasks: work that is started by a call and asked for until it is done.

use jiff::Timestamp;

use super::fault::Fault;
use super::snapshots::merge;
use super::state::State;
use super::value::{Object, Reference, Value, boolean, int, one_of, optional, reference, string, time};

/// The method of tasks that somebody else started.
const OTHER: &str = "RelocateVM_Task";

/// How many tasks that ended a virtual machine's `recentTask` still names.
const ENDED_REMEMBERED: usize = 5;

/// A task.
#[derive(Debug)]
pub(super) struct Task {
    number: usize,
    method: String,
    entity: Reference,
    entity_name: String,
    started: Timestamp,
    /// How many times it is still found running; `u64::MAX` for ever.
    polls_left: u64,
    polls: u64,
    /// Whether anybody could know that it ended.
    ended: bool,
    work: Work,
}

/// What a task does.
#[derive(Debug)]
pub(super) enum Work {
    /// It is done, and is only still to be told.
    Done(Result<Value, Fault>),
    /// It merges files of removed snapshots when it ends.
    Merge {
        /// The virtual machine's id.
        vm: String,
    },
}

/// Starts a task, and returns the reference to it.
pub(super) fn start(state: &mut State, method: &str, vm: &str, work: Work) -> Value {
    let slow = state.script.slow.get(method).copied();
    let work = match work {
        // Nothing waits for a client that may have gone away, unless the test wants that.
        Work::Merge { vm } if slow.is_none() => {
            merge(state, &vm);
            Work::Done(Ok(Value::Unset))
        }
        work => work,
    };
    let entity_name = state.machines.get(vm).map(|vm| vm.name.clone()).unwrap_or_default();
    let task = Task {
        number: state.tasks.len(),
        method: method.to_owned(),
        entity: Reference::new("VirtualMachine", vm),
        entity_name,
        started: Timestamp::now(),
        polls_left: slow.unwrap_or(1),
        polls: 0,
        ended: false,
        work,
    };
    let id = state.new_id("task");
    state.tasks.insert(id.clone(), task);
    reference("Task", &id)
}

/// Starts a task that somebody else wants, which lasts for so many polls.
pub(super) fn start_other(state: &mut State, vm: &str, polls: u64) {
    let task = start(state, OTHER, vm, Work::Done(Ok(Value::Unset)));
    let Value::Reference(task) = task else { return };
    if let Some(task) = state.tasks.get_mut(&task.id) {
        task.polls_left = polls;
    }
}

/// Goes on with a task, as time does between two questions.
pub(super) fn poll(state: &mut State, id: &str) {
    let Some(task) = state.tasks.get_mut(id) else { return };
    task.polls += 1;
    match task.polls_left {
        u64::MAX => {}
        0 => {
            task.ended = true;
            if let Work::Merge { vm } = &task.work {
                let vm = vm.clone();
                task.work = Work::Done(Ok(Value::Unset));
                merge(state, &vm);
            }
        }
        _ => task.polls_left -= 1,
    }
}

/// Goes on with the consolidation of a virtual machine, as time does between two questions.
pub(super) fn poll_consolidation(state: &mut State, vm: &str) {
    let merges = |task: &Task| task.is_of(vm) && !task.ended && task.merges();
    let running: Vec<String> =
        state.tasks.iter().filter(|(_, task)| merges(task)).map(|(id, _)| id.clone()).collect();
    for task in running {
        poll(state, &task);
    }
}

/// What goes on with a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// Files of removed snapshots are merged, as far as anybody was told.
    Merging,
    /// Somebody else's task runs.
    Otherwise,
    /// Nothing does that stands in the way of a snapshot.
    No,
}

/// Tells what goes on with a virtual machine.
pub(super) fn busy(state: &State, vm: &str) -> Busy {
    let mut running = state.tasks.values().filter(|task| task.is_of(vm) && !task.ended);
    if running.clone().any(Task::merges) {
        Busy::Merging
    } else if running.any(|task| task.method == OTHER) {
        Busy::Otherwise
    } else {
        Busy::No
    }
}

/// Returns the tasks of a virtual machine that the server still remembers: those that run, and the last that ended.
pub(super) fn recent<'a>(state: &'a State, vm: &str) -> Vec<&'a str> {
    let mut own: Vec<_> = state.tasks.iter().filter(|(_, task)| task.is_of(vm)).collect();
    own.sort_by_key(|(_, task)| task.number);
    let ended = own.iter().filter(|(_, task)| task.ended).count();
    let mut forgotten = ended.saturating_sub(ENDED_REMEMBERED);
    own.retain(|(_, task)| {
        let forget = task.ended && forgotten > 0;
        forgotten -= usize::from(forget);
        !forget
    });
    own.into_iter().map(|(id, _)| id.as_str()).collect()
}

impl Task {
    /// Tells whether it is about an object.
    pub(super) fn is_of(&self, id: &str) -> bool {
        self.entity.id == id
    }

    fn merges(&self) -> bool {
        matches!(self.method.as_str(), "RemoveSnapshot_Task" | "ConsolidateVMDisks_Task")
    }

    fn outcome(&self) -> Option<&Result<Value, Fault>> {
        match &self.work {
            Work::Done(outcome) if self.ended => Some(outcome),
            _ => None,
        }
    }

    /// Returns its properties.
    pub(super) fn describe(&self, id: &str) -> Object {
        let state = match self.outcome() {
            Some(Ok(_)) => "success",
            Some(Err(_)) => "error",
            None if self.polls <= 1 && self.polls_left > 0 => "queued",
            None => "running",
        };
        let done = self.outcome().is_some();
        let result = self.outcome().and_then(|outcome| outcome.as_ref().ok());
        let result = result.filter(|value| **value != Value::Unset);
        let error = self.outcome().and_then(|outcome| outcome.as_ref().err());
        let method = self.method.trim_end_matches("_Task");
        let ended = if done { Some(time(Timestamp::now())) } else { None };
        let progress = if state == "running" { Some(int(self.polls.min(99))) } else { None };
        let info = vec![
            ("key", string(id)),
            ("task", reference("Task", id)),
            ("description", Value::Unset),
            ("name", string(self.method.as_str())),
            ("descriptionId", string(format!("VirtualMachine.{method}"))),
            ("entity", Value::Reference(self.entity.clone())),
            ("entityName", string(self.entity_name.as_str())),
            ("state", one_of("TaskInfoState", state)),
            ("cancelled", boolean(false)),
            ("cancelable", boolean(false)),
            ("error", optional(error.map(Fault::localized))),
            ("result", optional(result.map(|value| Value::Any(Box::new(value.clone()))))),
            ("progress", optional(progress)),
            ("queueTime", time(self.started)),
            ("startTime", time(self.started)),
            ("completeTime", optional(ended)),
        ];
        Object::new("Task", vec![("info", Value::Object(Object::new("TaskInfo", info)))])
    }
}
