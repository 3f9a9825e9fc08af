//! `PowerOffVM_Task`, and `PowerOnVM_Task`, which no client may call.

use super::fault::Fault;
use super::spec::Power;
use super::state::{State, Violation};
use super::tasks::{Work, start};
use super::value::Value;

/// Answers `PowerOffVM_Task`: the plug is pulled.
pub(super) fn off_task(state: &mut State, vm: &str) -> Result<Value, Fault> {
    let outcome = match state.machine(vm)?.power {
        Power::On => {
            set(state, vm, Power::Off)?;
            Ok(Value::Unset)
        }
        Power::Off | Power::Suspended => Err(Fault::new(
            "InvalidPowerState",
            "The attempted operation cannot be performed in the current state.",
        )),
    };
    Ok(start(state, "PowerOffVM_Task", vm, Work::Done(outcome)))
}

/// Answers `PowerOnVM_Task`.
pub(super) fn on_task(state: &mut State, vm: &str) -> Result<Value, Fault> {
    let name = state.machine(vm)?.name.clone();
    state.violations.push(Violation::PoweredOn { vm: name });
    let outcome = match state.written_elsewhere(vm) {
        Some(file) => Err(Fault::locked(&file)),
        None => set(state, vm, Power::On).map(|()| Value::Unset),
    };
    Ok(start(state, "PowerOnVM_Task", vm, Work::Done(outcome)))
}

/// Changes the power, at which tracking begins or ends as it was configured.
fn set(state: &mut State, vm: &str, power: Power) -> Result<(), Fault> {
    state.machine(vm)?;
    if let Some(machine) = state.machines.get_mut(vm) {
        machine.power = power;
        machine.settle_tracking(&mut state.random);
    }
    Ok(())
}
