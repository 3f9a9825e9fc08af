//! `keepstone import`

use super::backup::{PROGRAM, vm_name};
use crate::clock::{self, EveryMinute, Stopwatch};
use crate::console::{lines, one_line, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::index;
use crate::numbers::{count, parse_size, size};
use crate::open::{self, Store};
use crate::other::{Missing, Other, OtherArguments};
use crate::progress::Progress;
use crate::running::Running;
use crate::selector;
use crate::settings::{Compression, Settings};
use crate::times;
use keepstone_engine::Repository;
use keepstone_engine::backup::BackupReport;
use keepstone_engine::import::{
    Chosen, ChosenVm, Fate, ImportJob, Imported, Importer, Outcome, VmPlan, Wanted, choose, plan,
};
use keepstone_engine::index::LocalIndex;
use keepstone_engine::snapshots::{Selector, Snapshot, UnreadableBlob};
use serde::Serialize;

/// The arguments of `import`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
After a failover the old primary may come back with restore points that never arrived at the replica, or the promoted \
replica may have some that the old primary lacks. The two have parted: decisions are never copied between them, and each \
restore point that is missing is stored here as a new one, with the time, tags, properties and change ids of the original.

  keepstone -r PROMOTED import --from OLD --dry-run
  keepstone -r PROMOTED import --from OLD

Only what differs from a restore point that both places have is read, and only what is not here is stored. A restore \
point that is here, was imported before, or was forgotten here is left alone; one that was forgotten can be named. What \
cannot be read there is told and left out, and the exit code is 3. An import that was interrupted is run again: what was \
imported stays.

Nothing is written to the place that is imported from.")]
pub(crate) struct Arguments {
    /// The other place of the repository, which has the restore points
    #[arg(long, value_name = "REPO")]
    from: String,

    /// Only restore points of this VM; may be repeated
    #[arg(long = "vm", value_name = "NAME", value_parser = vm_name, conflicts_with = "snapshots")]
    vms: Vec<String>,

    /// Only these restore points there, even if they were forgotten here: the beginning of an id, VM@latest or VM@TIME
    #[arg(value_name = "SNAPSHOT", value_parser = selector::parse)]
    snapshots: Vec<Selector>,

    /// Tell what would be imported, and import nothing
    #[arg(long)]
    dry_run: bool,

    /// zstd's level for new chunks, 1 to 19, or auto: as high as the repository's speed allows, up to 9 [default: auto]
    #[arg(long, value_name = "LEVEL")]
    compression: Option<Compression>,

    /// What is kept in memory of the disks that are read, as in 1GiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    cache: u64,

    /// The most that the index cache may take on disk, as in 500MiB [default: 8GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    index_budget: Option<u64>,

    #[command(flatten)]
    other: OtherArguments,
}

/// What became of one restore point, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Became {
    /// It is here now.
    Imported,
    /// It would be.
    WouldBeImported,
    /// It was here.
    Here,
    /// It was forgotten here.
    ForgottenHere,
    /// It cannot be read there, or somebody else imports it.
    LeftOut,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    /// Its id there.
    original: String,
    vm: String,
    time: u64,
    became: Became,
    /// Its id here.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    /// The snapshot here that its changes count from.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<BackupReport>,
    fetched_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Unreadable {
    blob: String,
    reason: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    snapshots: Vec<Point>,
    /// Decisions and tombstones there that could not be read.
    unreadable: Vec<Unreadable>,
    imported: usize,
    left_out: usize,
    read_bytes: u64,
    stored_bytes: u64,
    /// What was sent and fetched here.
    #[serde(flatten)]
    figures: Figures,
    /// The same there.
    from: Figures,
}

/// Imports restore points.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let other = Other::resolve(settings, &arguments.from, &arguments.other)?;
    settings.interrupt.install()?;
    let (store, store_there) = (other.own_store()?, other.store(Missing::Refused)?);
    let into = open::repository_with_data(settings, &store)?;
    let from = into.at(&store_there)?;
    let wanted = Wanted { vms: &arguments.vms, snapshots: &arguments.snapshots };
    let Chosen { vms, unreadable } = choose(&into, &from, &wanted)?;
    let mut told = Told::default();
    told.note_unreadable(unreadable);
    let import = Import { settings, arguments, into: &into, from: &from };
    if arguments.dry_run {
        for chosen in &vms {
            told.note_planned(&mut plan(&into, &from, chosen)?, Some(Became::WouldBeImported));
        }
    } else {
        import.all(&vms, &mut told).inspect_err(|_| told.tell_what_stays())?;
    }
    let report = told.into_report(arguments.dry_run, stopwatch, (&store, &store_there));
    settings.console.report(&report, text)?;
    Ok(if report.left_out + report.unreadable.len() > 0 { Exit::Damage } else { Exit::Done })
}

