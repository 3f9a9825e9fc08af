//! `keepstone backup`

use crate::azure::{Uploads, parse_tier};
use crate::clock::{self, EveryMinute, Stopwatch};
use crate::console::{lines, one_line, warn};
use crate::exit::{Exit, Usage};
use crate::figures::Figures;
use crate::index;
use crate::numbers::{Ppm, count, parse_percent, parse_size, size};
use crate::open;
use crate::progress::Progress;
use crate::running::Running;
use crate::settings::{Compression, Settings};
use crate::unsupported::{Role, local_path};
use anyhow::Context as _;
use keepstone_engine::DiskSource;
use keepstone_engine::Extent;
use keepstone_engine::backup::{
    Audit, AuditReport, BackupJob, BackupReport, DiskReport, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::extent::total_length;
use keepstone_engine::source::{ChangesFile, FullReason, RawImage, WithChanges};
use keepstone_engine::store::azure::Tier;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The key of a disk that was given without one.
const ONLY_DISK: &str = "disk0";
const PROGRAM: &str = concat!("keepstone ", env!("CARGO_PKG_VERSION"));

/// The arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A changes file tells what changed on a disk, with the fields of vSphere:
  {\"diskSize\": n, \"changeId\": \"now\", \"since\": \"then\",
   \"changedArea\": [{\"start\": n, \"length\": n}, ...]}

Only these areas are read if `since` is the change id that the VM's newest snapshot recorded for the disk. Else the \
disk is read in full, the report says why, and the exit code is 4.

An audit reads some of what was said to be unchanged all the same, regions of 16 MiB chosen at random, and compares it \
with the newest snapshot. If anything differs, it is stored as it is, more is read around it and elsewhere, the report \
says which ranges, and the exit code is 4. Without --audit it is one region in a hundred at most, fewer if little \
changed.")]
pub(crate) struct Arguments {
    /// The VM's name
    #[arg(long, value_name = "NAME", value_parser = vm_name)]
    vm: String,

    /// The VM's only disk, a raw image or block device; it gets the key `disk0`
    #[arg(value_name = "SOURCE", required_unless_present = "disk", conflicts_with = "disk")]
    source: Option<String>,

    /// One of the VM's disks, by a key that is the same in every backup; once for each disk
    #[arg(long, value_name = "KEY=SOURCE", value_parser = keyed_source)]
    disk: Vec<Named>,

    /// What changed since the VM's newest snapshot; with several disks KEY=FILE, once for each
    #[arg(long, value_name = "FILE")]
    changes: Vec<String>,

    /// Read everything, whatever the changes are
    #[arg(long)]
    full: bool,

    /// Check this share of what was said to be unchanged, in per cent of the regions, 0 to 100 [default: 1, or less if little changed]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, allow_negative_numbers = true)]
    audit: Option<Ppm>,

    /// Choose what is audited by this number, which a report named, instead of at random
    #[arg(long, value_name = "N")]
    audit_seed: Option<u64>,

    /// End an unfinished session of this writer and VM even if it may still be running on another host
    #[arg(long)]
    take_over: bool,

    /// zstd's level for new chunks, 1 to 19, or auto: 1 in a directory, 3 in Azure [default: auto]
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
}

/// A disk's key and what was given for it.
#[derive(Clone, Debug)]
struct Named {
    key: String,
    value: String,
}

fn vm_name(text: &str) -> Result<String, String> {
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

/// One disk as the command line names it.
#[derive(Debug)]
struct Disk {
    key: String,
    path: PathBuf,
    changes: Option<PathBuf>,
    /// When the image was last written to; nothing of a device, which does not tell.
    modified: Option<SystemTime>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    backup: BackupReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Backs up a VM.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    settings.interrupt.install()?;
    let disks = disks(arguments)?;
    let sources = disks.iter().map(open_source).collect::<anyhow::Result<Vec<_>>>()?;
    let uploads = Uploads { tier: arguments.tier, content_md5: arguments.content_md5 };
    let store = open::store_to_back_up(settings, uploads)?;
    let repository = open::repository(settings, &store)?;
    let progress = Progress::new(settings);
    let budget = settings.index_budget(arguments.index_budget);
    let running = Running::begin(settings, &repository, &arguments.vm, &progress)?;
    let minute = EveryMinute::start();
    let mut index = index::open(settings, &repository, &arguments.vm, budget, &progress)?;
    let job = BackupJob {
        vm: &arguments.vm,
        writer: &settings.writer,
        disks: disks
            .iter()
            .zip(&sources)
            .map(|(disk, source)| JobDisk::new(&disk.key, source.as_ref()))
            .collect(),
        reading: if arguments.full { Reading::Everything } else { Reading::Changes },
        audit: audit(arguments),
        compression: settings.compression(arguments.compression).level(&settings.location()?),
        tags: arguments.tag.clone(),
        properties: Vec::new(),
        time: clock::now_millis(),
        program: PROGRAM,
        entropy: open::entropy()?,
        unfinished: if arguments.take_over { Unfinished::Ended } else { running.unfinished() },
        checkpoint_due: &|| minute.is_due(),
    };
    let outcome = backup(&repository, &mut index, &job, &running);
    progress.finish();
    let backup = outcome?;
    running.decided();
    let report = Report { backup, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, text)?;
    Ok(attention(&disks, &report.backup))
}

fn audit(arguments: &Arguments) -> Audit {
    let seed = arguments.audit_seed;
    match arguments.audit {
        Some(Ppm(ppm)) => Audit::Share { ppm, seed },
        None => Audit::Default { seed },
    }
}

/// The disks that the command line names, each with its changes file.
fn disks(arguments: &Arguments) -> Result<Vec<Disk>, Usage> {
    let named: Vec<(&str, &str)> = match &arguments.source {
        Some(source) => vec![(ONLY_DISK, source)],
        None => arguments.disk.iter().map(|named| (named.key.as_str(), named.value.as_str())).collect(),
    };
    let mut disks: Vec<Disk> = Vec::with_capacity(named.len());
    for (key, source) in named {
        if disks.iter().any(|disk| disk.key == key) {
            return Err(Usage::new(format!("two disks have the key {key:?}")));
        }
        let path = PathBuf::from(local_path(source, Role::Source)?);
        let modified = modified(&path);
        disks.push(Disk { key: key.to_owned(), path, changes: None, modified });
    }
    for given in &arguments.changes {
        let (disk, file) = changed_disk(&mut disks, given)?;
        if disk.changes.replace(PathBuf::from(file)).is_some() {
            return Err(Usage::new(format!("disk {:?} has two changes files", disk.key)));
        }
    }
    Ok(disks)
}

/// Which disk a `--changes` is about: of several it must say so, as in KEY=FILE.
fn changed_disk<'a, 'b>(disks: &'a mut [Disk], given: &'b str) -> Result<(&'a mut Disk, &'b str), Usage> {
    let keyed = given
        .split_once('=')
        .and_then(|(key, file)| Some((disks.iter().position(|disk| disk.key == key)?, file)));
    let (position, file) = match keyed {
        Some(keyed) => keyed,
        None if disks.len() == 1 => (0, given),
        None => {
            let keys = disks.iter().map(|disk| disk.key.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Usage::new(format!("--changes {given} does not say which disk it is about"))
                .hint(format!("write --changes KEY=FILE, where KEY is one of {keys}")));
        }
    };
    Ok((&mut disks[position], file))
}

/// When a regular file was last written to. What cannot be told is told when it is opened.
fn modified(path: &Path) -> Option<SystemTime> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    metadata.modified().ok()
}

/// The smallest unit that disks are made of.
const SECTOR_LEN: u64 = 512;
/// Ten million areas, the most that are accepted, take less.
const CHANGES_LEN_MAX: u64 = 512 << 20;

fn open_source(disk: &Disk) -> anyhow::Result<Box<dyn DiskSource>> {
    let image = Box::new(RawImage::open(&disk.path)?);
    let Some(path) = &disk.changes else { return Ok(image) };
    let failed = || format!("the changes of disk {:?}, {}, cannot be used", disk.key, path.display());
    let bytes = read_changes(path).with_context(failed)?;
    let changes = ChangesFile::parse(&bytes).with_context(failed)?;
    Ok(Box::new(WithChanges::new(image, changes).with_context(failed)?))
}

fn read_changes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CHANGES_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CHANGES_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 512 MiB"));
    }
    Ok(bytes)
}

