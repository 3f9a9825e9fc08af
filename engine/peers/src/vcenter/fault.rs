//! Faults: how vSphere says that something failed.

use super::value::{Object, Reference, Value, derived, string, write_field};

/// A fault of vim25.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub(super) name: String,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Fault {
    /// Makes one of a type's name, such as `FileFault`, and a message for people.
    #[must_use]
    pub fn new(name: &str, message: &str) -> Self {
        Self { name: name.to_owned(), message: message.to_owned(), fields: Vec::new() }
    }

    /// Adds a field with text.
    #[must_use]
    pub fn with(mut self, field: &'static str, text: &str) -> Self {
        self.fields.push((field, string(text)));
        self
    }

    pub(super) fn with_object(mut self, field: &'static str, object: Reference) -> Self {
        self.fields.push((field, Value::Reference(object)));
        self
    }

    /// An argument was no possible one.
    pub(super) fn invalid_argument(property: &str) -> Self {
        Self::new("InvalidArgument", &format!("A specified parameter was not correct: {property}"))
            .with("invalidProperty", property)
    }

    pub(super) fn not_found(object: Reference) -> Self {
        let message = format!(
            "The object 'vim.{}:{}' has already been deleted or has not been completely created",
            object.kind, object.id
        );
        Self::new("ManagedObjectNotFound", &message).with_object("obj", object)
    }

    pub(super) fn not_authenticated(object: Reference) -> Self {
        Self::new("NotAuthenticated", "The session is not authenticated.")
            .with_object("object", object)
            .with("privilegeId", "System.View")
    }

    pub(super) fn no_permission(object: Reference, privilege: &str) -> Self {
        Self::new("NoPermission", "Permission to perform this operation was denied.")
            .with_object("object", object)
            .with("privilegeId", privilege)
    }

    /// A file is in use.
    pub(super) fn locked(file: &str) -> Self {
        Self::new("FileLocked", &format!("Unable to access file {file} since it is locked"))
            .with("file", file)
    }

    pub(super) fn file_fault(file: &str) -> Self {
        Self::new("FileFault", &format!("Error caused by file {file}")).with("file", file)
    }

    /// Returns it as the field `error` of a task has it.
    pub(super) fn localized(&self) -> Value {
        // Names of faults live as long as the program: there are few.
        let name: &'static str = Box::leak(self.name.clone().into_boxed_str());
        let fields = vec![
            ("fault", derived(name, self.fields.clone())),
            ("localizedMessage", string(self.message.as_str())),
        ];
        Value::Object(Object::new("LocalizedMethodFault", fields))
    }

    /// Returns it as the body of a SOAP envelope.
    pub(super) fn soap(&self) -> String {
        let mut fields = String::new();
        for (name, value) in &self.fields {
            write_field(&mut fields, name, value);
        }
        let (name, message) = (&self.name, quick_xml::escape::escape(&self.message));
        format!(
            "<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>{message}</faultstring><detail>\
             <{name}Fault xmlns=\"urn:vim25\" xsi:type=\"{name}\">{fields}</{name}Fault></detail></soapenv:Fault>"
        )
    }
}
