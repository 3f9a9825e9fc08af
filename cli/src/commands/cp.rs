//! `keepstone cp`

use super::guest::Files;
use crate::clock::Stopwatch;
use crate::console::lines;
use crate::exit::{Exit, Usage};
use crate::figures::Figures;
use crate::location::Location;
use crate::numbers::{count, size};
use crate::open;
use crate::progress::Progress;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use anyhow::{Context as _, bail};
use keepstone_engine::guest::{
    CopyJob, CopyReport, Depth, Entry, Follow, Owners, Problem, Tree, copy, shown, write_file,
};
use keepstone_engine::replica::{self, Doubt};
use keepstone_engine::snapshots::{Selector, Snapshot};
use keepstone_engine::target::Existing;
use keepstone_engine::{EngineError, Repository};
use repo_format::Disk;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Problems that the text shows; the JSON report has more of them.
const PROBLEMS_SHOWN: usize = 20;

/// The arguments of `cp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// SNAPSHOT:DISK:/path/in/guest; DISK may be left empty where the snapshot has one disk
    ///
    /// The SNAPSHOT is the beginning of an id, VM@latest or VM@TIME. Symbolic links on the way are followed within the
    /// volume, and the last one too, unless directories are copied.
    #[arg(value_name = "SOURCE")]
    source: OsString,

    /// A new name, a directory to copy into, or - for standard output, with the report on standard error
    #[arg(value_name = "DEST")]
    target: PathBuf,

    /// Copy directories with all that is in them; links stay links
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Look in the volume of this number only; `keepstone ls` lists them
    #[arg(long, value_name = "N")]
    volume: Option<u32>,

    /// Replace files that exist, and fill directories that exist
    #[arg(long)]
    overwrite: bool,

    /// Give files the guest's owners, by number, and keep set-user-id bits; as root only
    #[arg(long)]
    owner: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    snapshot: String,
    disk: String,
    #[serde(flatten)]
    copy: CopyReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Copies files out of a guest.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let source = Source::parse(&arguments.source)?;
    let to_output = arguments.target.as_os_str() == "-";
    if to_output && arguments.recursive {
        bail!(
            Usage::new("only a single file is copied to standard output")
                .hint("name a directory to copy into")
        );
    }
    settings.interrupt.install()?;
    let store = open::store(settings)?;
    let repository = open::repository_with_data(settings, &store)?;
    let (snapshot, disk) = source.find(&repository, &standing::doubt(&store, &repository)?)?;
    let progress = Progress::new(settings);
    let files = Files::new(&repository, snapshot.session(), &disk);
    let target = arguments.target.clone();
    let outcome = files.with(|guest| {
        let follow = if arguments.recursive { Follow::Never } else { Follow::Last };
        let (tree, entry) = guest.find_path(arguments.volume, source.path, follow)?;
        Ok(if to_output {
            to_standard_output(&tree, &entry, &progress)
        } else {
            place(settings, &target, source.path, &entry).and_then(|target| {
                let job = CopyJob {
                    target: &target,
                    existing: if arguments.overwrite { Existing::Replace } else { Existing::Refuse },
                    owners: if arguments.owner { Owners::Guest } else { Owners::Own },
                    depth: if arguments.recursive { Depth::Tree } else { Depth::File },
                };
                Ok(copy(&tree, &entry, &job, &progress)?)
            })
        })
    });
    progress.finish();
    let figures = Figures::take(stopwatch, &store);
    let report =
        Report { snapshot: snapshot.session().to_string(), disk: disk.key, copy: outcome??, figures };
    let console = if to_output { settings.console.reporting_on_stderr() } else { settings.console };
    console.report(&report, |report| text(report, &arguments.target))?;
    Ok(match &report.copy {
        CopyReport { has_damage: true, .. } => Exit::Damage,
        CopyReport { problem_count: 0, .. } => Exit::Done,
        _ => Exit::Attention,
    })
}

/// What is named by `SNAPSHOT:DISK:/path`.
struct Source<'a> {
    /// What is before the path: where the disk's key begins is known only with the snapshot.
    object: &'a str,
    path: &'a [u8],
}

impl<'a> Source<'a> {
    fn parse(source: &'a OsStr) -> Result<Self, Usage> {
        let refused = || {
            Usage::new(format!("{}: this does not name a file of a guest", shown(source.as_bytes())))
                .hint("write SNAPSHOT:DISK:/path, as in web@latest:disk0:/etc/fstab")
        };
        let bytes = source.as_bytes();
        let end = bytes.windows(2).position(|window| window == b":/").ok_or_else(refused)?;
        let (object, path) = bytes.split_at(end);
        let object = std::str::from_utf8(object).map_err(|_| refused())?;
        if !object.contains(':') {
            return Err(refused());
        }
        Ok(Self { object, path: &path[1..] })
    }

