//! What happens to which request.

use super::fault::{Fault, Kind, Refusal, Request};
use super::sockets::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// What a client that repeats what failed gets over, and that does not make it wait: as likely each.
const SURVIVABLE: [Kind; 15] = [
    Kind::AnswerLost,
    Kind::ResetAtOnce,
    Kind::RequestCut,
    Kind::AnswerReset,
    Kind::AnswerTruncated,
    Kind::Refused(Refusal::SERVER_BUSY),
    Kind::Refused(Refusal::SERVER_BUSY.retry_after(0)),
    Kind::Refused(Refusal::OPERATION_TIMED_OUT),
    Kind::Refused(Refusal::TOO_MANY_REQUESTS),
    Kind::Refused(Refusal::REQUEST_TIMEOUT),
    Kind::Refused(Refusal::BAD_GATEWAY),
    Kind::RefusedAfter(Refusal::OPERATION_TIMED_OUT),
    Kind::AnswerFlipped,
    Kind::Duplicated,
    Kind::AppliedLater,
];

/// Positions are drawn up to 2 to this power, each power as likely: in small bodies and in large ones.
const POSITION_BITS_MAX: u64 = 27;

/// The most requests that something is applied after.
const FURTHER_MAX: u64 = 4;

/// How a drawn slow answer drips: seldom enough that a large one ends.
const DRIP_LEN: usize = 64 << 10;
const DRIP_PAUSE: Duration = Duration::from_millis(2);

/// Decides what is done to each request.
pub struct Plan(Box<dyn Fn(&Request) -> Fault + Send + Sync>);

impl Plan {
    /// Asks a function, which is called once for every request, in the order of their numbers on each connection.
    pub fn new(choose: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Self {
        Self(Box::new(choose))
    }

    /// Lets everything pass.
    #[must_use]
    pub fn forward() -> Self {
        Self::new(|_| Fault::Forward)
    }

    /// Does something to the request of a number, the first is 0, and lets all others pass.
    #[must_use]
    pub fn once(number: u64, fault: Fault) -> Self {
        Self::new(move |request| if request.number == number { fault.clone() } else { Fault::Forward })
    }

    /// Does something to a share of the requests, 0 to 1.
    #[must_use]
    pub fn random(seed: u64, share: f64) -> RandomPlan {
        let weights = SURVIVABLE.map(|kind| (kind, 1)).to_vec();
        RandomPlan {
            seed,
            share,
            weights,
            state: Mutex::new(Drawn { left: u64::MAX, seen: BTreeMap::new() }),
        }
    }

    pub(crate) fn choose(&self, request: &Request) -> Fault {
        (self.0)(request)
    }
}

impl From<RandomPlan> for Plan {
    fn from(random: RandomPlan) -> Self {
        Self::new(move |request| random.draw(request))
    }
}

/// Draws what is done to each request: faults that a client which repeats requests survives, unless it is told others.
///
/// What the n-th request of a method and a path meets depends on the seed and on nothing else, so that it is the same
/// in every run, in whatever order requests on several connections come.
pub struct RandomPlan {
    seed: u64,
    share: f64,
    weights: Vec<(Kind, u32)>,
    state: Mutex<Drawn>,
}

struct Drawn {
    /// Faults that may still be drawn.
    left: u64,
    /// How many requests there were by what they are drawn for.
    seen: BTreeMap<(String, String), u64>,
}

impl RandomPlan {
    /// Draws these kinds of faults, each as often as its weight beside the others, where it concerns the request.
    #[must_use]
    pub fn weights(self, weights: &[(Kind, u32)]) -> Self {
        Self { weights: weights.to_vec(), ..self }
    }

    /// Draws so many faults at most, then none. Which ones are the last depends on the order of requests.
    #[must_use]
    pub fn at_most(self, faults: u64) -> Self {
        lock(&self.state).left = faults;
        self
    }

    /// Draws what is done to a request.
    pub fn draw(&self, request: &Request) -> Fault {
        let mut state = lock(&self.state);
        let count = state.seen.entry((request.method.clone(), request.path.clone())).or_default();
        let mut draws = Draws::new(self.seed, request, *count);
        *count += 1;
        if state.left == 0 || draws.share() >= self.share {
            return Fault::Forward;
        }
        let Some(kind) = self.kind(request, &mut draws) else { return Fault::Forward };
        state.left -= 1;
        fault(kind, &mut draws)
    }

    fn kind(&self, request: &Request, draws: &mut Draws) -> Option<Kind> {
        let concerning = || self.weights.iter().filter(|(kind, _)| kind.concerns(request));
        let all = concerning().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = draws.below(all)?;
        for (kind, weight) in concerning() {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return Some(*kind),
            }
        }
        unreachable!("the weights are as much as their sum")
    }
}

/// Draws the numbers of a fault.
fn fault(kind: Kind, draws: &mut Draws) -> Fault {
    match kind {
        Kind::AnswerLost => Fault::AnswerLost,
        Kind::ResetAtOnce => Fault::ResetAtOnce,
        Kind::RequestCut => Fault::RequestCut { after: draws.position() },
        Kind::AnswerReset => Fault::AnswerReset { after: draws.position() },
        Kind::AnswerTruncated => Fault::AnswerTruncated { after: draws.position() },
        Kind::Refused(refusal) => Fault::Refused(refusal),
        Kind::RefusedAfter(refusal) => Fault::RefusedAfter(refusal),
        Kind::Stuck => Fault::Stuck,
        Kind::StuckInAnswer => Fault::StuckInAnswer { after: draws.position() },
        Kind::Slow => Fault::Slow { drip: DRIP_LEN, pause: DRIP_PAUSE },
        Kind::AnswerFlipped => Fault::AnswerFlipped { at: draws.position() },
        Kind::RequestFlipped => Fault::RequestFlipped { at: draws.position() },
        Kind::Duplicated => Fault::Duplicated,
        Kind::AppliedLater => Fault::AppliedLater { further: draws.below(FURTHER_MAX + 1) },
    }
}

/// Numbers that look random, by the generator `SplitMix64` (Steele, Lea, Flood 2014).
struct Draws(u64);

impl Draws {
    /// Those for the request of a method and a path that so many came before.
    fn new(seed: u64, request: &Request, count: u64) -> Self {
        let mut draws = Self(seed);
        for byte in request.method.bytes().chain([0]).chain(request.path.bytes()) {
            draws.0 = draws.next() ^ u64::from(byte);
        }
        draws.0 = draws.next() ^ count;
        draws
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below another, if there is one. Small ones are a little likelier, too little to count.
    fn below(&mut self, end: u64) -> Option<u64> {
        self.next().checked_rem(end)
    }

    /// At least 0, less than 1.
    fn share(&mut self) -> f64 {
        f64::from((self.next() >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
    }

    fn position(&mut self) -> u64 {
        let bits = self.next() % (POSITION_BITS_MAX + 1);
        self.next() & ((1 << bits) - 1)
    }
}
