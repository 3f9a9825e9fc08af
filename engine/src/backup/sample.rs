//! Which regions an audit looks at: pure, and a function of a seed.

use super::audit::Audit;
use crate::Extent;
use crate::extent::total_length;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// All of something, in parts per million.
pub(super) const WHOLE_PPM: u32 = 1_000_000;
/// The default share: one region in so many, at most.
const DEFAULT_ONE_IN: u64 = 100;
/// The default share: besides the first, one region for each so many regions' worth of changed bytes, at most.
const DEFAULT_CHANGED_REGIONS: u64 = 16;

/// The regions of a disk of which anything was said to be unchanged, in their order.
///
/// They are counted through, so that the memory they take does not depend on how many they are.
pub(super) struct Candidates {
    /// Neighbouring candidates, each run with the number of its first one.
    runs: Vec<(u64, Range<u64>)>,
    count: u64,
}

impl Candidates {
    /// Those of a disk with some areas (sorted, with gaps between them, within the disk).
    pub(super) fn new(areas: &[Extent], size: u64, region_len: u64) -> Self {
        let mut candidates = Self { runs: Vec::new(), count: 0 };
        let mut next = 0;
        for area in areas {
            let end = if area.end() == size { size.div_ceil(region_len) } else { area.end() / region_len };
            let whole = area.start.div_ceil(region_len)..end;
            if !whole.is_empty() {
                candidates.push(next..whole.start);
                next = whole.end;
            }
        }
        candidates.push(next..size.div_ceil(region_len));
        candidates
    }

