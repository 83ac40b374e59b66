//! Redo of heap records: one tuple changed.

use super::tuple::{self, Tuple};
use super::{DATA_SHORT, Effect, NO_SUCH_RECORD, On, Redone};
use crate::page::{ALL_VISIBLE, Misfit, PageBuf};
use crate::reader::Reader;

const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const HOT_UPDATE: u8 = 0x40;
const CONFIRM: u8 = 0x50;
const LOCK: u8 = 0x60;
const INPLACE: u8 = 0x70;
const OP_MASK: u8 = 0x70;
pub(super) const INIT_PAGE: u8 = 0x80;

/// `XLH_INSERT_ALL_VISIBLE_CLEARED` and its like: the page (the old tuple's, for an update) was all-visible.
pub(super) const ALL_VISIBLE_CLEARED: u8 = 0x01;
const UPDATE_NEW_ALL_VISIBLE_CLEARED: u8 = 0x02;
const UPDATE_PREFIX_FROM_OLD: u8 = 0x20;
const UPDATE_SUFFIX_FROM_OLD: u8 = 0x40;
const DELETE_IS_SUPER: u8 = 0x08;
const DELETE_IS_PARTITION_MOVE: u8 = 0x10;
/// What `t_ctid` of a row is that went to another partition.
const MOVED_PARTITIONS: (u32, u16) = (0xFFFF_FFFF, 0xFFFD);

/// Source: `src/backend/access/heap/heapam_xlog.c` (18), `heapam.c` (15 to 17).
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    match on.record.header.rmgr_info() & OP_MASK {
        INSERT => insert(page, on),
        DELETE => delete(page, on),
        UPDATE => update(page, on, false),
        HOT_UPDATE => update(page, on, true),
        CONFIRM => confirm(page, on),
        LOCK => lock(page, on),
        INPLACE => inplace(page, on),
        _ => Err(NO_SUCH_RECORD),
    }
}

/// The part of a tuple's header that is logged (`xl_heap_header`).
pub(super) struct Logged {
    pub infomask2: u16,
    pub infomask: u16,
    pub hoff: u8,
}

impl Logged {
    pub(super) fn read(data: &mut Reader<'_>) -> Option<Self> {
        Some(Self { infomask2: data.u16()?, infomask: data.u16()?, hoff: data.u8()? })
    }
}

/// A part of a new tuple: bytes of the record, or bytes of the page from start to end.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    Logged(&'a [u8]),
    OnPage(usize, usize),
}

impl Part<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Logged(bytes) => bytes.len(),
            Self::OnPage(start, end) => end.saturating_sub(*start),
        }
    }
}

