//! Making a repository.

use crate::world::{PASSWORD, create_from_seed, open, small_geometry, try_create};
use keepstone_engine::Repository;
use keepstone_engine::store::{Fault, FaultStore, MemoryStore};

#[test]
fn a_crash_while_a_repository_is_made_leaves_one_that_opens_or_none() {
    let later = Fault::AppliedLater { further: 1 };
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::NotApplied, Fault::AnswerLost, later];
    for fault in faults.into_iter().chain([Fault::CrashDuring]) {
        let mut call = 0;
        loop {
            let store = MemoryStore::new();
            let failing = FaultStore::new(&store, call, fault);
            let made = try_create(&failing, small_geometry()).is_ok();
            let reached = failing.calls() > call;
            let opens = Repository::open(&store, PASSWORD).is_ok();
            assert!(opens || !made, "a repository that was reported does not open");
            if !opens {
                create_from_seed(&store, small_geometry(), [2; 32]).unwrap();
            }
            if let Some(late) = failing.take_late() {
                late.apply(&store).unwrap();
            }
            open(&store);
            if !reached {
                break;
            }
            call += 1;
        }
    }
}
