//! What was used last, up to a number of bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values with weights in bytes, of which those that were not used for the longest time go when there is no room.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    values: HashMap<K, Kept<V>>,
    /// Keys by when they were used.
    order: BTreeMap<u64, K>,
    uses: u64,
    weight: u64,
    weight_max: u64,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Lru<K, V> {
    pub(crate) fn new(weight_max: u64) -> Self {
        Self { values: HashMap::new(), order: BTreeMap::new(), uses: 0, weight: 0, weight_max }
    }

    /// A value, which is used by that.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let kept = self.values.get_mut(key)?;
        self.order.remove(&kept.used);
        self.uses += 1;
        kept.used = self.uses;
        self.order.insert(self.uses, key.clone());
        Some(kept.value.clone())
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }

    /// Keeps a value, if it is not heavier than all of them may be.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        if weight > self.weight_max {
            return;
        }
        while self.weight + weight > self.weight_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.weight -= self.values.remove(&oldest).map_or(0, |kept| kept.weight);
        }
        self.uses += 1;
        self.weight += weight;
        self.order.insert(self.uses, key.clone());
        self.values.insert(key, Kept { value, weight, used: self.uses });
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(kept) = self.values.remove(key) {
            self.order.remove(&kept.used);
            self.weight -= kept.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut lru = Lru::new(30);
        for key in 1..=3 {
            lru.insert(key, key * 10, 10);
        }
        assert_eq!(lru.get(&1), Some(10));
        lru.insert(4, 40, 20);
        let kept: Vec<_> = (1..=4).map(|key| lru.get(&key)).collect();
        assert_eq!(kept, [Some(10), None, None, Some(40)]);
    }

    #[test]
    fn what_is_too_heavy_is_not_kept_and_moves_nothing() {
        let mut lru = Lru::new(30);
        lru.insert(1, 'a', 30);
        lru.insert(2, 'b', 31);
        assert_eq!((lru.get(&1), lru.get(&2)), (Some('a'), None));
        lru.insert(1, 'c', 5);
        lru.insert(2, 'd', 25);
        assert_eq!((lru.get(&1), lru.get(&2), lru.weight), (Some('c'), Some('d'), 30));
    }
}
