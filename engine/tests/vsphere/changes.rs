//! What changed, from any pages: exactly what honest ones tell, and a doubt for all others.

use keepstone_engine::Extent;
use keepstone_engine::vsphere::changes::{
    ChangeId, ChangedPage, CurrentDisk, Doubt, RawArea, RecordedDisk, Tracking, collect_changes, plan_read,
};
use proptest::prelude::*;
use std::convert::Infallible;

fn raw(start: u64, end: u64) -> RawArea {
    let number = |value: u64| i64::try_from(value).unwrap();
    RawArea { start: number(start), length: number(end - start) }
}

fn page(start: u64, end: u64, areas: Vec<RawArea>) -> ChangedPage {
    let RawArea { start: start_offset, length } = raw(start, end);
    ChangedPage { start_offset, length, areas }
}

/// Collects from pages that are given in order, and tells what was asked.
fn collect(capacity: u64, pages: Vec<ChangedPage>) -> (Result<Vec<Extent>, Doubt>, Vec<u64>) {
    let mut asked = Vec::new();
    let mut pages = pages.into_iter();
    let collected = collect_changes(capacity, |offset| {
        asked.push(offset);
        Ok::<_, Infallible>(pages.next().expect("no more is asked for than there is"))
    });
    (collected.unwrap_or_else(|never| match never {}), asked)
}

/// A disk's length, where its pages end, and which of its bytes changed: one bit for each of up to 400 bytes.
fn history() -> impl Strategy<Value = (u64, Vec<u64>, Vec<bool>)> {
    (1_usize..400).prop_flat_map(|capacity| {
        let ends = prop::collection::btree_set(1..=capacity as u64, 0..12);
        let changed = prop_oneof![
            prop::collection::vec(prop::bool::weighted(0.5), capacity),
            prop::collection::vec(prop::bool::weighted(0.05), capacity),
            prop::collection::vec(prop::bool::weighted(0.97), capacity),
        ];
        (ends, changed).prop_map(move |(mut ends, changed)| {
            ends.insert(capacity as u64);
            (capacity as u64, ends.into_iter().collect(), changed)
        })
    })
}

/// The runs of changed bytes between two places.
fn runs(changed: &[bool], start: u64, end: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for at in (start..end).filter(|at| changed[usize::try_from(*at).unwrap()]) {
        match runs.last_mut() {
            Some((_, last)) if *last == at => *last += 1,
            _ => runs.push((at, at + 1)),
        }
    }
    runs
}

