//! A client that does nothing but send requests and throw the answers away: as fast as the service and the link are.

use crate::job::{Counts, Job, Opening, Outcome, Place};
use crate::store::{BARE_CONTAINER, PartRead, REPOSITORY_CONTAINER, local_directory};
use anyhow::{Context as _, bail, ensure};
use keepstone_benches::meter::measure_beside;
use keepstone_engine::BlobStore;
use keepstone_engine::store::LocalStore;
use keepstone_peers::azurite::PRIMARY;
use repo_format::BlobName;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Names of one page of a listing.
const LIST_PAGE: usize = 5000;
/// How much of an answer is read at once.
const READ_LEN: usize = 256 << 10;

/// Puts the packs of the local repository.
pub(crate) fn put(job: &Job, threads: usize) -> anyhow::Result<Outcome> {
    let store = LocalStore::open(&local_directory(job))?;
    let mut packs = Vec::new();
    for prefix in ["d/", "m/"] {
        packs.extend(store.list(prefix, None, LIST_PAGE)?.blobs.into_iter().map(|info| info.name));
    }
    let way = Way::new(job, BARE_CONTAINER, "c")?;
    let sent = AtomicU64::new(0);
    let mut outcome = measured(job, packs.len(), threads, |connection, number| {
        let name: &BlobName = &packs[number];
        let bytes = store.get(name, None)?;
        let headers = [("x-ms-blob-type", "BlockBlob".to_owned()), ("If-None-Match", "*".to_owned())];
        way.exchange(connection, "PUT", name.as_str(), &headers, &bytes)?;
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    })?;
    let put = packs.len() as u64;
    outcome.requests = Counts { put, out_bytes: sent.into_inner(), ..outcome.requests };
    Ok(outcome)
}

/// Reads parts of blobs of the repository.
pub(crate) fn get(job: &Job, threads: usize, parts: &[PartRead]) -> anyhow::Result<Outcome> {
    let way = Way::new(job, REPOSITORY_CONTAINER, "r")?;
    let received = AtomicU64::new(0);
    let mut outcome = measured(job, parts.len(), threads, |connection, number| {
        let part = &parts[number];
        let range = part.range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let headers: Vec<_> = range.map(|range| ("Range", range)).into_iter().collect();
        let len = way.exchange(connection, "GET", &part.blob, &headers, &[])?;
        received.fetch_add(len, Ordering::Relaxed);
        Ok(())
    })?;
    let get = parts.len() as u64;
    outcome.requests = Counts { get, in_bytes: received.into_inner(), ..outcome.requests };
    Ok(outcome)
}

/// A connection that is kept.
type Connection = Option<BufReader<TcpStream>>;

/// Does something so many times, in several threads with a connection each.
fn measured(
    job: &Job,
    times: usize,
    threads: usize,
    once: impl Fn(&mut Connection, usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Outcome> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut connection = None;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= times {
                return Ok(());
            }
            once(&mut connection, number)?;
        }
    };
    let all = || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
        })
    };
    let ((), cost, beside) = measure_beside::<_, anyhow::Error>(&job.directory, job.place.server(), all)?;
    let requests = Counts { most_in_flight: threads as u64, ..Counts::default() };
    Ok(Outcome { cost, beside, requests, opening: Opening::default() })
}

/// The way to a container.
struct Way {
    /// Host and port.
    authority: String,
    container: &'static str,
    signature: String,
}

impl Way {
    fn new(job: &Job, container: &'static str, rights: &str) -> anyhow::Result<Self> {
        let Place::Azure { endpoint, .. } = &job.place else { bail!("a plain client needs a service") };
        let rest = endpoint.strip_prefix("http://").context("the endpoint is of another kind")?;
        let authority = rest.split('/').next().unwrap_or(rest).to_owned();
        let expiry = SystemTime::now() + Duration::from_hours(1);
        Ok(Self { authority, container, signature: PRIMARY.container_sas(container, rights, expiry) })
    }

    /// Sends a request and reads its answer; returns the length of the body.
    fn exchange(
        &self,
        connection: &mut Connection,
        method: &str,
        blob: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> anyhow::Result<u64> {
        let Self { authority, container, signature } = self;
        let stream = if let Some(stream) = connection {
            stream
        } else {
            let stream = TcpStream::connect(authority)?;
            stream.set_nodelay(true)?;
            connection.insert(BufReader::with_capacity(READ_LEN, stream))
        };
        let path = format!("/{}/{container}/{blob}", PRIMARY.name);
        let mut head = format!("{method} {path}?{signature} HTTP/1.1\r\nHost: {authority}\r\n");
        head.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(body)?;
        let len = answer(stream).with_context(|| format!("{method} {path}"))?;
        let thrown_away = std::io::copy(&mut stream.take(len), &mut std::io::sink())?;
        ensure!(thrown_away == len, "the answer to {method} {path} is not whole");
        Ok(len)
    }
}

/// Reads the head of an answer; returns the length of its body.
fn answer(stream: &mut BufReader<TcpStream>) -> anyhow::Result<u64> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    ensure!(matches!(line.split(' ').nth(1), Some("200" | "201" | "206")), "it was answered {line}");
    let mut len = None;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            return len.context("the answer has no length");
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            len = Some(value.trim().parse()?);
        }
    }
}
