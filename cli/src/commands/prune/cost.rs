//! What deleting packs and packing them again costs and saves, by tier.

use crate::prices::{Prices, Rewrite, RewriteCost};
use keepstone_engine::prune::{Amount, PackUse, PrunePlan};
use keepstone_engine::store::StoredTier;
use keepstone_engine::store::azure::Tier;
use serde::Serialize;
use std::collections::BTreeMap;

const MONTH_MILLIS: u64 = 31 * 24 * 60 * 60 * 1000;

/// When packing a pack again must have paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payback {
    /// Within so many milliseconds.
    Within(u64),
    /// Prices do not decide.
    Whatever,
}

/// What a store charges, and what that depends on.
#[derive(Clone, Copy)]
pub(super) struct Costs<'a> {
    pub(super) prices: &'a Prices,
    /// The tier that new data packs are created in.
    pub(super) tier: Tier,
    /// How long new packs are.
    pub(super) pack_len: u64,
    /// Milliseconds since 1970.
    pub(super) now: u64,
}

/// What is done in one tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TierCost {
    pub(super) tier: StoredTier,
    pub(super) delete: Amount,
    pub(super) repack: Amount,
    /// What is needed of the packs that are packed again.
    pub(super) rewritten_bytes: u64,
    #[serde(flatten)]
    pub(super) cost: RewriteCost,
}

