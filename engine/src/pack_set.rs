//! Sets of packs by name: of millions, with some bytes for each.

use repo_format::{PackKind, PackName, PackRef, SessionId, WriterId};
use std::collections::BTreeMap;

/// Packs, each with the length that it was noted with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackSet {
    /// By session: its id is what few packs have in common. A session has one writer, unless something is wrong.
    sessions: BTreeMap<SessionId, Vec<Group>>,
}

/// The packs of one kind of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    kind: PackKind,
    writer: WriterId,
    /// Lengths by number.
    packs: BTreeMap<u32, u32>,
}

impl PackSet {
    /// Adds a pack. A second length does not replace the first.
    pub(crate) fn insert(&mut self, pack: &PackRef) {
        self.insert_name(&pack.name, pack.len);
    }

    /// Adds a pack by its name, with a length that may be 0 where it does not matter.
    pub(crate) fn insert_name(&mut self, name: &PackName, len: u32) {
        let PackName { kind, writer, session, number } = name;
        let groups = self.sessions.entry(*session).or_default();
        let at = groups.iter().position(|group| group.is_of(*kind, writer)).unwrap_or_else(|| {
            groups.push(Group { kind: *kind, writer: writer.clone(), packs: BTreeMap::new() });
            groups.len() - 1
        });
        groups[at].packs.entry(*number).or_insert(len);
    }

    /// Whether a pack of that name is in the set.
    pub(crate) fn contains(&self, name: &PackName) -> bool {
        self.group(name).is_some_and(|group| group.packs.contains_key(&name.number))
    }

    fn group(&self, name: &PackName) -> Option<&Group> {
        self.sessions.get(&name.session)?.iter().find(|group| group.is_of(name.kind, &name.writer))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.values().flatten().map(|group| group.packs.len()).sum()
    }

    /// The sum of the packs' lengths, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let lens = self.sessions.values().flatten().flat_map(|group| group.packs.values());
        lens.map(|len| u64::from(*len)).sum()
    }

    /// The packs, by session.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PackRef> + '_ {
        self.sessions.iter().flat_map(|(session, groups)| {
            groups.iter().flat_map(|Group { kind, writer, packs }| {
                packs.iter().map(|(number, len)| {
                    let (kind, session, number) = (*kind, *session, *number);
                    PackRef { name: PackName { kind, writer: writer.clone(), session, number }, len: *len }
                })
            })
        })
    }

    /// The packs, sorted as a pack table has them (TABLE-1).
    pub(crate) fn to_table(&self) -> Vec<PackRef> {
        let mut packs: Vec<PackRef> = self.iter().collect();
        packs.sort_unstable();
        packs
    }

    /// At most how long the pack table of the set is (TABLE-1), in bytes.
    pub(crate) fn table_len(&self) -> usize {
        let groups = self.sessions.values().flatten();
        4 + groups
            .map(|group| 1 + 1 + group.writer.as_str().len() + 16 + 4 + 8 * group.packs.len())
            .sum::<usize>()
    }

    /// The sessions that have packs in the set.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied()
    }
}

impl Group {
    fn is_of(&self, kind: PackKind, writer: &WriterId) -> bool {
        self.kind == kind && self.writer == *writer
    }
}

impl Extend<PackRef> for PackSet {
    fn extend<T: IntoIterator<Item = PackRef>>(&mut self, packs: T) {
        for pack in packs {
            self.insert(&pack);
        }
    }
}

impl FromIterator<PackRef> for PackSet {
    fn from_iter<T: IntoIterator<Item = PackRef>>(packs: T) -> Self {
        let mut set = Self::default();
        set.extend(packs);
        set
    }
}
