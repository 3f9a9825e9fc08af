//! Compares chunkers on disk images: what is stored, what the processor does, and what incremental backups read.

mod candidate;
mod image;
mod reading;
mod speed;
mod stored;

use candidate::Candidate;
use clap::Parser;
use image::Image;
use keepstone_benches::meter::Work;
use keepstone_benches::table::{float, mib, new_table};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::PathBuf;

/// Candidates at about equal numbers of chunks, in two groups.
const CANDIDATES: [&str; 10] = [
    "fastcdc-2020:8/32/128",
    "mincdc-hash4:24/48/72",
    "aligned:16/48/128",
    "aligned-keyed:16/48/128",
    "rolling-keyed:16/48/128",
    "fastcdc-2020:6/24/128",
    "mincdc-hash4:20/42/64",
    "aligned:12/40/128",
    "mincdc-hash4:22/44/66",
    "mincdc-hash4:28/42/56",
];

/// Compares chunkers on disk images.
#[derive(Parser)]
struct Arguments {
    /// Raw disk images, which are only read: days of one VM, then other VMs
    #[arg(required = true)]
    images: Vec<PathBuf>,

    /// What is compared, by lengths in KiB
    #[arg(long, value_name = "NAME:MIN/AVERAGE/MAX,...", value_delimiter = ',', default_values = CANDIDATES)]
    candidates: Vec<Candidate>,

    /// Threads that chunk and compress
    #[arg(long, value_name = "N", default_value = "2")]
    threads: NonZero<usize>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { images, candidates, threads } = Arguments::parse();
    let images: Vec<Image> = images.iter().map(|path| Image::open(path)).collect::<Result<_, _>>()?;
    let mut output = io::stdout();
    output.write_all(speed_table(&candidates, &images[0], threads.get())?.as_bytes())?;
    output.write_all(reading_table(&candidates, &images[0])?.as_bytes())?;
    output.write_all(stored_table(&candidates, &images, threads.get())?.as_bytes())?;
    Ok(())
}

/// GB/s of one processor, of its own time.
fn rate(work: &Work) -> String {
    format!("{:.2}", float(work.bytes) / work.cpu.as_secs_f64() / 1e9)
}

fn speed_table(candidates: &[Candidate], image: &Image, threads: usize) -> io::Result<String> {
    let alone = speed::speeds(candidates, image, 1)?;
    let together = speed::speeds(candidates, image, threads)?;
    let mut table = new_table(&["chunker", "chunk", "chunk + hash", "chunk, all", "chunk + hash, all"]);
    for (candidate, (alone, together)) in candidates.iter().zip(alone.iter().zip(&together)) {
        table.add_row(vec![
            candidate.to_string(),
            rate(&alone.chunk),
            rate(&alone.chunk_hash),
            rate(&together.chunk),
            rate(&together.chunk_hash),
        ]);
    }
    Ok(format!("Processor time: GB/s of one thread, and of each of {threads}\n{table}\n\n"))
}

fn reading_table(candidates: &[Candidate], image: &Image) -> io::Result<String> {
    let mut table = new_table(&["chunker", "needed, 64 KiB", "read, 64 KiB", "needed, 4 KiB", "read, 4 KiB"]);
    for candidate in candidates {
        let mut row = vec![candidate.to_string()];
        for area_len in [64 << 10, 4 << 10] {
            let reading = reading::reading(candidate, image, area_len)?;
            let of_changed = |bytes| format!("{:.2}", float(bytes) / float(reading.changed));
            row.push(of_changed(reading.needed));
            row.push(reading.read.map_or_else(|| "-".to_owned(), of_changed));
        }
        table.add_row(row);
    }
    Ok(format!("An incremental backup: bytes for each changed one\n{table}\n\n"))
}

fn stored_table(candidates: &[Candidate], images: &[Image], threads: usize) -> io::Result<String> {
    let mut header: Vec<String> =
        ["chunker", "chunks", "mean", "5 %", "50 %", "95 %"].map(str::to_owned).to_vec();
    header.extend((1..=images.len()).map(|number| format!("image {number}")));
    header.push("all".to_owned());
    let mut table = new_table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for candidate in candidates {
        let stored = stored::stored(candidate, images, threads)?;
        let mut lengths: Vec<usize> = stored.iter().flat_map(|image| &image.lengths).copied().collect();
        lengths.sort_unstable();
        let mean = float(lengths.iter().map(|&length| length as u64).sum()) / float(lengths.len() as u64);
        let kib = |length: f64| format!("{:.1}", length / 1024.0);
        let part = |percent: usize| kib(float(lengths[lengths.len() * percent / 100] as u64));
        let mut row = vec![candidate.to_string(), lengths.len().to_string(), kib(mean)];
        row.extend([5, 50, 95].map(part));
        row.extend(stored.iter().map(|image| mib(image.stored_bytes)));
        row.push(mib(stored.iter().map(|image| image.stored_bytes).sum()));
        table.add_row(row);
    }
    Ok(format!(
        "Stored: distinct chunks, their lengths in KiB, and what is new in each image, in MiB\n{table}\n"
    ))
}
