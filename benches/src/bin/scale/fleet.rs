//! A repository with a snapshot of every VM of every day, and what it takes to find something in it.
//!
//! The snapshots are valid, and made without data: their disks are those of a few real backups. Each day of a VM also has
//! its intent and an index blob, as a backup leaves them, so that opening a backup meets what it would meet.

use crate::{again, directory};
use anyhow::Context as _;
use keepstone_benches::files::say;
use keepstone_benches::meter::{self, Cost};
use keepstone_benches::random::Random;
use keepstone_benches::repository::{DISK, Run, back_up, create, open, open_index, writer};
use keepstone_benches::table::{float, new_table};
use keepstone_benches::tracked::TrackedDisk;
use keepstone_engine::Repository;
use keepstone_engine::diff::diff;
use keepstone_engine::index::{LocalIndex, Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::{Query, Selector, each, find, list, matching};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::stats::{stats, stats_of};
use keepstone_engine::store::{BlobStore, LocalStore, Page, Put, RecordingStore, StoreError};
use rayon::prelude::*;
use repo_format::{
    BlobName, Commit, Decision, DecisionName, Disk, DiskMode, Index, Intent, SessionId, Totals,
};
use serde::{Deserialize, Serialize};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// The first day, milliseconds since 1970.
const FIRST_DAY: u64 = 1_700_000_000_000;
/// Real backups whose disks all snapshots have.
const REAL: u8 = 8;
/// Names that Azure lists in one page.
const AZURE_PAGE: u64 = 5000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// VMs
    #[arg(long, value_name = "N", default_value_t = 1000)]
    vms: u64,

    /// Days, of each of which every VM has a snapshot
    #[arg(long, value_name = "N", default_value_t = 365)]
    days: u32,

    /// Where the repository is for the time of the run [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Ask one question over the files in the directory: how this program calls itself
    #[arg(long, value_enum, hide = true, requires = "repository")]
    question: Option<Question>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Question {
    Latest,
    AtTime,
    IdPrefix,
    OneVm,
    NewestOfEach,
    SinceAWeek,
    All,
    DiffOfTwo,
    StatsOfOne,
    Stats,
    OpenBackup,
}

impl Question {
    fn words(self) -> &'static str {
        match self {
            Self::Latest => "VM@latest",
            Self::AtTime => "VM@TIME, half a year ago",
            Self::IdPrefix => "id prefix",
            Self::OneVm => "snapshots --vm",
            Self::NewestOfEach => "snapshots --limit 1",
            Self::SinceAWeek => "snapshots --since a week ago",
            Self::All => "snapshots",
            Self::DiffOfTwo => "diff VM@latest VM@TIME",
            Self::StatsOfOne => "stats --vm",
            Self::Stats => "stats",
            Self::OpenBackup => "backup, nothing changed",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    question: String,
    #[serde(flatten)]
    cost: Cost,
    /// Snapshots that it found.
    found: u64,
    get: u64,
    put: u64,
    /// Listings that were asked for, and the pages that Azure would give them in.
    list: u64,
    azure_pages: u64,
}

/// A store that counts the pages that Azure would give.
pub(crate) struct Paged<S> {
    inner: S,
    pages: AtomicU64,
}

impl<S> Paged<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, pages: AtomicU64::new(0) }
    }
}

/// What was asked of a store, and the pages that Azure would give its listings in.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(crate) get: u64,
    pub(crate) list: u64,
    pub(crate) azure_pages: u64,
}

impl Asked {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            get: self.get - before.get,
            list: self.list - before.list,
            azure_pages: self.azure_pages - before.azure_pages,
        }
    }
}

pub(crate) fn asked(store: &RecordingStore<Paged<LocalStore>>) -> Asked {
    let requests = store.requests();
    let azure_pages = store.inner().pages.load(Ordering::Relaxed);
    Asked { get: requests.get, list: requests.list, azure_pages }
}

impl<S: BlobStore> BlobStore for Paged<S> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        let page = self.inner.list(prefix, from, limit)?;
        self.pages.fetch_add((page.blobs.len() as u64).div_ceil(AZURE_PAGE).max(1), Ordering::Relaxed);
        Ok(page)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

