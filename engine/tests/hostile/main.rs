//! Repositories that somebody made to do harm: with the right to write files, or with the keys of a writer.
//!
//! Each case is a repository with something hostile in it. All verbs are run on it, each of them ends as the case
//! says, and every other one well. A case runs in a process of its own under hard limits of time and memory; one that
//! exceeds them is killed, and has failed.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

#[path = "../world/mod.rs"]
mod world;

mod cases;
mod forge;
mod limited;
mod raw;
mod verbs;

use forge::World;
use std::io::Write;
use verbs::Verb;

/// One hostile repository.
pub struct Case {
    /// What is hostile in it.
    pub name: &'static str,
    /// Makes it.
    pub build: fn() -> World,
    /// How verbs end, those that do not end well. What keeps the repository from being opened ends them all.
    pub expected: &'static [(Verb, &'static str)],
}

/// So that a list of cases that is not taken up in `cases` is missed.
const CASES_MIN: usize = 162;

#[test]
fn there_are_as_many_cases_as_is_said_and_each_has_a_name_of_its_own() {
    let mut names: Vec<&str> = cases::all().map(|case| case.name).collect();
    assert!(names.len() >= CASES_MIN, "{} cases", names.len());
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn each_hostile_repository_ends_in_what_its_case_says() {
    let names: Vec<&str> = cases::all().map(|case| case.name).collect();
    let failures = limited::each_in_a_process(&names);
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// What a process of [`limited`] runs: the case that its environment names, or else the first one.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own process is told by its environment what to run")]
fn one_case() {
    let wanted = std::env::var(limited::CASE).ok();
    let mut all = cases::all();
    let case = match &wanted {
        Some(wanted) => all.find(|case| case.name == wanted),
        None => all.next(),
    };
    let case = case.expect("there is a case of that name");
    let world = (case.build)();
    let of_case = |verb| {
        let end = case.expected.iter().find(|(of, _)| *of == verb || *of == Verb::Open);
        end.map_or("ok", |(_, end)| end)
    };
    let mut others = Vec::new();
    for verb in Verb::ALL {
        // Of a process that is killed, this is all that there is to know.
        writeln!(std::io::stdout(), "{verb:?}").unwrap();
        let end = verb.run(&world);
        if end != of_case(verb) {
            others.push((verb, end));
        }
    }
    assert_eq!(others, [], "{}", case.name);
    if wanted.is_some() {
        limited::assert_little_memory();
    }
}
