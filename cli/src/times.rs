//! Points in time, for people and for machines.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Writes a time in the local time zone, to the second.
pub(crate) fn local(millis: u64) -> String {
    let shown = timestamp(millis)
        .map(|time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string());
    shown.unwrap_or_else(|| format!("{millis} ms after 1970"))
}

/// Writes a time as RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(millis: u64) -> Option<String> {
    timestamp(millis).map(|time| format!("{time:.3}"))
}

/// Writes a time of a guest as RFC 3339 in UTC, as exactly as it is known; nothing for times that no calendar has.
pub(crate) fn exact(seconds: i64, nanoseconds: u32) -> Option<String> {
    let time = Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()?;
    Some(time.to_string())
}

/// Writes a time of a guest in the local time zone, to the second.
pub(crate) fn local_seconds(seconds: i64) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?.to_zoned(TimeZone::system());
    Some(time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn timestamp(millis: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_get_utc_with_milliseconds() {
        assert_eq!(rfc3339(1_800_000_000_000).unwrap(), "2027-01-15T08:00:00.000Z");
        assert_eq!(rfc3339(1_800_000_000_042).unwrap(), "2027-01-15T08:00:00.042Z");
        assert_eq!(rfc3339(u64::MAX), None);
        assert_eq!(exact(1_800_000_000, 42).unwrap(), "2027-01-15T08:00:00.000000042Z");
        assert_eq!(exact(-1, 0).unwrap(), "1969-12-31T23:59:59Z");
        assert_eq!((exact(i64::MAX, 0), local_seconds(i64::MIN)), (None, None));
    }
}
