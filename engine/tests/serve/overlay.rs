//! Changes over a disk: what is read is what was written, also after a crash at any write.

use crate::lab::{SIZE, newest, stored};
use crate::world::{noise, open};
use keepstone_engine::overlay::{Medium, Overlay, OverlayError, OverlayOf};
use keepstone_engine::view::{AreaKind, DiskView, ViewSettings};
use keepstone_engine::{Extent, Repository};
use proptest::prelude::*;
use repo_format::SessionId;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// A file that remembers what was not synchronised, and fails when it is told to.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Power>>);

#[derive(Default)]
struct Power {
    /// Sectors that would be there after a crash.
    durable: BTreeMap<u64, Vec<u8>>,
    /// Sectors as they are now.
    current: BTreeMap<u64, Vec<u8>>,
    /// Sectors that would perhaps be there, in the order in which they were written, with the number of their write.
    pending: Vec<(u32, u64, Vec<u8>)>,
    writes: u32,
    len: u64,
    /// Writes and synchronisations that still work.
    left: Option<u32>,
}

impl Power {
    fn act(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => return Err(io::ErrorKind::BrokenPipe.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn sector(&self, number: u64) -> Vec<u8> {
        self.current.get(&number).cloned().unwrap_or_else(|| vec![0; SECTOR])
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        assert!(offset.is_multiple_of(SECTOR as u64), "a write does not begin at a sector");
        for (number, part) in (offset / SECTOR as u64..).zip(data.chunks(SECTOR)) {
            let mut sector = self.sector(number);
            sector[..part.len()].copy_from_slice(part);
            self.current.insert(number, sector.clone());
            self.pending.push((self.writes, number, sector));
        }
        self.len = self.len.max(offset + data.len() as u64);
        self.writes += 1;
    }
}

impl Disk {
    /// What is there after a crash, where `is_kept` says of sectors that were not synchronised, by the number of their
    /// write and their own, which are.
    fn after_crash(&self, is_kept: impl Fn(u32, u64) -> bool) -> Self {
        let power = self.0.lock().unwrap();
        let mut durable = power.durable.clone();
        for (write, number, bytes) in
            power.pending.iter().filter(|(write, number, _)| is_kept(*write, *number))
        {
            assert!(*write < power.writes);
            durable.insert(*number, bytes.clone());
        }
        let current = durable.clone();
        let after = Power { durable, current, len: power.len, ..Power::default() };
        Self(Arc::new(Mutex::new(after)))
    }
}

impl Medium for Disk {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let power = self.0.lock().unwrap();
        if offset + buffer.len() as u64 > power.len && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        for byte in buffer.chunks_mut(SECTOR) {
            let sector = power.sector(at / SECTOR as u64);
            let start = usize::try_from(at % SECTOR as u64).unwrap();
            assert_eq!(start, 0, "reads begin at sectors");
            byte.copy_from_slice(&sector[..byte.len()]);
            at += byte.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut power = self.0.lock().unwrap();
        power.act()?;
        power.write(offset, data);
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut power = self.0.lock().unwrap();
        power.act()?;
        let end = power.len.min(offset + length);
        if offset < end {
            power.write(offset, &vec![0; usize::try_from(end - offset).unwrap()]);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut power = self.0.lock().unwrap();
        power.act()?;
        for (_, number, bytes) in std::mem::take(&mut power.pending) {
            power.durable.insert(number, bytes);
        }
        Ok(())
    }
}

fn of<'a>(repository: &Repository<'_>) -> OverlayOf<'a> {
    OverlayOf {
        repository: repository.config().repository,
        snapshot: newest(repository).session(),
        disk: "disk0",
        size: SIZE as u64,
    }
}

fn viewed<'r, 's>(repository: &'r Repository<'s>) -> DiskView<'r, 's> {
    DiskView::open(repository, newest(repository).disk(None).unwrap(), ViewSettings::default())
}

fn begun(of: &OverlayOf<'_>) -> Disk {
    let disk = Disk::default();
    disk.write_at(0, &Overlay::new_header(of)).unwrap();
    disk.sync().unwrap();
    disk
}

fn over<'v, 'r, 's>(
    view: &'v DiskView<'r, 's>,
    of: &OverlayOf<'_>,
    disk: &Disk,
) -> Result<Overlay<'v, 'r, 's>, OverlayError> {
    Overlay::over(view, of, Box::new(disk.clone()), Path::new("overlay"))
}

