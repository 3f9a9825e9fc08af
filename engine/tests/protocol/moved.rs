//! Reading what was repacked: before, while and after the old packs go.

use crate::assert_restores;
use crate::pruner::{End, Repack, data_pack, forget, record};
use crate::repack::{FIRST, Lab, SECOND};
use crate::watched::{Answer, Call, Verb, WatchedStore};
use crate::world::{open, restored};
use keepstone_engine::contents::contents;
use keepstone_engine::diff::diff;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::stats::stats;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::view::{DiskView, ViewSettings};
use keepstone_engine::{BlobStore, EngineError, Repository};
use repo_format::{Codec, Decoder, FrameEntry, PackRef, SessionId, TAG_LEN, verify_pack};
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

const THIRD: SessionId = SessionId([0xa3; 16]);

/// What an error comes from.
fn root_cause(error: &EngineError) -> String {
    let mut last: &dyn Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

pub fn delete(store: &MemoryStore, packs: &[&PackRef]) {
    for pack in packs {
        store.delete(&pack.name.blob()).unwrap();
    }
}

fn viewed(repository: &Repository<'_>, snapshot: &Snapshot) -> Result<Vec<u8>, EngineError> {
    let disk = snapshot.disk(None).unwrap();
    let settings = ViewSettings { cache_bytes: 100_000 };
    let view = DiskView::of_snapshot(repository, snapshot.session(), disk, settings);
    read_all(&view)
}

fn read_all(view: &DiskView<'_, '_>) -> Result<Vec<u8>, EngineError> {
    let mut bytes = vec![0xee; view.size() as usize];
    bytes.chunks_mut(50_000).zip(0..).try_for_each(|(part, n)| view.read_at(n * 50_000, part))?;
    Ok(bytes)
}

type Reading = fn(&Repository<'_>, &Snapshot) -> Result<Vec<u8>, EngineError>;

/// All ways to read a disk.
const READINGS: [Reading; 2] = [|repository, snapshot| restored(repository, snapshot, "disk0"), viewed];

fn root_cause_names(error: &EngineError, pack: &PackRef) -> bool {
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        if error.to_string().contains(&pack.name.to_string()) {
            return true;
        }
        next = error.source();
    }
    false
}

#[test]
fn what_was_repacked_is_read_at_its_new_place() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    delete(&lab.store, &[&old]);
    assert_restores(&lab.repository(), &parent, &lab.disk);
    assert!(viewed(&lab.repository(), &parent).unwrap() == lab.disk.bytes);
}

#[test]
fn the_new_place_is_read_while_the_old_one_is_there() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    let blob = old.name.blob();
    let store = WatchedStore::new(&lab.store, |call| {
        assert!(!call.is(Verb::Get, blob.as_str()), "the old pack is read");
        Answer::Given
    });
    assert_restores(&open(&store), &parent, &lab.disk);
}

#[test]
fn the_old_place_is_read_if_the_new_one_is_gone() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    delete(&lab.store, &[&new]);
    assert_restores(&lab.repository(), &parent, &lab.disk);
    assert!(viewed(&lab.repository(), &parent).unwrap() == lab.disk.bytes);
}

#[test]
fn a_frame_that_is_damaged_at_one_place_is_read_at_the_other() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    for damaged in [new, old] {
        let name = damaged.name.blob();
        let sound = lab.store.get(&name, None).unwrap();
        for at in [20, 200, sound.len() / 2, sound.len() - 10] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            lab.store.delete(&name).unwrap();
            lab.store.put_new(&name, &bytes).unwrap();
            assert_restores(&lab.repository(), &parent, &lab.disk);
            assert!(viewed(&lab.repository(), &parent).unwrap() == lab.disk.bytes);
        }
        lab.store.delete(&name).unwrap();
        lab.store.put_new(&name, &sound).unwrap();
    }
}

#[test]
fn what_was_repacked_twice_is_found_whatever_of_the_way_there_is_gone() {
    for gone in 0..6 {
        let lab = Lab::new();
        let (old, parent) = (lab.pack(1), lab.parent());
        let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
        let newest = lab.repack(SECOND, &new, &[parent.session()], End::Commit);
        // All but all three.
        let packs = [&old, &new, &newest];
        delete(
            &lab.store,
            [&packs[..0], &packs[..1], &packs[..2], &packs[1..], &packs[2..], &packs[1..2]][gone],
        );
        assert_restores(&lab.repository(), &parent, &lab.disk);
        assert!(viewed(&lab.repository(), &parent).unwrap() == lab.disk.bytes);
    }
    // The ends of the way are gone.
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    let newest = lab.repack(SECOND, &new, &[parent.session()], End::Commit);
    delete(&lab.store, &[&old, &newest]);
    assert_restores(&lab.repository(), &parent, &lab.disk);
}

