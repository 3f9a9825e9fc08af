//! vcsim starts, and what is added to it of disks behaves as disks with snapshots do.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use keepstone_peers::vcsim::{Disk, Layout, Machine, Vcsim};

const MIB: u64 = 1 << 20;

/// What the base disk holds, as `/folder/` serves it.
fn flat(vcsim: &Vcsim) -> Vec<u8> {
    fs::read(&vcsim.machine("web").disks[0].flat).expect("the base disk is there")
}

fn files(machine: &Machine) -> Vec<&str> {
    machine.disks.iter().map(|disk| disk.file.as_str()).collect()
}

#[test]
fn it_begins_with_the_machines_that_were_asked_for() {
    let vcsim = Vcsim::start(&Layout::of(&[("web", &[MIB, 3 * MIB]), ("db 1", &[1024])]));

    assert_eq!(vcsim.machine_names().collect::<Vec<_>>(), ["db 1", "web"]);
    let web = vcsim.machine("web");
    assert_eq!((web.path.as_str(), web.on, web.change_tracking), ("/DC0/vm/web", true, false));
    assert_eq!(web.snapshots, []);
    let disk = |name: &str, key, capacity, file: &str, flat: PathBuf| Disk {
        name: name.into(),
        key,
        capacity,
        file: file.into(),
        flat,
        change_id: String::new(),
    };
    let flats: Vec<PathBuf> = web.disks.iter().map(|disk| disk.flat.clone()).collect();
    assert_eq!(
        web.disks,
        [
            disk("scsi0:0", 2000, MIB, "[LocalDS_0] web/web.vmdk", flats[0].clone()),
            disk("scsi0:1", 2001, 3 * MIB, "[LocalDS_0] web/web_1.vmdk", flats[1].clone()),
        ]
    );
    assert_eq!(vcsim.contents("web", "scsi0:0"), fs::read(&flats[0]).unwrap());
    assert_ne!(vcsim.contents("web", "scsi0:0"), vec![0; 1 << 20]);
}

#[test]
fn a_snapshot_keeps_what_was_written_before_it_until_it_is_removed() {
    let vcsim = Vcsim::start(&Layout::of(&[("web", &[MIB])]));
    let first = flat(&vcsim);
    vcsim.create_snapshot("web", "first");
    assert_eq!(files(&vcsim.machine("web")), ["[LocalDS_0] web/web-000001.vmdk"]);
    vcsim.write("web", "scsi0:0", 0, 4096, None);
    let second = vcsim.contents("web", "scsi0:0");
    vcsim.create_snapshot("web", "second");
    assert_eq!(files(&vcsim.machine("web")), ["[LocalDS_0] web/web-000002.vmdk"]);
    vcsim.write("web", "scsi0:0", 1024, 512, Some(7));
    let third = vcsim.contents("web", "scsi0:0");

    assert_eq!(flat(&vcsim), first);
    assert_eq!(second[..4096], [0; 4096]);
    assert_eq!(second[4096..], first[4096..]);
    assert_eq!((&third[..1024], &third[1536..]), (&second[..1024], &second[1536..]));
    assert_ne!(third[1024..1536], [0; 512]);

    vcsim.remove_snapshot("web", "first");
    assert_eq!(flat(&vcsim), second);
    assert_eq!(files(&vcsim.machine("web")), ["[LocalDS_0] web/web-000002.vmdk"]);
    vcsim.remove_snapshot("web", "second");
    assert_eq!(flat(&vcsim), third);
    assert_eq!(files(&vcsim.machine("web")), ["[LocalDS_0] web/web.vmdk"]);
    assert_eq!(vcsim.machine("web").snapshots, []);
}

#[test]
fn a_newer_snapshot_can_be_removed_before_an_older_one() {
    let vcsim = Vcsim::start(&Layout::of(&[("web", &[MIB])]));
    let before = flat(&vcsim);
    vcsim.create_snapshot("web", "first");
    vcsim.write("web", "scsi0:0", 0, 8192, None);
    vcsim.create_snapshot("web", "second");
    vcsim.write("web", "scsi0:0", 4096, 8192, Some(7));
    let after = vcsim.contents("web", "scsi0:0");

    vcsim.remove_snapshot("web", "second");
    assert_eq!((flat(&vcsim), vcsim.contents("web", "scsi0:0")), (before, after.clone()));
    vcsim.remove_snapshot("web", "first");
    assert_eq!(flat(&vcsim), after);
}

#[test]
fn it_ends_when_it_is_dropped_and_takes_its_files_with_it() {
    let vcsim = Vcsim::start(&Layout::of(&[("web", &[MIB])]));
    let (address, flat) = (vcsim.address().to_owned(), vcsim.machine("web").disks[0].flat.clone());
    TcpStream::connect(&address).unwrap();
    assert!(flat.is_file());

    drop(vcsim);
    TcpStream::connect(&address).unwrap_err();
    assert!(!flat.exists());
}

#[test]
#[should_panic(expected = "machine web has no disk")]
fn a_command_that_fails_fails_the_test() {
    Vcsim::start(&Layout::of(&[("web", &[MIB])])).write("web", "scsi0:5", 0, 512, None);
}
