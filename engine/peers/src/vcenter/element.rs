//! The XML of a request, as a tree of elements.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// An element of a request. Prefixes of namespaces are left out of its names, since no two names of vim25 differ by
/// them only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// Reads a document; none if it is malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader::from_str(text);
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().ok()? {
                Event::Start(start) => open.push(Self::started(&start)?),
                Event::Empty(start) => {
                    let element = Self::started(&start)?;
                    open.last_mut()?.children.push(element);
                }
                Event::End(_) => {
                    let element = open.pop()?;
                    open.last_mut()?.children.push(element);
                }
                Event::Text(text) => open.last_mut()?.text.push_str(&text.xml10_content().ok()?),
                Event::CData(text) => open.last_mut()?.text.push_str(&text.decode().ok()?),
                Event::GeneralRef(entity) => {
                    let resolved = match entity.resolve_char_ref().ok()? {
                        Some(character) => character.to_string(),
                        None => {
                            quick_xml::escape::resolve_predefined_entity(&entity.decode().ok()?)?.to_owned()
                        }
                    };
                    open.last_mut()?.text.push_str(&resolved);
                }
                Event::Eof => break,
                _ => {}
            }
        }
        let mut document = open.pop()?;
        if open.is_empty() { document.children.pop() } else { None }
    }

    fn started(start: &BytesStart<'_>) -> Option<Self> {
        let name = std::str::from_utf8(start.local_name().into_inner()).ok()?.to_owned();
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.ok()?;
            let name = std::str::from_utf8(attribute.key.into_inner()).ok()?.to_owned();
            attributes.push((
                name,
                attribute.normalized_value(quick_xml::XmlVersion::default()).ok()?.into_owned(),
            ));
        }
        Some(Self { name, attributes, ..Self::default() })
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Returns the children of a name, in order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Returns the text between its tags, without spaces around it.
    pub(super) fn text(&self) -> &str {
        self.text.trim()
    }

    /// Returns the text of a child.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(Self::text)
    }

    pub(super) fn number_of<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text_of(name)?.parse().ok()
    }

    pub(super) fn flag_of(&self, name: &str) -> Option<bool> {
        match self.text_of(name)? {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    /// Returns its type as `xsi:type` tells, without a prefix.
    pub(super) fn type_name(&self) -> Option<&str> {
        let (_, value) = self.attributes.iter().find(|(name, _)| name.ends_with(":type"))?;
        Some(value.rsplit(':').next().unwrap_or(value))
    }
}
