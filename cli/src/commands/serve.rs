//! `keepstone serve`

mod command;
mod commit;
mod place;

use crate::clock::Stopwatch;
use crate::console::{lines, one_line, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::interrupt::Interrupt;
use crate::numbers::{count, parse_size, size};
use crate::open;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use command::Running;
use keepstone_engine::backup::BackupReport;
use keepstone_engine::nbd::server::{Served, ServerEvent, ServerReport, ServerSettings, serve};
use keepstone_engine::overlay::{Overlay, OverlayOf};
use keepstone_engine::snapshots::{Selector, Snapshot};
use keepstone_engine::view::{DiskView, ViewSettings, ViewStats};
use place::Place;
use repo_format::Disk;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Failed requests that are told of one by one.
const FAILURES_TOLD: u64 = 20;

/// The arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Everything that speaks NBD can read the disk at once, whatever its size: it is fetched from the repository where it is \
read, checked, and kept in memory for a while. Nothing is written to the repository.

Files of a guest, without restoring its disk:
  keepstone serve web01@latest --socket /run/web01.sock &
  nbdfuse -r /mnt/disk 'nbd+unix:///?socket=/run/web01.sock' &
  mount -o ro,loop,offset=1048576 /mnt/disk/nbd /mnt/guest

A VM that runs from its backup at once, with its changes in a file:
  keepstone serve web01@latest --socket /run/web01.sock --overlay web01.overlay &
  qemu-system-x86_64 -drive file='nbd+unix:///?socket=/run/web01.sock',format=raw ...

A command that gets the disk as NBD_URI, for scripts:
  keepstone serve web01@latest -- sh -c 'nbdcopy \"$NBD_URI\" disk.raw'")]
pub(crate) struct Arguments {
    /// The beginning of an id, VM@latest, or VM@TIME for the newest at that time
    #[arg(value_parser = selector::parse)]
    snapshot: Selector,

    /// The disk's key; not needed where the snapshot has one disk
    #[arg(long, value_name = "KEY")]
    disk: Option<String>,

    /// Serve at a socket that this makes, and that only you may use
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    socket: Option<PathBuf>,

    /// Serve at an address of this host, as in 127.0.0.1:10809; other addresses than this host's own need TLS
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Speak TLS, with server-cert.pem and server-key.pem of a directory; clients need a certificate if there is a ca-cert.pem
    #[arg(long, value_name = "DIR", requires = "listen")]
    tls_certificates: Option<PathBuf>,

    /// Serve to other hosts without TLS: whoever listens on the network reads the disk, and whoever reaches the port too
    #[arg(long, requires = "listen", conflicts_with = "tls_certificates")]
    allow_unencrypted: bool,

    /// Let clients write, and keep what they write in this sparse file; it is made, or gone on with
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,

    /// When serving has ended, store the disk with what was written to it as a new snapshot of its VM
    ///
    /// The VM's other disks are in it as they are in the snapshot that was served. The next backup of the VM itself reads
    /// its disks in full, since nothing tells what changed on them since then. Without this nothing is written to the
    /// repository, and the overlay can be gone on with either way.
    #[arg(long, requires = "overlay")]
    commit: bool,

    /// What is kept in memory of the disk, as in 1GiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    cache: u64,

    /// Serve as long as this command runs, which gets the disk's URI as `NBD_URI`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What is told when clients can come.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready<'a> {
    uri: &'a str,
    snapshot: String,
    vm: &'a str,
    disk: &'a str,
    disk_bytes: u64,
    writable: bool,
    elapsed_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    snapshot: String,
    disk: String,
    served: ServerReport,
    /// The snapshot that what was written is in now.
    #[serde(skip_serializing_if = "Option::is_none")]
    committed: Option<BackupReport>,
    cache: ViewStats,
    #[serde(flatten)]
    figures: Figures,
}

/// Serves a disk.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let place = Place::parse(settings, arguments)?;
    // What a command still reads after it was told to end is tried again as before.
    let ends_with_serving = arguments.command.is_empty() && !arguments.commit;
    let interrupt = if ends_with_serving { settings.interrupt.clone() } else { Interrupt::default() };
    interrupt.install()?;
    let store = open::store(settings)?;
    let repository = open::repository_with_data(settings, &store)?;
    let snapshot = standing::find((&store, &repository), &arguments.snapshot)?;
    let disk = snapshot.disk(arguments.disk.as_deref())?;
    let cache = ViewSettings { cache_bytes: arguments.cache };
    let view = DiskView::of_snapshot(&repository, snapshot.session(), disk, cache);
    let of = OverlayOf {
        repository: repository.config().repository,
        snapshot: snapshot.session(),
        disk: &disk.key,
        size: disk.size,
    };
    let overlay = arguments.overlay.as_ref().map(|path| Overlay::open(&view, &of, path)).transpose()?;
    let served = overlay.as_ref().map_or(Served::ReadOnly(&view), Served::Writable);
    let opened = place.open()?;
    let ready = Ready {
        uri: &opened.uri,
        snapshot: snapshot.session().to_string(),
        vm: &snapshot.commit.vm,
        disk: &disk.key,
        disk_bytes: disk.size,
        writable: overlay.is_some(),
        elapsed_ms: stopwatch.elapsed_millis(),
    };
    tell_ready(settings, arguments, &ready)?;
    let command = Running::start(&arguments.command, &opened.uri)?;
    let settled = ServerSettings { tls: opened.tls.clone(), ..server_settings(&snapshot, disk) };
    let told = Mutex::new(0);
    let is_over = || match &command {
        Some(command) => {
            let has_ended = command.has_ended(interrupt.is_raised());
            if has_ended && interrupt.is_raised() {
                settings.interrupt.flag().store(true, Ordering::Relaxed);
            }
            has_ended
        }
        None => interrupt.is_raised(),
    };
    let outcome = serve(served, &opened.listener, &settled, &is_over, &|event| tell(&event, &told));
    if let Some(overlay) = &overlay {
        overlay.flush()?;
    }
    drop(opened);
    let served = outcome?;
    let ended = command.as_ref().map_or(Ok(()), Running::outcome);
    let committed = match &overlay {
        Some(overlay) if arguments.commit && served.damaged == 0 && ended.is_ok() => {
            Some(commit::commit(settings, &snapshot, disk, overlay)?)
        }
        _ => None,
    };
    if arguments.commit && committed.is_none() {
        warn(
            "nothing was stored, since not all that was wanted could be served; the overlay has what was written",
        );
    }
    let report = Report {
        snapshot: snapshot.session().to_string(),
        disk: disk.key.clone(),
        served,
        committed,
        cache: view.stats(),
        figures: Figures::take(stopwatch, &store),
    };
    settings.console.reporting_on_stderr().report(&report, text)?;
    if report.served.damaged == 0 {
        return ended.map(|()| Exit::Done);
    }
    // Whatever the command made of what it could not read.
    if let Err(error) = ended {
        warn(&format!("{error:#}"));
    }
    Ok(Exit::Damage)
}

