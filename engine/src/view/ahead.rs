//! What will be read next, told from what was read: pure.
//!
//! Three reads that are equally far apart make a *stream*, two if they touch. As many streams are followed as fit, so
//! that several readers, whose reads come mixed, are each recognised. How far is read ahead of a stream doubles each
//! time the stream has got there, and ends with the stream: reads that fit none start at nothing.

use crate::extent::Extent;
use std::collections::VecDeque;

/// Reads that are remembered to recognise new streams.
const READS_REMEMBERED: usize = 32;
/// Streams that are followed.
const STREAMS_MAX: usize = 16;
/// How far is read ahead of a new stream, in bytes; of one with gaps, as many reads.
const BYTES_FIRST: u64 = 1 << 20;
const STEPS_FIRST: u64 = 2;
/// The most reads ahead of a stream with gaps.
const STEPS_MAX: u64 = 64;
/// How far a read may be from where it was expected, in bytes or in steps: requests of one reader overtake each other.
const SLACK: u64 = 1 << 20;
const STEPS_SLACK: i64 = 16;

/// Recognises streams of reads of one disk.
#[derive(Debug)]
pub(super) struct Predictor {
    size: u64,
    /// The most bytes ahead of all streams together.
    bytes_max: u64,
    recent: VecDeque<Extent>,
    /// The one that went on last comes last.
    streams: VecDeque<Stream>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// Towards the end: everything up to `next` was read, and everything up to `asked` was predicted.
    Up { next: u64, asked: u64, window: u64 },
    /// Towards the start: everything from `next` on was read.
    Down { next: u64, asked: u64, window: u64 },
    /// Reads of about `length` bytes, each `stride` from the one before; `asked` steps behind `last` were predicted.
    Strided { last: u64, length: u64, stride: i64, asked: u64, steps: u64 },
}

impl Predictor {
    pub(super) fn new(size: u64, bytes_max: u64) -> Self {
        Self { size, bytes_max, recent: VecDeque::new(), streams: VecDeque::new() }
    }

    /// Takes note of a read, and tells what should be read now, beginning with what will be wanted first.
    pub(super) fn note(&mut self, read: Extent) -> Vec<Extent> {
        let fitting = self.streams.iter().position(|stream| stream.fits(read));
        let stream = match fitting.and_then(|position| self.streams.remove(position)) {
            Some(stream) => Some(stream),
            None => self.recognised(read),
        };
        if self.recent.len() == READS_REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(read);
        let Some(mut stream) = stream else { return Vec::new() };
        if self.streams.len() == STREAMS_MAX {
            self.streams.pop_front();
        }
        let others = u64::try_from(self.streams.len()).expect("few streams");
        let wanted = stream.advance(read, self.size, self.bytes_max / (others + 1));
        self.streams.push_back(stream);
        wanted
    }

    /// A stream that a read makes together with earlier ones.
    fn recognised(&self, read: Extent) -> Option<Stream> {
        if self.recent.iter().any(|earlier| earlier.end() == read.start) {
            return Some(Stream::Up { next: read.start, asked: read.end(), window: 0 });
        }
        if self.recent.iter().any(|earlier| earlier.start == read.end()) {
            return Some(Stream::Down { next: read.end(), asked: read.start, window: 0 });
        }
        let stride_to = |earlier: &Extent| {
            let stride = i64::try_from(read.start).ok()?.checked_sub_unsigned(earlier.start)?;
            let before = i64::try_from(earlier.start).ok()?.checked_sub(stride)?;
            (stride != 0).then_some((stride, u64::try_from(before).ok()?))
        };
        // The newest first: it is the likeliest.
        for (position, earlier) in self.recent.iter().enumerate().rev() {
            if let Some((stride, before)) = stride_to(earlier)
                && self.recent.range(..position).any(|first| first.start == before)
            {
                return Some(Stream::Strided { last: earlier.start, length: 0, stride, asked: 1, steps: 0 });
            }
        }
        None
    }
}

impl Stream {
    /// Whether a read is one that was expected, or is near it.
    fn fits(&self, read: Extent) -> bool {
        match *self {
            Self::Up { next, asked, .. } => {
                let slack = SLACK.max(asked.saturating_sub(next));
                (next.saturating_sub(slack)..=asked.saturating_add(SLACK)).contains(&read.start)
            }
            Self::Down { next, asked, .. } => {
                let slack = SLACK.max(next.saturating_sub(asked));
                (asked.saturating_sub(SLACK)..=next.saturating_add(slack)).contains(&read.end())
            }
            Self::Strided { last, stride, .. } => steps_between(last, read.start, stride).is_some(),
        }
    }

