//! One site: a store, its sessions and its pruner, by the same steps as in `core`, with one generation and no repacks.

use crate::set::{Packs, Sessions, Set};

/// The most sessions; each has one pack of its number.
const SESSIONS: usize = 4;

/// How the protocol is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Deletes of the source are carried out in a promoted replica.
    DeletesFollowed,
    /// The promoted replica is pruned before the operator declared the source gone.
    PrunedBeforeGone,
    /// Promotion does not abort the sessions of the source that are not decided.
    ForeignSessionsLeft,
    /// A result that arrived from the source is carried out in the promoted replica.
    ForeignResultExecuted,
    /// Decisions are copied back as they are.
    DecisionsCopied,
    /// An import believes that what the replica's root names is in the source too.
    ImportUnconfirmed,
    /// A backup in the promoted replica takes a parent that was not whole there when it was promoted.
    ParentNotWhole,
}

impl Broken {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::DeletesFollowed,
        Self::PrunedBeforeGone,
        Self::ForeignSessionsLeft,
        Self::ForeignResultExecuted,
        Self::DecisionsCopied,
        Self::ImportUnconfirmed,
        Self::ParentNotWhole,
    ];
}

/// A kind of object that is replicated, or its delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An intent.
    Intent,
    /// A pack.
    Pack,
    /// A COMMIT.
    Commit,
    /// An ABORT.
    Abort,
    /// A tombstone.
    Tombstone,
    /// The list of condemned packs.
    Condemned,
    /// The result of a generation.
    Result,
    /// The delete of a pack.
    Delete,
}

impl Part {
    pub(super) const ALL: [Self; 8] = [
        Self::Intent,
        Self::Pack,
        Self::Commit,
        Self::Abort,
        Self::Tombstone,
        Self::Condemned,
        Self::Result,
        Self::Delete,
    ];
}

/// One step at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteAction {
    /// W1 of a session.
    CreateIntent(usize),
    /// W2.
    ListGenerations(usize),
    /// W3 to W5: what the new root names besides its own pack.
    Choose(usize, Packs),
    /// W6.
    Upload(usize),
    /// W7.
    Commit(usize),
    /// F.
    Forget(usize),
    /// P2 and P3.
    PublishCondemned(Packs),
    /// P4.
    ListIntents,
    /// P5: an ABORT.
    Abort(usize),
    /// P6 and P7, when all are decided.
    PublishResult,
    /// P8.
    Delete(usize),
}

use SiteAction as Do;