fn all(overlay: &Overlay<'_, '_, '_>) -> Vec<u8> {
    let mut bytes = vec![0xee; SIZE];
    overlay.read_at(0, &mut bytes).unwrap();
    bytes
}

#[derive(Clone, Debug)]
enum Action {
    Write { start: usize, len: usize, seed: u64 },
    Zero { start: usize, len: usize },
    Discard { start: usize, len: usize },
    Flush,
    Reopen,
}

fn range() -> impl Strategy<Value = (usize, usize)> {
    let any = (0..SIZE, 1..20_000_usize);
    let aligned = (0..SIZE / BLOCK, 1..6_usize).prop_map(|(start, len)| (start * BLOCK, len * BLOCK));
    let end = (1..9000_usize).prop_map(|len| (SIZE - len, len));
    prop_oneof![any, aligned, end].prop_map(|(start, len)| (start, len.min(SIZE - start)))
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (range(), any::<u64>()).prop_map(|((start, len), seed)| Action::Write { start, len, seed }),
        2 => range().prop_map(|(start, len)| Action::Zero { start, len }),
        1 => range().prop_map(|(start, len)| Action::Discard { start, len }),
        2 => Just(Action::Flush),
        1 => Just(Action::Reopen),
    ]
}

/// Does an action on the overlay and, if that succeeds, on the bytes beside it.
fn act(action: &Action, overlay: &Overlay<'_, '_, '_>, bytes: &mut [u8]) -> io::Result<()> {
    match action {
        Action::Write { start, len, seed } => {
            let data = noise(*seed, *len);
            overlay.write_at(*start as u64, &data)?;
            bytes[*start..start + len].copy_from_slice(&data);
        }
        Action::Zero { start, len } => {
            overlay.zero_at(*start as u64, *len as u64)?;
            bytes[*start..start + len].fill(0);
        }
        Action::Discard { start, len } => {
            overlay.discard(*start as u64, *len as u64)?;
            let end = if start + len == SIZE { SIZE } else { (start + len) / BLOCK * BLOCK };
            let first = start.next_multiple_of(BLOCK);
            if first < end {
                bytes[first..end].fill(0);
            }
        }
        Action::Flush | Action::Reopen => overlay.flush()?,
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_was_written(actions in proptest::collection::vec(action(), 1..30)) {
        let (store, mut bytes) = stored(2);
        let snapshot = bytes.clone();
        let repository = open(&store);
        let view = viewed(&repository);
        let of = of(&repository);
        let disk = begun(&of);
        let mut overlay = over(&view, &of, &disk).unwrap();
        for action in &actions {
            act(action, &overlay, &mut bytes).unwrap();
            if matches!(action, Action::Reopen) {
                overlay = over(&view, &of, &disk).unwrap();
            }
        }
        prop_assert!(all(&overlay) == bytes);
        // What is told to be a hole is one, and what is told to be as before is.
        let mut at = 0;
        while at < SIZE as u64 {
            for area in overlay.areas(at, SIZE as u64, 5).unwrap() {
                prop_assert_eq!(area.extent.start, at);
                at = area.extent.end();
                let part = usize::try_from(area.extent.start).unwrap()..usize::try_from(at).unwrap();
                prop_assert!(area.kind == AreaKind::Data || bytes[part].iter().all(|byte| *byte == 0));
            }
        }
        let changed = overlay.changed();
        let is_changed = |at: usize| changed.iter().any(|area| (area.start..area.end()).contains(&(at as u64)));
        let differs = (0..SIZE).find(|at| bytes[*at] != snapshot[*at] && !is_changed(*at));
        prop_assert_eq!(differs, None);
        prop_assert!(changed.iter().all(|area| area.start % BLOCK as u64 == 0));
    }
}

/// What of the writes since the last synchronisation a crash leaves.
#[derive(Clone, Copy, Debug)]
enum Left {
    Nothing,
    Everything,
    /// What tells of data, without the data.
    Records,
    Data,
    SomeWrites,
    SomeSectors,
}

impl Left {
    const ALL: [Self; 6] =
        [Self::Nothing, Self::Everything, Self::Records, Self::Data, Self::SomeWrites, Self::SomeSectors];

    fn has(self, write: u32, sector: u64) -> bool {
        // The file begins with 64 KiB that tell of it; then comes a part of the disk each 32 MiB and 64 KiB, which begins with
        // 64 KiB that tell of that.
        let offset = sector * SECTOR as u64;
        let is_record = offset.checked_sub(65536).is_none_or(|offset| offset % ((32 << 20) + 65536) < 65536);
        let draw = |number: u64| number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1;
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Records => is_record,
            Self::Data => !is_record,
            Self::SomeWrites => draw(write.into()),
            Self::SomeSectors => draw(sector + u64::from(write)),
        }
    }
}

