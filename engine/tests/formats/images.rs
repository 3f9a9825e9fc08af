//! Whole images of disks of all sizes.

use crate::{Form, Sparse, check, qemu, qemu_json, target_error};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A disk with data at its beginning, its end and around where formats cut.
fn disk(size: u64) -> Sparse {
    let mut data: Vec<(u64, Vec<u8>)> = Vec::new();
    for middle in [0, 511, 64 * KIB, 3 * 64 * KIB, MIB, 32 * MIB, 512 * MIB, 2 * GIB, size] {
        let (start, end) = (middle.saturating_sub(700).min(size), (middle + 900).min(size));
        let start = start.max(data.last().map_or(0, |(offset, data)| offset + data.len() as u64));
        if start < end {
            let number = u8::try_from(data.len()).unwrap();
            data.push((start, (0..end - start).map(|byte| number * 16 + (byte % 15) as u8 + 1).collect()));
        }
    }
    Sparse { size, data }
}

fn written(dir: &TempDir, form: Form, disk: &Sparse) -> PathBuf {
    let path = dir.path().join(format!("{}.{}", disk.size, form.name()));
    let target = form.create(&path, disk.size).unwrap();
    disk.write_to(target.as_ref()).unwrap();
    target.finish().unwrap();
    path
}

fn compare(form: Form, image: &Path, raw: &Path) {
    let [image, raw] = [image, raw].map(|path| path.to_str().unwrap());
    qemu("qemu-img", &["compare", "-f", form.name(), "-F", "raw", image, raw]);
}

#[test]
fn images_of_all_sizes_are_as_the_disk() {
    let dir = TempDir::new().unwrap();
    let sizes = [
        1,
        511,
        512,
        513,
        64 * KIB - 1,
        64 * KIB,
        64 * KIB + 1,
        MIB - 1,
        MIB,
        MIB + 512,
        32 * MIB,
        32 * MIB + 1,
        512 * MIB,
        512 * MIB + 513,
        2 * GIB + 1,
    ];
    for size in sizes {
        let disk = disk(size);
        let raw = written(&dir, Form::Raw, &disk);
        for form in [Form::Vhd, Form::Vmdk, Form::Qcow2] {
            let image = written(&dir, form, &disk);
            check(form, &image, size);
            compare(form, &image, &raw);
            fs::remove_file(image).unwrap();
        }
    }
}

#[test]
fn an_image_of_a_disk_without_data_is_small() {
    let dir = TempDir::new().unwrap();
    let disk = Sparse { size: 10 * GIB, data: Vec::new() };
    for (form, len) in [
        // The beginning, a directory of 320 tables with its marker, footer and end.
        (Form::Vmdk, 64 * KIB + (1 + 3 + 3) * 512),
        // Header, level 1 table, refcount table and a refcount block.
        (Form::Qcow2, 4 * 64 * KIB),
    ] {
        let image = written(&dir, form, &disk);
        check(form, &image, disk.size);
        assert_eq!(fs::metadata(image).unwrap().len(), len);
    }
}

#[test]
fn a_vhd_is_the_disk_in_whole_mib_and_a_footer() {
    let dir = TempDir::new().unwrap();
    for size in [1, MIB, 5 * MIB + 17, 2040 * GIB] {
        let image = written(&dir, Form::Vhd, &disk(size));
        check(Form::Vhd, &image, size);
        let file = fs::File::open(&image).unwrap();
        let len = file.metadata().unwrap().len();
        assert_eq!(len, size.next_multiple_of(MIB) + 512);
        let mut footer = [0; 512];
        file.read_exact_at(&mut footer, len - 512).unwrap();
        assert!(footer.starts_with(b"conectix"));
        let mut byte = [0];
        file.read_exact_at(&mut byte, size - 1).unwrap();
        assert_ne!(byte, [0]);
    }
}

/// Reads some bytes of an image through QEMU, and checks that all around them is zero.
fn has(image: &str, form: Form, offset: u64, data: &[u8]) {
    let (start, end) = (offset & !511, (offset + data.len() as u64).next_multiple_of(512));
    let dump =
        qemu("qemu-io", &["-f", form.name(), "-r", "-c", &format!("read -v {start} {}", end - start), image]);
    let bytes: Vec<u8> = dump
        .lines()
        .filter_map(|line| line.split_once(":  "))
        .flat_map(|(_, bytes)| bytes.split("  ").next().unwrap().split(' '))
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let mut expected = vec![0; usize::try_from(end - start).unwrap()];
    expected[usize::try_from(offset - start).unwrap()..][..data.len()].copy_from_slice(data);
    assert!(bytes == expected, "{form:?} at {offset}: {dump}");
}

