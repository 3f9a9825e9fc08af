//! Disks that are served over NBD, with the clients that users have.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use keepstone_peers::nbd::make_certificates;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::process::{Child, ChildStderr, Command, Stdio};
use world::{Ended, MIB, World, noise};

const DISK_LEN: usize = 48 * MIB + 512;

/// A disk with data here and there, which begins with data and ends with it.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; DISK_LEN];
    for (number, start) in (0_u64..).zip((0..DISK_LEN).step_by(5 * MIB)) {
        let data = noise(number, 700_000);
        let end = DISK_LEN.min(start + data.len());
        disk[start..end].copy_from_slice(&data[..end - start]);
    }
    disk[DISK_LEN - 512..].copy_from_slice(&noise(99, 512));
    disk
}

fn with_disk() -> (World, Vec<u8>) {
    let world = World::with_repository();
    let disk = disk();
    world.write("disk.raw", &disk);
    world.run(&["-q", "backup", "--vm", "web", "disk.raw"]).done();
    (world, disk)
}

/// Serves the newest snapshot while a shell does something with it; what that prints.
fn shell(world: &World, options: &[&str], script: &str) -> String {
    let serve =
        [&["-q", "serve", "web@latest"], options, &["--", "bash", "-euo", "pipefail", "-c", script]].concat();
    let ended = world.run(&serve);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout
}

/// A server at the socket `socket`.
struct Server {
    child: Child,
    messages: BufReader<ChildStderr>,
}

