//! nbdkit beside us. VMware's library is not there: a script that takes the same arguments serves a file instead.

use super::{Frozen, MIB, World, read_all};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use keepstone_engine::Extent;
use keepstone_engine::source::ReadPart;
use keepstone_engine::tls::{Thumbprint, Trust};
use keepstone_engine::vsphere::{
    DataPath, Reader, Transport, TransportChoice, TransportError, TransportSettings, VCenterSettings,
};
use keepstone_peers::vcenter::{PASSWORD, USER};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;
use zeroize::Zeroizing;

/// What a stand-in was told, and what it serves.
struct Library(PathBuf);

impl Library {
    fn new(world: &World, frozen: &Frozen, number: usize) -> Self {
        let directory = world.directory.path().join(format!("vddk{number}"));
        fs::create_dir_all(directory.join("lib64")).unwrap();
        fs::write(directory.join("lib64/libvixDiskLib.so.8"), "").unwrap();
        fs::write(directory.join("image"), &frozen.contents[number]).unwrap();
        Self(directory)
    }

    fn behave(&self, how: &str) {
        fs::write(self.0.join("behaviour"), how).unwrap();
    }

    fn told(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn settings(&self, world: &World) -> TransportSettings {
        let stand_in =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vsphere/transport/nbdkit-stand-in.sh");
        TransportSettings {
            choice: TransportChoice::Only(Transport::Nbd),
            nbdkit: stand_in,
            vddk_dir: Some(self.0.clone()),
            hidden_variables: vec!["CARGO_MANIFEST_DIR".to_owned()],
            ..world.settings.clone()
        }
    }
}

/// Waits as long as is asked, or shorter: a program takes its time.
fn in_time(pause: Duration) -> ControlFlow<()> {
    let (_open, silent) = channel::<()>();
    let _nothing = silent.recv_timeout(pause.min(Duration::from_millis(20)));
    ControlFlow::Continue(())
}

fn reader<'v, 'a>(world: &'v World, frozen: &'a Frozen, settings: &'a TransportSettings) -> Reader<'v, 'a> {
    let waiter = world.waiter(&in_time);
    Reader { waiter, cleaning: waiter, ..world.reader(frozen, settings) }
}

/// What is in the private directory.
fn left(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(&world.settings.run_dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn nbdkit_of(directory: &Path) -> Pid {
    let pid = fs::read_to_string(directory.join("pid")).unwrap();
    Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

fn open<'v>(reader: &Reader<'v, '_>, frozen: &Frozen, disk: usize) -> DataPath<'v> {
    let (path, refused) = reader.open(&frozen.snapshot.disks[disk]).unwrap();
    assert_eq!((path.transport(), refused.len()), (Transport::Nbd, 0));
    path
}

#[test]
fn nbdkit_is_told_which_disk_it_is_and_the_password_in_a_file_only() {
    let world = World::with_disks(&[2 * MIB + 512]);
    let frozen = world.freeze();
    let library = Library::new(&world, &frozen, 0);
    let settings = library.settings(&world);
    let reader = reader(&world, &frozen, &settings);
    let path = open(&reader, &frozen, 0);
    let run = world.settings.run_dir.join("nbdkit0");
    let certificate = CertificateDer::from_pem_file(world.directory.path().join("server.pem")).unwrap();
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, &certificate);
    let sha1: Vec<String> = sha1.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let expected = [
        "--readonly".to_owned(),
        "--foreground".to_owned(),
        "--exit-with-parent".to_owned(),
        "--pidfile".to_owned(),
        run.join("pid").display().to_string(),
        "--unix".to_owned(),
        run.join("socket").display().to_string(),
        "vddk".to_owned(),
        format!("libdir={}", library.0.display()),
        "server=127.0.0.1".to_owned(),
        format!("port={}", settings.server.port),
        format!("user={USER}"),
        format!("password=+{}", run.join("password").display()),
        format!("thumbprint={}", sha1.join(":")),
        format!("vm=moref={}", world.vm.id()),
        "transports=nbdssl:nbd".to_owned(),
        "single-link=false".to_owned(),
        "file=[datastore1] web/web.vmdk".to_owned(),
        format!("snapshot={}", frozen.snapshot.snapshot.id),
    ];
    assert_eq!(library.told("arguments").lines().collect::<Vec<_>>(), expected);
    assert_eq!((library.told("password").as_str(), library.told("mode").as_str()), (PASSWORD, "600\n"));
    assert_eq!(library.told("variable"), "hidden");
    assert!(!run.join("password").exists(), "the password is still there");
    assert!(!format!("{path:?}").contains(PASSWORD));

    assert!(read_all(&path) == frozen.contents[0], "other bytes were read");
    path.source().check_unchanged().unwrap();
    let nbdkit = nbdkit_of(&run);
    test_kill_process(nbdkit).unwrap();
    path.close(&reader.waiter).unwrap();
    assert!(test_kill_process(nbdkit).is_err(), "nbdkit still runs");
    assert_eq!(left(&world), Vec::<PathBuf>::new());
    world.end(&frozen);
}

#[test]
fn what_the_library_calls_unallocated_is_read() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let library = Library::new(&world, &frozen, 0);
    fs::File::create(library.0.join("image")).unwrap().set_len(MIB).unwrap();
    let settings = library.settings(&world);
    let reader = reader(&world, &frozen, &settings);
    let path = open(&reader, &frozen, 0);
    let told = path.source().changed_areas(None).unwrap();
    assert_eq!(told.areas, [Extent { start: 0, length: MIB }]);
    path.close(&reader.waiter).unwrap();
    world.end(&frozen);
}

#[test]
fn each_disk_has_its_own_nbdkit_which_ends_also_when_it_is_dropped() {
    let world = World::with_disks(&[MIB, 2 * MIB]);
    let frozen = world.freeze();
    let settings: Vec<_> =
        (0..2).map(|number| Library::new(&world, &frozen, number).settings(&world)).collect();
    let paths: Vec<_> = settings
        .iter()
        .enumerate()
        .map(|(number, settings)| open(&reader(&world, &frozen, settings), &frozen, number))
        .collect();
    let running: Vec<Pid> = left(&world).iter().map(|directory| nbdkit_of(directory)).collect();
    assert_eq!(running.len(), 2);
    for (path, expected) in paths.iter().zip(&frozen.contents) {
        assert!(read_all(path) == *expected, "other bytes were read");
    }
    drop(paths);
    for nbdkit in running {
        assert!(test_kill_process(nbdkit).is_err(), "nbdkit still runs");
    }
    assert_eq!(left(&world), Vec::<PathBuf>::new());
    world.end(&frozen);
}

#[test]
fn an_nbdkit_that_fails_is_quoted_without_the_password() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let library = Library::new(&world, &frozen, 0);
    library.behave("fail");
    let settings = library.settings(&world);
    let error = reader(&world, &frozen, &settings).open(&frozen.snapshot.disks[0]).unwrap_err();
    let expected = "nbdkit ended with exit status: 3; it says: nbdkit: vddk: cannot log in; tried with ***";
    assert_eq!(error.to_string(), expected);
    assert!(!format!("{error:?}").contains(PASSWORD));
    assert_eq!(left(&world), Vec::<PathBuf>::new());
    world.end(&frozen);
}

#[test]
fn an_nbdkit_that_is_never_ready_is_ended() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let library = Library::new(&world, &frozen, 0);
    library.behave("hang");
    let settings = library.settings(&world);
    let patient = reader(&world, &frozen, &settings);
    let error = patient.open(&frozen.snapshot.disks[0]).unwrap_err();
    assert!(matches!(error, TransportError::NbdkitLate { .. }), "{error:?}");
    assert_eq!(left(&world), Vec::<PathBuf>::new());
    let stop = |_| ControlFlow::Break(());
    let waiter = world.waiter(&stop);
    let impatient = Reader { waiter, ..patient };
    let error = impatient.open(&frozen.snapshot.disks[0]).unwrap_err();
    assert_eq!(error.to_string(), "interrupted while waiting to start nbdkit");
    assert_eq!(left(&world), Vec::<PathBuf>::new());
    world.end(&frozen);
}

