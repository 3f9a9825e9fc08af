//! What a pack tells of itself, without its frames: two short reads, or one where its length is known.

use crate::error::EngineError;
use crate::repository::Repository;
use crate::threads;
use repo_format::limits::PACK_HEADER_LEN;
use repo_format::{
    FormatError, FrameEntry, PackHeader, PackKind, PackName, PackRef, SealedKind, find_directory, open,
    open_directory, parse_directory,
};
use std::borrow::Borrow;

/// The least that is read of a pack's end.
const END_LEN_MIN: u32 = 16 << 10;
/// A data pack's directory is a few thousandths of it: that of chunks that are stored in 10 KiB on average.
const DATA_PACK_SHARE: u32 = 256;
/// Pages and nodes are short: a directory of those that are stored in some 300 bytes.
const MAP_PACK_SHARE: u32 = 8;
/// How often what is damaged is read again: it may have been changed on its way.
const READS_AGAIN: usize = 2;
/// Directories that are read at the same time.
const READ_THREADS: usize = 8;

/// The frames of a pack with their offsets, or the damage that keeps them from being known.
pub(crate) type Frames = Result<Vec<(u32, FrameEntry)>, EngineError>;

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

/// As [`read`], mostly with one request: of the pack's end, as long as a directory usually is. Its length is authentic.
///
/// What is damaged is read again, header first.
pub(crate) fn read_from_end(
    repository: &Repository<'_>,
    pack: &PackRef,
) -> Result<Vec<(u32, FrameEntry)>, EngineError> {
    let name = pack.name.blob();
    let share = if pack.name.kind == PackKind::Data { DATA_PACK_SHARE } else { MAP_PACK_SHARE };
    let start = pack.len.saturating_sub((pack.len / share).max(END_LEN_MIN));
    let end = repository.store().get(&name, Some(u64::from(start)..u64::from(pack.len)))?;
    if end.len() == (pack.len - start) as usize
        && let Some(at) = find_directory(&end)
        && let Ok(plaintext) = open(repository.keys(), SealedKind::PackDirectory, &name, &end[at..])
        && let Ok(offset) = u32::try_from(start as usize + at)
        && let Ok(frames) = parse_directory(&plaintext, pack.name.kind, offset)
    {
        return Ok(frames);
    }
    let mut result = read(repository, &pack.name, u64::from(pack.len));
    for _ in 0..READS_AGAIN {
        if !matches!(&result, Err(EngineError::Damaged { .. })) {
            break;
        }
        result = read(repository, &pack.name, u64::from(pack.len));
    }
    result
}

/// Reads the directories of packs, several at a time; only a damaged one is no failure.
pub(crate) fn read_all<P: Borrow<PackRef> + Sync>(
    repository: &Repository<'_>,
    packs: &[P],
) -> Result<Vec<Frames>, EngineError> {
    let frames = threads::each(packs, READ_THREADS, |pack| {
        let pack = pack.borrow();
        read(repository, &pack.name, u64::from(pack.len))
    });
    let fatal = |frames: Frames| match frames {
        Err(error) if !error.is_damage() => Err(error),
        other => Ok(other),
    };
    frames.into_iter().map(fatal).collect()
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