impl SiteAction {
    pub(super) fn session(self) -> Option<usize> {
        match self {
            Do::CreateIntent(session)
            | Do::ListGenerations(session)
            | Do::Choose(session, _)
            | Do::Upload(session)
            | Do::Commit(session) => Some(session),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Step {
    #[default]
    Idle,
    Begun,
    Informed,
    Chosen,
    Stored,
    Committed,
    Refused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Writer {
    pub(super) step: Step,
    /// C, as W2 saw it.
    condemned: Packs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Pruning {
    #[default]
    Idle,
    Condemned,
    Waiting,
    Published,
}

/// What a site has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) intents: Sessions,
    pub(super) commits: Sessions,
    pub(super) aborts: Sessions,
    pub(super) tombstones: Sessions,
    pub(super) packs: Packs,
    pub(super) uploaded: Packs,
    /// The packs that each root names.
    pub(super) tables: [Packs; SESSIONS],
    condemned: Packs,
    result: Option<Packs>,
    open: Sessions,
    pruning: Pruning,
    /// Packs that this site's pruner deleted.
    pub(super) pruned: Packs,
    pub(super) writers: [Writer; SESSIONS],
    /// Roots that were complete after the promotion.
    pub(super) whole: Sessions,
    /// What the other site condemned, or deletes by a result, as far as that arrived.
    foreign_condemned: Packs,
    foreign_delete: Packs,
}

impl Site {
    pub(super) fn start() -> Self {
        let first = Set::of(0);
        let mut site =
            Self { intents: first, commits: first, packs: first, uploaded: first, ..Default::default() };
        site.tables[0] = first;
        site
    }

    pub(super) fn decided(&self) -> Sessions {
        self.commits | self.aborts | self.tombstones
    }

    pub(super) fn valid(&self) -> Sessions {
        self.commits - self.tombstones
    }

    /// Valid roots with everything that they need.
    pub(super) fn complete(&self) -> Sessions {
        self.valid().iter().filter(|&root| self.tables[root].is_within(self.packs)).collect()
    }

    fn condemned_set(&self) -> Packs {
        self.result.unwrap_or(self.condemned) | self.foreign_condemned | self.foreign_delete
    }

    pub(super) fn session_actions(
        &self,
        session: usize,
        broken: Option<Broken>,
        actions: &mut Vec<SiteAction>,
    ) {
        let writer = &self.writers[session];
        match writer.step {
            Step::Idle => actions.push(Do::CreateIntent(session)),
            Step::Begun => actions.push(Do::ListGenerations(session)),
            Step::Informed => {
                actions.push(Do::Choose(session, Set::EMPTY));
                // A parent that is complete here, or hits on what decided sessions stored: what they name is confirmed.
                let named =
                    |roots: Sessions| roots.iter().fold(Set::EMPTY, |packs, root| packs | self.tables[root]);
                let hits = self.decided() & self.uploaded & self.packs;
                let inherited = if broken == Some(Broken::ParentNotWhole) {
                    named(self.valid())
                } else {
                    named(self.complete())
                };
                let usable = (inherited | hits) - writer.condemned;
                let foreign = usable - Set::of(session);
                actions.extend(foreign.subsets().map(|names| Do::Choose(session, names)));
            }
            Step::Chosen => actions.push(Do::Upload(session)),
            Step::Stored => actions.push(Do::Commit(session)),
            Step::Committed | Step::Refused => {}
        }
    }

    /// What a pruner would delete that took a result of the other site for one of its own.
    pub(super) fn foreign_deletes(&self, actions: &mut Vec<SiteAction>) {
        actions.extend((self.foreign_delete & self.packs).iter().map(Do::Delete));
    }

    pub(super) fn pruner_actions(&self, actions: &mut Vec<SiteAction>) {
        if self.valid().has(0) {
            actions.push(Do::Forget(0));
        }
        match self.pruning {
            Pruning::Idle => {
                let candidates = self.packs & self.decided();
                actions.extend(candidates.subsets().map(Do::PublishCondemned));
            }
            Pruning::Condemned => actions.push(Do::ListIntents),
            Pruning::Waiting => {
                let open = self.open - self.decided();
                actions.extend(open.iter().map(Do::Abort));
                if open.is_empty() {
                    actions.push(Do::PublishResult);
                }
            }
            Pruning::Published => {
                let left = self.result.unwrap_or_default() & self.packs;
                actions.extend(left.iter().map(Do::Delete));
            }
        }
    }

    /// Does a step. An import has the site besides that it reads from.
    pub(super) fn act(&mut self, action: SiteAction, foreign: Option<&Self>, broken: Option<Broken>) {
        match action {
            Do::CreateIntent(session) => {
                self.intents.insert(session);
                self.writers[session].step = Step::Begun;
            }
            Do::ListGenerations(session) => {
                self.writers[session] = Writer { step: Step::Informed, condemned: self.condemned_set() };
            }
            Do::Choose(session, names) => {
                let believed = foreign.filter(|_| broken == Some(Broken::ImportUnconfirmed));
                let copied = believed.map_or(Set::EMPTY, |site| site.tables[2]);
                self.tables[session] = ((names | copied) - Set::of(2)) | Set::of(session);
                self.writers[session] = Writer { step: Step::Chosen, ..Default::default() };
            }
            Do::Upload(session) => {
                self.packs.insert(session);
                self.uploaded.insert(session);
                self.writers[session].step = Step::Stored;
            }
            Do::Commit(session) if self.decided().has(session) => {
                self.writers[session].step = Step::Refused;
            }
            Do::Commit(session) => {
                self.commits.insert(session);
                self.writers[session].step = Step::Committed;
            }
            Do::Forget(root) => self.tombstones.insert(root),
            Do::PublishCondemned(packs) => {
                self.condemned = packs;
                self.pruning = Pruning::Condemned;
            }
            Do::ListIntents => {
                self.open = self.intents - self.decided();
                self.pruning = Pruning::Waiting;
            }
            Do::Abort(session) => self.aborts.insert(session),
            Do::PublishResult => {
                let needed = self.valid().iter().fold(Set::EMPTY, |packs, root| packs | self.tables[root]);
                self.result = Some(self.condemned - needed);
                self.open = Set::EMPTY;
                self.pruning = Pruning::Published;
            }
            Do::Delete(pack) => {
                self.packs.remove(pack);
                self.pruned.insert(pack);
            }
        }
    }

    /// What of the source could arrive here.
    pub(super) fn lacks(&self, source: &Self, part: Part) -> Set {
        let settled = self.commits | self.aborts;
        match part {
            Part::Intent => source.intents - self.intents,
            Part::Pack => source.uploaded - self.uploaded,
            // A name that is taken stays as it is.
            Part::Commit => source.commits - settled,
            Part::Abort => source.aborts - settled,
            Part::Tombstone => source.tombstones - self.tombstones,
            Part::Condemned if self.foreign_condemned != source.condemned => Set::of(0),
            Part::Result if self.foreign_delete != source.result.unwrap_or_default() => Set::of(0),
            Part::Condemned | Part::Result => Set::EMPTY,
            Part::Delete => (source.uploaded - source.packs) & self.packs,
        }
    }

    pub(super) fn receive(&mut self, source: &Self, part: Part, number: usize) {
        match part {
            Part::Intent => self.intents.insert(number),
            Part::Pack => {
                self.packs.insert(number);
                self.uploaded.insert(number);
            }
            Part::Commit => {
                self.commits.insert(number);
                self.tables[number] = source.tables[number];
            }
            Part::Abort => self.aborts.insert(number),
            Part::Tombstone => self.tombstones.insert(number),
            Part::Condemned => self.foreign_condemned = source.condemned,
            Part::Result => self.foreign_delete = source.result.unwrap_or_default(),
            Part::Delete => self.packs.remove(number),
        }
    }
}