impl Server {
    fn start(world: &World, options: &[&str]) -> Self {
        let mut command = world.command(&[&["serve", "web@latest"], options].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("is served at") {
            line.clear();
            assert_ne!(messages.read_line(&mut line).unwrap(), 0, "the server never began");
        }
        Self { child, messages }
    }

    /// Ends it as an operator does, and returns its exit code and its last messages.
    fn end(mut self) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut rest = String::new();
        self.messages.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

const URI: &str = "nbd+unix:///?socket=socket";

fn client(world: &World, program: &str, arguments: &[&str]) -> Ended {
    Ended::of(world.bare(program).args(arguments).output())
}

#[test]
fn nbdinfo_is_told_all_of_the_disk() {
    let (world, disk) = with_disk();
    let told = shell(&world, &[], "nbdinfo --json \"$NBD_URI\"");
    let told: Value = serde_json::from_str(&told).unwrap();
    let export = &told["exports"][0];
    assert_eq!(
        (told["protocol"].as_str(), &told["structured"]),
        (Some("newstyle-fixed"), &Value::Bool(true))
    );
    assert_eq!(export["export-size"], disk.len());
    let known = ["is_read_only", "can_df", "can_multi_conn", "can_cache", "can_trim", "can_fua"];
    let known = known.map(|flag| export[flag].as_bool());
    assert_eq!(known, [Some(true), Some(true), Some(true), Some(true), Some(false), Some(false)]);
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
    let listed = shell(&world, &[], "nbdinfo --list \"$NBD_URI\"");
    assert!(listed.contains("export=\"disk0\"") && listed.contains("of web"), "{listed}");

    let map = shell(&world, &[], "nbdinfo --map --json \"$NBD_URI\"");
    let map: Vec<Value> = serde_json::from_str(&map).unwrap();
    let mut at = 0;
    let mut holes = 0;
    for area in &map {
        let number = |key: &str| usize::try_from(area[key].as_u64().unwrap()).unwrap();
        assert_eq!(number("offset"), at);
        let end = at + number("length");
        if number("type") == 3 {
            assert!(disk[at..end].iter().all(|byte| *byte == 0));
            holes += end - at;
        }
        at = end;
    }
    assert_eq!(at, disk.len());
    assert!(holes > 30 * MIB, "{map:?}");
}

#[test]
fn nbdcopy_and_qemu_img_get_the_same_bytes() {
    let (world, disk) = with_disk();
    for options in ["--connections=1 --requests=1", "--connections=8 --request-size=65536", "--synchronous"] {
        shell(&world, &[], &format!("nbdcopy {options} \"$NBD_URI\" copy.raw"));
        assert!(world.read("copy.raw") == disk, "{options}");
        fs::remove_file(world.path("copy.raw")).unwrap();
    }
    let script = "qemu-img compare -f raw -F raw \"$NBD_URI\" disk.raw >&2
        qemu-img convert -f raw -O qcow2 \"$NBD_URI\" copy.qcow2
        qemu-img compare -f qcow2 -F raw copy.qcow2 disk.raw";
    assert_eq!(shell(&world, &[], script), "Images are identical.\n");
    // A cache that holds next to nothing changes nothing but the time.
    shell(&world, &["--cache", "64KiB"], "nbdcopy \"$NBD_URI\" copy.raw");
    assert!(world.read("copy.raw") == disk);
}

#[test]
fn files_of_a_guest_are_read_without_restoring_its_disk() {
    let world = World::with_repository();
    fs::create_dir_all(world.path("tree/etc")).unwrap();
    world.write("tree/etc/hostname", b"web01\n");
    let large = noise(5, 3 * MIB);
    world.write("tree/large", &large);
    let made = client(&world, "mke2fs", &["-q", "-t", "ext4", "-d", "tree", "ext4.img", "32M"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    // A partition that begins at 1 MiB, as they do.
    let image = File::create(world.path("disk.raw")).unwrap();
    image.write_all_at(&world.read("ext4.img"), MIB as u64).unwrap();
    world.run(&["-q", "backup", "--vm", "web", "disk.raw"]).done();
    let script = "socket=${NBD_URI#*socket=}
        file=\"driver=raw,offset=1048576,size=33554432,file.driver=nbd,file.server.type=unix,file.server.path=$socket\"
        qemu-img convert --image-opts \"$file\" -O raw partition.img
        debugfs -R 'cat /etc/hostname' partition.img
        debugfs -R 'dump /large large' partition.img";
    assert_eq!(shell(&world, &[], script), "web01\n");
    assert!(world.read("large") == large);
}

#[test]
fn an_image_within_the_disk_is_read_through_it() {
    let world = World::with_repository();
    let inner = noise(8, 5 * MIB);
    world.write("inner.raw", &inner);
    let made =
        client(&world, "qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "inner.raw", "inner.qcow2"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let image = File::create(world.path("disk.raw")).unwrap();
    image.write_all_at(&world.read("inner.qcow2"), 3 * MIB as u64).unwrap();
    image.set_len(20 * MIB as u64).unwrap();
    world.run(&["-q", "backup", "--vm", "web", "disk.raw"]).done();
    let script = "socket=${NBD_URI#*socket=}
        nbd='{\"driver\":\"nbd\",\"server\":{\"type\":\"unix\",\"path\":\"'$socket'\"}}'
        raw='{\"driver\":\"raw\",\"offset\":3145728,\"file\":'$nbd'}'
        qemu-img compare 'json:{\"driver\":\"qcow2\",\"file\":'$raw'}' inner.raw";
    assert_eq!(shell(&world, &[], script), "Images are identical.\n");
}

#[test]
fn what_is_written_is_kept_in_the_overlay_and_nowhere_else() {
    let (world, mut disk) = with_disk();
    let io = |commands: &[&str]| {
        let commands: Vec<String> = commands.iter().map(|command| format!("-c '{command}'")).collect();
        let script = format!("qemu-io -f raw \"$NBD_URI\" {}", commands.join(" "));
        let said = shell(&world, &["--overlay", "overlay"], &script);
        assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
    };
    io(&[
        "write -P 1 1000 5000",
        "read -P 1 1000 5000",
        "write -z 10M 1M",
        "write -P 2 10M 512",
        "write -f -P 3 40M 4k",
    ]);
    // Another server goes on with it.
    io(&[
        "read -P 1 1000 5000",
        "read -P 2 10M 512",
        "read -P 0 10486272 1000000",
        "write -P 4 2M 64k",
        "discard 5M 1M",
        "flush",
    ]);
    disk[1000..6000].fill(1);
    disk[10 * MIB..11 * MIB].fill(0);
    disk[10 * MIB..10 * MIB + 512].fill(2);
    disk[40 * MIB..40 * MIB + 4096].fill(3);
    disk[2 * MIB..2 * MIB + 65536].fill(4);
    disk[5 * MIB..6 * MIB].fill(0);
    shell(&world, &["--overlay", "overlay"], "nbdcopy \"$NBD_URI\" changed.raw");
    assert!(world.read("changed.raw") == disk);
    // The snapshot is as it was, and whoever serves it without the overlay cannot write.
    shell(
        &world,
        &[],
        "qemu-img compare -f raw -F raw \"$NBD_URI\" disk.raw; ! qemu-io -f raw -c 'write 0 512' \"$NBD_URI\" 2>&1",
    );
    let metadata = fs::metadata(world.path("overlay")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn what_is_in_an_overlay_becomes_a_snapshot_by_backing_up_what_is_served() {
    let (world, mut disk) = with_disk();
    let server = Server::start(&world, &["--socket", "socket", "--overlay", "overlay"]);
    let io = ["-f", "raw", "-c", "write -P 9 7M 64k", "-c", "write -z 10M 1M", "-c", "flush", URI];
    client(&world, "qemu-io", &io).done();
    let uri = format!("nbd+unix:///?socket={}", world.path("socket").display());
    world.run(&["-q", "backup", "--vm", "web", &uri]).done();
    assert_eq!(server.end().0, Some(0));
    disk[7 * MIB..7 * MIB + 65536].fill(9);
    disk[10 * MIB..11 * MIB].fill(0);
    world.run(&["-q", "restore", "web@latest", "--to", "restored.raw"]).done();
    assert!(world.read("restored.raw") == disk);
}

/// Serves a disk of a snapshot with an overlay to a shell, and commits that; the exit code, and the report or the messages.
fn commit(world: &World, snapshot: &str, script: &str) -> (Option<i32>, String) {
    let serve =
        ["-q", "--json", "serve", snapshot, "--disk", "system", "--overlay", "overlay", "--commit", "--"];
    let ended = world.run(&[&serve[..], &["bash", "-euo", "pipefail", "-c", script]].concat());
    (ended.code, ended.stderr)
}

/// A VM with two disks, of which one is served; their bytes.
fn with_two_disks() -> (World, Vec<u8>, Vec<u8>) {
    let world = World::with_repository();
    let (system, data) = (disk(), noise(7, MIB));
    world.write("system.raw", &system);
    world.write("data.raw", &data);
    world.run(&TWO_DISKS).done();
    (world, system, data)
}

const TWO_DISKS: [&str; 8] =
    ["-q", "backup", "--vm", "web", "--disk", "system=system.raw", "--disk", "data=data.raw"];

fn assert_newest(world: &World, system: &[u8], data: &[u8]) {
    for (key, expected) in [("system", system), ("data", data)] {
        world
            .run(&["-q", "restore", "web@latest", "--disk", key, "--to", "restored.raw", "--overwrite"])
            .done();
        assert!(world.read("restored.raw") == expected, "disk {key} is another one");
    }
}

#[test]
fn what_was_written_is_stored_as_a_snapshot_if_that_is_wanted() {
    let (world, mut system, data) = with_two_disks();
    let script = "qemu-io -f raw -c 'write -P 9 7M 64k' -c 'write -z 10M 1M' \"$NBD_URI\"";
    let (code, report) = commit(&world, "web@latest", script);
    assert_eq!(code, Some(0), "{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let disks = report["committed"]["disks"].as_array().unwrap();
    for disk in disks {
        let changed = disk["changedBytes"].as_u64().unwrap();
        // What was zero before is not changed by zeros.
        let expected = if disk["key"] == "data" { 0..=0 } else { 65537..=(1 << 20) + 65536 };
        assert!(disk["mode"] == "incremental" && expected.contains(&changed), "{report}");
    }
    assert_eq!(disks.len(), 2);
    system[7 * MIB..7 * MIB + 65536].fill(9);
    system[10 * MIB..11 * MIB].fill(0);
    assert_newest(&world, &system, &data);
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn what_was_written_over_an_older_snapshot_does_not_mix_with_a_newer_one() {
    let (world, mut system, data) = with_two_disks();
    let first = world.report(&["snapshots"])["snapshots"][0]["snapshot"].as_str().unwrap().to_owned();
    let mut newer = system.clone();
    newer[20 * MIB..21 * MIB].fill(5);
    world.write("system.raw", &newer);
    world.write("data.raw", &noise(8, MIB));
    world.run(&TWO_DISKS).done();
    let (code, report) = commit(&world, &first, "qemu-io -f raw -c 'write -P 9 7M 64k' \"$NBD_URI\"");
    assert_eq!(code, Some(0), "{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["committed"]["disks"][0]["mode"], "full", "{report}");
    system[7 * MIB..7 * MIB + 65536].fill(9);
    assert_newest(&world, &system, &data);
}

#[test]
fn nothing_is_stored_when_the_command_fails() {
    let (world, system, data) = with_two_disks();
    let (code, told) =
        commit(&world, "web@latest", "qemu-io -f raw -c 'write -P 9 7M 64k' \"$NBD_URI\"; false");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("nothing was stored, since not all that was wanted could be served"), "{told}");
    assert_eq!(world.report(&["snapshots"])["snapshots"].as_array().unwrap().len(), 1);
    assert_newest(&world, &system, &data);
}

#[test]
fn a_server_outlives_its_clients_and_serves_many() {
    let (world, disk) = with_disk();
    let server = Server::start(&world, &["--socket", "socket"]);
    assert_eq!(fs::metadata(world.path("socket")).unwrap().permissions().mode() & 0o777, 0o600);
    // One that is killed in the midst, since nobody takes what it copies.
    let mut killed = Command::new("nbdcopy");
    let mut killed =
        killed.current_dir(world.dir.path()).args([URI, "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut begun = [0; 100];
    killed.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    assert!(begun == disk[..100]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    std::thread::scope(|threads| {
        for number in 0..4 {
            let (world, disk) = (&world, &disk);
            threads.spawn(move || {
                let copy = format!("copy{number}.raw");
                let ended = client(world, "nbdcopy", &[URI, &copy]);
                assert_eq!(ended.code, Some(0), "{ended:?}");
                assert!(world.read(&copy) == *disk);
            });
        }
    });
    let refused = world.run(&["serve", "web@latest", "--socket", "socket"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("a server is listening at"), "{refused:?}");
    let (code, report) = server.end();
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("connections") && report.contains("fetched ahead"), "{report}");
    assert!(!world.path("socket").exists());
}

#[test]
fn a_killed_server_is_followed_by_another_at_the_same_socket_and_overlay() {
    let (world, mut disk) = with_disk();
    let options = ["--socket", "socket", "--overlay", "overlay"];
    let mut server = Server::start(&world, &options);
    let written = client(&world, "qemu-io", &["-f", "raw", "-c", "write -P 7 1M 1M", "-c", "flush", URI]);
    assert_eq!(written.code, Some(0), "{written:?}");
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert!(world.path("socket").exists());
    let server = Server::start(&world, &options);
    let ended = client(&world, "nbdcopy", &[URI, "copy.raw"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    disk[MIB..2 * MIB].fill(7);
    assert!(world.read("copy.raw") == disk);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn tls_is_spoken_with_nbds_own_files() {
    let (world, disk) = with_disk();
    let directory = |name: &str| {
        fs::create_dir(world.path(name)).unwrap();
        world.path(name)
    };
    let (all, server, trusting, known) =
        (directory("all"), directory("server"), directory("trusting"), directory("known"));
    make_certificates(&all);
    let copy = |from: &str, to: &std::path::Path| fs::copy(all.join(from), to).map(drop).unwrap();
    for file in ["server-cert.pem", "server-key.pem"] {
        copy(file, &server.join(file));
    }
    copy("ca-cert.pem", &trusting.join("ca-cert.pem"));
    copy("ca-cert.pem", &known.join("ca-cert.pem"));
    copy("server-cert.pem", &known.join("client-cert.pem"));
    copy("server-key.pem", &known.join("client-key.pem"));
    let copied = |certificates: &str, client: &str| {
        let options = ["--listen", "127.0.0.1:0", "--tls-certificates", certificates];
        let script = format!("nbdcopy \"$NBD_URI?tls-certificates=$PWD/{client}\" copy.raw");
        let ended =
            world.run(&[&["-q", "serve", "web@latest"], &options[..], &["--", "sh", "-c", &script]].concat());
        let is_same = world.path("copy.raw").exists() && world.read("copy.raw") == disk;
        drop(fs::remove_file(world.path("copy.raw")));
        (ended, is_same)
    };
    let (ended, is_same) = copied("server", "trusting");
    assert!(ended.code == Some(0) && is_same, "{ended:?}");
    assert!(ended.stderr.contains("clients need no certificate"), "{ended:?}");
    // With an authority, those come in that it knows.
    let (ended, is_same) = copied("all", "known");
    assert!(ended.code == Some(0) && is_same, "{ended:?}");
    let (ended, is_same) = copied("all", "trusting");
    assert!(ended.code == Some(1) && !is_same, "{ended:?}");
    // Nobody gets anything in the clear.
    let clear =
        ["-q", "serve", "web@latest", "--listen", "127.0.0.1:0", "--tls-certificates", "server", "--"];
    let ended = world.run(&[&clear[..], &["sh", "-c", "nbdinfo \"nbd:${NBD_URI#nbds:}\""]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn programs_are_told_in_json_where_the_disk_is() {
    let (world, disk) = with_disk();
    let mut command = world.command(&["--json", "serve", "web@latest", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = serde_json::Deserializer::from_reader(child.stdout.take().unwrap());
    let ready: Value = serde::Deserialize::deserialize(&mut told).unwrap();
    assert_eq!(world::keys(&ready), ["disk", "diskBytes", "elapsedMs", "snapshot", "uri", "vm", "writable"]);
    assert_eq!((&ready["diskBytes"], &ready["writable"]), (&disk.len().into(), &false.into()));
    let size = client(&world, "nbdinfo", &["--size", ready["uri"].as_str().unwrap()]);
    assert_eq!(size.done().trim(), disk.len().to_string());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = Ended::of(child.wait_with_output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(report["served"]["clients"], 1);
}

#[test]
fn damage_fails_what_wants_it_and_is_told() {
    let (world, disk) = with_disk();
    let packs =
        client(&world, "find", &["repo", "-path", "repo/d/*", "-type", "f", "-size", "+1000k"]).done();
    let pack = world.path(packs.lines().next().unwrap());
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4].fill(0xaa);
    let mut permissions = fs::metadata(&pack).unwrap().permissions();
    permissions.set_mode(0o600);
    fs::set_permissions(&pack, permissions).unwrap();
    fs::write(&pack, bytes).unwrap();
    for script in ["! nbdcopy \"$NBD_URI\" copy.raw", "nbdcopy \"$NBD_URI\" copy.raw"] {
        let ended = world.run(&["serve", "web@latest", "--", "sh", "-c", script]);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert_eq!(
            ended.stderr.contains("sh ended with exit status: 1"),
            !script.starts_with('!'),
            "{ended:?}"
        );
    }
    let script =
        "qemu-io -f raw \"$NBD_URI\" -c 'read 0 512' -c 'read 10M 512'; nbdcopy \"$NBD_URI\" copy.raw";
    let ended = world.run(&["serve", "web@latest", "--", "sh", "-c", script]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("cannot be read: d/"), "{ended:?}");
    assert!(ended.stderr.contains("something stored is damaged"), "{ended:?}");
    assert!(!world.path("copy.raw").exists() || world.read("copy.raw") != disk);
}

#[test]
fn a_command_that_fails_and_calls_that_cannot_be_meant_are_told() {
    let (world, _) = with_disk();
    let serve = |options: &[&str]| world.run(&[&["-q", "serve", "web@latest"], options].concat());
    let failed = serve(&["--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("sh ended with exit status: 7"), "{failed:?}");
    for (options, told) in [
        (&[][..], "it is not said where the disk is to be served"),
        (&["--listen", "0.0.0.0"], "could read the disk without a password"),
        (&["--listen", "nowhere.invalid:1"], "is no address of this host"),
        (&["--socket", "repo/socket"], "inside of the repository"),
        (&["--socket", "socket", "--overlay", "repo/overlay"], "inside of the repository"),
    ] {
        let refused = serve(options);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    world.write("file", b"mine");
    for options in [&["--socket", "file"], &["--overlay", "file"]] {
        let refused = serve(&[&options[..], &["--", "true"]].concat());
        assert_eq!(refused.code, Some(1), "{refused:?}");
    }
    assert_eq!(world.read("file"), b"mine");
}
