//! `keepstone key`

use crate::clock::{self, Stopwatch};
use crate::console::{one_line, table, warn};
use crate::exit::{Exit, Usage};
use crate::figures::Figures;
use crate::open;
use crate::password::{Asking, Origin, Question};
use crate::retention_key::retention_password;
use crate::settings::Settings;
use crate::times;
use anyhow::bail;
use clap::Subcommand;
use keepstone_engine::repository::{NewSlot, add_slot, remove_slot, slots};
use repo_format::limits::KEY_SLOTS_MAX;
use repo_format::{BlobName, KdfParams, SlotInfo, SlotKind, SlotName};
use serde::Serialize;
use std::path::PathBuf;

/// The new password's environment variable.
const NEW_PASSWORD_VARIABLE: &str = "KEEPSTONE_NEW_PASSWORD";

/// The arguments of `key`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the key slots; needs no password
    List,
    /// Add a key slot: another password, for all or for a part of what can be done
    Add(Add),
    /// Remove a key slot; its password opens the repository no more. The last root and retention slots stay
    Remove {
        /// The slot's name
        #[arg(value_name = "NAME")]
        slot: SlotName,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The new password is taken from the first of --new-password-file, --new-password-command, the environment variable \
KEEPSTONE_NEW_PASSWORD, and a question at the terminal. To add a root or an inventory slot takes the password of a root \
slot, to add a retention slot that of a retention slot (--retention-password-file, --retention-password-command, \
KEEPSTONE_RETENTION_PASSWORD, or the repository's password if it opens one).")]
struct Add {
    /// The slot's name: 1 to 63 of a-z, 0-9 and -
    #[arg(value_name = "NAME")]
    slot: SlotName,

    /// What the new password is good for
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    kind: Kind,

    /// What it is for, in words
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,

    /// Read the new password from a file; a line end at its end does not count
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_command")]
    new_password_file: Option<PathBuf>,

    /// Take the new password from what a shell command prints
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<String>,
}

/// The kinds of key slots.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Kind {
    /// Back up and restore: all but forget and prune
    #[default]
    Root,
    /// Forget and prune, together with a password of another kind
    Retention,
    /// List, verify structure and, with a retention password, forget and prune; reads no data of disks
    Inventory,
}

impl From<Kind> for SlotKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Root => Self::Root,
            Kind::Retention => Self::Retention,
            Kind::Inventory => Self::Inventory,
        }
    }
}

#[derive(Serialize)]
struct List {
    slots: Vec<Line>,
    /// What is in the place of key slots and opens nothing.
    damaged: Vec<String>,
    /// Key slots behind those that are tried.
    untried: Vec<String>,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    slot: String,
    kind: &'static str,
    label: String,
    created: Option<String>,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    #[serde(skip)]
    created_millis: u64,
}

#[derive(Serialize)]
struct Changed {
    slot: String,
    #[serde(flatten)]
    figures: Figures,
}

impl Line {
    fn new(info: &SlotInfo) -> Self {
        let KdfParams { memory_kib, passes, lanes } = info.kdf;
        Self {
            slot: info.name.to_string(),
            kind: info.kind.as_str(),
            label: info.label.clone(),
            created: times::rfc3339(info.created),
            memory_kib,
            passes,
            lanes,
            created_millis: info.created,
        }
    }
}

/// Lists or changes the key slots.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::List => list(settings),
        Action::Add(arguments) => add(settings, arguments),
        Action::Remove { slot } => remove(settings, slot),
    }
}

fn list(settings: &Settings) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let found = slots(&store)?;
    for (_, error) in &found.unreadable {
        warn(&format!("{error} and opens nothing; `keepstone key remove` removes it"));
    }
    if let Some(first) = found.untried.first() {
        let number = found.untried.len();
        warn(&format!(
            "{number} more key slots open nothing, because no more than {KEY_SLOTS_MAX} of a kind are tried: {first} and those behind it"
        ));
    }
    let report = List {
        slots: found.slots.iter().map(Line::new).collect(),
        damaged: found.unreadable.iter().map(|(name, _)| name.to_string()).collect(),
        untried: found.untried.iter().map(ToString::to_string).collect(),
        figures: Figures::take(stopwatch, &store),
    };
    settings.console.report(&report, |report| {
        let rows = report.slots.iter();
        let rows = rows.map(|slot| {
            let (slot_name, kind) = (slot.slot.clone(), slot.kind.to_owned());
            [slot_name, kind, times::local(slot.created_millis), one_line(&slot.label)]
        });
        table(["slot", "kind", "created", "label"], &[], rows)
    })?;
    Ok(Exit::Done)
}

fn add(settings: &Settings, arguments: &Add) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    if slots(&store)?.slots.iter().any(|info| info.name == arguments.slot) {
        bail!(Usage::new(format!("there is a key slot {} already", arguments.slot)).hint(
            "choose another name; to change a password, add a slot with the new one and remove the old slot"
        ));
    }
    let kind = SlotKind::from(arguments.kind);
    let password = match kind {
        SlotKind::Retention => retention_password(settings)?,
        SlotKind::Root | SlotKind::Inventory => open::password(settings)?,
    };
    let new_password = new_password(arguments).password(Question {
        text: "Password of the new slot",
        asking: Asking::Twice,
        otherwise: "give it with --new-password-file, --new-password-command or KEEPSTONE_NEW_PASSWORD",
    })?;
    let slot = NewSlot {
        name: &arguments.slot,
        label: &arguments.label,
        password: &new_password,
        kdf: KdfParams::default(),
        time: clock::now_millis(),
    };
    add_slot(&store, &password, kind, &slot, &open::entropy()?)?;
    let report = Changed { slot: arguments.slot.to_string(), figures: Figures::take(stopwatch, &store) };
    changed(settings, &report, "added")
}

fn new_password(arguments: &Add) -> Origin {
    let file = arguments.new_password_file.clone().map(Origin::File);
    let flag = file.or(arguments.new_password_command.clone().map(Origin::Command));
    let environment =
        std::env::var_os(NEW_PASSWORD_VARIABLE).map(|_| Origin::Environment(NEW_PASSWORD_VARIABLE));
    flag.or(environment).unwrap_or(Origin::Terminal)
}

/// Removes a slot. Whoever cannot open the repository has no business removing what opens it.
fn remove(settings: &Settings, slot: &SlotName) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let found = slots(&store)?;
    let blob = BlobName::key_slot(slot);
    let is_there = found.slots.iter().any(|info| info.name == *slot)
        || found.unreadable.iter().any(|(name, _)| *name == blob)
        || found.untried.contains(&blob);
    if !is_there {
        bail!(Usage::new(format!("there is no key slot {slot}")).hint("`keepstone key list` lists them"));
    }
    open::repository(settings, &store)?;
    remove_slot(&store, slot)?;
    let report = Changed { slot: slot.to_string(), figures: Figures::take(stopwatch, &store) };
    changed(settings, &report, "removed")
}

fn changed(settings: &Settings, report: &Changed, what: &str) -> anyhow::Result<Exit> {
    settings.console.report(report, |report| format!("key slot {} {what}\n", report.slot))?;
    Ok(Exit::Done)
}
