//! `keepstone backup`

mod disks;
mod list;
mod machine;
mod several;
mod told;

use crate::azure::{Uploads, parse_tier};
use crate::clock::{self, EveryMinute, Stopwatch};
use crate::exit::{Exit, Usage};
use crate::figures::Figures;
use crate::index;
use crate::numbers::{Ppm, parse_percent, parse_size};
use crate::open;
use crate::progress::Progress;
use crate::running::Running;
use crate::selector;
use crate::settings::{Compression, Settings};
use crate::vsphere::{Center, VSphereArguments};
pub(super) use disks::read_changes;
use disks::{Disk, disks};
use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, CountedFrom, JobDisk, Reading, Together, Unfinished, backup,
    backup_together,
};
use keepstone_engine::index::LocalIndex;
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::store::azure::Tier;
use keepstone_engine::vsphere::VSpherePlace;
use keepstone_engine::{DiskSource, Repository};
use machine::{MachineArguments, MachineReport};
pub(super) use machine::{parse_key, parse_place};
use std::path::PathBuf;
use told::{Report, attention, text};

pub(super) const PROGRAM: &str = concat!("keepstone ", env!("CARGO_PKG_VERSION"));

/// The arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A changes file tells what changed on a disk, with the fields of vSphere:
  {\"diskSize\": n, \"changeId\": \"now\", \"since\": \"then\",
   \"changedArea\": [{\"start\": n, \"length\": n}, ...]}

Only these areas are read if `since` is the change id that the VM's newest snapshot recorded for the disk. Else the \
disk is read in full, the report says why, and the exit code is 4.

A dirty bitmap is read over NBD, as qemu-nbd --bitmap=NAME offers it. It must have been made or cleared when the \
snapshot was taken that it counts from. If the server does not have it, or a later session may have had it cleared, the \
disk is read in full, and the exit code is 4.

An audit reads some of what was said to be unchanged all the same, regions of 16 MiB chosen at random, and compares it \
with the newest snapshot. If anything differs, it is stored as it is, more is read around it and elsewhere, the report \
says which ranges, and the exit code is 4. Without --audit it is 0.5 % of the regions where a dirty bitmap or vSphere \
told the changes, and with changes files one region in a hundred at most, fewer if little changed.

Several VMs are backed up by one command, some at a time, if several SOURCEs in vSphere or a list is given:
  [[vm]]
  source = \"vsphere://vcenter.example.com/Datacenter/vm/web\"
  [[vm]]
  name = \"mail\"
  source = \"nbd://host/mail\"
  bitmap = \"day\"
  [[vm]]
  name = \"files\"
  tags = [\"large\"]
  disks = { system = \"/dev/vg/system\", data = { source = \"/dev/vg/data\", changes = \"data.json\" } }

A [[vm]] may have name, source or disks, changes, bitmap, since, tags, exclude-disks and full; everything else is said \
on the command line and is for all of them. They share processors, memory and connections. A VM that fails keeps no \
other from being backed up; the exit code is that of the worst: 130, 3, 1, 2, 4, 0.")]
#[derive(Clone)]
pub(crate) struct Arguments {
    /// The VM's name; of a VM in vSphere, the name that it has there if nothing is said
    #[arg(long, value_name = "NAME", value_parser = vm_name)]
    vm: Option<String>,

    /// The VM's only disk, which gets the key `disk0`, or a VM in vSphere with all its disks
    ///
    /// A raw image, a block device, an export of an NBD server (`nbd://HOST:PORT/EXPORT` or
    /// `nbd+unix:///EXPORT?socket=PATH`, with nbds for TLS), or `vsphere://HOST/DATACENTER/vm/NAME`. Of the latter there may
    /// be several.
    #[arg(value_name = "SOURCE", required_unless_present_any = ["disk", "list"], conflicts_with = "disk")]
    source: Vec<String>,

    /// One of the VM's disks, by a key that is the same in every backup; once for each disk
    #[arg(long, value_name = "KEY=SOURCE", value_parser = keyed_source)]
    disk: Vec<Named>,

    /// What changed since the VM's newest snapshot; with several disks KEY=FILE, once for each
    #[arg(long, value_name = "FILE")]
    changes: Vec<String>,

    /// The dirty bitmap of an NBD server that tells what changed; KEY=NAME for one disk of several
    #[arg(long, value_name = "NAME")]
    bitmap: Vec<String>,

    /// The snapshot that the dirty bitmaps count from [default: the VM's newest, unless a later session failed]
    #[arg(long, value_name = "SNAPSHOT", value_parser = selector::parse, requires = "bitmap")]
    since: Option<Selector>,

    /// Back up all VMs that a TOML file lists; relative paths in it count from its directory
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vm", "source", "disk", "changes", "bitmap", "since"])]
    list: Option<PathBuf>,

    /// Back up so many of several VMs at a time, 1 to 64 [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: Option<u8>,

    /// What the backups of several VMs may hold in memory together of what they read and store [default: 448MiB or more]
    ///
    /// By default all that run at a time have room. With less, some wait for others to end.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,

    #[command(flatten)]
    machine: MachineArguments,

    /// Read everything, whatever the changes are
    #[arg(long)]
    full: bool,

    /// Check this share of what was said to be unchanged, in per cent of the regions, 0 to 100 [default: 0.5, with changes files 1 or less]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, allow_negative_numbers = true)]
    audit: Option<Ppm>,

    /// Choose what is audited by this number, which a report named, instead of at random
    #[arg(long, value_name = "N")]
    audit_seed: Option<u64>,

    /// End an unfinished session of this writer and VM even if it may still be running on another host, and remove its
    /// snapshot in vSphere
    #[arg(long)]
    take_over: bool,

    /// zstd's level for new chunks, 1 to 19, or auto: as high as the repository's speed allows, up to 9 [default: auto]
    #[arg(long, value_name = "LEVEL")]
    compression: Option<Compression>,

    /// The tier of new data packs in Azure: hot, cool or cold [default: hot]
    ///
    /// Everything else is hot. Cool and cold are cheaper to keep and cost more to restore from.
    #[arg(long, value_name = "TIER", value_parser = parse_tier)]
    tier: Option<Tier>,

    /// Send an MD5 digest with each blob to Azure, which checks and keeps it
    #[arg(long)]
    content_md5: bool,

    /// A tag of the snapshot; may be repeated
    #[arg(long, value_name = "TAG", value_parser = tag)]
    tag: Vec<String>,

    /// The most that the index cache may take on disk, as in 500MiB [default: 8GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    index_budget: Option<u64>,

    #[command(flatten)]
    vsphere: VSphereArguments,
}

/// A disk's key and what was given for it.
#[derive(Clone, Debug)]
struct Named {
    key: String,
    value: String,
}

pub(super) fn vm_name(text: &str) -> Result<String, String> {
    repo_format::check_vm_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn tag(text: &str) -> Result<String, String> {
    repo_format::check_tag(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn keyed_source(text: &str) -> Result<Named, String> {
    let (key, value) = text.split_once('=').ok_or("a disk is given as KEY=SOURCE")?;
    repo_format::check_disk_key(key).map_err(|error| error.to_string())?;
    Ok(Named { key: key.to_owned(), value: value.to_owned() })
}

/// The share of the regions that is audited if nothing is said, where something else than the operator keeps track of
/// changes.
pub(super) const TRACKED_AUDIT: Ppm = Ppm(5_000);

/// What is to be backed up.
enum Given {
    Disks(Vec<Disk>),
    Machine(VSpherePlace),
}

impl Given {
    fn of(arguments: &Arguments) -> Result<Self, Usage> {
        match arguments.source.first() {
            Some(source) if source.starts_with("vsphere:") => {
                machine::place(source, arguments).map(Self::Machine)
            }
            _ => {
                arguments.machine.refuse()?;
                disks(arguments).map(Self::Disks)
            }
        }
    }
}

/// What is ready before anything is read.
enum Ready {
    Disks(Vec<Box<dyn DiskSource>>),
    Machine(Box<Center>),
}

/// Backs up a VM, or several.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    if arguments.list.is_some() || arguments.source.len() > 1 {
        return several::run(settings, arguments);
    }
    if arguments.parallel.is_some() || arguments.memory.is_some() {
        return Err(Usage::new("--parallel and --memory are only for several VMs").into());
    }
    let stopwatch = Stopwatch::start();
    let given = Given::of(arguments)?;
    let ready = match &given {
        Given::Disks(_) => {
            // A server may be slow or silent.
            settings.interrupt.end_at_once()?;
            let ready = given.open(settings, arguments)?;
            settings.interrupt.install()?;
            ready
        }
        Given::Machine(_) => {
            settings.interrupt.install()?;
            given.open(settings, arguments)?
        }
    };
    let vm = ready.vm(arguments)?;
    let store = open::store_to_back_up(settings, uploads(arguments))?;
    let repository = open::repository_with_data(settings, &store)?;
    let progress = Progress::new(settings);
    let running = Running::begin(settings, &repository, &vm, &progress)?;
    let mut index = {
        let budget = settings.index_budget(arguments.index_budget);
        index::open(settings, &repository, std::slice::from_ref(&vm), budget, &progress)?
    };
    let reading_ends = || progress.finish();
    let run = Run {
        settings,
        arguments,
        repository: &repository,
        running: &running,
        reading_ends: &reading_ends,
        vm: &vm,
    };
    let (outcome, machine) = run.all_disks(With::Index(&mut index), &given, ready);
    progress.finish();
    let backup = outcome?;
    running.decided();
    let report = Report { backup, machine, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, text)?;
    Ok(given.attention(attention(&report.backup, report.machine.as_ref())))
}

fn uploads(arguments: &Arguments) -> Uploads {
    Uploads { tier: arguments.tier, content_md5: arguments.content_md5 }
}

impl Given {
    /// Opens what is to be read.
    fn open(&self, settings: &Settings, arguments: &Arguments) -> anyhow::Result<Ready> {
        Ok(match self {
            Self::Disks(disks) => Ready::Disks(disks.iter().map(Disk::open).collect::<anyhow::Result<_>>()?),
            Self::Machine(place) => {
                Ready::Machine(Box::new(Center::connect(settings, &arguments.vsphere, place)?))
            }
        })
    }

    /// The exit code of a backup that ended with `exit`: disks may have been written to meanwhile.
    fn attention(&self, exit: Exit) -> Exit {
        match self {
            Self::Disks(disks) => disks.iter().map(Disk::attention).fold(exit, Exit::worse),
            Self::Machine(_) => exit,
        }
    }
}

impl Ready {
    /// The VM's name.
    fn vm(&self, arguments: &Arguments) -> Result<String, Usage> {
        match self {
            Self::Disks(_) => arguments.vm.clone().ok_or_else(|| {
                Usage::new("no VM was named")
                    .hint("name it with --vm NAME; its backups build on each other by that name")
            }),
            Self::Machine(center) => machine::name(arguments, center),
        }
    }
}

/// The local index, or what is shared with backups of other VMs.
enum With<'a> {
    Index(&'a mut LocalIndex),
    Others(&'a Together),
}

/// One run, when the repository is open.
struct Run<'a> {
    settings: &'a Settings,
    arguments: &'a Arguments,
    repository: &'a Repository<'a>,
    running: &'a Running<'a>,
    /// Called when nothing is read any more.
    reading_ends: &'a (dyn Fn() + Sync),
    vm: &'a str,
}

impl Run<'_> {
    /// Backs up all disks of the VM. What is told of a VM in vSphere is worth telling however it ended.
    fn all_disks(
        &self,
        with: With<'_>,
        given: &Given,
        ready: Ready,
    ) -> (anyhow::Result<BackupReport>, Option<MachineReport>) {
        match (given, ready) {
            (Given::Disks(disks), Ready::Disks(sources)) => (self.disks(with, disks, &sources), None),
            (_, Ready::Machine(center)) => {
                let (outcome, told) = machine::back_up(self, with, &center);
                (outcome, Some(told))
            }
            (Given::Machine(_), Ready::Disks(_)) => unreachable!("a VM was made ready as one"),
        }
    }

    /// Backs up disks that the command line names.
    fn disks(
        &self,
        with: With<'_>,
        disks: &[Disk],
        sources: &[Box<dyn DiskSource>],
    ) -> anyhow::Result<BackupReport> {
        let counted = self.counted_from()?;
        let is_tracked = disks.iter().any(|disk| disk.bitmap.is_some());
        let disks = disks.iter().zip(sources).map(|(disk, source)| {
            let counted = disk.bitmap.as_ref().map_or(CountedFrom::ChangeId, |_| counted.clone());
            JobDisk { key: &disk.key, source: source.as_ref(), counted }
        });
        self.back_up(with, disks.collect(), is_tracked, Vec::new())
    }

    /// Has the engine do it.
    fn back_up(
        &self,
        with: With<'_>,
        disks: Vec<JobDisk<'_>>,
        is_tracked: bool,
        properties: Vec<(String, String)>,
    ) -> anyhow::Result<BackupReport> {
        let Self { settings, arguments, .. } = self;
        let minute = EveryMinute::start();
        let job = BackupJob {
            vm: self.vm,
            writer: &settings.writer,
            disks,
            reading: if arguments.full { Reading::Everything } else { Reading::Changes },
            audit: audit(arguments, is_tracked),
            compression: settings.compression(arguments.compression).of(&settings.location()?),
            tags: arguments.tag.clone(),
            properties,
            time: clock::now_millis(),
            program: PROGRAM,
            entropy: open::entropy()?,
            unfinished: if arguments.take_over { Unfinished::Ended } else { self.running.unfinished() },
            checkpoint_due: &|| minute.is_due(),
        };
        Ok(match with {
            With::Index(index) => backup(self.repository, index, &job, self.running)?,
            With::Others(together) => backup_together(self.repository, together, &job, self.running)?,
        })
    }

    /// What dirty bitmaps count from.
    fn counted_from(&self) -> anyhow::Result<CountedFrom> {
        let Some(since) = &self.arguments.since else { return Ok(CountedFrom::Newest) };
        let snapshot = find(self.repository, since)?;
        if snapshot.commit.vm != self.vm {
            let (id, vm) = (snapshot.session(), &snapshot.commit.vm);
            return Err(Usage::new(format!("snapshot {id} is of {vm:?}, not of {:?}", self.vm)).into());
        }
        Ok(CountedFrom::Snapshot(snapshot.name))
    }
}

fn audit(arguments: &Arguments, is_tracked: bool) -> Audit {
    let seed = arguments.audit_seed;
    match arguments.audit.or(is_tracked.then_some(TRACKED_AUDIT)) {
        Some(Ppm(ppm)) => Audit::Share { ppm, seed },
        None => Audit::Default { seed },
    }
}
