//! GiST indexes.
//!
//! Source: `src/backend/access/gist/gistxlog.c`, `gistutil.c`.

use super::{Effect, On, Redone, index_tuple};
use crate::Lsn;
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;
use crate::version::Major;
use crate::wal::{BlockRef, Record};

const PAGE_UPDATE: u8 = 0x00;
const DELETE: u8 = 0x10;
const PAGE_SPLIT: u8 = 0x30;
const PAGE_DELETE: u8 = 0x60;

const LEAF: u16 = 1;
const DELETED: u16 = 2;
const TUPLES_DELETED: u16 = 4;
const FOLLOW_RIGHT: u16 = 8;
const HAS_GARBAGE: u16 = 0x10;
const PAGE_ID: u16 = 0xFF81;
const SPECIAL_LEN: usize = 16;
const ROOT: u32 = 0;
const INVALID: u32 = u32::MAX;
const CONTENT_AT: usize = 24;
const SHORT: Misfit = "record is too short";

/// Offsets in `GISTPageOpaqueData`.
const NSN: usize = 0;
const RIGHTLINK: usize = 8;
const FLAGS: usize = 12;
const ID: usize = 14;

/// Changes one page.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let On { record, block, ctx } = *on;
    let mut main = Reader(record.main_data);
    match (record.header.rmgr_info(), block.id) {
        (PAGE_UPDATE, 0) => update(page, &mut main, Reader(block.data))?,
        (PAGE_UPDATE, 1) | (PAGE_SPLIT, 0) => after_image(page, on)?,
        (DELETE, 0) => {
            main.skip(4).ok_or(SHORT)?;
            let n = main.u16().ok_or(SHORT)?;
            if ctx.major > Major::V15 {
                main.skip(2).ok_or(SHORT)?;
            }
            page.delete_items(&numbers(&mut main, n)?)?;
            change_flags(page, HAS_GARBAGE, TUPLES_DELETED)?;
        }
        (PAGE_SPLIT, _) => split(page, record, block, &mut main)?,
        (PAGE_DELETE, 0) => {
            let xid = main.array::<8>().ok_or(SHORT)?;
            change_flags(page, 0, DELETED)?;
            page.put(CONTENT_AT, &xid)?;
            page.set_lower(CONTENT_AT + xid.len());
        }
        (PAGE_DELETE, 1) => {
            main.skip(8).ok_or(SHORT)?;
            page.delete_item(main.u16().ok_or(SHORT)?)?;
        }
        _ => return Err("no such GiST operation"),
    }
    Ok(Effect::Changed)
}

/// What is changed even over a full-page image, which was taken before: the child of a split whose downlink is now there.
pub(super) fn after_image(page: &mut PageBuf, on: &On<'_, '_>) -> Result<(), Misfit> {
    let On { record, block, .. } = *on;
    if matches!((record.header.rmgr_info(), block.id), (PAGE_UPDATE, 1) | (PAGE_SPLIT, 0)) {
        set_nsn(page, record.end)?;
        change_flags(page, FOLLOW_RIGHT, 0)?;
    }
    Ok(())
}

fn special(page: &PageBuf) -> Result<usize, Misfit> {
    let special = page.bounds()?.special;
    if special + SPECIAL_LEN == crate::page::BLCKSZ { Ok(special) } else { Err("not a GiST page") }
}

fn change_flags(page: &mut PageBuf, clear: u16, set: u16) -> Result<(), Misfit> {
    let at = special(page)? + FLAGS;
    let flags = page.u16_at(at)? & !clear | set;
    page.put(at, &flags.to_le_bytes())
}

/// The node sequence number: stored as page LSNs are, high half first.
fn set_nsn(page: &mut PageBuf, nsn: Lsn) -> Result<(), Misfit> {
    let at = special(page)? + NSN;
    page.put(at, &nsn.0.rotate_left(32).to_le_bytes())
}

fn numbers(from: &mut Reader<'_>, n: u16) -> Result<Vec<u16>, Misfit> {
    (0..n).map(|_| from.u16().ok_or(SHORT)).collect()
}

fn update(page: &mut PageBuf, main: &mut Reader<'_>, mut data: Reader<'_>) -> Result<(), Misfit> {
    let (deletes, inserts) = (main.u16().ok_or(SHORT)?, main.u16().ok_or(SHORT)?);
    if deletes == 1 && inserts == 1 {
        let number = data.u16().ok_or(SHORT)?;
        page.overwrite_item(number, index_tuple::take(&mut data)?)?;
    } else if deletes > 0 {
        page.delete_items(&numbers(&mut data, deletes)?)?;
        if page.u16_at(special(page)? + FLAGS)? & LEAF != 0 {
            change_flags(page, 0, TUPLES_DELETED)?;
        }
    }
    while data.left() > 0 {
        page.append_item(index_tuple::take(&mut data)?)?;
    }
    Ok(())
}

/// One page of a split, written anew.
fn split(
    page: &mut PageBuf,
    record: &Record<'_>,
    block: &BlockRef<'_>,
    main: &mut Reader<'_>,
) -> Result<(), Misfit> {
    let last_link = main.u32().ok_or(SHORT)?;
    main.skip(4).ok_or(SHORT)?;
    let nsn = Lsn(main.u64().ok_or(SHORT)?);
    let is_leaf = main.u8().ok_or(SHORT)? != 0;
    main.skip(1).ok_or(SHORT)?;
    let pages = main.u16().ok_or(SHORT)?;
    let marks = main.u8().ok_or(SHORT)? != 0;
    let blkno = |id| record.block(id).map(|b| b.tag.blkno).ok_or("block reference is missing");
    let is_root = block.tag.blkno == ROOT;
    let is_last = u16::from(block.id) >= pages;

    page.init(SPECIAL_LEN);
    let mut data = Reader(block.data);
    for _ in 0..data.u32().ok_or(SHORT)? {
        page.append_item(index_tuple::take(&mut data)?)?;
    }
    let rightlink = match (is_root, is_last) {
        (true, _) => INVALID,
        (false, false) => blkno(block.id + 1)?,
        (false, true) => last_link,
    };
    let follows = !is_root && !is_last && marks && blkno(1)? != ROOT;
    let leaf = if is_leaf && !is_root { LEAF } else { 0 };
    let at = special(page)?;
    page.put(at + RIGHTLINK, &rightlink.to_le_bytes())?;
    page.put(at + FLAGS, &(leaf | if follows { FOLLOW_RIGHT } else { 0 }).to_le_bytes())?;
    page.put(at + ID, &PAGE_ID.to_le_bytes())?;
    set_nsn(page, nsn)
}
