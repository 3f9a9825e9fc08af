//! What users are told when something is wrong, and the exit codes.

mod world;

use world::{Ended, MIB, PROGRAM, World, noise};

#[test]
fn failures_say_what_why_and_what_next() {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, MIB));
    world.write("wrong", b"wrong");
    world.write("bad.json", b"{\"diskSize\": 1048576,\n \"changeId\": \"1\", \"since\": null}");
    world.changes("other-size.json", 4096, None, "1", &[]);
    std::fs::create_dir(world.path("elsewhere")).unwrap();
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    world.write("old.raw", b"precious");

    let cases: &[(&str, &[&str])] = &[
        ("not a repository", &["-r", "elsewhere", "snapshots"]),
        ("no such directory", &["-r", "nowhere", "snapshots"]),
        ("a repository without a name", &["-r", "", "snapshots"]),
        ("a repository already", &["init"]),
        ("a directory with other things", &["-r", ".", "init"]),
        ("wrong password", &["--password-file", "wrong", "snapshots"]),
        ("no password file", &["--password-file", "missing", "snapshots"]),
        ("missing source", &["backup", "--vm", "web", "missing.raw"]),
        ("a directory as a source", &["backup", "--vm", "web", "elsewhere"]),
        ("missing changes file", &["backup", "--vm", "web", "disk.raw", "--changes", "missing.json"]),
        ("malformed changes file", &["backup", "--vm", "web", "disk.raw", "--changes", "bad.json"]),
        ("changes of another disk", &["backup", "--vm", "web", "disk.raw", "--changes", "other-size.json"]),
        (
            "changes without a key",
            &[
                "backup",
                "--vm",
                "web",
                "--disk",
                "a=disk.raw",
                "--disk",
                "b=disk.raw",
                "--changes",
                "bad.json",
            ],
        ),
        ("a key twice", &["backup", "--vm", "web", "--disk", "a=disk.raw", "--disk", "a=disk.raw"]),
        ("target exists", &["restore", "web@latest", "--to", "old.raw"]),
        ("target nowhere", &["restore", "web@latest", "--to", "nowhere/disk.raw"]),
        ("no such snapshot", &["show", "0123456789abcdef"]),
        ("no snapshot of a VM", &["show", "mail@latest"]),
        ("no such disk", &["restore", "web@latest", "--disk", "disk7", "--to", "new.raw"]),
        ("a slot that exists", &["key", "add", "first"]),
        ("no such slot", &["key", "remove", "second"]),
        ("missing profile", &["--profile", "missing.toml", "snapshots"]),
        ("malformed profile", &["--profile", "password", "snapshots"]),
        ("Azure without a credential", &["-r", "azblob://account/container", "snapshots"]),
        ("Azure without a container", &["-r", "azblob://account", "snapshots"]),
        ("a signature in a name", &["-r", "azblob://account/container?sv=1&sig=secret", "snapshots"]),
        (
            "a signature in an endpoint",
            &["-r", "azblob://account/container?endpoint=https://host/?sig=secret", "snapshots"],
        ),
        ("a SAS URL as a name", &["-r", "https://account.blob.core.windows.net/c?sig=secret", "snapshots"]),
        ("a connection string as a name", &["-r", "AccountName=a;AccountKey=secret==", "snapshots"]),
        (
            "a SAS in a container's name",
            &["-r", "azblob://account/c;SharedAccessSignature=secret", "snapshots"],
        ),
        ("a tier in a directory", &["backup", "--vm", "web", "disk.raw", "--tier", "cool"]),
        ("a limit in a directory", &["--limit-upload", "1MiB", "snapshots"]),
        ("a credential for a directory", &["--auth", "sas", "snapshots"]),
        ("another scheme", &["-r", "s3://bucket", "snapshots"]),
        ("NBD source", &["backup", "--vm", "web", "nbd://127.0.0.1:1/export"]),
        ("vSphere source", &["backup", "--vm", "web", "vsphere://host/dc/vm/web"]),
        ("NBD target", &["restore", "web@latest", "--to", "nbd://127.0.0.1:1/export"]),
        ("a bad NBD target", &["restore", "web@latest", "--to", "nbd+unix:///export"]),
    ];
    let told = cases.iter().fold(String::new(), |told, (name, arguments)| {
        let mut command = world.bare(PROGRAM);
        for given in [["-r", "repo"], ["--password-file", "password"]] {
            if !arguments.contains(&given[0]) {
                command.args(given);
            }
        }
        let ended = Ended::of(command.args(*arguments).output());
        told + &format!("== {name}\n{}\n\n", ended.told())
    });
    assert!(!told.contains("secret"), "{told}");
    insta::assert_snapshot!(told);
    assert_eq!(world.read("old.raw"), b"precious");
}

#[test]
fn wrong_usage_has_exit_code_2() {
    let world = World::new();
    for arguments in [
        &["backup"][..],
        &["frobnicate"],
        &["backup", "--vm", "", "disk.raw"],
        &["backup", "--vm", "web", "disk.raw", "--compression", "20"],
        &["backup", "--vm", "web", "disk.raw", "--disk", "a=b"],
        &["backup", "--vm", "web", "--disk", "disk.raw"],
        &["backup", "--vm", "web", "disk.raw", "--tag", "a\nb"],
        &["--writer", "Host A", "snapshots"],
        &["show", "web"],
        &["show", "web@yesterday"],
        &["show", "abc"],
        &["restore", "web@latest", "--to", "out", "--format", "vdi"],
        &["--threads", "0", "snapshots"],
        &["--auth", "password", "snapshots"],
        &["--limit-upload", "0", "snapshots"],
        &["--limit-download", "fast", "snapshots"],
        &["backup", "--vm", "web", "disk.raw", "--tier", "archive"],
    ] {
        let ended = world.run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_command_needs_a_repository() {
    let world = World::new();
    assert_eq!(
        Ended::of(world.bare(PROGRAM).arg("snapshots").output()).told(),
        "keepstone: error: no repository was named\n  hint: name it with -r REPO or in KEEPSTONE_REPOSITORY\n\
         exit code 2"
    );
}

#[test]
fn without_a_password_and_a_terminal_nothing_is_asked() {
    let world = World::with_repository();
    // A session of its own has no terminal.
    let mut command = world.bare("setsid");
    let ended = Ended::of(command.args(["--wait", PROGRAM, "-r", "repo", "snapshots"]).output());
    assert_eq!(
        ended.told(),
        "keepstone: error: no password was given and there is no terminal to ask at\n  hint: give it with \
         --password-file, --password-command or KEEPSTONE_PASSWORD\nexit code 2"
    );
}

#[test]
fn a_password_command_must_succeed() {
    let world = World::with_repository();
    let with = |command: &str| {
        let arguments = ["-r", "repo", "snapshots", "--password-command", command];
        Ended::of(world.bare(PROGRAM).args(arguments).output())
    };
    assert_eq!(with("cat password").code, Some(0));
    assert_eq!(
        with("cat password; exit 3").told(),
        "keepstone: error: the password command failed: exit status: 3\nexit code 1"
    );
    assert_eq!(with("true").told(), "keepstone: error: the password is empty\nexit code 2");
}
