//! What requests and storage cost, roughly.

use keepstone_engine::store::{PerTier, Traffic};
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
    /// Estimates what traffic costs. Deletes are free.
    pub(crate) fn estimate(&self, traffic: &Traffic) -> Cost {
        let free = Price(0.0);
        let requests = of_tiers(traffic.writes, [self.write_hot, self.write_cool, self.write_cold])
            + of_tiers(traffic.reads, [self.read_hot, self.read_cool, self.read_cold])
            + number(traffic.lists) * self.list.0;
        let retrieval = of_tiers(traffic.read_bytes, [free, self.retrieval_cool, self.retrieval_cold]);
        let stored =
            of_tiers(traffic.written_bytes, [self.storage_hot, self.storage_cool, self.storage_cold]);
        Cost {
            currency: self.currency.clone(),
            requests: rounded(requests / REQUESTS_PRICED),
            retrieval: rounded(retrieval / BYTES_PRICED),
            storage_per_month: rounded(stored / BYTES_PRICED),
        }
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