    /// Goes on with a read that fits, and tells what is to be read now of at most `bytes_max` that may be ahead.
    fn advance(&mut self, read: Extent, size: u64, bytes_max: u64) -> Vec<Extent> {
        match self {
            Self::Up { next, asked, window } => {
                *next = (*next).max(read.end());
                *asked = (*asked).max(*next);
                let left = *asked - *next;
                if left > *window / 2 {
                    return Vec::new();
                }
                *window = (*window * 2).max(BYTES_FIRST).min(bytes_max);
                let until = size.min(next.saturating_add(*window)).max(*asked);
                let wanted = Extent::between(*asked, until);
                *asked = until;
                wanted.into_iter().collect()
            }
            Self::Down { next, asked, window } => {
                *next = (*next).min(read.start);
                *asked = (*asked).min(*next);
                let left = *next - *asked;
                if left > *window / 2 {
                    return Vec::new();
                }
                *window = (*window * 2).max(BYTES_FIRST).min(bytes_max);
                let from = next.saturating_sub(*window).min(*asked);
                let wanted = Extent::between(from, *asked);
                *asked = from;
                wanted.into_iter().collect()
            }
            Self::Strided { last, length, stride, asked, steps } => {
                let gone = steps_between(*last, read.start, *stride).unwrap_or_default();
                // One that was overtaken changes nothing.
                let Ok(gone) = u64::try_from(gone) else { return Vec::new() };
                *asked = asked.saturating_sub(gone);
                *last = read.start;
                *length = (*length).max(read.length);
                if *asked > *steps / 2 {
                    return Vec::new();
                }
                let steps_max = STEPS_MAX.min(bytes_max / (*length).max(1));
                *steps = (*steps * 2).max(STEPS_FIRST).min(steps_max);
                let wanted = (*asked + 1..=*steps).map_while(|step| {
                    let start = last.checked_add_signed(stride.checked_mul(i64::try_from(step).ok()?)?)?;
                    Extent { start, length: *length }.clip(0, size)
                });
                let wanted: Vec<Extent> = wanted.collect();
                *asked = (*asked).max(*steps);
                wanted
            }
        }
    }
}