#[test]
fn images_of_62_tib_hold_their_data() {
    let dir = TempDir::new().unwrap();
    let places = [0, 100 * GIB + 12345, 31 * TIB - 100, 62 * TIB - 1000];
    let disk = Sparse {
        size: 62 * TIB,
        data: places.iter().map(|place| (*place, (1..=250).cycle().take(1000).collect())).collect(),
    };
    for form in [Form::Vmdk, Form::Qcow2] {
        let image = written(&dir, form, &disk);
        let path = image.to_str().unwrap();
        check(form, &image, disk.size);
        assert!(fs::metadata(&image).unwrap().len() < 10 * MIB);
        for (offset, data) in &disk.data {
            has(path, form, *offset, data);
        }
        if form == Form::Qcow2 {
            let map = qemu_json(&["map", "--output=json", "-f", "qcow2", path]);
            let mut allocated: Vec<(u64, u64)> = Vec::new();
            for area in map.as_array().unwrap().iter().filter(|area| area["offset"].is_u64()) {
                let [start, length] = ["start", "length"].map(|member| area[member].as_u64().unwrap());
                match allocated.last_mut() {
                    Some((last, before)) if *last + *before == start => *before += length,
                    _ => allocated.push((start, length)),
                }
            }
            let cluster = |place: u64, count: u64| (place & !0xffff, count * 64 * KIB);
            let expected =
                [cluster(places[0], 1), cluster(places[1], 1), cluster(places[2], 2), cluster(places[3], 1)];
            assert_eq!(allocated, expected);
        }
    }
}

#[test]
fn what_is_not_complete_is_no_image() {
    let dir = TempDir::new().unwrap();
    for form in [Form::Vmdk, Form::Qcow2] {
        let path = dir.path().join("disk");
        let partial = dir.path().join("disk.keepstone-partial");
        let target = form.create(&path, 3 * MIB).unwrap();
        target.write_at(0, &vec![1; 2 << 20]).unwrap();
        target.flush().unwrap();
        let killed = fs::read(&partial).unwrap();
        let error = target.finish().unwrap_err();
        assert_eq!(error.to_string(), "only 2097152 of 3145728 bytes were written", "{form:?}");
        drop(target);
        assert!(!path.exists() && !partial.exists(), "{form:?}");

        // What a killed restore leaves is none, and is taken over by the next one.
        fs::write(&partial, killed).unwrap();
        let info = qemu_json(&["info", "--output=json", partial.to_str().unwrap()]);
        assert_eq!(info["format"], "raw", "{form:?}");
        let target = form.create(&path, 3 * MIB).unwrap();
        disk(3 * MIB).write_to(target.as_ref()).unwrap();
        target.finish().unwrap();
        check(form, &path, 3 * MIB);
        compare(form, &path, &written(&dir, Form::Raw, &disk(3 * MIB)));
        assert!(!partial.exists());
        fs::remove_file(path).unwrap();
        fs::remove_file(dir.path().join(format!("{}.raw", 3 * MIB))).unwrap();
    }
}

#[test]
fn ranges_beyond_the_disk_are_refused() {
    let dir = TempDir::new().unwrap();
    for form in Form::ALL {
        let target = form.create(&dir.path().join(form.name()), 1000).unwrap();
        let beyond = "cannot be written: they are beyond the end of the disk";
        assert_eq!(
            target.write_at(999, &[1, 1]).unwrap_err().to_string(),
            format!("bytes 999 to 1001 {beyond}")
        );
        assert_eq!(target.zero_at(0, 1001).unwrap_err().to_string(), format!("bytes 0 to 1001 {beyond}"));
        assert!(target.zero_at(u64::MAX, 2).is_err(), "{form:?}");
    }
}

#[test]
fn disks_that_a_format_cannot_hold_are_refused() {
    let dir = TempDir::new().unwrap();
    for (form, bytes_max) in [(Form::Vhd, 2040 * GIB), (Form::Vmdk, 62 * TIB), (Form::Qcow2, 2048 * TIB)] {
        let Err(error) = form.create(&dir.path().join("disk"), bytes_max + 1) else { panic!("{form:?}") };
        let keepstone_engine::target::TargetError::TooLarge { bytes_max: told, disk_bytes, .. } =
            target_error(&error)
        else {
            panic!("{error}")
        };
        assert_eq!((*told, *disk_bytes), (bytes_max, bytes_max + 1), "{form:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{form:?}");
    }
}
