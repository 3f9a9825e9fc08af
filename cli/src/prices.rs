//! What requests and storage cost, roughly.

use keepstone_engine::store::azure::Tier;
use keepstone_engine::store::{PerTier, StoredTier, Traffic};
use serde::{Deserialize, Serialize};

/// A price. It is a number that is not negative.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
struct Price(f64);

/// More than anything costs in any currency, and little enough that sums stay numbers.
const PRICE_MAX: f64 = 1e9;

impl TryFrom<f64> for Price {
    type Error = String;

    fn try_from(price: f64) -> Result<Self, String> {
        if (0.0..=PRICE_MAX).contains(&price) {
            Ok(Self(price))
        } else {
            Err(format!("{price} is no price: write a number from 0 to {PRICE_MAX}"))
        }
    }
}

/// A price list: for 10,000 requests, for a GiB that is retrieved, for a GiB that is kept for a month.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Prices {
    currency: String,
    write_hot: Price,
    write_cool: Price,
    write_cold: Price,
    read_hot: Price,
    read_cool: Price,
    read_cold: Price,
    list: Price,
    retrieval_cool: Price,
    retrieval_cold: Price,
    storage_hot: Price,
    storage_cool: Price,
    storage_cold: Price,
    storage_archive: Price,
}

impl Default for Prices {
    /// Microsoft's sample prices for block blobs with local redundancy.
    fn default() -> Self {
        Self {
            currency: "USD".to_owned(),
            write_hot: Price(0.055),
            write_cool: Price(0.10),
            write_cold: Price(0.18),
            read_hot: Price(0.0044),
            read_cool: Price(0.01),
            read_cold: Price(0.10),
            list: Price(0.055),
            retrieval_cool: Price(0.01),
            retrieval_cold: Price(0.03),
            storage_hot: Price(0.0208),
            storage_cool: Price(0.0115),
            storage_cold: Price(0.0045),
            storage_archive: Price(0.002),
        }
    }
}

/// An estimate of what a run costs. Network charges, redundancy and contracts are not in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cost {
    currency: String,
    /// For the requests.
    requests: f64,
    /// For reading from cooler tiers.
    retrieval: f64,
    /// For each month that what was stored is kept.
    storage_per_month: f64,
}

const REQUESTS_PRICED: f64 = 10_000.0;
/// 2^30.
const BYTES_PRICED: f64 = 1_073_741_824.0;

impl Prices {
    /// Estimates what traffic costs. Deletes are free. A copy that the service makes is a write where it is made and a read
    /// of its source; what leaves a region is not in it, like all charges of networks.
    pub(crate) fn estimate(&self, traffic: &Traffic) -> Cost {
        let free = Price(0.0);
        let requests = of_tiers(traffic.writes, [self.write_hot, self.write_cool, self.write_cold])
            + of_tiers(traffic.reads, [self.read_hot, self.read_cool, self.read_cold])
            + number(traffic.lists) * self.list.0;
        let retrieving = [free, self.retrieval_cool, self.retrieval_cold];
        let retrieval = of_tiers(traffic.read_bytes, retrieving) + of_tiers(traffic.lent_bytes, retrieving);
        let keeping = [self.storage_hot, self.storage_cool, self.storage_cold];
        let stored = of_tiers(traffic.written_bytes, keeping) + of_tiers(traffic.copied_bytes, keeping);
        Cost {
            currency: self.currency.clone(),
            requests: rounded(requests / REQUESTS_PRICED),
            retrieval: rounded(retrieval / BYTES_PRICED),
            storage_per_month: rounded(stored / BYTES_PRICED),
        }
    }
}

/// A pack that is deleted, after what is needed of it was written anew.
pub(crate) struct Rewrite {
    /// The tier that it is in.
    pub(crate) from: StoredTier,
    /// The tier of new packs.
    pub(crate) to: Tier,
    /// Its length.
    pub(crate) len: u64,
    /// What is needed of it, 0 if it is only deleted.
    pub(crate) used: u64,
    /// How long new packs are.
    pub(crate) pack_len: u64,
    /// How long ago it was created. If a rule moved it to its tier later, its shortest time there began later, which no
    /// listing tells.
    pub(crate) age_millis: u64,
}