    fn push(&mut self, regions: Range<u64>) {
        if !regions.is_empty() {
            let first = self.count;
            self.count += regions.end - regions.start;
            self.runs.push((first, regions));
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The region that is the candidate of a number.
    fn region(&self, candidate: u64) -> u64 {
        let run = self.runs.partition_point(|(first, _)| *first <= candidate) - 1;
        let (first, regions) = &self.runs[run];
        regions.start + (candidate - first)
    }
}

/// How many of the candidates are looked at first.
pub(super) fn sample_len(audit: Audit, candidates: u64, changed_bytes: u64, region_len: u64) -> u64 {
    match audit {
        Audit::Off => 0,
        Audit::Default { .. } => {
            let by_changes = 1 + changed_bytes / (DEFAULT_CHANGED_REGIONS * region_len);
            candidates.div_ceil(DEFAULT_ONE_IN).min(by_changes)
        }
        Audit::Share { ppm, .. } => {
            let parts = u128::from(candidates) * u128::from(ppm);
            u64::try_from(parts.div_ceil(u128::from(WHOLE_PPM))).expect("a share is not more than all")
        }
    }
}

/// The regions that an audit looks at of a disk with some areas (sorted, with gaps between them, within the disk), ascending.
pub(crate) fn audited_regions(
    audit: Audit,
    areas: &[Extent],
    size: u64,
    region_len: u64,
    disk: &str,
) -> Vec<u64> {
    let candidates = Candidates::new(areas, size, region_len);
    let at_once = sample_len(audit, candidates.count(), total_length(areas), region_len);
    Sampler::new(candidates, at_once, audit.seed().unwrap_or_default(), disk).first()
}

/// The candidates in a random order without repetition: a shuffle of Fisher and Yates of which only the places that
/// differ from their numbers are kept.
struct RandomOrder {
    key: [u8; 32],
    count: u64,
    drawn: u64,
    displaced: HashMap<u64, u64>,
}

impl RandomOrder {
    fn next(&mut self) -> Option<u64> {
        if self.drawn == self.count {
            return None;
        }
        let place = self.drawn;
        let other = place + self.below(self.count - place);
        let at_place = self.displaced.remove(&place).unwrap_or(place);
        self.drawn += 1;
        if other == place {
            return Some(at_place);
        }
        Some(self.displaced.insert(other, at_place).unwrap_or(other))
    }

    /// The next random number below a bound: each one is as probable as any other to within `bound` in 2^64.
    fn below(&self, bound: u64) -> u64 {
        let hash = blake3::keyed_hash(&self.key, &self.drawn.to_le_bytes());
        let (half, _) = hash.as_bytes().split_at(8);
        let number = u64::from_le_bytes(half.try_into().expect("8 bytes"));
        u64::try_from((u128::from(number) * u128::from(bound)) >> 64).expect("it is below the bound")
    }
}

/// Chooses regions, round by round.
pub(super) struct Sampler {
    candidates: Candidates,
    order: RandomOrder,
    /// How many are drawn in each round.
    at_once: u64,
    /// Candidates that were chosen, by their numbers.
    chosen: HashSet<u64>,
}

impl Sampler {
    /// For `at_once` of the candidates; disks with different names get different choices from one seed.
    pub(super) fn new(candidates: Candidates, at_once: u64, seed: u64, disk: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(disk.as_bytes());
        let (key, count) = (*hasher.finalize().as_bytes(), candidates.count());
        let order = RandomOrder { key, count, drawn: 0, displaced: HashMap::new() };
        Self { candidates, order, at_once, chosen: HashSet::new() }
    }

    /// The first regions to look at, ascending.
    pub(super) fn first(&mut self) -> Vec<u64> {
        let mut round = BTreeSet::new();
        self.draw(&mut round);
        self.regions(round)
    }

    /// What to look at after some regions turned out to be wrong: their neighbours, and as many others as at first.
    pub(super) fn further(&mut self, wrong: &[u64]) -> Vec<u64> {
        let mut round = BTreeSet::new();
        if !wrong.is_empty() {
            for region in wrong {
                let number = self.number(*region);
                let before = number.checked_sub(1);
                let behind = Some(number + 1).filter(|number| *number < self.candidates.count());
                for neighbour in before.into_iter().chain(behind) {
                    if self.chosen.insert(neighbour) {
                        round.insert(neighbour);
                    }
                }
            }
            self.draw(&mut round);
        }
        self.regions(round)
    }

    /// How many regions were chosen so far.
    pub(super) fn chosen(&self) -> u64 {
        self.chosen.len() as u64
    }

    /// How many there are to choose from.
    pub(super) fn of(&self) -> u64 {
        self.candidates.count()
    }

    fn draw(&mut self, round: &mut BTreeSet<u64>) {
        let mut left = self.at_once;
        while left > 0
            && let Some(candidate) = self.order.next()
        {
            if self.chosen.insert(candidate) {
                round.insert(candidate);
                left -= 1;
            }
        }
    }

    fn regions(&self, round: BTreeSet<u64>) -> Vec<u64> {
        round.into_iter().map(|candidate| self.candidates.region(candidate)).collect()
    }

    /// The number of a region that is a candidate.
    fn number(&self, region: u64) -> u64 {
        let run = self.candidates.runs.partition_point(|(_, regions)| regions.start <= region) - 1;
        let (first, regions) = &self.candidates.runs[run];
        first + (region - regions.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, length: u64) -> Extent {
        Extent { start, length }
    }

    fn all(candidates: &Candidates) -> Vec<u64> {
        (0..candidates.count()).map(|number| candidates.region(number)).collect()
    }

    fn share(ppm: u32) -> Audit {
        Audit::Share { ppm, seed: None }
    }

    #[test]
    fn regions_that_changed_as_a_whole_are_no_candidates() {
        let of = |areas: &[Extent], size| all(&Candidates::new(areas, size, 10));
        assert_eq!(of(&[], 35), [0, 1, 2, 3]);
        assert_eq!(of(&[extent(10, 20)], 35), [0, 3]);
        assert_eq!(of(&[extent(9, 20)], 35), [0, 2, 3]);
        assert_eq!(of(&[extent(11, 9), extent(30, 4)], 35), [0, 1, 2, 3]);
        assert_eq!(of(&[extent(11, 9), extent(30, 5)], 35), [0, 1, 2]);
        assert!(of(&[extent(0, 35)], 35).is_empty());
    }

    #[test]
    fn the_default_share_is_a_hundredth_and_never_much_more_than_the_changes() {
        let of =
            |candidates, changed| sample_len(Audit::Default { seed: None }, candidates, changed, 1 << 24);
        let region = 1 << 24;
        assert_eq!([of(0, 0), of(1, 0), of(100, 0), of(65_536, 0)], [0, 1, 1, 1]);
        assert_eq!([of(65_536, 15 * region), of(65_536, 16 * region), of(65_536, 1 << 40)], [1, 2, 656]);
    }

    #[test]
    fn a_share_is_rounded_up_to_whole_regions() {
        let of = |ppm| sample_len(share(ppm), 200, 0, 1);
        assert_eq!([of(0), of(1), of(5000), of(5001), of(999_999), of(WHOLE_PPM)], [0, 1, 1, 2, 200, 200]);
        assert_eq!(sample_len(share(WHOLE_PPM), u64::MAX, 0, 1), u64::MAX);
    }

    #[test]
    fn a_whole_order_has_every_candidate_once() {
        for count in [0, 1, 2, 3, 50, 1000] {
            let mut order = RandomOrder { key: [3; 32], count, drawn: 0, displaced: HashMap::new() };
            let mut drawn: Vec<u64> = std::iter::from_fn(|| order.next()).collect();
            assert!(count < 50 || !drawn.is_sorted(), "it is no random order");
            drawn.sort_unstable();
            assert_eq!(drawn, (0..count).collect::<Vec<_>>());
            assert!(order.displaced.is_empty());
        }
    }

    #[test]
    fn every_pair_of_regions_is_chosen_about_equally_often() {
        let mut times = HashMap::new();
        for seed in 0..20_000 {
            let first = Sampler::new(Candidates::new(&[], 6, 1), 2, seed, "disk0").first();
            *times.entry(first).or_insert(0_u32) += 1;
        }
        // 15 pairs, each expected 1333 times, with a standard deviation of 35.
        assert_eq!(times.len(), 15);
        assert!(times.values().all(|times| times.abs_diff(1333) < 4 * 35), "{times:?}");
    }

    #[test]
    fn disks_of_one_backup_get_choices_of_their_own() {
        let first = |disk| Sampler::new(Candidates::new(&[], 1 << 20, 1), 8, 7, disk).first();
        assert_eq!(first("a"), first("a"));
        assert_ne!(first("a"), first("b"));
    }

    #[test]
    fn what_is_wrong_is_followed_to_both_sides_over_regions_that_changed() {
        // Region 2 changed as a whole; of the others none is drawn.
        let mut sampler = Sampler::new(Candidates::new(&[extent(20, 10)], 60, 10), 0, 1, "disk0");
        assert!(sampler.first().is_empty());
        assert_eq!(sampler.further(&[3]), [1, 4]);
        assert_eq!(sampler.further(&[1]), [0, 3]);
        assert!(sampler.further(&[0]).is_empty());
        assert!(sampler.further(&[]).is_empty());
        assert_eq!((sampler.chosen(), sampler.of()), (4, 5));
    }

    #[test]
    fn each_round_draws_as_many_as_the_first_until_all_are_chosen() {
        let mut sampler = Sampler::new(Candidates::new(&[], 100, 10), 3, 1, "disk0");
        let mut wrong = sampler.first();
        assert_eq!(wrong.len(), 3);
        let mut seen = wrong.clone();
        while !wrong.is_empty() {
            wrong = sampler.further(&wrong[..1]);
            seen.extend(&wrong);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
    }
}
