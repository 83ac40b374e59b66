//! What an image would take, packed by each method of `wal_compression`.

use crate::page::BLCKSZ;
use crate::wal::image::Compression;

/// Packs images one after the other, and keeps what that needs.
pub struct Packer {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
    pglz: Pglz,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            zstd: zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL).ok(),
            out: vec![0; 2 * BLCKSZ],
            pglz: Pglz::default(),
        }
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

impl Packer {
    /// Bytes that the WAL would hold for an image of `raw`, a page without its hole, headers of compression included.
    ///
    /// Source: `XLogCompressBackupBlock` in `src/backend/access/transam/xloginsert.c`.
    pub fn stored_len(&mut self, raw: &[u8], method: Compression) -> usize {
        let packed = match method {
            Compression::None => None,
            Compression::Pglz => self.pglz.compressed_len(raw),
            Compression::Lz4 => lz4_flex::block::compress_into(raw, &mut self.out).ok(),
            Compression::Zstd => {
                let Self { zstd, out, .. } = self;
                zstd.as_mut().and_then(|zstd| zstd.compress_to_buffer(raw, out.as_mut_slice()).ok())
            }
        };
        // The length of the hole must be said, once it does not follow from the image's.
        let extra = if raw.len() < BLCKSZ { 2 } else { 0 };
        packed.filter(|len| len + extra < raw.len()).map_or(raw.len(), |len| len + extra)
    }
}

/// Finds what pglz finds: matches in the last 4 KiB, through chains of positions with the same hash.
#[derive(Debug)]
struct Pglz {
    /// By hash: 1 + the last position; 0: none.
    heads: Vec<u16>,
    /// By position: 1 + the one before it with the same hash.
    before: Vec<u16>,
}

impl Default for Pglz {
    fn default() -> Self {
        Self { heads: vec![0; 8192], before: vec![0; BLCKSZ] }
    }
}

const MATCH_MAX: usize = 273;
const OFFSET_MAX: usize = 0x0FFF;
/// Of `PGLZ_strategy_default`.
const INPUT_MIN: usize = 32;
const GIVE_UP_AFTER: usize = 1024;
const GOOD_MATCH: usize = 128;
const GOOD_DROP: usize = 10;

impl Pglz {
    /// Length of what `pglz_compress` makes of at most a page; `None` if it gives up: less than a quarter is saved.
    ///
    /// Source: `src/common/pg_lzcompress.c`.
    fn compressed_len(&mut self, raw: &[u8]) -> Option<usize> {
        let len_max = raw.len() * 75 / 100;
        if raw.len() < INPUT_MIN || raw.len() > BLCKSZ {
            return None;
        }
        let mask = match raw.len() {
            ..128 => 511,
            128..256 => 1023,
            256..512 => 2047,
            512..1024 => 4095,
            _ => 8191,
        };
        self.heads.fill(0);
        let (mut at, mut len, mut items, mut matched) = (0, 0, 0u32, false);
        while at < raw.len() {
            if len >= len_max || !matched && len >= GIVE_UP_AFTER {
                return None;
            }
            // A byte of control bits before every eight items.
            len += usize::from(items % 8 == 0);
            items += 1;
            let found = self.longest_match(raw, at, mask);
            matched |= found > 0;
            len += match found {
                0 => 1,
                1..=17 => 2,
                _ => 3,
            };
            for _ in 0..found.max(1) {
                self.add(raw, at, mask);
                at += 1;
            }
        }
        (len < len_max).then_some(len)
    }

    /// Length of the match to be taken at a position; 0: none.
    fn longest_match(&self, raw: &[u8], at: usize, mask: usize) -> usize {
        let here = raw.get(at..).unwrap_or_default();
        let (mut best, mut good) = (0, GOOD_MATCH);
        let mut candidate = self.heads.get(hash(here, mask)).copied().unwrap_or(0);
        while let Some(from) = usize::from(candidate).checked_sub(1) {
            if at - from >= OFFSET_MAX {
                break;
            }
            let there = raw.get(from..).unwrap_or_default();
            let same = here.iter().zip(there).take(MATCH_MAX).take_while(|(a, b)| a == b).count();
            best = best.max(same);
            if best >= good {
                break;
            }
            good -= good * GOOD_DROP / 100;
            candidate = self.before.get(from).copied().unwrap_or(0);
        }
        if best > 2 { best } else { 0 }
    }

    fn add(&mut self, raw: &[u8], at: usize, mask: usize) {
        let hash = hash(raw.get(at..).unwrap_or_default(), mask);
        if let (Some(head), Some(before)) = (self.heads.get_mut(hash), self.before.get_mut(at)) {
            *before = *head;
            *head = at as u16 + 1;
        }
    }
}

/// Of the next four bytes, each taken as signed.
fn hash(next: &[u8], mask: usize) -> usize {
    let signed = |b: u8| i32::from(i8::from_ne_bytes([b]));
    let mixed = match next {
        [a, b, c, d, ..] => signed(*a) << 6 ^ signed(*b) << 4 ^ signed(*c) << 2 ^ signed(*d),
        [a, ..] => signed(*a),
        [] => 0,
    };
    u32::from_ne_bytes(mixed.to_ne_bytes()) as usize & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_packed_and_noise_is_stored_as_it_is() {
        let mut packer = Packer::default();
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(BLCKSZ)
        .collect();
        for method in [Compression::Pglz, Compression::Lz4, Compression::Zstd] {
            assert_eq!(packer.stored_len(&noise, method), BLCKSZ);
            assert!(packer.stored_len(&[7; BLCKSZ], method) < 200, "{method:?}");
            // Two bytes more say how long the hole is.
            assert!(packer.stored_len(&[7; BLCKSZ - 1], method) < 200, "{method:?}");
        }
        assert_eq!(packer.stored_len(&[7; 100], Compression::None), 100);
    }

    #[test]
    fn pglz_counts_control_bytes_literals_and_tags() {
        // One literal, then a match of 273, and one of the rest.
        assert_eq!(Pglz::default().compressed_len(&[7; 500]), Some(1 + 1 + 3 + 3));
        assert_eq!(Pglz::default().compressed_len(&[7; 31]), None);
    }
}
