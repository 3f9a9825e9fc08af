//! `keepstone replicate`

mod told;

use crate::clock::{self, Stopwatch};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::open::{self, AnyStore, Store};
use crate::other::{Missing, Other, OtherArguments};
use crate::progress::Progress;
use crate::retention_key::retention_key;
use crate::settings::Settings;
use anyhow::Context as _;
use keepstone_engine::Repository;
use keepstone_engine::barrier::{self, RegisteredReplica};
use keepstone_engine::replicate::{
    Deletions, Place, Preparing, ReplicateJob, ReplicateReport, Route, Taking, There, check_vms, dry_run,
    prepare, replicate, whole_at,
};
use repo_format::{ReplicaName, RetentionKey, SessionId, WriterId};
use serde::Serialize;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

/// Blobs that are on their way at the same time, unless it is said otherwise: what fills a link between regions, with
/// some 256 MiB of memory where they pass through this host.
const JOBS: u8 = 8;

/// The arguments of `replicate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The destination is an empty place, or what an earlier run made. Restore points are copied in an order that keeps it whole at \
every moment: each one that is there can be restored from there alone. A run that was interrupted is run again and goes on; \
several at once do no harm. Between containers in Azure the service copies, and no data passes through this host unless \
--through-host is given.

The copy is opened with the same passwords. It is not backed up to, forgotten from or pruned, unless it is promoted \
(`keepstone replica promote`). Restore points that are forgotten here are forgotten there by the next run; what the source \
has pruned stays there, unless --delete is given.

  keepstone -r azblob://primary/backups replicate --to azblob://secondary/backups --delete")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Arguments {
    /// The place to copy to, as a repository is named
    #[arg(long, value_name = "REPO")]
    to: String,

    /// Copy restore points of this VM only; may be given several times
    #[arg(long = "vm", value_name = "NAME")]
    vms: Vec<String>,

    /// Copy only the newest N of each VM
    #[arg(long, value_name = "N")]
    last: Option<NonZeroUsize>,

    /// Copy so many blobs at the same time
    #[arg(long, value_name = "N", default_value_t = JOBS, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,

    /// Have all data pass through this host: where the destination's service cannot read the source, because a network rule
    /// or a private endpoint is in between
    #[arg(long)]
    through_host: bool,

    /// Delete there what the source has pruned, as far as no restore point there needs it
    #[arg(long)]
    delete: bool,

    /// Look whether restore points that are there are whole, and copy again what they lack
    #[arg(long)]
    check: bool,

    /// Take a copy that was made in another way, and make it a replica; implies --check
    #[arg(long)]
    adopt: bool,

    /// Confirm at the source that what is whole there is, under the name that the replica was registered by: what prune
    /// waits for. Takes the retention password
    #[arg(long, value_name = "NAME", conflicts_with = "dry_run")]
    confirm: Option<ReplicaName>,

    /// Only tell what would be copied and deleted
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    other: OtherArguments,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    to: String,
    #[serde(flatten)]
    replicate: ReplicateReport,
    /// Sessions that were confirmed at the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed: Option<u64>,
    elapsed_ms: u64,
    source: Figures,
    /// Nothing of an empty place that was not made.
    destination: Option<Figures>,
}

/// Copies restore points to another place.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    settings.interrupt.install()?;
    let other = Other::resolve(settings, &arguments.to, &arguments.other)?;
    let own = other.own_store()?;
    let source = open::repository(settings, &own)?;
    // Before a place is made for them.
    check_vms(&source, &arguments.vms)?;
    let replica =
        arguments.confirm.as_ref().map(|name| Replica::find(settings, &source, name)).transpose()?;
    let nothing_there = arguments.dry_run && other.is_free_directory()?;
    let missing = if arguments.dry_run { Missing::Refused } else { Missing::DirectoryMade };
    let there = if nothing_there { None } else { Some(other.store(missing)?) };
    let progress = Progress::new(settings);
    let copying = Copying { settings, arguments, own: &own, source: &source, replica, progress: &progress };
    let outcome = copying.run(there.as_ref());
    progress.finish();
    let (replicate, confirmed) = outcome?;
    let report = Report {
        dry_run: arguments.dry_run,
        to: other.told()?,
        replicate,
        confirmed,
        elapsed_ms: stopwatch.elapsed_millis(),
        source: Figures::take(stopwatch, &own),
        destination: there.as_ref().map(|store| Figures::take(stopwatch, store)),
    };
    settings.console.report(&report, told::text)?;
    Ok(told::warn_of(&report.replicate))
}