/// Tells what an operator should look at although there is a snapshot.
fn attention(disks: &[Disk], report: &BackupReport) -> Exit {
    let mut exit = Exit::Done;
    for disk in &report.disks {
        if let Some(reason) = disk.full_reason.as_ref().filter(|reason| reason.is_lost_tracking()) {
            warn(&format!("disk {} was read in full: {}", disk.key, one_line(&reason.to_string())));
            exit = Exit::Attention;
        }
        if let Some(audit) = disk.audit.as_ref().filter(|audit| !audit.mismatches.is_empty()) {
            warn(&mismatch(&disk.key, audit));
            exit = Exit::Attention;
        }
    }
    for (disk, reported) in disks.iter().zip(&report.disks) {
        let path = disk.path.display();
        if disk.modified != modified(&disk.path) {
            warn(&format!(
                "{path} was written to during the backup; the snapshot may be of no one point in time: back up a disk \
                 that stands still"
            ));
            exit = Exit::Attention;
        }
        if reported.disk_bytes % SECTOR_LEN != 0 {
            warn(&format!(
                "{path} has {} bytes, which is not a whole number of sectors of {SECTOR_LEN}: it may have been cut off",
                reported.disk_bytes
            ));
            exit = Exit::Attention;
        }
    }
    exit
}

