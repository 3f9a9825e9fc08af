//! Rules and vectors, in both directions.

use crate::vector::Vector;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all rules, as `- **[NAME-1]**` tells them.
fn rules() -> BTreeSet<String> {
    let spec = read("SPEC.md");
    let rules: Vec<&str> = spec
        .lines()
        .filter_map(|line| line.strip_prefix("- **["))
        .map(|rest| rest.split_once(']').expect("a rule's name ends with a bracket").0)
        .collect();
    let distinct: BTreeSet<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    assert_eq!(distinct.len(), rules.len(), "two rules have one name");
    distinct
}

#[test]
fn every_rule_has_vectors_of_what_is_taken_and_of_what_is_not() {
    let vectors = Vector::all();
    for rule in rules() {
        let of_rule = || vectors.iter().filter(|vector| vector.rule == rule);
        assert!(of_rule().any(|vector| vector.expect == "ok"), "{rule} has no positive vector");
        let negative = of_rule().any(|vector| vector.expect != "ok");
        let excuses: Vec<&str> = of_rule().filter_map(|vector| vector.get("negative")).collect();
        assert_eq!(negative, excuses.is_empty(), "{rule}: either a negative vector, or why there is none");
        for excuse in excuses {
            assert!(excuse.starts_with("cannot be broken by bytes, because "), "{rule}: {excuse}");
        }
    }
}

#[test]
fn every_vector_names_a_rule_and_is_filed_under_it() {
    let rules = rules();
    for vector in Vector::all() {
        assert!(rules.contains(&vector.rule), "{} names {}, which is no rule", vector.name, vector.rule);
        let name = vector.name.strip_prefix("REGRESSION-").unwrap_or(&vector.name);
        assert!(name.starts_with(&format!("{}-", vector.rule)), "{} is about {}", vector.name, vector.rule);
        assert!(!vector.input("comment").is_empty(), "{} has no comment", vector.name);
    }
}

#[test]
fn every_kind_of_failure_has_a_meaning_and_a_vector() {
    let readme = read("repo-format/tests/vectors/README.md");
    let named = |prefix: &str| -> BTreeSet<String> {
        let section = readme.split_once(prefix).unwrap_or_else(|| panic!("no {prefix}")).1;
        let rows = section
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'));
        rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    let vectors = Vector::all();
    let used: BTreeSet<String> = vectors.iter().map(|vector| vector.expect.clone()).collect();
    assert_eq!(used, named("## Kinds of failure"));
    let objects: BTreeSet<String> = vectors.iter().map(|vector| vector.object.clone()).collect();
    assert_eq!(objects, named("## Objects"));
}

#[test]
fn every_scenario_names_a_test_that_is_there() {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut scenarios = 0;
    for vector in Vector::all().iter().filter(|vector| vector.object == "scenario") {
        scenarios += 1;
        let test = vector.input("test");
        let (path, name) = test.split_once("::").unwrap_or_else(|| panic!("{}: {test}", vector.name));
        let source = files.entry(path.to_owned()).or_insert_with(|| read(path));
        let (before, _) =
            source.split_once(&format!("fn {name}(")).unwrap_or_else(|| panic!("no test {test}"));
        assert_eq!(before.trim_end().lines().last().map(str::trim), Some("#[test]"), "{test} is no test");
        assert!(matches!(vector.expect.as_str(), "ok" | "refused"), "{}: {}", vector.name, vector.expect);
    }
    assert!(scenarios > 0, "no scenario");
}
