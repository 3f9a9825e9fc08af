//! All randomness of one operation.

/// Derives every random value of one operation from one seed that its caller drew.
///
/// So the engine is a function of its arguments, and the same seed over the same input gives the same blobs.
/// The format tolerates a seed that is used twice (SPEC 6 and 7 bind keys to content).
#[derive(Clone)]
pub struct Entropy {
    seed: [u8; 32],
}

impl Entropy {
    /// Wraps a seed, 32 bytes from the operating system's random source.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed }
    }

    /// The value for one purpose; `number` tells apart the values of one purpose.
    pub(crate) fn draw(&self, purpose: &str, number: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&number.to_le_bytes());
        hasher.update(purpose.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// The first half of [`Entropy::draw`].
    pub(crate) fn draw16(&self, purpose: &str, number: u64) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&self.draw(purpose, number)[..16]);
        half
    }

    /// Randomness for a new attempt at the same operation.
    pub(crate) fn attempt(&self, number: u64) -> Self {
        Self { seed: self.draw("attempt", number) }
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Entropy")
    }
}
