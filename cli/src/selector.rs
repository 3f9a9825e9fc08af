//! What a user calls a snapshot by.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use keepstone_engine::snapshots::Selector;

/// Fewer hex digits of an id are too easily the beginning of a word, or of several ids.
const ID_PREFIX_LEN_MIN: usize = 4;
const ID_LEN: usize = 32;

/// Reads an id prefix, `VM@latest` or `VM@TIME`.
///
/// A time is RFC 3339, or a date with or without a time of day in the local time zone. What it leaves out is taken as
/// late as possible, so that the time a list shows for a snapshot finds that snapshot.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    if let Some((vm, time)) = text.rsplit_once('@') {
        repo_format::check_vm_name(vm).map_err(|error| error.to_string())?;
        return match time {
            "latest" => Ok(Selector::Latest(vm.to_owned())),
            time => Ok(Selector::AtTime(vm.to_owned(), latest_of(time)?)),
        };
    }
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("a snapshot is called by the beginning of its id, by VM@latest or by VM@TIME".to_owned());
    }
    if !(ID_PREFIX_LEN_MIN..=ID_LEN).contains(&text.len()) {
        return Err(format!("of an id, {ID_PREFIX_LEN_MIN} to {ID_LEN} digits are needed"));
    }
    Ok(Selector::Id(text.to_ascii_lowercase()))
}

/// Reads a time as [`parse`] does, but what it leaves out is taken as early as possible.
///
/// # Errors
/// As [`parse`].
pub(crate) fn earliest(text: &str) -> Result<u64, String> {
    let start = start_of(text).and_then(|start| u64::try_from(start.as_millisecond()).ok());
    start.ok_or_else(|| not_a_time(text))
}

fn not_a_time(text: &str) -> String {
    format!("{text:?} is no time: write 2026-03-31, 2026-03-31T18:00 or 2026-03-31T18:00:00+02:00")
}

/// The first point in time that a written time can mean.
fn start_of(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let (false, Ok(date)) = (text.contains(':'), text.parse::<Date>()) {
        return Some(date.to_zoned(TimeZone::system()).ok()?.timestamp());
    }
    Some(text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok()?.timestamp())
}

/// The last millisecond that a written time can mean.
fn latest_of(text: &str) -> Result<u64, String> {
    let millis = end_of(text).and_then(|end| u64::try_from(end.as_millisecond() - 1).ok());
    millis.ok_or_else(|| format!("{}, or `latest`", not_a_time(text)))
}

/// The first point in time after what was written.
fn end_of(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return time.checked_add(precision(text)).ok();
    }
    if let (false, Ok(date)) = (text.contains(':'), text.parse::<Date>()) {
        return Some(date.tomorrow().ok()?.to_zoned(TimeZone::system()).ok()?.timestamp());
    }
    let time = text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok()?;
    time.timestamp().checked_add(precision(text)).ok()
}

/// How long the shortest unit is that was written of a time of day.
fn precision(text: &str) -> Span {
    let clock = text.get("YYYY-MM-DDT".len()..).unwrap_or_default();
    let clock = clock.split(['Z', 'z', '+', '-']).next().unwrap_or_default();
    match clock.split(':').count() {
        0 | 1 => Span::new().hours(1),
        2 => Span::new().minutes(1),
        _ if clock.contains('.') => Span::new().milliseconds(1),
        _ => Span::new().seconds(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        match parse(text) {
            Ok(Selector::AtTime(vm, millis)) if vm == "web" => millis,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn ids_are_hex_of_four_digits_or_more() {
        assert_eq!(parse("0aF3"), Ok(Selector::Id("0af3".to_owned())));
        for text in ["0af", "", "web", "0af3g", "000000000000000000000000000000000"] {
            assert!(parse(text).is_err(), "{text:?} is no id");
        }
    }

    #[test]
    fn the_last_at_sign_ends_the_name() {
        assert_eq!(parse("web@site@latest"), Ok(Selector::Latest("web@site".to_owned())));
        assert!(parse("@latest").is_err());
    }

    #[test]
    fn a_time_means_the_end_of_what_it_names() {
        assert_eq!(at("web@2027-01-15T08:00:00Z"), 1_800_000_000_999);
        assert_eq!(at("web@2027-01-15T10:00:00+02:00"), 1_800_000_000_999);
        assert_eq!(at("web@2027-01-15T08:00:00.042Z"), 1_800_000_000_042);
        assert_eq!(at("web@2027-01-15 08:00Z"), 1_800_000_059_999);
    }

    #[test]
    fn since_a_time_means_from_its_beginning() {
        assert_eq!(earliest("2027-01-15T08:00:00Z"), Ok(1_800_000_000_000));
        assert_eq!(earliest("2027-01-15 10:00+02:00"), Ok(1_800_000_000_000));
        assert!(earliest("yesterday").unwrap_err().contains("is no time"));
        assert_eq!(earliest("2027-01-15").unwrap() + 8 * 3_600_000, earliest("2027-01-15T08:00").unwrap());
    }

    #[test]
    fn local_times_and_dates_are_understood() {
        let second = at("web@2027-01-15 08:00:00");
        assert_eq!(at("web@2027-01-15T08:00"), second + 59_000);
        assert_eq!(at("web@2027-01-15"), second + 16 * 3_600_000 - 1000);
        for text in ["web@yesterday", "web@", "web@2027-13-01", "web@1969-01-01"] {
            assert!(parse(text).is_err(), "{text} has no time");
        }
    }
}