/// The registered replica that something is confirmed at.
struct Replica {
    name: ReplicaName,
    confirmed: BTreeSet<(SessionId, WriterId)>,
    key: RetentionKey,
}

impl Replica {
    /// Finds it before anything is copied.
    fn find(settings: &Settings, source: &Repository<'_>, name: &ReplicaName) -> anyhow::Result<Self> {
        let key = retention_key(settings, source)?;
        let RegisteredReplica { name, confirmed, .. } = barrier::find(source, name)?;
        Ok(Self { name, confirmed, key })
    }
}

/// What a run copies with.
struct Copying<'a> {
    settings: &'a Settings,
    arguments: &'a Arguments,
    own: &'a Store,
    source: &'a Repository<'a>,
    replica: Option<Replica>,
    progress: &'a Progress,
}

impl Copying<'_> {
    /// Makes the destination ready, copies, and confirms; or tells what would be copied.
    fn run(&self, there: Option<&Store>) -> anyhow::Result<(ReplicateReport, Option<u64>)> {
        let Self { settings, arguments, own, source, progress, .. } = *self;
        let job = arguments.job();
        let Some(there) = there else { return Ok((dry_run(source, None, &job, progress)?, None)) };
        let told = settings.location()?.told();
        let preparing = if arguments.dry_run {
            Preparing::LookedAt
        } else {
            Preparing::Made { told: &told, time: clock::now_millis() }
        };
        let taking = if arguments.adopt { Taking::AnyCopy } else { Taking::OwnReplica };
        let place = prepare(source, there, taking, preparing, &open::entropy()?)
            .with_context(|| format!("{} cannot be the destination", arguments.to_told()))?;
        match &place {
            Place::Empty => Ok((dry_run(source, None, &job, progress)?, None)),
            Place::Ready(destination) if arguments.dry_run => {
                Ok((dry_run(source, Some(destination), &job, progress)?, None))
            }
            Place::Ready(destination) => {
                let report = replicate(source, destination, arguments.route(own, there), &job, progress)?;
                Ok((report, self.confirm(destination)?))
            }
        }
    }

    /// Confirms at the source what is whole at the destination.
    fn confirm(&self, destination: &Repository<'_>) -> anyhow::Result<Option<u64>> {
        let Some(Replica { name, confirmed, key }) = &self.replica else { return Ok(None) };
        let whole = whole_at(self.source, destination, confirmed)?;
        let (time, entropy) = (clock::now_millis(), open::entropy()?);
        Ok(Some(barrier::confirm(self.source, key, (name, &whole), time, &entropy)?))
    }
}

impl Arguments {
    /// The service copies where both places are its own, unless it is not to.
    fn route<'a>(&self, own: &'a Store, there: &'a Store) -> Route<'a> {
        match (own.inner(), there.inner()) {
            (AnyStore::Azure(own), AnyStore::Azure(there)) if !self.through_host => {
                Route::ByService { source: &own.store, destination: &there.store }
            }
            _ => Route::ThroughHost,
        }
    }

    fn job(&self) -> ReplicateJob<'_> {
        ReplicateJob {
            vms: &self.vms,
            last: self.last.map(NonZeroUsize::get),
            there: if self.check || self.adopt { There::Checked } else { There::Whole },
            deletions: if self.delete { Deletions::Followed } else { Deletions::Kept },
            jobs: NonZeroUsize::new(usize::from(self.jobs)).unwrap_or(NonZeroUsize::MIN),
        }
    }

    /// The destination's name, without what could be a secret.
    fn to_told(&self) -> &str {
        self.to.split('?').next().unwrap_or_default()
    }
}