    /// Finds the snapshot and its disk. Times have colons too, and keys of disks may.
    fn find(&self, repository: &Repository<'_>, doubt: &Doubt) -> anyhow::Result<(Snapshot, Disk)> {
        let mut failed = None;
        for (at, _) in self.object.match_indices(':') {
            let (snapshot, key) = (&self.object[..at], &self.object[at + 1..]);
            let selector: Selector = match selector::parse(snapshot) {
                Ok(selector) => selector,
                Err(error) => {
                    failed.get_or_insert_with(|| Usage::new(format!("{snapshot}: {error}")).into());
                    continue;
                }
            };
            let found = replica::find(repository, doubt, &selector).and_then(|snapshot| {
                let disk = snapshot.disk(Some(key).filter(|key| !key.is_empty()))?.clone();
                Ok((snapshot, disk))
            });
            match found {
                Ok(found) => return Ok(found),
                Err(error @ (EngineError::NoSuchSnapshot { .. } | EngineError::NoSuchDisk { .. })) => {
                    failed = Some(anyhow::Error::new(error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(failed.unwrap_or_else(|| Usage::new("no snapshot was named").into()))
    }
}

/// The name that is made: the one that was given, or one in the directory that was given.
fn place(settings: &Settings, target: &Path, path: &[u8], entry: &Entry) -> anyhow::Result<PathBuf> {
    let is_directory = target.is_dir();
    if !is_directory && target.as_os_str().as_bytes().ends_with(b"/") {
        bail!(Usage::new(format!("{} is not a directory", target.display())).hint("make it first"));
    }
    // The name that was asked for, not where its links lead to.
    let asked = path.split(|byte| *byte == b'/').rfind(|name| !matches!(*name, b"" | b"."));
    let name = asked.filter(|name| *name != b"..").unwrap_or(&entry.name);
    let made = if is_directory && !name.is_empty() {
        target.join(OsStr::from_bytes(name))
    } else {
        target.to_owned()
    };
    must_be_outside_of_repository(settings, &made)?;
    Ok(made)
}

/// A file among those of the repository would be a foreign one there.
fn must_be_outside_of_repository(settings: &Settings, made: &Path) -> anyhow::Result<()> {
    let Location::Directory(repository) = settings.location()? else { return Ok(()) };
    let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What does not exist is told of when it is opened.
    if let (Ok(repository), Ok(parent)) = (repository.canonicalize(), parent.canonicalize())
        && parent.starts_with(repository)
    {
        bail!(
            Usage::new(format!("{} is inside of the repository", made.display()))
                .hint("name a target in another directory")
        );
    }
    Ok(())
}

fn to_standard_output(tree: &Tree, entry: &Entry, progress: &Progress) -> anyhow::Result<CopyReport> {
    if io::stdout().is_terminal() {
        bail!(
            Usage::new("a file of a guest is not written to a terminal, which it could steer")
                .hint("redirect the output to a file or a pipe")
        );
    }
    // Standard output itself would look for line ends.
    let output = io::stdout().as_fd().try_clone_to_owned().context("could not use standard output")?;
    let bytes = write_file(tree, entry, &mut File::from(output), progress)?;
    Ok(CopyReport { files: 1, bytes, written_bytes: bytes, ..CopyReport::default() })
}

fn text(report: &Report, target: &Path) -> String {
    let CopyReport { files, directories, links, bytes, written_bytes, problems, problem_count, .. } =
        &report.copy;
    let target = if target.as_os_str() == "-" {
        "standard output".to_owned()
    } else {
        shown(target.as_os_str().as_bytes())
    };
    let mut made = vec![format!("{} of {}", count(*files, "file"), size(*bytes))];
    if *directories > 0 {
        made.push(if *directories == 1 {
            "1 directory".to_owned()
        } else {
            format!("{directories} directories")
        });
    }
    if *links > 0 {
        made.push(count(*links, "link"));
    }
    let mut text = vec![
        format!(
            "copied {} from disk {} of snapshot {} to {target}",
            made.join(", "),
            report.disk,
            report.snapshot
        ),
        format!("  {} written, the rest is holes", size(*written_bytes)),
        format!("  {}", report.figures.line(*bytes)),
    ];
    if *problem_count > 0 {
        text.push(format!(
            "NOT COPIED: {}",
            if *problem_count == 1 { "1 entry".to_owned() } else { format!("{problem_count} entries") }
        ));
        let listed = problems.iter().take(PROBLEMS_SHOWN);
        text.extend(listed.map(|Problem { path, reason, .. }| format!("  {path}: {reason}")));
        let shown = u64::try_from(problems.len().min(PROBLEMS_SHOWN)).expect("a few");
        if *problem_count > shown {
            text.push(format!("  and {} more, see --json", problem_count - shown));
        }
    }
    lines(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(&str, &[u8])> {
        Source::parse(OsStr::new(text)).ok().map(|source| (source.object, source.path))
    }

    #[test]
    fn the_path_begins_at_the_first_slash_behind_a_colon() {
        assert_eq!(parsed("web@latest:disk0:/etc/fstab"), Some(("web@latest:disk0", &b"/etc/fstab"[..])));
        assert_eq!(
            parsed("web@2026-03-31T18:00:scsi0:1:/a:/b"),
            Some(("web@2026-03-31T18:00:scsi0:1", &b"/a:/b"[..]))
        );
        assert_eq!(parsed("0af3::/"), Some(("0af3:", &b"/"[..])));
        for text in ["web@latest", "web@latest:disk0", "web@latest:/etc", "/etc/fstab", ""] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
