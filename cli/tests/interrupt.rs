//! Ctrl-C.

mod world;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use world::{Ended, MIB, World, noise};

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).expect("the signal is sent");
}

#[test]
fn an_interrupted_backup_commits_nothing_and_harms_nothing() {
    let world = World::with_repository();
    let disk = noise(1, 96 * MIB);
    world.write("disk.raw", &disk);
    let backup = ["-v", "--threads", "1", "backup", "--vm", "web", "disk.raw", "--compression", "9"];
    let mut child = world
        .command(&backup)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut messages = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("phase=Backup") {
        line.clear();
        assert_ne!(messages.read_line(&mut line).unwrap(), 0, "the backup never began");
    }
    interrupt(&child);
    let mut rest = String::new();
    messages.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(
        rest.ends_with(
            "keepstone: stopping; interrupt again to stop at once\nkeepstone: error: interrupted\n"
        ),
        "{rest}"
    );

    assert_eq!(world.report(&["snapshots"])["snapshots"].as_array().unwrap().len(), 0);
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    world.run(&["verify", "--read-data"]).done();
    world.run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == disk, "the disk is another one");
}

#[test]
fn the_second_interrupt_kills() {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, MIB));
    // A changes file that never comes: the program waits at a pipe, where it cannot look at its marks.
    let pipe = world.path("changes");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut command = world.command(&["backup", "--vm", "web", "disk.raw", "--changes", "changes"]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    // Opening returns when the program has opened it too.
    let writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    // Two that come at once may arrive as one.
    while child.try_wait().unwrap().is_none() {
        interrupt(&child);
        std::thread::yield_now();
    }
    let ended = Ended::of(child.wait_with_output());
    assert_eq!(ended.code, Some(130), "{ended:?}");
    drop(writer);
}
