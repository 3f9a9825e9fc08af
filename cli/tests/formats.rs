//! Restores as images, with QEMU's tools.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod world;

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use world::{Ended, MIB, World, noise};

/// QEMU's name of each format.
const FORMATS: [(&str, &str); 4] = [("raw", "raw"), ("vhd", "vpc"), ("vmdk", "vmdk"), ("qcow2", "qcow2")];

/// A disk of 5 MiB and 7 sectors in a repository, with a hole in it, as `disk.raw`.
fn backed_up() -> (World, usize) {
    let world = World::with_repository();
    let mut disk = noise(1, 5 * MIB + 7 * 512);
    disk[MIB..3 * MIB].fill(0);
    world.write("disk.raw", &disk);
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    (world, disk.len())
}

fn qemu_img(world: &World, arguments: &[&str]) -> String {
    let ended = Ended::of(world.bare("qemu-img").args(arguments).output());
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.stdout
}

fn partial(world: &World) -> Vec<String> {
    let names = fs::read_dir(world.dir.path()).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("out"))
        .collect()
}

#[test]
fn every_format_is_restored_and_told() {
    let (world, disk_len) = backed_up();
    for (format, qemu) in FORMATS {
        let arguments = ["restore", "web@latest", "--to", "out", "--format", format, "--overwrite"];
        let report = world.report(&arguments);
        let len = world.path("out").metadata().unwrap().len();
        assert_eq!((&report["format"], &report["imageBytes"]), (&json!(format), &json!(len)));
        assert_eq!(report["diskBytes"], disk_len);
        qemu_img(&world, &["compare", "-f", qemu, "-F", "raw", "out", "disk.raw"]);
        let info: Value =
            serde_json::from_str(&qemu_img(&world, &["info", "-f", qemu, "--output=json", "out"])).unwrap();
        let size = match format {
            "vhd" => 6 << 20,
            "vmdk" => (5 << 20) + (64 << 10),
            _ => disk_len,
        };
        assert_eq!(info["virtual-size"], size, "{format}");
    }
    qemu_img(&world, &["check", "-f", "qcow2", "out"]);
    let ended = world.run(&["restore", "web@latest", "--to", "azure.vhd", "--format", "vhd"]);
    assert!(ended.stdout.contains("to azure.vhd\n  as vhd of 6.0 MiB (6291968 bytes)\n"), "{ended:?}");
}

#[test]
fn what_can_be_streamed_is_the_same_as_a_file() {
    let (world, _) = backed_up();
    for format in ["raw", "vhd", "vmdk"] {
        world.run(&["restore", "web@latest", "--to", "file", "--format", format, "--overwrite"]).done();
        let stream = File::create(world.path("stream")).unwrap();
        let mut command =
            world.command(&["--json", "restore", "web@latest", "--to", "-", "--format", format]);
        let output = command.stdout(stream).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(world.read("stream") == world.read("file"), "{format}");
        let report: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(report["imageBytes"], world.read("file").len(), "{format}");
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_read() {
    let world = World::new();
    // A block device of any kind does, as it is not opened.
    let device = fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap()).find(|entry| {
        use std::os::unix::fs::FileTypeExt as _;
        entry.file_type().unwrap().is_block_device()
    });
    let output = "keepstone: error: a qcow2 file cannot be written to standard output: its header comes last
  hint: name a file with --to, or use --format vmdk, vhd or raw\n";
    let ended = world.run(&["restore", "web@latest", "--to", "-", "--format", "qcow2"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), output));
    if let Some(device) = device {
        let device = device.path().to_str().unwrap().to_owned();
        for format in ["vhd", "vmdk", "qcow2"] {
            let ended =
                world.run(&["restore", "web@latest", "--to", &device, "--overwrite", "--format", format]);
            let told = format!(
                "keepstone: error: {device} is a disk itself, and takes nothing but the bytes of one
  hint: leave out --format, or name a file with --to\n"
            );
            assert_eq!((ended.code, ended.stderr), (Some(2), told));
        }
    }
}

#[test]
fn a_disk_that_is_too_large_for_a_format_is_refused() {
    let world = World::with_repository();
    let disk = File::create(world.path("disk.raw")).unwrap();
    disk.set_len((2040 << 30) + 512).unwrap();
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    let ended = world.run(&["restore", "web@latest", "--to", "out", "--format", "vhd"]);
    let told = "keepstone: error: a VHD image holds at most 2190433320960 bytes, the disk has 2190433321472
  hint: restore it with --format raw, and have the tool convert it that takes it in\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), told));
    assert!(partial(&world).is_empty());
    // Nothing of it is data, so that this is quick.
    for (format, qemu) in [("vmdk", "vmdk"), ("qcow2", "qcow2")] {
        world.run(&["restore", "web@latest", "--to", "out", "--format", format, "--overwrite"]).done();
        let info: Value =
            serde_json::from_str(&qemu_img(&world, &["info", "-f", qemu, "--output=json", "out"])).unwrap();
        let unit = if format == "vmdk" { 64 << 10 } else { 512 };
        assert_eq!(info["virtual-size"], ((2040u64 << 30) + 512).next_multiple_of(unit));
    }
}

