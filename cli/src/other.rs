//! The other repository of a command that uses two: where it is, and who asks there.
//!
//! Its credential comes from the variables that begin with `KEEPSTONE_OTHER_`, or else from the profile that was named
//! for it, or else it is that of the command's own repository. So neither is on a command line.

use crate::azure::{AzureOptions, Uploads};
use crate::credentials::{self, Whose};
use crate::exit::Usage;
use crate::location::Location;
use crate::open::{self, Store};
use crate::profile::Profile;
use crate::settings::Settings;
use clap::Args;
use keepstone_engine::store::{LocalStore, RecordingStore};
use std::path::PathBuf;

/// What can be said about the other repository besides its place.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OtherArguments {
    /// Read the settings of the other repository from this TOML file: its credential, limits and prices. Without it, and
    /// without `KEEPSTONE_OTHER_AZURE_STORAGE_SAS_TOKEN` or the like (each name of a credential with `KEEPSTONE_OTHER_`
    /// before it), the credential is that of the repository
    #[arg(long, value_name = "FILE", env = "KEEPSTONE_OTHER_PROFILE", hide_env_values = true)]
    pub(crate) other_profile: Option<PathBuf>,
}

/// The other repository of a command.
#[derive(Debug)]
pub(crate) struct Other<'a> {
    settings: &'a Settings,
    place: &'a str,
    azure: AzureOptions,
}

/// What is made where there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nothing: it must be there.
    Refused,
    /// A directory. A container must be there in any case.
    DirectoryMade,
}

impl<'a> Other<'a> {
    /// Brings together what was said about the repository at `place`, a name as that of a repository; nothing is asked
    /// of it.
    ///
    /// # Errors
    /// A profile that cannot be used; a name of no place that this build knows, or of the place of the command's own
    /// repository; flags for Azure, and neither repository is there.
    pub(crate) fn resolve(
        settings: &'a Settings,
        place: &'a str,
        arguments: &OtherArguments,
    ) -> anyhow::Result<Self> {
        let profile = arguments.other_profile.as_deref().map(Profile::read).transpose()?;
        let is_there = credentials::is_any_there(Whose::Other, &|name| std::env::var_os(name));
        let azure = options(&settings.azure, profile, is_there);
        let other = Self { settings, place, azure };
        let (there, here) = (other.location()?, settings.location()?);
        if there.told() == here.told() {
            let both = Usage::new(format!(
                "{} is named twice: as this repository and as the other one",
                here.told()
            ));
            anyhow::bail!(both.hint("-r and the option of this command name two places"));
        }
        if let (Location::Directory(there), Location::Directory(here)) = (&there, &here)
            && (is_below(there, here) || is_below(here, there))
        {
            let below = Usage::new(format!(
                "one of {} and {} is inside of the other",
                there.display(),
                here.display()
            ));
            anyhow::bail!(below.hint("name a place outside of both"));
        }
        if let (Location::Directory(_), Location::Directory(_)) = (there, here) {
            settings.azure.refuse_for_directory(Uploads::default())?;
        }
        Ok(other)
    }

    /// Where it is.
    ///
    /// # Errors
    /// A name of no place that this build knows.
    pub(crate) fn location(&self) -> Result<Location<'a>, Usage> {
        Location::parse(self.place)
    }

    /// Where it is, for people and for markers: no secret is in it.
    ///
    /// # Errors
    /// As [`Other::location`].
    pub(crate) fn told(&self) -> Result<String, Usage> {
        Ok(self.location()?.told())
    }

    /// Whether it is a directory in which there is nothing, or that is not there.
    ///
    /// # Errors
    /// As [`Other::location`].
    pub(crate) fn is_free_directory(&self) -> Result<bool, Usage> {
        Ok(matches!(self.location()?, Location::Directory(path) if is_free(path)))
    }

    /// Opens its store. What is created there gets an MD5 digest, for a service to compare.
    ///
    /// # Errors
    /// It cannot be reached, or it is not there and is not to be made.
    pub(crate) fn store(&self, missing: Missing) -> anyhow::Result<Store> {
        match self.location()? {
            // It may be empty, or what an interrupted run made; anything else is refused.
            Location::Directory(path)
                if missing == Missing::DirectoryMade && !path.join("config").exists() =>
            {
                Ok(RecordingStore::new(open::AnyStore::Directory(LocalStore::create(path)?)))
            }
            location => {
                let uploads = Uploads { content_md5: true, ..Uploads::default() };
                open::store_at(self.settings, &self.azure, location, uploads)
            }
        }
    }

    /// Opens the store of the command's own repository. Flags for Azure are not refused for a directory if the other
    /// repository is in Azure.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(crate) fn own_store(&self) -> anyhow::Result<Store> {
        open::store_at(self.settings, &self.settings.azure, self.settings.location()?, Uploads::default())
    }
}

