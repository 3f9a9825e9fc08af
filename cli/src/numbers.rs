//! Sizes and counts, for people.

pub(crate) use keepstone_engine::amount::size;
use std::num::NonZeroU64;
use std::time::Duration;

/// Writes a duration given in milliseconds.
pub(crate) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}.{} s", millis % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Reads a duration: a number with s, min, h or d.
///
/// # Errors
/// Anything else, or none at all.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration: write 90s, 30min, 2h or 1d");
    let digits = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim_start() {
        "s" => 1,
        "min" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds > 0).ok_or_else(bad)?;
    Ok(Duration::from_secs(seconds))
}

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// Reads how much older something may be, as in `14d` or `1y6m`: hours, days, weeks, months of 31 days and years of 366,
/// so that none is shorter than on any calendar. In milliseconds.
///
/// # Errors
/// Anything else, or none at all.
pub(crate) fn parse_span(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no span of time: write 36h, 14d, 6w, 3m (months) or 1y6m");
    let mut millis = 0u64;
    let mut left = text;
    while !left.is_empty() {
        let digits = left.find(|character: char| !character.is_ascii_digit()).ok_or_else(bad)?;
        let (number, rest) = left.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let unit = match rest.as_bytes().first() {
            Some(b'h') => DAY_MILLIS / 24,
            Some(b'd') => DAY_MILLIS,
            Some(b'w') => 7 * DAY_MILLIS,
            Some(b'm') => 31 * DAY_MILLIS,
            Some(b'y') => 366 * DAY_MILLIS,
            _ => return Err(bad()),
        };
        millis = number.checked_mul(unit).and_then(|more| millis.checked_add(more)).ok_or_else(bad)?;
        left = &rest[1..];
    }
    if millis > 0 { Ok(millis) } else { Err(bad()) }
}

/// Writes a count with its noun, which takes an `s` in the plural.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Reads a number of bytes with an optional binary unit: `500 MiB`, `8G`, `4096`.
///
/// # Errors
/// Anything else, or more than 2^64 bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let refused =
        || format!("{text:?} is no size: write a number of bytes, or one with KiB, MiB, GiB or TiB");
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at_checked(digits).ok_or_else(refused)?;
    let number: u64 = number.parse().map_err(|_| refused())?;
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(refused()),
    };
    number.checked_mul(1 << shift).ok_or_else(refused)
}

/// Reads a rate: bytes a second, as [`parse_size`] reads bytes.
///
/// # Errors
/// Anything else, or none at all.
pub(crate) fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(parse_size(text)?).ok_or_else(|| "at 0 bytes a second nothing would move".to_owned())
}

/// A share in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ppm(pub(crate) u32);

/// Reads a share in per cent, from 0 to 100 with up to four decimals.
///
/// # Errors
/// Anything else.
pub(crate) fn parse_percent(text: &str) -> Result<Ppm, String> {
    let refused =
        || format!("{text:?} is no share: write per cent from 0 to 100, with at most four decimals");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |part: &str, longest| {
        (1..=longest).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_number(whole, 3) || !is_number(decimals, 4) {
        return Err(refused());
    }
    let ppm: u32 = format!("{whole}{decimals:0<4}").parse().map_err(|_| refused())?;
    if ppm <= 1_000_000 { Ok(Ppm(ppm)) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_and_one_decimal() {
        let sizes = [0, 1, 1023, 1024, 1536, 1_048_524, 1_048_576, 560 << 20, 1 << 40, u64::MAX].map(size);
        let expected = [
            "0 bytes",
            "1 byte",
            "1023 bytes",
            "1.0 KiB",
            "1.5 KiB",
            "1023.9 KiB",
            "1.0 MiB",
            "560.0 MiB",
            "1.0 TiB",
            "16.0 EiB",
        ];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn durations_name_their_two_largest_units() {
        assert_eq!([0, 1234, 61_000, 7_260_000].map(duration), ["0.0 s", "1.2 s", "1 min 1 s", "2 h 1 min"]);
    }

    #[test]
    fn shares_are_read_with_up_to_four_decimals() {
        assert_eq!(
            ["0", "100", "100.0000", "10", "0.5", "12.0625", "0.0001"]
                .map(|text| parse_percent(text).unwrap()),
            [0, 1_000_000, 1_000_000, 100_000, 5000, 120_625, 1].map(Ppm)
        );
        for text in
            ["", ".", "5.", ".5", "-1", "+1", "101", "100.0001", "1000", "0.00001", "1e1", "10%", "NaN"]
        {
            assert!(parse_percent(text).is_err(), "{text:?} is no share");
        }
    }

    #[test]
    fn spans_are_read_with_one_unit_or_several() {
        const DAY: u64 = 86_400_000;
        assert_eq!(
            ["36h", "14d", "6w", "3m", "1y6m", "1d12h"].map(|text| parse_span(text).unwrap()),
            [DAY * 3 / 2, 14 * DAY, 42 * DAY, 93 * DAY, (366 + 186) * DAY, DAY * 3 / 2]
        );
        for text in [
            "",
            "0d",
            "14",
            "d",
            "14 d",
            "3min",
            "-1d",
            "1.5d",
            "1ä",
            "99999999999999999999d",
            "999999999999y",
        ] {
            assert!(parse_span(text).is_err(), "{text:?} is no span");
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(
            ["4096", "8GiB", "8 G", "1k", "3TB"].map(|text| parse_size(text).unwrap()),
            [4096, 8 << 30, 8 << 30, 1024, 3 << 40]
        );
        for text in ["", "GiB", "1.5G", "-1", "8X", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text:?} is no size");
        }
        assert_eq!(parse_rate("50MiB"), Ok(NonZeroU64::new(50 << 20).unwrap()));
        assert!(parse_rate("0").is_err());
    }
}
