//! Measures copies of a repository between two accounts of an Azurite on this machine: `replicate` by the service and through the
//! host, beside a client that does nothing but have the service copy the same blobs.

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use keepstone_benches::files::{say, temporary_directory};
use keepstone_benches::repository::{Run, back_up, create, open, open_index};
use keepstone_engine::observer::Quiet;
use keepstone_engine::replicate::{
    Deletions, Place, Preparing, ReplicateJob, Route, Taking, There, prepare, replicate,
};
use keepstone_engine::source::RawImage;
use keepstone_engine::store::azure::{AzurePlace, AzureSettings, AzureStore, Credential, Secret};
use keepstone_engine::store::{BlobStore, Traffic};
use keepstone_engine::{Entropy, Repository};
use keepstone_peers::azurite::{Account, Azurite, PRIMARY, REPLICA};
use keepstone_peers::http;
use repo_format::{BlobKind, BlobName};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;

/// The level of zstd: replication does not decompress.
const LEVEL: i32 = 1;
/// The time of the copies, milliseconds since 1970.
const NOW: u64 = 1_900_000_000_000;
/// The container of the repository that is copied.
const SOURCE: &str = "source";
/// The block of the bare client's blobs, and its Base64.
const BLOCK: &str = "MDAwMDAwMDA%3D";
const BLOCK_LIST: &str =
    "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>MDAwMDAwMDA=</Latest></BlockList>";

/// Measures copies of a repository between two accounts by the service and through the host.
#[derive(Parser)]
struct Arguments {
    /// A raw disk image, which is only read: a backup of it is what is copied
    image: PathBuf,

    /// Where everything that is written goes for the time of the run [default: beside the image]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// How often everything is measured; the medians are printed
    #[arg(long, value_name = "N", default_value = "3")]
    rounds: NonZero<usize>,

    /// Copies at one time
    #[arg(long, value_name = "N", default_value = "8")]
    jobs: NonZero<usize>,
}

/// How blobs get from one account to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    BareBlocks,
    BareCopy,
    ByService,
    ThroughHost,
}

const WAYS: [(Way, &str); 4] = [
    (Way::BareBlocks, "bare client, the same requests (Put Block From URL, Put Block List)"),
    (Way::BareCopy, "bare client, Copy Blob"),
    (Way::ByService, "the engine, by the service"),
    (Way::ThroughHost, "the engine, through the host"),
];

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    took: Duration,
    /// Bytes of bodies that the engine sent and received.
    host_bytes: u64,
    requests: u64,
}

struct Bench<'a> {
    azurite: &'a Azurite,
    runtime: &'a Runtime,
    /// What is copied, with the lengths.
    blobs: Vec<(BlobName, u64)>,
    jobs: NonZero<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let image = RawImage::open(&arguments.image)?;
    let directory =
        temporary_directory("keepstone-replicate-", arguments.scratch.as_deref(), Some(&arguments.image))?;
    let azurite = Azurite::start_in(directory.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    azurite.create_container(&PRIMARY, SOURCE);
    let mut bench = Bench { azurite: &azurite, runtime: &runtime, blobs: vec![], jobs: arguments.jobs };
    let source = bench.store(&PRIMARY, SOURCE)?;
    let repository = create(&source)?;
    let run = Run { vm: "vm", source: &image, level: LEVEL, number: 0 };
    back_up(&repository, &mut open_index(&repository, None)?, &run)?;
    bench.blobs = listed(&source)?;
    let packs = bench.packs();
    let bytes: u64 = packs.iter().map(|(_, len)| len).sum();
    let (count, jobs) = (packs.len(), arguments.jobs);
    let others = bench.blobs.len() - count;
    say(&format!(
        "{count} packs of {} MiB and {others} other blobs, {jobs} copies at one time",
        bytes >> 20
    ))?;
    let mut measured = vec![Vec::new(); WAYS.len()];
    for round in 0..arguments.rounds.get() {
        for (number, (way, what)) in WAYS.into_iter().enumerate() {
            say(&format!("round {}: {what}", round + 1))?;
            let container = format!("to-{number}-{round}");
            azurite.create_container(&REPLICA, &container);
            measured[number].push(bench.measure(way, &container)?);
        }
    }
    report(bytes, &mut measured)?;
    Ok(())
}

fn listed(store: &AzureStore) -> anyhow::Result<Vec<(BlobName, u64)>> {
    let page = store.list("", None, 5000)?;
    ensure!(page.next.is_none(), "the image is too large: its backup has more than 5000 blobs");
    Ok(page.blobs.into_iter().map(|blob| (blob.name, blob.len)).collect())
}

fn packs_of(blobs: &[(BlobName, u64)]) -> Vec<(BlobName, u64)> {
    let is_pack = |blob: &&(BlobName, u64)| matches!(blob.0.kind(), Some(BlobKind::Pack(_)));
    blobs.iter().filter(is_pack).cloned().collect()
}

