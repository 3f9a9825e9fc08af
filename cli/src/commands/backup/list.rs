//! A list of VMs to back up, in a TOML file.

use super::{Arguments, Named};
use crate::exit::Usage;
use crate::selector;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// A hundred thousand VMs take less.
const LEN_MAX: u64 = 16 << 20;
/// So much of what a list says is told again, in characters.
const SHOWN: usize = 200;

/// What a list holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    vm: Vec<Listed>,
}

/// One VM.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Listed {
    name: Option<String>,
    source: Option<String>,
    changes: Option<String>,
    bitmap: Option<String>,
    since: Option<String>,
    #[serde(default)]
    disks: BTreeMap<String, ListedDisk>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    exclude_disks: Vec<String>,
    #[serde(default)]
    full: bool,
}

/// One disk of a VM.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ListedDisk {
    Source(String),
    Tracked(TrackedDisk),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TrackedDisk {
    source: String,
    changes: Option<String>,
    bitmap: Option<String>,
}

/// Reads a list: the arguments of a backup of each VM, where `common` is said for all of them, each with how messages name
/// its place in the list.
///
/// # Errors
/// A file that cannot be read or is no list: wrong usage all of it.
pub(super) fn read(path: &Path, common: &Arguments) -> Result<Vec<(String, Arguments)>, Usage> {
    let unusable = |why: String| Usage::new(format!("the list {} cannot be used: {why}", path.display()));
    let text = text(path).map_err(unusable)?;
    // Not with the line itself, as the library would tell it: it may have a secret in it.
    let list: List = toml::from_str(&text).map_err(|error| {
        let why = shown(error.message());
        unusable(match error.span() {
            Some(span) => format!("line {}: {why}", line_at(&text, span.start)),
            None => why,
        })
    })?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let arguments = list.vm.into_iter().enumerate().map(|(place, listed)| {
        let entry = listed.entry(place + 1);
        match listed.arguments(dir, common) {
            Ok(arguments) => Ok((entry, arguments)),
            Err(why) => Err(unusable(format!("{entry}: {}", shown(&why)))),
        }
    });
    arguments.collect()
}

fn text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LEN_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LEN_MAX {
        return Err(format!("it is longer than {} MiB", LEN_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|_| "it is not text in UTF-8".to_owned())
}

/// The number of the line of a place in a text.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// What a list says, on one line of a bounded length, with everything that could steer a terminal written out.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(SHOWN) {
        if matches!(character, '"' | '\'' | '\\') {
            shown.push(character);
        } else {
            shown.extend(character.escape_debug());
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('\u{2026}');
    }
    shown
}

impl Listed {
    /// How messages name the VM: by its number, and by its name, or else by its source if no password can be in it.
    fn entry(&self, number: usize) -> String {
        let source = || self.source.as_ref().filter(|source| !source.contains('@'));
        match self.name.as_ref().or_else(source) {
            Some(what) => format!("VM {number}, {}", shown(what)),
            None => format!("VM {number}"),
        }
    }

    fn arguments(self, dir: &Path, common: &Arguments) -> Result<Arguments, String> {
        let mut arguments = common.clone();
        arguments.list = None;
        arguments.vm = self.name;
        if let Some(vm) = &arguments.vm {
            super::vm_name(vm)?;
        }
        match (&self.source, self.disks.is_empty()) {
            (Some(_), false) => return Err("it has both source and disks".to_owned()),
            (None, true) => return Err("it has neither source nor disks".to_owned()),
            _ => {}
        }
        arguments.source = self.source.map(|source| placed(dir, source)).into_iter().collect();
        arguments.changes.extend(self.changes.map(|file| placed(dir, file)));
        arguments.bitmap.extend(self.bitmap);
        for (key, disk) in self.disks {
            let disk = match disk {
                ListedDisk::Source(source) => TrackedDisk { source, changes: None, bitmap: None },
                ListedDisk::Tracked(disk) => disk,
            };
            arguments.changes.extend(disk.changes.map(|file| format!("{key}={}", placed(dir, file))));
            arguments.bitmap.extend(disk.bitmap.map(|bitmap| format!("{key}={bitmap}")));
            repo_format::check_disk_key(&key).map_err(|error| error.to_string())?;
            arguments.disk.push(Named { key, value: placed(dir, disk.source) });
        }
        arguments.since = self.since.as_deref().map(selector::parse).transpose()?;
        if arguments.since.is_some() && arguments.bitmap.is_empty() {
            return Err("it has since and no bitmap".to_owned());
        }
        for text in self.tags {
            arguments.tag.push(super::tag(&text)?);
        }
        let excluded = self.exclude_disks.iter().map(|key| key.replace(':', "-"));
        arguments.machine.exclude_disk.extend(excluded);
        arguments.full |= self.full;
        Ok(arguments)
    }
}

/// A path that counts from a directory; what has a scheme stays as it is.
fn placed(dir: &Path, text: String) -> String {
    if text.contains("://") {
        return text;
    }
    match dir.join(&text).to_str() {
        Some(placed) => placed.to_owned(),
        // The directory came from the command line, which is not text.
        None => text,
    }
}
