//! A process, what it makes of answers, and what must hold.

use super::{Action, Blob, Broken, Bytes, PROCESSES, SESSIONS, State, Twins};
use stateright::Property;

/// What becomes of a create, and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is applied if the name is free, and answered.
    Answered,
    /// It is applied if the name is free, and the answer is lost.
    AnswerLost,
    /// It is not applied.
    Lost,
    /// It may be applied later, and looks as if it was lost.
    Late,
}

/// Whether a process still runs, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// It creates that next.
    Next(Blob),
    /// It tried and does not know what came of it.
    Unsure(Blob),
    /// It reported success.
    Succeeded,
    /// It said that a twin is running, or that a decision cannot be used.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    step: Step,
    session: u8,
    /// The disk as it is read from now on.
    disk: u8,
    /// The disk as it was when the pack was stored.
    pack: u8,
    /// It gave its first session up and began again.
    gave_up: bool,
}

impl Process {
    pub(super) fn new(disk: u8) -> Self {
        Self { step: Step::Next(Blob::Intent), session: 0, disk, pack: disk, gave_up: false }
    }

    pub(super) fn is_running(self) -> bool {
        matches!(self.step, Step::Next(_) | Step::Unsure(_))
    }

    /// The same process once more. It has its memory, so it knows what was stored already.
    pub(super) fn twin(self, changed: bool) -> Self {
        let disk = if changed { self.disk + 1 } else { self.disk };
        let is_stored = matches!(self.step, Step::Next(Blob::Decision) | Step::Unsure(Blob::Decision));
        let pack = if is_stored { self.pack } else { disk };
        Self { disk, pack, ..self }
    }

    pub(super) fn actions(self, index: usize, may_lose: bool, actions: &mut Vec<Action>) {
        match self.step {
            Step::Next(_) => {
                actions.push(Action::Create(index, Outcome::Answered));
                if may_lose {
                    let bad = [Outcome::AnswerLost, Outcome::Lost, Outcome::Late];
                    actions.extend(bad.map(|outcome| Action::Create(index, outcome)));
                }
            }
            Step::Unsure(_) => actions.push(Action::ReadBack(index)),
            Step::Succeeded | Step::Stopped => {}
        }
    }

    fn bytes(self, blob: Blob) -> Bytes {
        match blob {
            Blob::Intent => Bytes::Of(self.disk),
            Blob::Pack => Bytes::Of(self.pack),
            Blob::Decision => Bytes::Commit { disk: self.disk, pack: self.pack },
        }
    }

    /// After what it created is known to be there.
    fn advance(&mut self, blob: Blob) {
        self.step = match blob {
            Blob::Intent => Step::Next(Blob::Pack),
            Blob::Pack => Step::Next(Blob::Decision),
            Blob::Decision => Step::Succeeded,
        };
    }

    /// W7: start again at W1 with a new session, once.
    fn begin_again(&mut self) {
        if usize::from(self.session) + 1 == SESSIONS {
            self.step = Step::Stopped;
            return;
        }
        self.session += 1;
        self.gave_up = true;
        // Twins draw the same new session id: they have the same random numbers.
        self.pack = self.disk;
        self.step = Step::Next(Blob::Intent);
    }
}

impl Twins {
    pub(super) fn create(self, state: &mut State, index: usize, outcome: Outcome) {
        let Some(mut process) = state.processes[index] else { return };
        let Step::Next(blob) = process.step else { return };
        let session = usize::from(process.session);
        let bytes = process.bytes(blob);
        process.step = Step::Unsure(blob);
        match outcome {
            Outcome::Answered => {
                if state.create(session, blob, bytes) {
                    process.advance(blob);
                }
            }
            Outcome::AnswerLost => {
                state.create(session, blob, bytes);
            }
            Outcome::Lost => {}
            Outcome::Late => state.late[index][session][blob as usize] = Some(bytes),
        }
        if outcome != Outcome::Answered {
            state.losses += 1;
            if blob == Blob::Decision && self.breaks(Broken::LostIsSuccess) {
                process.advance(blob);
            } else if blob == Blob::Decision && self.breaks(Broken::LostIsFailure) {
                process.begin_again();
            }
        }
        state.processes[index] = Some(process);
    }

