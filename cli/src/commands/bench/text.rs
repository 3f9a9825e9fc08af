//! The report for people.

use super::analysis::Analysis;
use super::compare::{Comparison, signed};
use super::fleet::{Line, Predicted, Prediction};
use super::result::{BenchResult, Report, RequestFigure, RunFigure, RunName, Spread};
use crate::console::{facts, lines, one_line, table, wide_table};
use crate::numbers::{count, duration, size};
use crate::times::local;

/// The whole report.
pub(super) fn text(report: &Report<'_>) -> String {
    let result = report.result;
    let mut parts =
        vec![facts(&about(result)), stages(result), requests(&result.requests), runs(&result.runs)];
    parts.push(findings(report.analysis));
    parts.extend(report.fleet.map(fleet));
    parts.extend(report.comparison.map(compared));
    parts.join("\n")
}

/// What was measured where, and with what.
pub(super) fn about(result: &BenchResult) -> Vec<(&'static str, String)> {
    let (machine, setting, disk) = (&result.machine, &result.setting, &result.disk);
    let processors = count(machine.processors as u64, "processor");
    let threads = count(setting.threads as u64, "thread");
    let source = match (&disk.image, &disk.mix) {
        (Some(image), _) => format!(
            "{}: {} of {} measured, {} of them allocated",
            one_line(image),
            size(disk.measured_bytes),
            size(disk.source_bytes),
            size(disk.measured_allocated_bytes)
        ),
        (None, mix) => {
            let seed = disk.seed.unwrap_or(0);
            let mix = mix.map_or_else(String::new, |mix| {
                format!(
                    ": {} zeros, {} text-like, {} binary-like, {} incompressible",
                    share(mix.zero),
                    share(mix.text),
                    share(mix.binary),
                    share(mix.incompressible)
                )
            });
            format!("synthetic, {}, seed {seed}{mix}", size(disk.measured_bytes))
        }
    };
    let store = match setting.store.as_str() {
        "azure" => one_line(&setting.place),
        _ => format!("a directory ({})", one_line(&setting.place)),
    };
    vec![
        (
            "machine",
            format!(
                "{}, {processors}, {threads}, {}",
                one_line(&machine.processor),
                size(machine.memory_bytes)
            ),
        ),
        ("disk", source),
        ("store", store),
        ("rounds", rounds(setting.rounds)),
    ]
}

/// What limits, and what fits.
fn findings(analysis: &Analysis) -> String {
    let bottlenecks = analysis.bottlenecks.iter().map(|bottleneck| bottleneck.in_words.clone());
    let recommendations = analysis
        .recommendations
        .iter()
        .map(|found| format!("{} {} fits: {}", found.setting, found.value, found.reason));
    lines(bottlenecks.chain(recommendations))
}

fn fleet(prediction: &Prediction) -> String {
    let row = |name: String, predicted: &Predicted| {
        [
            name,
            duration(whole(predicted.seconds * 1000.0)),
            size(predicted.read_bytes),
            size(predicted.stored_bytes),
            (predicted.put + predicted.get + predicted.list).to_string(),
            predicted.cost.in_words(),
        ]
    };
    let of_line = |line: &Line| {
        let name = format!("{} x {}", line.disks, size(line.disk_bytes));
        [row(format!("{name}, first"), &line.first), row(format!("{name}, incremental"), &line.incremental)]
    };
    let sums = [
        row("all, first".to_owned(), &prediction.first),
        row("all, incremental".to_owned(), &prediction.incremental),
    ];
    let rows = prediction.fleets.iter().flat_map(of_line).chain(sums);
    let told = std::iter::once(prediction.verdict())
        .chain(prediction.grow.iter().map(|growth| growth.in_words.clone()))
        .chain([format!(
            "kept for a month, first backups and 30 nights: {}",
            prediction.after_a_month.storage_in_words()
        )])
        .chain(prediction.assumptions.iter().map(|text| format!("assumed: {text}")));
    table(["backups", "time", "read", "stored", "requests", "cost"], &[1, 2, 3, 4], rows)
        + "\n"
        + &lines(told)
}

