//! Tasks: work that is started by a call and asked for until it is done.

use jiff::Timestamp;

use super::fault::Fault;
use super::snapshots::merge;
use super::state::State;
use super::value::{Object, Reference, Value, boolean, int, one_of, optional, reference, string, time};

/// A task.
#[derive(Debug)]
pub(super) struct Task {
    method: String,
    entity: Reference,
    entity_name: String,
    started: Timestamp,
    /// How many times it is still found running; `u64::MAX` for ever.
    polls_left: u64,
    polls: u64,
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
        method: method.to_owned(),
        entity: Reference::new("VirtualMachine", vm),
        entity_name,
        started: Timestamp::now(),
        polls_left: slow.unwrap_or(1),
        polls: 0,
        work,
    };
    let id = state.new_id("task");
    state.tasks.insert(id.clone(), task);
    reference("Task", &id)
}

/// Goes on with a task, as time does between two questions.
pub(super) fn poll(state: &mut State, id: &str) {
    let Some(task) = state.tasks.get_mut(id) else { return };
    task.polls += 1;
    if task.polls_left == u64::MAX {
        return;
    }
    if task.polls_left > 0 {
        task.polls_left -= 1;
        return;
    }
    if let Work::Merge { vm } = &task.work {
        let vm = vm.clone();
        task.work = Work::Done(Ok(Value::Unset));
        merge(state, &vm);
    }
}

/// Goes on with the consolidation of a virtual machine, as time does between two questions.
pub(super) fn poll_consolidation(state: &mut State, vm: &str) {
    let running: Vec<String> = consolidations(state, vm).map(str::to_owned).collect();
    for task in running {
        poll(state, &task);
    }
}

/// Tells whether files of a virtual machine are being merged.
pub(super) fn is_consolidating(state: &State, vm: &str) -> bool {
    consolidations(state, vm).next().is_some()
}

fn consolidations<'a>(state: &'a State, vm: &'a str) -> impl Iterator<Item = &'a str> {
    let merges = move |task: &Task| matches!(&task.work, Work::Merge { vm: merged } if merged == vm);
    state.tasks.iter().filter(move |(_, task)| merges(task)).map(|(id, _)| id.as_str())
}

impl Task {
    /// Tells whether it is about an object.
    pub(super) fn is_of(&self, id: &str) -> bool {
        self.entity.id == id
    }

    fn outcome(&self) -> Option<&Result<Value, Fault>> {
        match &self.work {
            Work::Done(outcome) if self.polls_left == 0 && self.polls > 0 => Some(outcome),
            _ => None,
        }
    }

    /// Returns its properties.
    pub(super) fn describe(&self, id: &str) -> Object {
        let state = match self.outcome() {
            Some(Ok(_)) => "success",
            Some(Err(_)) => "error",
            None if self.polls <= 1 && self.polls_left > 1 => "queued",
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
