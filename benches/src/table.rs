//! Tables of results.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

const MIB: f64 = 1_048_576.0;

/// Returns an empty table whose columns but the first are aligned to the right.
#[must_use]
pub fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Returns a number of bytes in MiB, with one decimal.
#[must_use]
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", float(bytes) / MIB)
}

/// A count as a number to divide.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a report shows three digits")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// The value in the middle; of two in the middle the larger one.
///
/// # Panics
/// If there is none, or one that compares with nothing.
#[must_use]
pub fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("what is measured is a number"));
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!([median(vec![5]), median(vec![3, 1]), median(vec![9, 1, 4])], [5, 3, 4]);
    }
}
