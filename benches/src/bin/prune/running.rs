//! Doing what a job says.

use crate::daily::DailyDisk;
use crate::job::{Action, Job, Keep, Outcome, Repack};
use crate::laps::Laps;
use crate::make::{Model, back_up, make, stored, vm};
use crate::metered::Metered;
use anyhow::Context as _;
use keepstone_benches::files::Nothing;
use keepstone_benches::meter::measure;
use keepstone_benches::repository::{DISK, open, open_index, retention_key, writer};
use keepstone_engine::backup::Unfinished;
use keepstone_engine::forget::policy::{Bucket, Limit, Policy, Rule};
use keepstone_engine::forget::{ForgetJob, LastOnes, Times, What, forget};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::prune::{PruneEnd, PruneJob, RepackPolicy, Unused, plan, prune};
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::store::LocalStore;
use keepstone_engine::{BlobStore, Entropy, Observer, Repository};
use repo_format::{PREFIX_DATA, PREFIX_INDEX, PREFIX_MAP, PREFIX_REPACK, WriterId};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A session that stored nothing for so long is aborted, in milliseconds.
const PATIENCE: u64 = 7 * 24 * 60 * 60 * 1000;

/// Does what a job says.
pub(crate) fn run(job: &Job) -> anyhow::Result<Outcome> {
    let path = job.directory.join("repository");
    let latency = match job.action {
        Action::Restore { latency_millis, .. } => Duration::from_millis(latency_millis),
        _ => Duration::ZERO,
    };
    if let Action::Make { model, size } = job.action {
        let (made, cost) = measure(&job.directory, || make(model, size, &path))?;
        return Ok(Outcome { cost, laps: Vec::new(), asked: [].into(), report: serde_json::to_value(made)? });
    }
    let store = Metered::new(LocalStore::open(&path)?, latency);
    let repository = open(&store)?;
    let (before, ask) = (store.by_kind(), || store.asked());
    let laps = Laps::begin(&ask);
    let (report, cost) = measure(&job.directory, || act(&repository, job, &laps))?;
    let laps = laps.end()?;
    let asked = store
        .by_kind()
        .into_iter()
        .map(|(kind, asked)| (kind.to_owned(), asked - before.get(kind).copied().unwrap_or_default()));
    Ok(Outcome { cost, laps, asked: asked.collect(), report })
}

fn act(repository: &Repository<'_>, job: &Job, observer: &dyn Observer) -> anyhow::Result<Value> {
    let directory = &job.directory;
    match &job.action {
        Action::Make { .. } => anyhow::bail!("there is a repository"),
        Action::Forget(keep) => forget_some(repository, *keep, observer),
        Action::Plan(repack) => planned(repository, *repack, observer),
        Action::Prune(repack) => pruned(repository, *repack, observer),
        Action::PruneUntilStopped(repack) => until_stopped(repository, *repack, directory, observer),
        Action::Backup { first_vm, vms } => backed_up(repository, *first_vm..first_vm + vms, directory),
        Action::ForgetVms { first_vm, vms } => {
            let wanted: Vec<Selector> =
                (*first_vm..first_vm + vms).map(|number| Selector::Latest(vm(number))).collect();
            forget_by(repository, What::Named(&wanted), now(), observer)
        }
        Action::Restore { vm: number, .. } => {
            let snapshot = find(repository, &Selector::Latest(vm(*number)))?;
            let job = RestoreJob::new(snapshot.session(), snapshot.disk(Some(DISK))?, &Nothing);
            Ok(serde_json::to_value(restore(repository, &job, observer)?)?)
        }
    }
}

fn forget_some(repository: &Repository<'_>, keep: Keep, observer: &dyn Observer) -> anyhow::Result<Value> {
    let rule = |bucket, count| Rule { bucket, limit: Limit::Newest(count) };
    let rules =
        [rule(Bucket::Day, keep.daily), rule(Bucket::Week, keep.weekly), rule(Bucket::Month, keep.monthly)];
    let what = What::Policy { policy: &Policy::new(&rules)?, vms: &[], tags: &[] };
    forget_by(repository, what, keep.time, observer)
}

