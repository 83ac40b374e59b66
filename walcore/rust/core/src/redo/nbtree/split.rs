//! Redo of page splits.

use super::posting;
use super::{SPECIAL_LEN, SPLIT_L, Special, change, flags, restore_items};
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;
use crate::redo::index_tuple::split_aligned;
use crate::redo::{DATA_SHORT, On};

/// `xl_btree_split`.
struct Split {
    level: u32,
    first_right: u16,
    new_item: u16,
    posting: u16,
    new_is_left: bool,
}

impl Split {
    fn read(on: &On<'_, '_>) -> Result<Self, Misfit> {
        let mut main = Reader(on.record.main_data);
        let (level, first_right) = main.u32().zip(main.u16()).ok_or(DATA_SHORT)?;
        let (new_item, posting) = main.u16().zip(main.u16()).ok_or(DATA_SHORT)?;
        let new_is_left = on.record.header.rmgr_info() == SPLIT_L;
        Ok(Self { level, first_right, new_item, posting, new_is_left })
    }

    fn leaf_flag(&self) -> u16 {
        if self.level == 0 { flags::LEAF } else { 0 }
    }
}

fn blkno(on: &On<'_, '_>, id: u8) -> Option<u32> {
    on.record.block(id).map(|block| block.tag.blkno)
}

/// The new right page, from what was logged.
pub(super) fn right(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let split = Split::read(on)?;
    let (prev, next) = (blkno(on, 0).ok_or("left page is missing")?, blkno(on, 2).unwrap_or(0));
    page.init(SPECIAL_LEN);
    Special { prev, next, level: split.level, flags: split.leaf_flag(), cycleid: 0 }.write(page)?;
    restore_items(page, on.block.data)
}

/// The page right of the new one.
pub(super) fn next(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let right = blkno(on, 1).ok_or("right page is missing")?;
    change(page, |special| special.prev = right)
}

/// The page that was split: its left half, item by item on an empty page, so that they lie as Postgres lays them.
pub(super) fn left(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let split = Split::read(on)?;
    let right = blkno(on, 1).ok_or("right page is missing")?;
    let mut data = on.block.data;
    let mut new_item: &[u8] = &[];
    if split.new_is_left || split.posting != 0 {
        (new_item, data) = split_aligned(data)?;
    }
    let (high_key, _) = split_aligned(data)?;
    let swapped = if split.posting == 0 {
        None
    } else {
        let number = split.new_item.checked_sub(1).ok_or("posting tuple is missing")?;
        let posting = page.item(page.item_id(number)?)?;
        let (posting, new) = posting::swap(posting, new_item, split.posting.into())?;
        Some((number, posting, new))
    };
    if let Some((_, _, new)) = &swapped {
        new_item = new;
    }
    let mut left = page.empty_copy()?;
    left.append_item(high_key)?;
    for number in Special::read(page)?.first_data()..split.first_right {
        if let Some((_, posting, _)) = swapped.as_ref().filter(|(at, ..)| *at == number) {
            left.append_item(posting)?;
            continue;
        }
        if split.new_is_left && number == split.new_item {
            left.append_item(new_item)?;
        }
        left.append_item(page.item(page.item_id(number)?)?)?;
    }
    if split.new_is_left && split.first_right == split.new_item {
        left.append_item(new_item)?;
    }
    change(&mut left, |special| {
        special.flags = flags::INCOMPLETE_SPLIT | split.leaf_flag();
        special.next = right;
        special.cycleid = 0;
    })?;
    *page = left;
    Ok(())
}
