//! Which restore points of a VM stay: everything that a policy decides. Pure.
//!
//! A rule goes through the restore points of one VM from the newest to the oldest. The first one that it meets in each
//! [`Bucket`] stays, which is the newest of an hour, a day and so on, until the rule's [`Limit`] is reached. Where a rule
//! for a number of buckets does not find so many, the oldest restore point stays too: so a history grows to the length
//! that was asked for, although a month is represented by its last day only when it is over.
//!
//! Days and all else are those of UTC: what is kept must not depend on where the program runs, nor on daylight saving.

use crate::forget::ForgetError;
use repo_format::SessionId;
use serde::{Serialize, Serializer};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;
const DAYS_OF_400_YEARS: u64 = 400 * 365 + 97;

/// The unit of which a rule keeps one restore point, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// Every restore point is one of its own.
    Each,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday on (ISO 8601).
    Week,
    /// A month of the calendar.
    Month,
    /// A year of the calendar.
    Year,
}

impl Bucket {
    /// All of them, the shortest first.
    pub const ALL: [Self; 6] = [Self::Each, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The number of the bucket that a time is in, or of the restore point for [`Bucket::Each`].
    fn number(self, time: u64, position: u64) -> u64 {
        let days = time / DAY;
        match self {
            Self::Each => position,
            Self::Hour => time / HOUR,
            Self::Day => days,
            // 1 January 1970 was a Thursday.
            Self::Week => (days + 3) / 7,
            Self::Month => month(days),
            Self::Year => month(days) / 12,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Each => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }
}

/// How far a rule goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// To so many buckets that hold a restore point; others do not count.
    Newest(u32),
    /// To those that are at most so many milliseconds older than the newest one: not than now, so that nothing goes while
    /// nothing is backed up.
    Within(u64),
}

/// One restore point stays of each bucket, up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of what one stays.
    pub bucket: Bucket,
    /// Of how many.
    pub limit: Limit,
}

/// What is to stay. A restore point stays if any of the rules keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// Makes a policy. Rules of nothing are left out.
    ///
    /// # Errors
    /// [`ForgetError::KeepsNothing`] if no rule is left.
    pub fn new(rules: &[Rule]) -> Result<Self, ForgetError> {
        let keeps = |rule: &&Rule| !matches!(rule.limit, Limit::Newest(0) | Limit::Within(0));
        let rules: Vec<Rule> = rules.iter().filter(keeps).copied().collect();
        if rules.is_empty() { Err(ForgetError::KeepsNothing) } else { Ok(Self { rules }) }
    }
}

/// A restore point of one VM, as far as a policy looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its id.
    pub session: SessionId,
    /// When it was made, milliseconds since 1970.
    pub time: u64,
    /// Its place among those of its VM (the number in its decision's name): what the next backup builds on is the highest.
    pub seq: u32,
    /// Whether somebody wants it to stay whatever the rules say.
    pub is_pinned: bool,
    /// Whether its time is not to be believed. It stays, and takes nobody's place.
    pub is_doubtful: bool,
    /// Whether it is not whole in this place, which was promoted. It stays, and takes nobody's place.
    pub is_incomplete: bool,
}

/// Why a restore point stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is the newest in one of the buckets of a rule for a number of them.
    Newest(Bucket),
    /// It is the oldest, and that rule has not found as many buckets as it may keep.
    Oldest(Bucket),
    /// It is the newest in one of the buckets of a rule for a length of time.
    Within(Bucket),
    /// It is the one that the next backup of the VM builds on.
    Latest,
    /// It is pinned.
    Pinned,
    /// Its time is not to be believed.
    DoubtfulTime,
    /// It is not whole in this place, which was promoted.
    Incomplete,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest(bucket) => f.write_str(bucket.word()),
            Self::Oldest(bucket) => write!(f, "oldest-{}", bucket.word()),
            Self::Within(Bucket::Each) => f.write_str("within"),
            Self::Within(bucket) => write!(f, "within-{}", bucket.word()),
            Self::Latest => f.write_str("latest"),
            Self::Pinned => f.write_str("pinned"),
            Self::DoubtfulTime => f.write_str("doubtful-time"),
            Self::Incomplete => f.write_str("incomplete"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Says of each of the restore points of one VM why it stays; those that go have no reason. Whatever the policy, the
/// newest one stays, by time and by what the next backup builds on.
#[must_use]
pub fn reasons(policy: &Policy, points: &[Point]) -> Vec<BTreeSet<Reason>> {
    let mut reasons = vec![BTreeSet::new(); points.len()];
    for (point, reasons) in points.iter().zip(&mut reasons) {
        reasons.extend(point.is_pinned.then_some(Reason::Pinned));
        reasons.extend(point.is_doubtful.then_some(Reason::DoubtfulTime));
        reasons.extend(point.is_incomplete.then_some(Reason::Incomplete));
    }
    // What may not be whole is no replacement for what is.
    let counting: Vec<usize> = (0..points.len()).filter(|at| !points[*at].is_incomplete).collect();
    let latest =
        counting.iter().copied().max_by_key(|at| (points[*at].seq, points[*at].time, points[*at].session));
    if let Some(latest) = latest {
        reasons[latest].insert(Reason::Latest);
    }
    let mut believed = counting;
    believed.retain(|at| !points[*at].is_doubtful);
    believed.sort_by_key(|at| Reverse((points[*at].time, points[*at].seq, points[*at].session)));
    for rule in &policy.rules {
        for (at, reason) in kept_by(*rule, points, &believed) {
            reasons[at].insert(reason);
        }
    }
    reasons
}

/// The restore points that one rule keeps; `newest_first` are their positions.
fn kept_by(rule: Rule, points: &[Point], newest_first: &[usize]) -> Vec<(usize, Reason)> {
    let Rule { bucket, limit } = rule;
    let mut kept = Vec::new();
    let Some(newest) = newest_first.first().map(|at| points[*at].time) else { return kept };
    let mut last = None;
    for (position, at) in (0u64..).zip(newest_first) {
        let number = bucket.number(points[*at].time, position);
        let is_first = last != Some(number);
        last = Some(number);
        match limit {
            Limit::Newest(most) if kept.len() >= most as usize => break,
            Limit::Within(span) if newest - points[*at].time > span => break,
            Limit::Newest(_) if is_first => kept.push((*at, Reason::Newest(bucket))),
            Limit::Within(_) if is_first => kept.push((*at, Reason::Within(bucket))),
            Limit::Newest(_) if position + 1 == newest_first.len() as u64 => {
                kept.push((*at, Reason::Oldest(bucket)));
            }
            Limit::Newest(_) | Limit::Within(_) => {}
        }
    }
    kept
}

/// The number of the calendar month (Gregorian) that a day is in, from January of the year 0 on; days count from 1970.
fn month(days: u64) -> u64 {
    const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Leap years before a year, from the year 1 on.
    let leaps = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let first_day = |year: u64| (year - 1970) * 365 + leaps(year) - leaps(1970);
    // The calendar repeats itself.
    let (cycles, days) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    // No year is longer than 366 days, so this is not too late, and at most two years too early.
    let mut year = 1970 + days / 366;
    while first_day(year + 1) <= days {
        year += 1;
    }
    let day = days - first_day(year);
    let begins = |month: usize| DAYS_BEFORE[month] + u64::from(month >= 2 && is_leap(year));
    let month = (0..12).rev().find(|month| begins(*month) <= day).expect("January begins with day 0");
    (year + 400 * cycles) * 12 + month as u64
}

#[cfg(test)]
mod tests;
