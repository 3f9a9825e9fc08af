//! Measures the local index with many chunks: looking up, adding sessions, merging, synchronising a fresh host.

mod fleet;
mod phases;
mod process;
mod report;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use fleet::Fleet;
use keepstone_benches::files::{say, temporary_directory};
use phases::{Grown, Ids, Looked, Place, Synced};
use report::Results;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The cache that is filled by adding sessions, and the one that is filled by synchronising.
const GROWN: &str = "grown";
const SYNCHRONISED: &str = "synchronised";
const LIMITED: &str = "limited";
const NO_LIMIT: u64 = u64::MAX;

/// Makes index blobs of many sessions, and measures a local index of them.
#[derive(Parser)]
struct Arguments {
    /// How many sessions there are
    #[arg(long, value_name = "N", default_value = "100")]
    sessions: u64,

    /// How many new chunks each of them has
    #[arg(long, value_name = "N", default_value = "100000")]
    chunks: u64,

    /// How long each kind of lookup is measured
    #[arg(long, value_name = "S", default_value = "3")]
    seconds: f64,

    /// Threads that look up at one time
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 4])]
    threads: Vec<usize>,

    /// Where everything is for the time of the run: about 160 bytes for each chunk
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Do one thing in the directory of --scratch: how this program calls itself
    #[command(subcommand)]
    phase: Option<Phase>,
}

/// One thing that is done in a process of its own.
#[derive(Clone, Debug, clap::Subcommand)]
#[command(hide = true)]
enum Phase {
    /// Stores the index blobs of all sessions but the last
    Store,
    /// Stores those of the last one
    StoreLast,
    /// Adds sessions one after the other
    Grow,
    /// Looks up
    Look { cache: String, ids: Ids, threads: usize, is_cold: u8 },
    /// Synchronises
    Sync { cache: String, budget_bytes: u64 },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.sessions > 1 && arguments.chunks > 0, "there must be sessions with chunks");
    if let (Some(phase), Some(scratch)) = (&arguments.phase, &arguments.scratch) {
        return run(&arguments, phase, scratch);
    }
    let scratch = temporary_directory("keepstone-index-", arguments.scratch.as_deref(), None)?;
    let results = Run { arguments: &arguments, scratch: scratch.path() }.all()?;
    writeln!(io::stdout(), "{}", report::text(&results))?;
    Ok(())
}

fn fleet(arguments: &Arguments) -> Fleet {
    Fleet { sessions: arguments.sessions, chunks: arguments.chunks }
}

/// Does one thing in this process.
fn run(arguments: &Arguments, phase: &Phase, scratch: &Path) -> anyhow::Result<()> {
    let place = |cache| Place { scratch, cache, fleet: fleet(arguments) };
    let last = arguments.sessions - 1;
    match phase {
        Phase::Store => {
            place(GROWN).create()?;
            print(&place(GROWN).store(0..last)?)
        }
        Phase::StoreLast => print(&place(GROWN).store(last..last + 1)?),
        Phase::Grow => print(&place(GROWN).grow()?),
        Phase::Look { cache, ids, threads, is_cold } => {
            print(&place(cache).look_up(*ids, *threads, *is_cold != 0, arguments.seconds)?)
        }
        Phase::Sync { cache, budget_bytes } => print(&place(cache).synchronise(*budget_bytes)?),
    }
}

fn print(result: &impl Serialize) -> anyhow::Result<()> {
    Ok(serde_json::to_writer(io::stdout(), result)?)
}

/// A run of everything.
struct Run<'a> {
    arguments: &'a Arguments,
    scratch: &'a Path,
}

impl Run<'_> {
    fn all(&self) -> anyhow::Result<Results> {
        let fleet = fleet(self.arguments);
        say(&format!("making the indexes of {} chunks in {}", fleet.len(), self.scratch.display()))?;
        let () = self.start(&["store"])?;
        say("a fresh host synchronises")?;
        let first_sync: Synced = self.synchronise(SYNCHRONISED, NO_LIMIT)?;
        let no_sync: Synced = self.synchronise(SYNCHRONISED, NO_LIMIT)?;
        let () = self.start(&["store-last"])?;
        let one_sync: Synced = self.synchronise(SYNCHRONISED, NO_LIMIT)?;
        ensure!(one_sync.entries == fleet.len(), "the index has {} entries", one_sync.entries);
        let synchronised = self.look_up(SYNCHRONISED)?;
        // A cache that is larger than what it may be is cut down, and a fresh one does not become so.
        let budget_bytes = one_sync.fetched_bytes.max(first_sync.fetched_bytes) / 2;
        let cut: Synced = self.synchronise(SYNCHRONISED, budget_bytes)?;
        self.remove(SYNCHRONISED)?;
        let limited: Synced = self.synchronise(LIMITED, budget_bytes)?;
        self.remove(LIMITED)?;
        say("one host adds all sessions")?;
        let grown: Grown = self.start(&["grow"])?;
        let looked = self.look_up(GROWN)?;
        self.remove(GROWN)?;
        Ok(Results {
            fleet,
            first_sync,
            no_sync,
            one_sync,
            budget_bytes,
            cut,
            limited,
            grown,
            looked: vec![("synchronised", synchronised), ("grown", looked)],
        })
    }

    fn remove(&self, cache: &str) -> anyhow::Result<()> {
        Place { scratch: self.scratch, cache, fleet: fleet(self.arguments) }.remove()
    }

    fn synchronise(&self, cache: &str, budget_bytes: u64) -> anyhow::Result<Synced> {
        self.start(&["sync", cache, &budget_bytes.to_string()])
    }

    /// All kinds of lookups in one cache, warm ones first.
    fn look_up(&self, cache: &str) -> anyhow::Result<Vec<Looked>> {
        say(&format!("looking up in the {cache} index"))?;
        let mut all = Vec::new();
        for is_cold in [false, true] {
            for &threads in &self.arguments.threads {
                for ids in [Ids::Misses, Ids::Hits, Ids::Runs] {
                    let name = ids.to_possible_value().context("no value is left out")?;
                    let cold = u8::from(is_cold).to_string();
                    let looked = ["look", cache, name.get_name(), &threads.to_string(), &cold];
                    all.push(self.start(&looked)?);
                }
            }
        }
        Ok(all)
    }

    fn start<T: DeserializeOwned>(&self, phase: &[&str]) -> anyhow::Result<T> {
        let arguments = self.arguments;
        let output = Command::new(std::env::current_exe()?)
            .args(["--sessions", &arguments.sessions.to_string()])
            .args(["--chunks", &arguments.chunks.to_string()])
            .args(["--seconds", &arguments.seconds.to_string()])
            .arg("--scratch")
            .arg(self.scratch)
            .args(phase)
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "a part of the run failed: {}", phase.join(" "));
        serde_json::from_slice(&output.stdout).context("a part of the run did not report")
    }
}