/// What an audit found, and what to do about it.
fn mismatch(disk: &str, audit: &AuditReport) -> String {
    let next = if audit.regions == audit.of_regions {
        "this snapshot is right, as everything was audited; earlier ones may be wrong there, so find out why change \
         tracking fails"
    } else {
        "what was not audited may be wrong too, here and in earlier snapshots: back up with --full, and find out why \
         change tracking fails"
    };
    format!(
        "disk {disk} differs from the last snapshot where it was said to be unchanged, in {}; they were stored as they \
         are now; {next}",
        amount(&audit.mismatches),
    )
}

fn amount(ranges: &[Extent]) -> String {
    format!("{} of {}", count(ranges.len() as u64, "range"), size(total_length(ranges)))
}

fn text(report: &Report) -> String {
    let Report { backup, figures } = report;
    let disk_bytes = backup.disks.iter().map(|disk| disk.disk_bytes).sum();
    let mut text = vec![format!("snapshot {} of {}", backup.snapshot, backup.vm)];
    for disk in &backup.disks {
        text.push(disk_line(disk));
        text.extend(disk.audit.iter().flat_map(audit_lines));
    }
    text.push(format!(
        "  stored {} in {}, {} of it metadata; {} of {} were new, {} before compression",
        size(backup.stored_bytes),
        count(backup.packs.into(), "pack"),
        size(backup.metadata_bytes),
        backup.new_chunks,
        count(backup.chunks, "chunk"),
        size(backup.new_bytes),
    ));
    text.push(format!("  {}", figures.line(disk_bytes)));
    lines(text)
}

fn disk_line(disk: &DiskReport) -> String {
    let DiskReport { key, disk_bytes, mode, full_reason, changed_bytes, read_bytes, .. } = disk;
    let in_words = |reason: &FullReason| format!(" ({})", one_line(&reason.to_string()));
    let reason = full_reason.as_ref().map(in_words).unwrap_or_default();
    let what = if full_reason.is_some() { "in use" } else { "changed" };
    format!(
        "  disk {key} of {}, {mode}{reason}: {} {what}, {} read",
        size(*disk_bytes),
        size(*changed_bytes),
        size(*read_bytes)
    )
}

/// Ranges that are listed; a report in JSON has all of them.
const RANGES_LISTED: usize = 20;

fn audit_lines(audit: &AuditReport) -> Vec<String> {
    let AuditReport { seed, regions, of_regions, audited_bytes, mismatches, .. } = audit;
    let found = if mismatches.is_empty() {
        "no difference".to_owned()
    } else {
        format!("{} differ", amount(mismatches))
    };
    let regions = format!("{regions} of {}", count(*of_regions, "region"));
    let mut lines =
        vec![format!("    audited {regions}, {}, by the seed {seed}: {found}", size(*audited_bytes))];
    let listed = mismatches.iter().take(RANGES_LISTED);
    lines.extend(listed.map(|range| format!("      {} bytes at {}", range.length, range.start)));
    if mismatches.len() > RANGES_LISTED {
        lines.push(format!("      and {} more, which --json lists", mismatches.len() - RANGES_LISTED));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(key: &str) -> Disk {
        Disk { key: key.to_owned(), path: PathBuf::new(), changes: None, modified: None }
    }

    #[test]
    fn changes_of_one_disk_need_no_key() {
        let mut one = [disk("disk0")];
        assert_eq!(changed_disk(&mut one, "a=b.json").unwrap().1, "a=b.json");
        assert_eq!(changed_disk(&mut one, "disk0=b.json").unwrap().1, "b.json");
    }

    #[test]
    fn changes_of_several_disks_name_theirs() {
        let mut two = [disk("system"), disk("data")];
        let (of, file) = changed_disk(&mut two, "data=b.json").unwrap();
        assert_eq!((of.key.as_str(), file), ("data", "b.json"));
        assert!(changed_disk(&mut two, "b.json").is_err());
        assert!(changed_disk(&mut two, "other=b.json").is_err());
    }
}
