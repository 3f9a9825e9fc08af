//! Connections that are lost while a disk is written, at every point.

use crate::disks::{KIB, MIB, nbd_error, settings};
use crate::memory::{FLUSH, Loss, MULTI_CONN, Plan, TRIM, WRITE_ZEROES, with_memory};
use crate::scripted::Style;
use crate::written::{Piece, put, random_disk, shuffled, target_with, write};
use keepstone_engine::DiskTarget as _;
use keepstone_engine::nbd::{NbdError, NbdSettings};
use std::io;

/// A disk of 1 MiB and the pieces of it.
struct Case {
    expected: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Case {
    fn some() -> Vec<Self> {
        let case = |seed| {
            let (expected, pieces) = random_disk(seed, MIB, 20 * KIB);
            Self { expected, pieces: shuffled(pieces, seed, 8) }
        };
        (0..3).map(case).collect()
    }

    /// Writes it to a server with other bytes; returns how that ended, and whether the bytes are right then.
    fn write(&self, plan: Plan) -> (io::Result<()>, bool) {
        let (result, bytes) = with_memory(vec![0xd7; 1 << 20], plan, |uri| {
            let target = target_with(uri, NbdSettings { connections: 2, ..settings() }, MIB).unwrap();
            let (first, second) = self.pieces.split_at(self.pieces.len() / 2);
            first.iter().try_for_each(|piece| put(&target, piece))?;
            target.flush()?;
            write(&target, second.to_vec())
        });
        (result, bytes == self.expected)
    }
}

#[test]
fn a_connection_that_is_lost_at_any_point_is_made_anew_and_nothing_is_missing() {
    let cases = Case::some();
    for (style, flags) in [
        (Style::Simple, FLUSH),
        (Style::Structured, FLUSH | WRITE_ZEROES | MULTI_CONN),
        (Style::Extended, FLUSH | WRITE_ZEROES),
        (Style::Structured, FLUSH | TRIM),
        (Style::Structured, WRITE_ZEROES),
    ] {
        for loss in [Loss::Before, Loss::Unanswered, Loss::HalfAnswered] {
            for number in 0..30 {
                let plan = Plan { style, flags, loss: Some((number, loss)) };
                let (result, is_right) = cases[number % cases.len()].write(plan);
                assert!(result.is_ok(), "{loss:?} at request {number}: {result:?}");
                assert!(is_right, "{loss:?} at request {number}");
            }
        }
    }
}

#[test]
fn what_a_server_lost_that_it_had_answered_for_is_never_passed_over() {
    let (cases, mut lost, mut kept) = (Case::some(), 0, 0);
    for flags in [FLUSH | WRITE_ZEROES | MULTI_CONN, FLUSH] {
        for number in 0..45 {
            let plan = Plan { style: Style::Structured, flags, loss: Some((number, Loss::PowerCut)) };
            let (result, is_right) = cases[number % cases.len()].write(plan);
            match result {
                Ok(()) => {
                    assert!(is_right, "request {number}");
                    kept += 1;
                }
                Err(error) => {
                    let NbdError::Writing(error) = nbd_error(&error) else { panic!("{error}") };
                    assert!(matches!(**error, NbdError::WritesLost { .. }), "{error}");
                    lost += 1;
                }
            }
        }
    }
    // Holes are made again, and after the last flush nothing can be lost.
    assert!(lost > 20 && kept > 5, "{lost} {kept}");
}
