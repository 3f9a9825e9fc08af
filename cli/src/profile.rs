//! Settings in a file.

use crate::exit::Usage;
use crate::numbers::parse_size;
use crate::settings::Compression;
use anyhow::Context as _;
use repo_format::WriterId;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::path::{Path, PathBuf};

/// What a profile may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Profile {
    /// The repository.
    pub(crate) repository: Option<String>,
    /// A file with the password.
    pub(crate) password_file: Option<PathBuf>,
    /// A command that prints the password.
    pub(crate) password_command: Option<String>,
    /// The writer.
    #[serde(default, deserialize_with = "writer")]
    pub(crate) writer: Option<WriterId>,
    /// Where the index cache is.
    pub(crate) cache_dir: Option<PathBuf>,
    /// How large it may become, in bytes.
    #[serde(default, deserialize_with = "size")]
    pub(crate) index_budget: Option<u64>,
    /// How hard new chunks are compressed.
    #[serde(default, deserialize_with = "compression")]
    pub(crate) compression: Option<Compression>,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// A file that cannot be read or is no profile.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read the profile {}", path.display()))?;
        let mut profile = Self::parse(&text)
            .map_err(|error| Usage::new(format!("the profile {} cannot be used: {error}", path.display())))?;
        profile.place_in(path.parent().unwrap_or(Path::new("")));
        Ok(profile)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let profile: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if profile.password_file.is_some() && profile.password_command.is_some() {
            return Err("it has both password-file and password-command".to_owned());
        }
        Ok(profile)
    }

    /// Makes relative paths count from the profile's directory.
    fn place_in(&mut self, dir: &Path) {
        for path in [&mut self.password_file, &mut self.cache_dir].into_iter().flatten() {
            *path = dir.join(&*path);
        }
        if let Some(repository) = self.repository.as_mut().filter(|repository| !repository.contains("://")) {
            // A path that is no text came from the command line, which says the same about it.
            if let Some(placed) = dir.join(&*repository).to_str() {
                placed.clone_into(repository);
            }
        }
    }
}

fn writer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WriterId>, D::Error> {
    let text = String::deserialize(deserializer)?;
    WriterId::new(&text).map(Some).map_err(D::Error::custom)
}

/// A number, or a text that the command line would take.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl NumberOrText {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = NumberOrText::deserialize(deserializer)?.text();
    parse_size(&text).map(Some).map_err(D::Error::custom)
}

fn compression<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Compression>, D::Error> {
    let text = NumberOrText::deserialize(deserializer)?.text();
    text.parse().map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_settings_are_read_and_placed() {
        let text = "repository = 'repo'\npassword-file = '/etc/password'\nwriter = 'host-a'\ncache-dir = 'cache'\n\
            index-budget = '2 GiB'\ncompression = 3\n";
        let mut profile = Profile::parse(text).unwrap();
        profile.place_in(Path::new("/srv"));
        assert_eq!(profile.repository.as_deref(), Some("/srv/repo"));
        assert_eq!(profile.password_file.as_deref(), Some(Path::new("/etc/password")));
        assert_eq!(profile.cache_dir.as_deref(), Some(Path::new("/srv/cache")));
        assert_eq!(
            (profile.writer, profile.index_budget),
            (Some(WriterId::new("host-a").unwrap()), Some(2 << 30))
        );
        assert_eq!(profile.compression, Some(Compression::Level(3)));
    }

    #[test]
    fn a_uri_is_no_relative_path() {
        let mut profile = Profile::parse("repository = 'azblob://account/container'").unwrap();
        profile.place_in(Path::new("/srv"));
        assert_eq!(profile.repository.as_deref(), Some("azblob://account/container"));
    }

    #[test]
    fn unknown_and_contradictory_settings_are_refused() {
        for text in [
            "passwordfile = 'x'",
            "writer = 'Host A'",
            "compression = 20",
            "index-budget = 'much'",
            "password-file = 'x'\npassword-command = 'y'",
            "repository = ",
        ] {
            assert!(Profile::parse(text).is_err(), "{text} is no profile");
        }
    }
}
