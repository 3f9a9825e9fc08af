//! Checks the models of the commit and prune protocol: `keepstone-model small|large [PART OF A NAME]`.

use keepstone_model::runs::{self, Run};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (runs, part) = match &arguments[..] {
        [size, rest @ ..] if size == "small" && rest.len() < 2 => (small(), rest.first()),
        [size, rest @ ..] if size == "large" && rest.len() < 2 => (runs::large(), rest.first()),
        _ => {
            writeln!(io::stderr(), "usage: keepstone-model small|large [PART OF A NAME]")?;
            return Ok(ExitCode::from(2));
        }
    };
    let part = part.map_or("", String::as_str);
    let (mut states, mut transitions, mut violated) = (0, 0, false);
    for run in runs.into_iter().filter(|run| run.name.contains(part)) {
        let outcome = report(run)?;
        states += outcome.states;
        transitions += outcome.transitions;
        violated |= !outcome.violations.is_empty();
    }
    writeln!(io::stdout(), "in all {states} states, {transitions} transitions")?;
    Ok(if violated { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn small() -> Vec<Run> {
    let mut runs = runs::small();
    runs.extend(runs::small_promotions());
    runs
}

fn report(run: Run) -> io::Result<keepstone_model::Outcome> {
    let name = run.name;
    let mut out = io::stdout();
    writeln!(out, "{name}: ...")?;
    let begun = Instant::now();
    let outcome = run.check();
    let verdict = if outcome.violations.is_empty() { "exhausted, no violation" } else { "VIOLATED" };
    writeln!(
        out,
        "{name}: {verdict}: {} states, {} transitions, depth {}, {:.0} s",
        outcome.states,
        outcome.transitions,
        outcome.depth,
        begun.elapsed().as_secs_f64(),
    )?;
    writeln!(out, "  seen: {}", outcome.seen.join(", "))?;
    if !outcome.unseen.is_empty() {
        writeln!(out, "  not seen: {}", outcome.unseen.join(", "))?;
    }
    for (property, steps) in &outcome.violations {
        writeln!(out, "  {property}")?;
        for step in steps {
            writeln!(out, "    {step}")?;
        }
    }
    Ok(outcome)
}
