//! Where a repository is.

use crate::exit::Usage;
use crate::unsupported::{Role, local_path};
use keepstone_engine::store::azure::AzurePlace;
use std::path::Path;

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
            None => Ok(Self::Directory(Path::new(local_path(text, Role::Repository)?))),
        }
    }
}