#[test]
fn an_nbdkit_that_dies_fails_the_read() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let library = Library::new(&world, &frozen, 0);
    let settings = library.settings(&world);
    let reader = reader(&world, &frozen, &settings);
    let path = open(&reader, &frozen, 0);
    kill_process(nbdkit_of(&world.settings.run_dir.join("nbdkit0")), Signal::KILL).unwrap();
    let mut buffer = [0; 512];
    path.source().read(&mut [ReadPart { offset: 0, buffer: &mut buffer }]).unwrap_err();
    path.source().check_unchanged().unwrap_err();
    path.close(&reader.waiter).unwrap();
    assert_eq!(left(&world), Vec::<PathBuf>::new());
    world.end(&frozen);
}

#[test]
fn what_is_served_has_to_be_as_long_as_the_disk() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let library = Library::new(&world, &frozen, 0);
    fs::write(library.0.join("image"), vec![1; 4096]).unwrap();
    let settings = library.settings(&world);
    let error = reader(&world, &frozen, &settings).open(&frozen.snapshot.disks[0]).unwrap_err();
    let expected = "[datastore1] web/web.vmdk by nbdkit has 4096 bytes, and the disk has 1048576";
    assert_eq!(error.to_string(), expected);
    assert_eq!(left(&world), Vec::<PathBuf>::new());
    world.end(&frozen);
}