fn server_settings(snapshot: &Snapshot, disk: &Disk) -> ServerSettings {
    let description =
        format!("disk {} of snapshot {} of {}", disk.key, snapshot.session(), snapshot.commit.vm);
    ServerSettings::new(&disk.key, &description)
}

/// On standard output for programs, which read it to know that they can begin; on standard error for people.
fn tell_ready(settings: &Settings, arguments: &Arguments, ready: &Ready<'_>) -> anyhow::Result<()> {
    if !arguments.command.is_empty() {
        return Ok(());
    }
    if settings.console.is_json() {
        return settings.console.report(ready, |_| String::new());
    }
    let Ready { uri, snapshot, vm, disk, .. } = ready;
    let kind = if ready.writable { "writable, with its changes in the overlay" } else { "read-only" };
    settings.console.message(&format!(
        "disk {disk} of snapshot {snapshot} of {}, {}, is served at {uri}, {kind}, until Ctrl-C",
        one_line(vm),
        size(ready.disk_bytes),
    ));
    settings.console.message(&format!("for example: nbdinfo '{uri}', or nbdcopy '{uri}' disk.raw"));
    Ok(())
}

fn tell(event: &ServerEvent<'_>, told: &Mutex<u64>) {
    match event {
        ServerEvent::Opened { client } => tracing::info!(client, "a client came"),
        ServerEvent::Left { client, why: None } => tracing::info!(client, "a client left"),
        ServerEvent::Left { client, why: Some(why) } => tracing::info!(client, %why, "a client was left"),
        ServerEvent::Refused { client } => warn(&format!("there are too many clients; {client} was refused")),
        ServerEvent::Failed { client, text, is_damage: true } => {
            let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *told += 1;
            if *told <= FAILURES_TOLD {
                warn(&format!("{client} could not read: {}", one_line(text)));
            }
        }
        ServerEvent::Failed { client, text, .. } => tracing::info!(client, text, "a request failed"),
        _ => {}
    }
}

fn text(report: &Report) -> String {
    let Report { served, cache, .. } = report;
    let mut text = vec![
        format!("served disk {} of snapshot {}", report.disk, report.snapshot),
        format!(
            "  {} in {}, {}; {} fetched",
            size(served.read_bytes),
            count(served.reads, "read"),
            count(served.clients, "connection"),
            size(cache.fetched_bytes)
        ),
        format!(
            "  chunks: {} in memory when they were wanted, {} waited for, {} fetched then, {} fetched ahead",
            cache.hits, cache.awaited, cache.misses, cache.ahead
        ),
    ];
    if served.writes > 0 {
        text.push(format!("  {} written in {}", size(served.written_bytes), count(served.writes, "write")));
    }
    if served.failed > 0 {
        text.push(format!(
            "  FAILED: {}, {} of them since something stored is damaged or missing",
            count(served.failed, "request"),
            served.damaged
        ));
    }
    if let Some(BackupReport { snapshot, vm, stored_bytes, .. }) = &report.committed {
        text.push(format!(
            "  stored as snapshot {snapshot} of {}, {}; the next backup of the VM itself reads in full",
            one_line(vm),
            size(*stored_bytes)
        ));
    }
    text.push(format!("  {}", report.figures.line(served.read_bytes)));
    lines(text)
}
