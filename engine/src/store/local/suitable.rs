//! Which file systems can hold a container.

use super::root::Root;
use super::{failed, unsuitable};
use crate::store::StoreError;
use rustix::fs::StatVfsMountFlags;

/// Why a file system without hard links is refused.
pub(super) const NO_HARD_LINKS: &str = "the file system has no hard links";

const NETWORK: &str = "it is on a network or shared file system; use a local disk";

/// File systems whose creates, listings or locks are not those of one machine, and some without hard links, by
/// the number that `statfs` gives (Linux `include/uapi/linux/magic.h` and the drivers' own sources).
const REFUSED: [(u64, &str); 23] = [
    (0x6969, NETWORK),            // NFS
    (0x517B, NETWORK),            // SMB
    (0xFF53_4D42, NETWORK),       // CIFS
    (0xFE53_4D42, NETWORK),       // SMB 2 and 3
    (0x6573_5546, NETWORK),       // FUSE and virtiofs
    (0x0102_1997, NETWORK),       // 9p
    (0x5346_414F, NETWORK),       // AFS
    (0x6B41_4653, NETWORK),       // AFS, in the kernel
    (0x00C3_6400, NETWORK),       // Ceph
    (0x7375_7245, NETWORK),       // Coda
    (0x564C, NETWORK),            // NCP
    (0x7461_636F, NETWORK),       // OCFS2
    (0x0116_1970, NETWORK),       // GFS2
    (0x0BD0_0BD0, NETWORK),       // Lustre
    (0x4750_4653, NETWORK),       // GPFS
    (0x1983_0326, NETWORK),       // BeeGFS
    (0x2003_0528, NETWORK),       // OrangeFS
    (0xAAD7_AAEA, NETWORK),       // PanFS
    (0x6163_6673, NETWORK),       // ACFS
    (0x786F_4256, NETWORK),       // VirtualBox shared folders
    (0xBACB_ACBC, NETWORK),       // VMware shared folders
    (0x4D44, NO_HARD_LINKS),      // FAT
    (0x2011_BAB0, NO_HARD_LINKS), // exFAT
];

/// Refuses what cannot be trusted with a container. What is mounted read-only is only read and always passes.
pub(super) fn check(root: &Root) -> Result<(), StoreError> {
    let open_failed = |source: std::io::Error| failed("open", root.path(), source);
    let dir = root.dir("").map_err(open_failed)?;
    let mount = rustix::fs::fstatvfs(&dir).map_err(|error| open_failed(error.into()))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let stat = rustix::fs::fstatfs(&dir).map_err(|error| open_failed(error.into()))?;
    match refusal(stat.f_type.cast_unsigned()) {
        Some(reason) => Err(unsuitable(root.path(), reason)),
        None => Ok(()),
    }
}

/// Why a file system of this number is refused. Only the lower 32 bits count: the others repeat the sign.
fn refusal(number: u64) -> Option<&'static str> {
    let number = number & 0xFFFF_FFFF;
    REFUSED.iter().find(|(refused, _)| *refused == number).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_and_local_ones_are_not() {
        let ext4_xfs_btrfs_tmpfs_zfs_overlay =
            [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x2FC1_2FC1, 0x794C_7630];
        assert_eq!(ext4_xfs_btrfs_tmpfs_zfs_overlay.map(refusal), [None; 6]);
        assert_eq!(refusal(0x6969), Some(NETWORK));
        assert_eq!(refusal(0xFFFF_FFFF_FF53_4D42), Some(NETWORK));
        assert_eq!(refusal(0x4D44), Some(NO_HARD_LINKS));
    }
}
