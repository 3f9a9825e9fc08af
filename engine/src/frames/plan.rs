//! Which requests fetch frames: ranges that are near each other merged.

use crate::error::EngineError;
use crate::moved::Place;
use repo_format::{Location, PACK_HEADER_LEN, PackName, PackRef};
use std::ops::Range;

/// Frames closer than this are fetched in one request: reading the gap costs less than another request.
const MERGE_GAP: u64 = 16 << 10;
/// A merged request ends here: enough to be limited by bandwidth, little enough to have several in flight.
const REQUEST_LEN_MAX: u64 = 8 << 20;

/// Frames of one pack that one request fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) pack: PackRef,
    pub(crate) range: Range<u64>,
    /// The planned locations whose frames lie in the range, in the order of these; those that share one follow each other.
    pub(crate) members: Vec<Member>,
}

/// One of the locations that were planned for, and where in a fetched pack its frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The location's position in the input.
    pub(crate) location: usize,
    pub(crate) place: Place,
}

impl Fetch {
    /// How much it fetches at most.
    pub(crate) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The stored bytes of the frames that it is for, each once.
    pub(crate) fn needed_bytes(&self) -> u64 {
        let frames = self.members.chunk_by(|a, b| a.place == b.place);
        frames.map(|places| u64::from(places[0].place.stored_len)).sum()
    }

    /// The members in groups that share a frame, which can be opened once.
    pub(crate) fn frames<'f, 'l>(
        &'f self,
        location: &'f dyn Fn(usize) -> &'l Location,
    ) -> impl Iterator<Item = &'f [Member]> {
        let payload = |member: &Member| {
            let Location { id, plain_len, .. } = location(member.location);
            (member.place, *id, *plain_len)
        };
        self.members.chunk_by(move |a, b| payload(a) == payload(b))
    }

    /// The sealed frame at a place in the fetched bytes, which are fewer than the range if the blob is short.
    pub(super) fn frame<'b>(&self, bytes: &'b mut [u8], place: Place) -> Result<&'b mut [u8], EngineError> {
        let start = usize::try_from(u64::from(place.offset) - self.range.start);
        let start = start.expect("a member lies within a range that is in memory");
        let expected = u64::from(place.offset) + u64::from(place.stored_len);
        bytes
            .get_mut(start..start + place.stored_len as usize)
            .ok_or_else(|| EngineError::Short { name: self.pack.name.blob(), expected })
    }
}

/// Where a frame is, for planning.
#[derive(Clone, Copy)]
pub(super) struct Spot<'l> {
    pub(super) pack: &'l PackRef,
    pub(super) place: Place,
    /// The position of its location.
    pub(super) location: usize,
}

impl<'l> Spot<'l> {
    /// Where a location says that it is; the first one.
    pub(super) fn named(location: &'l Location) -> Self {
        Self { pack: &location.pack, place: Place::named(location), location: 0 }
    }

    fn start(&self) -> u64 {
        u64::from(self.place.offset)
    }

    fn end(&self) -> u64 {
        self.start() + u64::from(self.place.stored_len)
    }
}

/// What may be fetched beside what is wanted, so that there are fewer requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// Every short gap: round trips are what limits.
    Short,
    /// The shortest gaps, together no more than a sixteenth of what is wanted: bytes are what limits.
    Few,
}

impl Gaps {
    /// The share of what is wanted that [`Gaps::Few`] adds at most; the headers of packs come on top.
    const FEW_ONE_IN: u64 = 16;

