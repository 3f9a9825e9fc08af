//! `keepstone forget`

use super::snapshots::SHORT_ID_LEN;
use crate::clock::{self, Stopwatch};
use crate::console::{lines, table, warn};
use crate::exit::{Exit, Usage};
use crate::figures::Figures;
use crate::numbers::{count, parse_span};
use crate::open;
use crate::progress::Progress;
use crate::retention_key::retention_key;
use crate::selector;
use crate::settings::Settings;
use crate::times;
use crate::unreadable;
use anyhow::bail;
use keepstone_engine::forget::policy::{Bucket, Limit, Policy, Reason, Rule};
use keepstone_engine::forget::{
    ForgetJob, ForgetReport, JudgedPoint, LastOnes, Times, VmPoints, What, forget, plan,
};
use keepstone_engine::snapshots::Selector;
use serde::Serialize;
use std::collections::BTreeSet;

/// The arguments of `forget`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A policy goes through the restore points of each VM by itself, from the newest to the oldest, and a restore point stays \
if any rule keeps it. --keep-daily 7 keeps the newest one of each of the last 7 days that have one; while there are fewer, \
the oldest one stays too. Hours, days, weeks from Monday on, months and years are those of UTC. --keep-within counts \
from the newest restore point, not from now, so nothing goes while nothing is backed up. What is pinned stays, and so do the \
newest one and one whose time is more than a day off the store's date of it.

A policy is best looked at with --dry-run first, which needs no retention password:
  keepstone forget --keep-daily 14 --keep-weekly 8 --keep-monthly 12 --dry-run

What is forgotten cannot be restored any more. `keepstone prune` frees the space.")]
pub(crate) struct Arguments {
    /// Forget these snapshots, instead of what a policy does not keep
    #[arg(value_name = "SNAPSHOT", value_parser = selector::parse)]
    snapshots: Vec<Selector>,

    /// Apply the policy to this VM only; may be given several times
    #[arg(long = "vm", value_name = "NAME")]
    vms: Vec<String>,

    /// Apply the policy to snapshots with this tag only, or with one of several; others are left out of account
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,

    /// Only tell which restore points would stay, by which rules, and which would go
    #[arg(long)]
    dry_run: bool,

    /// Forget snapshots that were named even if their VM has no other
    #[arg(long, requires = "snapshots")]
    force: bool,

    /// Believe the times that snapshots say, whatever the store's dates are: for a repository that was copied
    #[arg(long, conflicts_with = "snapshots")]
    trust_times: bool,

    /// Settle a decision that cannot be read, called by the beginning of its id or its name: what it may stand for is
    /// forgotten
    #[arg(long, value_name = "DECISION", conflicts_with = "snapshots")]
    unreadable: Vec<String>,

    // Last, as what comes behind it would be under its heading.
    #[command(flatten)]
    rules: Rules,
}

/// The rules of a policy.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What stays")]
#[expect(clippy::struct_field_names, reason = "the flags are called so")]
struct Rules {
    /// The N newest restore points, or `all`
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_last: Option<u32>,

    /// The newest one of each of the last N hours that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_hourly: Option<u32>,

    /// The newest one of each of the last N days that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_daily: Option<u32>,

    /// The newest one of each of the last N weeks that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_weekly: Option<u32>,

    /// The newest one of each of the last N months that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_monthly: Option<u32>,

    /// The newest one of each of the last N years that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_yearly: Option<u32>,

    /// All that are at most so much older than the newest one, as in 14d, 6w, 3m or 1y6m
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    keep_within: Option<u64>,

    /// The newest one of each hour within so much of the newest one
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    keep_within_hourly: Option<u64>,

    /// The newest one of each day within so much of the newest one
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    keep_within_daily: Option<u64>,

    /// The newest one of each week within so much of the newest one
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    keep_within_weekly: Option<u64>,

    /// The newest one of each month within so much of the newest one
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    keep_within_monthly: Option<u64>,

    /// The newest one of each year within so much of the newest one
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    keep_within_yearly: Option<u64>,
}

/// Reads how many restore points stay.
fn parse_number(text: &str) -> Result<u32, String> {
    match text {
        "all" => Ok(u32::MAX),
        text => text.parse().map_err(|_| format!("{text:?} is no number of restore points, and not `all`")),
    }
}

