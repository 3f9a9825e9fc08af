//! Backups of one disk in several sizes, always with the same changes: what they cost should follow the changes.

use crate::huge::{Day, HugeDisk};
use crate::{again, directory};
use anyhow::Context as _;
use keepstone_benches::files::{Nothing, say};
use keepstone_benches::meter::{self, Cost};
use keepstone_benches::repository::{DISK, Run, back_up, create, open, open_index, writer};
use keepstone_benches::table::{float, new_table};
use keepstone_engine::diff::diff;
use keepstone_engine::extent::total_length;
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::list;
use keepstone_engine::store::{LocalStore, RecordingStore};
use keepstone_engine::verify::{ReadData, VerifyJob, Which, verify};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const GIB: u64 = 1 << 30;
const VM: &str = "huge";
/// Blocks that are checked lie on whole blocks of 16 MiB.
const CLUSTER_MIB: u64 = 16;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The sizes of the disk, in GiB: all should give the same figures
    #[arg(long, value_name = "GIB,...", value_delimiter = ',', default_values_t = [62, 1024, 63_488])]
    sizes: Vec<u64>,

    /// What changes between backups, in MiB: once scattered in blocks of 64 KiB, once in clusters of 16 MiB
    #[arg(long, value_name = "MIB,...", value_delimiter = ',', default_values_t = [96, 1024, 4096])]
    changes: Vec<u64>,

    /// What is allocated at first, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    allocated: u64,

    /// Where the repositories are for the time of the run [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Run one phase over the files in the directory: how this program calls itself
    #[arg(long, hide = true, requires = "repository")]
    phase: Option<usize>,
}

/// What is measured of one disk, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Phase {
    /// The backup after that many days.
    Backup(usize),
    NothingChanged,
    Diff,
    Restore,
    Verify,
}

/// What a phase took; sizes in bytes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    disk_bytes: u64,
    name: String,
    #[serde(flatten)]
    cost: Cost,
    /// What was told as changed or allocated, found to differ, or written.
    changed_bytes: u64,
    read_bytes: u64,
    stored_bytes: u64,
    metadata_bytes: u64,
    put: u64,
    get: u64,
    list: u64,
}

impl Arguments {
    /// What is written on each day; the first one makes the disk.
    fn days(&self) -> Vec<Day> {
        let first = Day { mib: self.allocated.next_multiple_of(CLUSTER_MIB), is_scattered: false };
        let scattered = self.changes.iter().map(|&mib| Day { mib, is_scattered: true });
        let clustered = self.changes.iter().map(|&mib| Day { mib, is_scattered: false });
        std::iter::once(first).chain(scattered).chain(clustered).collect()
    }

