//! Writes a changes file: where one raw image of a disk differs from an earlier one.
//!
//! ```text
//! changed_areas OLD NEW --since ID --change-id ID > changes.json
//! changed_areas NEW --change-id ID                > changes.json
//! ```
//!
//! It stands in for the changed-block tracking of a hypervisor: both images are read in full and compared in blocks of
//! 64 KiB; what NEW has beyond the end of OLD counts as changed. Without OLD the image is compared with an empty disk:
//! `since` is null and the areas are those in use, as a hypervisor reports them for a first backup.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

/// The usual granularity of changed-block tracking.
const BLOCK_LEN: usize = 64 * 1024;

/// Large enough that the number of system calls does not matter.
const READ_LEN: usize = 16 * BLOCK_LEN;

const USAGE: &str = "usage: changed_areas [OLD] NEW [--since ID] --change-id ID";

fn main() -> ExitCode {
    let outcome = parse(std::env::args_os().skip(1)).and_then(|job| {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &changes(&job)?)?;
        Ok(writeln!(out)?)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to report to when standard error is closed.
            let _ = writeln!(io::stderr(), "changed_areas: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
struct Job {
    old: Option<PathBuf>,
    new: PathBuf,
    since: Option<String>,
    change_id: String,
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Job, Box<dyn Error>> {
    let (mut images, mut since, mut change_id) = (Vec::new(), None, None);
    while let Some(arg) = args.next() {
        let wanted = match arg.to_str() {
            Some("--since") => &mut since,
            Some("--change-id") => &mut change_id,
            Some(flag) if flag.starts_with("--") => return Err(USAGE.into()),
            _ => {
                images.push(PathBuf::from(arg));
                continue;
            }
        };
        *wanted = Some(args.next().and_then(|id| id.into_string().ok()).ok_or(USAGE)?);
    }
    let new = images.pop().ok_or(USAGE)?;
    let old = images.pop();
    if !images.is_empty() || old.is_some() != since.is_some() {
        return Err(USAGE.into());
    }
    Ok(Job { old, new, since, change_id: change_id.ok_or(USAGE)? })
}

/// Compares the images and returns the changes file.
fn changes(job: &Job) -> Result<Value, Box<dyn Error>> {
    let old = match &job.old {
        Some(old) => open(old)?,
        None => Box::new(io::repeat(0)),
    };
    let areas = compare(old, open(&job.new)?)?;
    let changed_area: Vec<Value> =
        areas.merged.iter().map(|(start, length)| json!({"start": start, "length": length})).collect();
    Ok(json!({
        "diskSize": areas.position,
        "changeId": job.change_id,
        "since": job.since,
        "changedArea": changed_area,
    }))
}

fn open(path: &Path) -> Result<Box<dyn Read>, Box<dyn Error>> {
    let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(READ_LEN, file)))
}

/// Changed areas in the order of the disk, neighbours merged, and how far the disk has been compared.
#[derive(Default)]
struct Areas {
    merged: Vec<(u64, u64)>,
    position: u64,
}

impl Areas {
    /// Takes the next block of the disk.
    fn push(&mut self, block_len: usize, changed: bool) {
        let length = u64::try_from(block_len).expect("a block is 64 KiB at most");
        match self.merged.last_mut() {
            _ if !changed => {}
            Some(last) if last.0 + last.1 == self.position => last.1 += length,
            _ => self.merged.push((self.position, length)),
        }
        self.position += length;
    }
}

fn compare(mut old: impl Read, mut new: impl Read) -> io::Result<Areas> {
    let (mut old_block, mut new_block) = (vec![0; BLOCK_LEN], vec![0; BLOCK_LEN]);
    let mut areas = Areas::default();
    loop {
        let new_block = read_block(&mut new, &mut new_block)?;
        if new_block.is_empty() {
            return Ok(areas);
        }
        let old_block = read_block(&mut old, &mut old_block[..new_block.len()])?;
        areas.push(new_block.len(), old_block != new_block);
    }
}

/// Fills the block as far as the image goes: shorter at its end, empty after it.
fn read_block<'a>(image: &mut impl Read, block: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut filled = 0;
    while filled < block.len() {
        match image.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(read_len) => filled += read_len,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&block[..filled])
}
