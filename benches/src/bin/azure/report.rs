//! The results as tables.

use crate::job::{Counts, Opening, Outcome};
use comfy_table::Table;
use keepstone_benches::meter::{Beside, Cost};
use keepstone_benches::table::{float, median, mib, new_table};

const GIB: f64 = 1_073_741_824.0;

/// Backups and restores in one place.
pub(crate) struct Near {
    pub(crate) first: Outcome,
    pub(crate) changed: Outcome,
    pub(crate) to_nothing: Outcome,
    pub(crate) to_file: Option<Outcome>,
}

/// Over a link with a delay.
pub(crate) struct Far {
    /// The round trip.
    pub(crate) milliseconds: u64,
    pub(crate) restore: Outcome,
    /// What the restore read, read again by a plain client with as many requests under way.
    pub(crate) bare: Outcome,
    pub(crate) changed: Outcome,
}

/// Everything measured once.
pub(crate) struct Round {
    pub(crate) local: Near,
    pub(crate) azurite: Near,
    pub(crate) bare_put: Option<Outcome>,
    pub(crate) bare_get: Outcome,
    pub(crate) links: Vec<Far>,
}

/// Everything that was measured, and on what.
pub(crate) struct Report {
    pub(crate) allocated_bytes: u64,
    pub(crate) level: i32,
    /// At least one.
    pub(crate) rounds: Vec<Round>,
}

impl Report {
    /// Returns the tables of the medians.
    pub(crate) fn text(&self) -> String {
        format!(
            "{} MiB in use; {} processors, zstd level {}, {} rounds, medians; sizes in MiB, times in seconds\n\n\
             In Azurite, and on a local disk\n{}\n\n\
             Over a link with a delay\n{}\n",
            mib(self.allocated_bytes),
            rayon::current_num_threads(),
            self.level,
            self.rounds.len(),
            self.near_table(),
            self.far_table(),
        )
    }

    fn near_table(&self) -> Table {
        let mut table = new_table(&[
            "where",
            "what",
            "wall",
            "CPU",
            "Azurite",
            "others",
            "idle",
            "GiB/s",
            "put",
            "get",
            "list",
            "retries",
            "per GiB",
            "out",
            "in",
            "in flight",
            "peak mem",
        ]);
        let rows: [(&str, &str, Pick); 10] = [
            ("local", "first backup", |round| Some(&round.local.first)),
            ("Azurite", "first backup", |round| Some(&round.azurite.first)),
            ("", "the same packs, plain client", |round| round.bare_put.as_ref()),
            ("local", "1 % changed, 64 KiB areas", |round| Some(&round.local.changed)),
            ("Azurite", "1 % changed, 64 KiB areas", |round| Some(&round.azurite.changed)),
            ("local", "restore to nothing", |round| Some(&round.local.to_nothing)),
            ("Azurite", "restore to nothing", |round| Some(&round.azurite.to_nothing)),
            ("", "the same ranges, plain client", |round| Some(&round.bare_get)),
            ("local", "restore to a file", |round| round.local.to_file.as_ref()),
            ("Azurite", "restore to a file", |round| round.azurite.to_file.as_ref()),
        ];
        for (place, what, pick) in rows {
            let outcomes: Vec<&Outcome> = self.rounds.iter().filter_map(pick).collect();
            if !outcomes.is_empty() {
                let mut row = vec![place.to_owned(), what.to_owned()];
                row.extend(self.near_row(&typical(&outcomes)));
                table.add_row(row);
            }
        }
        table
    }

    fn near_row(&self, outcome: &Outcome) -> Vec<String> {
        let Outcome { cost, beside, requests, .. } = outcome;
        vec![
            seconds(cost.wall_seconds),
            seconds(cost.cpu_seconds),
            seconds(beside.server_seconds),
            seconds(beside.others_seconds),
            seconds(idle(outcome)),
            format!("{:.2}", self.rate(outcome)),
            requests.put.to_string(),
            requests.get.to_string(),
            requests.list.to_string(),
            requests.retries.to_string(),
            format!("{:.1}", float(requests.all()) / (float(self.allocated_bytes) / GIB)),
            mib(requests.out_bytes),
            mib(requests.in_bytes),
            requests.most_in_flight.to_string(),
            mib(cost.peak_rss_bytes),
        ]
    }

