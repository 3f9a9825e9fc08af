//! A replica with very many restore points and packs, and what it takes to tell which are whole.
//!
//! Decisions and the upper nodes of maps are real; data packs are files without content, and lower nodes and pages are
//! not there, as nothing of them is read.
#![expect(clippy::cast_possible_truncation, reason = "what is made here is small")]

use crate::fleet::{Asked, Paged, asked, put};
use crate::{again, directory};
use anyhow::Context as _;
use keepstone_benches::files::say;
use keepstone_benches::meter::{self, Cost};
use keepstone_benches::random::Random;
use keepstone_benches::repository::{DISK, create, open, writer};
use keepstone_benches::table::{float, new_table};
use keepstone_engine::Repository;
use keepstone_engine::observer::Quiet;
use keepstone_engine::replica::{Doubt, each};
use keepstone_engine::snapshots::Query;
use keepstone_engine::store::{LocalStore, RecordingStore};
use rayon::prelude::*;
use repo_format::{
    Child, Codec, Commit, Decision, DecisionName, Disk, DiskMode, Encoder, FrameEntry, FrameKind, Location,
    Node, PACK_HEADER_LEN, PackBase, PackKind, PackName, PackRef, PackSeal, PayloadId, SessionId, TAG_LEN,
    Totals, seal_pack,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
const FIRST_DAY: u64 = 1_700_000_000_000;
/// Each disk has so many nodes of level 2: 64 GiB.
const NODES: usize = 16;
/// Of these, so many are changed each day, in so many places each.
const NODES_CHANGED: usize = 4;
const CHILDREN_CHANGED: usize = 4;
/// Packs that are named below a child of them, at most.
const NAMES_MAX: usize = 16;
/// How long the files of data packs are.
const DATA_PACK_LEN: u32 = 32 << 20;
/// What a map pack's length is taken for until it is sealed.
const UNKNOWN_LEN: u32 = 1 << 20;
/// A lower node, which is not there.
const LOWER_LEN: u32 = 100;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// VMs
    #[arg(long, value_name = "N", default_value_t = 1000)]
    vms: u64,

    /// Days, of each of which every VM has a restore point
    #[arg(long, value_name = "N", default_value_t = 100)]
    days: u32,

    /// Data packs of each restore point
    #[arg(long, value_name = "N", default_value_t = 9)]
    packs: u32,

    /// Days, the last ones, of whose restore points one data pack has not arrived
    #[arg(long, value_name = "N", default_value_t = 3)]
    late: u32,

    /// Where the replica is for the time of the run [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,

    /// Look at the replica in the directory: how this program calls itself
    #[arg(long, hide = true, requires = "repository")]
    look: bool,
}