impl Bench<'_> {
    fn store(&self, account: &Account, container: &str) -> anyhow::Result<AzureStore> {
        let endpoint = self.azurite.endpoint(account);
        let place = format!("azblob://{}/{container}?endpoint={endpoint}", account.name);
        let place = AzurePlace::parse(&place).context("it is no place in Azure")??;
        let credential = Credential::AccountKey(Secret::new(account.key.to_owned()));
        let settings = AzureSettings::new(place, credential, Entropy::new([1; 32]));
        Ok(AzureStore::new(self.runtime.handle().clone(), settings)?)
    }

    fn packs(&self) -> Vec<(BlobName, u64)> {
        packs_of(&self.blobs)
    }

    fn measure(&self, way: Way, container: &str) -> anyhow::Result<Measured> {
        let (source, destination) = (self.store(&PRIMARY, SOURCE)?, self.store(&REPLICA, container)?);
        let repository = open(&source)?;
        let began = Instant::now();
        match way {
            Way::BareBlocks => self.each(|name| self.bare_blocks(container, name))?,
            Way::BareCopy => self.each(|name| self.bare_copy(container, name))?,
            Way::ByService => {
                let route = Route::ByService { source: &source, destination: &destination };
                self.replicate(&repository, &destination, route)?;
            }
            Way::ThroughHost => self.replicate(&repository, &destination, Route::ThroughHost)?,
        }
        let took = began.elapsed();
        let traffic = [source.traffic(), destination.traffic()];
        let sum = |of: fn(&Traffic) -> u64| traffic.iter().map(of).sum();
        let (host_bytes, requests) = (
            sum(|traffic| traffic.bytes_out + traffic.bytes_in),
            sum(|traffic| traffic.writes.total() + traffic.reads.total()),
        );
        ensure!(
            packs_of(&listed(&destination)?) == self.packs(),
            "{container} has other packs than were copied"
        );
        Ok(Measured { took, host_bytes, requests })
    }

    fn replicate(
        &self,
        source: &Repository<'_>,
        destination: &AzureStore,
        route: Route<'_>,
    ) -> anyhow::Result<()> {
        let preparing = Preparing::Made { told: SOURCE, time: NOW };
        let entropy = Entropy::new([2; 32]);
        let Place::Ready(replica) = prepare(source, destination, Taking::OwnReplica, preparing, &entropy)?
        else {
            bail!("the destination was not made ready");
        };
        let job = ReplicateJob {
            vms: &[],
            last: None,
            there: There::Whole,
            deletions: Deletions::Kept,
            jobs: self.jobs,
        };
        let report = replicate(source, &replica, route, &job, &Quiet)?;
        ensure!(report.failed.is_empty() && report.ignored.is_empty(), "not all was copied: {report:?}");
        Ok(())
    }

    /// Does something with each blob, several at one time.
    fn each(&self, act: impl Fn(&BlobName) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> anyhow::Result<()> {
            while let Some((name, _)) = self.blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                act(name)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.get()).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("copying does not panic"))
        })
    }

    fn url(&self, account: &Account, container: &str, name: &BlobName) -> String {
        format!("{}/{container}/{name}", self.azurite.endpoint(account))
    }

    fn urls(&self, container: &str, name: &BlobName) -> (String, String, String) {
        let valid = SystemTime::now() + Duration::from_hours(1);
        let source = self.url(&PRIMARY, SOURCE, name);
        let source = format!("{source}?{}", PRIMARY.container_sas(SOURCE, "r", valid));
        let signed = REPLICA.container_sas(container, "rcw", valid);
        (source, self.url(&REPLICA, container, name), signed)
    }

    fn bare_blocks(&self, container: &str, name: &BlobName) -> anyhow::Result<()> {
        let (source, blob, sas) = self.urls(container, name);
        // As the engine does it. Azurite is slower without: it then computes another digest as well.
        let looked = http::send("HEAD", &source, &[("x-ms-version", VERSION)], &[]);
        let md5 = looked.header("content-md5").context("the source has no MD5")?;
        let headers = [
            ("x-ms-version", VERSION),
            ("x-ms-copy-source", source.as_str()),
            ("x-ms-source-content-md5", md5),
        ];
        let staged = http::send("PUT", &format!("{blob}?comp=block&blockid={BLOCK}&{sas}"), &headers, &[]);
        ensure!(staged.status == 201, "a block was answered with {}", staged.status);
        let headers =
            [("x-ms-version", VERSION), ("if-none-match", "*"), ("content-type", "application/xml")];
        let url = format!("{blob}?comp=blocklist&{sas}");
        let listed = http::send("PUT", &url, &headers, BLOCK_LIST.as_bytes());
        ensure!(listed.status == 201, "a block list was answered with {}", listed.status);
        Ok(())
    }

    fn bare_copy(&self, container: &str, name: &BlobName) -> anyhow::Result<()> {
        let (source, blob, sas) = self.urls(container, name);
        let headers =
            [("x-ms-version", VERSION), ("if-none-match", "*"), ("x-ms-copy-source", source.as_str())];
        let copied = http::send("PUT", &format!("{blob}?{sas}"), &headers, &[]);
        ensure!(copied.status == 202, "a copy was answered with {}", copied.status);
        Ok(())
    }
}

/// The version of the service's interface that the bare client speaks.
const VERSION: &str = "2025-01-05";

#[expect(clippy::cast_precision_loss, reason = "rates are printed with one digit behind the point")]
fn report(bytes: u64, measured: &mut [Vec<Measured>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mib = bytes as f64 / f64::from(1 << 20);
    let mut bare = None;
    for (runs, (way, what)) in measured.iter_mut().zip(WAYS) {
        runs.sort_unstable_by_key(|run| run.took);
        let median = runs[runs.len() / 2];
        let rate = mib / median.took.as_secs_f64();
        let reference = *bare.get_or_insert(rate);
        let (host, requests) = (median.host_bytes, median.requests);
        let counted = match way {
            Way::BareBlocks | Way::BareCopy => String::new(),
            Way::ByService | Way::ThroughHost => {
                format!(", {host} bytes through the host, {requests} requests")
            }
        };
        let ratio = rate / reference;
        writeln!(out, "{what}: {rate:.1} MiB/s, {ratio:.2} of the first{counted}")?;
    }
    Ok(())
}
