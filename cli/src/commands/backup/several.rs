//! Several VMs in one run, some at a time. One that fails keeps no other from being backed up.

use super::machine::MachineReport;
use super::told::attention;
use super::{Arguments, Given, Run, With, list, uploads};
use crate::clock::Stopwatch;
use crate::commands::as_interruption;
use crate::console::{about, fail, lines, table};
use crate::exit::{self, Exit, Usage};
use crate::figures::Figures;
use crate::hint::hint;
use crate::index;
use crate::numbers::{count, duration, size};
use crate::open;
use crate::progress::{Progress, Several};
use crate::running::Running;
use crate::settings::Settings;
use keepstone_engine::backup::{BackupReport, Together};
use keepstone_engine::{EngineError, Repository};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// So many VMs at a time if nothing is said.
const PARALLEL: u8 = 4;
/// What the regions and packs of all of them may take if nothing is said, and those that run at a time need no more.
const MEMORY: u64 = 448 << 20;

/// What became of all VMs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// In the order in which they were named.
    vms: Vec<OneReport>,
    /// VMs of which there is no new snapshot.
    failed: usize,
    exit_code: u8,
    #[serde(flatten)]
    figures: Figures,
}

/// What became of one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OneReport {
    /// Its name in the repository; if that did not become known, how it was named.
    vm: String,
    /// The exit code that its backup alone would have had.
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<BackupReport>,
    #[serde(rename = "vsphere", skip_serializing_if = "Option::is_none")]
    machine: Option<MachineReport>,
    #[serde(skip)]
    exit: Exit,
}

/// One VM as it was named.
struct Machine {
    arguments: Arguments,
    given: Given,
    /// What its messages are about until its name is known.
    what: String,
}

/// Backs up all VMs.
pub(super) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let machines = machines(arguments)?;
    settings.interrupt.install()?;
    let store = open::store_to_back_up(settings, uploads(arguments))?;
    let repository = open::repository_with_data(settings, &store)?;
    let index = {
        let progress = Progress::new(settings);
        let names: Vec<String> = machines.iter().filter_map(|machine| machine.arguments.vm.clone()).collect();
        let budget = settings.index_budget(arguments.index_budget);
        let index = index::open(settings, &repository, &names, budget, &progress);
        progress.finish();
        index?
    };
    let parallel = usize::from(arguments.parallel.unwrap_or(PARALLEL)).min(machines.len());
    let geometry = &repository.config().geometry;
    let memory_bytes =
        arguments.memory.unwrap_or_else(|| Together::enough_memory_bytes(geometry, parallel).max(MEMORY));
    let together = Together::new(index, geometry, memory_bytes, machines.len(), parallel);
    let progress = Several::new(settings, machines.len());
    let names = Names::default();
    let all =
        All { settings, repository: &repository, together: &together, progress: &progress, names: &names };
    let vms = all.run(&machines, parallel);
    progress.finish();
    tracing::info!(peak_bytes = together.peak_bytes(), "all backups have ended");
    let exit = Exit::worst(vms.iter().map(|one| one.exit));
    let failed = vms.iter().filter(|one| one.backup.is_none()).count();
    let figures = Figures::take(stopwatch, &store);
    let report = Report { vms, failed, exit_code: exit as u8, figures };
    settings.console.report(&report, text)?;
    Ok(exit)
}

