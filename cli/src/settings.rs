//! What the flags, the environment and the profile come to together.

use crate::arguments::GlobalArguments;
use crate::azure::AzureOptions;
use crate::console::{Console, Format};
use crate::credentials::Whose;
use crate::exit::Usage;
use crate::interrupt::Interrupt;
use crate::location::Location;
use crate::password::Origin;
use crate::profile::Profile;
use crate::progress::Screen;
use crate::vsphere::{Passwords, VSphereArguments};
use keepstone_engine::backup;
use repo_format::WriterId;
use std::path::PathBuf;
use std::str::FromStr;

/// The password's environment variable.
pub(crate) const PASSWORD_VARIABLE: &str = "KEEPSTONE_PASSWORD";
/// The retention password's environment variable.
const RETENTION_PASSWORD_VARIABLE: &str = "KEEPSTONE_RETENTION_PASSWORD";
/// The writer of hosts that were given no name.
const DEFAULT_WRITER: &str = "default";
/// What the local index may take on disk: the entries of some 150 million chunks.
const DEFAULT_INDEX_BUDGET: u64 = 8 << 30;
/// zstd's level to begin with for a local repository: level 3 saves 2 % of space and costs 20 % of the speed, and most
/// local disks are faster than either.
const LOCAL_LEVEL: i32 = 1;
/// zstd's level to begin with for a repository that a network is in front of: most networks are slower than level 3.
const REMOTE_LEVEL: i32 = 3;
/// What `auto` keeps to: above, a processor compresses less than 50 MB/s, and gains a per cent or two.
const AUTO_LEVELS: std::ops::RangeInclusive<i32> = 1..=9;
const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// Messages too.
    Messages,
    /// Progress bars too.
    Progress,
}

/// How hard new chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// As fits the repository and how fast it takes packs.
    Auto,
    /// zstd's level, 1 to 19.
    Level(i32),
}

impl Compression {
    /// What that means for a repository there.
    pub(crate) fn of(self, location: &Location<'_>) -> backup::Compression {
        let auto = |first| backup::Compression::Auto { first, bounds: AUTO_LEVELS };
        match (self, location) {
            (Self::Auto, Location::Directory(_)) => auto(LOCAL_LEVEL),
            (Self::Auto, Location::Azure(_)) => auto(REMOTE_LEVEL),
            (Self::Level(level), _) => backup::Compression::Level(level),
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(level) if LEVELS.contains(&level) => Ok(Self::Level(level)),
            _ => Err(format!("{text:?} is neither a level from 1 to 19 nor auto")),
        }
    }
}

/// The settings of every command.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The output.
    pub(crate) console: Console,
    /// The name that this host writes as.
    pub(crate) writer: WriterId,
    /// Where the password comes from.
    pub(crate) password: Origin,
    /// Where the retention password comes from, if it was told.
    pub(crate) retention_password: Option<Origin>,
    /// What a signal raises.
    pub(crate) interrupt: Interrupt,
    /// Where progress is drawn.
    pub(crate) screen: Screen,
    /// What the profile says of a vCenter.
    pub(crate) vsphere: VSphereArguments,
    /// What users of vCenters have given in this run.
    pub(crate) passwords: Passwords,
    /// What only a repository in Azure needs.
    pub(crate) azure: AzureOptions,
    /// Whether the repository is a replica, although it does not say so itself.
    pub(crate) is_replica: bool,
    repository: Option<String>,
    cache_dir: Option<PathBuf>,
    index_budget: Option<u64>,
    compression: Option<Compression>,
}

/// The first place that a password is told to be in: flags come first, then the environment, then the profile.
fn first_origin(
    (file, command): (Option<PathBuf>, Option<String>),
    variable: &'static str,
    (profile_file, profile_command): (&Option<PathBuf>, &Option<String>),
) -> Option<Origin> {
    let flag = file.map(Origin::File).or(command.map(Origin::Command));
    let environment = std::env::var_os(variable).map(|_| Origin::Environment(variable));
    let in_profile = profile_file.clone().map(Origin::File);
    flag.or(environment).or(in_profile).or(profile_command.clone().map(Origin::Command))
}

impl Settings {
    /// Brings together what was said; flags come first, then the environment, then the profile.
    ///
    /// # Errors
    /// A profile that cannot be used.
    pub(crate) fn resolve(arguments: GlobalArguments) -> anyhow::Result<Self> {
        let profile = arguments.profile.as_deref().map(Profile::read).transpose()?.unwrap_or_default();
        let verbosity = match (arguments.quiet, arguments.no_progress) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Messages,
            (false, false) => Verbosity::Progress,
        };
        let format = if arguments.json { Format::Json } else { Format::Text };
        let password = first_origin(
            (arguments.password_file, arguments.password_command),
            PASSWORD_VARIABLE,
            (&profile.password_file, &profile.password_command),
        );
        let retention_password = first_origin(
            (arguments.retention_password_file, arguments.retention_password_command),
            RETENTION_PASSWORD_VARIABLE,
            (&profile.retention_password_file, &profile.retention_password_command),
        );
        let default_writer = || WriterId::new(DEFAULT_WRITER).expect("the default is a writer id");
        Ok(Self {
            console: Console::new(format, verbosity),
            writer: arguments.writer.or_else(|| profile.writer.clone()).unwrap_or_else(default_writer),
            password: password.unwrap_or(Origin::Terminal),
            retention_password,
            interrupt: Interrupt::default(),
            screen: Screen::default(),
            is_replica: arguments.replica || profile.replica,
            repository: arguments.repository.or_else(|| profile.repository.clone()),
            cache_dir: arguments.cache_dir.or_else(|| profile.cache_dir.clone()),
            index_budget: profile.index_budget,
            compression: profile.compression,
            vsphere: profile.vsphere(),
            passwords: Passwords::default(),
            azure: AzureOptions {
                whose: Whose::Repository,
                auth: arguments.auth,
                limit_upload: arguments.limit_upload,
                limit_download: arguments.limit_download,
                profile,
            },
        })
    }

    /// Whether a repository was named.
    pub(crate) fn names_repository(&self) -> bool {
        self.repository.is_some()
    }

    /// The repository that was named.
    ///
    /// # Errors
    /// None was.
    fn repository(&self) -> Result<&str, Usage> {
        self.repository.as_deref().ok_or_else(|| {
            Usage::new("no repository was named").hint("name it with -r REPO or in KEEPSTONE_REPOSITORY")
        })
    }

    /// The place of the repository that was named.
    ///
    /// # Errors
    /// None was, or none that this build knows.
    pub(crate) fn location(&self) -> Result<Location<'_>, Usage> {
        Location::parse(self.repository()?)
    }

    /// Where the index cache is: below the directory that was named, or the user's cache directory if there is one.
    pub(crate) fn cache_dir(&self) -> Option<PathBuf> {
        self.cache_dir.clone().or_else(|| {
            // The XDG Base Directory Specification: a relative path is to be ignored.
            let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
            let caches =
                absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
            caches.map(|caches| caches.join("keepstone"))
        })
    }

    /// The bytes that the index cache may have; `flag` comes first.
    pub(crate) fn index_budget(&self, flag: Option<u64>) -> u64 {
        flag.or(self.index_budget).unwrap_or(DEFAULT_INDEX_BUDGET)
    }

    /// How hard to compress; `flag` comes first.
    pub(crate) fn compression(&self, flag: Option<Compression>) -> Compression {
        flag.or(self.compression).unwrap_or(Compression::Auto)
    }
}
