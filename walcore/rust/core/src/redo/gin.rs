//! GIN: inverted indexes.
//!
//! Source: `src/backend/access/gin/ginxlog.c`, `gindatapage.c`, `ginutil.c`.

use super::gin_posting;
use super::tid;
use super::{Effect, On, Redone, index_tuple};
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;

const CREATE_PTREE: u8 = 0x10;
const INSERT: u8 = 0x20;
const SPLIT: u8 = 0x30;
const VACUUM_PAGE: u8 = 0x40;
const DELETE_PAGE: u8 = 0x50;
const UPDATE_META_PAGE: u8 = 0x60;
const INSERT_LISTPAGE: u8 = 0x70;
const DELETE_LISTPAGE: u8 = 0x80;
const VACUUM_DATA_LEAF_PAGE: u8 = 0x90;

/// Flags of an insertion.
const IS_DATA: u16 = 1;
const IS_LEAF: u16 = 2;

/// Flags of a page.
const DATA: u16 = 1;
const LEAF: u16 = 2;
const DELETED: u16 = 4;
const META: u16 = 8;
const LIST: u16 = 0x10;
const LIST_FULLROW: u16 = 0x20;
const INCOMPLETE_SPLIT: u16 = 0x40;
const COMPRESSED: u16 = 0x80;

const INVALID: u32 = u32::MAX;
const SPECIAL_LEN: usize = 8;
const META_AT: usize = 24;
const META_LEN: usize = 56;
/// Data pages: the right bound lies before the data.
const DATA_AT: usize = 32;
const POSTING_ITEM_LEN: usize = 10;
const SHORT: Misfit = "record is too short";

/// Offsets in `GinPageOpaqueData`.
const RIGHTLINK: usize = 0;
const MAXOFF: usize = 4;
const FLAGS: usize = 6;

/// Changes one page.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let On { record, block, .. } = *on;
    let mut main = Reader(record.main_data);
    match (record.header.rmgr_info(), block.id) {
        (CREATE_PTREE, 0) => {
            let len = main.u32().ok_or(SHORT)? as usize;
            let list = main.bytes(len).ok_or(SHORT)?;
            init(page, DATA | LEAF | COMPRESSED, INVALID)?;
            page.put(DATA_AT, list)?;
            set_data_len(page, len)?;
        }
        (INSERT, 0) => insert(page, &mut main, block.data)?,
        (INSERT, 1) | (SPLIT, 3) => change_flags(page, INCOMPLETE_SPLIT, 0)?,
        (SPLIT | VACUUM_PAGE, _) => return Err("GIN record without its full-page image"),
        (VACUUM_DATA_LEAF_PAGE, 0) => recompress(page, block.data)?,
        (DELETE_PAGE, _) => delete_page(page, block.id, &mut main)?,
        (UPDATE_META_PAGE, 0) => {
            main.skip(16).ok_or(SHORT)?;
            init_meta(page, main.bytes(META_LEN).ok_or(SHORT)?)?;
        }
        (UPDATE_META_PAGE, 1) => append_to_tail(page, &mut main, Reader(block.data))?,
        (INSERT_LISTPAGE, 0) => list_page(page, &mut main, Reader(block.data))?,
        (DELETE_LISTPAGE, 0) => init_meta(page, main.bytes(META_LEN).ok_or(SHORT)?)?,
        (DELETE_LISTPAGE, _) => init(page, DELETED, INVALID)?,
        _ => return Err("no such GIN operation"),
    }
    Ok(Effect::Changed)
}

fn special(page: &PageBuf) -> Result<usize, Misfit> {
    let special = page.bounds()?.special;
    if special + SPECIAL_LEN == crate::page::BLCKSZ { Ok(special) } else { Err("not a GIN page") }
}

fn flags(page: &PageBuf) -> Result<u16, Misfit> {
    page.u16_at(special(page)? + FLAGS)
}