impl Rules {
    fn rules(&self) -> Vec<Rule> {
        let numbers = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        let spans = [
            self.keep_within,
            self.keep_within_hourly,
            self.keep_within_daily,
            self.keep_within_weekly,
            self.keep_within_monthly,
            self.keep_within_yearly,
        ];
        let of = |limits: [Option<Limit>; 6]| {
            let rules = Bucket::ALL.into_iter().zip(limits);
            rules.filter_map(|(bucket, limit)| Some(Rule { bucket, limit: limit? }))
        };
        let numbers = of(numbers.map(|number| number.map(Limit::Newest)));
        numbers.chain(of(spans.map(|span| span.map(Limit::Within)))).collect()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    vms: Vec<VmLine>,
    stay: usize,
    /// Those that went, or would go.
    go: usize,
    forgotten_before: Vec<String>,
    settled: Vec<String>,
    blocked: Vec<String>,
    unreadable: Vec<String>,
    unsigned: Vec<String>,
    #[serde(flatten)]
    figures: Figures,
}

/// A VM and its restore points that were looked at.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VmLine {
    vm: String,
    /// Decisions that cannot be read, for which nothing of this VM goes.
    held_by: Vec<String>,
    snapshots: Vec<PointLine>,
}

#[derive(Serialize)]
struct PointLine {
    snapshot: String,
    time: Option<String>,
    tags: Vec<String>,
    goes: bool,
    /// Why it stays.
    reasons: BTreeSet<Reason>,
    #[serde(skip)]
    time_millis: u64,
}

impl VmLine {
    fn new(points: &VmPoints) -> Self {
        let VmPoints { vm, held_by, points } = points;
        Self {
            vm: vm.clone(),
            held_by: held_by.iter().map(ToString::to_string).collect(),
            snapshots: points.iter().map(PointLine::new).collect(),
        }
    }

    fn going(&self) -> usize {
        self.snapshots.iter().filter(|point| point.goes).count()
    }
}

impl PointLine {
    fn new(point: &JudgedPoint) -> Self {
        let commit = &point.snapshot.commit;
        Self {
            snapshot: point.snapshot.session().to_string(),
            time: times::rfc3339(commit.time),
            tags: commit.tags.clone(),
            goes: point.goes,
            reasons: point.reasons.clone(),
            time_millis: commit.time,
        }
    }

    fn short_id(&self) -> String {
        self.snapshot.chars().take(SHORT_ID_LEN).collect()
    }
}

/// Forgets snapshots, or tells which ones it would.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let policy = policy(arguments)?;
    settings.interrupt.install()?;
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let what = match &policy {
        Some(policy) => What::Policy { policy, vms: &arguments.vms, tags: &arguments.tags },
        None if arguments.unreadable.is_empty() => What::Named(&arguments.snapshots),
        None => What::Unreadable(&arguments.unreadable),
    };
    let job = ForgetJob {
        what,
        last_ones: if arguments.force { LastOnes::MayGo } else { LastOnes::Stay },
        times: if arguments.trust_times { Times::Trusted } else { Times::Checked },
        time: clock::now_millis(),
        entropy: &open::entropy()?,
    };
    let done = if arguments.dry_run {
        plan(&repository, &job)?
    } else {
        let key = retention_key(settings, &repository)?;
        let progress = Progress::new(settings);
        let outcome = forget(&repository, &key, &job, &progress);
        progress.finish();
        outcome?
    };
    let report = report(arguments, &done, Figures::take(stopwatch, &store));
    settings.console.report(&report, text)?;
    for vm in arguments.vms.iter().filter(|vm| !report.vms.iter().any(|line| line.vm == **vm)) {
        settings.console.message(&format!("there are no such snapshots of {vm}"));
    }
    Ok(warn_of(&done, &report))
}

/// The policy, if that is what the arguments ask for.
fn policy(arguments: &Arguments) -> anyhow::Result<Option<Policy>> {
    let rules = arguments.rules.rules();
    let narrows = !arguments.vms.is_empty() || !arguments.tags.is_empty() || arguments.trust_times;
    let names = !arguments.snapshots.is_empty() || !arguments.unreadable.is_empty();
    match (rules.is_empty(), names) {
        (false, false) => Ok(Some(Policy::new(&rules).map_err(keepstone_engine::EngineError::from)?)),
        (false, true) => bail!(Usage::new("either snapshots are named or a policy says what stays, not both")),
        (true, true) if narrows => {
            bail!(Usage::new("--vm, --tag and --trust-times are for policies").hint("leave them out"))
        }
        (true, true) => Ok(None),
        (true, false) => bail!(Usage::new("nothing says what is to be forgotten").hint(
            "name snapshots, or say what stays, as in --keep-daily 14 --keep-monthly 12; --dry-run only tells what would go"
        )),
    }
}