/// Whether a path, which need not be there, is below a directory.
fn is_below(path: &std::path::Path, directory: &std::path::Path) -> bool {
    let there = path.ancestors().find_map(|path| match path {
        path if path.as_os_str().is_empty() => std::env::current_dir().ok(),
        path => path.canonicalize().ok(),
    });
    directory.canonicalize().is_ok_and(|directory| there.is_some_and(|there| there.starts_with(directory)))
}

/// Whether there is nothing, or a directory without anything in it.
fn is_free(path: &std::path::Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// What is asked with at the other repository: the limits of the command line are those of both.
fn options(own: &AzureOptions, profile: Option<Profile>, is_in_environment: bool) -> AzureOptions {
    let AzureOptions { auth, limit_upload, limit_download, profile: own_profile, .. } = own;
    let has_its_own = is_in_environment || profile.as_ref().is_some_and(Profile::tells_credential);
    let (whose, auth, profile) = if has_its_own {
        let none = Profile::default();
        (Whose::Other, None, profile.unwrap_or_else(|| own_profile.clone().with_credential_of(&none)))
    } else {
        let profile = profile.map(|profile| profile.with_credential_of(own_profile));
        (Whose::Repository, *auth, profile.unwrap_or_else(|| own_profile.clone()))
    };
    AzureOptions { whose, auth, limit_upload: *limit_upload, limit_download: *limit_download, profile }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::AuthKind;
    use std::num::NonZeroU64;

    fn own() -> AzureOptions {
        AzureOptions {
            whose: Whose::Repository,
            auth: Some(AuthKind::ManagedIdentity),
            limit_upload: NonZeroU64::new(7),
            limit_download: None,
            profile: Profile {
                client_id: Some("own".to_owned()),
                limit_download: NonZeroU64::new(8),
                ..Profile::default()
            },
        }
    }

    #[test]
    fn without_one_of_its_own_the_credential_is_that_of_the_repository() {
        let other = options(&own(), None, false);
        assert_eq!((other.whose, other.auth), (Whose::Repository, Some(AuthKind::ManagedIdentity)));
        assert_eq!(other.profile.client_id.as_deref(), Some("own"));
        let limits = Profile { limit_upload: NonZeroU64::new(9), ..Profile::default() };
        let other = options(&own(), Some(limits), false);
        assert_eq!((other.whose, other.auth), (Whose::Repository, Some(AuthKind::ManagedIdentity)));
        assert_eq!(other.profile.client_id.as_deref(), Some("own"));
        assert_eq!(
            (other.limit_upload, other.profile.limit_upload),
            (NonZeroU64::new(7), NonZeroU64::new(9))
        );
    }

    #[test]
    fn nothing_of_the_repository_s_credential_completes_one_of_its_own() {
        let other = options(&own(), None, true);
        assert_eq!((other.whose, other.auth, other.profile.client_id), (Whose::Other, None, None));
        assert_eq!(other.profile.limit_download, NonZeroU64::new(8));
        let profile = Profile { key_file: Some("key".into()), ..Profile::default() };
        let other = options(&own(), Some(profile), false);
        assert_eq!((other.whose, other.auth, other.profile.client_id), (Whose::Other, None, None));
        assert_eq!(other.profile.key_file.as_deref(), Some(std::path::Path::new("key")));
    }
}
