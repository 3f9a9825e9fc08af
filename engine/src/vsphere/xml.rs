//! A small tree of an XML answer, within limits.

use super::model::MoRef;
use super::text;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

/// How deep elements may be nested: a chain of 32 snapshots, which is the most that vSphere allows, takes 40.
const DEPTH_MAX: usize = 128;

/// How many elements an answer may have: a page of 2000 changed areas has 6000.
const ELEMENTS_MAX: usize = 500_000;

/// How many attributes an element may have; vSphere uses three at most.
const ATTRIBUTES_MAX: usize = 32;

/// An element without its namespaces. The text of all parts that are not elements is joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    /// The attribute `xsi:type` without its prefix: the type of a value.
    pub(super) xsi_type: Option<String>,
    /// The attribute `type`: the kind of object that a reference is to.
    pub(super) kind: Option<String>,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

/// What is wrong with an answer, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

impl Wrong {
    /// Says in which element it is.
    fn within(self, name: &str) -> Self {
        match self.0.split_once(": ") {
            Some((path, what)) if !path.contains(' ') => Self(format!("{name}/{path}: {what}")),
            _ => Self(format!("{name}: {}", self.0)),
        }
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(what.into()))
}

impl Element {
    /// Reads a document. No document type is allowed, and no entities but the five of XML.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let text = str::from_utf8(bytes).map_err(|_| Wrong("not UTF-8".to_owned()))?;
        let mut reader = Reader::from_str(text);
        let mut tree = Tree::default();
        loop {
            let event = reader.read_event().map_err(|error| Wrong(format!("not XML: {error}")))?;
            match event {
                Event::Start(start) => tree.open(read_start(&start)?)?,
                Event::Empty(start) => {
                    tree.open(read_start(&start)?)?;
                    tree.close()?;
                }
                Event::End(_) => tree.close()?,
                Event::Text(text) => {
                    let text = text.xml10_content().map_err(|error| Wrong(format!("not XML: {error}")))?;
                    tree.push_str(&text)?;
                }
                Event::CData(text) => {
                    let text = text.xml10_content().map_err(|error| Wrong(format!("not XML: {error}")))?;
                    tree.push_str(&text)?;
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().map_err(|error| Wrong(format!("not XML: {error}")))?;
                    let character =
                        reference.resolve_char_ref().map_err(|error| Wrong(format!("not XML: {error}")))?;
                    match (character, resolve_predefined_entity(&name)) {
                        (Some(character), _) => tree.push_str(character.encode_utf8(&mut [0; 4]))?,
                        (None, Some(text)) => tree.push_str(text)?,
                        (None, None) => return wrong(format!("there is no entity {name:?}")),
                    }
                }
                Event::DocType(_) => return wrong("it has a document type"),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof => return tree.finish(),
            }
        }
    }

    /// The first child of a name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first child of a name, which has to be there.
    pub(super) fn need(&self, name: &str) -> Result<&Self, Wrong> {
        self.child(name).ok_or_else(|| Wrong(format!("{}: there is no {name}", self.name)))
    }

    /// The text of a child that has to be there.
    pub(super) fn string(&self, name: &str) -> Result<String, Wrong> {
        Ok(self.need(name)?.text.clone())
    }

    /// The text of a child, unless there is none or it is empty.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        self.child(name).and_then(Self::non_empty)
    }

    /// The text, unless it is empty.
    pub(super) fn non_empty(&self) -> Option<String> {
        let text = self.text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A reference to an object.
    pub(super) fn moref(&self) -> Result<MoRef, Wrong> {
        let (kind, id) = (self.kind.as_deref().unwrap_or_default(), self.text.trim());
        if kind.is_empty() || id.is_empty() {
            return wrong(format!("{}: it is no reference to an object", self.name));
        }
        Ok(MoRef::new(kind, id))
    }

    /// The text as a number.
    pub(super) fn number<T: std::str::FromStr>(&self) -> Result<T, Wrong> {
        let text = self.text.trim();
        text.parse().or_else(|_| wrong(format!("{}: {} is no such number", self.name, text::excerpt(text))))
    }

    /// The number of a child, if it is there.
    pub(super) fn optional_number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Wrong> {
        let number = self.child(name).map(Self::number).transpose();
        number.map_err(|wrong| wrong.within(&self.name))
    }

    /// The number of a child that has to be there.
    pub(super) fn needed_number<T: std::str::FromStr>(&self, name: &str) -> Result<T, Wrong> {
        self.need(name)?.number().map_err(|wrong| wrong.within(&self.name))
    }

    /// The text as true or false.
    pub(super) fn boolean(&self) -> Result<bool, Wrong> {
        match self.text.trim() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            text => wrong(format!("{}: {} is neither true nor false", self.name, text::excerpt(text))),
        }
    }

    /// Whether a child says true; one that is not there does not.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Wrong> {
        let flag = self.child(name).map_or(Ok(false), Self::boolean);
        flag.map_err(|wrong| wrong.within(&self.name))
    }
}

