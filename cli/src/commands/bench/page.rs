//! The report as one page of HTML that needs nothing else: no script, no font, no network.

mod chart;

use super::compare::{Comparison, signed};
use super::fleet::{Growth, Predicted, Prediction};
use super::result::{BenchResult, Report, RequestFigure, RunName, StageFigure, number, percent};
use super::text::{about, millis, rate, scaling, share, spread, whole};
use crate::numbers::{count, duration, size};
use crate::times::local;
use chart::{About, Bar, Dots, bars, escape, logarithmic, multiples};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page/style.css");
const GIB: f64 = 1_073_741_824.0;
const MIB: f64 = 1_048_576.0;

/// Writes the page.
pub(super) fn page(report: &Report<'_>) -> String {
    let result = report.result;
    let mut page = String::new();
    let title = format!("Keepstone benchmark, {}", local(result.time));
    add(&mut page, format_args!("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"));
    // Nothing is fetched, whatever some text of the report looks like.
    add(
        &mut page,
        format_args!(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        ),
    );
    add(
        &mut page,
        format_args!(
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><link rel=\"icon\" href=\"data:,\"><title>{}</title><style>{STYLE}</style></head><body>",
            escape(&title)
        ),
    );
    add(
        &mut page,
        format_args!(
            "<header><h1>Keepstone benchmark</h1><p class=\"soft\">{}, {}</p>",
            escape(&result.program),
            escape(&local(result.time))
        ),
    );
    add(&mut page, format_args!("<dl>{}</dl></header><main>", facts(result)));
    for part in [findings(report), stages(result), scalings(result), requests(result), runs(result)] {
        page += &part;
    }
    if let Some(prediction) = report.fleet {
        page += &fleet(prediction);
    }
    if let Some(comparison) = report.comparison {
        page += &compared(comparison);
    }
    add(
        &mut page,
        format_args!(
            "</main><footer><p>Rates are in binary units. Compare figures only of machines that did nothing else meanwhile.</p></footer></body></html>\n"
        ),
    );
    page
}

fn add(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a text takes everything");
}

fn facts(result: &BenchResult) -> String {
    let pair =
        |(name, value): (&str, String)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(&value));
    about(result).into_iter().map(pair).collect()
}

fn findings(report: &Report<'_>) -> String {
    let mut section = "<section id=\"findings\"><h2>What it means</h2><ul>".to_owned();
    for bottleneck in &report.analysis.bottlenecks {
        add(&mut section, format_args!("<li>{}</li>", sentence(&bottleneck.in_words)));
    }
    section += "</ul>";
    let recommendations = &report.analysis.recommendations;
    if !recommendations.is_empty() {
        section += "<p>Settings that fit:</p><ul>";
        for found in recommendations {
            let (setting, value) = (escape(found.setting), escape(&found.value));
            add(
                &mut section,
                format_args!("<li><code>{setting} {value}</code> {}</li>", escape(&found.reason)),
            );
        }
        section += "</ul>";
    }
    section + "</section>"
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{}{}.", escape(&first), escape(characters.as_str()))
}

/// The figures of stages with all threads.
fn with_all(result: &BenchResult) -> impl Iterator<Item = &StageFigure> {
    let most = result.threads().pop().unwrap_or(1);
    result.stages.iter().filter(move |figure| figure.threads == most)
}