/// The VMs that the command line names. What is wrong with one of them is told before anything is done.
fn machines(arguments: &Arguments) -> anyhow::Result<Vec<Machine>> {
    let all = match &arguments.list {
        Some(path) => {
            let listed = list::read(path, arguments)?;
            listed.into_iter().map(|(entry, arguments)| (Some(entry), arguments)).collect()
        }
        None => in_vsphere(arguments)?,
    };
    if all.is_empty() {
        return Err(Usage::new("the list names no VM").into());
    }
    let mut named = BTreeSet::new();
    let mut machines = Vec::with_capacity(all.len());
    for (entry, arguments) in all {
        let given = Given::of(&arguments).map_err(|error| of_entry(entry.as_deref(), error))?;
        let what = match (&arguments.vm, &given) {
            (Some(vm), _) => vm.clone(),
            (None, Given::Machine(place)) => format!("{} of {}", place.vm, place.host),
            (None, Given::Disks(_)) => {
                let error = Usage::new("it has no name");
                let hint = "name it; only VMs in vSphere have a name already";
                return Err(of_entry(entry.as_deref(), error.hint(hint)).into());
            }
        };
        if !named.insert(what.clone()) {
            return Err(Usage::new(format!("\"{}\" is named twice", list::shown(&what))).into());
        }
        machines.push(Machine { arguments, given, what });
    }
    Ok(machines)
}

/// What is wrong, said of an entry of a list.
fn of_entry(entry: Option<&str>, error: Usage) -> Usage {
    let Some(entry) = entry else { return error };
    let of_entry = Usage::new(format!("{entry}: {}", list::shown(&error.to_string())));
    match error.advice() {
        Some(advice) => of_entry.hint(advice),
        None => of_entry,
    }
}

fn in_vsphere(arguments: &Arguments) -> Result<Vec<(Option<String>, Arguments)>, Usage> {
    if arguments.vm.is_some() {
        return Err(Usage::new("--vm names one VM, and there are several")
            .hint("leave it out: they are called as in vSphere; or name each one in a --list"));
    }
    if let Some(other) = arguments.source.iter().find(|source| !source.starts_with("vsphere:")) {
        return Err(Usage::new(format!("{other} is one of several sources, and no VM in vSphere"))
            .hint("name each disk of one VM with --disk KEY=SOURCE, or each VM with its disks in a --list"));
    }
    let one = |source: &String| (None, Arguments { source: vec![source.clone()], ..arguments.clone() });
    Ok(arguments.source.iter().map(one).collect())
}

/// The names in the repository of the VMs of one run, as they become known.
#[derive(Default)]
struct Names(Mutex<BTreeSet<String>>);

impl Names {
    /// Takes a name for a VM. Two machines in vSphere may have the same: snapshots of both would take turns under it.
    fn take(&self, vm: &str) -> Result<(), Usage> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(vm.to_owned()) {
            return Ok(());
        }
        let what = format!("another VM of this command is called \"{}\" too", list::shown(vm));
        Err(Usage::new(what).hint("give one of them another name in a --list"))
    }
}

/// What all backups of one run have together.
struct All<'a> {
    settings: &'a Settings,
    repository: &'a Repository<'a>,
    together: &'a Together,
    progress: &'a Several,
    names: &'a Names,
}

