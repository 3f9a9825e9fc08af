//! The fuzz targets for a moment: each on its seeds, on the beginnings of them, and on mutations of them.

mod mutator;

use keepstone_fuzz_bodies::{TARGETS, Target, vectors};
use mutator::Mutator;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// How many beginnings of a seed are tried at most.
const BEGINNINGS_MAX: usize = 400;

macro_rules! targets {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];

        mod hostile_bytes_are_survived_by {
            $(
                #[test]
                fn $name() {
                    super::run_target(stringify!($name));
                }
            )*
        }
    };
}

targets! {
    config key_slot intent decision index session_objects sealed_object page node pack_header pack_directory pack
    chunk_frame blob_name changes_file cache_table soap_answer nbd_client nbd_server guest_disk model
}

/// How many inputs are tried under Miri, which takes a hundred times as long.
const UNDER_MIRI: u32 = 60;

fn run_target(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the targets have these names");
    let short_run = if cfg!(miri) { target.short_run.min(UNDER_MIRI) } else { target.short_run };
    let seeds = (target.seeds)();
    for seed in &seeds {
        assert!(run_input(target, seed), "a seed was not taken: {}", hex(seed));
        let beginnings = BEGINNINGS_MAX.min(short_run as usize);
        for end in (0..seed.len()).step_by(seed.len().div_ceil(beginnings)) {
            run_input(target, &seed[..end]);
        }
    }
    let mutator = Mutator::new(name, &seeds);
    for number in 0..short_run {
        run_input(target, &mutator.input(number));
    }
}

#[test]
fn vectors_are_taken_as_they_say() {
    let mut told = 0;
    for vector in vectors() {
        let target = TARGETS.iter().find(|target| target.name == vector.target).expect("a target's name");
        let taken = run_input(target, &vector.input);
        if let Some(expected) = vector.taken {
            told += 1;
            assert_eq!(taken, expected, "{} as input of {}", vector.name, vector.target);
        }
    }
    assert!(told > 300, "{told} vectors are few");
}

/// Runs a body, and shows the input if it panics.
fn run_input(target: &Target, input: &[u8]) -> bool {
    std::panic::catch_unwind(|| (target.body)(input))
        .unwrap_or_else(|_| panic!("{} panicked, as shown above, on {}", target.name, hex(input)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text takes everything");
        text
    })
}

#[test]
fn every_target_has_a_program_and_a_test() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets");
    let programs: BTreeSet<String> = std::fs::read_dir(programs)
        .expect("the programs are there")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(programs, targets);
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested, targets);
}
