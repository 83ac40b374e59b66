//! Hash indexes.
//!
//! Source: `src/backend/access/hash/hash_xlog.c`, `hashpage.c`, `hashovfl.c`, `hashutil.c`.

use super::{Effect, On, Redone};
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;
use crate::version::Major;
use crate::wal::{BlockRef, Record};

const INIT_META_PAGE: u8 = 0x00;
const INIT_BITMAP_PAGE: u8 = 0x10;
const INSERT: u8 = 0x20;
const ADD_OVFL_PAGE: u8 = 0x30;
const SPLIT_ALLOCATE_PAGE: u8 = 0x40;
const SPLIT_PAGE: u8 = 0x50;
const SPLIT_COMPLETE: u8 = 0x60;
const MOVE_PAGE_CONTENTS: u8 = 0x70;
const SQUEEZE_PAGE: u8 = 0x80;
const DELETE: u8 = 0x90;
const SPLIT_CLEANUP: u8 = 0xA0;
const UPDATE_META_PAGE: u8 = 0xB0;
const VACUUM_ONE_PAGE: u8 = 0xC0;

const FLAG_UNUSED: u16 = 0;
const FLAG_OVERFLOW: u16 = 1;
const FLAG_BITMAP: u16 = 4;
const FLAG_META: u16 = 8;
const FLAG_NEEDS_SPLIT_CLEANUP: u16 = 0x40;
const FLAG_HAS_DEAD_TUPLES: u16 = 0x80;
const PAGE_ID: u16 = 0xFF80;
const SPECIAL_LEN: usize = 16;
const INVALID: u32 = u32::MAX;
const BITMAP_AT: usize = 24;
const SHORT: Misfit = "record is too short";

/// Where the fields of `HashMetaPageData` lie on the metapage.
mod meta {
    pub const AT: usize = 24;
    pub const NTUPLES: usize = AT + 8;
    pub const FFACTOR: usize = AT + 16;
    pub const MAXBUCKET: usize = AT + 24;
    pub const HIGHMASK: usize = AT + 28;
    pub const LOWMASK: usize = AT + 32;
    pub const OVFLPOINT: usize = AT + 36;
    pub const FIRSTFREE: usize = AT + 40;
    pub const NMAPS: usize = AT + 44;
    pub const SPARES: usize = AT + 52;
    pub const SPARES_MAX: u32 = 98;
    pub const MAPP: usize = SPARES + 4 * SPARES_MAX as usize;
    pub const MAPP_MAX: u32 = 1024;
    /// With the padding that C adds.
    pub const END: usize = AT + 4544;
    pub const MAGIC: u32 = 0x0644_0640;
    pub const VERSION: u32 = 4;
    /// `HashGetMaxBitmapSize` of an 8 KiB page, and the power of two that fits into it.
    pub const BSIZE: u16 = 8152;
    pub const BMSIZE: u16 = 4096;
    pub const BMSHIFT: u16 = 15;
}

/// Changes one page.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let On { record, block, ctx } = *on;
    let mut main = Reader(record.main_data);
    let mut data = Reader(block.data);
    match (record.header.rmgr_info(), block.id) {
        (INIT_META_PAGE, 0) => init_meta(page, &mut main)?,
        (INIT_BITMAP_PAGE, 0) => init_bitmap(page, main.u16().ok_or(SHORT)?)?,
        (INIT_BITMAP_PAGE, 1) => {
            let blkno = page.u32_at(meta::MAXBUCKET)?.checked_add(2).ok_or("bucket number overflows")?;
            add_map(page, blkno)?;
        }
        (INSERT, 0) => page.insert_item(block.data, main.u16().ok_or(SHORT)?)?,
        (INSERT, 1) => add_tuples(page, 1.0)?,
        (ADD_OVFL_PAGE, _) => add_overflow(page, record, block, &mut main)?,
        (SPLIT_ALLOCATE_PAGE, 0) | (SPLIT_COMPLETE, 0 | 1) => after_image(page, on)?,
        (SPLIT_ALLOCATE_PAGE, 1) => {
            let bucket = main.u32().ok_or(SHORT)?;
            main.skip(2).ok_or(SHORT)?;
            init(page, bucket, bucket, main.u16().ok_or(SHORT)?)?;
        }
        (SPLIT_ALLOCATE_PAGE, 2) => split_meta(page, &mut main, &mut data)?,
        (SPLIT_PAGE, _) => return Err("hash split without a full-page image"),
        // The bucket's primary page is named only to lock it.
        (MOVE_PAGE_CONTENTS | SQUEEZE_PAGE | DELETE, 0) => return Ok(Effect::LsnKept),
        (MOVE_PAGE_CONTENTS, 1) => add_items(page, main.u16().ok_or(SHORT)?, &mut data)?,
        (MOVE_PAGE_CONTENTS, 2) => page.delete_items(&numbers(data)?)?,
        (SQUEEZE_PAGE, _) => return squeeze(page, block, &mut main, ctx.major),
        (DELETE, 1) => {
            page.delete_items(&numbers(data)?)?;
            if main.u8().ok_or(SHORT)? != 0 {
                clear_flag(page, FLAG_HAS_DEAD_TUPLES)?;
            }
        }
        (SPLIT_CLEANUP, 0) => clear_flag(page, FLAG_NEEDS_SPLIT_CLEANUP)?,
        (UPDATE_META_PAGE, 0) => page.put(meta::NTUPLES, &main.array::<8>().ok_or(SHORT)?)?,
        (VACUUM_ONE_PAGE, id) => vacuum(page, id, &mut main)?,
        _ => return Err("no such hash operation"),
    }
    Ok(Effect::Changed)
}

