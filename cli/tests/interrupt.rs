//! Backups that are interrupted, killed, or run twice.

mod world;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
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
    let (mut child, mut messages) = world.slow_backup("web");
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
    assert_eq!(world.run(&["-q", "backup", "--vm", "web", "disk.raw"]).stderr, "");
    world.run(&["verify", "--read-data"]).done();
    world.run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == disk, "the disk is another one");
}

#[test]
fn a_backup_that_waits_for_a_silent_nbd_server_is_ended_by_one_signal() {
    let world = World::with_repository();
    let server = UnixListener::bind(world.path("silent.sock")).unwrap();
    let command = ["backup", "--vm", "web", "nbd+unix:///?socket=silent.sock"];
    let mut child = world.command(&command).stderr(Stdio::null()).spawn().unwrap();
    let _client = server.accept().unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_killed_backup_is_ended_by_the_next_one() {
    let world = World::with_repository();
    let disk = noise(1, 96 * MIB);
    world.write("disk.raw", &disk);
    let (mut child, _messages) = world.slow_backup("web");
    child.kill().unwrap();
    child.wait().unwrap();

    // Another VM's backup has nothing to do with it, nor one on another host that cannot know that it has ended.
    let other = world.run(&["-q", "backup", "--vm", "db", "disk.raw"]);
    assert_eq!((other.code, other.stderr.as_str()), (Some(0), ""));
    let elsewhere = ["--cache-dir", "elsewhere", "backup", "--vm", "web", "disk.raw"];
    let refused = world.run(&elsewhere);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("may still be running"), "{refused:?}");
    assert!(refused.stderr.contains("--take-over"), "{refused:?}");

    let next = world.run(&["-q", "backup", "--vm", "web", "disk.raw"]);
    assert_eq!(next.code, Some(0), "{next:?}");
    assert!(next.stderr.contains("was never ended"), "{next:?}");
    assert!(next.stderr.contains("what an index lists is used again"), "{next:?}");
    assert_eq!(world.run(&["-q", "backup", "--vm", "web", "disk.raw"]).stderr, "");
    world.run(&["verify", "--read-data"]).done();
    world.run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == disk, "the disk is another one");
}

#[test]
fn a_killed_backup_is_taken_over_by_another_host() {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, 96 * MIB));
    let (mut child, _messages) = world.slow_backup("web");
    child.kill().unwrap();
    child.wait().unwrap();
    let taken = ["-q", "--cache-dir", "elsewhere", "backup", "--take-over", "--vm", "web", "disk.raw"];
    let taken = world.run(&taken);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    assert!(taken.stderr.contains("was never ended"), "{taken:?}");
}

#[test]
fn a_backup_of_a_vm_that_is_being_backed_up_is_refused() {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, 96 * MIB));
    world.write("small.raw", &noise(2, MIB));
    let (mut child, _messages) = world.slow_backup("web");
    insta::assert_snapshot!(world.run(&["backup", "--vm", "web", "small.raw"]).told());
    world.run(&["backup", "--vm", "db", "small.raw"]).done();
    world.run(&["--writer", "b", "backup", "--vm", "web", "small.raw"]).done();
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn the_second_interrupt_kills() {
    let world = World::with_repository();
    // A vCenter that says nothing: the program waits for it, and cannot look at its marks.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("vsphere://{}/DC/vm/web", server.local_addr().unwrap());
    let thumbprint = "00".repeat(32);
    let mut arguments =
        vec!["backup", &place, "--vsphere-user", "backup", "--vsphere-password-file", "password"];
    arguments.extend(["--vsphere-thumbprint", &thumbprint]);
    let mut child = world.command(&arguments).stderr(Stdio::null()).spawn().expect("the program starts");
    let _client = server.accept().unwrap();
    // Two that come at once may arrive as one.
    while child.try_wait().unwrap().is_none() {
        interrupt(&child);
        std::thread::yield_now();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn before_the_disks_are_open_one_interrupt_ends_the_program() {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, MIB));
    // A changes file that never comes: the program waits at a pipe, where it cannot look at its marks.
    let pipe = world.path("changes");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut command = world.command(&["backup", "--vm", "web", "disk.raw", "--changes", "changes"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    // Opening returns when the program has opened it too.
    let writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output());
    assert_eq!(ended.code, Some(130), "{ended:?}");
    drop(writer);
}
