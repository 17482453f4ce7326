//! Hashing for maps whose keys come from policy alone: quick, and not proof against keys that somebody chose to collide.
//! A request only ever looks texts up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub type TextMap<V> = HashMap<Box<str>, V, BuildHasherDefault<TextHasher>>;

/// Multiply and rotate, eight bytes at a time.
#[derive(Debug, Default)]
pub struct TextHasher(u64);

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio

impl TextHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(MULTIPLIER);
    }
}

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.mix(u64::from_le_bytes(last));
        self.mix(bytes.len() as u64);
    }

    /// What ends a text in `Hash for str`: the length says it already.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        // The map takes its buckets from the low bits and its tags from the high ones.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use super::*;

    fn hash(text: &str) -> u64 {
        let mut hasher = TextHasher::default();
        text.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn like_texts_are_spread_over_buckets() {
        let texts = (0..10_000).map(|number| format!("collection-{number}"));
        let hashes: Vec<u64> = texts.map(|text| hash(&text)).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), 10_000);
        // Thrown at random, 10,000 balls leave about 5,400 of 16,384 buckets filled once or more often: 7,480.
        let buckets: HashSet<_> = hashes.iter().map(|hash| hash & 0x3fff).collect();
        let tags: HashSet<_> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(
            buckets.len() > 6_500 && tags.len() > 120,
            "{} {}",
            buckets.len(),
            tags.len()
        );
        assert_ne!(hash(""), hash("\0"));
    }
}