fn read_start(start: &BytesStart<'_>) -> Result<Element, Wrong> {
    let mut element = Element { name: local(start.local_name().as_ref())?, ..Element::default() };
    // Without the reader's own check for duplicates, whose time grows with the square of their number.
    let mut attributes = start.attributes();
    for (position, attribute) in attributes.with_checks(false).enumerate() {
        let attribute = attribute.map_err(|error| Wrong(format!("not XML: {error}")))?;
        if position == ATTRIBUTES_MAX {
            return wrong(format!("{}: it has more than {ATTRIBUTES_MAX} attributes", element.name));
        }
        if attribute.key.local_name().as_ref() != b"type" {
            continue;
        }
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|error| Wrong(format!("not XML: {error}")))?;
        if attribute.key.prefix().is_some() {
            let name = value.rsplit_once(':').map_or(&*value, |(_, name)| name);
            element.xsi_type = Some(name.to_owned());
        } else {
            element.kind = Some(value.into_owned());
        }
    }
    Ok(element)
}

fn local(name: &[u8]) -> Result<String, Wrong> {
    match str::from_utf8(name) {
        Ok(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => wrong("an element has no name"),
    }
}

/// A document that is being read.
#[derive(Default)]
struct Tree {
    /// The elements that are open, the outermost first.
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
}

impl Tree {
    fn open(&mut self, element: Element) -> Result<(), Wrong> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return wrong(format!("it has more than {ELEMENTS_MAX} elements"));
        }
        if self.open.len() == DEPTH_MAX {
            return wrong(format!("its elements are nested more than {DEPTH_MAX} deep"));
        }
        if self.root.is_some() {
            return wrong("something stands behind its last element");
        }
        self.open.push(element);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Wrong> {
        let Some(element) = self.open.pop() else { return wrong("an element ends that did not begin") };
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn push_str(&mut self, text: &str) -> Result<(), Wrong> {
        match self.open.last_mut() {
            // Only what stands between tags for the eye is dropped, so that answers take no more than they hold.
            Some(element) if element.children.is_empty() || !text.trim().is_empty() => {
                element.text.push_str(text);
                Ok(())
            }
            None if !text.trim().is_empty() => wrong("there is text outside of all elements"),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<Element, Wrong> {
        match self.root {
            Some(root) if self.open.is_empty() => Ok(root),
            _ => wrong("it ends in the middle"),
        }
    }
}

/// Writes text so that it stands for itself between tags or in quotes. Characters that XML 1.0 cannot hold are
/// replaced by `U+FFFD`.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\r' => escaped.push_str("&#13;"),
            '\t' => escaped.push_str("&#9;"),
            '\n' => escaped.push_str("&#10;"),
            '\0'..'\u{20}' | '\u{FFFE}' | '\u{FFFF}' => escaped.push('\u{FFFD}'),
            _ => escaped.push(character),
        }
    }
    escaped
}