/// What one run has.
struct Import<'a> {
    settings: &'a Settings,
    arguments: &'a Arguments,
    into: &'a Repository<'a>,
    from: &'a Repository<'a>,
}

impl Import<'_> {
    fn all(&self, vms: &[ChosenVm], told: &mut Told) -> anyhow::Result<()> {
        let Self { settings, arguments, into, .. } = self;
        let progress = Progress::new(settings);
        let mut index: Option<LocalIndex> = None;
        for chosen in vms {
            let mut plan = plan(into, self.from, chosen)?;
            told.note_planned(&mut plan, None);
            if plan.points.iter().all(|point| point.fate != Fate::Missing) {
                continue;
            }
            let index = match &mut index {
                Some(index) => index,
                none => {
                    let names: Vec<String> = vms.iter().map(|chosen| chosen.vm.clone()).collect();
                    let budget = settings.index_budget(arguments.index_budget);
                    none.insert(index::open(settings, into, &names, budget, &progress)?)
                }
            };
            self.of_vm(&plan, index, told, &progress)?;
        }
        progress.finish();
        Ok(())
    }

    fn of_vm(
        &self,
        plan: &VmPlan,
        index: &mut LocalIndex,
        told: &mut Told,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let Self { settings, arguments, into, from } = self;
        let running = Running::begin(settings, into, &plan.vm, progress)?;
        let minute = EveryMinute::start();
        let job = ImportJob {
            from,
            writer: &settings.writer,
            compression: settings.compression(arguments.compression).of(&settings.location()?),
            time: clock::now_millis(),
            program: PROGRAM,
            entropy: open::entropy()?,
            unfinished: running.unfinished(),
            checkpoint_due: &|| minute.is_due(),
            cache_bytes: arguments.cache,
        };
        let mut importer = Importer::new(into, plan, &job);
        for point in plan.points.iter().filter(|point| point.fate == Fate::Missing) {
            let stored = importer.import(index, &point.original, &running)?;
            running.decided();
            told.note_imported(&point.original, stored);
        }
        Ok(())
    }
}

/// What is told at the end.
#[derive(Debug, Default)]
struct Told {
    points: Vec<Point>,
    unreadable: Vec<Unreadable>,
}

impl Told {
    fn note_unreadable(&mut self, unreadable: Vec<UnreadableBlob>) {
        for (name, error) in unreadable {
            let blob = name.to_string();
            if self.unreadable.iter().all(|told| told.blob != blob) {
                let reason = format!("{:#}", anyhow::Error::new(error));
                warn(&format!("{blob} there cannot be read, so what it tells is left out: {reason}"));
                self.unreadable.push(Unreadable { blob, reason });
            }
        }
    }

    /// Notes what a plan found; what is missing here has become `missing`, or nothing yet.
    fn note_planned(&mut self, plan: &mut VmPlan, missing: Option<Became>) {
        self.note_unreadable(std::mem::take(&mut plan.unreadable));
        for point in &plan.points {
            let (became, snapshot) = match point.fate {
                Fate::Here { snapshot } => (Some(Became::Here), Some(snapshot.to_string())),
                Fate::Forgotten => (Some(Became::ForgottenHere), None),
                Fate::Missing => (missing, None),
            };
            if let Some(became) = became {
                self.points.push(Point { snapshot, ..Point::of(&point.original, became) });
            }
        }
    }