#[test]
fn what_nbdkit_needs_is_looked_for_before_it_is_started() {
    let world = World::with_disks(&[MIB]);
    let frozen = world.freeze();
    let disk = &frozen.snapshot.disks[0];
    let library = Library::new(&world, &frozen, 0);
    let right = library.settings(&world);
    let check = |settings: &TransportSettings| {
        let reader = reader(&world, &frozen, settings);
        let checked = reader.check(Transport::Nbd, disk).unwrap_err();
        let opened = reader.open(disk).unwrap_err();
        assert_eq!(checked.to_string(), opened.to_string());
        checked
    };
    let error = check(&TransportSettings { vddk_dir: None, ..right.clone() });
    assert!(matches!(error, TransportError::NoVddk), "{error:?}");
    let empty = world.settings.run_dir.clone();
    let error = check(&TransportSettings { vddk_dir: Some(empty), ..right.clone() });
    assert!(matches!(error, TransportError::NotVddk { .. }), "{error:?}");
    let error = check(&TransportSettings { nbdkit: "/nowhere/nbdkit".into(), ..right.clone() });
    assert_eq!(error.to_string(), "cannot start /nowhere/nbdkit");

    // The plugin is not there, and then it is.
    let reader = reader(&world, &frozen, &right);
    let error = reader.check(Transport::Nbd, disk).unwrap_err();
    let expected = "nbdkit ended with exit status: 1; it says: cannot open plugin \"vddk\"";
    assert_eq!(error.to_string(), expected);
    fs::write(library.0.join("plugin"), "").unwrap();
    reader.check(Transport::Nbd, disk).unwrap();

    let server = |server: VCenterSettings| TransportSettings { server, ..right.clone() };
    let lines = VCenterSettings { password: Zeroizing::new("a\nb".to_owned()), ..right.server.clone() };
    let settings = server(lines);
    let error = Reader { settings: &settings, ..reader }.open(disk).unwrap_err();
    assert!(matches!(error, TransportError::PasswordLines), "{error:?}");
    // Nothing is started for a server that is not the trusted one.
    let trust = Trust::Thumbprint(Thumbprint([7; 32]));
    let settings = server(VCenterSettings { trust, ..right.server.clone() });
    let error = Reader { settings: &settings, ..reader }.open(disk).unwrap_err();
    assert!(matches!(error, TransportError::Certificate { .. }), "{error:?}");
    assert!(!library.0.join("arguments").exists());
    assert_eq!(left(&world), Vec::<PathBuf>::new());
    world.end(&frozen);
}