/// What an honest server answers. Every other run is told in two areas that touch, which is allowed.
fn honest_pages(ends: &[u64], changed: &[bool]) -> Vec<ChangedPage> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let mut pages = Vec::new();
    for (start, end) in starts.zip(ends.iter().copied()) {
        let mut areas = Vec::new();
        for (position, (first, last)) in runs(changed, start, end).into_iter().enumerate() {
            let middle = first + (last - first) / 2;
            if position % 2 == 1 && middle > first {
                areas.extend([raw(first, middle), raw(middle, last)]);
            } else {
                areas.push(raw(first, last));
            }
        }
        pages.push(page(start, end, areas));
    }
    pages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn honest_pages_of_any_lengths_give_exactly_what_changed((capacity, ends, changed) in history()) {
        let (collected, asked) = collect(capacity, honest_pages(&ends, &changed));
        let expected: Vec<Extent> = runs(&changed, 0, capacity)
            .into_iter()
            .map(|(start, end)| Extent { start, length: end - start })
            .collect();
        prop_assert_eq!(collected, Ok(expected));
        let starts: Vec<u64> = std::iter::once(0).chain(ends.iter().copied().filter(|end| *end < capacity)).collect();
        prop_assert_eq!(asked, starts);
    }

    #[test]
    fn any_single_violation_is_a_doubt(
        (capacity, ends, changed) in history(),
        violation in 0_usize..12,
        at in any::<prop::sample::Index>(),
        area in any::<prop::sample::Index>(),
        by in 1_i64..500,
    ) {
        let mut pages = honest_pages(&ends, &changed);
        let at = at.index(pages.len());
        let last = at + 1 == pages.len();
        let page = &mut pages[at];
        let area = (!page.areas.is_empty()).then(|| area.index(page.areas.len()));
        let applied = match (violation, area) {
            (0, _) => { page.start_offset += by; true }
            (1, _) => { page.start_offset -= by; true }
            (2, _) => { page.length = 0; page.areas.clear(); true }
            (3, _) => { page.length = -by; page.areas.clear(); true }
            // A page that ends later than the disk; before the last one it has to reach that far.
            (4, _) if last => { page.length += by; true }
            (5, _) => { page.length = i64::MAX; true }
            (6, Some(area)) => { page.areas[area].length = 0; true }
            (7, Some(area)) => { page.areas[area].length = -by; true }
            (8, Some(area)) => { page.areas[area].start = page.start_offset - by; true }
            (9, Some(area)) => { page.areas[area].length += page.length; true }
            (10, Some(area)) => { let twice = page.areas[area]; page.areas.insert(area, twice); true }
            (11, Some(area)) => { page.areas[area].start = i64::MAX; page.areas[area].length = i64::MAX; true }
            _ => false,
        };
        prop_assume!(applied);
        let (collected, asked) = collect(capacity, pages);
        prop_assert!(collected.is_err(), "{:?}", collected);
        // It is seen at once: nothing is asked after the page that is wrong.
        prop_assert_eq!(asked.len(), at + 1);
    }

    #[test]
    fn areas_in_another_order_are_a_doubt((capacity, ends, changed) in history(), at in any::<prop::sample::Index>()) {
        let mut pages = honest_pages(&ends, &changed);
        let with_two: Vec<usize> = (0..pages.len()).filter(|at| pages[*at].areas.len() > 1).collect();
        prop_assume!(!with_two.is_empty());
        let at = *at.get(&with_two);
        pages[at].areas.reverse();
        let (collected, _) = collect(capacity, pages);
        prop_assert!(matches!(collected, Err(Doubt::AreasOutOfOrder { .. })), "{:?}", collected);
    }

    #[test]
    fn hostile_pages_end_in_a_doubt_or_in_extents_within_the_disk(
        capacity in prop_oneof![0_u64..1000, any::<u64>(), Just(u64::MAX)],
        lies in prop::collection::vec(
            (hostile_number(), hostile_number(), prop::collection::vec((hostile_number(), hostile_number()), 0..5)),
            1..20,
        ),
        follows in any::<bool>(),
    ) {
        let mut lies = lies.into_iter().cycle();
        let mut asked = 0;
        let collected = collect_changes(capacity, |offset| {
            asked += 1;
            assert!(offset < capacity, "it was asked at {offset} of {capacity}");
            let (start, length, areas) = lies.next().unwrap();
            let start_offset = if follows { i64::try_from(offset).unwrap_or(start) } else { start };
            let areas = areas.into_iter().map(|(start, length)| RawArea { start, length }).collect();
            Ok::<_, Infallible>(ChangedPage { start_offset, length, areas })
        });
        if let Ok(extents) = collected.unwrap_or_else(|never| match never {}) {
            for pair in extents.windows(2) {
                prop_assert!(pair[0].end() < pair[1].start);
            }
            prop_assert!(extents.iter().all(|extent| extent.length > 0 && extent.end() <= capacity));
        }
        prop_assert!(asked <= 100_000);
    }
}

fn hostile_number() -> impl Strategy<Value = i64> {
    prop_oneof![-2_i64..200, any::<i64>(), Just(i64::MAX), Just(i64::MIN), Just(0)]
}

