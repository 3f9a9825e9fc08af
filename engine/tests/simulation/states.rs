//! What stores held at moments that matter, kept until somebody looks at it.

use crate::world::{Inner, Site, World};
use keepstone_engine::BlobStore as _;
use keepstone_engine::store::MemoryStore;
use repo_format::{BlobKind, BlobName, PackName, SessionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One of so many states of the copy is kept, of those that need not be looked at.
const KEPT_ONE_IN: u64 = 16;

/// What a store held at one moment.
pub struct State {
    /// How many calls there had been.
    pub call: usize,
    /// The blob that had come or gone just before.
    pub changed: BlobName,
    pub store: MemoryStore,
    /// Sessions for which a tombstone had been sent.
    pub forgotten: BTreeSet<SessionId>,
}

/// States that are not looked at yet.
#[derive(Default)]
pub struct States {
    /// Whether restore points are copied.
    pub are_of_copy: bool,
    /// Whether a replica is registered, for which the source keeps what it packed again.
    pub are_of_source: bool,
    /// The copy's, the oldest first.
    pub of_copy: VecDeque<State>,
    /// The source's just before packs of it were deleted.
    pub of_source: VecDeque<(State, PackName)>,
    /// How many blobs of the source were deleted.
    pub gone: u64,
    /// Whether blobs of the source may come to the copy after they were deleted there.
    pub are_removed_kept: bool,
    /// What the blobs held that were deleted at the source, if they may.
    pub removed: BTreeMap<BlobName, Vec<u8>>,
}

impl Inner {
    fn state(&self, store: &MemoryStore, changed: &BlobName) -> State {
        let (call, forgotten) = (self.log.len(), self.forgotten.clone());
        State { call, changed: changed.clone(), store: store.copied(), forgotten }
    }

    /// A blob has come to the copy: it is what it is at the source.
    pub fn arrived(&mut self, world: &World, name: &BlobName, content: [u8; 32]) {
        if !self.states.are_of_copy {
            return;
        }
        let here = world.truth.get(name, None).ok().map(|bytes| *blake3::hash(&bytes).as_bytes());
        let is_copied =
            here.map_or_else(|| self.may_have_been(Site::Source, name, content), |here| here == content);
        if name.kind() != Some(BlobKind::ReplicaMarker) && !is_copied {
            let at = self.log.len();
            self.violations
                .push(format!("before call {at}: {name} came to the copy, and is not what the source had"));
        }
        self.keep(world, name, matches!(name.kind(), Some(BlobKind::Decision(_) | BlobKind::Repack(_))));
    }

    /// A blob is about to go.
    pub fn goes(&mut self, world: &World, site: Site, name: &BlobName) {
        if site == Site::Source {
            self.states.gone += 1;
            if self.states.are_removed_kept
                && let Ok(bytes) = world.truth.get(name, None)
            {
                self.states.removed.insert(name.clone(), bytes);
            }
            if let (true, Some(BlobKind::Pack(pack))) = (self.states.are_of_source, name.kind()) {
                let state = self.state(&world.truth, name);
                self.states.of_source.push_back((state, pack));
            }
        }
    }

    /// A blob has gone.
    pub fn gone(&mut self, world: &World, site: Site, name: &BlobName) {
        if site == Site::Copy && self.states.are_of_copy {
            self.keep(world, name, true);
        }
    }

    /// Keeps the copy as it is now, which somebody will look at.
    pub fn keep_last_state(&mut self, world: &World) {
        self.keep(world, &BlobName::config(), true);
    }

    fn keep(&mut self, world: &World, name: &BlobName, must: bool) {
        if must || self.random.one_in(KEPT_ONE_IN) {
            let state = self.state(&world.copy, name);
            self.states.of_copy.push_back(state);
        }
    }
}