    /// Of the disk that is in use, in GiB each second.
    fn rate(&self, outcome: &Outcome) -> f64 {
        float(self.allocated_bytes) / outcome.cost.wall_seconds / GIB
    }

    fn far_table(&self) -> Table {
        let mut table = new_table(&[
            "round trip",
            "opening",
            "requests",
            "restore",
            "CPU",
            "Azurite",
            "others",
            "idle",
            "GiB/s",
            "get",
            "in flight",
            "of the first",
            "of local",
            "plain client",
            "of that",
            "1 % changed",
            "requests",
        ]);
        let places = 0..self.rounds.first().map_or(0, |round| round.links.len());
        for place in places {
            let of = |pick: fn(&Far) -> &Outcome| {
                typical(&self.rounds.iter().map(|round| pick(&round.links[place])).collect::<Vec<_>>())
            };
            let (restore, bare, changed) =
                (of(|far| &far.restore), of(|far| &far.bare), of(|far| &far.changed));
            let ratio = |other: fn(&Round) -> &Outcome| {
                let wall = |outcome: &Outcome| outcome.cost.wall_seconds;
                let ratios =
                    self.rounds.iter().map(|round| wall(other(round)) / wall(&round.links[place].restore));
                format!("{:.2}", median(ratios.collect()))
            };
            let of_bare = self.rounds.iter().map(|round| {
                let far = &round.links[place];
                far.bare.cost.wall_seconds / far.restore.cost.wall_seconds
            });
            table.add_row([
                format!("{} ms", self.rounds[0].links[place].milliseconds),
                seconds(restore.opening.seconds),
                restore.opening.requests.to_string(),
                seconds(restore.cost.wall_seconds),
                seconds(restore.cost.cpu_seconds),
                seconds(restore.beside.server_seconds),
                seconds(restore.beside.others_seconds),
                seconds(idle(&restore)),
                format!("{:.2}", self.rate(&restore)),
                restore.requests.get.to_string(),
                restore.requests.most_in_flight.to_string(),
                ratio(|round| &round.links[0].restore),
                ratio(|round| &round.local.to_nothing),
                seconds(bare.cost.wall_seconds),
                format!("{:.2}", median(of_bare.collect())),
                seconds(changed.cost.wall_seconds),
                changed.requests.all().to_string(),
            ]);
        }
        table
    }
}

/// Which of a round's outcomes a row is about.
type Pick = fn(&Round) -> Option<&Outcome>;

/// How long processors had nothing to do.
fn idle(outcome: &Outcome) -> f64 {
    let Outcome { cost, beside, .. } = outcome;
    let processors = float(rayon::current_num_threads() as u64);
    let busy = cost.cpu_seconds + beside.server_seconds + beside.others_seconds;
    (cost.wall_seconds * processors - busy).max(0.0)
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2}")
}

/// The medians of each figure, and the peak of all peaks.
fn typical(outcomes: &[&Outcome]) -> Outcome {
    let time = |figure: fn(&Outcome) -> f64| median(outcomes.iter().map(|each| figure(each)).collect());
    let count = |figure: fn(&Counts) -> u64| {
        median(outcomes.iter().map(|outcome| figure(&outcome.requests)).collect())
    };
    Outcome {
        cost: Cost {
            wall_seconds: time(|each| each.cost.wall_seconds),
            cpu_seconds: time(|each| each.cost.cpu_seconds),
            caller_seconds: time(|each| each.cost.caller_seconds),
            system_seconds: time(|each| each.cost.system_seconds),
            peak_rss_bytes: outcomes.iter().map(|each| each.cost.peak_rss_bytes).max().unwrap_or_default(),
        },
        beside: Beside {
            server_seconds: time(|each| each.beside.server_seconds),
            others_seconds: time(|each| each.beside.others_seconds),
        },
        requests: Counts {
            put: count(|requests| requests.put),
            get: count(|requests| requests.get),
            list: count(|requests| requests.list),
            retries: count(|requests| requests.retries),
            out_bytes: count(|requests| requests.out_bytes),
            in_bytes: count(|requests| requests.in_bytes),
            most_in_flight: count(|requests| requests.most_in_flight),
        },
        opening: Opening {
            seconds: time(|each| each.opening.seconds),
            requests: median(outcomes.iter().map(|each| each.opening.requests).collect()),
        },
    }
}
