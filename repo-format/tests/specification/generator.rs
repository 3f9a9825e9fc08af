//! The vectors are what their generator writes, which shares no code with this crate.

use std::path::Path;
use std::process::Command;

#[test]
fn the_generator_writes_the_vectors_and_examples_as_they_are() {
    let generator = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/generator");
    // -B: no compiled modules are left beside the sources.
    let run =
        Command::new("python3").arg("-B").arg(generator).arg("--check").output().expect("python3 is there");
    let said = [run.stdout, run.stderr].map(|output| String::from_utf8_lossy(&output).into_owned());
    assert_eq!((run.status.code(), said), (Some(0), [String::new(), String::new()]));
}
