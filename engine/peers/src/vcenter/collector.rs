//! The property collector: `RetrievePropertiesEx` and its continuation.

use super::describe::{describe, resolve};
use super::element::Element;
use super::fault::Fault;
use super::state::State;
use super::tasks::{poll, poll_consolidation};
use super::value::{NoValue, Object, Reference, Value, object, string};

/// Answers `RetrievePropertiesEx`.
pub(super) fn retrieve(state: &mut State, call: &Element) -> Result<Value, Fault> {
    let mut contents = Vec::new();
    for filter in call.all("specSet") {
        for named in filter.all("objectSet") {
            if named.child("selectSet").is_some() {
                let message = "The fake goes from no object to others: name the objects themselves.";
                return Err(Fault::new("NotSupported", message));
            }
            let id = named.text_of("obj").ok_or_else(|| Fault::invalid_argument("specSet"))?;
            let Some(reference) = resolve(state, id) else {
                return Err(Fault::not_found(Reference::new(kind(id), id)));
            };
            contents.push(content(state, &reference, filter)?);
        }
    }
    let options = call.child("options");
    let max: Option<usize> = options.and_then(|options| options.number_of("maxObjects"));
    Ok(page(state, contents, max.filter(|max| *max > 0).unwrap_or(usize::MAX)))
}

/// Answers `ContinueRetrievePropertiesEx`.
pub(super) fn continue_retrieve(state: &mut State, call: &Element) -> Result<Value, Fault> {
    let token = call.text_of("token").unwrap_or_default();
    let rest = state.rests.remove(token).ok_or_else(|| Fault::invalid_argument("token"))?;
    // The token says how many objects an answer holds, as the first answer did.
    let max = token.rsplit('-').next().and_then(|max| max.parse().ok());
    Ok(page(state, rest, max.unwrap_or(usize::MAX)))
}

/// Returns the type that the id of an object tells which is not there.
fn kind(id: &str) -> &'static str {
    match id.split('-').next() {
        Some("vm") => "VirtualMachine",
        Some("snapshot") => "VirtualMachineSnapshot",
        Some("task") => "Task",
        _ => "ManagedEntity",
    }
}

fn page(state: &mut State, mut contents: Vec<Value>, max: usize) -> Value {
    let mut fields = Vec::new();
    if contents.len() > max {
        let rest = contents.split_off(max);
        let token = format!("{}-{max}", state.new_id("token"));
        fields.push(("token", string(token.as_str())));
        state.rests.insert(token, rest);
    }
    if contents.is_empty() {
        return Value::Unset;
    }
    fields.push(("objects", Value::List("ObjectContent", contents)));
    object("RetrieveResult", fields)
}

fn content(state: &mut State, of: &Reference, filter: &Element) -> Result<Value, Fault> {
    // ManagedEntity is the base of what stands in the inventory.
    let entity = !matches!(of.kind, "Task" | "VirtualMachineSnapshot");
    let mut paths: Vec<String> = Vec::new();
    let mut all = false;
    for set in filter.all("propSet") {
        let kind = set.text_of("type").unwrap_or_default();
        if kind == of.kind || kind == "ManagedEntity" && entity {
            all |= set.flag_of("all") == Some(true);
            paths.extend(set.all("pathSet").map(|path| path.text().to_owned()));
        }
    }
    // Time goes by between two questions.
    if of.kind == "Task" {
        poll(state, &of.id);
    } else if paths.iter().any(|path| path.starts_with("runtime")) {
        poll_consolidation(state, &of.id);
    }
    let described = describe(state, of).ok_or_else(|| Fault::not_found(of.clone()))?;
    if all {
        paths.extend(described.set_fields().map(str::to_owned));
    }
    let (found, missing) = properties(state, &described, of, &paths)?;
    let fields = vec![
        ("obj", Value::Reference(of.clone())),
        ("propSet", Value::List("DynamicProperty", found)),
        ("missingSet", Value::List("MissingProperty", missing)),
    ];
    Ok(object("ObjectContent", fields))
}

fn properties(
    state: &State,
    described: &Object,
    of: &Reference,
    paths: &[String],
) -> Result<(Vec<Value>, Vec<Value>), Fault> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for path in paths {
        if state.hidden.contains(path) {
            let fault = Fault::no_permission(of.clone(), "System.Read").localized();
            missing.push(object("MissingProperty", vec![("path", string(path.as_str())), ("fault", fault)]));
            continue;
        }
        match described.find(path) {
            Ok(value) => {
                let value = Value::Any(Box::new(value.clone()));
                found.push(object("DynamicProperty", vec![("name", string(path.as_str())), ("val", value)]));
            }
            Err(NoValue::Unset) => {}
            Err(NoValue::Unknown) => {
                return Err(Fault::new("InvalidProperty", "").with("name", path));
            }
        }
    }
    Ok((found, missing))
}
