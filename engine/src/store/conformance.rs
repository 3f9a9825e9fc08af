//! What every [`BlobStore`] promises, as a test that every backend runs.
//!
//! Test support: it panics with a message that says which promise was broken.

use super::{BlobInfo, BlobStore, Page, Put, StoreError};
use repo_format::BlobName;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Barrier;

/// Opens one container; each call opens it anew.
pub type Open = Box<dyn Fn() -> Box<dyn BlobStore>>;

/// Threads that race for one name.
const RACERS: u8 = 8;

/// Length of the large blob: more than one pack, and no multiple of a block.
const LARGE_LEN: usize = (40 << 20) + 3;

/// Checks all promises; `make` makes a new empty container each time.
///
/// # Panics
/// If one is broken, or if a call fails that should not.
pub fn check(make: &dyn Fn() -> Open) {
    for check in [
        creating_tells_what_is_there,
        one_creator_wins,
        ranges_give_what_there_is,
        a_missing_blob_is_not_found,
        deleting_is_repeatable,
        empty_and_large_blobs_come_back,
        listings_are_in_order_of_whole_names,
        pages_join_to_the_whole_listing,
        a_whole_name_is_found_by_listing_it,
        changes_show_at_once,
        a_reopened_container_holds_all,
    ] {
        check(&make());
    }
}

/// Names in order; `-` and `.` are before `/`, digits and letters behind it.
const NAMES: [&str; 18] = [
    "-",
    "a-b/1",
    "a-b/2",
    "a.b",
    "a/b",
    "a/b-c/d",
    "a/b.c",
    "a0/b",
    "a0/c/d/e/f/g/h",
    "ab",
    "config",
    "d/w-1/0123456789abcdef0123456789abcdef-00000000",
    "d/w-1/0123456789abcdef0123456789abcdef-00000001",
    "d/w/0123456789abcdef0123456789abcdef-00000000",
    "d/w0/0123456789abcdef0123456789abcdef-00000000",
    "gc/00000000/sealed",
    "z.z",
    "zz/..z",
];

/// Checks that a container lists canaries, whose names end as no other names do: in order, whatever the page, and each by its
/// name. It must be empty.
///
/// # Panics
/// If it does not.
pub fn check_canaries(store: &dyn BlobStore) {
    let canaries: Vec<String> = BlobName::canaries().iter().map(ToString::to_string).collect();
    let others = ["d/a", "d/h", "d/ha/b", "d/z", "gc/7", "gc/7a", "gc/z", "gc0", "z"].map(str::to_owned);
    let names: BTreeSet<String> = canaries.iter().cloned().chain(others).collect();
    for text in &names {
        assert_eq!(put(store, text, text.as_bytes()), Put::Created, "{text} was not new");
        assert_eq!(put(store, text, text.as_bytes()), Put::Identical, "{text} is there");
    }
    for limit in 1..=names.len() + 1 {
        let listed: Vec<String> =
            all(store, "", None, limit).iter().map(|blob| blob.name.to_string()).collect();
        assert!(listed.iter().eq(&names), "the listing in pages of {limit}: {listed:?}");
    }
    for text in &canaries {
        let first = page(store, text, None, 1).blobs;
        let found: Vec<&str> = first.iter().map(|blob| blob.name.as_str()).collect();
        assert_eq!(found, [text], "the first page of the listing of {text}");
    }
}

fn name(text: &str) -> BlobName {
    BlobName::parse(text).expect("the text is a blob name")
}

fn put(store: &dyn BlobStore, text: &str, bytes: &[u8]) -> Put {
    store.put_new(&name(text), bytes).unwrap_or_else(|error| panic!("put_new of {text} failed: {error:?}"))
}

fn get(store: &dyn BlobStore, text: &str, range: Option<Range<u64>>) -> Vec<u8> {
    let shown = format!("{range:?}");
    store.get(&name(text), range).unwrap_or_else(|error| panic!("get of {text} {shown} failed: {error:?}"))
}

fn page(store: &dyn BlobStore, prefix: &str, from: Option<&BlobName>, limit: usize) -> Page {
    let page = store.list(prefix, from, limit);
    let page = page.unwrap_or_else(|error| panic!("list of {prefix:?} from {from:?} failed: {error:?}"));
    assert!(page.blobs.len() <= limit, "a page of {prefix:?} is longer than its limit {limit}");
    page
}

/// The whole listing, in pages of `limit`.
fn all(store: &dyn BlobStore, prefix: &str, from: Option<&BlobName>, limit: usize) -> Vec<BlobInfo> {
    let mut blobs: Vec<BlobInfo> = Vec::new();
    let mut from = from.cloned();
    loop {
        let page = page(store, prefix, from.as_ref(), limit);
        if let Some(next) = &page.next {
            assert!(from.as_ref().is_none_or(|from| from < next), "a listing of {prefix:?} stays at {next}");
            assert!(page.blobs.iter().all(|blob| blob.name < *next), "{next} is before the end of its page");
        }
        blobs.extend(page.blobs);
        match page.next {
            Some(next) => from = Some(next),
            None => return blobs,
        }
    }
}

