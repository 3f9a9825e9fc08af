//! `keepstone vsphere`

use super::backup::{parse_key, parse_place};
use crate::console::lines;
use crate::exit::Exit;
use crate::hint;
use crate::numbers::size;
use crate::settings::Settings;
use crate::vsphere::{Center, VSphereArguments};
use clap::Subcommand;
use keepstone_engine::vsphere::preflight::{Finding, Severity, chosen_disks, findings};
use keepstone_engine::vsphere::{About, Enabling, Reader, SnapshotName, Transport, Waiter, privileges};
use serde::Serialize;
use std::collections::BTreeMap;

/// The arguments of `vsphere`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tell what stands against a backup of a VM, and which ways there are to read its disks; changes nothing
    ///
    /// The exit code is 1 if it could not be backed up, and 4 if something about it needs attention.
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The VM: `vsphere://HOST/DATACENTER/vm/NAME`
    #[arg(value_name = "VM")]
    place: String,

    /// Leave a disk out, as a backup would
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    exclude_disk: Vec<String>,

    #[command(flatten)]
    vsphere: VSphereArguments,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    vm: String,
    instance_uuid: Option<String>,
    server: About,
    findings: Vec<FindingReport>,
    disks: Vec<DiskReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingReport {
    severity: &'static str,
    what: String,
    hint: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DiskReport {
    key: String,
    disk_bytes: u64,
    file: Option<String>,
    uuid: Option<String>,
    /// Why each way cannot be used; nothing if it can.
    transports: BTreeMap<String, Option<String>>,
}

/// Does what is asked.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let Action::Check(check) = &arguments.action;
    settings.interrupt.install()?;
    let place = parse_place(&check.place)?;
    let center = Center::connect(settings, &check.vsphere, &place)?;
    let (report, exit) = look(settings, check, &center)?;
    drop(center);
    settings.console.report(&report, text)?;
    Ok(exit)
}

fn look(settings: &Settings, check: &Check, center: &Center) -> anyhow::Result<(Report, Exit)> {
    let (vcenter, info) = (&center.vcenter, &center.info);
    // Without a repository nothing is known of leftovers but that this writer made them.
    let name = SnapshotName::of_any_repository(&settings.writer);
    let mut found = findings(info, &check.exclude_disk, &name);
    found.extend(privileges(vcenter, &center.vm, Enabling::No)?);
    let datacenter = vcenter.datacenter_of(&center.vm)?;
    let pause = |duration| center.pause(duration);
    let as_it_is = info.as_it_is();
    let reader = Reader {
        waiter: Waiter { vcenter, pause: &pause, patience: center.patience },
        cleaning: Waiter { vcenter, pause: &Center::pause_to_clean, patience: center.patience },
        vm: info,
        datacenter: &datacenter,
        snapshot: &as_it_is,
        settings: &center.transport,
    };
    let disks: Vec<DiskReport> = chosen_disks(info, &check.exclude_disk)
        .into_iter()
        .map(|(key, disk)| {
            let ways = [Transport::HotAdd, Transport::Nbd, Transport::Folder].into_iter().map(|transport| {
                let why =
                    reader.check(transport, disk).err().map(|why| format!("{:#}", anyhow::Error::new(why)));
                (transport.to_string(), why)
            });
            DiskReport {
                key,
                disk_bytes: disk.capacity_bytes,
                file: disk.backing.file.clone(),
                uuid: disk.backing.uuid.clone(),
                transports: ways.collect(),
            }
        })
        .collect();
    let unreadable = disks.iter().any(|disk| disk.transports.values().all(Option::is_some));
    let exit = match found.iter().map(Finding::severity).max() {
        _ if unreadable => Exit::Failed,
        Some(Severity::Refusal) => Exit::Failed,
        Some(Severity::Attention) => Exit::Attention,
        Some(Severity::Note) | None => Exit::Done,
    };
    let findings = found.iter().map(|finding| FindingReport {
        severity: match finding.severity() {
            Severity::Refusal => "refusal",
            Severity::Attention => "attention",
            Severity::Note => "note",
        },
        what: finding.to_string(),
        hint: hint::finding(finding),
    });
    let report = Report {
        vm: center.vm_name(),
        instance_uuid: info.instance_uuid.clone(),
        server: vcenter.about().clone(),
        findings: findings.collect(),
        disks,
    };
    Ok((report, exit))
}

fn text(report: &Report) -> String {
    let Report { vm, server, findings, disks, .. } = report;
    let mut text = vec![format!("{vm} in {} {} build {}", server.name, server.version, server.build)];
    for FindingReport { severity, what, hint } in findings {
        let hint = hint.map(|hint| format!("\n      {hint}")).unwrap_or_default();
        text.push(format!("  {severity}: {what}{hint}"));
    }
    for disk in disks {
        text.push(format!("  disk {} of {}", disk.key, size(disk.disk_bytes)));
        for (transport, why) in &disk.transports {
            let why =
                why.as_ref().map_or_else(|| "can be used".to_owned(), |why| format!("cannot be used: {why}"));
            text.push(format!("    {transport} {why}"));
        }
    }
    if findings.iter().all(|finding| finding.severity == "note") {
        text.push("  nothing stands against a backup".to_owned());
    }
    lines(text)
}