fn vm(number: u64) -> String {
    format!("vm-{number:04}")
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<String> {
    if let (Some(question), Some(directory)) = (arguments.question, &arguments.repository) {
        return Ok(serde_json::to_string(&ask(arguments, question, directory)?)?);
    }
    let directory = directory(arguments.repository.as_ref())?;
    say(&format!("making {} snapshots", arguments.vms * u64::from(arguments.days)))?;
    make(arguments, directory.path())?;
    let mut answers: Vec<Answer> = Vec::new();
    for question in <Question as clap::ValueEnum>::value_variants() {
        let name = clap::ValueEnum::to_possible_value(question).expect("no question is left out");
        let path = directory.path().to_str().context("the directory's name is no text")?;
        let (vms, days) = (arguments.vms.to_string(), arguments.days.to_string());
        let call =
            ["fleet", "--vms", &vms, "--days", &days, "--question", name.get_name(), "--repository", path];
        let answer: Answer = serde_json::from_slice(&again(&call.map(ToOwned::to_owned))?)?;
        say(&format!("{}: {:.3} s", answer.question, answer.cost.wall_seconds))?;
        answers.push(answer);
    }
    if arguments.json {
        return Ok(serde_json::to_string_pretty(&answers)? + "\n");
    }
    let mut table = new_table(&[
        "question",
        "wall s",
        "CPU s",
        "peak MiB",
        "found",
        "get",
        "put",
        "list",
        "pages in Azure",
    ]);
    for answer in &answers {
        table.add_row([
            answer.question.clone(),
            format!("{:.3}", answer.cost.wall_seconds),
            format!("{:.3}", answer.cost.cpu_seconds),
            format!("{:.0}", float(answer.cost.peak_rss_bytes) / float(1 << 20)),
            answer.found.to_string(),
            answer.get.to_string(),
            answer.put.to_string(),
            answer.list.to_string(),
            answer.azure_pages.to_string(),
        ]);
    }
    Ok(format!("{table}\n"))
}

/// Makes the repository: a few real backups, and then snapshots with their disks.
fn make(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let path = directory.join("repository");
    let store = LocalStore::create(&path)?;
    let repository = create(&store)?;
    let mut index = open_index(&repository, None)?;
    let disk = keepstone_benches::synthetic::disk(1, 16 << 20);
    for number in 0..REAL {
        let mut bytes = disk.clone();
        bytes[usize::from(number) << 20..][..4096].fill(number);
        let disk = MemoryDisk::new(bytes);
        let run = Run { vm: "real", source: &disk, level: 1, number };
        back_up(&repository, &mut index, &run)?;
    }
    let disks: Vec<Disk> = list(&repository, Some("real"))?
        .snapshots
        .into_iter()
        .map(|real| real.commit.disks[0].clone())
        .collect();
    (0..arguments.vms)
        .into_par_iter()
        .try_for_each(|number| make_vm(arguments, &repository, &path, &disks, number))
}

/// The id of a VM's session of a day.
fn session(vm: u64, day: u32) -> SessionId {
    let mut random = Random::new(vm << 32 | u64::from(day));
    let (high, low) = (random.draw(), random.draw());
    SessionId((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
}

fn make_vm(
    arguments: &Arguments,
    repository: &Repository<'_>,
    path: &Path,
    disks: &[Disk],
    number: u64,
) -> anyhow::Result<()> {
    let keys = repository.keys();
    let (tag, writer) = (keys.vm_tag(&vm(number)), writer());
    let mut parent = None;
    for day in 0..arguments.days {
        let session = session(number, day);
        let salt = *blake3::hash(&session.0).as_bytes();
        let time = FIRST_DAY + u64::from(day) * DAY_MILLIS + number;
        let name = DecisionName { vm: tag, writer: writer.clone(), seq: day, session };
        let intent = Intent { session, decision: name.clone(), generation: 0, time };
        let (blob, bytes) = intent.seal(keys, salt);
        put(path, &blob, &bytes)?;
        let index = Index { sessions: vec![(session, name.clone())], packs: Vec::new(), entries: Vec::new() };
        let blob = BlobName::index(&writer, session, 0);
        put(path, &blob, &index.seal(keys, &blob, salt))?;
        let commit = Commit {
            session,
            time,
            program: "benchmark".to_owned(),
            vm: vm(number),
            parent: parent.replace(name.clone()),
            via: Vec::new(),
            tags: vec!["nightly".to_owned()],
            properties: Vec::new(),
            disks: vec![Disk {
                change_id: Some(format!("52 de ad be ef 01 23 45-67 89 ab cd ef 01 23 45/{day}")),
                mode: DiskMode::Incremental,
                ..disks[(day as usize + usize::try_from(number).unwrap_or(0)) % disks.len()].clone()
            }],
            totals: Totals {
                chunks: 100,
                new_chunks: 10,
                new_bytes: 1 << 20,
                stored_bytes: 1 << 19,
                ..Totals::default()
            },
        };
        put(path, &name.blob(), &Decision::Commit(Box::new(commit)).seal(keys, &name, salt))?;
    }
    Ok(())
}

/// Writes a blob as a local store keeps it; not through the store, which would wait for the disk each time.
pub(crate) fn put(path: &Path, name: &BlobName, bytes: &[u8]) -> anyhow::Result<()> {
    let path = path.join(name.as_str());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::write(path, bytes)?)
}

fn ask(arguments: &Arguments, question: Question, directory: &Path) -> anyhow::Result<Answer> {
    let paged = Paged::new(LocalStore::open(&directory.join("repository"))?);
    let store = RecordingStore::new(paged);
    let repository = open(&store)?;
    let wanted = arguments.vms / 2;
    let name = vm(wanted);
    let last = FIRST_DAY + u64::from(arguments.days) * DAY_MILLIS;
    let at_time = || Selector::AtTime(name.clone(), last - DAY_MILLIS * u64::from(arguments.days) / 2);
    let latest = || Selector::Latest(name.clone());
    if question == Question::OpenBackup {
        // The index was fetched on an earlier day.
        synchronised(&repository, directory)?;
    }
    let before = (store.requests(), store.inner().pages.load(Ordering::Relaxed));
    let (found, cost) = meter::measure(directory, || -> anyhow::Result<u64> {
        Ok(match question {
            Question::Latest => u64::from(find(&repository, &latest())?.commit.vm == name),
            Question::AtTime => u64::from(find(&repository, &at_time())?.commit.vm == name),
            Question::IdPrefix => {
                let id = session(wanted, arguments.days / 2).to_string()[..12].to_owned();
                u64::from(find(&repository, &Selector::Id(id))?.commit.vm == name)
            }
            Question::OneVm => list(&repository, Some(&name))?.snapshots.len() as u64,
            Question::NewestOfEach => counted(&repository, &Query { newest: Some(1), ..Query::default() })?,
            Question::SinceAWeek => {
                let since = Some(last - 7 * DAY_MILLIS);
                counted(&repository, &Query { since, ..Query::default() })?
            }
            Question::All => counted(&repository, &Query::default())?,
            Question::DiffOfTwo => {
                let (a, b) = (find(&repository, &latest())?, find(&repository, &at_time())?);
                diff(&repository, a.disk(Some(DISK))?, b.disk(Some(DISK))?)?;
                2
            }
            Question::StatsOfOne => stats_of(&repository, &name)?.snapshots,
            Question::Stats => stats(&repository)?.snapshots,
            Question::OpenBackup => nothing_changed(&repository, &name, directory)?,
        })
    })?;
    let requests = store.requests().since(&before.0);
    Ok(Answer {
        question: question.words().to_owned(),
        cost,
        found,
        get: requests.get,
        put: requests.put,
        list: requests.list,
        azure_pages: store.inner().pages.load(Ordering::Relaxed) - before.1,
    })
}

/// Goes through snapshots as a list does, keeping no more of each than it shows.
fn counted(repository: &Repository<'_>, query: &Query<'_>) -> anyhow::Result<u64> {
    let mut count = 0;
    each(repository, query, &mut |_| count += 1)?;
    Ok(count)
}

/// A backup of a VM of which nothing changed.
fn nothing_changed(repository: &Repository<'_>, name: &str, directory: &Path) -> anyhow::Result<u64> {
    let query = Query { vm: Some(name), newest: Some(1), since: None };
    let parent = matching(repository, &query)?.snapshots.pop().context("there is a snapshot")?;
    let of_disk = parent.disk(Some(DISK))?;
    let empty = MemoryDisk::new(vec![0; usize::try_from(of_disk.size)?]);
    let since = of_disk.change_id.clone().context("it has a change id")?;
    let disk = TrackedDisk::unchanged(&empty, &since, "now");
    let mut index = synchronised(repository, directory)?;
    let report = back_up(repository, &mut index, &Run { vm: name, source: &disk, level: 1, number: 200 })?;
    Ok(u64::from(report.disks[0].mode == "incremental"))
}

/// The local index, with all that other sessions have added.
fn synchronised(repository: &Repository<'_>, directory: &Path) -> anyhow::Result<LocalIndex> {
    let mut index = open_index(repository, Some(&directory.join("index")))?;
    let preference = Preference { sessions: &[], writers: &[writer()] };
    sync(&mut index, repository.store(), repository.keys(), &preference, &Quiet)?;
    Ok(index)
}
