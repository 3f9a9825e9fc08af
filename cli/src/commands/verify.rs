//! `keepstone verify`

use super::snapshots::Line;
use crate::clock::{self, Stopwatch};
use crate::console::{lines, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{Ppm, count, parse_percent, size};
use crate::open;
use crate::progress::Progress;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use crate::times::rfc3339;
use keepstone_engine::Repository;
use keepstone_engine::extent::total_length;
use keepstone_engine::pins::Pins;
use keepstone_engine::replica::{self, Doubt};
use keepstone_engine::snapshots::{Query, Selector};
use keepstone_engine::verify::{
    Affected, Finding, FindingKind, Memory, ReadData, Verified, VerifyJob, VerifyReport, Which,
    verify_remembering,
};
use serde::Serialize;

/// Ranges of one disk that the text shows; the JSON report has all of them.
const RANGES_SHOWN: usize = 8;
/// What the records of the memory are keyed for.
const MEMORY_CONTEXT: &str = "keepstone v0 verify memory";
const DAY_MILLIS: u64 = 86_400_000;
pub(super) const WHOLE: Ppm = Ppm(1_000_000);

/// The arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these snapshots and what they need [default: everything]
    #[arg(value_name = "SNAPSHOT", value_parser = selector::parse)]
    snapshots: Vec<Selector>,

    /// Read the packs whole and check every chunk; with PERCENT, a part of them: what was not read for longest
    ///
    /// 100/PERCENT such runs read all that was there at the first of them. Which packs were read when is remembered in
    /// the cache directory.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = parse_part,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100"
    )]
    read_data: Option<Ppm>,
}

/// Reads a part in per cent.
pub(super) fn parse_part(text: &str) -> Result<Ppm, String> {
    match parse_percent(text)? {
        Ppm(0) => Err("that reads nothing: write more than 0, or leave --read-data out".to_owned()),
        part => Ok(part),
    }
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    verify: VerifyReport,
    /// Snapshots that came from elsewhere and are not whole. They are not verified.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<Line>,
    verified: VerifiedData,
    #[serde(flatten)]
    figures: Figures,
    /// Now, milliseconds since 1970.
    #[serde(skip)]
    time: u64,
}

/// What is known of the data that is needed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifiedData {
    bytes: u64,
    never_bytes: u64,
    damaged_bytes: u64,
    oldest: Option<String>,
}

impl VerifiedData {
    fn new(verified: &Verified) -> Self {
        let Verified { bytes, never_bytes, damaged_bytes, oldest } = *verified;
        Self { bytes, never_bytes, damaged_bytes, oldest: oldest.and_then(rfc3339) }
    }
}

/// Checks that snapshots are whole.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    settings.interrupt.install()?;
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let doubt = standing::doubt(&store, &repository)?;
    let (which, mut incomplete) = chosen(settings, arguments, (&repository, &doubt))?;
    let read_data = match arguments.read_data {
        None => ReadData::Nothing,
        Some(WHOLE) => ReadData::Everything,
        Some(Ppm(ppm)) => ReadData::Part { ppm },
    };
    let mut memory = memory(settings, &repository)?;
    let is_named = !arguments.snapshots.is_empty();
    let is_nothing = matches!(&which, Which::These(snapshots) if snapshots.is_empty());
    let job = VerifyJob { which, read_data, time: clock::now_millis() };
    let progress = Progress::new(settings);
    let outcome = if is_nothing {
        Ok(VerifyReport::default())
    } else {
        verify_remembering(&repository, &job, &mut memory, &progress)
    };
    progress.finish();
    if let Some(failure) = memory.take_failure() {
        warn(&format!("what was read now is not remembered: {:#}", anyhow::Error::new(failure)));
    }
    let verify = outcome?;
    incomplete.extend(verify.not_whole.iter().map(|point| Line::in_doubt(point, &Pins::default())));
    let verified = VerifiedData::new(&verify.verified);
    let figures = Figures::take(stopwatch, &store);
    let report = Report { verify, incomplete, verified, figures, time: job.time };
    settings.console.report(&report, text)?;
    let is_gone = is_named && report.verify.has_forgotten();
    if is_gone {
        warn("a snapshot that was named was forgotten meanwhile: it is not verified");
    }
    Ok(match &report.verify {
        report if report.has_damage() => Exit::Damage,
        report if report.needs_attention() || is_gone => Exit::Attention,
        _ => Exit::Done,
    })
}