fn change_flags(page: &mut PageBuf, clear: u16, set: u16) -> Result<(), Misfit> {
    let changed = flags(page)? & !clear | set;
    let at = special(page)? + FLAGS;
    page.put(at, &changed.to_le_bytes())
}

fn maxoff(page: &PageBuf) -> Result<u16, Misfit> {
    page.u16_at(special(page)? + MAXOFF)
}

fn set_maxoff(page: &mut PageBuf, to: u16) -> Result<(), Misfit> {
    let at = special(page)? + MAXOFF;
    page.put(at, &to.to_le_bytes())
}

fn set_rightlink(page: &mut PageBuf, to: u32) -> Result<(), Misfit> {
    let at = special(page)? + RIGHTLINK;
    page.put(at, &to.to_le_bytes())
}

/// `GinInitPage`.
fn init(page: &mut PageBuf, flags: u16, rightlink: u32) -> Result<(), Misfit> {
    page.init(SPECIAL_LEN);
    change_flags(page, u16::MAX, flags)?;
    set_rightlink(page, rightlink)
}

fn init_meta(page: &mut PageBuf, meta: &[u8]) -> Result<(), Misfit> {
    init(page, META, INVALID)?;
    page.put(META_AT, meta)?;
    page.set_lower(META_AT + META_LEN);
    Ok(())
}

/// `GinDataPageSetDataSize`.
fn set_data_len(page: &mut PageBuf, len: usize) -> Result<(), Misfit> {
    if DATA_AT + len > special(page)? {
        return Err("posting data does not fit its page");
    }
    page.set_lower(DATA_AT + len);
    Ok(())
}

fn insert(page: &mut PageBuf, main: &mut Reader<'_>, data: &[u8]) -> Result<(), Misfit> {
    let kind = main.u16().ok_or(SHORT)?;
    let right_child = if kind & IS_LEAF == 0 {
        main.skip(4).ok_or(SHORT)?;
        Some(tid::block_id(main.array().ok_or(SHORT)?))
    } else {
        None
    };
    let is_data_page = flags(page)? & DATA != 0;
    match (kind & IS_DATA != 0, right_child) {
        (is_data, _) if is_data != is_data_page => Err("entry and page are of different trees"),
        (true, None) => recompress(page, data),
        (true, Some(child)) => insert_posting_item(page, child, &mut Reader(data)),
        (false, child) => insert_entry(page, child, Reader(data)),
    }
}

fn insert_entry(page: &mut PageBuf, right_child: Option<u32>, mut data: Reader<'_>) -> Result<(), Misfit> {
    let number = data.u16().ok_or(SHORT)?;
    let deletes = data.u8().ok_or(SHORT)? != 0;
    data.skip(1).ok_or(SHORT)?;
    if let Some(child) = right_child {
        let downlink = page.normal_item_mut(number)?.first_chunk_mut::<6>().ok_or("entry is too short")?;
        *downlink = tid::tid(child, 0);
    }
    if deletes {
        page.delete_item(number)?;
    }
    page.insert_item(index_tuple::take(&mut data)?, number)
}

fn posting_item_at(number: u16) -> Result<usize, Misfit> {
    let index = number.checked_sub(1).ok_or("posting item number is 0")?;
    Ok(DATA_AT + POSTING_ITEM_LEN * usize::from(index))
}

fn insert_posting_item(page: &mut PageBuf, child: u32, data: &mut Reader<'_>) -> Result<(), Misfit> {
    let number = data.u16().ok_or(SHORT)?;
    let item = data.bytes(POSTING_ITEM_LEN).ok_or(SHORT)?;
    let count = maxoff(page)?;
    if flags(page)? & LEAF != 0 || number > count {
        return Err("no such posting item");
    }
    let more = count.checked_add(1).ok_or("too many posting items")?;
    let (at, end) = (posting_item_at(number)?, posting_item_at(more)?);
    set_data_len(page, end + POSTING_ITEM_LEN - DATA_AT)?;
    page.put(at, &tid::to_block_id(child))?;
    page.shift(at, end, at + POSTING_ITEM_LEN)?;
    page.put(at, item)?;
    set_maxoff(page, more)
}

