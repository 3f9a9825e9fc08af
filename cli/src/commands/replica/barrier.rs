//! `keepstone replica add`, `remove` and `list`: the replicas that a prune waits for.

use crate::clock::{self, Stopwatch};
use crate::console::{one_line, table, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::open;
use crate::retention_key::retention_key;
use crate::settings::Settings;
use crate::times;
use keepstone_engine::barrier::{self, Change, RegisteredReplica};
use repo_format::ReplicaName;
use serde::Serialize;

/// The arguments of `replica add`.
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The replica's name: 1 to 63 of a-z, 0-9 and -
    name: ReplicaName,

    /// Where it is, in words; no secrets
    #[arg(long, value_name = "TEXT", default_value = "")]
    place: String,
}

/// The arguments of `replica remove`.
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The replica's name
    name: ReplicaName,
}

#[derive(Serialize)]
struct Told {
    replica: String,
    registered: bool,
    /// Whether it was not so before.
    changed: bool,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
struct List {
    replicas: Vec<Line>,
    /// What the retention did not sign.
    ignored: Vec<String>,
    /// What nobody can read.
    damaged: Vec<String>,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
struct Line {
    replica: String,
    place: Option<String>,
    since: Option<String>,
    /// Sessions that are confirmed there.
    confirmed: u64,
    #[serde(skip)]
    since_millis: u64,
}

impl Line {
    fn new(replica: &RegisteredReplica) -> Self {
        Self {
            replica: replica.name.to_string(),
            place: replica.place.clone(),
            since: times::rfc3339(replica.since),
            confirmed: replica.confirmed.len() as u64,
            since_millis: replica.since,
        }
    }
}

/// Registers a replica.
pub(super) fn add(settings: &Settings, Add { name, place }: &Add) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let key = retention_key(settings, &repository)?;
    let told = (name, place.as_str());
    let change = barrier::register(&repository, &key, told, clock::now_millis(), &open::entropy()?)?;
    let changed = change == Change::Made;
    let figures = Figures::take(stopwatch, &store);
    tell(settings, &Told { replica: name.to_string(), registered: true, changed, figures })
}

/// Removes a replica.
pub(super) fn remove(settings: &Settings, Remove { name }: &Remove) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let key = retention_key(settings, &repository)?;
    barrier::remove(&repository, &key, name, clock::now_millis(), &open::entropy()?)?;
    let figures = Figures::take(stopwatch, &store);
    tell(settings, &Told { replica: name.to_string(), registered: false, changed: true, figures })
}

fn tell(settings: &Settings, report: &Told) -> anyhow::Result<Exit> {
    settings.console.report(report, |Told { replica, registered, changed, .. }| {
        let already = if *changed { "" } else { ", as it was" };
        if *registered {
            format!("replica {replica} is registered{already}: prune waits for it\n")
        } else {
            format!("replica {replica} is removed: prune waits for it no more\n")
        }
    })?;
    Ok(Exit::Done)
}

/// Lists the replicas that are registered.
pub(super) fn list(settings: &Settings) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let found = barrier::list(&repository)?;
    for name in &found.ignored {
        warn(&format!(
            "{name} is not signed with the retention key, and counts for nothing: find out who made it"
        ));
    }
    for name in &found.damaged {
        warn(&format!(
            "{name} is damaged: it may have told that nothing is confirmed any more, so prune waits for what is confirmed after it"
        ));
    }
    let report = List {
        replicas: found.registered.iter().map(Line::new).collect(),
        ignored: found.ignored.iter().map(ToString::to_string).collect(),
        damaged: found.damaged.iter().map(ToString::to_string).collect(),
        figures: Figures::take(stopwatch, &store),
    };
    settings.console.report(&report, |report| {
        let rows = report.replicas.iter().map(|line| {
            [
                line.replica.clone(),
                times::local(line.since_millis),
                line.confirmed.to_string(),
                line.place.as_deref().map_or_else(|| "?".to_owned(), one_line),
            ]
        });
        table(["replica", "since", "confirmed", "place"], &[2], rows)
    })?;
    Ok(if report.ignored.is_empty() && report.damaged.is_empty() { Exit::Done } else { Exit::Attention })
}