fn forget_by(
    repository: &Repository<'_>,
    what: What<'_>,
    time: u64,
    observer: &dyn Observer,
) -> anyhow::Result<Value> {
    let job =
        ForgetJob { what, last_ones: LastOnes::MayGo, times: Times::Trusted, time, entropy: &entropy() };
    let report = forget(repository, &retention_key(repository)?, &job, observer)?;
    let all: usize = report.vms.iter().map(|vm| vm.points.len()).sum();
    let forgotten = report.going().count();
    Ok(json!({ "forgotten": forgotten, "kept": all - forgotten }))
}

/// First backups of some VMs, as the command line makes them.
fn backed_up(repository: &Repository<'_>, vms: Range<u64>, directory: &Path) -> anyhow::Result<Value> {
    let mut read_bytes = 0;
    let began = Instant::now();
    for number in vms {
        let mut index = open_index(repository, Some(&directory.join("index")))?;
        let preference = Preference { sessions: &[], writers: &[writer()] };
        sync(&mut index, repository.store(), repository.keys(), &preference, &Quiet)?;
        let disk = DailyDisk::new(Model::Default.habits(), number);
        read_bytes += back_up(repository, &mut index, &vm(number), (&disk, 0))?.disks[0].read_bytes;
    }
    Ok(json!({ "readBytes": read_bytes, "seconds": began.elapsed().as_secs_f64() }))
}

fn planned(repository: &Repository<'_>, repack: Repack, observer: &dyn Observer) -> anyhow::Result<Value> {
    with_job(repack, &mut |job| Ok(serde_json::to_value(plan(repository, job, observer)?)?))
}

/// Prunes, and tells what is stored afterwards.
fn pruned(repository: &Repository<'_>, repack: Repack, observer: &dyn Observer) -> anyhow::Result<Value> {
    let key = retention_key(repository)?;
    with_job(repack, &mut |job| Ok(serde_json::to_value(prune(repository, &key, job, observer)?)?))
}

/// The file that says that prunes are to end.
pub(crate) fn stop_file(directory: &Path) -> PathBuf {
    directory.join("stop")
}

fn until_stopped(
    repository: &Repository<'_>,
    repack: Repack,
    directory: &Path,
    observer: &dyn Observer,
) -> anyhow::Result<Value> {
    let (mut prunes, mut ended, mut dry_runs, mut deleted_bytes) = (0u64, 0u64, 0u64, 0);
    while !stop_file(directory).try_exists()? {
        let report = pruned(repository, repack, observer)?;
        prunes += 1;
        ended += u64::from(report["sealed"] == true);
        deleted_bytes += report["deleted"]["bytes"].as_u64().unwrap_or(0);
        if report["waiting"].as_array().is_some_and(|waiting| !waiting.is_empty()) {
            planned(repository, repack, observer)?;
            dry_runs += 1;
        }
    }
    Ok(json!({ "prunes": prunes, "ended": ended, "dryRuns": dry_runs, "deletedBytes": deleted_bytes }))
}

fn with_job(
    repack: Repack,
    act: &mut dyn FnMut(&PruneJob<'_>) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    let max_unused = match repack {
        Repack::Nothing => Unused::Unlimited,
        Repack::Above(percent) => Unused::Percent(percent),
    };
    act(&PruneJob {
        writer: &WriterId::new("pruner").context("a name that keeps to the rules")?,
        time: now(),
        program: "benchmark",
        entropy: &entropy(),
        patience: PATIENCE,
        abort: &[],
        unfinished: Unfinished::Ended,
        condemn_at_most: 100,
        repack: RepackPolicy { max_unused, max_repack: None, worth: &|_| true },
        end: PruneEnd::All,
    })
}

/// What is stored: blobs and bytes, by kind.
pub(crate) fn holdings(directory: &Path) -> anyhow::Result<[(u64, u64); 4]> {
    let store = LocalStore::open(&directory.join("repository"))?;
    let of = |prefix| stored(&store as &dyn BlobStore, prefix);
    Ok([of(PREFIX_DATA)?, of(PREFIX_MAP)?, of(PREFIX_INDEX)?, of(PREFIX_REPACK)?])
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Another one in every process.
fn entropy() -> Entropy {
    let seed = format!("{:?} {}", SystemTime::now(), std::process::id());
    Entropy::new(*blake3::hash(seed.as_bytes()).as_bytes())
}
