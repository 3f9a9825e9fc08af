//! Files of datastores, over HTTPS.

use super::client::VCenter;
use super::error::VSphereError;
use super::model::Datacenter;
use std::fmt;

/// The place of a file: `[datastore] directory/name.vmdk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastorePath {
    datastore: String,
    path: String,
}

impl DatastorePath {
    /// Reads one. None is one that names no file, or a directory above its own.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (datastore, path) = text.strip_prefix('[')?.split_once(']')?;
        let path = path.trim_start();
        let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        (plain && !datastore.is_empty())
            .then(|| Self { datastore: datastore.to_owned(), path: path.to_owned() })
    }

    /// The file with the data of a disk whose descriptor this is, on datastores that have one.
    #[must_use]
    pub fn flat(&self) -> Option<Self> {
        let stem = self.path.strip_suffix(".vmdk")?;
        Some(Self { datastore: self.datastore.clone(), path: format!("{stem}-flat.vmdk") })
    }
}

impl fmt::Display for DatastorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}] {}", self.datastore, self.path)
    }
}

impl VCenter {
    /// Reads bytes of a file, as many as `buffer` takes, and returns the file's length.
    ///
    /// An answer that is not of exactly this range is refused.
    ///
    /// # Errors
    /// [`VSphereError::Status`] with 404 if there is no such file, with 416 if it ends before.
    pub fn get_folder_range(
        &self,
        datacenter: &Datacenter,
        file: &DatastorePath,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<u64, VSphereError> {
        let segments: Vec<&str> = ["folder"].into_iter().chain(file.path.split('/')).collect();
        let query = [("dcPath", datacenter.path.as_str()), ("dsName", file.datastore.as_str())];
        self.get((&segments, &query), start, buffer)
    }

    /// Asks for the length of a file, by reading its first byte.
    ///
    /// # Errors
    /// [`VSphereError::Status`] with 404 if there is no such file, with 416 if it is empty.
    pub fn folder_file_len(
        &self,
        datacenter: &Datacenter,
        file: &DatastorePath,
    ) -> Result<u64, VSphereError> {
        self.get_folder_range(datacenter, file, 0, &mut [0])
    }
}
