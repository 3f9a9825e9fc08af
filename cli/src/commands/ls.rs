//! `keepstone ls`

use super::guest::{self, Files, PathText};
use crate::clock::Stopwatch;
use crate::console::table;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::size;
use crate::open;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use crate::times;
use keepstone_engine::guest::{
    Contents, Entry, Follow, Guest, GuestError, Kind, Metadata, Table, Time, Tree, Volumes,
};
use keepstone_engine::snapshots::Selector;
use serde::Serialize;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

/// The arguments of `ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The beginning of an id, VM@latest, or VM@TIME for the newest at that time
    #[arg(value_parser = selector::parse)]
    snapshot: Selector,

    /// A file or directory in the guest; without it, the disk's volumes are listed
    path: Option<OsString>,

    /// The disk's key; not needed where the snapshot has one disk
    #[arg(long, value_name = "KEY")]
    disk: Option<String>,

    /// Look in the volume of this number only; its root, without a PATH
    ///
    /// Numbers are those of the partitions, as Linux counts them; 0 is a disk without any. Without a number, the PATH is
    /// looked for in all volumes, and must be in one of them.
    #[arg(long, value_name = "N")]
    volume: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VolumesReport {
    snapshot: String,
    disk: String,
    disk_bytes: u64,
    table: Table,
    volumes: Vec<VolumeLine>,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VolumeLine {
    number: u32,
    start: u64,
    bytes: u64,
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    #[serde(flatten)]
    contents: Contents,
    readable: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntriesReport {
    snapshot: String,
    disk: String,
    path: PathText,
    entries: Vec<EntryLine>,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryLine {
    name: PathText,
    #[serde(rename = "type")]
    kind: Kind,
    bytes: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified: Option<String>,
    target: Option<PathText>,
    /// Why nothing more is known of it.
    problem: Option<String>,
    #[serde(skip)]
    time: Option<Time>,
}

/// Lists the volumes of a disk, or what is in a guest's directory.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository_with_data(settings, &store)?;
    let snapshot = standing::find((&store, &repository), &arguments.snapshot)?;
    let disk = snapshot.disk(arguments.disk.as_deref())?;
    let files = Files::new(&repository, snapshot.session(), disk);
    let (session, key) = (snapshot.session().to_string(), disk.key.clone());
    let path = arguments.path.as_deref().or(arguments.volume.map(|_| "/".as_ref()));
    let Some(path) = path else {
        let Volumes { table, volumes } = files.with(Guest::volumes)?;
        let volumes = volumes.into_iter().map(|volume| VolumeLine {
            number: volume.number,
            start: volume.start,
            bytes: volume.length,
            kind: volume.kind,
            name: volume.name,
            readable: volume.contents.system.is_read(),
            contents: volume.contents,
        });
        let report = VolumesReport {
            snapshot: session,
            disk: key,
            disk_bytes: disk.size,
            table,
            volumes: volumes.collect(),
            figures: Figures::take(stopwatch, &store),
        };
        settings.console.report(&report, volumes_text)?;
        return Ok(Exit::Done);
    };
    let (path, entries) = files.with(|guest| entries(guest, arguments.volume, path.as_bytes()))?;
    let exit = if entries.iter().any(|entry| entry.problem.is_some()) { Exit::Attention } else { Exit::Done };
    let figures = Figures::take(stopwatch, &store);
    let report = EntriesReport { snapshot: session, disk: key, path: PathText::new(&path), entries, figures };
    settings.console.report(&report, entries_text)?;
    Ok(exit)
}

fn entries(guest: &Guest, volume: Option<u32>, path: &[u8]) -> Result<(Vec<u8>, Vec<EntryLine>), GuestError> {
    // A link that leads nowhere is listed as what it is.
    let found = guest.find_path(volume, path, Follow::Last).or_else(|error| match error {
        GuestError::NotFound { .. } | GuestError::TooManyLinks { .. } => {
            guest.find_path(volume, path, Follow::Never).map_err(|_| error)
        }
        error => Err(error),
    });
    let (tree, mut entry) = found?;
    let listed = if entry.kind == Kind::Directory {
        tree.list(&entry)?
    } else {
        // What was named by a link is shown as that.
        if let Ok(itself) = tree.resolve(path, Follow::Never) {
            entry = itself;
        }
        vec![entry.clone()]
    };
    let lines = listed.iter().map(|entry| line(&tree, entry)).collect::<Result<_, _>>()?;
    Ok((entry.path(), lines))
}

/// What is known of an entry. One that is damaged is shown with the reason.
fn line(tree: &Tree, entry: &Entry) -> Result<EntryLine, GuestError> {
    let mut line = EntryLine {
        name: PathText::new(&entry.name),
        kind: entry.kind,
        bytes: None,
        mode: None,
        uid: None,
        gid: None,
        modified: None,
        target: None,
        problem: None,
        time: None,
    };
    let known = tree.metadata(entry).and_then(|known| {
        let target = if known.kind == Kind::Symlink { Some(tree.read_link(entry)?) } else { None };
        Ok((known, target))
    });
    match known {
        Ok((Metadata { kind, size, mode, owner, modified }, target)) => {
            line.kind = kind;
            line.bytes = (kind == Kind::File).then_some(size);
            line.mode = mode;
            (line.uid, line.gid) = owner.unzip();
            line.modified = modified.and_then(|time| times::exact(time.seconds, time.nanoseconds));
            line.time = modified;
            line.target = target.map(|target| PathText::new(&target));
        }
        Err(error) if error.is_of_one_file() => {
            let error = anyhow::Error::new(error);
            line.problem = Some(format!("{error:#}"));
        }
        Err(error) => return Err(error),
    }
    Ok(line)
}

fn volumes_text(report: &VolumesReport) -> String {
    let table_name = match report.table {
        Table::None => "no partition table",
        Table::Mbr => "MBR",
        Table::Gpt => "GPT",
        Table::GptCopy => "GPT (its second copy: the first is damaged)",
        _ => "a damaged partition table",
    };
    let rows = report.volumes.iter().map(|volume| {
        let text = |text: &Option<String>| guest::cell(text.as_deref().unwrap_or("-"));
        [
            volume.number.to_string(),
            size(volume.bytes),
            volume.contents.system.to_string(),
            text(&volume.contents.label),
            text(&volume.contents.uuid),
            text(&volume.kind),
            text(&volume.name),
        ]
    });
    let heading = format!("disk {} of snapshot {}: {table_name}\n", report.disk, report.snapshot);
    heading + &table(["volume", "size", "file system", "label", "uuid", "type", "name"], &[0, 1], rows)
}

fn entries_text(report: &EntriesReport) -> String {
    let rows = report.entries.iter().map(|entry| {
        let owner = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
        let mut name = entry.name.shown.clone();
        if let Some(target) = &entry.target {
            name = format!("{name} -> {}", target.shown);
        }
        if let Some(problem) = &entry.problem {
            name = format!("{name}  ({problem})");
        }
        [
            mode_text(entry.kind, entry.mode),
            owner(entry.uid),
            owner(entry.gid),
            entry.bytes.map_or("-".to_owned(), |bytes| bytes.to_string()),
            entry.time.and_then(|time| times::local_seconds(time.seconds)).unwrap_or("-".to_owned()),
            name,
        ]
    });
    table(["mode", "uid", "gid", "bytes", "modified", "name"], &[1, 2, 3], rows)
}

/// As other programs write it: a letter for what it is, and three for whom.
fn mode_text(kind: Kind, mode: Option<u32>) -> String {
    let letter = match kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Pipe => 'p',
        Kind::Socket => 's',
        Kind::CharacterDevice => 'c',
        Kind::BlockDevice => 'b',
        _ => '?',
    };
    let Some(mode) = mode else { return format!("{letter}---------") };
    let mut text = String::from(letter);
    // For the owner, the group and others: their rights, and the bit that changes how executing is written.
    for (shift, special, marks) in [(6, 0o4000, ['s', 'S']), (3, 0o2000, ['s', 'S']), (0, 0o1000, ['t', 'T'])]
    {
        let rights = mode >> shift;
        text.push(if rights & 4 != 0 { 'r' } else { '-' });
        text.push(if rights & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, rights & 1 != 0) {
            (true, true) => marks[0],
            (true, false) => marks[1],
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_elsewhere() {
        let written = |kind, mode| mode_text(kind, Some(mode));
        assert_eq!(written(Kind::File, 0o4751), "-rwsr-x--x");
        assert_eq!(written(Kind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(written(Kind::File, 0o7000), "---S--S--T");
        assert_eq!(mode_text(Kind::Symlink, None), "l---------");
    }
}