#[test]
fn of_several_records_that_move_one_pack_any_will_do() {
    for kept in 0..3 {
        let lab = Lab::new();
        let (old, parent) = (lab.pack(1), lab.parent());
        let new =
            [FIRST, SECOND, THIRD].map(|session| lab.repack(session, &old, &[parent.session()], End::Commit));
        delete(&lab.store, &[&old]);
        delete(&lab.store, &new.iter().filter(|pack| **pack != new[kept]).collect::<Vec<_>>());
        assert_restores(&lab.repository(), &parent, &lab.disk);
    }
}

#[test]
fn payloads_that_records_share_out_are_each_found() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let repository = lab.repository();
    let half = |session: SessionId, one_in| {
        let (from, applies_to) = (std::slice::from_ref(&old), &[parent.session()][..]);
        Repack { session: session.0[0], from, applies_to, one_in, end: End::Commit }.run(&repository)
    };
    let (all, some) = (half(FIRST, 1), half(SECOND, 3));
    // What the other record left behind is in this one's pack, or still in the old one.
    for gone in [&all, &old] {
        let blob = gone.name.blob();
        let bytes = lab.store.get(&blob, None).unwrap();
        delete(&lab.store, &[gone]);
        assert_restores(&repository, &parent, &lab.disk);
        lab.store.put_new(&blob, &bytes).unwrap();
    }
    delete(&lab.store, &[&old, &all]);
    let error = restored(&repository, &parent, "disk0").unwrap_err();
    assert!(error.is_damage() && some != all, "{error:?}");
}

#[test]
fn a_record_of_a_session_that_did_not_repack_is_not_followed() {
    for end in [End::Abort, End::Undecided] {
        let lab = Lab::new();
        let (old, parent) = (lab.pack(1), lab.parent());
        lab.repack(FIRST, &old, &[parent.session()], end);
        delete(&lab.store, &[&old]);
        let error = restored(&lab.repository(), &parent, "disk0").unwrap_err();
        assert_eq!(root_cause(&error), format!("blob {} does not exist", old.name));
    }
}

#[test]
fn a_record_that_leads_to_packs_that_are_not_there_ends_in_an_error_that_names_one() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    let newest = lab.repack(SECOND, &new, &[parent.session()], End::Commit);
    delete(&lab.store, &[&new, &newest]);
    assert_restores(&lab.repository(), &parent, &lab.disk);
    delete(&lab.store, &[&old]);
    for read in READINGS {
        let error = read(&lab.repository(), &parent).unwrap_err();
        assert!(error.is_damage(), "{error:?}");
        let missing = [&old, &new, &newest].map(|pack| format!("blob {} does not exist", pack.name));
        assert!(missing.contains(&root_cause(&error)), "{error:?}");
    }
}

/// A frame as it is stored, in the clear, of a pack that is there.
fn frames_of(repository: &Repository<'_>, pack: &PackRef) -> (Vec<u8>, Vec<(u32, FrameEntry)>) {
    let mut blob = repository.store().get(&pack.name.blob(), None).unwrap();
    let frames = verify_pack(repository.keys(), &pack.name, &mut blob, &mut Decoder::new()).unwrap();
    (blob, frames)
}

#[test]
fn records_that_lead_in_a_circle_end_where_they_began() {
    let lab = Lab::new();
    let repository = lab.repository();
    let (old, other, parent) = (lab.pack(1), lab.pack(2), lab.parent());
    let (blob, frames) = frames_of(&repository, &other);
    let (offset, frame) = frames[0];
    let payload = &blob[offset as usize..][..frame.stored_len as usize - TAG_LEN];
    let pack = |session| data_pack(&repository, (session, 0), &[(payload, frame)]);
    let [first, second, third] = [FIRST, SECOND, THIRD].map(pack);
    record(&repository, FIRST, &[(&third, &[&first]), (&old, &[&first])]);
    record(&repository, SECOND, &[(&first, &[&second])]);
    record(&repository, THIRD, &[(&second, &[&third])]);
    for read in READINGS {
        assert!(read(&repository, &parent).unwrap() == lab.disk.bytes);
    }
    delete(&lab.store, &[&old]);
    for read in READINGS {
        let error = read(&repository, &parent).unwrap_err();
        assert_eq!(root_cause(&error), format!("blob {} does not exist", old.name));
    }
}