fn delete_page(page: &mut PageBuf, id: u8, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let number = main.u16().ok_or(SHORT)?;
    main.skip(2).ok_or(SHORT)?;
    let (rightlink, xid) = (main.u32().ok_or(SHORT)?, main.u32().ok_or(SHORT)?);
    match id {
        0 => {
            change_flags(page, 0, DELETED)?;
            page.set_prune_xid(xid);
            Ok(())
        }
        1 => {
            let count = maxoff(page)?;
            if flags(page)? & LEAF != 0 || number > count {
                return Err("no such posting item");
            }
            let (at, end) = (posting_item_at(number)?, posting_item_at(count)? + POSTING_ITEM_LEN);
            page.shift(at + POSTING_ITEM_LEN, end, at)?;
            set_maxoff(page, count - 1)?;
            set_data_len(page, end - POSTING_ITEM_LEN - DATA_AT)
        }
        2 => set_rightlink(page, rightlink),
        _ => Err("no such block"),
    }
}

fn append_to_tail(page: &mut PageBuf, main: &mut Reader<'_>, mut data: Reader<'_>) -> Result<(), Misfit> {
    main.skip(16 + META_LEN).ok_or(SHORT)?;
    let (prev_tail, new_right) = (main.u32().ok_or(SHORT)?, main.u32().ok_or(SHORT)?);
    let tuples = main.u32().ok_or(SHORT)?;
    if tuples > 0 {
        for _ in 0..tuples {
            page.append_item(index_tuple::take(&mut data)?)?;
        }
        // It counts heap rows, and all these tuples are of one.
        let rows = maxoff(page)?.wrapping_add(1);
        set_maxoff(page, rows)
    } else if prev_tail == INVALID {
        Err("no tail page is named")
    } else {
        set_rightlink(page, new_right)
    }
}

fn list_page(page: &mut PageBuf, main: &mut Reader<'_>, mut data: Reader<'_>) -> Result<(), Misfit> {
    let (rightlink, tuples) = (main.u32().ok_or(SHORT)?, main.u32().ok_or(SHORT)?);
    let is_tail = rightlink == INVALID;
    init(page, if is_tail { LIST | LIST_FULLROW } else { LIST }, rightlink)?;
    set_maxoff(page, u16::from(is_tail))?;
    for _ in 0..tuples {
        page.append_item(index_tuple::take(&mut data)?)?;
    }
    Ok(())
}

/// `ginRedoRecompress`: changes the segments of a leaf page of a posting tree.
fn recompress(page: &mut PageBuf, data: &[u8]) -> Result<(), Misfit> {
    if flags(page)? & (DATA | LEAF) != DATA | LEAF {
        return Err("not a leaf of a posting tree");
    }
    let old = if flags(page)? & COMPRESSED != 0 {
        page.slice(DATA_AT, page.bounds()?.lower)?.to_vec()
    } else {
        uncompressed(page)?
    };
    let new = gin_posting::recompress(&old, data)?;
    set_data_len(page, new.len())?;
    page.put(DATA_AT, &new)
}

/// A page from before 9.4, upgraded in place: its TIDs become one segment.
fn uncompressed(page: &mut PageBuf) -> Result<Vec<u8>, Misfit> {
    let count = usize::from(maxoff(page)?);
    let items = page.slice(DATA_AT, DATA_AT + 6 * count)?;
    let segment = if count > 0 { gin_posting::compress(&gin_posting::items(items)?)? } else { Vec::new() };
    change_flags(page, 0, COMPRESSED)?;
    set_maxoff(page, 0)?;
    Ok(segment)
}
