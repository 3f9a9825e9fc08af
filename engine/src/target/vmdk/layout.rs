//! The parts of a streamOptimized VMDK as bytes (VMware's "Virtual Disk Format 5.0", "Stream-Optimized Compressed
//! Sparse Extents").
//!
//! ```text
//! header, descriptor | grain, grain, ... grain table | grain, ... | grain directory | footer | end
//! ```
//! Each part but the first two begins with a marker, and all of them at a sector. Numbers are little-endian.

use crate::target::identity::ImageIdentity;

pub(super) const SECTOR: u64 = 512;
/// Bytes of the disk that are compressed as one.
pub(super) const GRAIN: u64 = 64 << 10;
/// Entries of a grain table.
pub(super) const TABLE_ENTRIES: u64 = 512;
/// Bytes before the first grain, as in VMware's own files.
pub(super) const OVERHEAD: u64 = 128 * SECTOR;
/// What a grain begins with: where it goes, and the length of what follows.
pub(super) const GRAIN_MARKER_LEN: usize = 12;
/// Sectors are counted with 32 bits in grain tables, so that no file is longer.
pub(super) const FILE_LEN_MAX: u64 = SECTOR << 32;

const DESCRIPTOR_SECTORS: u64 = 20;
const SECTOR_LEN: usize = 512;

/// The kinds of markers, but that of grains, which have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    EndOfStream = 0,
    GrainTable = 1,
    GrainDirectory = 2,
    Footer = 3,
}

/// A sector that says what the next ones are.
pub(super) fn marker(marker: Marker, sectors: u64) -> [u8; SECTOR_LEN] {
    let mut bytes = [0; SECTOR_LEN];
    bytes[..8].copy_from_slice(&sectors.to_le_bytes());
    bytes[12..16].copy_from_slice(&(marker as u32).to_le_bytes());
    bytes
}

/// The beginning of a file for an image of `image_bytes`: header, descriptor and what is empty behind them.
pub(super) fn beginning(image_bytes: u64, identity: &ImageIdentity) -> Vec<u8> {
    // That the directory is at the end: the footer tells where.
    let mut bytes = header(image_bytes, u64::MAX).to_vec();
    bytes.extend(descriptor(image_bytes, identity).into_bytes());
    let len = usize::try_from(OVERHEAD).expect("64 KiB");
    assert!(bytes.len() <= SECTOR_LEN * 21, "a descriptor is shorter than its room");
    bytes.resize(len, 0);
    bytes
}

/// The header, and the footer, which differs in where the grain directory is.
pub(super) fn header(image_bytes: u64, directory_sector: u64) -> [u8; SECTOR_LEN] {
    // Line ends are checked for; grains are compressed; there are markers.
    const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
    const VERSION: u32 = 3;
    const DEFLATE: u16 = 1;
    let mut bytes = Vec::with_capacity(SECTOR_LEN);
    bytes.extend(b"KDMV");
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(FLAGS.to_le_bytes());
    bytes.extend((image_bytes / SECTOR).to_le_bytes());
    bytes.extend((GRAIN / SECTOR).to_le_bytes());
    // Where the descriptor is, and its sectors.
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(DESCRIPTOR_SECTORS.to_le_bytes());
    bytes.extend(u32::try_from(TABLE_ENTRIES).expect("512").to_le_bytes());
    // No second grain directory.
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(directory_sector.to_le_bytes());
    bytes.extend((OVERHEAD / SECTOR).to_le_bytes());
    // It was closed properly; what a transfer as text would change.
    bytes.extend(b"\0\n \r\n");
    bytes.extend(DEFLATE.to_le_bytes());
    let mut sector = [0; SECTOR_LEN];
    sector[..bytes.len()].copy_from_slice(&bytes);
    sector
}

/// The descriptor: text that says what the file is. It names no UUID, which importers then choose: two disks that are
/// imported from one file are not to have the same.
fn descriptor(image_bytes: u64, identity: &ImageIdentity) -> String {
    const HEADS: u64 = 255;
    const SECTORS: u64 = 63;
    let sectors = image_bytes / SECTOR;
    let cylinders = (sectors / (HEADS * SECTORS)).clamp(1, 65535);
    let hex: Vec<String> = identity.id.iter().map(|byte| format!("{byte:02x}")).collect();
    // The number that means "none" is no content id.
    let content_id = u32::from_le_bytes([identity.id[0], identity.id[1], identity.id[2], identity.id[3]]);
    let content_id = content_id.min(u32::MAX - 2);
    format!(
        "# Disk DescriptorFile
version=1
CID={content_id:08x}
parentCID=ffffffff
createType=\"streamOptimized\"

# Extent description
RW {sectors} SPARSE \"disk.vmdk\"

# The Disk Data Base
#DDB

ddb.adapterType = \"lsilogic\"
ddb.geometry.cylinders = \"{cylinders}\"
ddb.geometry.heads = \"{HEADS}\"
ddb.geometry.sectors = \"{SECTORS}\"
ddb.longContentID = \"{}{content_id:08x}\"
ddb.virtualHWVersion = \"10\"
",
        hex[4..].concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: ImageIdentity =
        ImageIdentity { id: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], time: 0 };

    #[test]
    fn the_header_is_this() {
        let bytes = header(1 << 30, 0x0102_0304);
        let hex: Vec<String> = bytes[..79].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "4b444d56",
            "03000000",
            "01000300",
            "0000200000000000",
            "8000000000000000",
            "0100000000000000",
            "1400000000000000",
            "00020000",
            "0000000000000000",
            "0403020100000000",
            "8000000000000000",
            "000a200d0a",
            "0100",
        ];
        assert_eq!(hex.concat(), expected.concat());
        assert_eq!(bytes[79..], [0; 433]);
    }

    #[test]
    fn the_descriptor_is_this() {
        let bytes = beginning(8 << 30, &IDENTITY);
        let text = String::from_utf8(bytes[512..].to_vec()).unwrap();
        assert_eq!(
            text.trim_end_matches('\0'),
            "# Disk DescriptorFile
version=1
CID=04030201
parentCID=ffffffff
createType=\"streamOptimized\"

# Extent description
RW 16777216 SPARSE \"disk.vmdk\"

# The Disk Data Base
#DDB

ddb.adapterType = \"lsilogic\"
ddb.geometry.cylinders = \"1044\"
ddb.geometry.heads = \"255\"
ddb.geometry.sectors = \"63\"
ddb.longContentID = \"05060708090a0b0c0d0e0f1004030201\"
ddb.virtualHWVersion = \"10\"
"
        );
        assert_eq!(bytes.len(), 65536);
    }

    #[test]
    fn the_descriptor_of_the_largest_image_fits() {
        let identity = ImageIdentity { id: [0xff; 16], time: u64::MAX };
        assert_eq!(beginning(u64::MAX, &identity).len(), 65536);
    }

    #[test]
    fn markers_tell_their_kind_and_the_sectors_behind() {
        let bytes = marker(Marker::Footer, 0x0102);
        assert_eq!((&bytes[..4], &bytes[12..16]), (&[2, 1, 0, 0][..], &[3, 0, 0, 0][..]));
    }
}