    pub(super) fn read_back(self, state: &mut State, index: usize) {
        let Some(mut process) = state.processes[index] else { return };
        let Step::Unsure(blob) = process.step else { return };
        let own = process.bytes(blob);
        match state.at(usize::from(process.session), blob) {
            None => process.step = Step::Next(blob),
            Some(there) if there == own => process.advance(blob),
            Some(Bytes::Abort) => process.begin_again(),
            Some(Bytes::UnsignedAbort) if self.breaks(Broken::UnsignedAbortsBelieved) => {
                process.begin_again();
            }
            Some(Bytes::Commit { .. }) if self.breaks(Broken::AnyCommitIsOwn) => process.advance(blob),
            Some(Bytes::Of(_)) if blob == Blob::Pack && self.breaks(Broken::AnyPackIsOwn) => {
                process.advance(blob);
            }
            Some(_) => process.step = Step::Stopped,
        }
        state.processes[index] = Some(process);
    }
}

impl State {
    fn running(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().flatten()
    }

    fn is_abort(&self, session: usize) -> bool {
        matches!(self.at(session, Blob::Decision), Some(Bytes::Abort | Bytes::UnsignedAbort))
    }

    fn succeeded(&self) -> impl Iterator<Item = &Process> {
        self.running().filter(|process| process.step == Step::Succeeded)
    }

    fn success_is_true(&self) -> bool {
        self.succeeded().all(|process| {
            let session = usize::from(process.session);
            self.was_forgotten[session]
                || self.at(session, Blob::Decision) == Some(process.bytes(Blob::Decision))
        })
    }

    fn roots_name_what_was_stored(&self) -> bool {
        (0..SESSIONS).all(|session| match self.at(session, Blob::Decision) {
            Some(Bytes::Commit { pack, .. }) if !self.tombstones[session] => {
                self.at(session, Blob::Pack) == Some(Bytes::Of(pack))
            }
            _ => true,
        })
    }

    fn names_keep_their_bytes(&self) -> bool {
        (0..SESSIONS).all(|session| {
            self.was_forgotten[session]
                || self.store[session]
                    .iter()
                    .zip(self.first[session])
                    .all(|(now, first)| now.is_none() || *now == first)
        })
    }

    fn one_decision(&self) -> bool {
        (0..SESSIONS).all(|session| {
            let is_commit = matches!(self.at(session, Blob::Decision), Some(Bytes::Commit { .. }));
            let was_abort = matches!(self.first[session][Blob::Decision as usize], Some(Bytes::Abort));
            !is_commit || !was_abort && (self.tombstones[session] || !self.was_forgotten[session])
        })
    }

    fn gives_up_what_is_over(&self) -> bool {
        let gave_up = self.running().any(|process| process.gave_up);
        !gave_up || self.is_abort(0) || self.tombstones[0]
    }
}

pub(super) fn properties() -> Vec<Property<Twins>> {
    vec![
        Property::always("I1: a session has one decision, for ever", |_, state: &State| state.one_decision()),
        Property::always(
            "I6: what was reported as a success is there in these bytes, or forgotten",
            |_, state: &State| state.success_is_true(),
        ),
        Property::always("I8: a root names the bytes that its writer stored", |_, state: &State| {
            state.roots_name_what_was_stored()
        }),
        Property::always(
            "no name has different bytes one after the other, unless forgotten",
            |_, state: &State| state.names_keep_their_bytes(),
        ),
        Property::always(
            "a session is given up only when it cannot become a snapshot",
            |_, state: &State| state.gives_up_what_is_over(),
        ),
        Property::sometimes("twins succeed with the same bytes", |_, state: &State| {
            state.succeeded().filter(|process| process.session == 0).count() == PROCESSES
        }),
        Property::sometimes("one twin succeeds, the other stops", |_, state: &State| {
            state.succeeded().count() == 1 && state.running().any(|process| process.step == Step::Stopped)
        }),
        Property::sometimes("an ABORT wins, and the backup succeeds in a new session", |_, state: &State| {
            state.is_abort(0) && state.succeeded().any(|process| process.session == 1)
        }),
        Property::sometimes("an unsigned ABORT stops a writer", |_, state: &State| {
            let is_forged = state.at(0, Blob::Decision) == Some(Bytes::UnsignedAbort);
            is_forged && state.running().any(|process| process.step == Step::Stopped)
        }),
        Property::sometimes("a COMMIT is there, its writer does not know", |_, state: &State| {
            state.running().any(|process| {
                let own = Some(process.bytes(Blob::Decision));
                process.step == Step::Unsure(Blob::Decision) && state.at(0, Blob::Decision) == own
            })
        }),
        Property::sometimes("a late COMMIT meets an ABORT", |_, state: &State| {
            state.is_abort(0) && state.late.iter().any(|late| late[0][Blob::Decision as usize].is_some())
        }),
    ]
}
