//! What a pack tells of itself, without its frames: two short reads.

use crate::error::EngineError;
use crate::repository::Repository;
use repo_format::limits::PACK_HEADER_LEN;
use repo_format::{FormatError, FrameEntry, PackHeader, PackName, open_directory};

/// Reads the header and the directory of a pack of `len` bytes, and gives its frames with their offsets: authentic,
/// and laid out as SPEC section 7 says. The frames themselves are not looked at.
pub(crate) fn read(
    repository: &Repository<'_>,
    pack: &PackName,
    len: u64,
) -> Result<Vec<(u32, FrameEntry)>, EngineError> {
    let name = pack.blob();
    let damaged = EngineError::damaged(&name);
    let (header, directory) = read_parts(repository, pack)?;
    if u64::from(header.pack_len()) != len || header.kind != pack.kind {
        return Err(damaged(FormatError::BadValue("the header of the pack is that of another one")));
    }
    open_directory(repository.keys(), pack, &header, &directory).map_err(damaged)
}

/// Whether what is stored under one name is the pack of another name, as far as header and directory tell.
pub(crate) fn is_content_of(
    repository: &Repository<'_>,
    stored_as: &PackName,
    pack: &PackName,
) -> Result<bool, EngineError> {
    match read_parts(repository, stored_as) {
        Ok((header, directory)) => Ok(open_directory(repository.keys(), pack, &header, &directory).is_ok()),
        Err(error) if error.is_damage() => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_parts(
    repository: &Repository<'_>,
    stored_as: &PackName,
) -> Result<(PackHeader, Vec<u8>), EngineError> {
    let name = stored_as.blob();
    let header_len = u64::try_from(PACK_HEADER_LEN).expect("a header is short");
    let header = repository.store().get(&name, Some(0..header_len))?;
    let header = PackHeader::parse(&header).map_err(EngineError::damaged(&name))?;
    let range = u64::from(header.directory_offset)..u64::from(header.pack_len());
    let directory = repository.store().get(&name, Some(range))?;
    Ok((header, directory))
}
