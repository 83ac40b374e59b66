//! Redo of btree indexes.

mod posting;
mod split;

use super::index_tuple::{self, Header};
use super::{DATA_SHORT, Effect, NO_SUCH_RECORD, On, Redone};
use crate::page::{BLCKSZ, Misfit, PageBuf};
use crate::reader::{Reader, u16s};
use crate::version::Major;
use posting::Keyed;

const INSERT_LEAF: u8 = 0x00;
const INSERT_UPPER: u8 = 0x10;
const INSERT_META: u8 = 0x20;
const SPLIT_L: u8 = 0x30;
const SPLIT_R: u8 = 0x40;
const INSERT_POST: u8 = 0x50;
const DEDUP: u8 = 0x60;
const DELETE: u8 = 0x70;
const UNLINK_PAGE: u8 = 0x80;
const UNLINK_PAGE_META: u8 = 0x90;
const NEWROOT: u8 = 0xA0;
const MARK_PAGE_HALFDEAD: u8 = 0xB0;
const VACUUM: u8 = 0xC0;
const META_CLEANUP: u8 = 0xE0;

/// `BTP_*`: flags of a page.
mod flags {
    pub const LEAF: u16 = 0x01;
    pub const ROOT: u16 = 0x02;
    pub const DELETED: u16 = 0x04;
    pub const META: u16 = 0x08;
    pub const HALF_DEAD: u16 = 0x10;
    pub const HAS_GARBAGE: u16 = 0x40;
    pub const INCOMPLETE_SPLIT: u16 = 0x80;
    pub const HAS_FULLXID: u16 = 0x100;
}

/// Length of the special space.
const SPECIAL_LEN: usize = 16;
const SPECIAL: usize = BLCKSZ - SPECIAL_LEN;
/// Where the content of meta and deleted pages starts.
const CONTENT: usize = crate::page::HEADER_LEN;
const META_MAGIC: u32 = 0x0005_3162;
const META_LEN: usize = 48;

/// The special space.
///
/// ```text
/// offset  0      4      8       12      14        16
///         | prev | next | level | flags | cycleid |
/// ```
///
/// Source: `BTPageOpaqueData` in `src/include/access/nbtree.h`.
#[derive(Clone, Copy, Default)]
struct Special {
    prev: u32,
    next: u32,
    level: u32,
    flags: u16,
    cycleid: u16,
}

impl Special {
    fn read(page: &PageBuf) -> Result<Self, Misfit> {
        if usize::from(page.special()) != SPECIAL {
            return Err("not a btree page");
        }
        let (prev, next) = (page.u32_at(SPECIAL)?, page.u32_at(SPECIAL + 4)?);
        let (flags, cycleid) = (page.u16_at(SPECIAL + 12)?, page.u16_at(SPECIAL + 14)?);
        Ok(Self { prev, next, level: page.u32_at(SPECIAL + 8)?, flags, cycleid })
    }

    fn write(self, page: &mut PageBuf) -> Result<(), Misfit> {
        for (at, value) in [(0, self.prev), (4, self.next), (8, self.level)] {
            page.put(SPECIAL + at, &value.to_le_bytes())?;
        }
        page.put(SPECIAL + 12, &self.flags.to_le_bytes())?;
        page.put(SPECIAL + 14, &self.cycleid.to_le_bytes())
    }

    /// Number of the first item that is not the high key.
    fn first_data(self) -> u16 {
        if self.next == 0 { 1 } else { 2 }
    }
}

/// Changes the special space of a btree page.
fn change(page: &mut PageBuf, how: impl FnOnce(&mut Special)) -> Result<(), Misfit> {
    let mut special = Special::read(page)?;
    how(&mut special);
    special.write(page)
}