#[test]
fn a_directory_that_lies_gives_no_wrong_bytes() {
    let lab = Lab::new();
    let repository = lab.repository();
    let (old, parent) = (lab.pack(1), lab.parent());
    let (blob, frames) = frames_of(&repository, &old);
    // Each payload under the id of the one before; and then cut short, and with a lie about how it is encoded.
    let payload = |(offset, frame): &(u32, FrameEntry)| {
        &blob[*offset as usize..][..frame.stored_len as usize - TAG_LEN]
    };
    let ids = frames.iter().cycle().skip(frames.len() - 1).map(|(_, frame)| frame.id);
    let shifted: Vec<(&[u8], FrameEntry)> =
        frames.iter().zip(ids).map(|(at, id)| (payload(at), FrameEntry { id, ..at.1 })).collect();
    let raw: Vec<(&[u8], FrameEntry)> = frames
        .iter()
        .map(|at| {
            let plain_len = payload(at).len() as u32;
            (payload(at), FrameEntry { codec: Codec::Raw, plain_len, ..at.1 })
        })
        .collect();
    let packs = [data_pack(&repository, (FIRST, 0), &shifted), data_pack(&repository, (SECOND, 0), &raw)];
    record(&repository, FIRST, &[(&old, &[&packs[0]])]);
    record(&repository, SECOND, &[(&old, &[&packs[1]])]);
    for read in READINGS {
        assert!(read(&repository, &parent).unwrap() == lab.disk.bytes);
    }
    delete(&lab.store, &[&old]);
    for read in READINGS {
        let error = read(&repository, &parent).unwrap_err();
        assert!(error.is_damage(), "{error:?}");
    }
}

#[test]
fn a_pack_whose_header_or_directory_is_not_what_the_record_says_is_not_used() {
    let lab = Lab::new();
    let repository = lab.repository();
    let (old, other, parent) = (lab.pack(1), lab.pack(2), lab.parent());
    let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    let sound = lab.store.get(&new.name.blob(), None).unwrap();
    let others = lab.store.get(&other.name.blob(), None).unwrap();
    let cut = |len: usize| sound[..len].to_vec();
    let hostile =
        [cut(0), cut(100), cut(sound.len() / 2), cut(sound.len() - 1), others, vec![0; sound.len()]];
    for bytes in hostile {
        lab.store.overwrite(&new.name.blob(), &bytes);
        assert!(restored(&repository, &parent, "disk0").unwrap() == lab.disk.bytes);
    }
    delete(&lab.store, &[&old]);
    for read in READINGS {
        let error = read(&repository, &parent).unwrap_err();
        assert!(error.is_damage() && root_cause_names(&error, &new), "{error:?}");
    }
}

#[test]
fn pages_and_nodes_are_read_at_their_new_places_by_all_that_read_maps() {
    let lab = Lab::new();
    let (parent, repository) = (lab.parent(), lab.repository());
    let disk = parent.disk(None).unwrap();
    let before = contents(&repository, disk).unwrap();
    let packs = lab.map_packs(&parent);
    let sessions = [parent.session()];
    Repack { session: 0xa1, from: &packs, applies_to: &sessions, one_in: 1, end: End::Commit }
        .run(&repository);
    delete(&lab.store, &packs.iter().collect::<Vec<_>>());
    assert_restores(&repository, &parent, &lab.disk);
    assert!(viewed(&repository, &parent).unwrap() == lab.disk.bytes);
    assert_eq!(contents(&repository, disk).unwrap(), before);
    // A backup goes on from there, and what did not change stays as it is.
    let (report, snapshot) = lab.back_up(2);
    assert_eq!((report.packs, snapshot.commit.via.as_slice()), (0, [FIRST].as_slice()));
    assert_restores(&repository, &snapshot, &lab.disk);
    assert_eq!(diff(&repository, disk, snapshot.disk(None).unwrap()).unwrap(), []);
    let stats = stats(&repository).unwrap();
    assert_eq!(stats.snapshots, 2);
}

/// A store in which something happens before the call with that number of those that read or list.
fn happening<'a>(
    inner: &'a MemoryStore,
    at: usize,
    calls: &'a AtomicUsize,
    event: impl Fn() + Send + Sync + 'a,
) -> WatchedStore<'a> {
    WatchedStore::new(inner, move |_: &Call| {
        if calls.fetch_add(1, Ordering::SeqCst) == at {
            event();
        }
        Answer::Given
    })
}

