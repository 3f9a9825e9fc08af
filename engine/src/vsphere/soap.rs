//! The envelope that questions and answers come in.

use super::error::VSphereError;
use super::fault::FaultKind;
use super::model::MoRef;
use super::xml::{Element, Wrong, escaped};
use std::fmt::Display;

/// The version of the interface that is spoken: the first of vCenter 7, which later servers speak as well.
pub(super) const ACTION: &str = "urn:vim25/7.0.0.0";

/// One question: a method of an object, with arguments in the order of the interface's definition.
pub(super) struct Question {
    pub(super) method: &'static str,
    this: MoRef,
    arguments: String,
}

impl Question {
    pub(super) fn new(method: &'static str, this: &MoRef) -> Self {
        Self { method, this: this.clone(), arguments: String::new() }
    }

    /// Adds an argument that is a text, a number, or true or false.
    pub(super) fn with(mut self, name: &str, value: impl Display) -> Self {
        push_text(&mut self.arguments, name, &value);
        self
    }

    /// Adds a reference to an object.
    pub(super) fn with_object(mut self, name: &str, object: &MoRef) -> Self {
        push_object(&mut self.arguments, name, object);
        self
    }

    /// Adds an argument that consists of others.
    pub(super) fn with_data(mut self, name: &str, data: Data) -> Self {
        self.arguments.push_str(&data.within(name));
        self
    }

    /// The whole envelope.
    pub(super) fn envelope(&self) -> String {
        let mut this = String::new();
        push_object(&mut this, "_this", &self.this);
        let Self { method, arguments, .. } = self;
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
             <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
             <soapenv:Body><{method} xmlns=\"urn:vim25\">{this}{arguments}</{method}></soapenv:Body>\
             </soapenv:Envelope>"
        )
    }
}

/// The parts of an argument, in order.
#[derive(Default)]
pub(super) struct Data {
    xsi_type: Option<&'static str>,
    content: String,
}

impl Data {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Data of a type that is more than the one that the interface's definition names.
    pub(super) fn of_type(xsi_type: &'static str) -> Self {
        Self { xsi_type: Some(xsi_type), content: String::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Display) -> Self {
        push_text(&mut self.content, name, &value);
        self
    }

    pub(super) fn with_object(mut self, name: &str, object: &MoRef) -> Self {
        push_object(&mut self.content, name, object);
        self
    }

    pub(super) fn with_data(mut self, name: &str, data: Self) -> Self {
        self.content.push_str(&data.within(name));
        self
    }

    fn within(self, name: &str) -> String {
        let of_type = self.xsi_type.map(|name| format!(" xsi:type=\"{name}\"")).unwrap_or_default();
        format!("<{name}{of_type}>{}</{name}>", self.content)
    }
}

fn push_text(to: &mut String, name: &str, value: &dyn Display) {
    to.extend(["<", name, ">", &escaped(&value.to_string()), "</", name, ">"]);
}

fn push_object(to: &mut String, name: &str, object: &MoRef) {
    to.extend(["<", name, " type=\"", &escaped(&object.kind), "\">", &escaped(&object.id), "</", name, ">"]);
}

/// Reads an answer that came with a status.
///
/// Returns the element `METHODResponse`, whose children `returnval` are the result.
pub(super) fn answer(method: &'static str, status: u16, body: &[u8]) -> Result<Element, VSphereError> {
    // Proxies and web servers answer with pages of their own.
    if !matches!(status, 200 | 500) {
        return Err(VSphereError::Status { method, status });
    }
    let malformed = |Wrong(what)| match status {
        200 => VSphereError::Malformed { method, what },
        status => VSphereError::Status { method, status },
    };
    let envelope = Element::parse(body).map_err(malformed)?;
    let body = envelope.need("Body").map_err(malformed)?;
    if let Some(fault) = body.child("Fault") {
        return Err(read_fault(method, fault));
    }
    let expected = format!("{method}Response");
    let found = body.children.iter().find(|child| child.name == expected);
    found.cloned().ok_or_else(|| malformed(Wrong(format!("Body: there is no {expected}"))))
}

fn read_fault(method: &'static str, fault: &Element) -> VSphereError {
    let message = fault.child("faultstring").map(|found| found.text.clone()).unwrap_or_default();
    let detail = fault.child("detail").and_then(|detail| detail.children.first());
    let kind = match detail {
        Some(detail) => FaultKind::read(detail),
        None => FaultKind::Other { name: "unknown".to_owned() },
    };
    VSphereError::Fault { method, kind, message }
}
