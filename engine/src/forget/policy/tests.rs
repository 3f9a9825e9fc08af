use super::*;
use proptest::prelude::*;

const JANUARY_4_2027: u64 = 1_799_020_800_000;

fn rule(bucket: Bucket, newest: u32) -> Rule {
    Rule { bucket, limit: Limit::Newest(newest) }
}

fn within(bucket: Bucket, days: u64) -> Rule {
    Rule { bucket, limit: Limit::Within(days * DAY) }
}

fn point(number: u8, time: u64) -> Point {
    let seq = u32::from(number);
    Point {
        session: SessionId([number; 16]),
        time,
        seq,
        is_pinned: false,
        is_doubtful: false,
        is_incomplete: false,
    }
}

/// Restore points at so many hours after Monday, 4 January 2027, 00:00 UTC.
fn points(hours: &[u64]) -> Vec<Point> {
    (0..).zip(hours).map(|(number, hours)| point(number, JANUARY_4_2027 + hours * HOUR)).collect()
}

/// Why each of them stays, in words.
fn told(rules: &[Rule], points: &[Point]) -> Vec<String> {
    let policy = Policy::new(rules).expect("it keeps something");
    let words =
        |reasons: &BTreeSet<Reason>| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    reasons(&policy, points).iter().map(words).collect()
}

#[test]
fn the_newest_of_each_day_stays() {
    let points = points(&[1, 20, 25, 47, 48]);
    assert_eq!(told(&[rule(Bucket::Day, 2)], &points), ["", "", "", "daily", "daily latest"]);
}

#[test]
fn all_rules_that_keep_a_restore_point_are_told() {
    let points = points(&[0, 24, 25]);
    let rules =
        [rule(Bucket::Each, 1), rule(Bucket::Day, 2), within(Bucket::Each, 1), within(Bucket::Day, 9)];
    assert_eq!(
        told(&rules, &points),
        ["daily within-daily", "within", "last daily within within-daily latest"]
    );
}

#[test]
fn days_without_a_restore_point_do_not_count() {
    let points = points(&[0, 24 * 100, 24 * 200]);
    assert_eq!(told(&[rule(Bucket::Day, 2)], &points), ["", "daily", "daily latest"]);
}

#[test]
fn the_oldest_stays_until_there_are_as_many_as_a_rule_may_keep() {
    let points = points(&[0, 1, 24, 25]);
    let oldest = ["oldest-daily", "daily", "", "daily latest"];
    assert_eq!(told(&[rule(Bucket::Day, 3)], &points), oldest);
    assert_eq!(told(&[rule(Bucket::Day, 2)], &points), ["", "daily", "", "daily latest"]);
}

#[test]
fn a_length_of_time_counts_from_the_newest_restore_point() {
    let points = points(&[0, 24, 7 * 24]);
    assert_eq!(told(&[within(Bucket::Each, 6)], &points), ["", "within", "within latest"]);
}

#[test]
fn what_is_pinned_stays_and_keeps_its_place_in_its_bucket() {
    let mut points = points(&[1, 20, 25]);
    points[1].is_pinned = true;
    let expected = ["", "daily pinned", "daily latest"];
    assert_eq!(told(&[rule(Bucket::Day, 2)], &points), expected);
    assert_eq!(told(&[rule(Bucket::Each, 1)], &points), ["", "pinned", "last latest"]);
}

#[test]
fn a_doubtful_time_neither_ages_the_others_nor_takes_their_place() {
    let mut points = points(&[0, 24, 24 * 1000]);
    points[2].is_doubtful = true;
    let expected = ["within", "daily within", "latest doubtful-time"];
    assert_eq!(told(&[within(Bucket::Each, 7), rule(Bucket::Day, 1)], &points), expected);
}

#[test]
fn what_was_set_aside_stays_and_takes_nobodys_place() {
    let mut points = points(&[0, 24, 48]);
    points[2].is_incomplete = true;
    let expected = ["", "last latest", "incomplete"];
    assert_eq!(told(&[rule(Bucket::Each, 1)], &points), expected);
    points[1].is_incomplete = true;
    assert_eq!(told(&[rule(Bucket::Each, 1)], &points), ["last latest", "incomplete", "incomplete"]);
}

#[test]
fn what_the_next_backup_builds_on_stays_although_a_clock_went_back() {
    let points = points(&[0, 48, 24]);
    assert_eq!(told(&[rule(Bucket::Each, 1)], &points), ["", "last", "latest"]);
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    for rules in [vec![], vec![rule(Bucket::Day, 0)], vec![within(Bucket::Each, 0), rule(Bucket::Each, 0)]] {
        assert!(matches!(Policy::new(&rules), Err(ForgetError::KeepsNothing)), "{rules:?}");
    }
    assert!(Policy::new(&[rule(Bucket::Day, 0), rule(Bucket::Week, 1)]).is_ok());
}

#[test]
fn weeks_begin_on_monday() {
    let number = |hours: u64| Bucket::Week.number(JANUARY_4_2027 + hours * HOUR, 0);
    assert_eq!(number(0), number(7 * 24 - 1));
    assert_eq!(number(0) + 1, number(7 * 24));
    assert_eq!(number(0) - 1, Bucket::Week.number(JANUARY_4_2027 - 1, 0));
}

