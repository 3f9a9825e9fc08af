//! A damaged decision is not passed over when a snapshot is chosen by its VM.

use crate::lab::{Lab, sound};
use keepstone_engine::EngineError;
use keepstone_engine::snapshots::{Selector, find};

/// What the selectors of alpha find when one of its decisions is damaged: a session, or the decision that is blamed.
fn found(lab: &Lab, damaged: usize, selector: &Selector) -> Result<usize, String> {
    let name = lab.snapshot("alpha", damaged).name.blob();
    let bytes = lab.get(&name);
    lab.store.overwrite(&name, &bytes[1..]);
    let found = find(&sound(lab), selector);
    lab.store.overwrite(&name, &bytes);
    match found {
        Ok(snapshot) => Ok((0..2).position(|number| lab.snapshot("alpha", number) == &snapshot).unwrap()),
        Err(EngineError::Damaged { name: blamed, .. }) if blamed == name => Err("damaged".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn an_older_snapshot_does_not_silently_take_the_place_of_a_damaged_one() {
    let lab = Lab::new();
    let times: Vec<u64> = (0..2).map(|number| lab.snapshot("alpha", number).commit.time).collect();
    let latest = Selector::Latest("alpha".to_owned());
    let at = |number: usize| Selector::AtTime("alpha".to_owned(), times[number]);
    let damaged = || Err("damaged".to_owned());
    assert_eq!([found(&lab, 1, &latest), found(&lab, 1, &at(1))], [damaged(), damaged()]);
    // When it was made, nobody knows.
    assert_eq!(found(&lab, 1, &at(0)), damaged());
    // An older one is not what is asked for, unless there is nothing else that old.
    assert_eq!([found(&lab, 0, &latest), found(&lab, 0, &at(1))], [Ok(1), Ok(1)]);
    assert_eq!(found(&lab, 0, &at(0)), damaged());
    let id = lab.snapshot("alpha", 0).session().to_string();
    assert_eq!(found(&lab, 1, &Selector::Id(id)), Ok(0));
}