    fn note_imported(&mut self, original: &Snapshot, imported: Imported) {
        let fetched_bytes = imported.fetched_bytes;
        let point = match imported.outcome {
            Outcome::Stored { base, report } => Point {
                snapshot: Some(report.snapshot.to_string()),
                base: base.map(|base| base.to_string()),
                backup: Some(*report),
                ..Point::of(original, Became::Imported)
            },
            Outcome::LeftOut { why } => {
                let why = format!("{:#}", anyhow::Error::new(why));
                warn(&format!("restore point {} was left out: {}", original.session(), one_line(&why)));
                Point { why: Some(why), ..Point::of(original, Became::LeftOut) }
            }
        };
        self.points.push(Point { fetched_bytes, ..point });
    }

    fn count(&self, became: Became) -> usize {
        self.points.iter().filter(|point| point.became == became).count()
    }

    /// Tells what a failure in the middle leaves.
    fn tell_what_stays(&self) {
        let imported = self.count(Became::Imported);
        if imported > 0 {
            warn(&format!("{} imported and stay; run it again, and it goes on", count_points(imported)));
        }
    }

    fn into_report(self, dry_run: bool, stopwatch: Stopwatch, (here, there): (&Store, &Store)) -> Report {
        let backups = || self.points.iter().filter_map(|point| point.backup.as_ref());
        Report {
            dry_run,
            imported: self.count(Became::Imported),
            left_out: self.count(Became::LeftOut),
            read_bytes: backups().flat_map(|backup| &backup.disks).map(|disk| disk.read_bytes).sum(),
            stored_bytes: backups().map(|backup| backup.stored_bytes).sum(),
            figures: Figures::take(stopwatch, here),
            from: Figures::take(stopwatch, there),
            snapshots: self.points,
            unreadable: self.unreadable,
        }
    }
}

impl Point {
    fn of(original: &Snapshot, became: Became) -> Self {
        Self {
            original: original.session().to_string(),
            vm: original.commit.vm.clone(),
            time: original.commit.time,
            became,
            snapshot: None,
            base: None,
            why: None,
            backup: None,
            fetched_bytes: 0,
        }
    }

    fn line(&self) -> String {
        let Self { original, vm, time, snapshot, why, backup, .. } = self;
        let here = snapshot.as_deref().unwrap_or_default();
        let became = match (self.became, backup) {
            (Became::Imported, Some(backup)) => {
                let read = backup.disks.iter().map(|disk| disk.read_bytes).sum();
                let how = if self.base.is_some() { "changes" } else { "everything" };
                let stored = size(backup.stored_bytes);
                format!("imported as {here}: {how}, {} read, {stored} stored", size(read))
            }
            (Became::Imported | Became::WouldBeImported, _) => "would be imported".to_owned(),
            (Became::Here, _) if here == original => "is here".to_owned(),
            (Became::Here, _) => format!("is here as {here}"),
            (Became::ForgottenHere, _) => "was forgotten here".to_owned(),
            (Became::LeftOut, _) => format!("LEFT OUT: {}", one_line(why.as_deref().unwrap_or_default())),
        };
        format!("  {original} of {}, {}: {became}", one_line(vm), times::local(*time))
    }
}

fn count_points(number: usize) -> String {
    let number = u64::try_from(number).expect("a count fits");
    let verb = if number == 1 { "was" } else { "were" };
    format!("{} {verb}", count(number, "restore point"))
}

fn text(report: &Report) -> String {
    let mut text: Vec<String> = report.snapshots.iter().map(Point::line).collect();
    let Report { unreadable, imported, left_out, .. } = report;
    if report.dry_run {
        let would = report.snapshots.iter().filter(|point| point.became == Became::WouldBeImported);
        text.push(format!("{} would be imported; nothing was", would.count()));
    } else {
        text.push(format!("{} imported", count_points(*imported)));
    }
    if *left_out > 0 {
        text.push(format!("{} LEFT OUT", count_points(*left_out)));
    }
    if !unreadable.is_empty() {
        let number = u64::try_from(unreadable.len()).expect("a count fits");
        text.push(format!("{} there cannot be read", count(number, "decision or tombstone")));
    }
    text.push(format!("  here:  {}", report.figures.line(report.stored_bytes)));
    text.push(format!("  there: {}", report.from.line(report.read_bytes)));
    lines(text)
}