/// What is changed even over a full-page image, which was taken before.
pub(super) fn after_image(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let On { record, block, .. } = *on;
    let mut main = Reader(record.main_data);
    match (record.header.rmgr_info(), block.id) {
        (SPLIT_ALLOCATE_PAGE, 0) => {
            let (new_bucket, flag) = (main.u32().ok_or(SHORT)?, main.u16().ok_or(SHORT)?);
            set_special(page, Field::Flag, &flag.to_le_bytes())?;
            set_special(page, Field::Prev, &new_bucket.to_le_bytes())
        }
        (SPLIT_COMPLETE, id) => {
            let (old, new) = (main.u16().ok_or(SHORT)?, main.u16().ok_or(SHORT)?);
            set_special(page, Field::Flag, &(if id == 0 { old } else { new }).to_le_bytes())
        }
        _ => Ok(()),
    }
}

/// A field of `HashPageOpaqueData`, by its offset.
#[derive(Clone, Copy)]
enum Field {
    Prev = 0,
    Next = 4,
    Bucket = 8,
    Flag = 12,
    PageId = 14,
}

fn set_special(page: &mut PageBuf, field: Field, value: &[u8]) -> Result<(), Misfit> {
    let special = page.bounds()?.special;
    page.put(special + field as usize, value)
}

fn clear_flag(page: &mut PageBuf, flag: u16) -> Result<(), Misfit> {
    let at = page.bounds()?.special + Field::Flag as usize;
    let flags = page.u16_at(at)? & !flag;
    page.put(at, &flags.to_le_bytes())
}

/// `_hash_initbuf`.
fn init(page: &mut PageBuf, prev: u32, bucket: u32, flag: u16) -> Result<(), Misfit> {
    page.init(SPECIAL_LEN);
    set_special(page, Field::Prev, &prev.to_le_bytes())?;
    set_special(page, Field::Next, &INVALID.to_le_bytes())?;
    set_special(page, Field::Bucket, &bucket.to_le_bytes())?;
    set_special(page, Field::Flag, &flag.to_le_bytes())?;
    set_special(page, Field::PageId, &PAGE_ID.to_le_bytes())
}

/// `_hash_initbitmapbuffer`.
fn init_bitmap(page: &mut PageBuf, bytes: u16) -> Result<(), Misfit> {
    init(page, INVALID, INVALID, FLAG_BITMAP)?;
    let (end, special) = (BITMAP_AT + usize::from(bytes), usize::from(page.special()));
    if end > special {
        return Err("bitmap does not fit its page");
    }
    page.slice_mut(BITMAP_AT, end)?.fill(0xFF);
    page.set_lower(end);
    Ok(())
}

/// `_hash_init_metabuffer`.
fn init_meta(page: &mut PageBuf, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let tuples = f64::from_le_bytes(main.array().ok_or(SHORT)?);
    let (procid, ffactor) = (main.u32().ok_or(SHORT)?, main.u16().ok_or(SHORT)?);
    let wanted = tuples / f64::from(ffactor);
    let buckets = if wanted <= 2.0 || wanted.is_nan() {
        2
    } else if wanted >= f64::from(1u32 << 30) {
        1 << 30
    } else {
        #[expect(clippy::cast_sign_loss, reason = "between 2 and 2^30")]
        total_buckets(spare_index(wanted as u32))
    };
    let spare = spare_index(buckets);
    let highmask = (buckets + 1).next_power_of_two() - 1;
    init(page, INVALID, INVALID, FLAG_META)?;
    page.put(meta::AT, [meta::MAGIC, meta::VERSION].map(u32::to_le_bytes).as_flattened())?;
    let halves = [ffactor, meta::BSIZE, meta::BMSIZE, meta::BMSHIFT];
    page.put(meta::FFACTOR, halves.map(u16::to_le_bytes).as_flattened())?;
    let words = [buckets - 1, highmask, highmask >> 1, spare, 0, 0, procid];
    page.put(meta::MAXBUCKET, words.map(u32::to_le_bytes).as_flattened())?;
    page.put(spare_at(spare)?, &1u32.to_le_bytes())?;
    page.set_lower(meta::END);
    Ok(())
}

