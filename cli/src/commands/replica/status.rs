//! `keepstone replica status`

use super::points::{Points, VmLine, look};
use super::source::{self, SourceReport, Waited};
use super::told;
use crate::clock::{self, Stopwatch};
use crate::commands::snapshots::Line;
use crate::commands::verify::{self, WHOLE};
use crate::console::warn;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{Ppm, parse_duration, parse_span};
use crate::open::{self, Store};
use crate::other::{Missing, Other, OtherArguments};
use crate::progress::Progress;
use crate::retention_key::retention_key;
use crate::settings::Settings;
use crate::standing;
use crate::times;
use crate::unreadable;
use keepstone_engine::barrier;
use keepstone_engine::pins;
use keepstone_engine::replica::Doubt;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::verify::{ReadData, VerifyJob, VerifyReport, Which, verify_remembering};
use keepstone_engine::{EngineError, Repository};
use repo_format::ReplicaName;
use serde::Serialize;
use std::time::Duration;

/// The arguments of `replica status`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only these VMs
    #[arg(long, value_name = "NAME")]
    vm: Vec<String>,

    /// The repository that it is copied from: tell what has not arrived at all, too
    #[arg(long, value_name = "REPO")]
    source: Option<String>,

    #[command(flatten)]
    other: OtherArguments,

    /// Read data of the newest whole restore points, too: PERCENT of the packs that they need, those that were not read for
    /// longest
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = verify::parse_part,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1"
    )]
    deep: Option<Ppm>,

    /// Exit with 4 if the newest whole restore point of a VM is older, as in 36h or 2d
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    max_age: Option<u64>,

    /// Wait until all restore points that the source has now are whole here
    #[arg(long, requires = "source")]
    wait: bool,

    /// Wait no longer than this, as in 2h, and exit with 4
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    timeout: Option<Duration>,

    /// Confirm at the source what is whole here, under the name that this replica is registered by; takes the retention
    /// password
    #[arg(long, value_name = "NAME", requires = "source")]
    confirm: Option<ReplicaName>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) snapshots: Vec<Line>,
    pub(super) vms: Vec<VmLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<SourceReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waited: Option<Waited>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deep: Option<VerifyReport>,
    /// Sessions that were confirmed at the source now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confirmed: Option<u64>,
    /// Decisions and tombstones that cannot be read.
    pub(super) unreadable: Vec<String>,
    #[serde(flatten)]
    pub(super) figures: Figures,
    #[serde(skip)]
    pub(super) has_damage: bool,
    /// There is nothing that could be young enough.
    #[serde(skip)]
    is_late: bool,
}

/// Tells what is whole in a replica.
pub(super) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    settings.interrupt.install()?;
    let other = arguments.source.as_deref().map(|place| Other::resolve(settings, place, &arguments.other));
    let other = other.transpose()?;
    let store = match &other {
        Some(other) => other.own_store()?,
        None => open::store(settings)?,
    };
    let repository = open::repository(settings, &store)?;
    let at_source = other.as_ref().map(|other| other.store(Missing::Refused)).transpose()?;
    let source = at_source.as_ref().map(|store| repository.at(store)).transpose()?;
    if arguments.confirm.is_some() && standing::doubt(&store, &repository)? != Doubt::All {
        return Err(EngineError::NotAReplica.into());
    }
    let (mut points, waited) = found(settings, arguments, &repository, source.as_ref())?;
    let mut unreadable_there = Vec::new();
    let told = match (&source, &at_source) {
        (Some(source), Some(at_source)) => {
            let has = source::snapshots(source, &arguments.vm)?;
            let compared = source::compare(&has, &mut points);
            unreadable_there = has.unreadable;
            Some(services(compared, (&store, at_source), &points)?)
        }
        _ => None,
    };
    let deep = match arguments.deep {
        Some(part) => Some(read_deep(settings, &repository, (points.newest(), part))?),
        None => None,
    };
    let confirmed = match (&arguments.confirm, &source) {
        (Some(name), Some(source)) => Some(confirm(settings, (source, &repository), name, &points)?),
        _ => None,
    };
    let report = Report {
        vms: points.of_vms(clock::now_millis(), arguments.max_age),
        snapshots: points.lines,
        source: told,
        waited,
        deep,
        confirmed,
        unreadable: points.unreadable.iter().map(|(name, _)| name.to_string()).collect(),
        figures: Figures::take(stopwatch, &store),
        is_late: points.vms.is_empty() && arguments.max_age.is_some(),
        has_damage: points.has_damage,
    };
    settings.console.report(&report, told::text)?;
    unreadable::warn_of(&points.unreadable, "");
    unreadable::warn_of(&unreadable_there, " at the source");
    Ok(exit(&report))
}