/// Does actions until the power fails; what was there at the last flush, and all that was written since.
fn run(actions: &[Action], overlay: &Overlay<'_, '_, '_>, mut bytes: Vec<u8>) -> (Vec<Vec<u8>>, bool) {
    let mut states = vec![bytes.clone()];
    for action in actions {
        let done = act(action, overlay, &mut bytes);
        if done.is_err() {
            // It may have been done in part.
            match action {
                Action::Write { start, len, seed } => {
                    bytes[*start..start + len].copy_from_slice(&noise(*seed, *len));
                }
                Action::Zero { start, len } | Action::Discard { start, len } => {
                    bytes[*start..start + len].fill(0);
                }
                Action::Flush | Action::Reopen => {}
            }
            states.push(bytes);
            return (states, false);
        }
        if matches!(action, Action::Flush | Action::Reopen) {
            states.clear();
        }
        states.push(bytes.clone());
    }
    (states, true)
}

#[test]
fn what_was_flushed_is_there_after_a_crash_at_any_write_and_nothing_is_made_up() {
    let (store, bytes) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository);
    let of = of(&repository);
    let actions = [
        Action::Write { start: 100_000, len: 9000, seed: 1 },
        Action::Write { start: 120_000, len: 4096 * 3, seed: 2 },
        Action::Flush,
        Action::Write { start: 101_000, len: 100, seed: 3 },
        Action::Zero { start: 123_000, len: 5000 },
        Action::Write { start: 600_100, len: 5000, seed: 4 },
        Action::Flush,
        Action::Discard { start: 98_304, len: 8192 },
        Action::Write { start: 99_000, len: 10, seed: 5 },
        Action::Write { start: 600_100, len: 300, seed: 6 },
        Action::Flush,
        Action::Write { start: 0, len: 4096, seed: 7 },
    ];
    for crash in 0.. {
        let disk = begun(&of);
        disk.0.lock().unwrap().left = Some(crash);
        let (states, is_over) = run(&actions, &over(&view, &of, &disk).unwrap(), bytes.clone());
        for left in Left::ALL {
            let after = disk.after_crash(|write, sector| left.has(write, sector));
            let found = all(&over(&view, &of, &after).unwrap());
            for (start, sector) in (0..SIZE).step_by(SECTOR).zip(found.chunks(SECTOR)) {
                let is_known = states.iter().any(|state| &state[start..start + sector.len()] == sector);
                assert!(is_known, "{left:?} after {crash} writes: the sector at {start}");
            }
        }
        if is_over {
            assert!(crash > 15, "there are {crash} writes");
            return;
        }
    }
}