#[test]
fn a_page_without_areas_does_not_end_the_collection() {
    let pages = vec![page(0, 10, vec![]), page(10, 30, vec![raw(12, 14)]), page(30, 40, vec![])];
    let (collected, asked) = collect(40, pages);
    assert_eq!(collected, Ok(vec![Extent { start: 12, length: 2 }]));
    assert_eq!(asked, [0, 10, 30]);
}

#[test]
fn a_disk_without_bytes_is_not_asked_about() {
    assert_eq!(collect(0, vec![]), (Ok(vec![]), vec![]));
}

#[test]
fn pages_without_end_are_a_doubt() {
    let mut asked = 0_u64;
    let collected = collect_changes(u64::MAX, |offset| {
        asked += 1;
        Ok::<_, Infallible>(page(offset, offset + 1, vec![]))
    });
    assert_eq!(collected, Ok(Err(Doubt::TooManyPages)));
    assert_eq!(asked, 100_000);
}

#[test]
fn areas_without_end_are_a_doubt() {
    let mut areas = 0_u64;
    let collected = collect_changes(u64::MAX, |offset| {
        let some = 100_000;
        areas += some;
        let every_other = (0..some).map(|number| raw(offset + 2 * number, offset + 2 * number + 1)).collect();
        Ok::<_, Infallible>(page(offset, offset + 2 * some, every_other))
    });
    assert_eq!(collected, Ok(Err(Doubt::TooManyAreas)));
    assert_eq!(areas, 4_200_000);
}

#[test]
fn what_the_question_fails_with_is_the_result() {
    let failed = collect_changes(10, |_| Err::<ChangedPage, _>("no answer"));
    assert_eq!(failed, Err("no answer"));
}

#[test]
fn doubts_about_pages_say_what_is_wrong() {
    let cases = [
        (page(1, 10, vec![]), "asked for changes from 0 on, the server tells of those from 1 on"),
        (page(0, 0, vec![]), "the server tells of 0 bytes at 0"),
        (page(0, 101, vec![]), "the server tells of 101 bytes at 0, beyond the disk's end at 100"),
        (page(0, 50, vec![raw(7, 7)]), "a changed area at 7 has 0 bytes"),
        (
            page(0, 50, vec![raw(49, 51)]),
            "a changed area of 2 bytes at 49 is outside of the 50 bytes at 0 that were told of",
        ),
        (
            page(0, 50, vec![raw(10, 20), raw(19, 30)]),
            "a changed area begins at 19, before the end of the one before it at 20",
        ),
    ];
    for (page, expected) in cases {
        let (collected, _) = collect(100, vec![page]);
        assert_eq!(collected.unwrap_err().to_string(), expected);
    }
}

const EPOCH: &str = "52 de a8 64 53 44 f0 f6-b7 46 a9 f9 e8 8f 13 1b";

#[test]
fn a_change_id_is_read_with_any_spacing_and_kept_as_it_was() {
    let text = format!("{EPOCH}/5");
    let id: ChangeId = text.parse().unwrap();
    let epoch =
        [0x52, 0xde, 0xa8, 0x64, 0x53, 0x44, 0xf0, 0xf6, 0xb7, 0x46, 0xa9, 0xf9, 0xe8, 0x8f, 0x13, 0x1b];
    assert_eq!((id.epoch(), id.sequence(), id.as_str()), (epoch, 5, text.as_str()));
    for same in
        ["52dea8645344f0f6b746a9f9e88f131b/18446744073709551615", "52DEA864-5344-F0F6-B746-A9F9E88F131B/0"]
    {
        let id: ChangeId = same.parse().unwrap();
        assert_eq!((id.epoch(), id.as_str()), (epoch, same));
    }
}

