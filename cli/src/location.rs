//! Where a repository is.

use crate::credentials::is_like_one;
use crate::exit::Usage;
use crate::settings::Settings;
use crate::unsupported::{Role, local_path};
use keepstone_engine::store::azure::AzurePlace;
use std::path::Path;

/// A file among those of the repository would be a foreign one there, or worse, one of them replaced.
///
/// # Errors
/// A path in the directory of the repository, or below; `hint` is what to do instead.
pub(crate) fn must_be_outside_of_repository(
    settings: &Settings,
    path: &Path,
    hint: &str,
) -> anyhow::Result<()> {
    let Location::Directory(repository) = settings.location()? else { return Ok(()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What does not exist is told of when it is opened.
    if let (Ok(repository), Ok(parent)) = (repository.canonicalize(), parent.canonicalize())
        && parent.starts_with(repository)
    {
        anyhow::bail!(Usage::new(format!("{} is inside of the repository", path.display())).hint(hint));
    }
    Ok(())
}

/// The place that a repository's name stands for.
#[derive(Debug)]
pub(crate) enum Location<'a> {
    /// A directory.
    Directory(&'a Path),
    /// A container in Azure, or what is below a prefix in one.
    Azure(AzurePlace),
}

impl<'a> Location<'a> {
    /// Reads a repository's name.
    ///
    /// # Errors
    /// A name of no place that this build knows.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Usage> {
        match AzurePlace::parse(text) {
            // The name itself is not told: somebody may have put a signature in.
            Some(Err(error)) => Err(Usage::new(format!("the repository's name cannot be used: {error}"))
                .hint(
                    "as in azblob://ACCOUNT/CONTAINER/PREFIX; credentials come from the environment or files",
                )),
            Some(Ok(place)) => Ok(Self::Azure(place)),
            None => match local_path(text, Role::Repository)? {
                path if is_like_one(path) => Err(Usage::new("the repository's name looks like a credential")
                    .hint("a name is a directory, or azblob://ACCOUNT/CONTAINER/PREFIX")),
                path => Ok(Self::Directory(Path::new(path))),
            },
        }
    }

    /// The place for people: an absolute path where there is one, and no secret.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Directory(path) => {
                path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).display().to_string()
            }
            Self::Azure(place) => place.to_string(),
        }
    }
}