#[test]
fn writers_of_one_block_do_not_lose_each_others_sectors() {
    let (store, mut bytes) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository);
    let of = of(&repository);
    let disk = begun(&of);
    let overlay = over(&view, &of, &disk).unwrap();
    std::thread::scope(|threads| {
        for sector in 0..8_u8 {
            let overlay = &overlay;
            threads.spawn(move || {
                for block in 0..30_u64 {
                    let at = block * BLOCK as u64 + u64::from(sector) * SECTOR as u64;
                    overlay.write_at(at, &[sector + 1; SECTOR]).unwrap();
                }
            });
        }
    });
    for (at, byte) in bytes[..30 * BLOCK].iter_mut().enumerate() {
        *byte = u8::try_from(at % BLOCK / SECTOR).unwrap() + 1;
    }
    assert!(all(&overlay) == bytes);
}

#[test]
fn a_file_is_gone_on_with_and_bound_to_its_disk_and_used_by_one() {
    let (store, mut bytes) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository);
    let of = of(&repository);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("overlay");
    let overlay = Overlay::open(&view, &of, &path).unwrap();
    overlay.write_at(70_000, b"changed").unwrap();
    let busy = Overlay::open(&view, &of, &path).err().unwrap();
    assert!(matches!(busy, OverlayError::Busy { .. }), "{busy}");
    overlay.flush().unwrap();
    drop(overlay);
    bytes[70_000..70_007].copy_from_slice(b"changed");
    assert!(all(&Overlay::open(&view, &of, &path).unwrap()) == bytes);
    let others = [
        OverlayOf { snapshot: SessionId([9; 16]), ..of },
        OverlayOf { disk: "disk1", ..of },
        OverlayOf { size: of.size + 1, ..of },
    ];
    for other in others {
        let error = Overlay::open(&view, &other, &path).err().unwrap();
        assert!(matches!(error, OverlayError::OtherDisk { .. }), "{error}");
    }
    let names: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["overlay"]);
}

#[test]
fn what_is_no_overlay_or_is_damaged_is_refused_and_left_as_it_is() {
    let (store, _) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository);
    let of = of(&repository);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("overlay");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Overlay::open(&view, &of, &path).err().unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        error
    };
    assert!(matches!(refused(b""), OverlayError::NotAnOverlay { .. }));
    assert!(matches!(refused(&noise(1, 10_000)), OverlayError::NotAnOverlay { .. }));
    let mut header = Overlay::new_header(&of);
    header[100] ^= 1;
    assert!(matches!(refused(&header), OverlayError::Damaged { .. }));
    std::fs::remove_file(&path).unwrap();
    let overlay = Overlay::open(&view, &of, &path).unwrap();
    for round in 0..2 {
        overlay.write_at(round * 8192, b"x").unwrap();
        overlay.flush().unwrap();
    }
    drop(overlay);
    let mut bytes = std::fs::read(&path).unwrap();
    let record = 64 << 10;
    bytes[record + 50] ^= 1;
    bytes[record + BLOCK + 50] ^= 1;
    assert!(matches!(refused(&bytes), OverlayError::Damaged { .. }));
}