fn stages(result: &BenchResult) -> String {
    let figures: Vec<&StageFigure> = with_all(result).collect();
    let medians = figures.iter().map(|figure| figure.bytes_per_second.high);
    let (unit, unit_name) = if medians.fold(0.0, f64::max) >= GIB { (GIB, "GiB/s") } else { (MIB, "MiB/s") };
    let bar = |figure: &&StageFigure| Bar {
        name: figure.words(),
        value: figure.bytes_per_second.median / unit,
        low: figure.bytes_per_second.low / unit,
        high: figure.bytes_per_second.high / unit,
        shown: rate(figure.bytes_per_second.median),
    };
    let threads = count(result.setting.threads as u64, "thread");
    let title = format!("Rates of the stages, {threads}");
    let about = About {
        id: "chart-stages",
        title: &title,
        description: "A bar for each stage of backups and restores, as long as its median rate; the line shows the lowest and \
                      the highest round. The table has the same figures.",
    };
    let svg =
        bars(&about, &figures.iter().map(bar).collect::<Vec<_>>(), |value| format!("{value} {unit_name}"));
    let rows = figures.iter().map(|figure| {
        vec![
            figure.words(),
            rate(figure.bytes_per_second.median),
            rate(figure.bytes_per_second.low),
            rate(figure.bytes_per_second.high),
            figure.ratio.map_or_else(String::new, share),
        ]
    });
    let table = table(&title, &["stage", "median", "lowest", "highest", "leaves"], rows);
    section(
        "stages",
        "Stages",
        "Each stage alone, as a backup or a restore runs it, on data in memory. The slowest ones are what a machine is \
         busy with.",
        "",
        &svg,
        &table,
    )
}

fn scalings(result: &BenchResult) -> String {
    let threads = result.threads();
    let names = |figure: &StageFigure| (figure.stage, figure.level);
    let one =
        |figure: &StageFigure| result.stage(names(figure).0, names(figure).1, threads.first().copied()?);
    let lines: Vec<(&StageFigure, Vec<Option<f64>>)> = with_all(result)
        .filter_map(|figure| {
            let one = one(figure)?.bytes_per_second.median;
            let with = |threads: &usize| {
                let of = result.stage(figure.stage, figure.level, *threads)?;
                (one > 0.0).then(|| of.bytes_per_second.median / one)
            };
            Some((figure, threads.iter().map(with).collect()))
        })
        .collect();
    let dots = lines.iter().map(|(figure, multiples)| Dots {
        name: figure.words(),
        marks: multiples
            .iter()
            .zip(&threads)
            .filter_map(|(multiple, threads)| Some(((*multiple)?, threads.to_string())))
            .collect(),
        shown: multiples
            .last()
            .copied()
            .flatten()
            .map_or_else(String::new, |multiple| format!("{multiple:.2} ×")),
    });
    let title = "Scaling by threads";
    let about = About {
        id: "chart-scaling",
        title,
        description: "For each stage a mark for each number of threads, at the multiple of what one thread does. At best a \
                      mark is on the line of its number. The table has the rates.",
    };
    let best: Vec<f64> = threads.iter().map(|threads| number(*threads as u64)).collect();
    let svg = multiples(&about, &dots.collect::<Vec<_>>(), &best);
    let headings: Vec<String> = std::iter::once("stage".to_owned())
        .chain(threads.iter().map(|threads| count(*threads as u64, "thread")))
        .chain(["scaling".to_owned()])
        .collect();
    let cells = lines.iter().map(|(figure, _)| {
        let with =
            |threads: usize| Some(result.stage(figure.stage, figure.level, threads)?.bytes_per_second.median);
        let mut cells = vec![figure.words()];
        cells.extend(threads.iter().map(|threads| with(*threads).map_or_else(String::new, rate)));
        let first = threads.first().copied().and_then(with).unwrap_or(0.0);
        cells.push(scaling(figure.bytes_per_second.median, first, figure.threads));
        cells
    });
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let table = table("Rates by threads", &headings, cells);
    section(
        "scaling",
        title,
        "How many times as fast a stage is with more threads; the number in a mark is the number of threads.",
        "",
        &svg,
        &table,
    )
}

