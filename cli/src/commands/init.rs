//! `keepstone init`

use crate::clock::{self, Stopwatch};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::open;
use crate::password::{Asking, Origin, Password, Question, ask_for_one_or_none};
use crate::retention_key::RETENTION_PASSWORD_OTHERWISE;
use crate::settings::Settings;
use keepstone_engine::Repository;
use keepstone_engine::repository::{NewSlot, slots};
use repo_format::{ChunkerName, ChunkerParams, Geometry, KdfParams, SlotKind, SlotName};
use serde::Serialize;

/// The arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The retention password is taken from --retention-password-file, --retention-password-command or the environment variable \
KEEPSTONE_RETENTION_PASSWORD; where the password is asked for at the terminal, so is this one. Give one that no backup \
host knows: then whoever breaks into a backup host can forget and prune nothing. Without one, the repository's password \
does all.")]
pub(crate) struct Arguments {
    /// The name of the first key slot
    #[arg(long, value_name = "NAME", default_value = "first")]
    slot: SlotName,

    /// The name of the retention key slot, whose password forgetting and pruning takes
    #[arg(long, value_name = "NAME", default_value = "retention")]
    retention_slot: SlotName,

    /// What the first key slot is for, in words
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,

    /// How disks are cut into chunks; a repository keeps its chunker
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    chunker: Chunker,
}

/// The chunkers, by the names that they have in the config.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Chunker {
    /// MinCDC: several times as fast
    #[default]
    #[value(name = "mincdc-hash4")]
    MinCdc,
    /// FastCDC: reads a little less around scattered changes that are small
    #[value(name = "fastcdc-2020")]
    FastCdc,
}

impl Chunker {
    fn name(self) -> ChunkerName {
        match self {
            Self::MinCdc => ChunkerName::MinCdcHash4,
            Self::FastCdc => ChunkerName::FastCdc2020,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    repository: String,
    slot: String,
    retention_slot: String,
    /// Whether the repository's password opens the retention slot as well.
    one_password: bool,
    #[serde(flatten)]
    figures: Figures,
}

/// Makes a repository.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::new_store(settings)?;
    let password = settings.password.password(Question {
        text: "Password of the new repository",
        asking: Asking::Twice,
        otherwise: open::PASSWORD_OTHERWISE,
    })?;
    let slot = NewSlot {
        name: &arguments.slot,
        label: &arguments.label,
        password: &password,
        kdf: KdfParams::default(),
        time: clock::now_millis(),
    };
    let geometry = Geometry { chunker: ChunkerParams::of(arguments.chunker.name()), ..Geometry::default() };
    let own = retention_password(settings)?.filter(|own| *own != password);
    let retention = NewSlot {
        name: &arguments.retention_slot,
        label: "",
        password: own.as_ref().unwrap_or(&password),
        ..slot
    };
    let repository = Repository::create(&store, geometry, &slot, &retention, &open::entropy()?)?;
    // An interrupted attempt may have left a slot of that name; then this one has a number behind it.
    let slots = slots(&store)?.slots;
    let made = |kind, named: &SlotName| {
        slots.iter().find(|slot| slot.kind == kind).map_or(named, |slot| &slot.name).to_string()
    };
    let slot = made(SlotKind::Root, &arguments.slot);
    let retention_slot = made(SlotKind::Retention, &arguments.retention_slot);
    let repository = repository.config().repository.to_string();
    let figures = Figures::take(stopwatch, &store);
    let report = Report { repository, slot, retention_slot, one_password: own.is_none(), figures };
    settings.console.report(&report, |report| format!("repository {}\n", report.repository))?;
    settings
        .console
        .message("keep the password safe: without it nothing in the repository can be read again, by anyone");
    if report.one_password {
        settings.console.message(&format!(
            "this password also forgets and prunes: whoever steals it from a backup host can delete backups. Before other \
             hosts get it, give the retention a password of its own: `keepstone key add NAME --kind retention`, then \
             `keepstone key remove {}`",
            report.retention_slot
        ));
    } else {
        settings.console.message(
            "keep the retention password safe, and away from backup hosts: without it nothing can be forgotten or pruned",
        );
    }
    Ok(Exit::Done)
}

/// The password of the retention slot, if it is to have one of its own.
fn retention_password(settings: &Settings) -> anyhow::Result<Option<Password>> {
    let question = Question {
        text: "Retention password, which forgetting and pruning takes (none: the same)",
        asking: Asking::Twice,
        otherwise: RETENTION_PASSWORD_OTHERWISE,
    };
    match (&settings.retention_password, &settings.password) {
        (Some(origin), _) => origin.password(question).map(Some),
        (None, Origin::Terminal) => ask_for_one_or_none(question),
        (None, _) => Ok(None),
    }
}