/// Adds what the services know that keep the replica and its source.
fn services(
    mut report: SourceReport,
    (replica, source): (&Store, &Store),
    points: &Points,
) -> anyhow::Result<SourceReport> {
    if let Some(replica) = replica.inner().azure() {
        report.last_sync_time = replica.last_sync_time()?.and_then(times::rfc3339);
    }
    if let Some(source) = source.inner().azure()
        && !points.missing.is_empty()
    {
        report.replication = Some(source::replication(source, &points.missing)?);
    }
    Ok(report)
}

fn exit(report: &Report) -> Exit {
    let damage = report.has_damage
        || !report.unreadable.is_empty()
        || report.source.as_ref().is_some_and(|source| !source.unreadable.is_empty())
        || report.deep.as_ref().is_some_and(VerifyReport::has_damage);
    let attention =
        report.is_late || report.vms.iter().any(|vm| vm.late) || report.waited == Some(Waited::TimedOut);
    let exit = |is_so, exit| if is_so { exit } else { Exit::Done };
    Exit::worst([exit(damage, Exit::Damage), exit(attention, Exit::Attention)])
}

/// What there is, perhaps after it was waited for.
fn found(
    settings: &Settings,
    arguments: &Arguments,
    repository: &Repository<'_>,
    source: Option<&Repository<'_>>,
) -> anyhow::Result<(Points, Option<Waited>)> {
    let look = || {
        let pins = pins::list(repository, None)?;
        let progress = Progress::new(settings);
        let points = look(repository, &arguments.vm, &pins, &progress);
        progress.finish();
        Ok(points?)
    };
    match source {
        Some(source) if arguments.wait => {
            let waited = source::wait(settings, (source, &arguments.vm), arguments.timeout, &look)?;
            Ok((waited.0, Some(waited.1)))
        }
        _ => Ok((look()?, None)),
    }
}

/// Reads a part of what the newest whole restore points need.
fn read_deep(
    settings: &Settings,
    repository: &Repository<'_>,
    (snapshots, part): (Vec<Snapshot>, Ppm),
) -> anyhow::Result<VerifyReport> {
    if snapshots.is_empty() {
        return Ok(VerifyReport::default());
    }
    let read_data = if part == WHOLE { ReadData::Everything } else { ReadData::Part { ppm: part.0 } };
    let mut memory = verify::memory(settings, repository)?;
    let progress = Progress::new(settings);
    let job = VerifyJob { which: Which::These(snapshots), read_data, time: clock::now_millis() };
    let outcome = verify_remembering(repository, &job, &mut memory, &progress);
    progress.finish();
    if let Some(failure) = memory.take_failure() {
        warn(&format!("what was read now is not remembered: {:#}", anyhow::Error::new(failure)));
    }
    Ok(outcome?)
}

/// Confirms at the source what is whole in the replica.
fn confirm(
    settings: &Settings,
    (source, replica): (&Repository<'_>, &Repository<'_>),
    name: &ReplicaName,
    points: &Points,
) -> anyhow::Result<u64> {
    let key = retention_key(settings, source)?;
    let confirmed = barrier::find(source, name)?.confirmed;
    let mut sessions = barrier::confirmable_repacks(source, replica, &confirmed)?;
    sessions.extend(points.whole.iter().cloned());
    Ok(barrier::confirm(source, &key, (name, &sessions), clock::now_millis(), &open::entropy()?)?)
}
