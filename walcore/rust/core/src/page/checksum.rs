//! `pd_checksum`: what a page must carry on the disk of a cluster with data checksums.

use super::{BLCKSZ, PageBuf};

/// Sums that run side by side.
const SUMS: usize = 32;
const FNV_PRIME: u32 = 16_777_619;
const SEEDS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

fn mix(sum: u32, word: u32) -> u32 {
    let mixed = sum ^ word;
    mixed.wrapping_mul(FNV_PRIME) ^ mixed >> 17
}

impl PageBuf {
    /// Sets `pd_checksum` to what the page's bytes and its block number ask for; a new page stays without.
    ///
    /// Source: `pg_checksum_page` in `src/include/storage/checksum_impl.h`, `PageSetChecksumInplace` in
    /// `src/backend/storage/page/bufpage.c`.
    pub fn stamp_checksum(&mut self, blkno: u32) {
        if self.is_new() {
            return;
        }
        self.set_checksum(0);
        let folded = block_sum(self.bytes()) ^ blkno;
        self.set_checksum((folded % 65535 + 1) as u16);
    }
}

fn block_sum(page: &[u8; BLCKSZ]) -> u32 {
    let mut sums = SEEDS;
    for row in page.chunks_exact(SUMS * 4) {
        for (sum, word) in sums.iter_mut().zip(row.chunks_exact(4)) {
            *sum = mix(*sum, word.try_into().map_or(0, u32::from_le_bytes));
        }
    }
    sums.iter().fold(0, |folded, sum| folded ^ mix(mix(*sum, 0), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_depends_on_every_byte_and_on_the_block_and_a_new_page_has_none() {
        let mut page = PageBuf::zeroed();
        page.stamp_checksum(7);
        assert_eq!(page.checksum(), 0);

        page.init(16);
        page.stamp_checksum(7);
        let first = page.checksum();
        page.stamp_checksum(7);
        assert_eq!(page.checksum(), first, "its own field does not count");
        page.stamp_checksum(8);
        assert_ne!(page.checksum(), first);
        for at in (HEADER_TAIL..BLCKSZ).step_by(97) {
            let mut other = page.clone();
            other.bytes_mut()[at] ^= 1;
            other.stamp_checksum(7);
            assert_ne!(other.checksum(), first, "byte {at}");
        }
    }

    /// Behind `pd_upper`, which says whether a page is new.
    const HEADER_TAIL: usize = 16;
}
