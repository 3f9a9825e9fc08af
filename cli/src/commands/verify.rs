//! `keepstone verify`

use crate::clock::Stopwatch;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::interrupt::Interrupt;
use crate::numbers::{count, size};
use crate::open;
use crate::progress::Progress;
use crate::selector;
use crate::settings::Settings;
use keepstone_engine::extent::total_length;
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::verify::{Affected, Finding, VerifyJob, VerifyReport, verify};
use serde::Serialize;
use std::fmt::Write as _;

/// Ranges of one disk that the text shows; the JSON report has all of them.
const RANGES_SHOWN: usize = 8;

/// The arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these snapshots and what they need [default: everything]
    #[arg(value_name = "SNAPSHOT", value_parser = selector::parse)]
    snapshots: Vec<Selector>,

    /// Read the packs whole and check every chunk
    #[arg(long)]
    read_data: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    verify: VerifyReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Checks that snapshots are whole.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let interrupt = Interrupt::install()?;
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let snapshots = arguments
        .snapshots
        .iter()
        .map(|selector| find(&repository, selector))
        .collect::<Result<Vec<_>, _>>()?;
    let job = VerifyJob { snapshots, read_data: arguments.read_data };
    let progress = Progress::new(settings.console, interrupt);
    let outcome = verify(&repository, &job, &progress);
    progress.finish();
    let report = Report { verify: outcome?, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, text)?;
    Ok(if report.verify.has_damage() { Exit::Damage } else { Exit::Done })
}

fn text(report: &Report) -> String {
    let VerifyReport { snapshots, disks, packs, chunks, read_bytes, findings } = &report.verify;
    let mut text = format!(
        "verified {} with {}: {}, {}; {} of packs read\n  {}\n",
        count(*snapshots, "snapshot"),
        count(*disks, "disk"),
        count(*packs, "pack"),
        count(*chunks, "chunk"),
        size(*read_bytes),
        report.figures.line(*read_bytes)
    );
    for finding in findings {
        add_finding(&mut text, finding);
    }
    let damages = findings.iter().filter(|finding| finding.is_damage()).count();
    text.push_str(&match damages {
        0 => "no damage found\n".to_owned(),
        1 => "1 damage found\n".to_owned(),
        damages => format!("{damages} damages found\n"),
    });
    text
}

fn add_finding(text: &mut String, finding: &Finding) {
    let word = if finding.is_damage() { "DAMAGE" } else { "note" };
    *text += &format!("{word}: {}: {}\n", finding.blob, finding.detail);
    for Affected { snapshot, vm, disk, ranges } in &finding.affected {
        *text += &format!("  snapshot {snapshot}");
        if !vm.is_empty() {
            *text += &format!(" of {vm}");
        }
        if !disk.is_empty() {
            *text += &format!(", disk {disk}");
        }
        if !ranges.is_empty() {
            *text += &format!(
                ": {} in {} cannot be restored",
                size(total_length(ranges)),
                ranges_of(ranges.len())
            );
        }
        text.push('\n');
        for range in ranges.iter().take(RANGES_SHOWN) {
            writeln!(text, "    {} to {}", range.start, range.end()).expect("a string takes everything");
        }
        if ranges.len() > RANGES_SHOWN {
            *text += &format!("    and {} more, see --json\n", ranges.len() - RANGES_SHOWN);
        }
    }
}

fn ranges_of(number: usize) -> String {
    count(u64::try_from(number).expect("a length in memory fits 64 bits"), "range")
}