/// An estimate of what packing again and deleting costs once, and saves.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RewriteCost {
    currency: String,
    /// Requests that read and write. Deletes are free.
    read_requests: u64,
    /// New packs, in parts: what is needed of several packs goes into one.
    write_requests: f64,
    /// For the requests.
    requests: f64,
    /// For reading from cooler tiers.
    retrieval: f64,
    /// For what is left of the shortest time that a pack is charged for.
    early_deletion: f64,
    /// What is charged less for each month from then on.
    saved_per_month: f64,
}

/// Ranges of a pack that are read, roughly: what is needed of it lies together in parts.
const READS: u64 = 16;
const DAY_MILLIS: f64 = 86_400_000.0;
/// The month that storage is charged for.
const DAYS_IN_MONTH: f64 = 30.4;

impl Prices {
    /// Estimates what packing a pack again and deleting it costs and saves.
    pub(crate) fn rewrite(&self, pack: &Rewrite) -> RewriteCost {
        let (read, retrieval, storage, least_days) = match pack.from {
            StoredTier::Hot => (self.read_hot, Price(0.0), self.storage_hot, 0.0),
            StoredTier::Cool => (self.read_cool, self.retrieval_cool, self.storage_cool, 30.0),
            StoredTier::Cold => (self.read_cold, self.retrieval_cold, self.storage_cold, 90.0),
            StoredTier::Archive => (Price(0.0), Price(0.0), self.storage_archive, 180.0),
        };
        let (write, new_storage) = match pack.to {
            Tier::Hot => (self.write_hot, self.storage_hot),
            Tier::Cool => (self.write_cool, self.storage_cool),
            Tier::Cold => (self.write_cold, self.storage_cold),
        };
        let read_requests = if pack.used == 0 { 0 } else { READS };
        let write_requests = number(pack.used) / number(pack.pack_len.max(1));
        let gib = |bytes| number(bytes) / BYTES_PRICED;
        let days_left = (least_days - number(pack.age_millis) / DAY_MILLIS).max(0.0);
        RewriteCost {
            currency: self.currency.clone(),
            read_requests,
            write_requests,
            requests: (number(read_requests) * read.0 + write_requests * write.0) / REQUESTS_PRICED,
            retrieval: gib(pack.used) * retrieval.0,
            early_deletion: gib(pack.len) * storage.0 * days_left / DAYS_IN_MONTH,
            saved_per_month: gib(pack.len) * storage.0 - gib(pack.used) * new_storage.0,
        }
    }

    /// What nothing costs and saves.
    pub(crate) fn nothing(&self) -> RewriteCost {
        RewriteCost {
            currency: self.currency.clone(),
            read_requests: 0,
            write_requests: 0.0,
            requests: 0.0,
            retrieval: 0.0,
            early_deletion: 0.0,
            saved_per_month: 0.0,
        }
    }
}

impl RewriteCost {
    fn once(&self) -> f64 {
        self.requests + self.retrieval + self.early_deletion
    }

    /// Whether it saves what it costs in so many months.
    pub(crate) fn pays_within(&self, months: f64) -> bool {
        self.saved_per_month > 0.0 && self.saved_per_month * months >= self.once()
    }

    /// Adds another one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.read_requests += other.read_requests;
        self.write_requests += other.write_requests;
        self.requests += other.requests;
        self.retrieval += other.retrieval;
        self.early_deletion += other.early_deletion;
        self.saved_per_month += other.saved_per_month;
    }

    /// Without the digits that only binary fractions have.
    pub(crate) fn rounded(self) -> Self {
        Self {
            write_requests: self.write_requests.ceil(),
            requests: rounded(self.requests),
            retrieval: rounded(self.retrieval),
            early_deletion: rounded(self.early_deletion),
            saved_per_month: rounded(self.saved_per_month),
            ..self
        }
    }

    /// The requests in words.
    pub(crate) fn requests_in_words(&self, deletes: u64) -> String {
        format!("{} read, {:.0} write, {deletes} delete", self.read_requests, self.write_requests.ceil())
    }

    /// The estimate in words.
    pub(crate) fn in_words(&self) -> String {
        let currency = &self.currency;
        let (month, than) = if self.saved_per_month < 0.0 {
            (-self.saved_per_month, "more")
        } else {
            (self.saved_per_month, "less")
        };
        format!("{} {currency} now, {} {currency} a month {than}", amount(self.once()), amount(month))
    }
}

fn of_tiers(numbers: PerTier, [hot, cool, cold]: [Price; 3]) -> f64 {
    number(numbers.hot) * hot.0 + number(numbers.cool) * cool.0 + number(numbers.cold) * cold.0
}