/// Split points that hold one phase each; later ones hold four.
const SINGLE_PHASE_GROUPS: u32 = 10;

/// `_hash_spareindex`.
fn spare_index(buckets: u32) -> u32 {
    let group = buckets.next_power_of_two().trailing_zeros();
    if group < SINGLE_PHASE_GROUPS {
        return group;
    }
    let phase = (buckets - 1) >> (group - 3) & 3;
    SINGLE_PHASE_GROUPS + ((group - SINGLE_PHASE_GROUPS) << 2) + phase
}

/// `_hash_get_totalbuckets`.
fn total_buckets(phase: u32) -> u32 {
    if phase < SINGLE_PHASE_GROUPS {
        return 1 << phase;
    }
    let later = phase - SINGLE_PHASE_GROUPS;
    let before = 1u32 << (SINGLE_PHASE_GROUPS + (later >> 2) - 1);
    before + (before >> 2) * ((later & 3) + 1)
}

fn spare_at(index: u32) -> Result<usize, Misfit> {
    if index < meta::SPARES_MAX { Ok(meta::SPARES + 4 * index as usize) } else { Err("no such split point") }
}

fn add_at(page: &mut PageBuf, at: usize, n: u32) -> Result<(), Misfit> {
    let sum = page.u32_at(at)?.wrapping_add(n);
    page.put(at, &sum.to_le_bytes())
}

fn add_tuples(page: &mut PageBuf, n: f64) -> Result<(), Misfit> {
    let tuples = f64::from_le_bytes(page.array_at(meta::NTUPLES)?) + n;
    page.put(meta::NTUPLES, &tuples.to_le_bytes())
}

/// Lists a new bitmap page on the metapage.
fn add_map(page: &mut PageBuf, blkno: u32) -> Result<(), Misfit> {
    let maps = page.u32_at(meta::NMAPS)?;
    if maps >= meta::MAPP_MAX {
        return Err("too many bitmap pages");
    }
    page.put(meta::MAPP + 4 * maps as usize, &blkno.to_le_bytes())?;
    add_at(page, meta::NMAPS, 1)
}

fn add_overflow(
    page: &mut PageBuf,
    record: &Record<'_>,
    block: &BlockRef<'_>,
    main: &mut Reader<'_>,
) -> Result<(), Misfit> {
    let (bmsize, found) = (main.u16().ok_or(SHORT)?, main.u8().ok_or(SHORT)? != 0);
    let blkno = |id| record.block(id).map(|b| b.tag.blkno).ok_or("block reference is missing");
    let mut data = Reader(block.data);
    match block.id {
        0 => init(page, blkno(1)?, data.u32().ok_or(SHORT)?, FLAG_OVERFLOW),
        1 => set_special(page, Field::Next, &blkno(0)?.to_le_bytes()),
        2 => set_bit(page, data.u32().ok_or(SHORT)?, true),
        3 => init_bitmap(page, bmsize),
        4 => {
            page.put(meta::FIRSTFREE, &data.array::<4>().ok_or(SHORT)?)?;
            if !found {
                let spare = spare_at(page.u32_at(meta::OVFLPOINT)?)?;
                add_at(page, spare, 1)?;
                if let Some(map) = record.block(3) {
                    add_map(page, map.tag.blkno)?;
                    add_at(page, spare, 1)?;
                }
            }
            Ok(())
        }
        _ => Err("no such block"),
    }
}

fn set_bit(page: &mut PageBuf, bit: u32, is_set: bool) -> Result<(), Misfit> {
    let at = BITMAP_AT + (bit / 32) as usize * 4;
    let (word, mask) = (page.u32_at(at)?, 1u32 << (bit % 32));
    page.put(at, &(if is_set { word | mask } else { word & !mask }).to_le_bytes())
}