fn all_names(store: &dyn BlobStore, prefix: &str) -> Vec<String> {
    all(store, prefix, None, 1000).iter().map(|blob| blob.name.to_string()).collect()
}

/// A container that holds all of [`NAMES`], each with its own name as content.
fn filled(open: &Open) -> Box<dyn BlobStore> {
    let store = open();
    for text in NAMES.iter().rev() {
        assert_eq!(put(&store, text, text.as_bytes()), Put::Created, "{text} was not new");
    }
    store
}

fn creating_tells_what_is_there(open: &Open) {
    let store = open();
    assert_eq!(put(&store, "d/w/1", b"bytes"), Put::Created, "the name was free");
    assert_eq!(put(&store, "d/w/1", b"bytes"), Put::Identical, "these bytes are there");
    for other in [&b"other"[..], b"byte", b"bytes and more", b""] {
        assert_eq!(put(&store, "d/w/1", other), Put::Different, "other bytes are there");
    }
    assert_eq!(get(&store, "d/w/1", None), b"bytes", "a later create changed the blob");
}

fn one_creator_wins(open: &Open) {
    for round in 0..16 {
        let name = format!("r/x/{round:08x}");
        let start = Barrier::new(usize::from(RACERS));
        let stores: Vec<Box<dyn BlobStore>> = (0..RACERS).map(|_| open()).collect();
        let race = |number: u8, store: &dyn BlobStore| {
            // Half of them write the same bytes, as a creator does that repeats a call.
            let bytes = vec![number / 2; 1000 + usize::from(number / 2)];
            start.wait();
            (put(store, &name, &bytes), bytes)
        };
        let outcomes: Vec<(Put, Vec<u8>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0u8..)
                .zip(&stores)
                .map(|(number, store)| scope.spawn(move || race(number, store)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no racer fails")).collect()
        });
        let winners: Vec<&Vec<u8>> =
            outcomes.iter().filter(|(put, _)| *put == Put::Created).map(|(_, bytes)| bytes).collect();
        assert_eq!(winners.len(), 1, "creators of {name} that won");
        let there = get(&open(), &name, None);
        assert!(
            winners.iter().all(|bytes| ***bytes == *there),
            "{name} holds other bytes than its creator's"
        );
        for (put, bytes) in &outcomes {
            let same = if *put == Put::Different { *bytes != there } else { *bytes == there };
            assert!(same, "{put:?} was reported wrongly for {name}");
        }
    }
}

fn ranges_give_what_there_is(open: &Open) {
    let store = open();
    put(&store, "m/w/1", b"0123456789");
    let ranges: [(Range<u64>, &[u8]); 10] = [
        (0..10, b"0123456789"),
        (0..1, b"0"),
        (3..7, b"3456"),
        (9..10, b"9"),
        (5..100, b"56789"),
        (0..u64::MAX, b"0123456789"),
        (10..20, b""),
        (u64::MAX - 1..u64::MAX, b""),
        (4..4, b""),
        (0..0, b""),
    ];
    for (range, expected) in ranges {
        let got = get(&store, "m/w/1", Some(range.clone()));
        assert_eq!(got, expected, "range {range:?} of ten bytes");
    }
}

fn a_missing_blob_is_not_found(open: &Open) {
    let store = open();
    put(&store, "d/w/1", b"1");
    for missing in ["config", "d/w/2", "d/x/1", "d/w", "d", "d/w/11"] {
        for range in [None, Some(0..0), Some(0..10)] {
            let result = store.get(&name(missing), range);
            let found = matches!(&result, Err(StoreError::NotFound { name }) if name.as_str() == missing);
            assert!(found, "get of {missing}, which does not exist, gave {result:?}");
        }
    }
}

fn deleting_is_repeatable(open: &Open) {
    let store = open();
    put(&store, "d/w/1", b"1");
    put(&store, "d/w/2", b"2");
    for _ in 0..2 {
        store.delete(&name("d/w/1")).expect("a delete succeeds");
        assert!(matches!(store.get(&name("d/w/1"), None), Err(StoreError::NotFound { .. })), "it is gone");
    }
    store.delete(&name("none/at/all")).expect("a delete of a blob that never was succeeds");
    assert_eq!(get(&store, "d/w/2", None), b"2", "its neighbour stays");
    assert_eq!(put(&store, "d/w/1", b"new"), Put::Created, "the name is free again");
}

fn empty_and_large_blobs_come_back(open: &Open) {
    let store = open();
    assert_eq!(put(&store, "gc/00000000/sealed", b""), Put::Created, "an empty blob is new");
    assert_eq!(put(&store, "gc/00000000/sealed", b""), Put::Identical, "an empty blob is there");
    assert_eq!(get(&store, "gc/00000000/sealed", None), b"", "an empty blob is empty");
    assert_eq!(get(&store, "gc/00000000/sealed", Some(0..5)), b"", "a range of an empty blob is empty");
    let mut large: Vec<u8> = (0..=250).cycle().take(LARGE_LEN).collect();
    assert_eq!(put(&store, "d/w/large", &large), Put::Created, "a large blob is new");
    assert_eq!(put(&store, "d/w/large", &large), Put::Identical, "a large blob is there");
    // assert! and not assert_eq!: nobody wants to read 40 MiB.
    assert!(get(&store, "d/w/large", None) == large, "a large blob comes back changed");
    let end = u64::try_from(LARGE_LEN).expect("a length in memory fits 64 bits");
    assert_eq!(get(&store, "d/w/large", Some(end - 5..end)), large[LARGE_LEN - 5..], "its end");
    *large.last_mut().expect("it is not empty") ^= 1;
    assert_eq!(put(&store, "d/w/large", &large), Put::Different, "the last byte differs");
}