#[test]
fn what_is_no_change_id_is_refused() {
    let mut texts: Vec<String> = ["", "*", "/", "/5", "52/5"].map(str::to_owned).into();
    texts.extend(
        ["", "/", "/-1", "/+1", "/5/6", "/ 5", "/5a", "/18446744073709551616"]
            .map(|end| format!("{EPOCH}{end}")),
    );
    texts.push(format!("{EPOCH} 00/5"));
    texts.push(format!("{}/5", EPOCH.replace(' ', ":")));
    texts.push(format!("{}/5", EPOCH.replacen("de a8", "d ea8", 1)));
    texts.push(format!("{}/5", EPOCH.replacen("de", "dg", 1)));
    texts.push(format!("{}/5", EPOCH.replacen("de", "é", 1)));
    for text in texts {
        assert!(text.parse::<ChangeId>().is_err(), "{text:?}");
    }
}

fn recorded() -> RecordedDisk {
    RecordedDisk {
        size: 1 << 30,
        change_id: Some(format!("{EPOCH}/5")),
        disk_uuid: Some("6000C29a".to_owned()),
        host_build: Some("24022510".to_owned()),
    }
}

fn current() -> CurrentDisk {
    let RecordedDisk { size, change_id: _, disk_uuid, host_build } = recorded();
    let change_id = Some(format!("{EPOCH}/6"));
    CurrentDisk { size, change_id, disk_uuid, host_build, tracking: Tracking::On }
}

#[test]
fn a_later_change_id_of_the_same_disk_is_counted_from_the_recorded_one() {
    let since = plan_read(&recorded(), &current()).unwrap();
    assert_eq!(since.as_str(), format!("{EPOCH}/5"));
}

#[test]
fn each_difference_is_a_doubt_of_its_own() {
    let other = Some("52 de a8 64 53 44 f0 f6-b7 46 a9 f9 e8 8f 13 1c/6".to_owned());
    let reverted = |number: u64| CurrentDisk { change_id: Some(format!("{EPOCH}/{number}")), ..current() };
    let strange = "5 tons of flax".to_owned();
    let cases = [
        (recorded(), CurrentDisk { tracking: Tracking::Off, ..current() }, Doubt::TrackingOff),
        (
            recorded(),
            CurrentDisk { tracking: Tracking::BegunWithSnapshots, ..current() },
            Doubt::TrackingBegunWithSnapshots,
        ),
        (RecordedDisk { change_id: None, ..recorded() }, current(), Doubt::NoRecordedChangeId),
        (recorded(), CurrentDisk { change_id: None, ..current() }, Doubt::NoChangeId),
        (
            RecordedDisk { change_id: Some(strange.clone()), ..recorded() },
            current(),
            Doubt::StrangeChangeId { text: strange.clone() },
        ),
        (
            recorded(),
            CurrentDisk { change_id: Some(strange.clone()), ..current() },
            Doubt::StrangeChangeId { text: strange },
        ),
        (recorded(), CurrentDisk { change_id: other, ..current() }, Doubt::TrackingReset),
        (recorded(), reverted(4), Doubt::Reverted { recorded: 5, current: 4 }),
        (recorded(), reverted(5), Doubt::Reverted { recorded: 5, current: 5 }),
        (
            recorded(),
            CurrentDisk { size: (1 << 30) + 512, ..current() },
            Doubt::Resized { recorded: 1 << 30, current: (1 << 30) + 512 },
        ),
        (recorded(), CurrentDisk { disk_uuid: Some("6000C29b".to_owned()), ..current() }, Doubt::OtherDisk),
        (recorded(), CurrentDisk { disk_uuid: None, ..current() }, Doubt::OtherDisk),
        (
            recorded(),
            CurrentDisk { host_build: Some("24585383".to_owned()), ..current() },
            Doubt::OtherHostBuild {
                recorded: Some("24022510".to_owned()),
                current: Some("24585383".to_owned()),
            },
        ),
        (
            recorded(),
            CurrentDisk { host_build: None, ..current() },
            Doubt::OtherHostBuild { recorded: Some("24022510".to_owned()), current: None },
        ),
    ];
    for (recorded, current, expected) in cases {
        assert_eq!(plan_read(&recorded, &current), Err(expected));
    }
}
