//! Mutations that follow from a name and a number, so that a failure comes back in every run.

use blake3::OutputReader;

/// Values at which arithmetic and limits go wrong.
const INTERESTING: [u64; 14] = [
    0,
    1,
    16,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0xFFFF,
    0x10_0000,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF_FFFF,
];

/// Makes the mutated inputs of one target.
pub struct Mutator<'a> {
    name: &'a str,
    seeds: &'a [Vec<u8>],
}

impl<'a> Mutator<'a> {
    pub fn new(name: &'a str, seeds: &'a [Vec<u8>]) -> Self {
        Self { name, seeds }
    }

    /// The input of that number: a seed with one to four changes.
    pub fn input(&self, number: u32) -> Vec<u8> {
        let mut choices = Choices::new(self.name, number);
        let mut input = self.seed(&mut choices).to_vec();
        for _ in 0..=choices.below(4) {
            self.change(&mut input, &mut choices);
        }
        input
    }

    fn seed(&self, choices: &mut Choices) -> &'a [u8] {
        &self.seeds[choices.below(self.seeds.len())]
    }

    fn change(&self, input: &mut Vec<u8>, choices: &mut Choices) {
        let kind = choices.below(9);
        let (start, end) = choices.range(input.len());
        match kind {
            0 | 1 if start < input.len() => input[start] ^= 1 << choices.below(8),
            2 if start < input.len() => input[start] = choices.byte(),
            3 | 4 => {
                let value = INTERESTING[choices.below(INTERESTING.len())].to_le_bytes();
                let width = 1 << choices.below(4);
                for (to, from) in input.iter_mut().skip(start).zip(&value[..width]) {
                    *to = *from;
                }
            }
            5 => drop(input.drain(start..end)),
            6 => {
                let copy = input[start..end].to_vec();
                input.splice(end..end, copy);
            }
            7 => {
                let other = self.seed(choices);
                let (other_start, other_end) = choices.range(other.len());
                input.splice(start..end, other[other_start..other_end].iter().copied());
            }
            _ => {
                let inserted: Vec<u8> = (0..=choices.below(8)).map(|_| choices.byte()).collect();
                input.splice(start..start, inserted);
            }
        }
    }
}

/// Numbers that follow from a name and a number.
struct Choices(OutputReader);

impl Choices {
    fn new(name: &str, number: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes()).update(&number.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.fill(&mut byte);
        byte[0]
    }

    /// A number below `limit`, which is not zero.
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % limit
    }

    /// A range of a string of `len` bytes, mostly a short one: fields are short.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let start = self.below(len + 1);
        let longest = if self.below(4) == 0 { len } else { 16 };
        (start, (start + self.below(longest + 1)).min(len))
    }
}