#[test]
fn a_new_overlay_replaces_nothing_and_its_maker_has_it_alone() {
    let (store, _) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository);
    let of = of(&repository);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm");
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    // What other names there are stays as it is, also through links.
    std::fs::write(dir.path().join("vm.new"), b"mine").unwrap();
    std::fs::write(dir.path().join("mine"), b"mine").unwrap();
    std::os::unix::fs::symlink("mine", dir.path().join(".keepstone-new-0")).unwrap();
    std::fs::write(dir.path().join(".keepstone-new-1"), b"left").unwrap();
    let results: Vec<_> = std::thread::scope(|threads| {
        let open = || Overlay::open(&view, &of, &path);
        let opened: Vec<_> = (0..8).map(|_| threads.spawn(open)).collect();
        opened.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (opened, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(opened.len(), 1);
    assert!(refused.iter().all(|refused| matches!(refused, Err(OverlayError::Busy { .. }))));
    assert_eq!(["vm.new", "mine", ".keepstone-new-0"].map(read), [b"mine"; 3]);
    let mut names: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, [".keepstone-new-0", ".keepstone-new-1", "mine", "vm", "vm.new"]);
    // A link in the place of the overlay is not followed either.
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    let error = Overlay::open(&view, &of, &dir.path().join("link")).err().unwrap();
    assert!(matches!(error, OverlayError::NotAnOverlay { .. }), "{error}");
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn an_overlay_that_lacks_something_flushed_is_refused() {
    let (store, mut bytes) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository);
    let of = of(&repository);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("overlay");
    let overlay = Overlay::open(&view, &of, &path).unwrap();
    let writes = [(0, 1), (40_960, 2), (90_000, 3)];
    for (start, value) in writes {
        overlay.write_at(start, &[value; 5000]).unwrap();
        overlay.flush().unwrap();
        let start = usize::try_from(start).unwrap();
        bytes[start..start + 5000].fill(value);
    }
    drop(overlay);
    let file = std::fs::read(&path).unwrap();
    let opened = |changed: &[u8]| {
        std::fs::write(&path, changed).unwrap();
        Overlay::open(&view, &of, &path).map(|overlay| all(&overlay) == bytes)
    };
    assert!(matches!(opened(&file), Ok(true)));
    let first_record = 64 << 10;
    for len in [BLOCK, 3 * BLOCK, first_record, first_record + BLOCK, file.len() - BLOCK, file.len() - 1] {
        assert!(matches!(opened(&file[..len]), Err(OverlayError::Damaged { .. })), "{len} bytes");
    }
    let changed = |change: &dyn Fn(&mut [u8])| {
        let mut changed = file.clone();
        change(&mut changed);
        opened(&changed)
    };
    // Records that read as zeros are not those of a slot that nothing uses, and the one before the last does not do.
    let no_records = changed(&|file| file[first_record..first_record + 2 * BLOCK].fill(0));
    assert!(matches!(no_records, Err(OverlayError::Damaged { .. })));
    for turn in 0..2 {
        let record = first_record + turn * BLOCK;
        let found = changed(&|file| file[record + 50] ^= 1);
        // The third flush is in the second place.
        assert!(matches!((turn, found), (0, Ok(true)) | (1, Err(OverlayError::Damaged { .. }))), "{turn}");
    }
    // What is cut off while it is in use is not zeros.
    std::fs::write(&path, &file).unwrap();
    let overlay = Overlay::open(&view, &of, &path).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(first_record as u64).unwrap();
    overlay.read_at(0, &mut [0; 512]).unwrap_err();
}

#[test]
fn zeros_over_a_hole_take_no_room() {
    let (store, _) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository);
    let of = of(&repository);
    let overlay = over(&view, &of, &begun(&of)).unwrap();
    let hole = view.areas(0, SIZE as u64, 1000).unwrap();
    let hole = hole.iter().filter(|area| area.kind == AreaKind::Hole).map(|area| area.extent);
    let hole: Extent = hole.max_by_key(|hole| hole.length).unwrap();
    assert!(hole.length > 100_000);
    overlay.zero_at(hole.start + 4096, hole.length - 8192).unwrap();
    let inside: Vec<Extent> =
        overlay.changed().iter().filter_map(|area| area.clip(hole.start + 8192, hole.end() - 8192)).collect();
    assert_eq!(inside, []);
}

#[test]
fn after_something_could_not_be_made_durable_nothing_more_is_taken() {
    let (store, _) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository);
    let of = of(&repository);
    let disk = begun(&of);
    let overlay = over(&view, &of, &disk).unwrap();
    overlay.write_at(0, b"x").unwrap();
    disk.0.lock().unwrap().left = Some(0);
    overlay.flush().unwrap_err();
    disk.0.lock().unwrap().left = None;
    overlay.flush().unwrap_err();
    overlay.write_at(0, b"y").unwrap_err();
    let mut byte = [0];
    overlay.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, *b"x");
}