fn split_meta(page: &mut PageBuf, main: &mut Reader<'_>, data: &mut Reader<'_>) -> Result<(), Misfit> {
    const MASKS: u8 = 1;
    const SPLITPOINT: u8 = 2;
    let new_bucket = main.u32().ok_or(SHORT)?;
    main.skip(4).ok_or(SHORT)?;
    let flags = main.u8().ok_or(SHORT)?;
    page.put(meta::MAXBUCKET, &new_bucket.to_le_bytes())?;
    if flags & MASKS != 0 {
        page.put(meta::LOWMASK, &data.array::<4>().ok_or(SHORT)?)?;
        page.put(meta::HIGHMASK, &data.array::<4>().ok_or(SHORT)?)?;
    }
    if flags & SPLITPOINT != 0 {
        let point = data.u32().ok_or(SHORT)?;
        page.put(spare_at(point)?, &data.array::<4>().ok_or(SHORT)?)?;
        page.put(meta::OVFLPOINT, &point.to_le_bytes())?;
    }
    Ok(())
}

/// Adds `n` items at the numbers listed before them; each is stored at its aligned length.
fn add_items(page: &mut PageBuf, n: u16, data: &mut Reader<'_>) -> Result<(), Misfit> {
    let mut at = Reader(data.bytes(2 * usize::from(n)).ok_or(SHORT)?);
    while let Some(number) = at.u16() {
        let [.., low, high] = *data.0.first_chunk::<8>().ok_or(SHORT)?;
        let len = usize::from(u16::from_le_bytes([low, high]) & 0x1FFF).next_multiple_of(8);
        page.insert_item(data.bytes(len).ok_or(SHORT)?, number)?;
    }
    if data.left() == 0 { Ok(()) } else { Err("more items than numbers") }
}

fn numbers(mut data: Reader<'_>) -> Result<Vec<u16>, Misfit> {
    let mut numbers = Vec::with_capacity(data.left() / 2);
    while data.left() > 0 {
        numbers.push(data.u16().ok_or(SHORT)?);
    }
    Ok(numbers)
}

fn squeeze(page: &mut PageBuf, block: &BlockRef<'_>, main: &mut Reader<'_>, major: Major) -> Redone {
    let (prev, next) = (main.u32().ok_or(SHORT)?, main.u32().ok_or(SHORT)?);
    let n = main.u16().ok_or(SHORT)?;
    main.skip(1).ok_or(SHORT)?;
    let prev_is_written = main.u8().ok_or(SHORT)? != 0;
    let mut data = Reader(block.data);
    match block.id {
        1 => {
            if n > 0 {
                add_items(page, n, &mut data)?;
            }
            if prev_is_written {
                set_special(page, Field::Next, &next.to_le_bytes())?;
            }
            // Before 17 the page got the record's LSN even if nothing on it changed.
            let changed = n > 0 || prev_is_written || major < Major::V17;
            return Ok(if changed { Effect::Changed } else { Effect::LsnKept });
        }
        2 => init(page, INVALID, INVALID, FLAG_UNUSED)?,
        3 => set_special(page, Field::Next, &next.to_le_bytes())?,
        4 => set_special(page, Field::Prev, &prev.to_le_bytes())?,
        5 => set_bit(page, data.u32().ok_or(SHORT)?, false)?,
        6 => page.put(meta::FIRSTFREE, &data.array::<4>().ok_or(SHORT)?)?,
        _ => return Err("no such block"),
    }
    Ok(Effect::Changed)
}

fn vacuum(page: &mut PageBuf, id: u8, main: &mut Reader<'_>) -> Result<(), Misfit> {
    main.skip(4).ok_or(SHORT)?;
    // 15 has a signed count of four bytes, later majors two bytes and a flag: the low half is the same.
    let n = main.u16().ok_or(SHORT)?;
    main.skip(2).ok_or(SHORT)?;
    match id {
        0 => {
            let listed = Reader(main.bytes(2 * usize::from(n)).ok_or(SHORT)?);
            page.delete_items(&numbers(listed)?)?;
            clear_flag(page, FLAG_HAS_DEAD_TUPLES)
        }
        1 => add_tuples(page, -f64::from(n)),
        _ => Err("no such block"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_points_and_bucket_counts_are_those_of_postgres() {
        // Every total that ends a phase maps back to that phase.
        for phase in 0..80 {
            assert_eq!(spare_index(total_buckets(phase)), phase);
        }
        assert_eq!(total_buckets(9), 512);
        assert_eq!([10, 11, 12, 13, 14].map(total_buckets), [640, 768, 896, 1024, 1280]);
        assert_eq!(spare_index(3), 2);
    }
}
