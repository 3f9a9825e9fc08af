//! `keepstone init`

use crate::clock::{self, Stopwatch};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::open;
use crate::password::{Asking, Question};
use crate::settings::Settings;
use keepstone_engine::Repository;
use keepstone_engine::repository::{NewSlot, slots};
use repo_format::{ChunkerName, ChunkerParams, Geometry, KdfParams, SlotKind, SlotName};
use serde::Serialize;

/// The arguments of `init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The name of the first key slot
    #[arg(long, value_name = "NAME", default_value = "first")]
    slot: SlotName,

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
    let retention = NewSlot { name: &SlotName::new("retention").expect("it is a name"), ..slot };
    let repository = Repository::create(&store, geometry, &slot, &retention, &open::entropy()?)?;
    // An interrupted attempt may have left a slot of that name; then this one has a number behind it.
    let slots = slots(&store)?.slots;
    let root = slots.iter().find(|slot| slot.kind == SlotKind::Root);
    let made = root.map_or(&arguments.slot, |slot| &slot.name);
    let repository = repository.config().repository.to_string();
    let figures = Figures::take(stopwatch, &store);
    let report = Report { repository, slot: made.to_string(), figures };
    settings.console.report(&report, |report| format!("repository {}\n", report.repository))?;
    settings
        .console
        .message("keep the password safe: without it nothing in the repository can be read again, by anyone");
    Ok(Exit::Done)
}