/// Source: `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    match (on.record.header.rmgr_info(), on.block.id) {
        (INSERT_LEAF | INSERT_UPPER | INSERT_META, 0) => insert(page, on),
        (INSERT_POST, 0) => insert_post(page, on),
        (SPLIT_L | SPLIT_R, 0) => split::left(page, on),
        (SPLIT_L | SPLIT_R, 1) => split::right(page, on),
        (SPLIT_L | SPLIT_R, 2) => split::next(page, on),
        (INSERT_UPPER | INSERT_META | NEWROOT, 1) | (SPLIT_L | SPLIT_R, 3) => {
            change(page, |special| special.flags &= !flags::INCOMPLETE_SPLIT)
        }
        (DEDUP, 0) => dedup(page, on),
        (DELETE | VACUUM, 0) => delete(page, on),
        (UNLINK_PAGE | UNLINK_PAGE_META, 0..=3) => unlink(page, on),
        (MARK_PAGE_HALFDEAD, 0) => half_dead_leaf(page, on),
        (MARK_PAGE_HALFDEAD, 1) => half_dead_parent(page, on),
        (NEWROOT, 0) => newroot(page, on),
        (INSERT_META | NEWROOT, 2) | (UNLINK_PAGE_META, 4) | (META_CLEANUP, 0) => meta(page, on),
        _ => Err(NO_SUCH_RECORD),
    }?;
    Ok(Effect::Changed)
}

fn insert(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let number = Reader(on.record.main_data).u16().ok_or(DATA_SHORT)?;
    page.insert_item(on.block.data, number)
}

fn insert_post(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let number = Reader(on.record.main_data).u16().ok_or(DATA_SHORT)?;
    let mut data = Reader(on.block.data);
    let place = data.u16().ok_or(DATA_SHORT)?;
    let id = page.item_id(number.wrapping_sub(1))?;
    let (posting, new) = posting::swap(page.item(id)?, data.0, place.into())?;
    page.put(id.offset(), &posting)?;
    page.insert_item(&new, number)
}

/// Source: `btree_xlog_dedup`.
fn dedup(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let n = Reader(on.record.main_data).u16().ok_or(DATA_SHORT)?;
    let mut intervals = Reader(on.block.data.get(..usize::from(n) * 4).ok_or(DATA_SHORT)?);
    let mut next_interval = || intervals.u16().zip(intervals.u16());
    let special = Special::read(page)?;
    let (first, last) = (special.first_data(), page.max_offset());
    let mut new = page.empty_copy()?;
    if first == 2 {
        new.append_item(page.item(page.item_id(1)?)?)?;
    }
    let mut interval = next_interval();
    let mut number = first;
    let mut tids: Vec<u8> = Vec::new();
    while number <= last {
        let tuple = page.item(page.item_id(number)?)?;
        let items = interval.filter(|(base, _)| *base == number).map_or(1, |(_, items)| items);
        if items < 2 {
            new.append_item(tuple)?;
            number += 1;
            continue;
        }
        let key = Keyed::read(tuple)?.key;
        tids.clear();
        for _ in 0..items {
            tids.extend_from_slice(Keyed::read(page.item(page.item_id(number)?)?)?.tids);
            number += 1;
        }
        new.append_item(&posting::form(key, &tids)?)?;
        interval = next_interval();
    }
    if interval.is_some() {
        return Err("items to merge are not there");
    }
    change(&mut new, |special| special.flags &= !flags::HAS_GARBAGE)?;
    *page = new;
    Ok(())
}

/// Vacuum, and deletion of items known dead: the same work.
fn delete(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let is_vacuum = on.record.header.rmgr_info() == VACUUM;
    let main = on.record.main_data.get(if is_vacuum { 0 } else { 4 }..).unwrap_or(&[]);
    let mut main = Reader(main);
    let (deleted, updated) = main.u16().zip(main.u16()).ok_or(DATA_SHORT)?;
    let mut data = Reader(on.block.data);
    let deleted = data.bytes(usize::from(deleted) * 2).ok_or(DATA_SHORT)?;
    let updated = data.bytes(usize::from(updated) * 2).ok_or(DATA_SHORT)?;
    for number in u16s(updated) {
        let n = data.u16().ok_or(DATA_SHORT)?;
        let gone = data.bytes(usize::from(n) * 2).ok_or(DATA_SHORT)?;
        let tuple = posting::without(page.item(page.item_id(number)?)?, gone)?;
        page.overwrite_item(number, &tuple)?;
    }
    page.delete_items(&u16s(deleted).collect::<Vec<_>>())?;
    let clears_cycle = is_vacuum && on.ctx.major >= Major::V18;
    change(page, |special| {
        special.flags &= !flags::HAS_GARBAGE;
        if clears_cycle {
            special.cycleid = 0;
        }
    })
}