/// Does something at each call of a reading in turn, until there is none with that number.
pub fn at_each_call<T>(
    event: &(dyn Fn(&Lab) + Sync),
    read: fn(&Repository<'_>, &Snapshot) -> T,
    check: &dyn Fn(T, &Lab),
) {
    let fresh = Lab::new();
    let parent = fresh.parent();
    for at in 0.. {
        let lab = Lab { store: fresh.store.copied(), disk: fresh.disk.clone() };
        let calls = AtomicUsize::new(usize::MAX / 2);
        let store = happening(&lab.store, at, &calls, || event(&lab));
        let repository = open(&store);
        // Opening is not counted.
        calls.store(0, Ordering::SeqCst);
        let result = read(&repository, &parent);
        let is_over = calls.load(Ordering::SeqCst) <= at;
        check(result, &lab);
        if is_over {
            assert!(at > 10, "a reading takes more than {at} calls");
            return;
        }
    }
}

/// Repacks two packs, one of them twice, and deletes all but the newest.
pub fn repack_and_delete(lab: &Lab) {
    let (first, second, parent) = (lab.pack(1), lab.pack(2), lab.parent());
    let new = lab.repack(FIRST, &first, &[parent.session()], End::Commit);
    lab.repack(SECOND, &new, &[parent.session()], End::Commit);
    lab.repack(THIRD, &second, &[parent.session()], End::Commit);
    delete(&lab.store, &[&first, &second, &new]);
}

#[test]
fn a_restore_that_began_before_a_prune_gets_what_it_repacks() {
    at_each_call(
        &repack_and_delete,
        |repository, snapshot| restored(repository, snapshot, "disk0"),
        &|result: Result<Vec<u8>, EngineError>, lab| {
            assert!(result.unwrap() == lab.disk.bytes, "the restored disk differs");
        },
    );
}

#[test]
fn a_disk_that_is_served_is_read_on_while_a_prune_repacks_it() {
    at_each_call(&repack_and_delete, viewed, &|result, lab| {
        assert!(result.unwrap() == lab.disk.bytes, "the served disk differs");
    });
}

#[test]
fn a_reading_of_a_snapshot_that_is_forgotten_and_removed_meanwhile_says_so() {
    let forget_and_delete = |lab: &Lab| {
        let parent = lab.parent();
        forget(&lab.repository(), &parent.name);
        delete(&lab.store, &[&lab.pack_of(&parent, 1), &lab.pack_of(&parent, 2)]);
    };
    for read in READINGS {
        at_each_call(&forget_and_delete, read, &|result, lab| match result {
            Ok(bytes) => assert!(bytes == lab.disk.bytes),
            Err(error) => {
                assert!(!error.is_damage(), "{error:?}");
                assert!(root_cause(&error).contains("was forgotten meanwhile"), "{error:?}");
            }
        });
    }
}

#[test]
fn a_view_that_is_kept_open_over_prunes_reads_on() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let repository = lab.repository();
    let disk = parent.disk(None).unwrap();
    let view = DiskView::open(&repository, disk, ViewSettings { cache_bytes: 0 });
    assert!(read_all(&view).unwrap() == lab.disk.bytes);
    let mut last = old;
    for session in 1..5 {
        let session = SessionId([session; 16]);
        let new = lab.repack(session, &last, &[parent.session()], End::Commit);
        delete(&lab.store, &[&last]);
        assert!(read_all(&view).unwrap() == lab.disk.bytes);
        last = new;
    }
    delete(&lab.store, &[&last]);
    let error = read_all(&view).unwrap_err();
    assert!(error.is_damage(), "{error:?}");
    // What comes back is read again.
    let repack = lab.repack(SessionId([9; 16]), &lab.pack(2), &[parent.session()], End::Commit);
    assert!(read_all(&view).is_err() && repack != last);
}

#[test]
fn nothing_repacked_costs_a_restore_one_listing() {
    let lab = Lab::new();
    let parent = lab.parent();
    let count = |store: &MemoryStore| {
        let calls = std::sync::Mutex::new(Vec::new());
        let watched = WatchedStore::new(store, |call| {
            calls.lock().unwrap().push(call.clone());
            Answer::Given
        });
        let repository = open(&watched);
        calls.lock().unwrap().clear();
        restored(&repository, &parent, "disk0").unwrap();
        std::mem::take(&mut *calls.lock().unwrap())
    };
    let calls = count(&lab.store);
    let lists: Vec<&Call> = calls.iter().filter(|call| call.verb == Verb::List).collect();
    assert_eq!(lists, [&Call { verb: Verb::List, object: "k/".to_owned() }]);
}
