//! Values of properties, and how they are written in vim25's XML.

use std::fmt::Display;

use quick_xml::escape::escape;

/// A reference to a managed object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    pub(super) kind: &'static str,
    pub(super) id: String,
}

impl Reference {
    pub(super) fn new(kind: &'static str, id: &str) -> Self {
        Self { kind, id: id.to_owned() }
    }
}

/// A value of a property or of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A field that exists and has no value.
    Unset,
    /// A simple type of XML Schema (`xsd:int`) or an enumeration of vim25, and the text.
    Plain(&'static str, String),
    Reference(Reference),
    Object(Object),
    /// The element's name in an array (`VirtualDevice` in `ArrayOfVirtualDevice`), and the elements.
    List(&'static str, Vec<Value>),
    /// A value where anything may stand, so that it always says its type.
    Any(Box<Value>),
}

/// A data object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    type_name: &'static str,
    /// Whether it stands where its base type is declared, so that it says its type.
    derived: bool,
    fields: Vec<(&'static str, Value)>,
}

/// Why a path leads to no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoValue {
    /// A field on the way has no value.
    Unset,
    /// No field has the name.
    Unknown,
}

impl Object {
    pub(super) fn new(type_name: &'static str, fields: Vec<(&'static str, Value)>) -> Self {
        Self { type_name, derived: false, fields }
    }

    /// Finds what a path such as `config.hardware.device` leads to.
    pub(super) fn find(&self, path: &str) -> Result<&Value, NoValue> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let (_, value) = self.fields.iter().find(|(name, _)| *name == first).ok_or(NoValue::Unknown)?;
        match (value, rest) {
            (Value::Unset, _) => Err(NoValue::Unset),
            (value, None) => Ok(value),
            (Value::Object(object), Some(rest)) => object.find(rest),
            _ => Err(NoValue::Unknown),
        }
    }

    /// Returns the names of the fields that have values.
    pub(super) fn set_fields(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().filter(|(_, value)| *value != Value::Unset).map(|(name, _)| *name)
    }
}

/// An object where its very type is declared.
pub(super) fn object(type_name: &'static str, fields: Vec<(&'static str, Value)>) -> Value {
    Value::Object(Object::new(type_name, fields))
}

/// An object where a base of its type is declared.
pub(super) fn derived(type_name: &'static str, fields: Vec<(&'static str, Value)>) -> Value {
    Value::Object(Object { derived: true, ..Object::new(type_name, fields) })
}

pub(super) fn string(text: impl Into<String>) -> Value {
    Value::Plain("xsd:string", text.into())
}

pub(super) fn int(number: impl Display + Copy) -> Value {
    Value::Plain("xsd:int", number.to_string())
}

pub(super) fn long(number: impl Display + Copy) -> Value {
    Value::Plain("xsd:long", number.to_string())
}

pub(super) fn boolean(flag: bool) -> Value {
    Value::Plain("xsd:boolean", flag.to_string())
}

pub(super) fn time(time: jiff::Timestamp) -> Value {
    Value::Plain("xsd:dateTime", time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

/// One of the names of an enumeration of vim25.
pub(super) fn one_of(type_name: &'static str, name: &str) -> Value {
    Value::Plain(type_name, name.to_owned())
}

pub(super) fn reference(kind: &'static str, id: &str) -> Value {
    Value::Reference(Reference::new(kind, id))
}

/// Returns the value if there is one.
pub(super) fn optional(value: Option<Value>) -> Value {
    value.unwrap_or(Value::Unset)
}

/// Writes the elements of a field.
pub(super) fn write_field(out: &mut String, name: &str, value: &Value) {
    match value {
        Value::Unset => {}
        Value::Plain(_, text) => element(out, name, "", &escape(text.as_str())),
        Value::Reference(Reference { kind, id }) => {
            element(out, name, &format!(" type=\"{kind}\""), &escape(id.as_str()));
        }
        Value::Object(object) => {
            let attributes = if object.derived { typed(object.type_name) } else { String::new() };
            element(out, name, &attributes, &fields(object));
        }
        Value::List(_, items) => items.iter().for_each(|item| write_field(out, name, item)),
        Value::Any(value) => write_any(out, name, value),
    }
}

/// Writes one element that says its type, as stands where anything may.
pub(super) fn write_any(out: &mut String, name: &str, value: &Value) {
    match value {
        Value::Unset => {}
        Value::Plain(type_name, text) => element(out, name, &typed(type_name), &escape(text.as_str())),
        Value::Reference(Reference { kind, id }) => {
            let attributes = format!(" type=\"{kind}\"{}", typed("ManagedObjectReference"));
            element(out, name, &attributes, &escape(id.as_str()));
        }
        Value::Object(object) => element(out, name, &typed(object.type_name), &fields(object)),
        Value::List(item, items) => {
            let mut inside = String::new();
            for value in items {
                write_field(&mut inside, item, value);
            }
            let mut array = item.to_string();
            array[..1].make_ascii_uppercase();
            element(out, name, &typed(&format!("ArrayOf{array}")), &inside);
        }
        Value::Any(value) => write_any(out, name, value),
    }
}

fn fields(object: &Object) -> String {
    let mut out = String::new();
    for (name, value) in &object.fields {
        write_field(&mut out, name, value);
    }
    out
}

fn typed(type_name: &str) -> String {
    format!(" xsi:type=\"{type_name}\"")
}

fn element(out: &mut String, name: &str, attributes: &str, inside: &str) {
    out.extend(["<", name, attributes, ">", inside, "</", name, ">"]);
}