    fn phases(&self) -> Vec<Phase> {
        let backups = (1..=self.days().len()).map(Phase::Backup);
        backups.chain([Phase::NothingChanged, Phase::Diff, Phase::Restore, Phase::Verify]).collect()
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<String> {
    if let (Some(phase), Some(directory)) = (arguments.phase, &arguments.repository) {
        let size = arguments.sizes.first().context("a size")? * GIB;
        return Ok(serde_json::to_string(&measure(arguments, size, directory, phase)?)?);
    }
    let mut all = Vec::new();
    for size in &arguments.sizes {
        let directory = directory(arguments.repository.as_ref())?;
        for phase in 0..arguments.phases().len() {
            let path = directory.path().to_str().context("the directory's name is no text")?;
            let changes = arguments.changes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            let (size, allocated) = (size.to_string(), arguments.allocated.to_string());
            let phase = phase.to_string();
            let of_phase =
                ["--sizes", &size, "--changes", &changes, "--allocated", &allocated, "--phase", &phase];
            let call: Vec<String> = ["disk"]
                .iter()
                .chain(&of_phase)
                .chain(&["--repository", path])
                .map(|&part| part.to_owned())
                .collect();
            let measured: Measured = serde_json::from_slice(&again(&call)?)?;
            say(&format!("{size} GiB, {}: {:.2} s", measured.name, measured.cost.wall_seconds))?;
            all.push(measured);
        }
    }
    if arguments.json {
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    Ok(text(&all))
}

fn measure(arguments: &Arguments, size: u64, directory: &Path, phase: usize) -> anyhow::Result<Measured> {
    let (days, path) = (arguments.days(), directory.join("repository"));
    let is_first = phase == 0;
    let store =
        RecordingStore::new(if is_first { LocalStore::create(&path) } else { LocalStore::open(&path) }?);
    let repository = if is_first { create(&store) } else { open(&store) }?;
    let phase = arguments.phases()[phase];
    let name = match phase {
        Phase::Backup(1) => "first backup".to_owned(),
        Phase::Backup(day) if days[day - 1].is_scattered => format!("{} MiB scattered", days[day - 1].mib),
        Phase::Backup(day) => format!("{} MiB clustered", days[day - 1].mib),
        Phase::NothingChanged => "nothing changed".to_owned(),
        Phase::Diff => "diff of the last two".to_owned(),
        Phase::Restore => "restore to nothing".to_owned(),
        Phase::Verify => "verify".to_owned(),
    };
    let disk = match phase {
        Phase::Backup(day) => HugeDisk::after(size, &days[..day]),
        _ => HugeDisk::after(size, &days).unchanged(),
    };
    let snapshots = list(&repository, Some(VM))?.snapshots;
    let sessions: Vec<_> =
        snapshots.iter().rev().map(keepstone_engine::snapshots::Snapshot::session).collect();
    let number = u8::try_from(snapshots.len()).expect("a few snapshots");
    let before = store.requests();
    let (sizes, cost) = meter::measure(directory, || -> anyhow::Result<[u64; 4]> {
        Ok(match phase {
            Phase::Backup(_) | Phase::NothingChanged => {
                let mut index = open_index(&repository, Some(&directory.join("index")))?;
                let preference = Preference { sessions: &sessions, writers: &[writer()] };
                sync(&mut index, &store, repository.keys(), &preference, &Quiet)?;
                let run = Run { vm: VM, source: &disk, level: 1, number };
                let report = back_up(&repository, &mut index, &run)?;
                let of_disk = &report.disks[0];
                [of_disk.changed_bytes, of_disk.read_bytes, report.stored_bytes, report.metadata_bytes]
            }
            Phase::Diff => {
                let [.., before, after, _] = snapshots.as_slice() else {
                    anyhow::bail!("there are two days")
                };
                let areas = diff(&repository, before.disk(Some(DISK))?, after.disk(Some(DISK))?)?;
                [total_length(&areas), 0, 0, 0]
            }
            Phase::Restore => {
                let last = snapshots.last().context("there is a backup")?;
                let job = RestoreJob::new(last.session(), last.disk(Some(DISK))?, &Nothing);
                let report = restore(&repository, &job, &Quiet)?;
                [report.written_bytes, report.fetched_bytes, 0, 0]
            }
            Phase::Verify => {
                let snapshots = snapshots.last().cloned().into_iter().collect();
                let job = VerifyJob { which: Which::These(snapshots), read_data: ReadData::Nothing, time: 0 };
                let report = verify(&repository, &job, &Quiet)?;
                anyhow::ensure!(report.findings.is_empty(), "{:?}", report.findings);
                [0, 0, 0, 0]
            }
        })
    })?;
    let [changed_bytes, read_bytes, stored_bytes, metadata_bytes] = sizes;
    let requests = store.requests().since(&before);
    let (put, get, list) = (requests.put, requests.get, requests.list);
    let read_bytes = if read_bytes == 0 { requests.get_bytes } else { read_bytes };
    Ok(Measured {
        disk_bytes: size,
        name,
        cost,
        changed_bytes,
        read_bytes,
        stored_bytes,
        metadata_bytes,
        put,
        get,
        list,
    })
}

fn text(all: &[Measured]) -> String {
    let mut table = new_table(&[
        "phase",
        "disk GiB",
        "wall s",
        "CPU s",
        "peak MiB",
        "changed MiB",
        "read MiB",
        "stored MiB",
        "metadata MiB",
        "put",
        "get",
        "list",
        "CPU s/GiB",
        "metadata/GiB",
    ]);
    let mib = |bytes: u64| format!("{:.2}", float(bytes) / float(1 << 20));
    // The same phase of all sizes together.
    let mut names: Vec<&str> = Vec::new();
    for measured in all {
        if !names.contains(&measured.name.as_str()) {
            names.push(&measured.name);
        }
    }
    for name in names {
        for one in all.iter().filter(|measured| measured.name == name) {
            let gib = float(one.changed_bytes) / float(GIB);
            let per_gib = |value: f64| if gib > 0.0 { format!("{:.2}", value / gib) } else { String::new() };
            table.add_row([
                name.to_owned(),
                (one.disk_bytes / GIB).to_string(),
                format!("{:.3}", one.cost.wall_seconds),
                format!("{:.3}", one.cost.cpu_seconds),
                mib(one.cost.peak_rss_bytes),
                mib(one.changed_bytes),
                mib(one.read_bytes),
                mib(one.stored_bytes),
                mib(one.metadata_bytes),
                one.put.to_string(),
                one.get.to_string(),
                one.list.to_string(),
                per_gib(one.cost.cpu_seconds),
                per_gib(float(one.metadata_bytes) / float(1 << 20)),
            ]);
        }
    }
    format!("{table}\n")
}