/// What is verified. In a replica, all that is whole and nothing else; the snapshots that are not whole are told of.
fn chosen(
    settings: &Settings,
    arguments: &Arguments,
    (repository, doubt): (&Repository<'_>, &Doubt),
) -> anyhow::Result<(Which, Vec<Line>)> {
    if !arguments.snapshots.is_empty() {
        let found = arguments.snapshots.iter().map(|selector| replica::find(repository, doubt, selector));
        return Ok((Which::These(found.collect::<Result<_, _>>()?), Vec::new()));
    }
    match doubt {
        Doubt::None => return Ok((Which::Everything, Vec::new())),
        Doubt::Of(_) => return Ok((Which::AllWhole, Vec::new())),
        Doubt::All => {}
    }
    let (mut whole, mut incomplete, pins) = (Vec::new(), Vec::new(), Pins::default());
    let progress = Progress::new(settings);
    let found = replica::each(repository, (doubt, &Query::default()), &progress, &mut |point| {
        if point.whole.is_whole() {
            whole.push(point.snapshot);
        } else {
            incomplete.push(Line::in_doubt(&point, &pins));
        }
    });
    progress.finish();
    found?;
    whole.sort_by_key(|snapshot| (snapshot.commit.time, snapshot.session()));
    Ok((Which::These(whole), incomplete))
}

/// Opens what is remembered of earlier runs. Without a usable directory it is nothing, and said.
pub(super) fn memory(settings: &Settings, repository: &Repository<'_>) -> anyhow::Result<Memory> {
    let id = repository.config().repository;
    let reason = match settings.cache_dir() {
        None => "there is no cache directory; name one with --cache-dir".to_owned(),
        Some(dir) => match Memory::open(&dir, id, repository.keys().local_key(MEMORY_CONTEXT)) {
            Ok(memory) => return Ok(memory),
            Err(error) => format!("{:#}", anyhow::Error::new(error)),
        },
    };
    warn(&format!(
        "which packs were read is not remembered, so that --read-data=PERCENT chooses at random each time: {reason}"
    ));
    Ok(Memory::passing(id, &open::entropy()?))
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
        verified,
        not_whole: _,
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
                "; no data was read now (--read-data does)".to_owned()
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
    if let incomplete @ 1.. = report.incomplete.len() {
        text.push(format!(
            "  {} not whole here: not looked at; `keepstone replica status` tells what is missing",
            counted(incomplete, "snapshot")
        ));
    }
    text.extend(verified_lines(verified, report.time));
    text.extend(findings.iter().flat_map(finding_lines));
    let damages = findings.iter().filter(|finding| finding.is_damage()).count();
    text.push(match damages {
        0 => "no damage found".to_owned(),
        damages => format!("{} found", counted(damages, "damaged or missing object")),
    });
    lines(text)
}

/// How much of the data was read, and when.
fn verified_lines(verified: &Verified, time: u64) -> Vec<String> {
    let Verified { bytes, never_bytes, damaged_bytes, oldest } = *verified;
    let all = bytes + never_bytes + damaged_bytes;
    let mut text = Vec::new();
    if let Some(oldest) = oldest {
        let days = time.saturating_sub(oldest).div_ceil(DAY_MILLIS).max(1);
        let what = if bytes == all {
            "all data was".to_owned()
        } else {
            format!("{} of {} are sound and were", size(bytes), size(all))
        };
        text.push(format!("  {what} last read within {}", count(days, "day")));
    }
    let rest =
        [(never_bytes, "have never been read"), (damaged_bytes, "were damaged when they were last read")];
    let rest = rest.into_iter().filter(|(bytes, _)| *bytes > 0);
    text.extend(rest.map(|(bytes, what)| format!("  {} of {} {what}", size(bytes), size(all))));
    text
}

pub(super) fn finding_lines(finding: &Finding) -> Vec<String> {
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
        FindingKind::CondemnedPack => {
            "do not prune; copy the pack to a safe place first, and look for who published the delete list without waiting"
        }
        FindingKind::UnsignedObject => {
            "somebody without the retention password made it: find out who can write there, and move it out of the repository"
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
