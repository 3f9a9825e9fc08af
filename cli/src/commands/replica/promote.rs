//! `keepstone replica promote`

use crate::clock::{self, Stopwatch};
use crate::commands::backup::PROGRAM;
use crate::console::{lines, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{count, size};
use crate::open;
use crate::progress::Progress;
use crate::retention_key::retention_key;
use crate::settings::Settings;
use crate::standing;
use keepstone_engine::promotion::{PromoteJob, PromotionReport, SetAside, declare_other_side_gone, promote};
use keepstone_engine::replica::Doubt;
use serde::Serialize;

/// Snapshots that are told one by one; the JSON report has all of them.
const NAMES_SHOWN: usize = 16;

/// The arguments of `replica promote`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Declare that nothing is written any more to the place that this one was copied from, and nothing more arrives from
    /// there: from then on prune may delete here
    #[arg(long)]
    other_side_gone: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    promotion: PromotionReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Promotes a replica, or declares that the other side is gone.
pub(super) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let repository = match standing::doubt(&store, &repository)? {
        // What a copy tells that the service keeps is of the place that it is copied from.
        Doubt::All => repository.as_replica(),
        Doubt::Of(_) | Doubt::None => repository,
    };
    let key = retention_key(settings, &repository)?;
    let entropy = open::entropy()?;
    let job = PromoteJob { time: clock::now_millis(), program: PROGRAM, entropy: &entropy };
    if arguments.other_side_gone {
        declare_other_side_gone(&repository, &key, &job)?;
    }
    let progress = Progress::new(settings);
    let promotion = promote(&repository, &key, &job, &progress)?;
    progress.finish();
    let report = Report { promotion, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, text)?;
    let PromotionReport { set_aside, ignored, .. } = &report.promotion;
    for name in ignored {
        warn(&format!(
            "{name} is not signed with the retention key, or cannot be read, and counts for nothing"
        ));
    }
    Ok(if set_aside.is_empty() && ignored.is_empty() { Exit::Done } else { Exit::Attention })
}

fn text(report: &Report) -> String {
    let PromotionReport { was_promoted, other_side_gone, whole, set_aside, aborted, .. } = &report.promotion;
    let promoted = if *was_promoted { "is promoted, as it was before" } else { "is promoted" };
    let mut text = vec![format!(
        "the replica {promoted}: {} whole, {} set aside",
        count(*whole, "snapshot"),
        set_aside.len()
    )];
    text.extend(set_aside.iter().take(NAMES_SHOWN).map(aside));
    if set_aside.len() > NAMES_SHOWN {
        text.push(format!("  and {} more, see --json", set_aside.len() - NAMES_SHOWN));
    }
    if !aborted.is_empty() {
        text.push(format!("  {} of the other side aborted", count(aborted.len() as u64, "session")));
    }
    text.push(if *other_side_gone {
        "  the other side is declared gone: prune may delete here".to_owned()
    } else {
        "  backups can be made here now; prune deletes nothing before `keepstone replica promote --other-side-gone`"
            .to_owned()
    });
    text.push(format!("  {}", report.figures.line(0)));
    lines(text)
}

fn aside(SetAside { snapshot, vm, missing }: &SetAside) -> String {
    let lacks = missing.map_or_else(
        || "is whole by now".to_owned(),
        |lacks| {
            let least = if lacks.at_least { "at least " } else { "" };
            format!("lacks {least}{} ({})", size(lacks.bytes), count(lacks.blobs, "pack"))
        },
    );
    format!("  {snapshot} of {vm} {lacks}")
}