fn listings_are_in_order_of_whole_names(open: &Open) {
    let store = filled(open);
    assert_eq!(all_names(&store, ""), NAMES, "the whole listing");
    for blob in all(&store, "", None, 1000) {
        let len = u64::try_from(blob.name.as_str().len()).expect("a name is short");
        assert_eq!(blob.len, len, "length of {}", blob.name);
    }
    let prefixes = [
        "-", "a", "a-", "a-b", "a-b/", "a-b/1", "a.", "a/", "a/b", "a/b-", "a/b-c/", "a0", "a0/", "a0/b",
        "b", "c", "config", "configs", "config/", "d", "d/", "d/w", "d/w-", "d/w/", "d/w/01", "d/w/ff", "e/",
        "gc/", "z", "zz/", "zz/.", "/", "//", "a//", "../", "./", "A", "d/./", "d/../",
    ];
    for prefix in prefixes {
        let expected: Vec<&str> = NAMES.into_iter().filter(|text| text.starts_with(prefix)).collect();
        assert_eq!(all_names(&store, prefix), expected, "the listing of {prefix:?}");
    }
}

fn pages_join_to_the_whole_listing(open: &Open) {
    let store = filled(open);
    for prefix in ["", "a", "a/", "d/w", "d/w-1/"] {
        let expected: Vec<&str> = NAMES.into_iter().filter(|text| text.starts_with(prefix)).collect();
        for limit in 1..=NAMES.len() + 1 {
            let names: Vec<String> =
                all(&store, prefix, None, limit).iter().map(|blob| blob.name.to_string()).collect();
            assert_eq!(names, expected, "the listing of {prefix:?} in pages of {limit}");
        }
    }
    let between = ["a", "a-b", "a-b/1x", "a/", "a/a", "a/b-c", "a/b/c", "d", "d/w-1", "d/w/", "d/x", "zzz"];
    for from in between.iter().chain(&NAMES).filter_map(|text| BlobName::parse(text)) {
        for (prefix, limit) in [("", 1), ("", 1000), ("a", 2), ("d/w", 1), ("d/w/", 1000)] {
            let expected: Vec<&str> =
                NAMES.into_iter().filter(|text| text.starts_with(prefix) && *text >= from.as_str()).collect();
            let names: Vec<String> =
                all(&store, prefix, Some(&from), limit).iter().map(|blob| blob.name.to_string()).collect();
            assert_eq!(names, expected, "the listing of {prefix:?} from {from} in pages of {limit}");
        }
    }
}

fn a_whole_name_is_found_by_listing_it(open: &Open) {
    let store = filled(open);
    let all = page(&store, "", None, NAMES.len()).blobs;
    for text in NAMES {
        let first = page(&store, text, None, 1).blobs;
        let len = u64::try_from(text.len()).expect("a name is short");
        let listed = all.iter().find(|info| info.name.as_str() == text).expect("it is listed");
        let expected = BlobInfo { name: name(text), len, ..listed.clone() };
        assert_eq!(first, [expected], "the first page of the listing of {text}");
    }
    let missing = page(&store, "d/w/0123456789abcdef0123456789abcdef-00000001", None, 1);
    assert_eq!(missing, Page::default(), "the listing of a name that does not exist");
}

fn changes_show_at_once(open: &Open) {
    let (writer, reader) = (open(), open());
    let mut expected = Vec::new();
    for number in 0..20 {
        let text = format!("d/w/{number:08x}");
        put(&writer, &text, b"x");
        assert_eq!(get(&reader, &text, None), b"x", "a new blob is read");
        expected.push(text);
        assert_eq!(all_names(&reader, "d/"), expected, "a new blob is listed");
    }
    while let Some(text) = expected.pop() {
        writer.delete(&name(&text)).expect("a delete succeeds");
        let gone = matches!(reader.get(&name(&text), None), Err(StoreError::NotFound { .. }));
        assert!(gone, "a deleted blob is not read");
        assert_eq!(all_names(&reader, "d/"), expected, "a deleted blob is not listed");
    }
}

fn a_reopened_container_holds_all(open: &Open) {
    drop(filled(open));
    let store = open();
    assert_eq!(all_names(&store, ""), NAMES, "the listing of a reopened container");
    for text in NAMES {
        assert_eq!(get(&store, text, None), text.as_bytes(), "{text} in a reopened container");
        assert_eq!(put(&store, text, text.as_bytes()), Put::Identical, "{text} is there");
    }
}