    /// The longest gap that is fetched. The spots are in the order of their places.
    fn longest(self, spots: &[Spot<'_>], known: impl Fn(&PackName) -> bool) -> u64 {
        if self == Self::Short {
            return MERGE_GAP;
        }
        let mut gaps = Vec::new();
        let (mut wanted, mut before): (u64, Option<(&PackName, u64)>) = (0, None);
        for spot in spots {
            let (pack, start) = (&spot.pack.name, spot.start());
            let reached = match before {
                Some((last, reached)) if last == pack => reached,
                _ if known(pack) => start,
                _ => PACK_HEADER_LEN as u64,
            };
            let end = spot.end();
            wanted += end.saturating_sub(reached.max(start));
            gaps.extend(start.checked_sub(reached).filter(|gap| (1..=MERGE_GAP).contains(gap)));
            before = Some((pack, end.max(reached)));
        }
        gaps.sort_unstable();
        let mut left = wanted / Self::FEW_ONE_IN;
        let mut longest = 0;
        for equal in gaps.chunk_by(|a, b| a == b) {
            // All of a length or none, so that what is planned does not depend on where they are.
            match left.checked_sub(equal.iter().sum()) {
                Some(rest) => (left, longest) = (rest, equal[0]),
                None => break,
            }
        }
        longest
    }
}

/// Groups frames into as few requests as is sensible; what is wanted twice is fetched once. The first request of a pack
/// that is not `known` brings the pack's header too if that is near.
pub(super) fn plan_fetches(
    mut spots: Vec<Spot<'_>>,
    gaps: Gaps,
    known: impl Fn(&PackName) -> bool,
) -> Vec<Fetch> {
    spots.sort_by(|a, b| (&a.pack.name, a.place).cmp(&(&b.pack.name, b.place)));
    let gap = gaps.longest(&spots, &known);
    let mut fetches: Vec<Fetch> = Vec::new();
    for spot in spots {
        let (start, end) = (spot.start(), spot.end());
        let member = Member { location: spot.location, place: spot.place };
        match fetches.last_mut() {
            Some(last)
                if last.pack.name == spot.pack.name
                    && start <= last.range.end + gap
                    && end.max(last.range.end) - last.range.start <= REQUEST_LEN_MAX =>
            {
                last.range.end = last.range.end.max(end);
                last.members.push(member);
            }
            last => {
                let is_first = last.is_none_or(|last| last.pack.name != spot.pack.name);
                let is_near = start <= PACK_HEADER_LEN as u64 + gap;
                let with_header = is_first && is_near && !known(&spot.pack.name);
                let start = if with_header { 0 } else { start };
                fetches.push(Fetch { pack: spot.pack.clone(), range: start..end, members: vec![member] });
            }
        }
    }
    fetches
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::{Codec, PackKind, PayloadId, SessionId, WriterId};

    fn locations(places: &[(u32, u32, u32)]) -> Vec<Location> {
        let writer = WriterId::new("host").unwrap();
        let location = |&(number, offset, stored_len): &(u32, u32, u32)| {
            let name = PackName {
                kind: PackKind::Data,
                writer: writer.clone(),
                session: SessionId([1; 16]),
                number,
            };
            let pack = PackRef { name, len: 1 << 25 };
            let (id, plain_len, codec) = (PayloadId([7; 32]), stored_len, Codec::Raw);
            Location { pack, offset, stored_len, plain_len, codec, id }
        };
        places.iter().map(location).collect()
    }

    fn spots(locations: &[Location]) -> Vec<Spot<'_>> {
        let numbered = locations.iter().enumerate();
        numbered.map(|(location, at)| Spot { location, ..Spot::named(at) }).collect()
    }

    fn ranges(places: &[(u32, u32, u32)], gaps: Gaps) -> Vec<(u32, Range<u64>)> {
        let fetches = plan_fetches(spots(&locations(places)), gaps, |_| true);
        fetches.into_iter().map(|fetch| (fetch.pack.name.number, fetch.range)).collect()
    }

    #[test]
    fn short_gaps_are_fetched_where_round_trips_limit() {
        let places = [(1, 1000, 100), (1, 1100 + (16 << 10), 100), (1, 100_000, 100), (2, 100, 1)];
        assert_eq!(
            ranges(&places, Gaps::Short),
            [(1, 1000..1200 + (16 << 10)), (1, 100_000..100_100), (2, 100..101)]
        );
    }

    #[test]
    fn few_gaps_are_the_shortest_and_cost_no_more_than_a_sixteenth() {
        // 16 000 bytes are wanted: gaps of 1000 bytes in all may be fetched.
        let places = [(1, 1000, 8000), (1, 9300, 7000), (1, 17_000, 500), (1, 18_300, 500)];
        assert_eq!(ranges(&places, Gaps::Few), [(1, 1000..16_300 + 1200), (1, 18_300..18_800)]);
        // What is wanted twice counts once.
        let twice = [places.as_slice(), &[(1, 1000, 8000)]].concat();
        assert_eq!(ranges(&twice, Gaps::Few), ranges(&places, Gaps::Few));
        // Two equal gaps that are too long together are both left out.
        assert_eq!(
            ranges(&[(1, 1000, 8000), (1, 9600, 8000), (1, 18_200, 16)], Gaps::Few),
            [(1, 1000..9000), (1, 9600..17_600), (1, 18_200..18_216)]
        );
    }

    #[test]
    fn a_header_that_is_not_known_comes_with_the_first_range_where_that_is_next_to_it() {
        let first = u32::try_from(PACK_HEADER_LEN).unwrap();
        let fetched = |offset, gaps| {
            plan_fetches(spots(&locations(&[(1, offset, 50)])), gaps, |_| false)[0].range.start
        };
        assert_eq!(fetched(first, Gaps::Few), 0);
        assert_eq!(fetched(first + 100, Gaps::Few), u64::from(first) + 100);
        assert_eq!(fetched(first + 100, Gaps::Short), 0);
    }
}