/// A leaf without content, whose high key names the top of the branch that is being deleted with it.
fn init_half_dead(page: &mut PageBuf, prev: u32, next: u32, top_parent: u32) -> Result<(), Misfit> {
    page.init(SPECIAL_LEN);
    Special { prev, next, flags: flags::HALF_DEAD | flags::LEAF, ..Special::default() }.write(page)?;
    let high_key = Header::new(top_parent, 0, index_tuple::HEADER_LEN).with_am_bit(true);
    page.insert_item(&high_key.bytes(), 1)
}

fn half_dead_leaf(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let mut main = Reader(on.record.main_data.get(8..).ok_or(DATA_SHORT)?);
    let (prev, next) = main.u32().zip(main.u32()).ok_or(DATA_SHORT)?;
    init_half_dead(page, prev, next, main.u32().ok_or(DATA_SHORT)?)
}

/// The key of the removed child stays, with the downlink of its right neighbour.
fn half_dead_parent(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let number = Reader(on.record.main_data).u16().ok_or(DATA_SHORT)?;
    let right = number.checked_add(1).ok_or("line pointer does not exist")?;
    let downlink = Header::read(page.item(page.item_id(right)?)?)?.blkno;
    let item = page.item_mut(page.item_id(number)?)?;
    Header { blkno: downlink, ..Header::read(item)? }.write(item)?;
    page.delete_item(right)
}

fn unlink(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let mut main = Reader(on.record.main_data);
    let (left, right) = main.u32().zip(main.u32()).ok_or(DATA_SHORT)?;
    let level = main.u32().ok_or(DATA_SHORT)?;
    let safexid = main.skip(4).and_then(|()| main.u64()).ok_or(DATA_SHORT)?;
    match on.block.id {
        0 => {
            page.init(SPECIAL_LEN);
            let leaf = if level == 0 { flags::LEAF } else { 0 };
            let flags = flags::DELETED | flags::HAS_FULLXID | leaf;
            Special { prev: left, next: right, level, flags, cycleid: 0 }.write(page)?;
            page.put(CONTENT, &safexid.to_le_bytes())?;
            page.set_lower(CONTENT + size_of::<u64>());
            Ok(())
        }
        1 => change(page, |special| special.next = right),
        2 => change(page, |special| special.prev = left),
        _ => {
            let (left, right) = main.u32().zip(main.u32()).ok_or(DATA_SHORT)?;
            init_half_dead(page, left, right, main.u32().ok_or(DATA_SHORT)?)
        }
    }
}

fn newroot(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let level = Reader(on.record.main_data.get(4..).unwrap_or(&[])).u32().ok_or(DATA_SHORT)?;
    page.init(SPECIAL_LEN);
    let leaf = if level == 0 { flags::LEAF } else { 0 };
    Special { level, flags: flags::ROOT | leaf, ..Special::default() }.write(page)?;
    if level > 0 { restore_items(page, on.block.data) } else { Ok(()) }
}

/// Puts items back whose bytes were logged as they lay on a page: the last one first.
///
/// Source: `_bt_restore_page`.
fn restore_items(page: &mut PageBuf, mut data: &[u8]) -> Result<(), Misfit> {
    let mut items = Vec::new();
    while !data.is_empty() {
        let (item, rest) = index_tuple::split_aligned(data)?;
        items.push(item);
        data = rest;
    }
    items.into_iter().rev().try_for_each(|item| page.append_item(item))
}

/// Source: `_bt_restore_meta`.
fn meta(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    const NO_HEAP_TUPLES: f64 = -1.0;
    let (fields, rest) = on.block.data.split_at_checked(24).ok_or(DATA_SHORT)?;
    let all_equal_image = *rest.first().ok_or(DATA_SHORT)?;
    page.init(SPECIAL_LEN);
    page.put(CONTENT, &META_MAGIC.to_le_bytes())?;
    page.put(CONTENT + 4, fields)?;
    page.put(CONTENT + 32, &NO_HEAP_TUPLES.to_le_bytes())?;
    page.put(CONTENT + 40, &[all_equal_image])?;
    page.set_lower(CONTENT + META_LEN);
    Special { flags: flags::META, ..Special::default() }.write(page)
}
