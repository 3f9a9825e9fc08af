//! `keepstone prune`

mod cost;
mod told;

use crate::azure::{Uploads, parse_tier};
use crate::clock::{self, Stopwatch};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{parse_duration, parse_size, parse_span};
use crate::open::{self, AnyStore, Store};
use crate::prices::Prices;
use crate::progress::Progress;
use crate::retention_key::retention_key;
use crate::running::Running;
use crate::settings::Settings;
use cost::{Payback, TierCost};
use keepstone_engine::EngineError;
use keepstone_engine::prune::{
    PackUse, PruneEnd, PruneJob, PrunePlan, PruneReport, RepackPolicy, Unused, plan, prune,
};
use keepstone_engine::store::azure::Tier;
use repo_format::SessionId;
use serde::Serialize;
use std::str::FromStr;
use std::time::Duration;

const PROGRAM: &str = concat!("keepstone ", env!("CARGO_PKG_VERSION"));
/// Per cent of what is stored that may be condemned without being asked for: far more than a day's retention, far less
/// than what a listing that lies or a policy with a slip of the finger would cost.
const CONDEMN_AT_MOST: u8 = 20;

/// The arguments of `prune`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Backups and restores go on meanwhile, on any host. A prune never waits: where a backup is running that may not know what is \
about to be deleted, it names it, ends with exit code 4, and the next prune, by anyone, goes on. So it is run again and \
again, from a timer perhaps. A session that stored nothing for longer than --patience is aborted: its backup, if it is \
still running, begins anew.

A pack that is needed in part is packed again, if more than --max-unused is stored in vain, if it pays, and with a password \
that gives the data key. What is still needed is read and written again, ordered so that restores read it in one go. --dry-run needs no retention \
password.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Arguments {
    /// Only tell what would be deleted and packed again, and what that costs and saves
    #[arg(long)]
    dry_run: bool,

    /// Pack again until no more than this is stored in vain: a size, a share of what is stored as in 5%, or `unlimited`
    #[arg(long, value_name = "LIMIT", value_parser = parse_unused, default_value = "5%")]
    max_unused: Unused,

    /// Write at most so much anew in this run, as in 50GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_repack: Option<u64>,

    /// Pack nothing again: delete only packs that nothing needs
    #[arg(long, conflicts_with_all = ["max_unused", "max_repack", "repack_pays_within"])]
    no_repack: bool,

    /// Pack a pack in Azure again only if what it saves pays within this time for reading, writing and deleting it early:
    /// a span as in 6m, or `any` to let no price decide
    #[arg(long, value_name = "SPAN", default_value = "6m")]
    repack_pays_within: Payback,

    /// The tier of packs that are written in Azure: hot, cool or cold [default: hot]
    #[arg(long, value_name = "TIER", value_parser = parse_tier)]
    tier: Option<Tier>,

    /// Only end what an earlier prune began
    #[arg(long, conflicts_with_all = ["dry_run", "max_unused", "max_repack", "no_repack", "repack_pays_within"])]
    resume: bool,

    /// Abort a session that is waited for, by its whole id, whether or not it is still running; may be given several times
    #[arg(long = "abort-session", value_name = "ID", value_parser = SessionId::from_str)]
    abort: Vec<SessionId>,

    /// Abort sessions that stored nothing for so long, as in 36h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "7d")]
    patience: Duration,

    /// Delete even if it is more than 20 % of what is stored
    #[arg(long, visible_alias = "yes")]
    confirm_large: bool,
}

/// Reads how much may be stored in vain.
fn parse_unused(text: &str) -> Result<Unused, String> {
    if text == "unlimited" {
        return Ok(Unused::Unlimited);
    }
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent @ 0..=100) => Ok(Unused::Percent(percent)),
            _ => Err(format!("{text:?} is no share: write whole per cent from 0% to 100%")),
        },
        None => parse_size(text).map(Unused::Bytes).map_err(|_| {
            format!("{text:?} is no limit: write a size as in 20GiB, a share as in 5%, or unlimited")
        }),
    }
}

impl FromStr for Payback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" { Ok(Self::Whatever) } else { parse_span(text).map(Self::Within) }
    }
}

/// What would be done.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    dry_run: bool,
    #[serde(flatten)]
    plan: PrunePlan,
    tiers: Vec<TierCost>,
    #[serde(flatten)]
    figures: Figures,
}

/// What was done.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruned {
    dry_run: bool,
    #[serde(flatten)]
    prune: PruneReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Frees what no snapshot needs, or tells what that would be.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    settings.interrupt.install()?;
    let uploads = Uploads { tier: arguments.tier, ..Uploads::default() };
    let store = open::store_to_back_up(settings, uploads)?;
    let repository = open::repository(settings, &store)?;
    let now = clock::now_millis();
    let costs = prices(&store).map(|(prices, tier)| {
        let pack_len = u64::from(repository.config().geometry.pack_len);
        cost::Costs { prices, tier, pack_len, now }
    });
    let worth = |pack: &PackUse| arguments.repack_pays_within.is_worth(costs.as_ref(), pack);
    let progress = Progress::new(settings);
    // What this host's earlier prunes and repairs left has ended: they are of no VM.
    let running = Running::begin(settings, &repository, "", &progress)?;
    let job = PruneJob {
        writer: &settings.writer,
        time: now,
        program: PROGRAM,
        entropy: &open::entropy()?,
        patience: u64::try_from(arguments.patience.as_millis()).unwrap_or(u64::MAX),
        abort: &arguments.abort,
        unfinished: running.unfinished(),
        condemn_at_most: if arguments.confirm_large { 100 } else { CONDEMN_AT_MOST },
        repack: RepackPolicy {
            max_unused: if arguments.no_repack { Unused::Unlimited } else { arguments.max_unused },
            max_repack: arguments.max_repack,
            worth: &worth,
        },
        end: if arguments.resume { PruneEnd::OpenGeneration } else { PruneEnd::All },
    };
    if arguments.dry_run {
        let outcome = plan(&repository, &job, &running);
        progress.finish();
        let plan = outcome?;
        let tiers = costs.map(|costs| costs.of_plan(&plan)).unwrap_or_default();
        let report = Planned { dry_run: true, plan, tiers, figures: Figures::take(stopwatch, &store) };
        settings.console.report(&report, told::planned)?;
        return Ok(told::warn_of(&report.plan.waiting, &report.plan.ignored, &job));
    }
    let key = retention_key(settings, &repository)?;
    let outcome = prune(&repository, &key, &job, &running);
    progress.finish();
    let prune = match outcome {
        Err(error @ EngineError::Store(_)) => {
            return Err(anyhow::Error::new(error)
                .context("the prune stopped; what it did stays, and the next one goes on"));
        }
        outcome => outcome?,
    };
    running.decided();
    let report = Pruned { dry_run: false, prune, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, told::pruned)?;
    let damage = told::warn_of_damage(&report.prune);
    let exit = told::warn_of(&report.prune.waiting, &report.prune.ignored, &job);
    Ok(damage.worse(exit).worse(told::warn_of_deferred(&report.prune)))
}

/// The prices of the store and the tier of new packs, if it is one that charges.
fn prices(store: &Store) -> Option<(&Prices, Tier)> {
    match store.inner() {
        AnyStore::Directory(_) => None,
        AnyStore::Azure(remote) => Some((&remote.prices, remote.store.data_tier())),
    }
}
