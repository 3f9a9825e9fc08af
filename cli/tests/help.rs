//! The help texts: what users read first.

mod world;

use world::{Ended, PROGRAM, World};

#[test]
fn every_command_explains_itself() {
    let world = World::new();
    let commands: &[&[&str]] = &[
        &[],
        &["init"],
        &["backup"],
        &["snapshots"],
        &["show"],
        &["diff"],
        &["stats"],
        &["restore"],
        &["serve"],
        &["verify"],
        &["forget"],
        &["prune"],
        &["pin"],
        &["unpin"],
        &["replica"],
        &["replica", "add"],
        &["replica", "remove"],
        &["replica", "list"],
        &["replica", "promote"],
        &["key"],
        &["key", "list"],
        &["key", "add"],
        &["key", "remove"],
        &["completions"],
        &["man"],
    ];
    let texts = commands.iter().fold(String::new(), |texts, command| {
        // A password in the environment must not show up in a text.
        let mut run = world.bare(PROGRAM);
        run.env("KEEPSTONE_PASSWORD", "xyzzy").env("KEEPSTONE_REPOSITORY", "xyzzy");
        run.env("AZURE_STORAGE_KEY", "xyzzy");
        let help = Ended::of(run.args(*command).arg("--help").output()).done();
        // The global options are the same everywhere.
        let own = match (command, help.find("Global options:")) {
            ([_, ..], Some(start)) => {
                let rest = help[start..]
                    .find("\nA ")
                    .or(help[start..].find("\nThe new"))
                    .map(|at| &help[start + at..]);
                format!("{}Global options: ...\n{}", &help[..start], rest.unwrap_or_default())
            }
            _ => help.clone(),
        };
        texts + &format!("$ keepstone {}\n{own}\n", [*command, &["--help"]].concat().join(" "))
    });
    assert!(!texts.contains("xyzzy"), "{texts}");
    insta::assert_snapshot!(texts);
}
