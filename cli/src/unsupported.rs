//! Places that the contract of the command line knows and this build cannot reach.

use crate::exit::Usage;

/// What a place is used for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// A repository.
    Repository,
    /// A disk to back up.
    Source,
    /// A place to restore to.
    Target,
}

/// Takes a path, and refuses a URI with the reason.
///
/// # Errors
/// Every URI: this build knows only the local file system.
pub(crate) fn local_path(text: &str, role: Role) -> Result<&str, Usage> {
    let Some(scheme) = scheme(text) else {
        return if text.is_empty() {
            Err(Usage::new(format!("the name of the {} is empty", noun(role))))
        } else {
            Ok(text)
        };
    };
    let noun = noun(role);
    Err(match (role, scheme) {
        // What comes behind a question mark may be a signature.
        (Role::Repository, "http" | "https") => {
            let place = text.split(['?', '#']).next().unwrap_or_default();
            Usage::new(format!("{place}: a URL is no repository's name"))
                .hint("a container in Azure is named azblob://ACCOUNT/CONTAINER, and a SAS is given in the environment")
        }
        (Role::Source, "vsphere") => Usage::new("a VM in vSphere is no single disk")
            .hint("name it as the only SOURCE, without --disk: all its disks are backed up"),
        _ => Usage::new(format!("{text}: {scheme:?} is no kind of {noun} that keepstone knows"))
            .hint(format!("for a local file of that name, write ./{text}")),
    })
}

/// What a URI begins with; `./nbd://host` is a path.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some(scheme)
}

fn noun(role: Role) -> &'static str {
    match role {
        Role::Repository => "repository",
        Role::Source => "source",
        Role::Target => "target",
    }
}