fn compared(comparison: &Comparison) -> String {
    let mut text = format!("beside a run of {}, {}\n", one_line(&comparison.program), local(comparison.time));
    if !comparison.differences.is_empty() {
        let rows = comparison
            .differences
            .iter()
            .map(|difference| [difference.what.to_owned(), difference.then.clone(), difference.now.clone()]);
        text += "the runs differ in more than their figures:\n\n";
        text += &table(["differs", "then", "now"], &[], rows);
    }
    let rows = comparison.changes.iter().map(|change| {
        [
            change.figure.clone(),
            change.unit.words(change.then.median),
            change.unit.words(change.now.median),
            signed(change.relative),
            change.verdict.words().to_owned(),
        ]
    });
    text + "\n" + &table(["figure", "then", "now", "change", "verdict"], &[1, 2, 3], rows)
}

fn rounds(rounds: usize) -> String {
    match rounds {
        1 => "1: nothing tells how far figures vary".to_owned(),
        rounds => {
            format!("{rounds}; figures are medians, ± half of what is between the lowest and the highest")
        }
    }
}

/// A part of one as per cent.
pub(super) fn share(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// A rate for people.
pub(super) fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", size(whole(bytes_per_second)))
}

/// A number without decimals.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and figures are shown"
)]
pub(super) fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// How far a figure varies.
pub(super) fn spread(spread: Spread) -> String {
    if spread.low < spread.high { format!("± {:.0} %", spread.width() * 50.0) } else { String::new() }
}

/// The rates of the stages by numbers of threads.
fn stages(result: &BenchResult) -> String {
    let threads = result.threads();
    let most = threads.last().copied().unwrap_or(1);
    let mut headings = vec!["stage".to_owned()];
    headings.extend(threads.iter().map(|threads| count(*threads as u64, "thread")));
    headings.extend(["spread", "scaling", "leaves"].map(str::to_owned));
    let right: Vec<usize> = (1..headings.len()).collect();
    let firsts =
        result.stages.iter().filter(|figure| figure.threads == threads.first().copied().unwrap_or(1));
    let rows = firsts.map(|first| {
        let with =
            |threads| result.stage(first.stage, first.level, threads).map(|figure| figure.bytes_per_second);
        let mut row = vec![first.words()];
        row.extend(
            threads
                .iter()
                .map(|threads| with(*threads).map_or_else(String::new, |spread| rate(spread.median))),
        );
        let all = with(most);
        row.push(all.map(spread).unwrap_or_default());
        row.push(
            all.map_or_else(String::new, |all| scaling(all.median, first.bytes_per_second.median, most)),
        );
        row.push(first.ratio.map_or_else(String::new, share));
        row
    });
    wide_table(&headings, &right, rows)
}

/// How many times as fast more threads are.
pub(super) fn scaling(all: f64, one: f64, threads: usize) -> String {
    if threads < 2 || one <= 0.0 { String::new() } else { format!("{:.2} x", all / one) }
}

/// Microseconds as milliseconds.
pub(super) fn millis(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with two decimals")]
    let millis = micros as f64 / 1000.0;
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

fn requests(figures: &[RequestFigure]) -> String {
    let headings =
        ["request", "size", "at once", "rate", "spread", "median", "90 %", "99 %", "slowest", "requests"];
    let rows = figures.iter().map(|figure| {
        let latency = figure.latency_micros;
        [
            figure.operation.words().to_owned(),
            size(figure.bytes),
            figure.at_once.to_string(),
            rate(figure.bytes_per_second.median),
            spread(figure.bytes_per_second),
            millis(latency.p50),
            millis(latency.p90),
            millis(latency.p99),
            millis(latency.max),
            figure.requests.to_string(),
        ]
    });
    table(headings, &[1, 2, 3, 4, 5, 6, 7, 8, 9], rows)
}

fn runs(figures: &[RunFigure]) -> String {
    let headings =
        ["run", "seconds", "spread", "rate", "bytes", "read", "stored", "metadata", "put", "get", "list"];
    let rows = figures.iter().map(|figure| {
        let is_backup = matches!(figure.run, RunName::Full | RunName::Incremental);
        let of_backup = |bytes| if is_backup { size(bytes) } else { String::new() };
        [
            figure.words(),
            format!("{:.3}", figure.seconds.median),
            spread(figure.seconds),
            if figure.bytes > 0 { rate(figure.rate()) } else { String::new() },
            size(figure.bytes),
            size(if is_backup { figure.read_bytes } else { figure.fetched_bytes }),
            of_backup(figure.stored_bytes),
            of_backup(figure.metadata_bytes),
            figure.requests.put.to_string(),
            figure.requests.get.to_string(),
            figure.requests.list.to_string(),
        ]
    });
    let note = "bytes: allocated, changed or restored; read: of the disk, or by a restore of packs\n";
    table(headings, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], rows) + note
}