#[test]
fn a_failed_or_killed_restore_leaves_nothing_that_looks_complete() {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, 20 * MIB));
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    for (format, qemu) in &FORMATS[1..] {
        let arguments = ["restore", "web@latest", "--to", "out", "--format", format];
        world.write("out", b"precious");
        assert_eq!(world.run(&arguments).code, Some(1));
        let overwrite = [&arguments[..], &["--overwrite"]].concat();

        // No file may be longer than 8 MiB; a write beyond fails, as on a full disk.
        let limit = format!("trap '' XFSZ; exec prlimit --fsize={} \"$@\"", 8 * MIB);
        let mut limited = world.bare("sh");
        limited.args(["-c", &limit, "sh", world::PROGRAM, "-r", "repo", "--password-file", "password"]);
        let ended = Ended::of(limited.args(&overwrite).output());
        assert_eq!(ended.code, Some(1), "{format}: {ended:?}");
        assert!(ended.stderr.contains("out.keepstone-partial"), "{format}: {ended:?}");
        assert_eq!((partial(&world), world.read("out")), (vec!["out".to_owned()], b"precious".to_vec()));

        // Stopped with something written, then killed.
        let mut child = world
            .command(&[&["-v"], &overwrite[..]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(messages.any(|line| line.unwrap().contains("phase=Restore")), "{format}: it never began");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(world.read("out") == b"precious" || partial(&world).len() == 1);
        if world.path("out.keepstone-partial").exists() {
            let probed = qemu_img(&world, &["info", "--output=json", "out.keepstone-partial"]);
            let probed: Value = serde_json::from_str(&probed).unwrap();
            assert_eq!(probed["format"], "raw", "{format}");
        }
        // The next one takes it over.
        world.run(&overwrite).done();
        qemu_img(&world, &["compare", "-f", qemu, "-F", "raw", "out", "disk.raw"]);
        assert_eq!(partial(&world), ["out"]);
        fs::remove_file(world.path("out")).unwrap();
    }
}

#[test]
fn an_interrupted_vhd_is_gone_on_with_and_other_images_are_not() {
    let (world, _) = backed_up();
    let pack = fs::read_dir(world.path("repo/d/default")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&pack).unwrap();
    let put = |bytes: &[u8]| {
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    };
    let mut damaged = whole.clone();
    damaged[2 * MIB] ^= 1;
    put(&damaged);
    let vhd = ["restore", "web@latest", "--to", "out", "--format", "vhd"];
    assert_eq!(world.run(&vhd).code, Some(3));
    assert_eq!(partial(&world).len(), 2, "{:?}", partial(&world));

    // A VMDK makes the file anew: nothing of the VHD is there to be gone on with, nor of the VMDK.
    assert_eq!(world.run(&["restore", "web@latest", "--to", "out", "--format", "vmdk"]).code, Some(3));
    assert_eq!(partial(&world), [""; 0]);
    for format in ["vmdk", "qcow2"] {
        let ended = world.run(&["restore", "web@latest", "--to", "out", "--format", format, "--resume"]);
        let told = format!(
            "keepstone: error: no restore to a {format} image can be gone on with
  hint: leave out --resume: it begins anew\n"
        );
        assert_eq!((ended.code, ended.stderr), (Some(2), told));
    }

    assert_eq!(world.run(&vhd).code, Some(3));
    put(&whole);
    let report = world.report(&[&vhd[..], &["--resume"]].concat());
    assert!(report["unchangedBytes"].as_u64().unwrap() > 0, "{report}");
    qemu_img(&world, &["compare", "-f", "vpc", "-F", "raw", "out", "disk.raw"]);
    assert_eq!(partial(&world), ["out"]);

    let ended = world.run(&[&vhd[..], &["--in-place"]].concat());
    let told = "keepstone: error: --in-place brings back the bytes of a disk, not a vhd image
  hint: leave out --in-place to make a new file\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), told));
}

#[test]
fn a_reader_of_an_image_that_closes_early_has_not_received_it() {
    let (world, _) = backed_up();
    for format in ["raw", "vhd", "vmdk"] {
        let mut child = world
            .command(&["restore", "web@latest", "--to", "-", "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The command holds the pipe until it is dropped.
        let head = Command::new("head").args(["-c", "100"]).stdin(child.stdout.take().unwrap()).output();
        assert_eq!(head.unwrap().stdout.len(), 100);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{format}: {stderr}");
        let hint = "  hint: what reads the output closed it before it had the whole disk\n";
        assert!(
            stderr.contains("could not write the stream") && stderr.ends_with(hint),
            "{format}: {stderr}"
        );
    }
}
