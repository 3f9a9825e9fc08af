//! Sessions of no VM: those of pruners, which store indexes or pack again what packs hold, and those of repairs.
//!
//! Their decisions are named after the empty VM name, which no VM has (SPEC section 9).

use crate::condemned::Condemned;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::observer::{Event, Observer, tell};
use crate::repository::Repository;
use crate::session::{create, newest_generation, next_seq};
use crate::snapshots;
use repo_format::{Abort, AbortBy, Decision, DecisionName, Intent, SessionId, WriterId, decisions_prefix};

/// Who begins a session of no VM, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning<'a> {
    pub(crate) writer: &'a WriterId,
    /// Now, milliseconds since 1970.
    pub(crate) time: u64,
    /// The program and its version: at most 255 bytes.
    pub(crate) program: &'a str,
    /// Randomness of this session alone.
    pub(crate) entropy: &'a Entropy,
}

/// A session of no VM that is not decided.
#[derive(Debug)]
pub(crate) struct Unnamed {
    pub(crate) decision: DecisionName,
    /// Seen after the intent: what must not be referenced.
    pub(crate) condemned: Condemned,
}

impl Unnamed {
    /// W1 and W2: the intent, then what is condemned.
    ///
    /// # Errors
    /// A failing store; a damaged generation or record. A session that was begun by then is ended if that is possible.
    pub(crate) fn begin(
        repository: &Repository<'_>,
        beginning: Beginning<'_>,
        observer: &dyn Observer,
    ) -> Result<Self, EngineError> {
        let Beginning { writer, time, entropy, .. } = beginning;
        let session = SessionId(entropy.draw16("session id", 0));
        let vm = repository.keys().vm_tag("");
        let seq = next_seq(&repository.list(&decisions_prefix(vm))?);
        let decision = DecisionName { vm, writer: writer.clone(), seq, session };
        let generation = newest_generation(repository)?;
        let intent = Intent { session, decision: decision.clone(), generation, time };
        tell(observer, Event::SessionBegins(session))?;
        let (name, bytes) = intent.seal(repository.keys(), entropy.draw("intent salt", 0));
        create(repository.store(), &name, &bytes)?;
        let mut begun = Self { decision, condemned: Condemned::default() };
        match Condemned::load(repository) {
            Ok(condemned) => {
                begun.condemned = condemned;
                Ok(begun)
            }
            Err(error) => {
                // An offer only: the failure may be the store's, and an undecided session harms nothing.
                let _undecided = begun.abort(repository, beginning);
                Err(error)
            }
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.decision.session
    }

    /// Ends the session: it made no snapshot and packed nothing again. Its indexes stay in use.
    pub(crate) fn abort(
        &self,
        repository: &Repository<'_>,
        beginning: Beginning<'_>,
    ) -> Result<(), EngineError> {
        let abort = Abort {
            session: self.session(),
            time: beginning.time,
            program: beginning.program.to_owned(),
            by: AbortBy::Writer,
        };
        let salt = beginning.entropy.draw("abort salt", 0);
        let bytes = Decision::Abort(abort).seal(repository.keys(), &self.decision, salt);
        match create(repository.store(), &self.decision.blob(), &bytes) {
            Err(EngineError::Twin { name }) => match snapshots::read(repository, &self.decision)? {
                // A pruner did not wait for it.
                Some(Decision::Abort(_)) => Ok(()),
                _ => Err(EngineError::Twin { name }),
            },
            result => result,
        }
    }
}
