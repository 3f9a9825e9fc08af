//! What an overlay's file tells when it is opened.
//!
//! A run that was killed may leave a record in part, and slots without any. Both are as before the flush that it was in.
//! What was flushed is never as before: if the file is too short for it, or if there is less than was once durable,
//! the file is damaged, and its disk is not made up of what is left.

use super::record::{
    BESIDE, BLOCK_LEN, RECORD_LEN, Record, SEGMENT_LEN, Tally, data_start, record_start, slots_of,
    tally_start,
};
use super::{Medium, Segment, State};
use std::io;

/// Reads as much as a record; what lies behind the end is zero.
pub(super) fn read_padded(medium: &dyn Medium, position: u64) -> io::Result<[u8; RECORD_LEN]> {
    let mut bytes = [0; RECORD_LEN];
    let there = medium.size()?.saturating_sub(position);
    let there = usize::try_from(there).map_or(RECORD_LEN, |there| there.min(RECORD_LEN));
    medium.read_at(position, &mut bytes[..there])?;
    Ok(bytes)
}

/// Reads the records of all slots; nothing if they cannot be those of one overlay, with all that was flushed.
pub(super) fn read_state(
    medium: &dyn Medium,
    header: &[u8; RECORD_LEN],
    size: u64,
) -> io::Result<Option<State>> {
    let file_len = medium.size()?;
    let parse = |bytes: &_| Tally::parse(bytes, header);
    let tally = in_turn(medium, tally_start, parse, |tally| tally.number)?;
    let Ok(Some(tally)) = tally else { return Ok(None) };
    if file_len < BESIDE {
        return Ok(None);
    }
    let mut state = State { slots: slots_of(file_len), tally, ..State::default() };
    let mut generations = 0_u64;
    for slot in 0..state.slots {
        let place = |generation| record_start(slot, generation);
        let parse = |bytes: &_| Record::parse(bytes, slot, header);
        let (segment, generation, blocks) = match in_turn(medium, place, parse, |record| record.generation)? {
            Ok(Some(Record { segment, generation, blocks })) => (segment, generation, blocks),
            Ok(None) => {
                state.free.push(slot);
                continue;
            }
            Err(Unreadable) => return Ok(None),
        };
        let Some(start) = segment.checked_mul(SEGMENT_LEN).filter(|start| *start < size) else {
            return Ok(None);
        };
        let last = blocks.last_written().map_or(0, |last| (last as u64 + 1) * BLOCK_LEN);
        let is_whole = last == 0 || data_start(slot) + last.min(size - start) <= file_len;
        generations = generations.saturating_add(generation);
        let found = Segment { slot, generation, blocks: Box::new(blocks), is_dirty: false };
        if !is_whole || state.segments.insert(segment, found).is_some() {
            return Ok(None);
        }
    }
    Ok((generations >= state.tally.generations).then_some(state))
}

/// Two things were written, and none of them is whole.
struct Unreadable;

/// Reads what is written in two places in turn: the newer one, or nothing if at most the first was ever begun.
fn in_turn<T>(
    medium: &dyn Medium,
    place: impl Fn(u64) -> u64,
    parse: impl Fn(&[u8; RECORD_LEN]) -> Option<T>,
    number: impl Fn(&T) -> u64,
) -> io::Result<Result<Option<T>, Unreadable>> {
    let (mut newest, mut begun) = (None::<T>, 0);
    for turn in 0..2 {
        let bytes = read_padded(medium, place(turn))?;
        begun += u32::from(bytes != [0; RECORD_LEN]);
        newest = newest.into_iter().chain(parse(&bytes)).max_by_key(&number);
    }
    Ok(if newest.is_none() && begun == 2 { Err(Unreadable) } else { Ok(newest) })
}
