//! Writes the seeds of every target, and the vectors of SPEC.md that it has a use for, into directories below the one that is named, as libFuzzer reads them.

use keepstone_fuzz_bodies::{TARGETS, vectors};
use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let corpus = env::args_os().nth(1).map(PathBuf::from);
    let corpus = corpus.ok_or_else(|| io::Error::other("say where the corpus is to be"))?;
    for target in &TARGETS {
        let directory = corpus.join(target.name);
        fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("seed-{number}")), seed)?;
        }
    }
    for vector in vectors() {
        fs::write(corpus.join(vector.target).join(format!("vector-{}", vector.name)), vector.input)?;
    }
    Ok(())
}
