//! Which packs a place has, and how long they are: from listings, never from what is in packs.
//!
//! # Memory
//! Some 60 bytes for each pack that was listed; of a listing that is under way, the page that each of its parts is at.

use crate::error::EngineError;
use crate::listing::list_as;
use crate::repository::Repository;
use crate::store::BlobInfo;
use crate::threads;
use repo_format::{
    BlobKind, PREFIX_DATA, PREFIX_MAP, PackKind, PackName, PackRef, SessionId, WriterId, packs_prefix,
};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Listings that are asked for at the same time.
const LISTINGS_AT_ONCE: usize = 32;
/// Sessions of one writer that are listed one by one; where more are asked for, all that the writer stored is listed.
const SESSIONS_LISTED: usize = 64;

/// The packs that are there.
pub(crate) struct Presence {
    /// Their lengths.
    packs: HashMap<Key, u32>,
    owners: HashMap<WriterId, Owner>,
    listed: Listed,
}

/// A pack in few bytes.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    session: SessionId,
    writer: u32,
    number: u32,
    kind: PackKind,
}

/// A writer whose packs were listed or asked for.
#[derive(Clone, Copy)]
struct Owner(u32);

/// What was listed.
enum Listed {
    Everything,
    /// What was asked for.
    Asked {
        sessions: HashSet<(u32, PackKind, SessionId)>,
        /// How many sessions of a writer were listed; nothing if all were.
        of_writer: HashMap<(u32, PackKind), Option<usize>>,
    },
}

impl Presence {
    /// Lists all packs.
    pub(crate) fn of_everything(repository: &Repository<'_>) -> Result<Self, EngineError> {
        let mut presence = Self { listed: Listed::Everything, ..Self::as_asked() };
        presence.list(repository, &[PREFIX_DATA.to_owned(), PREFIX_MAP.to_owned()])?;
        Ok(presence)
    }

    /// Lists the packs of sessions when these are asked for.
    pub(crate) fn as_asked() -> Self {
        let listed = Listed::Asked { sessions: HashSet::new(), of_writer: HashMap::new() };
        Self { packs: HashMap::new(), owners: HashMap::new(), listed }
    }

    /// Whether all packs were listed at once.
    pub(crate) fn is_of_everything(&self) -> bool {
        matches!(self.listed, Listed::Everything)
    }

    /// Sees to it that it is known of some packs whether they are there.
    pub(crate) fn look_for<'p>(
        &mut self,
        repository: &Repository<'_>,
        packs: impl Iterator<Item = &'p PackRef>,
    ) -> Result<(), EngineError> {
        if matches!(self.listed, Listed::Everything) {
            return Ok(());
        }
        let sessions: BTreeSet<(PackKind, &WriterId, SessionId)> =
            packs.map(|pack| (pack.name.kind, &pack.name.writer, pack.name.session)).collect();
        let sessions: Vec<_> = sessions.into_iter().collect();
        let mut prefixes = Vec::new();
        for of_writer in sessions.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (kind, writer, _) = of_writer[0];
            let owner = self.owner(writer);
            let asked: Vec<SessionId> = of_writer.iter().map(|(.., session)| *session).collect();
            match self.listed.next(owner, kind, &asked) {
                Next::Sessions(new) => {
                    prefixes.extend(new.into_iter().map(|session| packs_prefix(kind, writer, session)));
                }
                Next::Everything => prefixes.push(format!("{}{writer}/", kind.prefix())),
            }
        }
        self.list(repository, &prefixes)
    }

    /// Whether a pack is there with its length; [`Presence::look_for`] came before.
    pub(crate) fn has(&self, pack: &PackRef) -> bool {
        self.len(&pack.name) == Some(pack.len)
    }

    /// How long the pack of a name is; `u32::MAX` if it is longer than any pack can be.
    pub(crate) fn len(&self, name: &PackName) -> Option<u32> {
        let Owner(writer) = *self.owners.get(&name.writer)?;
        let key = Key { session: name.session, writer, number: name.number, kind: name.kind };
        self.packs.get(&key).copied()
    }

    /// Notes a pack that is there since.
    pub(crate) fn insert(&mut self, pack: &PackRef) {
        let PackName { kind, writer, session, number } = &pack.name;
        let Owner(writer) = self.owner(writer);
        self.packs.insert(Key { session: *session, writer, number: *number, kind: *kind }, pack.len);
    }

    fn list(&mut self, repository: &Repository<'_>, prefixes: &[String]) -> Result<(), EngineError> {
        let keep = |info: BlobInfo| match info.name.kind() {
            // A pack is shorter than 4 GiB: what is longer is no pack of any length.
            Some(BlobKind::Pack(name)) => {
                let PackName { kind, writer, session, number } = name;
                Some((writer, session, (number, kind), u32::try_from(info.len).unwrap_or(u32::MAX)))
            }
            _ => None,
        };
        for prefixes in prefixes.chunks(LISTINGS_AT_ONCE) {
            let found = threads::each(prefixes, LISTINGS_AT_ONCE, |prefix| {
                list_as(repository.store(), prefix, &keep)
            });
            for found in found {
                for (writer, session, (number, kind), len) in found? {
                    let Owner(writer) = self.owner(&writer);
                    self.packs.insert(Key { session, writer, number, kind }, len);
                }
            }
        }
        Ok(())
    }

    fn owner(&mut self, writer: &WriterId) -> Owner {
        if let Some(owner) = self.owners.get(writer) {
            return *owner;
        }
        let owner = Owner(u32::try_from(self.owners.len()).expect("there are fewer writers than packs"));
        self.owners.insert(writer.clone(), owner);
        owner
    }
}

/// What is to be listed of a writer's packs.
enum Next {
    Sessions(Vec<SessionId>),
    Everything,
}

impl Listed {
    fn next(&mut self, Owner(writer): Owner, kind: PackKind, asked: &[SessionId]) -> Next {
        let Self::Asked { sessions, of_writer } = self else { return Next::Sessions(Vec::new()) };
        let listed = of_writer.entry((writer, kind)).or_insert(Some(0));
        let Some(count) = listed else { return Next::Sessions(Vec::new()) };
        let is_new = |session: &&SessionId| !sessions.contains(&(writer, kind, **session));
        let new: Vec<SessionId> = asked.iter().filter(is_new).copied().collect();
        *count += new.len();
        if *count > SESSIONS_LISTED {
            *listed = None;
            return Next::Everything;
        }
        sessions.extend(new.iter().map(|session| (writer, kind, *session)));
        Next::Sessions(new)
    }
}
