//! Partition tables, and what is in the partitions.

use crate::images::{MIB, Workshop, content, noise, run, run_with, with_image};
use keepstone_engine::guest::{Follow, GuestError, System, Table, Volume};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Puts an image where a partition is.
fn place(disk: &Path, partition: &Path, start: u64) {
    let bytes = fs::read(partition).unwrap();
    File::options().write(true).open(disk).unwrap().write_all_at(&bytes, start).unwrap();
}

/// A small file system with one file, named as it is.
fn small(workshop: &Workshop, kind: &str) -> PathBuf {
    let image = workshop.image(kind, 4 * MIB);
    let tree = workshop.path(&format!("{kind}-tree"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join(kind), kind).unwrap();
    fs::write(tree.join("both"), kind).unwrap();
    if kind == "fat" {
        run("mkfs.vfat", &[&"-i", &"0123abcd", &image]);
        run("mcopy", &[&"-i", &image, &tree.join("fat"), &tree.join("both"), &"::"]);
    } else {
        run(
            "mke2fs",
            &[&"-q", &"-t", &kind, &"-U", &"11111111-2222-3333-4444-555555555555", &"-d", &tree, &image],
        );
    }
    image
}

fn summary(volumes: &[Volume]) -> Vec<(u32, u64, u64, Option<&str>, System)> {
    volumes
        .iter()
        .map(|volume| {
            (
                volume.number,
                volume.start / MIB,
                volume.length / MIB,
                volume.kind.as_deref(),
                volume.contents.system,
            )
        })
        .collect()
}

fn mbr(workshop: &Workshop) -> PathBuf {
    let disk = workshop.image("disk", 64 * MIB);
    let table = "label: dos\n1: start=2048, size=8192, type=c, bootable\n2: start=18432, type=f\n\
                 5: start=20480, size=8192, type=83\n6: start=40960, size=8192, type=82\n7: size=20480, type=8e\n";
    run_with("sfdisk", &[&"-q", &disk], table);
    disk
}

fn gpt(workshop: &Workshop) -> PathBuf {
    let disk = workshop.image("disk", 64 * MIB);
    run(
        "sgdisk",
        &[
            &"-n",
            &"1:2048:+4M",
            &"-t",
            &"1:ef00",
            &"-c",
            &"1:the first",
            &"-n",
            &"3:20480:+8M",
            &"-t",
            &"3:8300",
            &"-n",
            &"128:60000:+1M",
            &"-t",
            &"128:8e00",
            &disk,
        ],
    );
    disk
}

#[test]
fn primary_and_logical_partitions_of_an_mbr_are_found() {
    let workshop = Workshop::new();
    let disk = mbr(&workshop);
    place(&disk, &small(&workshop, "fat"), MIB);
    place(&disk, &small(&workshop, "ext4"), 10 * MIB);
    let volumes = with_image(&disk, |guest| guest.volumes().unwrap());
    assert_eq!(volumes.table, Table::Mbr);
    assert_eq!(
        summary(&volumes.volumes),
        [
            (1, 1, 4, Some("FAT"), System::Fat),
            (5, 10, 4, Some("Linux"), System::Ext4),
            (6, 20, 4, Some("Linux swap"), System::Empty),
            (7, 25, 10, Some("Linux LVM"), System::Empty),
        ]
    );
    assert_eq!(volumes.volumes[0].contents.uuid.as_deref(), Some("0123abcd"));
    assert_eq!(volumes.volumes[1].contents.uuid.as_deref(), Some("11111111-2222-3333-4444-555555555555"));
}

#[test]
fn partitions_of_a_gpt_are_found_with_their_names() {
    let workshop = Workshop::new();
    let disk = gpt(&workshop);
    place(&disk, &small(&workshop, "ext2"), 10 * MIB);
    let volumes = with_image(&disk, |guest| guest.volumes().unwrap());
    assert_eq!(volumes.table, Table::Gpt);
    assert_eq!(volumes.volumes[0].name.as_deref(), Some("the first"));
    assert_eq!(
        summary(&volumes.volumes),
        [
            (1, 1, 4, Some("EFI system"), System::Empty),
            (3, 10, 8, Some("Linux"), System::Ext2),
            (128, 29, 1, Some("Linux LVM"), System::Empty),
        ]
    );
}

#[test]
fn the_second_copy_of_a_gpt_stands_in_for_the_first() {
    let workshop = Workshop::new();
    let disk = gpt(&workshop);
    let whole = with_image(&disk, |guest| guest.volumes().unwrap());
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&[7], 1024 + 40).unwrap();
    let copy = with_image(&disk, |guest| guest.volumes().unwrap());
    assert_eq!((copy.table, copy.volumes), (Table::GptCopy, whole.volumes));
    file.write_all_at(&[7], 64 * MIB - 500).unwrap();
    let error = with_image(&disk, |guest| guest.volumes().unwrap_err());
    assert!(matches!(error, GuestError::TableDamaged), "{error:?}");
}

