//! What a backup calls the snapshots that it makes of VMs, so that later ones know them for their own.

use crate::Entropy;
use repo_format::{RepositoryId, WriterId};
use std::fmt;

/// Digits of the repository's id, and of the number that makes a name the only one.
const DIGITS: usize = 8;
/// What all names begin with.
const PROGRAM: &str = "keepstone";

/// The name of a snapshot of a VM: `keepstone REPOSITORY WRITER NUMBER`, with the first digits of the repository's id and
/// a random number.
///
/// Names of the same repository and writer are siblings: snapshots that this job made and nobody else did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotName {
    /// Without a repository, names of any are siblings.
    repository: Option<String>,
    writer: String,
    number: String,
}

impl SnapshotName {
    /// Makes a name that no snapshot had before.
    #[must_use]
    pub fn new(repository: RepositoryId, writer: &WriterId, entropy: &Entropy) -> Self {
        let random = entropy.draw16("name of a snapshot in vSphere", 0);
        let mut repository = repository.to_string();
        repository.truncate(DIGITS);
        let mut number = format!("{:032x}", u128::from_le_bytes(random));
        number.truncate(DIGITS);
        Self { repository: Some(repository), writer: writer.to_string(), number }
    }

    /// Stands for the names that a writer gives, whichever repository it backs up to. It is no name itself.
    #[must_use]
    pub fn of_any_repository(writer: &WriterId) -> Self {
        Self { repository: None, writer: writer.to_string(), number: String::new() }
    }

    /// Whether a snapshot of this name was made by the same job.
    #[must_use]
    pub fn is_sibling(&self, name: &str) -> bool {
        let is_number = |text: &str| {
            text.len() == DIGITS && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        };
        let parts: Vec<&str> = name.split(' ').collect();
        let [PROGRAM, repository, writer, number] = parts[..] else { return false };
        let same_repository =
            self.repository.as_ref().map_or_else(|| is_number(repository), |ours| ours == repository);
        same_repository && writer == self.writer && is_number(number)
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repository = self.repository.as_deref().unwrap_or_default();
        write!(formatter, "{PROGRAM} {repository} {} {}", self.writer, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(writer: &str, random: u8) -> SnapshotName {
        let writer = WriterId::new(writer).expect("a writer id");
        SnapshotName::new(RepositoryId([0xab; 16]), &writer, &Entropy::new([random; 32]))
    }

    #[test]
    fn without_a_repository_names_of_any_are_siblings() {
        let writer = WriterId::new("host-a").expect("a writer id");
        let any = SnapshotName::of_any_repository(&writer);
        assert!(any.is_sibling(&name("host-a", 7).to_string()));
        assert!(!any.is_sibling(&name("host-b", 7).to_string()));
        assert!(!any.is_sibling("keepstone elsewhere host-a 07070707"));
    }

    #[test]
    fn names_of_one_job_are_siblings_and_no_others_are() {
        let ours = name("host-a", 7);
        assert!(ours.to_string().starts_with("keepstone abababab host-a "), "{ours}");
        assert_ne!(ours, name("host-a", 9));
        assert!(ours.is_sibling(&name("host-a", 9).to_string()));
        for foreign in [
            name("host-b", 7).to_string(),
            name("host", 7).to_string(),
            "keepstone abababab host-a".to_owned(),
            "keepstone abababab host-a 0707070".to_owned(),
            "keepstone abababab host-a 0707070g".to_owned(),
            "keepstone abababab host-a 07070707 (copy)".to_owned(),
            "keepstone abababab host-a x 07070707".to_owned(),
            "Before the upgrade".to_owned(),
            String::new(),
        ] {
            assert!(!ours.is_sibling(&foreign), "{foreign}");
        }
    }
}