fn requests(result: &BenchResult) -> String {
    let name = |figure: &RequestFigure| {
        format!("{} {}, {} at once", figure.operation.words(), size(figure.bytes), figure.at_once)
    };
    let dots = result.requests.iter().map(|figure| {
        let latency = figure.latency_micros;
        let ranks = [
            ("half within", latency.p50),
            ("90 % within", latency.p90),
            ("99 % within", latency.p99),
            ("slowest", latency.max),
        ];
        Dots {
            name: name(figure),
            marks: ranks
                .map(|(words, micros)| (number(micros) / 1000.0, format!("{words} {}", millis(micros))))
                .into(),
            shown: millis(latency.p50),
        }
    });
    let title = "Latency of puts and gets";
    let about = About {
        id: "chart-latency",
        title,
        description: "For each kind of request marks on a logarithmic scale of time: half, 90 % and 99 % of the requests were \
                      answered within it, and the slowest one. The table has the same figures, and rates.",
    };
    let svg = logarithmic(&about, &dots.collect::<Vec<_>>(), |millis| format!("{millis} ms"));
    let rows = result.requests.iter().map(|figure| {
        let latency = figure.latency_micros;
        let times = [latency.p50, latency.p90, latency.p99, latency.max].map(millis);
        let mut cells = vec![name(figure), rate(figure.bytes_per_second.median)];
        cells.extend(times);
        cells.push(figure.requests.to_string());
        cells
    });
    let table = table(title, &["request", "rate", "median", "90 %", "99 %", "slowest", "requests"], rows);
    let key = ["median", "90 %", "99 %", "slowest"].into_iter().enumerate().map(|(rank, words)| {
        format!("<li><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\"><circle class=\"rank{rank}\" cx=\"7\" cy=\"7\" r=\"5\"/></svg>{words}</li>")
    });
    let key = format!("<ul class=\"key\">{}</ul>", key.collect::<String>());
    let place =
        if result.setting.store == "azure" { &result.setting.place } else { "a directory of this machine" };
    let intro = format!(
        "Creates and reads of several lengths, so many at one time, in {place}. Gets read parts of blobs that were just created."
    );
    section("requests", "Requests to the store", &intro, &key, &svg, &table)
}

fn runs(result: &BenchResult) -> String {
    let bar = |figure: &super::result::RunFigure| Bar {
        name: figure.words(),
        value: figure.seconds.median,
        low: figure.seconds.low,
        high: figure.seconds.high,
        shown: format!("{:.3} s", figure.seconds.median),
    };
    let title = "Whole backups and restores";
    let about = About {
        id: "chart-runs",
        title,
        description: "A bar for each run, as long as the median of its seconds; the line shows the shortest and the longest \
                      round. The table has the same figures, and what was read and stored.",
    };
    let svg = bars(&about, &result.runs.iter().map(bar).collect::<Vec<_>>(), |value| format!("{value} s"));
    let rows = result.runs.iter().map(|figure| {
        let is_backup = matches!(figure.run, RunName::Full | RunName::Incremental);
        let requests = figure.requests;
        vec![
            figure.words(),
            format!("{:.3} s {}", figure.seconds.median, spread(figure.seconds)),
            if figure.bytes > 0 { rate(figure.rate()) } else { String::new() },
            size(figure.bytes),
            size(if is_backup { figure.read_bytes } else { figure.fetched_bytes }),
            if is_backup { size(figure.stored_bytes) } else { String::new() },
            (requests.put + requests.get + requests.list).to_string(),
        ]
    });
    let table = table(title, &["run", "time", "rate", "bytes", "read", "stored", "requests"], rows);
    section(
        "runs",
        title,
        "All stages together, of a disk in the page cache. Bytes are what was allocated, what changed, or what was restored; \
         rates are those of these bytes.",
        "",
        &svg,
        &table,
    )
}