impl All<'_> {
    /// Backs up the VMs in their order, `parallel` at a time, each in one thread.
    fn run(&self, machines: &[Machine], parallel: usize) -> Vec<OneReport> {
        let next = AtomicUsize::new(0);
        let reports: Mutex<Vec<(usize, OneReport)>> = Mutex::default();
        std::thread::scope(|threads| {
            for _ in 0..parallel {
                threads.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some(machine) = machines.get(place) else { return };
                        let report = self.one(machine);
                        self.together.one_ended();
                        reports.lock().unwrap_or_else(PoisonError::into_inner).push((place, report));
                    }
                });
            }
        });
        let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
        reports.sort_by_key(|(place, _)| *place);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    fn one(&self, machine: &Machine) -> OneReport {
        let stopwatch = Stopwatch::start();
        about(&machine.what, &self.settings.screen);
        self.progress.one_begins();
        let mut vm = machine.what.clone();
        let mut told = None;
        let outcome = if self.progress.is_stopped() {
            Err(EngineError::Cancelled.into())
        } else {
            self.back_up(machine, &mut vm, &mut told)
        };
        self.progress.one_ended();
        let outcome = outcome.map_err(|error| as_interruption(self.settings, error));
        let elapsed_ms = stopwatch.elapsed_millis();
        match outcome {
            Ok((backup, exit)) => {
                self.settings.console.message(&summary(&backup));
                let (error, hint, backup) = (None, None, Some(backup));
                OneReport { vm, exit_code: exit as u8, error, hint, elapsed_ms, backup, machine: told, exit }
            }
            Err(error) => {
                let exit = exit::code(&error);
                if exit != Exit::Interrupted {
                    fail(&exit::describe(&error));
                }
                let (error, hint) = (Some(format!("{error:#}")), hint(&error));
                let exit_code = exit as u8;
                OneReport { vm, exit_code, error, hint, elapsed_ms, backup: None, machine: told, exit }
            }
        }
    }

    /// Backs up one VM; `vm` becomes its name as soon as it is known.
    fn back_up(
        &self,
        machine: &Machine,
        vm: &mut String,
        told: &mut Option<MachineReport>,
    ) -> anyhow::Result<(BackupReport, Exit)> {
        let Machine { arguments, given, .. } = machine;
        let ready = given.open(self.settings, arguments)?;
        *vm = ready.vm(arguments)?;
        self.names.take(vm)?;
        about(vm, &self.settings.screen);
        let running = Running::begin(self.settings, self.repository, vm, self.progress)?;
        let run = Run {
            settings: self.settings,
            arguments,
            repository: self.repository,
            running: &running,
            reading_ends: &|| {},
            vm,
        };
        let (outcome, machine) = run.all_disks(With::Others(self.together), given, ready);
        *told = machine;
        let backup = outcome?;
        running.decided();
        let exit = given.attention(attention(&backup, told.as_ref()));
        Ok((backup, exit))
    }
}

/// What became of one VM, in a line.
fn summary(backup: &BackupReport) -> String {
    let changed = backup.disks.iter().map(|disk| disk.changed_bytes).sum();
    format!("snapshot {}, {} changed, {} stored", backup.snapshot, size(changed), size(backup.stored_bytes))
}

fn text(report: &Report) -> String {
    let rows = report.vms.iter().map(|one| {
        let disks = one.backup.iter().flat_map(|backup| &backup.disks);
        let sum = |bytes: u64| if one.backup.is_some() { size(bytes) } else { String::new() };
        [
            one.vm.clone(),
            one.backup.as_ref().map_or_else(|| "failed".to_owned(), |backup| backup.snapshot.to_string()),
            sum(disks.clone().map(|disk| disk.disk_bytes).sum()),
            sum(disks.clone().map(|disk| disk.changed_bytes).sum()),
            sum(disks.map(|disk| disk.read_bytes).sum()),
            sum(one.backup.as_ref().map_or(0, |backup| backup.stored_bytes)),
            duration(one.elapsed_ms),
            one.exit_code.to_string(),
        ]
    });
    let headings = ["vm", "snapshot", "size", "changed", "read", "stored", "took", "exit"];
    let table = table(headings, &[2, 3, 4, 5, 6, 7], rows);
    let all = report.vms.iter().filter_map(|one| one.backup.as_ref());
    let disks = all.clone().flat_map(|backup| &backup.disks).map(|disk| disk.disk_bytes).sum();
    let stored = all.map(|backup| backup.stored_bytes).sum();
    let machines = count(report.vms.len() as u64, "VM");
    let failed = if report.failed > 0 { format!(", {} failed", report.failed) } else { String::new() };
    table
        + &lines([
            format!("{machines}{failed}, stored {}", size(stored)),
            format!("  {}", report.figures.line(disks)),
        ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_one_vm_only() {
        let names = Names::default();
        names.take("web").unwrap();
        names.take("db").unwrap();
        let refused = names.take("web").unwrap_err();
        assert_eq!(refused.to_string(), "another VM of this command is called \"web\" too");
        assert_eq!(refused.advice(), Some("give one of them another name in a --list"));
    }
}
