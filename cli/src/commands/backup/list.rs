//! A list of VMs to back up, in a TOML file.

use super::{Arguments, Named};
use crate::exit::Usage;
use crate::selector;
use anyhow::Context as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

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

/// Reads a list: the arguments of a backup of each VM, where `common` is said for all of them.
///
/// # Errors
/// A file that cannot be read or is no list.
pub(super) fn read(path: &Path, common: &Arguments) -> anyhow::Result<Vec<Arguments>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the list {}", path.display()))?;
    let unusable = |why: String| Usage::new(format!("the list {} cannot be used: {why}", path.display()));
    let list: List = toml::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let arguments = list.vm.into_iter().enumerate().map(|(number, listed)| {
        let what = listed.name.clone().unwrap_or_else(|| format!("the VM at place {}", number + 1));
        listed.arguments(dir, common).map_err(|why| unusable(format!("{what}: {why}")).into())
    });
    arguments.collect()
}

impl Listed {
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