#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 15 digits")]
fn number(number: u64) -> f64 {
    number as f64
}

/// Without the digits that only binary fractions have.
fn rounded(amount: f64) -> f64 {
    (amount * 1e9).round() / 1e9
}

impl Cost {
    /// What keeping costs, in words.
    pub(crate) fn storage_in_words(&self) -> String {
        format!("{} {} a month", amount(self.storage_per_month), self.currency)
    }

    /// The estimate in words.
    pub(crate) fn in_words(&self) -> String {
        let Self { currency, requests, retrieval, storage_per_month } = self;
        let now = amount(requests + retrieval);
        if *storage_per_month > 0.0 {
            format!("{now} {currency} and {} a month", amount(*storage_per_month))
        } else {
            format!("{now} {currency}")
        }
    }
}

/// Cents where there are some, else as many digits as show what it is.
fn amount(amount: f64) -> String {
    match amount {
        0.0 => "0".to_owned(),
        small if small < 0.0001 => "less than 0.0001".to_owned(),
        small if small < 1.0 => format!("about {small:.4}"),
        large => format!("about {large:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Prices, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn requests_retrieval_and_storage_are_estimated_by_tier() {
        const GIB: u64 = 1 << 30;
        let traffic = Traffic {
            writes: PerTier { hot: 10_000, cool: 20_000, cold: 30_000 },
            reads: PerTier { hot: 40_000, cool: 50_000, cold: 60_000 },
            lists: 70_000,
            deletes: 80_000,
            written_bytes: PerTier { hot: 1000 * GIB, cool: 2000 * GIB, cold: 3000 * GIB },
            read_bytes: PerTier { hot: 400 * GIB, cool: 500 * GIB, cold: 600 * GIB },
            ..Traffic::default()
        };
        let expected =
            Cost { currency: "USD".to_owned(), requests: 1.8476, retrieval: 23.0, storage_per_month: 57.3 };
        let cost = Prices::default().estimate(&traffic);
        assert_eq!(cost, expected);
        assert_eq!(cost.in_words(), "about 24.85 USD and about 57.30 a month");
    }

    #[test]
    fn what_the_service_copies_is_retrieved_there_and_kept_here() {
        const GIB: u64 = 1 << 30;
        let cool = |cool| PerTier { cool, ..PerTier::default() };
        let here = Traffic { writes: cool(10_000), copied_bytes: cool(100 * GIB), ..Traffic::default() };
        assert_eq!(Prices::default().estimate(&here).in_words(), "about 0.1000 USD and about 1.15 a month");
        let there = Traffic { reads: cool(10_000), lent_bytes: cool(100 * GIB), ..Traffic::default() };
        assert_eq!(Prices::default().estimate(&there).in_words(), "about 1.01 USD");
    }

    #[test]
    fn ten_tebibytes_in_packs_of_32_mib_cost_what_the_documentation_says() {
        let packs = 10 << 15;
        let of = |hot, cool, cold| {
            Prices::default().estimate(&Traffic {
                writes: PerTier { hot, cool, cold },
                written_bytes: PerTier { hot: hot << 25, cool: cool << 25, cold: cold << 25 },
                ..Traffic::default()
            })
        };
        assert_eq!(of(packs, 0, 0).in_words(), "about 1.80 USD and about 212.99 a month");
        assert_eq!(of(0, packs, 0).in_words(), "about 3.28 USD and about 117.76 a month");
        assert_eq!(of(0, 0, packs).in_words(), "about 5.90 USD and about 46.08 a month");
    }

    #[test]
    fn small_amounts_are_told_as_such() {
        let lists = |lists| Prices::default().estimate(&Traffic { lists, ..Traffic::default() }).in_words();
        assert_eq!([0, 11, 100].map(lists), ["0 USD", "less than 0.0001 USD", "about 0.0006 USD"]);
    }

    #[test]
    fn a_profile_replaces_the_prices_that_it_names() {
        let prices = parse("currency = 'EUR'\nwrite-hot = 1\nretrieval-cold = 0.5").unwrap();
        let expected = Prices {
            currency: "EUR".to_owned(),
            write_hot: Price(1.0),
            retrieval_cold: Price(0.5),
            ..Prices::default()
        };
        assert_eq!(prices, expected);
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in ["list = -0.1", "list = nan", "list = inf", "list = '1'", "write-archive = 1", "hot = 1"]
        {
            assert!(parse(text).is_err(), "{text} is no price");
        }
    }
}
