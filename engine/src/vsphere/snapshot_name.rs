//! What a backup calls the snapshots that it makes of VMs, so that later ones know them for their own.

use repo_format::{RepositoryId, WriterId};
use std::fmt;

/// Digits of the repository's id, and of the number that makes a name the only one.
const DIGITS: usize = 8;

/// The name of a snapshot of a VM: `keepstone REPOSITORY WRITER NUMBER`, with the first digits of the repository's id and
/// a random number.
///
/// Names of the same repository and writer are siblings: snapshots that this job made and nobody else did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotName {
    job: String,
    number: String,
}

impl SnapshotName {
    /// Makes a name that no snapshot had before, from random bytes.
    #[must_use]
    pub fn new(repository: RepositoryId, writer: &WriterId, random: [u8; 16]) -> Self {
        let mut repository = repository.to_string();
        repository.truncate(DIGITS);
        let mut number = format!("{:032x}", u128::from_le_bytes(random));
        number.truncate(DIGITS);
        Self { job: format!("keepstone {repository} {writer}"), number }
    }

    /// Whether a snapshot of this name was made by the same job.
    #[must_use]
    pub fn is_sibling(&self, name: &str) -> bool {
        let number = name.strip_prefix(self.job.as_str()).and_then(|rest| rest.strip_prefix(' '));
        number.is_some_and(|number| {
            number.len() == DIGITS && number.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.job, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(writer: &str, random: u8) -> SnapshotName {
        let writer = WriterId::new(writer).expect("a writer id");
        SnapshotName::new(RepositoryId([0xab; 16]), &writer, [random; 16])
    }

    #[test]
    fn names_of_one_job_are_siblings_and_no_others_are() {
        let ours = name("host-a", 7);
        assert_eq!(ours.to_string(), "keepstone abababab host-a 07070707");
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
