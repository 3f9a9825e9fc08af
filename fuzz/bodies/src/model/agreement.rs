//! What must hold of the repository after every operation.

use super::world::{NOW, World};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{self, Snapshot};
use keepstone_engine::target::MemoryTarget;
use keepstone_engine::verify::{Finding, ReadData, VerifyJob, VerifyReport, verify};
use keepstone_engine::{EngineError, Repository};
use repo_format::{Disk, SessionId};
use std::collections::BTreeSet;

impl World {
    /// Every snapshot that was reported is there, and each that is there restores to the bytes that it was made from.
    /// Where that cannot be, because something was damaged, a verification says so.
    pub(super) fn agrees(&self) {
        let repository = self.open(&self.store).expect("a repository opens, whatever happened to it");
        let list = snapshots::list(&repository, None).expect("the store works");
        let job = VerifyJob::everything(ReadData::Everything, NOW);
        let report =
            verify(&repository, &job, &Quiet).expect("damage does not keep a verification from ending");
        assert!(self.is_damaged || !report.has_damage(), "damage where nothing was: {:?}", report.findings);
        for snapshot in &list.snapshots {
            assert!(!self.forgotten.contains(&snapshot.session()), "a forgotten snapshot is listed");
            for disk in &snapshot.commit.disks {
                self.restores(&repository, snapshot, disk, &report);
            }
        }
        let listed: BTreeSet<SessionId> = list.snapshots.iter().map(Snapshot::session).collect();
        let is_excused =
            |session: &SessionId| self.forgotten.contains(session) || self.undone.contains(session);
        for session in self.reported.difference(&listed).filter(|session| !is_excused(session)) {
            let id = session.to_string();
            let names_it = |finding: &Finding| {
                finding.blob.contains(&id) || finding.affected.iter().any(|affected| affected.snapshot == id)
            };
            assert!(
                self.is_damaged && report.findings.iter().any(names_it),
                "{id} is gone, and nobody says so"
            );
        }
    }

    fn restores(&self, repository: &Repository<'_>, snapshot: &Snapshot, disk: &Disk, report: &VerifyReport) {
        let expected = self.expected(snapshot, &disk.key);
        match restored(repository, snapshot, disk) {
            Ok(bytes) => assert!(bytes == expected, "disk {} of {} differs", disk.key, snapshot.session()),
            Err(error) => {
                let id = snapshot.session().to_string();
                let is_told = report.findings.iter().filter(|finding| finding.is_damage()).any(|finding| {
                    finding.affected.iter().any(|affected| {
                        affected.snapshot == id && (affected.disk == disk.key || affected.disk.is_empty())
                    })
                });
                assert!(self.is_damaged, "disk {} of {id} does not restore: {error:?}", disk.key);
                assert!(is_told, "{error:?} and no finding about {id}: {:?}", report.findings);
            }
        }
    }
}

fn restored(repository: &Repository<'_>, snapshot: &Snapshot, disk: &Disk) -> Result<Vec<u8>, EngineError> {
    let target = MemoryTarget::new(usize::try_from(disk.size).expect("a small disk"));
    let job = RestoreJob { window_len: 32 << 10, ..RestoreJob::new(snapshot.session(), disk, &target) };
    restore(repository, &job, &Quiet)?;
    Ok(target.into_bytes())
}