#[test]
fn months_and_years_are_those_of_the_calendar() {
    // Seconds since 1970 of a first moment, its year and month: date -u -d 2000-03-01 +%s
    for (seconds, year, of_year) in [
        (0, 1970, 1),
        (65_750_400, 1972, 2),
        (68_256_000, 1972, 3),
        (94_694_400, 1973, 1),
        (951_868_800, 2000, 3),
        (1_704_067_200, 2024, 1),
        (1_709_251_200, 2024, 3),
        (1_735_689_600, 2025, 1),
        (4_107_542_400, 2100, 3),
        (13_569_465_600, 2400, 1),
        (13_574_649_600, 2400, 3),
    ] {
        let number = |millis: u64| Bucket::Month.number(millis, 0);
        let first = seconds * 1000;
        assert_eq!(number(first), year * 12 + of_year - 1, "{year}-{of_year}");
        assert_eq!(Bucket::Year.number(first, 0), year, "{year}-{of_year}");
        if first > 0 {
            assert_eq!(number(first - 1), year * 12 + of_year - 2, "the month before {year}-{of_year}");
        }
    }
    assert_eq!(month(u64::MAX / DAY) / 12, 584_556_019);
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let bucket = prop::sample::select(Bucket::ALL.to_vec());
    let limit = prop_oneof![
        (1u32..6).prop_map(Limit::Newest),
        (1u64..900).prop_map(|days| Limit::Within(days * DAY))
    ];
    (bucket, limit).prop_map(|(bucket, limit)| Rule { bucket, limit })
}

/// Restore points of some years, some of them close together, in any order and with any numbers.
fn any_points() -> impl Strategy<Value = Vec<Point>> {
    let time = prop_oneof![0u64..30_000, 0u64..500].prop_map(|hours| JANUARY_4_2027 + hours * HOUR / 2);
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop::collection::vec((time, 0u32..40, flags), 1..60).prop_map(|points| {
        let point = |(number, (time, seq, (is_pinned, is_doubtful)))| {
            let number: u128 = number;
            Point {
                session: SessionId(number.to_be_bytes()),
                time,
                seq,
                is_pinned,
                is_doubtful,
                is_incomplete: false,
            }
        };
        (0..).zip(points).map(point).collect()
    })
}

fn kept(rules: &[Rule], points: &[Point]) -> Vec<Point> {
    let policy = Policy::new(rules).expect("it keeps something");
    let reasons = reasons(&policy, points);
    points.iter().zip(reasons).filter(|(_, reasons)| !reasons.is_empty()).map(|(point, _)| *point).collect()
}

proptest! {
    #[test]
    fn a_second_time_nothing_more_goes(
        rules in prop::collection::vec(any_rule(), 1..4),
        points in any_points(),
    ) {
        let once = kept(&rules, &points);
        prop_assert_eq!(kept(&rules, &once), once);
    }

    #[test]
    fn more_rules_and_longer_ones_keep_no_less(
        rules in prop::collection::vec(any_rule(), 1..4),
        more in any_rule(),
        points in any_points(),
    ) {
        let before = kept(&rules, &points);
        let mut longer = rules.clone();
        longer[0].limit = match longer[0].limit {
            Limit::Newest(number) => Limit::Newest(number + 1),
            Limit::Within(span) => Limit::Within(span + DAY),
        };
        for rules in [longer, [rules.as_slice(), &[more]].concat()] {
            let after = kept(&rules, &points);
            prop_assert!(before.iter().all(|point| after.contains(point)), "{:?}", rules);
        }
    }

    #[test]
    fn the_newest_the_latest_the_pinned_and_the_doubtful_stay(rule in any_rule(), points in any_points()) {
        let kept = kept(&[rule], &points);
        let newest = points.iter().filter(|point| !point.is_doubtful).map(|point| point.time).max();
        prop_assert!(newest.is_none_or(|time| kept.iter().any(|point| point.time == time)));
        let latest = points.iter().map(|point| point.seq).max();
        prop_assert!(kept.iter().any(|point| Some(point.seq) == latest));
        prop_assert!(points.iter().all(|point| !point.is_pinned && !point.is_doubtful || kept.contains(point)));
    }

    #[test]
    fn a_rule_keeps_no_more_than_it_may_and_one_in_each_bucket(rule in any_rule(), points in any_points()) {
        let policy = Policy::new(&[rule]).expect("it keeps something");
        let reasons = reasons(&policy, &points);
        let of_rule = |reason: &&Reason| {
            matches!(reason, Reason::Newest(_) | Reason::Oldest(_) | Reason::Within(_))
        };
        let kept: Vec<(&Point, &Reason)> = points
            .iter()
            .zip(&reasons)
            .flat_map(|(point, reasons)| reasons.iter().filter(of_rule).map(move |reason| (point, reason)))
            .collect();
        if let Limit::Newest(most) = rule.limit {
            prop_assert!(kept.len() <= most as usize);
        }
        let newest: Vec<&Point> = kept
            .iter()
            .filter(|(_, reason)| !matches!(reason, Reason::Oldest(_)))
            .map(|(point, _)| *point)
            .collect();
        if rule.bucket != Bucket::Each {
            let buckets: BTreeSet<u64> = newest.iter().map(|point| rule.bucket.number(point.time, 0)).collect();
            prop_assert_eq!(buckets.len(), newest.len());
        }
        // Whatever is newer in the bucket of one that stays has a doubtful time.
        for stays in newest.iter().filter(|_| rule.bucket != Bucket::Each) {
            let number = |point: &Point| rule.bucket.number(point.time, 0);
            let is_not_newer = |point: &Point| {
                point.is_doubtful || number(point) != number(stays) || point.time <= stays.time
            };
            prop_assert!(points.iter().all(is_not_newer));
        }
    }
}
