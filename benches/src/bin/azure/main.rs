//! Measures backups to Azurite and restores from it beside the same on a local repository and beside what a plain client
//! reaches, and restores over links with a delay.

mod bare;
mod job;
mod report;
mod running;
mod store;

use anyhow::ensure;
use clap::Parser;
use job::{Action, Job, Outcome, Place};
use keepstone_benches::files::{say, temporary_directory};
use keepstone_engine::extent::total_length;
use keepstone_engine::source::RawImage;
use keepstone_engine::{DiskSource, Extent};
use keepstone_peers::azurite::{Azurite, PRIMARY};
use keepstone_peers::proxy::{Link, LinkSettings};
use report::{Far, Near, Report, Round};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::{BARE_CONTAINER, REPOSITORY_CONTAINER};

/// Requests that the plain client has under way at one time where nothing is between it and Azurite.
const BARE_THREADS: usize = 8;

/// Measures a repository in Azurite beside a local one, and restores over slow links.
#[derive(Parser)]
struct Arguments {
    /// A raw disk image, which is only read; it should fit the page cache twice
    #[arg(required_unless_present = "job")]
    image: Option<PathBuf>,

    /// Where everything that is written goes for the time of the run [default: beside the image]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// How often everything is measured; the medians are printed
    #[arg(long, value_name = "N", default_value = "2")]
    rounds: NonZero<u32>,

    /// Round trips of the links, in milliseconds
    #[arg(long, value_name = "MS,...", value_delimiter = ',', default_values_t = [0, 20, 80])]
    delays: Vec<u64>,

    /// zstd's level
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,

    /// Only the parts that are measured over links, and what they need
    #[arg(long)]
    links_only: bool,

    /// Do one thing, which is given as JSON: how this program calls itself
    #[arg(long, hide = true)]
    job: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(job) = &arguments.job {
        let outcome = running::run(&serde_json::from_str(job)?)?;
        return Ok(serde_json::to_writer(io::stdout(), &outcome)?);
    }
    let image = arguments.image.as_deref().expect("it is required where there is no job");
    let allocated = allocated(image)?;
    say("reading the image once, so that it is in the page cache")?;
    read_whole(image)?;
    let directory = temporary_directory("keepstone-azure-", arguments.scratch.as_deref(), Some(image))?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds.get() {
        let directory = directory.path().join(format!("round-{number}"));
        fs::create_dir(&directory)?;
        let title = format!("round {number} of {}", arguments.rounds);
        let measuring = Measuring { arguments: &arguments, image, directory: &directory, title };
        rounds.push(measuring.round()?);
        fs::remove_dir_all(&directory)?;
    }
    let report = Report { allocated_bytes: total_length(&allocated), level: arguments.level, rounds };
    io::stdout().write_all(report.text().as_bytes())?;
    Ok(())
}

fn allocated(image: &Path) -> anyhow::Result<Vec<Extent>> {
    let areas = RawImage::open(image)?.changed_areas(None)?.areas;
    ensure!(!areas.is_empty(), "{} has no data", image.display());
    Ok(areas)
}

fn read_whole(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// One round.
struct Measuring<'a> {
    arguments: &'a Arguments,
    image: &'a Path,
    /// Empty at first.
    directory: &'a Path,
    title: String,
}

impl Measuring<'_> {
    fn round(&self) -> anyhow::Result<Round> {
        let service = self.directory.join("azurite");
        fs::create_dir(&service)?;
        let azurite = Azurite::start_in(&service);
        for container in [REPOSITORY_CONTAINER, BARE_CONTAINER] {
            azurite.create_container(&PRIMARY, container);
        }
        let far = |endpoint: String| Place::Azure { endpoint, server: azurite.process_id() };
        let direct = far(azurite.endpoint(&PRIMARY));
        let local = self.side(&Place::Local)?;
        let in_azurite = self.side(&direct)?;
        let mut bare_put = None;
        if !self.arguments.links_only {
            bare_put = Some(self.start(&direct, Action::BarePut { threads: BARE_THREADS })?);
        }
        let bare_get = self.start(&direct, Action::BareGet { threads: BARE_THREADS })?;
        let mut links = Vec::new();
        for (number, milliseconds) in (2..).zip(&self.arguments.delays) {
            let round_trip = Duration::from_millis(*milliseconds);
            let to: SocketAddr = azurite.origin().trim_start_matches("http://").parse()?;
            let link = Link::start(to, LinkSettings { round_trip, bytes_per_second: None });
            let place = far(format!("http://{}/{}", link.addr(), PRIMARY.name));
            let restore = self.start(&place, Action::RestoreToNothing)?;
            let threads = usize::try_from(restore.requests.most_in_flight)?;
            let bare = self.start(&place, Action::BareGet { threads })?;
            let changed = self.start(&place, Action::Changed { times: number })?;
            links.push(Far { milliseconds: *milliseconds, restore, bare, changed });
        }
        Ok(Round { local, azurite: in_azurite, bare_put, bare_get, links })
    }

    /// Backups and restores in one place.
    fn side(&self, place: &Place) -> anyhow::Result<Near> {
        let first = self.start(place, Action::FirstBackup)?;
        let changed = self.start(place, Action::Changed { times: 1 })?;
        let to_nothing = self.start(place, Action::RestoreToNothing)?;
        let mut to_file = None;
        if !self.arguments.links_only {
            to_file = Some(self.start(place, Action::RestoreToFile)?);
        }
        Ok(Near { first, changed, to_nothing, to_file })
    }

    /// Does one thing in a process of its own.
    fn start(&self, place: &Place, action: Action) -> anyhow::Result<Outcome> {
        say(&format!("{}: {} {}", self.title, place.name(), action.name()))?;
        let (image, directory) = (self.image.to_owned(), self.directory.to_owned());
        Job { image, directory, level: self.arguments.level, place: place.clone(), action }.start()
    }
}