fn fleet(prediction: &Prediction) -> String {
    let time = |seconds: f64| duration(whole(seconds * 1000.0));
    let cells = |predicted: &Predicted| {
        [
            time(predicted.seconds),
            size(predicted.read_bytes),
            size(predicted.stored_bytes),
            (predicted.put + predicted.get + predicted.list).to_string(),
            predicted.cost.in_words(),
        ]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut add_row = |name: String, predicted: &Predicted| {
        rows.push(std::iter::once(name).chain(cells(predicted)).collect());
    };
    for line in &prediction.fleets {
        let name = format!("{} × {}", line.disks, size(line.disk_bytes));
        add_row(format!("{name}, first"), &line.first);
        add_row(format!("{name}, incremental"), &line.incremental);
    }
    add_row("all, first".to_owned(), &prediction.first);
    add_row("all, incremental".to_owned(), &prediction.incremental);
    let caption = format!(
        "{} changed between backups, on {}",
        percent(prediction.change_ppm),
        count(prediction.hosts, "host")
    );
    let table = table(&caption, &["backups", "time", "read", "stored", "requests", "cost"], rows);
    let class = if prediction.holds { "verdict better" } else { "verdict short" };
    let growth = |growth: &Growth| format!("<li class=\"short\">{}</li>", sentence(&growth.in_words));
    let grow: String = prediction.grow.iter().map(growth).collect();
    let item = |text: &String| format!("<li>{}</li>", sentence(text));
    let assumptions: String = prediction.assumptions.iter().map(item).collect();
    let kept = escape(&prediction.after_a_month.storage_in_words());
    format!(
        "<section id=\"fleet\"><h2>The fleet</h2><p class=\"{class}\">{}</p><ul>{grow}</ul><div class=\"table\">{table}</div>\
         <p>Kept for a month, first backups and 30 nights: {kept}.</p><p class=\"soft\">Assumed:</p><ul class=\"soft\">{assumptions}</ul></section>",
        sentence(&prediction.verdict())
    )
}

fn compared(comparison: &Comparison) -> String {
    let differences = comparison
        .differences
        .iter()
        .map(|difference| vec![difference.what.to_owned(), difference.then.clone(), difference.now.clone()]);
    let differing = if comparison.differences.is_empty() {
        "<p>Machine and settings are the same.</p>".to_owned()
    } else {
        let table = table("What the runs differ in besides", &["", "then", "now"], differences);
        format!(
            "<p class=\"verdict short\">The runs differ in more than their figures.</p><div class=\"table\">{table}</div>"
        )
    };
    let rows = comparison.changes.iter().map(|change| {
        vec![
            change.figure.clone(),
            change.unit.words(change.then.median),
            change.unit.words(change.now.median),
            signed(change.relative),
            change.verdict.words().to_owned(),
        ]
    });
    let table = table("Medians of both runs", &["figure", "then", "now", "change", "verdict"], rows);
    let then = format!("{}, {}", comparison.program, local(comparison.time));
    format!(
        "<section id=\"comparison\"><h2>Beside an earlier run</h2><p class=\"soft\">{}</p>{differing}<div class=\"table\">{table}</div></section>",
        escape(&then)
    )
}

/// A chart with its table beside it.
fn section(id: &str, heading: &str, intro: &str, key: &str, svg: &str, table: &str) -> String {
    let (heading, intro) = (escape(heading), escape(intro));
    format!(
        "<section id=\"{id}\"><h2>{heading}</h2><p class=\"soft\">{intro}</p>{key}<div class=\"pair\"><figure>{svg}</figure>\
         <div class=\"table\">{table}</div></div></section>"
    )
}

/// A table whose rows begin with their names. Verdicts have their colour.
fn table(caption: &str, headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head = |heading: &&str| format!("<th scope=\"col\">{}</th>", escape(heading));
    let heads: String = headings.iter().map(head).collect();
    let mut table =
        format!("<table><caption>{}</caption><thead><tr>{heads}</tr></thead><tbody>", escape(caption));
    for row in rows {
        let mut cells = row.iter();
        let name = cells.next().map(String::as_str).unwrap_or_default();
        add(&mut table, format_args!("<tr><th scope=\"row\">{}</th>", escape(name)));
        for cell in cells {
            let class = match cell.as_str() {
                "better" => " class=\"better\"",
                "worse" => " class=\"worse\"",
                _ => "",
            };
            add(&mut table, format_args!("<td{class}>{}</td>", escape(cell)));
        }
        table += "</tr>";
    }
    table + "</tbody></table>"
}