fn report(arguments: &Arguments, done: &ForgetReport, figures: Figures) -> Report {
    let vms: Vec<VmLine> = done.vms.iter().map(VmLine::new).collect();
    let go: usize = vms.iter().map(VmLine::going).sum();
    let all: usize = vms.iter().map(|vm| vm.snapshots.len()).sum();
    let names = |names: &[repo_format::BlobName]| names.iter().map(ToString::to_string).collect();
    Report {
        dry_run: arguments.dry_run,
        vms,
        stay: all - go,
        go,
        forgotten_before: done.forgotten_before.iter().map(ToString::to_string).collect(),
        settled: done.settled.iter().map(ToString::to_string).collect(),
        blocked: names(&done.blocked),
        unreadable: done.unreadable.iter().map(|(name, _)| name.to_string()).collect(),
        unsigned: names(&done.unsigned),
        figures,
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for vm in &report.vms {
        let (all, go) = (vm.snapshots.len(), vm.going());
        let (stays, goes) = if report.dry_run { ("would stay", "would go") } else { ("kept", "forgotten") };
        let looked_at = restore_points(all);
        let line = format!("{}: {looked_at} looked at, {} {stays}, {go} {goes}\n", vm.vm, all - go);
        text += &line;
        if report.dry_run {
            text += &points_table(vm);
            text.push('\n');
        } else {
            let gone = vm.snapshots.iter().filter(|point| point.goes);
            text += &lines(
                gone.map(|point| format!("  {}  {}", point.short_id(), times::local(point.time_millis))),
            );
        }
    }
    text += &lines(report.settled.iter().map(|name| {
        let settles = if report.dry_run { "would be settled" } else { "settled" };
        format!("{name}: {settles}; what it stands for is forgotten")
    }));
    text += &lines(report.forgotten_before.iter().map(|session| format!("{session} was forgotten before")));
    text + &summary(report)
}

fn summary(report: &Report) -> String {
    let number = report.go + report.settled.len();
    match (report.dry_run, number) {
        (true, _) => format!("dry run: {} would be forgotten, {} would stay\n", number, report.stay),
        (false, 0) => "nothing to forget\n".to_owned(),
        (false, _) => format!(
            "{} forgotten; `keepstone prune` frees what only they needed\n",
            restore_points(number - report.blocked.len())
        ),
    }
}

fn restore_points(number: usize) -> String {
    count(u64::try_from(number).expect("a length in memory fits 64 bits"), "restore point")
}

fn points_table(vm: &VmLine) -> String {
    let rows = vm.snapshots.iter().map(|point| {
        let reasons: Vec<String> = point.reasons.iter().map(ToString::to_string).collect();
        let fate = match (point.goes, reasons.is_empty()) {
            (true, _) => "goes".to_owned(),
            (false, true) => "stays".to_owned(),
            (false, false) => format!("stays: {}", reasons.join(", ")),
        };
        [point.short_id(), times::local(point.time_millis), point.tags.join(","), fate]
    });
    table(["snapshot", "time", "tags", "what becomes of it"], &[], rows)
}

/// Tells what somebody has to look at; the exit code that goes with it.
fn warn_of(done: &ForgetReport, report: &Report) -> Exit {
    let mut exit = Exit::Done;
    let mut attention = |text: &str| {
        warn(text);
        exit = Exit::Attention;
    };
    let doubtful =
        |point: &&PointLine| point.reasons.len() == 1 && point.reasons.contains(&Reason::DoubtfulTime);
    for vm in &report.vms {
        let ids: Vec<String> = vm.snapshots.iter().filter(doubtful).map(PointLine::short_id).collect();
        if !ids.is_empty() {
            attention(&format!(
                "{}: the times of {} are more than a day off the store's dates, so they stay: forget them by their ids, or \
                 add --trust-times if the repository was copied",
                vm.vm,
                ids.join(", ")
            ));
        }
    }
    for vm in &report.vms {
        let is_incomplete = |point: &&PointLine| point.reasons.contains(&Reason::Incomplete);
        let ids: Vec<String> = vm.snapshots.iter().filter(is_incomplete).map(PointLine::short_id).collect();
        if !ids.is_empty() {
            attention(&format!(
                "{}: {} are not whole in this place, which was promoted, so no policy forgets them or \
                 counts them: forget them by their ids, once what is missing has been imported or is given up",
                vm.vm,
                ids.join(", ")
            ));
        }
    }
    for name in &report.blocked {
        attention(&format!(
            "{name} is not forgotten: something else has the name of its tombstone; look at it, and move it away"
        ));
    }
    for name in &report.unsigned {
        attention(&format!(
            "{name} is not signed with the retention key, so it counts for nothing: find out who made it"
        ));
    }
    for vm in report.vms.iter().filter(|vm| !vm.held_by.is_empty()) {
        attention(&format!(
            "{}: nothing is forgotten by the policy, because {} cannot be read: put it back from a copy of the repository, \
             or settle it with `keepstone forget --unreadable`",
            vm.vm,
            vm.held_by.join(", ")
        ));
    }
    let is_settled = |name: &str| report.settled.iter().any(|settled| settled == name);
    let unreadable: Vec<_> = done.unreadable.iter().filter(|(name, _)| !is_settled(name.as_str())).collect();
    unreadable::warn_of(unreadable.iter().copied(), "");
    if unreadable.is_empty() { exit } else { Exit::Damage }
}
