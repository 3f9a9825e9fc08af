//! `keepstone pin` and `keepstone unpin`

use crate::clock::{self, Stopwatch};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::open;
use crate::retention_key::retention_key;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use keepstone_engine::pins::{self, Change, Pinning};
use keepstone_engine::replica;
use keepstone_engine::snapshots::Selector;
use serde::Serialize;

/// The arguments of `pin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Pin {
    /// The beginning of an id, VM@latest, or VM@TIME for the newest at that time
    #[arg(value_parser = selector::parse)]
    snapshot: Selector,

    /// Why it is to stay, in words
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// The arguments of `unpin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Unpin {
    /// The beginning of an id, VM@latest, or VM@TIME for the newest at that time
    #[arg(value_parser = selector::parse)]
    snapshot: Selector,
}

#[derive(Serialize)]
struct Report {
    snapshot: String,
    vm: String,
    pinned: bool,
    /// Whether it was not so before.
    changed: bool,
    #[serde(flatten)]
    figures: Figures,
}

/// Pins a snapshot: no policy forgets it.
pub(crate) fn pin(settings: &Settings, arguments: &Pin) -> anyhow::Result<Exit> {
    set(settings, &arguments.snapshot, Pinning::Pinned { reason: &arguments.reason })
}

/// Takes away the pin of a snapshot.
pub(crate) fn unpin(settings: &Settings, arguments: &Unpin) -> anyhow::Result<Exit> {
    set(settings, &arguments.snapshot, Pinning::NotPinned)
}

fn set(settings: &Settings, selector: &Selector, pinning: Pinning<'_>) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let snapshot = replica::find_any(&repository, &standing::doubt(&store, &repository)?, selector)?;
    let key = retention_key(settings, &repository)?;
    let change = pins::set(&repository, &key, &snapshot, (pinning, clock::now_millis()), &open::entropy()?)?;
    let report = Report {
        snapshot: snapshot.session().to_string(),
        vm: snapshot.commit.vm.clone(),
        pinned: pinning != Pinning::NotPinned,
        changed: change == Change::Made,
        figures: Figures::take(stopwatch, &store),
    };
    settings.console.report(&report, |Report { snapshot, vm, pinned, changed, .. }| {
        let is = if *pinned { "pinned" } else { "not pinned" };
        let already = if *changed { "" } else { ", as it was" };
        format!("snapshot {snapshot} of {vm} is {is}{already}\n")
    })?;
    Ok(Exit::Done)
}