#[derive(Serialize, Deserialize)]
struct Looked {
    #[serde(flatten)]
    cost: Cost,
    whole: u64,
    lacking: u64,
    #[serde(flatten)]
    asked: Asked,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<String> {
    if let (true, Some(directory)) = (arguments.look, &arguments.repository) {
        return Ok(serde_json::to_string(&look(directory)?)?);
    }
    let directory = directory(arguments.repository.as_ref())?;
    let path = directory.path().to_str().context("the directory's name is no text")?;
    say(&format!("making {} restore points", arguments.vms * u64::from(arguments.days)))?;
    let packs = make(arguments, directory.path())?;
    let mut table = new_table(&[
        "replica",
        "wall s",
        "CPU s",
        "peak MiB",
        "whole",
        "not",
        "get",
        "list",
        "pages in Azure",
    ]);
    for what in ["all is there", "a pack of each late one is missing"] {
        if what != "all is there" {
            take_away(arguments, directory.path())?;
        }
        let call = ["replica", "--look", "--repository", path].map(ToOwned::to_owned);
        let looked: Looked = serde_json::from_slice(&again(&call)?)?;
        table.add_row([
            what.to_owned(),
            format!("{:.3}", looked.cost.wall_seconds),
            format!("{:.3}", looked.cost.cpu_seconds),
            format!("{:.0}", float(looked.cost.peak_rss_bytes) / float(1 << 20)),
            looked.whole.to_string(),
            looked.lacking.to_string(),
            looked.asked.get.to_string(),
            looked.asked.list.to_string(),
            looked.asked.azure_pages.to_string(),
        ]);
    }
    Ok(format!("{packs} packs\n{table}\n"))
}

fn look(directory: &Path) -> anyhow::Result<Looked> {
    let store = RecordingStore::new(Paged::new(LocalStore::open(&directory.join("repository"))?));
    let repository = open(&store)?;
    let before = asked(&store);
    let (mut whole, mut lacking) = (0, 0);
    let (found, cost) = meter::measure(directory, || -> anyhow::Result<_> {
        Ok(each(&repository, (&Doubt::All, &Query::default()), &Quiet, &mut |point| {
            if point.whole.is_whole() { whole += 1 } else { lacking += 1 }
        })?)
    })?;
    anyhow::ensure!(found.unreadable.is_empty(), "a decision cannot be read");
    Ok(Looked { cost, whole, lacking, asked: asked(&store).since(&before) })
}

/// Makes the replica; returns how many packs it has.
fn make(arguments: &Arguments, directory: &Path) -> anyhow::Result<u64> {
    let path = directory.join("repository");
    let store = LocalStore::create(&path)?;
    let repository = create(&store)?;
    for prefix in ["d", "m"] {
        fs::create_dir_all(path.join(prefix).join(writer().as_str()))?;
    }
    (0..arguments.vms).into_par_iter().try_for_each(|number| {
        let mut vm = Vm::new(&repository, &path, number);
        (0..arguments.days).try_for_each(|day| vm.back_up(day, arguments.packs))
    })?;
    Ok(arguments.vms * u64::from(arguments.days) * u64::from(arguments.packs + 1))
}

/// Removes a data pack of each restore point of the last days.
fn take_away(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    for number in 0..arguments.vms {
        for day in arguments.days.saturating_sub(arguments.late)..arguments.days {
            let name = pack(PackKind::Data, session(number, day), 0).name;
            fs::remove_file(directory.join("repository").join(name.blob().as_str()))?;
        }
    }
    Ok(())
}

fn session(vm: u64, day: u32) -> SessionId {
    let mut random = Random::new(vm << 32 | u64::from(day));
    let (high, low) = (random.draw(), random.draw());
    SessionId((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
}

fn pack(kind: PackKind, session: SessionId, number: u32) -> PackRef {
    let len = if kind == PackKind::Data { DATA_PACK_LEN } else { UNKNOWN_LEN };
    PackRef { name: PackName { kind, writer: writer(), session, number }, len }
}

/// A VM whose disk is backed up day after day.
struct Vm<'r, 's> {
    repository: &'r Repository<'s>,
    path: &'r Path,
    number: u64,
    random: Random,
    parent: Option<DecisionName>,
    /// The nodes of level 2, and where each was stored last.
    nodes: Vec<Vec<Child>>,
    stored: Vec<Option<Location>>,
}

impl<'r, 's> Vm<'r, 's> {
    fn new(repository: &'r Repository<'s>, path: &'r Path, number: u64) -> Self {
        let (nodes, stored) = (vec![vec![Child::Hole; 64]; NODES], vec![None; NODES]);
        Self { repository, path, number, random: Random::new(number), parent: None, nodes, stored }
    }

    fn back_up(&mut self, day: u32, packs: u32) -> anyhow::Result<()> {
        let session = session(self.number, day);
        let data: Vec<PackRef> = (0..packs).map(|number| pack(PackKind::Data, session, number)).collect();
        for pack in &data {
            File::create(self.path.join(pack.name.blob().as_str()))?.set_len(u64::from(pack.len))?;
        }
        let own = pack(PackKind::Map, session, 0);
        let mut sealing = Sealing::new(self.repository, own.clone());
        let below = |limit: usize, random: &mut Random| random.below(limit as u64) as usize;
        let changed: Vec<usize> = match day {
            0 => (0..NODES).collect(),
            _ => (0..NODES_CHANGED).map(|_| below(NODES, &mut self.random)).collect(),
        };
        for node in changed {
            let places: Vec<usize> = match day {
                0 => (0..64).collect(),
                _ => (0..CHILDREN_CHANGED).map(|_| below(64, &mut self.random)).collect(),
            };
            for place in places {
                let new = data[below(data.len(), &mut self.random)].clone();
                change(&mut self.nodes[node][place], &own, new, &mut self.random);
            }
            let bytes = Node { level: 2, children: self.nodes[node].clone() }.encode(&own.name);
            self.stored[node] = Some(sealing.add(&bytes));
        }
        let children = self.stored.iter().map(|at| Child::Stored {
            at: at.clone().expect("all were stored on the first day"),
            names: Vec::new(),
        });
        let root = Node { level: 3, children: children.collect() }.encode(&own.name);
        let mut root = sealing.add(&root);
        let (blob, len) = sealing.seal();
        put(self.path, &own.name.blob(), &blob)?;
        self.settle(&own.name, len);
        root.pack.len = len;
        self.commit(session, day, root)
    }

    /// Says how long the map pack is that was sealed.
    fn settle(&mut self, own: &PackName, len: u32) {
        let settle = |pack: &mut PackRef| {
            if pack.name == *own {
                pack.len = len;
            }
        };
        self.stored.iter_mut().flatten().for_each(|at| settle(&mut at.pack));
        for child in self.nodes.iter_mut().flatten() {
            if let Child::Stored { at, names } = child {
                settle(&mut at.pack);
                names.iter_mut().for_each(settle);
            }
        }
    }

    fn commit(&mut self, session: SessionId, day: u32, root: Location) -> anyhow::Result<()> {
        let keys = self.repository.keys();
        let vm = format!("vm-{:04}", self.number);
        let name = DecisionName { vm: keys.vm_tag(&vm), writer: writer(), seq: day, session };
        let commit = Commit {
            session,
            time: FIRST_DAY + u64::from(day) * DAY_MILLIS + self.number,
            program: "benchmark".to_owned(),
            vm,
            parent: self.parent.replace(name.clone()),
            via: Vec::new(),
            tags: Vec::new(),
            properties: Vec::new(),
            disks: vec![Disk {
                key: DISK.to_owned(),
                size: (NODES as u64) << 32,
                change_id: None,
                mode: DiskMode::Incremental,
                changed_bytes: 0,
                read_bytes: 0,
                map: Some(root),
            }],
            totals: Totals::default(),
        };
        let salt = *blake3::hash(&session.0).as_bytes();
        put(self.path, &name.blob(), &Decision::Commit(Box::new(commit)).seal(keys, &name, salt))
    }
}

/// Stores a child anew that names one more pack.
fn change(child: &mut Child, own: &PackRef, new: PackRef, random: &mut Random) {
    let mut names = match child {
        Child::Hole => Vec::new(),
        Child::Stored { names, .. } => std::mem::take(names),
    };
    while names.len() > NAMES_MAX {
        names.swap_remove(random.below(names.len() as u64) as usize);
    }
    names.extend([own.clone(), new]);
    names.sort();
    names.dedup();
    let at = Location {
        pack: own.clone(),
        codec: Codec::Raw,
        offset: PACK_HEADER_LEN as u32,
        stored_len: LOWER_LEN + TAG_LEN as u32,
        plain_len: LOWER_LEN,
        id: PayloadId([random.draw() as u8; 32]),
    };
    *child = Child::Stored { at, names };
}

/// A map pack that is filled.
struct Sealing<'r, 's> {
    repository: &'r Repository<'s>,
    pack: PackRef,
    encoder: Encoder,
    body: Vec<u8>,
    frames: Vec<FrameEntry>,
}

impl<'r, 's> Sealing<'r, 's> {
    fn new(repository: &'r Repository<'s>, pack: PackRef) -> Self {
        let body = vec![0; PACK_HEADER_LEN];
        Self { repository, pack, encoder: Encoder::new(1), body, frames: Vec::new() }
    }

    fn add(&mut self, payload: &[u8]) -> Location {
        let offset = self.body.len();
        let codec = self.encoder.encode(payload, &mut self.body);
        self.body.extend([0; TAG_LEN]);
        let (id, plain_len) = (self.repository.keys().map_id(payload), payload.len() as u32);
        let stored_len = (self.body.len() - offset) as u32;
        self.frames.push(FrameEntry { kind: FrameKind::Node, codec, plain_len, stored_len, id });
        Location { pack: self.pack.clone(), codec, offset: offset as u32, stored_len, plain_len, id }
    }

    fn seal(self) -> (Vec<u8>, u32) {
        let name = &self.pack.name;
        let salt = *blake3::hash(&name.session.0).as_bytes();
        let keys = self.repository.keys();
        let with = PackSeal { keys, name, base: PackBase::Map, salt, directory_salt: salt };
        let blob = seal_pack(&with, self.body, &self.frames);
        let len = blob.len() as u32;
        (blob, len)
    }
}
