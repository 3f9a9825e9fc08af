//! Texts of the interface: times, UUIDs, and what is quoted of them in errors.

/// How much of a text an error quotes.
const EXCERPT_CHARS: usize = 60;

/// Quotes the beginning of a text.
pub(super) fn excerpt(text: &str) -> String {
    let short: String = text.chars().take(EXCERPT_CHARS).collect();
    if short.len() < text.len() { format!("{short:?}...") } else { format!("{short:?}") }
}

/// The 32 digits of a UUID, small, whatever hyphens and spaces are between them.
pub(super) fn uuid_digits(uuid: &str) -> Option<String> {
    let digits: String = uuid.chars().filter(|letter| !matches!(letter, '-' | ' ')).collect();
    let valid = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| digits.to_ascii_lowercase())
}

/// Reads a time with an offset (`2026-03-01T12:30:00.5Z`, XML Schema part 2 section 3.2.7) as milliseconds since 1970.
pub(super) fn millis(text: &str) -> Option<i64> {
    let (date, rest) = text.trim().split_once('T')?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let zone = rest.find(['Z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.splitn(3, ':');
    let (hour, minute, second) =
        (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    if fraction.is_empty() || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let seconds =
        days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    Some(seconds * 1000 + millis)
}

/// Exactly so many digits.
fn digits(text: &str, len: usize) -> Option<i64> {
    let plain = text.len() == len && text.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// An offset to UTC in seconds.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    Some(sign * (digits(hours, 2)? * 3600 + digits(minutes, 2)? * 60))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, whose year is counted from March on, so that the day that
/// comes every four years is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Months from March on have 31, 30, 31, 30, 31 days, and so on again.
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_offset_and_fraction() {
        // Expected values as `date -d TEXT +%s%3N` prints them.
        let known = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799_000),
            ("2026-03-01T12:30:00.5Z", 1_772_368_200_500),
            ("2026-03-01T12:30:00.123456+02:00", 1_772_361_000_123),
            ("1969-12-31T23:00:00-01:00", 0),
            ("2100-03-01T00:00:00-00:30", 4_107_544_200_000),
        ];
        for (text, expected) in known {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_with_an_offset_is_none() {
        let texts =
            ["", "T", "2026-03-01", "2026-03-01T12:30:00", "2026-13-01T00:00:00Z", "2026-03-01T12:30:00.Z"];
        let more =
            ["2026-3-1T1:2:3Z", "+026-03-01T12:30:00Z", "2026-03-01T12:30:00+2", "2026-03-01T12:30:00.é5Z"];
        for text in texts.iter().chain(&more) {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn long_texts_are_quoted_by_their_beginning() {
        assert_eq!(excerpt("a\nb"), "\"a\\nb\"");
        assert_eq!(excerpt(&"é".repeat(61)), format!("\"{}\"...", "é".repeat(60)));
    }
}