/// Puts a tuple on the page, as inserted by the record: a header, then the parts one after another.
pub(super) fn place(
    page: &mut PageBuf,
    on: &On<'_, '_>,
    logged: &Logged,
    xmax: u32,
    offset: u16,
    parts: &[Part<'_>],
) -> Result<(), Misfit> {
    let len = parts.iter().fold(tuple::HEADER_LEN, |len, part| len.saturating_add(part.len()));
    let start = page.make_heap_item(len, offset)?;
    let mut at = start + tuple::HEADER_LEN;
    for part in parts {
        match *part {
            Part::Logged(bytes) => page.put(at, bytes)?,
            Part::OnPage(start, end) => page.shift(start, end, at)?,
        }
        at += part.len();
    }
    let mut tuple = Tuple::new(page.slice_mut(start, start + len)?)?;
    tuple.set_xmin(on.record.header.xid);
    tuple.set_xmax(xmax);
    tuple.set_field3(0);
    tuple.set_ctid(on.block.tag.blkno, offset);
    tuple.set_infomask2(logged.infomask2);
    tuple.set_infomask(logged.infomask & !tuple::COMBOCID);
    tuple.set_hoff(logged.hoff);
    Ok(())
}

fn insert(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let mut main = Reader(on.record.main_data);
    let (offset, flags) = main.u16().zip(main.u8()).ok_or(DATA_SHORT)?;
    if on.record.header.rmgr_info() & INIT_PAGE != 0 {
        page.init(0);
    }
    let mut data = Reader(on.block.data);
    let logged = Logged::read(&mut data).ok_or(DATA_SHORT)?;
    place(page, on, &logged, 0, offset, &[Part::Logged(data.0)])?;
    if flags & ALL_VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(Effect::Changed)
}

/// What deletes, updates and locks say about the tuple they find: xmax, line pointer, bits, flags.
pub(super) struct OnTuple {
    pub xmax: u32,
    pub offset: u16,
    pub infobits: u8,
    pub flags: u8,
}

impl OnTuple {
    pub(super) fn read(main: &mut Reader<'_>) -> Result<Self, Misfit> {
        let (xmax, offset) = main.u32().zip(main.u16()).ok_or(DATA_SHORT)?;
        let (infobits, flags) = main.u8().zip(main.u8()).ok_or(DATA_SHORT)?;
        Ok(Self { xmax, offset, infobits, flags })
    }
}

fn delete(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let change = OnTuple::read(&mut Reader(on.record.main_data))?;
    let mut tuple = Tuple::new(page.normal_item_mut(change.offset)?)?;
    tuple.replace_xmax_bits(change.infobits);
    tuple.set_hot_updated(false);
    if change.flags & DELETE_IS_SUPER == 0 {
        tuple.set_xmax(change.xmax);
    } else {
        // A speculative insertion taken back: nobody may ever see it.
        tuple.set_xmin(0);
    }
    tuple.reset_command();
    let itself = (on.block.tag.blkno, change.offset);
    let is_moved = change.flags & DELETE_IS_PARTITION_MOVE != 0;
    let (blkno, offset) = if is_moved { MOVED_PARTITIONS } else { itself };
    tuple.set_ctid(blkno, offset);
    page.set_prunable(on.record.header.xid);
    if change.flags & ALL_VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(Effect::Changed)
}

const UPDATE_NEW: u8 = 0;
const UPDATE_OLD: u8 = 1;

fn update(page: &mut PageBuf, on: &On<'_, '_>, is_hot: bool) -> Redone {
    let mut main = Reader(on.record.main_data);
    let old = OnTuple::read(&mut main)?;
    let (new_xmax, new_offset) = main.u32().zip(main.u16()).ok_or(DATA_SHORT)?;
    let new_blkno = on.record.block(UPDATE_NEW).ok_or("block of the new tuple is missing")?.tag.blkno;
    let is_same_page = on.record.block(UPDATE_OLD).is_none();
    if is_same_page || on.block.id == UPDATE_OLD {
        let mut tuple = Tuple::new(page.normal_item_mut(old.offset)?)?;
        tuple.replace_xmax_bits(old.infobits);
        tuple.set_hot_updated(is_hot);
        tuple.set_xmax(old.xmax);
        tuple.reset_command();
        tuple.set_ctid(new_blkno, new_offset);
        page.set_prunable(on.record.header.xid);
        if old.flags & ALL_VISIBLE_CLEARED != 0 {
            page.set_flag(ALL_VISIBLE, false);
        }
    }
    if on.block.id != UPDATE_NEW {
        return Ok(Effect::Changed);
    }
    if on.record.header.rmgr_info() & INIT_PAGE != 0 && !is_same_page {
        page.init(0);
    }
    let (logged, parts) = new_version(page, on.block.data, &old)?;
    place(page, on, &logged, new_xmax, new_offset, &parts)?;
    if old.flags & UPDATE_NEW_ALL_VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(Effect::Changed)
}

/// The parts of a new version: what the record has, and what it left out because the old version has it.
fn new_version<'a>(page: &PageBuf, data: &'a [u8], old: &OnTuple) -> Result<(Logged, [Part<'a>; 4]), Misfit> {
    let mut data = Reader(data);
    let mut shared = |flag| if old.flags & flag == 0 { Some(0) } else { data.u16() };
    let prefix_len: usize = shared(UPDATE_PREFIX_FROM_OLD).ok_or(DATA_SHORT)?.into();
    let suffix_len: usize = shared(UPDATE_SUFFIX_FROM_OLD).ok_or(DATA_SHORT)?.into();
    let logged = Logged::read(&mut data).ok_or(DATA_SHORT)?;
    let mut parts = [Part::Logged(&[]); 4];
    let [bitmap, prefix, middle, suffix] = &mut parts;
    if prefix_len > 0 || suffix_len > 0 {
        let id = page.item_id(old.offset)?;
        let (old_start, old_end) = (id.offset(), id.offset() + id.len());
        if prefix_len > 0 {
            let bitmap_len = usize::from(logged.hoff).checked_sub(tuple::HEADER_LEN);
            *bitmap = Part::Logged(bitmap_len.and_then(|len| data.bytes(len)).ok_or(DATA_SHORT)?);
            let [hoff] = page.array_at(old_start + tuple::HEADER_LEN - 1)?;
            let start = old_start + usize::from(hoff);
            if start + prefix_len > old_end {
                return Err("old tuple is shorter than the prefix");
            }
            *prefix = Part::OnPage(start, start + prefix_len);
        }
        if suffix_len > id.len() {
            return Err("old tuple is shorter than the suffix");
        }
        *suffix = Part::OnPage(old_end - suffix_len, old_end);
    }
    *middle = Part::Logged(data.0);
    Ok((logged, parts))
}

fn confirm(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let offset = Reader(on.record.main_data).u16().ok_or(DATA_SHORT)?;
    Tuple::new(page.normal_item_mut(offset)?)?.set_ctid(on.block.tag.blkno, offset);
    Ok(Effect::Changed)
}

fn lock(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let change = OnTuple::read(&mut Reader(on.record.main_data))?;
    let mut tuple = Tuple::new(page.normal_item_mut(change.offset)?)?;
    tuple.replace_xmax_bits(change.infobits);
    if tuple.is_locked_only() {
        tuple.set_hot_updated(false);
        tuple.set_ctid(on.block.tag.blkno, change.offset);
    }
    tuple.set_xmax(change.xmax);
    tuple.reset_command();
    Ok(Effect::Changed)
}

fn inplace(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let offset = Reader(on.record.main_data).u16().ok_or(DATA_SHORT)?;
    let item = page.normal_item_mut(offset)?;
    let hoff = usize::from(Tuple::new(item)?.hoff());
    let data = item.get_mut(hoff..).filter(|data| data.len() == on.block.data.len());
    data.ok_or("tuple is not as long as the one logged")?.copy_from_slice(on.block.data);
    Ok(Effect::Changed)
}