/// How many steps of a stride lie between two places, if that is a small whole number.
fn steps_between(from: u64, to: u64, stride: i64) -> Option<i64> {
    let distance = i64::try_from(to).ok()?.checked_sub_unsigned(from)?;
    let steps = distance.checked_div(stride)?;
    (distance.checked_rem(stride)? == 0 && steps.abs() <= STEPS_SLACK).then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1 << 40;

    fn extent(start: u64, length: u64) -> Extent {
        Extent { start, length }
    }

    /// What is predicted for each of some reads of one length.
    fn predicted(predictor: &mut Predictor, starts: &[u64], length: u64) -> Vec<Vec<Extent>> {
        starts.iter().map(|start| predictor.note(extent(*start, length))).collect()
    }

    #[test]
    fn reads_one_behind_the_other_are_read_ahead_of_ever_farther() {
        let mut predictor = Predictor::new(SIZE, 4 * MIB);
        let mut asked = Vec::new();
        for step in 0..64 {
            asked.extend(predictor.note(extent(step * MIB / 4, MIB / 4)));
        }
        // Nothing is asked for twice, nothing is left out, and it is never more than the bound ahead.
        assert_eq!(asked[0], extent(MIB / 2, MIB));
        assert!(asked.windows(2).all(|pair| pair[0].end() == pair[1].start), "{asked:?}");
        assert!(
            asked.last().is_some_and(|last| last.end() > 18 * MIB && last.end() <= 20 * MIB),
            "{asked:?}"
        );
        assert!(asked.iter().any(|asked| asked.length >= 2 * MIB), "{asked:?}");
    }

    #[test]
    fn reads_that_have_nothing_in_common_predict_nothing() {
        let mut predictor = Predictor::new(SIZE, 4 * MIB);
        for step in 1..1000_u64 {
            // Multiples of a number are equally far apart; these are mixed.
            let mixed = step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let start = (mixed >> 32) % (SIZE / 4096) * 4096;
            assert_eq!(predictor.note(extent(start, 4096)), [], "read {step}");
        }
    }

    #[test]
    fn reads_towards_the_start_are_read_ahead_of_too() {
        let mut predictor = Predictor::new(SIZE, 4 * MIB);
        let starts: Vec<u64> = (0..8).map(|step| 10 * MIB - step * 65536).collect();
        let asked: Vec<Extent> = predicted(&mut predictor, &starts, 65536).concat();
        assert_eq!(asked[0], extent(9 * MIB - 65536, MIB));
        assert!(asked.windows(2).all(|pair| pair[1].end() == pair[0].start), "{asked:?}");
    }

    #[test]
    fn a_stream_towards_the_start_ends_there() {
        let mut predictor = Predictor::new(SIZE, 4 * MIB);
        let asked = predicted(&mut predictor, &[3 * 65536, 2 * 65536, 65536, 0], 65536).concat();
        assert_eq!(asked, [extent(0, 2 * 65536)]);
    }

    #[test]
    fn a_stream_ends_with_the_disk() {
        let mut predictor = Predictor::new(MIB, 4 * MIB);
        let asked = predicted(&mut predictor, &[0, 65536, 2 * 65536], 65536).concat();
        assert_eq!(asked, [extent(2 * 65536, MIB - 2 * 65536)]);
    }

    #[test]
    fn three_reads_equally_far_apart_predict_more_of_them() {
        for stride in [10 * MIB, (10 * MIB).wrapping_neg()] {
            let mut predictor = Predictor::new(SIZE, 4 * MIB);
            let start = |step: u64| (500 * MIB).wrapping_add(stride.wrapping_mul(step));
            assert_eq!(predictor.note(extent(start(0), 4096)), []);
            assert_eq!(predictor.note(extent(start(1), 4096)), []);
            let mut asked = Vec::new();
            for step in 2..20 {
                asked.extend(predictor.note(extent(start(step), 4096)));
            }
            let expected: Vec<Extent> =
                (3..3 + asked.len() as u64).map(|step| extent(start(step), 4096)).collect();
            assert_eq!(asked, expected);
            assert!(asked.len() > 20, "{}", asked.len());
        }
    }

    #[test]
    fn readers_that_come_mixed_are_each_recognised() {
        let mut predictor = Predictor::new(SIZE, 64 * MIB);
        let mut asked = Vec::new();
        for step in 0..40 {
            for reader in 0..8 {
                asked.extend(predictor.note(extent(reader * (SIZE / 8) + step * 65536, 65536)));
            }
        }
        for reader in 0..8 {
            let start = reader * (SIZE / 8);
            let end = asked.iter().filter(|asked| asked.start >= start).map(|asked| asked.end());
            let end = end.filter(|end| *end < start + SIZE / 8).max();
            assert!(end.is_some_and(|end| end > start + 40 * 65536), "reader {reader}: {end:?}");
        }
    }

    #[test]
    fn requests_that_overtake_each_other_stay_one_stream() {
        let mut predictor = Predictor::new(SIZE, 4 * MIB);
        let starts = [0, 1, 3, 2, 5, 4, 7, 6, 8, 10, 9, 11].map(|step| step * 65536);
        let asked = predicted(&mut predictor, &starts, 65536).concat();
        assert!(asked.windows(2).all(|pair| pair[0].end() == pair[1].start), "{asked:?}");
        assert_eq!(predictor.streams.len(), 1);
    }

    #[test]
    fn a_reader_that_goes_elsewhere_is_not_followed_there() {
        let mut predictor = Predictor::new(SIZE, 4 * MIB);
        predicted(&mut predictor, &[0, 65536, 2 * 65536], 65536);
        assert_eq!(predictor.note(extent(SIZE / 2, 65536)), []);
        assert_eq!(predictor.note(extent(SIZE / 4, 65536)), []);
        // It begins with little again.
        let asked = predictor.note(extent(SIZE / 4 + 65536, 65536));
        assert_eq!(asked, [extent(SIZE / 4 + 2 * 65536, BYTES_FIRST)]);
    }

    #[test]
    fn any_reads_are_taken_note_of() {
        for size in [1, 4096, u64::MAX / 2] {
            let mut predictor = Predictor::new(size, 0);
            for start in [0, size - 1, size / 2, 0, size - 1, size / 2] {
                for asked in predictor.note(extent(start, 1)) {
                    assert!(asked.end() <= size);
                }
            }
        }
    }
}