#[test]
fn a_disk_with_sectors_of_4096_bytes_is_understood() {
    let workshop = Workshop::new();
    let disk = gpt(&workshop);
    // The same table in sectors of eight times the length: moved there, and so are all numbers of sectors.
    let bytes = fs::read(&disk).unwrap();
    let mut large = vec![0; bytes.len()];
    let crc = crc32(&bytes[1024..1024 + 128 * 128]);
    let mut table = bytes[1024..1024 + 128 * 128].to_vec();
    for entry in table.chunks_mut(128) {
        for at in [32, 40] {
            let sector = u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
            let sector = if at == 32 { sector / 8 } else { (sector + 1) / 8 };
            let sector = if at == 40 && sector > 0 { sector - 1 } else { sector };
            entry[at..at + 8].copy_from_slice(&sector.to_le_bytes());
        }
    }
    assert_eq!(crc, u32::from_le_bytes(bytes[512 + 88..512 + 92].try_into().unwrap()));
    let mut header = bytes[512..1024].to_vec();
    header[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
    header[16..20].fill(0);
    let checksum = crc32(&header[..92]);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    large[..512].copy_from_slice(&bytes[..512]);
    large[4096..4096 + 512].copy_from_slice(&header);
    large[8192..8192 + table.len()].copy_from_slice(&table);
    fs::write(&disk, large).unwrap();
    let volumes = with_image(&disk, |guest| guest.volumes().unwrap());
    assert_eq!(volumes.table, Table::Gpt);
    assert_eq!((volumes.volumes[1].start, volumes.volumes[1].length), (10 * MIB, 8 * MIB));
}

fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    }) ^ u32::MAX
}

#[test]
fn a_chain_of_logical_partitions_that_leads_back_ends() {
    let workshop = Workshop::new();
    let disk = mbr(&workshop);
    let file = File::options().read(true).write(true).open(&disk).unwrap();
    // The last record of the chain leads to the first.
    let mut sector = vec![0; 512];
    file.read_exact_at(&mut sector, 18_432 * 512).unwrap();
    let next = u32::from_le_bytes(sector[446 + 24..446 + 28].try_into().unwrap());
    file.write_all_at(
        &[0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        (18_432 + u64::from(next)) * 512 + 462,
    )
    .unwrap();
    let volumes = with_image(&disk, |guest| guest.volumes().unwrap());
    assert_eq!(volumes.volumes.len(), 1 + 128);
}

#[test]
fn a_path_is_found_in_the_only_volume_that_has_it() {
    let workshop = Workshop::new();
    let disk = mbr(&workshop);
    place(&disk, &small(&workshop, "fat"), MIB);
    place(&disk, &small(&workshop, "ext4"), 10 * MIB);
    let read = |number, path: &[u8]| {
        with_image(&disk, |guest| {
            let (tree, entry) = guest.find_path(number, path, Follow::Last)?;
            Ok::<_, GuestError>(content(&tree, &entry).unwrap())
        })
    };
    assert_eq!(
        (read(None, b"/fat").unwrap(), read(None, b"/ext4").unwrap()),
        (b"fat".to_vec(), b"ext4".to_vec())
    );
    assert_eq!(
        (read(Some(1), b"/both").unwrap(), read(Some(5), b"both").unwrap()),
        (b"fat".to_vec(), b"ext4".to_vec())
    );
    assert!(
        matches!(read(None, b"/both"), Err(GuestError::SeveralVolumes { volumes, .. }) if volumes == [1, 5])
    );
    assert!(matches!(read(None, b"/none"), Err(GuestError::NotFound { .. })));
    assert!(matches!(read(Some(6), b"/both"), Err(GuestError::NotRead { volume: 6, system: System::Empty })));
    assert!(matches!(read(Some(2), b"/both"), Err(GuestError::NoSuchVolume { wanted: 2, .. })));
}

/// Bytes, and where they are.
type Marks<'b> = &'b [(u64, &'b [u8])];

/// Whatever begins so is said to be that.
#[test]
fn what_is_not_read_is_named() {
    let uuid = noise(1, 16);
    let cases: [(Marks<'_>, System); 13] = [
        (&[(0, b"LUKS\xba\xbe\0\x02")], System::Luks),
        (&[(512, b"LABELONE"), (536, b"LVM2 001")], System::Lvm),
        (&[(0, &[0xFC, 0x4E, 0x2B, 0xA9])], System::MdRaid),
        (&[(4096, &[0xFC, 0x4E, 0x2B, 0xA9])], System::MdRaid),
        (&[(4 * MIB - 64 * 1024, &[0xFC, 0x4E, 0x2B, 0xA9])], System::MdRaid),
        (&[(0, b"\xeb\x58\x90-FVE-FS-")], System::BitLocker),
        (&[(3, b"ReFS\0\0\0\0")], System::ReFs),
        (&[(0, b"\xeb\x76\x90EXFAT   ")], System::ExFat),
        (&[(65_600, b"_BHRfS_M"), (65_568, &uuid)], System::Btrfs),
        (&[(4086, b"SWAPSPACE2")], System::Swap),
        (&[(32_769, b"CD001")], System::Iso9660),
        (&[(0, b"hsqs")], System::Squashfs),
        (&[(1 << 20, &[0x0D, 0xD0, 0x01, 0xC0])], System::Vmfs),
    ];
    for (bytes, system) in cases {
        let workshop = Workshop::new();
        let disk = workshop.image("disk", 4 * MIB);
        let file = File::options().write(true).open(&disk).unwrap();
        for (place, bytes) in bytes {
            file.write_all_at(bytes, *place).unwrap();
        }
        let (volumes, error) =
            with_image(&disk, |guest| (guest.volumes().unwrap(), guest.only(None).err().unwrap()));
        assert_eq!(volumes.volumes[0].contents.system, system);
        assert!(matches!(error, GuestError::NothingRead { found } if found == [(0, system)]));
    }
}

#[test]
fn a_disk_with_nothing_on_it_has_no_volumes() {
    let workshop = Workshop::new();
    for (len, content) in [(MIB, Vec::new()), (0, Vec::new()), (100, Vec::new()), (MIB, noise(3, 1 << 20))] {
        let disk = workshop.image("disk", len);
        File::options().write(true).open(&disk).unwrap().write_all_at(&content, 0).unwrap();
        let error = with_image(&disk, |guest| guest.volumes().unwrap_err());
        assert!(matches!(error, GuestError::NoVolumes), "{error:?}");
    }
}
