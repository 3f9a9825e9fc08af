//! `keepstone verify`

use crate::clock::{self, Stopwatch};
use crate::console::lines;
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
use keepstone_engine::verify::{Affected, Finding, FindingKind, ReadData, VerifyJob, VerifyReport, verify};
use serde::Serialize;

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
    let read_data = if arguments.read_data { ReadData::Everything } else { ReadData::Nothing };
    let job = VerifyJob { snapshots, read_data, time: clock::now_millis() };
    let progress = Progress::new(settings.console, interrupt);
    let outcome = verify(&repository, &job, &progress);
    progress.finish();
    let report = Report { verify: outcome?, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, text)?;
    Ok(match &report.verify {
        report if report.has_damage() => Exit::Damage,
        report if report.needs_attention() => Exit::Attention,
        _ => Exit::Done,
    })
}

fn text(report: &Report) -> String {
    let VerifyReport {
        snapshots,
        disks,
        packs,
        chunks,
        read_bytes,
        unneeded_packs,
        unneeded_bytes,
        findings,
    } = &report.verify;
    let mut text = vec![
        format!(
            "verified {} with {}: {}, {}{}",
            count(*snapshots, "snapshot"),
            count(*disks, "disk"),
            count(*packs, "pack"),
            count(*chunks, "chunk"),
            if *read_bytes == 0 {
                "; their data was not read (--read-data does)".to_owned()
            } else {
                format!("; {} of packs read", size(*read_bytes))
            },
        ),
        format!("  {}", report.figures.line(*read_bytes)),
    ];
    if *unneeded_packs > 0 {
        text.push(format!(
            "  {} with {} that no snapshot needs: not looked at",
            count(*unneeded_packs, "pack"),
            size(*unneeded_bytes)
        ));
    }
    text.extend(findings.iter().flat_map(finding_lines));
    let damages = findings.iter().filter(|finding| finding.is_damage()).count();
    text.push(match damages {
        0 => "no damage found".to_owned(),
        damages => format!("{} found", counted(damages, "damaged or missing object")),
    });
    lines(text)
}

fn finding_lines(finding: &Finding) -> Vec<String> {
    let word = match finding.kind {
        kind if kind.is_damage() => "DAMAGE",
        kind if kind.needs_attention() => "attention",
        _ => "note",
    };
    let mut text = vec![format!("{word}: {}: {}", finding.blob, finding.detail)];
    if finding.is_damage() {
        text.extend(finding.affected.iter().flat_map(affected_lines));
    }
    text.extend(advice(finding.kind).map(|advice| format!("  hint: {advice}")));
    text
}

/// What to do about a finding that needs more than a copy of the blob.
fn advice(kind: FindingKind) -> Option<&'static str> {
    Some(match kind {
        FindingKind::UndecidedSession | FindingKind::StalledSession => {
            "if no backup of that VM is running, look for its decision in a copy of the repository"
        }
        FindingKind::MissingIndex | FindingKind::DamagedIndex | FindingKind::StaleIndex => {
            "`keepstone repair index` lists packs again that no index lists; restores need none"
        }
        FindingKind::WrongIndex => {
            "move it out of the repository, run `keepstone repair index`, and delete the index cache of every host"
        }
        FindingKind::UntriedKeySlot => "move key slots that nobody here made out of `keys/`",
        _ => return None,
    })
}

fn affected_lines(affected: &Affected) -> Vec<String> {
    let Affected { snapshot, vm, disk, ranges } = affected;
    let of_vm = if vm.is_empty() { String::new() } else { format!(" of {vm}") };
    let of_disk = if disk.is_empty() { String::new() } else { format!(", disk {disk}") };
    let lost = match ranges.len() {
        0 => String::new(),
        number => {
            format!(": {} in {} cannot be restored", size(total_length(ranges)), counted(number, "range"))
        }
    };
    let mut text = vec![format!("  snapshot {snapshot}{of_vm}{of_disk}{lost}")];
    text.extend(
        ranges.iter().take(RANGES_SHOWN).map(|range| format!("    {} to {}", range.start, range.end())),
    );
    if ranges.len() > RANGES_SHOWN {
        text.push(format!("    and {} more, see --json", ranges.len() - RANGES_SHOWN));
    }
    text
}

fn counted(number: usize, noun: &str) -> String {
    count(u64::try_from(number).expect("a length in memory fits 64 bits"), noun)
}