impl Payback {
    /// Whether a pack is to be packed again. Where nothing is charged it always is, and from the archive, where it could not
    /// be read, never.
    pub(super) fn is_worth(self, costs: Option<&Costs<'_>>, pack: &PackUse) -> bool {
        match (self, pack.tier, costs) {
            (_, Some(StoredTier::Archive), _) => false,
            (Self::Whatever, _, _) | (_, None, _) | (_, _, None) => true,
            (Self::Within(millis), Some(tier), Some(costs)) => {
                costs.rewrite(pack, tier).pays_within(months(millis))
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 15 digits")]
fn months(millis: u64) -> f64 {
    millis as f64 / MONTH_MILLIS as f64
}

impl Costs<'_> {
    fn rewrite(&self, pack: &PackUse, tier: StoredTier) -> RewriteCost {
        self.prices.rewrite(&Rewrite {
            from: tier,
            // Maps stay hot.
            to: if pack.pack.name.kind == repo_format::PackKind::Map { Tier::Hot } else { self.tier },
            len: u64::from(pack.pack.len),
            used: pack.used_bytes,
            pack_len: self.pack_len,
            age_millis: self.now.saturating_sub(pack.modified),
        })
    }

    /// Adds up what a plan does, by the tiers that packs are in.
    pub(super) fn of_plan(&self, plan: &PrunePlan) -> Vec<TierCost> {
        let mut tiers: BTreeMap<StoredTier, TierCost> = BTreeMap::new();
        for pack in &plan.packs {
            let Some(tier) = pack.tier else { continue };
            let cost = self.rewrite(pack, tier);
            let empty = || TierCost {
                tier,
                delete: Amount::default(),
                repack: Amount::default(),
                rewritten_bytes: 0,
                cost: self.prices.nothing(),
            };
            let of_tier = tiers.entry(tier).or_insert_with(empty);
            let amount = if pack.used_bytes == 0 { &mut of_tier.delete } else { &mut of_tier.repack };
            amount.packs += 1;
            amount.bytes += u64::from(pack.pack.len);
            of_tier.rewritten_bytes += pack.used_bytes;
            of_tier.cost.add(&cost);
        }
        tiers.into_values().map(|tier| TierCost { cost: tier.cost.rounded(), ..tier }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::{PackKind, PackName, PackRef, SessionId, WriterId};

    const MIB: u32 = 1 << 20;
    const DAY: u64 = 24 * 60 * 60 * 1000;
    const NOW: u64 = 1_800_000_000_000;

    fn pack(tier: StoredTier, used_mib: u32, age_days: u64) -> PackUse {
        let writer = WriterId::new("host").unwrap();
        let name = PackName { kind: PackKind::Data, writer, session: SessionId([1; 16]), number: 0 };
        PackUse {
            pack: PackRef { name, len: 32 * MIB },
            used_bytes: u64::from(used_mib * MIB),
            tier: Some(tier),
            modified: NOW - age_days * DAY,
        }
    }

    fn is_worth(payback: Payback, tier: StoredTier, used_mib: u32, age_days: u64) -> bool {
        let to = match tier {
            StoredTier::Hot => Tier::Hot,
            StoredTier::Cool => Tier::Cool,
            StoredTier::Cold | StoredTier::Archive => Tier::Cold,
        };
        let prices = Prices::default();
        let costs = Costs { prices: &prices, tier: to, pack_len: u64::from(32 * MIB), now: NOW };
        payback.is_worth(Some(&costs), &pack(tier, used_mib, age_days))
    }

    const HALF_A_YEAR: Payback = Payback::Within(6 * MONTH_MILLIS);

    #[test]
    fn a_hot_pack_is_worth_it_when_some_of_it_is_in_vain() {
        assert!(is_worth(HALF_A_YEAR, StoredTier::Hot, 16, 1));
        assert!(is_worth(HALF_A_YEAR, StoredTier::Hot, 30, 1));
        assert!(!is_worth(HALF_A_YEAR, StoredTier::Hot, 32, 1));
    }

    #[test]
    fn a_cooled_pack_is_worth_it_only_if_it_pays() {
        // Half of a cold pack saves 7e-5 a month; reading the other half costs 4.7e-4, and the requests 1.7e-4.
        assert!(!is_worth(HALF_A_YEAR, StoredTier::Cold, 16, 100));
        assert!(is_worth(Payback::Within(24 * MONTH_MILLIS), StoredTier::Cold, 16, 100));
        assert!(is_worth(HALF_A_YEAR, StoredTier::Cold, 1, 100));
        // Deleting it in its first 90 days costs what is left of them.
        assert!(is_worth(Payback::Within(3 * MONTH_MILLIS), StoredTier::Cool, 1, 31));
        assert!(!is_worth(Payback::Within(MONTH_MILLIS / 2), StoredTier::Cool, 1, 1));
        assert!(is_worth(Payback::Whatever, StoredTier::Cold, 31, 1));
    }

    #[test]
    fn an_archived_pack_is_never_read_and_a_directory_charges_nothing() {
        assert!(!is_worth(Payback::Whatever, StoredTier::Archive, 1, 1000));
        let in_directory = PackUse { tier: None, ..pack(StoredTier::Hot, 32, 1) };
        assert!(HALF_A_YEAR.is_worth(None, &in_directory));
    }

    #[test]
    fn a_plan_is_added_up_by_tier() {
        let prices = Prices::default();
        let costs = Costs { prices: &prices, tier: Tier::Hot, pack_len: u64::from(32 * MIB), now: NOW };
        let packs = vec![
            pack(StoredTier::Cool, 0, 10),
            pack(StoredTier::Hot, 8, 10),
            pack(StoredTier::Hot, 0, 10),
            pack(StoredTier::Hot, 0, 10),
        ];
        let tiers = costs.of_plan(&PrunePlan { packs, ..PrunePlan::default() });
        let of = |number, mib: u64| Amount { packs: number, bytes: mib << 20 };
        let seen: Vec<_> =
            tiers.iter().map(|of| (of.tier, of.delete, of.repack, of.rewritten_bytes >> 20)).collect();
        assert_eq!(
            seen,
            [(StoredTier::Hot, of(2, 64), of(1, 32), 8), (StoredTier::Cool, of(1, 32), of(0, 0), 0)]
        );
        assert_eq!(tiers[0].cost.in_words(), "less than 0.0001 USD now, about 0.0018 USD a month less");
        assert_eq!(tiers[1].cost.in_words(), "about 0.0002 USD now, about 0.0004 USD a month less");
    }
}
