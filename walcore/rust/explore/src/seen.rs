//! `Seen`: which worlds were met.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARD_BITS: u32 = 12;
const FIRST_SLOTS: usize = 64;
const FREE: u64 = 0;

/// A set of fingerprints, for many threads.
///
/// Of each of the 128 bits of a fingerprint 76 are kept: 12 choose the shard, 64 stand in it. Among `n` worlds, two
/// share one with a probability of at most `n * n / 2 ** 77`: a billion worlds, one in 150,000. A world that shared
/// its fingerprint with one met before would be left out.
pub struct Seen {
    shards: Vec<Mutex<Shard>>,
    count: AtomicU64,
}

/// Open addressing, linear probing, at most four fifths full.
struct Shard {
    slots: Vec<u64>,
    used: usize,
}

impl Default for Seen {
    fn default() -> Self {
        let shard = || Mutex::new(Shard { slots: vec![FREE; FIRST_SLOTS], used: 0 });
        Self { shards: (0..1 << SHARD_BITS).map(|_| shard()).collect(), count: AtomicU64::new(0) }
    }
}

impl Seen {
    /// True if it was not met before.
    pub fn insert(&self, fingerprint: u128) -> bool {
        let shard = (fingerprint >> (128 - SHARD_BITS)) as usize;
        let mut shard = self.shards[shard].lock().expect("no thread panics");
        let is_new = shard.insert((fingerprint as u64).max(1));
        if is_new {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// How many were met.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Shard {
    fn insert(&mut self, key: u64) -> bool {
        let at = self.place(key);
        if self.slots[at] == key {
            return false;
        }
        self.slots[at] = key;
        self.used += 1;
        if self.used * 5 > self.slots.len() * 4 {
            let larger = vec![FREE; self.slots.len() * 3 / 2];
            for key in std::mem::replace(&mut self.slots, larger) {
                if key != FREE {
                    let at = self.place(key);
                    self.slots[at] = key;
                }
            }
        }
        true
    }

    /// Where it stands, or may be put.
    fn place(&self, key: u64) -> usize {
        let len = self.slots.len();
        let mut at = ((u128::from(key) * len as u128) >> 64) as usize;
        while self.slots[at] != FREE && self.slots[at] != key {
            at = if at + 1 == len { 0 } else { at + 1 };
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_new_once() {
        let seen = Seen::default();
        let mixed = |n: u64| u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64 | u128::from(n);
        for n in 0..1_000_000 {
            assert!(seen.insert(mixed(n)), "n={n}");
        }
        assert!((0..1_000_000).all(|n| !seen.insert(mixed(n)) || n == 1));
    }
}
