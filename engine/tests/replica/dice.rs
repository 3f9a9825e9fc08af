//! Numbers that a seed decides.

pub struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.thrown += 1;
        let hash = blake3::hash(&[self.seed.to_le_bytes(), self.thrown.to_le_bytes()].concat());
        let number = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"));
        usize::try_from(number % limit as u64).expect("below a limit")
    }

    /// One of some items, which must not be none.
    pub fn one_of<'i, T>(&mut self, items: &'i [T]) -> &'i T {
        &items[self.below(items.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}
