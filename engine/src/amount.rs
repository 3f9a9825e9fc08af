//! Sizes as people read them.

/// Units of 1024, the smallest first.
const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Writes a number of bytes in binary units with one decimal.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "it does not")]
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} byte{}", if bytes == 1 { "" } else { "s" });
    }
    let units = (1..).zip(UNITS).map(|(power, unit)| (rounded_tenths(bytes, power), unit));
    let fits = |(tenths, _): &(u128, &str)| *tenths < 10 * 1024;
    let (tenths, unit) = units.into_iter().find(fits).expect("2^64 bytes are 16 EiB");
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Tenths of the unit that is 1024 to the power.
fn rounded_tenths(bytes: u64, power: u32) -> u128 {
    let unit = 1u128 << (10 * power);
    (u128::from(bytes) * 10 + unit / 2) / unit
}

/// Writes how much of a whole something is, in per cent with one decimal, rounded up: what is more than a limit in whole
/// per cent reads so.
pub(crate) fn share(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 1000).div_ceil(u128::from(whole.max(1)));
    format!("{}.{} %", tenths / 10, tenths % 10)
}
