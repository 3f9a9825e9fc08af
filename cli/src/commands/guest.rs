//! What `ls` and `cp` have in common: a disk of a snapshot as its guest sees it.

use keepstone_engine::Repository;
use keepstone_engine::guest::{Guest, GuestDisk, GuestError, shown, with_guest};
use keepstone_engine::view::{DiskView, ViewSettings};
use repo_format::{Disk, SessionId};
use serde::{Serialize, Serializer};

/// A disk of a snapshot, read where its file systems lead.
pub(super) struct Files<'r, 's> {
    view: DiskView<'r, 's>,
}

impl<'r, 's> Files<'r, 's> {
    pub(super) fn new(repository: &'r Repository<'s>, snapshot: SessionId, disk: &Disk) -> Self {
        Self { view: DiskView::of_snapshot(repository, snapshot, disk, ViewSettings::default()) }
    }

    /// Looks into the disk, and has read ahead what is read in order.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Guest) -> Result<T, GuestError>,
    ) -> Result<T, GuestError> {
        let read_at = |offset, buffer: &mut [u8]| self.view.read_at(offset, buffer);
        let disk = GuestDisk { size: self.view.size(), read_at: &read_at };
        self.view.reading_ahead(|| with_guest(&disk, work))
    }
}

/// A name or path of a guest: text, where it is some, and always something that can be shown.
pub(super) struct PathText {
    text: Option<String>,
    bytes: Vec<u8>,
    pub(super) shown: String,
}

impl PathText {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
        Self { text, bytes: bytes.to_vec(), shown: shown(bytes) }
    }
}

/// Text as text; what is none as `{"hex": ...}`, so that it can be told from all text.
impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = &self.text {
            return serializer.serialize_str(text);
        }
        let digits = self.bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let hex: String = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect();
        serializer.collect_map([("hex", hex)])
    }
}

/// Text of a guest for a cell of a table.
pub(super) fn cell(text: &str) -> String {
    shown(text.as_bytes())
}
