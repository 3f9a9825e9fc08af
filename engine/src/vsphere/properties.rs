//! Properties of objects, by the property collector.

use super::client::{Repeat, Session, VCenter, malformed};
use super::error::VSphereError;
use super::fault::{Fault, FaultKind};
use super::model::MoRef;
use super::soap::{Data, Question};
use super::xml::{Element, Wrong};

/// The method that properties are asked for with.
pub(super) const METHOD: &str = "RetrievePropertiesEx";

/// How many parts an answer about one object may come in.
const PARTS_MAX: usize = 64;

/// Values of properties of one object, by their paths. What has no value is not among them.
pub(super) struct Properties {
    values: Vec<(String, Element)>,
}

impl Properties {
    /// Takes values that were read.
    pub(super) fn new(values: Vec<(String, Element)>) -> Self {
        Self { values }
    }

    pub(super) fn get(&self, path: &str) -> Option<&Element> {
        self.values.iter().find(|(found, _)| found == path).map(|(_, value)| value)
    }

    pub(super) fn need(&self, path: &str) -> Result<&Element, Wrong> {
        self.get(path).ok_or_else(|| Wrong(format!("there is no {path}")))
    }

    /// Reads a value with a function, if it is there.
    pub(super) fn read<T>(
        &self,
        path: &str,
        read: impl FnOnce(&Element) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Wrong> {
        let value = self.get(path).map(read).transpose();
        value.map_err(|Wrong(what)| Wrong(format!("{path}: {what}")))
    }

    /// A text, unless it is missing or empty.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.get(path).and_then(Element::non_empty)
    }

    /// Whether a value is true; one that is not there is not.
    pub(super) fn flag(&self, path: &str) -> Result<bool, Wrong> {
        Ok(self.read(path, Element::boolean)?.unwrap_or(false))
    }
}

impl VCenter {
    /// Asks for properties of an object.
    ///
    /// A property that may not be seen is an error, with the privilege; one that has no value is left out.
    pub(super) fn properties(&self, object: &MoRef, paths: &[&str]) -> Result<Properties, VSphereError> {
        self.authenticated(|session| self.properties_in(session, object, paths))
    }

    fn properties_in(
        &self,
        session: &Session,
        object: &MoRef,
        paths: &[&str],
    ) -> Result<Properties, VSphereError> {
        let mut set = Data::new().with("type", &object.kind).with("all", false);
        for path in paths {
            set = set.with("pathSet", path);
        }
        let filter = Data::new()
            .with_data("propSet", set)
            .with_data("objectSet", Data::new().with_object("obj", object).with("skip", false));
        let collector = &self.content.property_collector;
        let mut question =
            Question::new(METHOD, collector).with_data("specSet", filter).with_data("options", Data::new());

        let mut values = Vec::new();
        for _ in 0..PARTS_MAX {
            let response = self.ask_in(session, &question, Repeat::Safe)?;
            let part = read_part(&response).map_err(malformed(question.method))?;
            if let Some((path, Fault { kind, message })) = part.missing.into_iter().next() {
                let message = format!("{path} of {object} is not shown: {message}");
                return Err(VSphereError::Fault { method: question.method, kind, message });
            }
            values.extend(part.values);
            let Some(token) = part.token else { return Ok(Properties::new(values)) };
            question = Question::new("ContinueRetrievePropertiesEx", collector).with("token", token);
        }
        Err(malformed(question.method)(Wrong(format!("it comes in more than {PARTS_MAX} parts"))))
    }
}

/// One answer of the property collector about one object.
pub(super) struct Part {
    pub(super) values: Vec<(String, Element)>,
    pub(super) missing: Vec<(String, Fault)>,
    token: Option<String>,
}

/// Reads an answer of the property collector.
pub(super) fn read_part(response: &Element) -> Result<Part, Wrong> {
    let mut part = Part { values: Vec::new(), missing: Vec::new(), token: None };
    // Nothing at all is returned where there is nothing to tell.
    let Some(result) = response.child("returnval") else { return Ok(part) };
    part.token = result.optional("token");
    for object in result.all("objects") {
        for property in object.all("propSet") {
            part.values.push((property.string("name")?, property.need("val")?.clone()));
        }
        for missing in object.all("missingSet") {
            let fault = Fault::read_localized(missing.need("fault")?);
            // That a path leads nowhere in an object of this kind is no more than that it has no value.
            if fault.kind != (FaultKind::Other { name: "InvalidProperty".to_owned() }) {
                part.missing.push((missing.string("path")?, fault));
            }
        }
    }
    Ok(part)
}
