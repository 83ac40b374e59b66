//! BRIN: block range indexes.
//!
//! Source: `src/backend/access/brin/brin_xlog.c`, `brin_pageops.c`, `brin_revmap.c`.

use super::tid::{self, Tid};
use super::{Effect, On, Redone};
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;
use crate::wal::{BlockRef, Record};

const OP_MASK: u8 = 0x70;
const INIT_PAGE: u8 = 0x80;
const CREATE_INDEX: u8 = 0x00;
const INSERT: u8 = 0x10;
const UPDATE: u8 = 0x20;
const SAMEPAGE_UPDATE: u8 = 0x30;
const REVMAP_EXTEND: u8 = 0x40;
const DESUMMARIZE: u8 = 0x50;

const SPECIAL_LEN: usize = 8;
const TYPE_META: u16 = 0xF091;
const TYPE_REVMAP: u16 = 0xF092;
const TYPE_REGULAR: u16 = 0xF093;
const META_AT: usize = 24;
const META_LEN: usize = 16;
const META_MAGIC: u32 = 0xA810_9CFA;
const LAST_REVMAP_AT: usize = META_AT + 12;
/// `REVMAP_PAGE_MAXITEMS`: TIDs between page header and special space.
const REVMAP_ITEMS: u32 = 1360;
const SHORT: Misfit = "record is too short";

/// Changes one page.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let On { record, block, .. } = *on;
    let info = record.header.rmgr_info();
    let mut main = Reader(record.main_data);
    match (info & OP_MASK, block.id) {
        (CREATE_INDEX, 0) => create_index(page, &mut main)?,
        (INSERT, _) => insert(page, record, block, &mut main)?,
        (UPDATE, 2) => page.delete_item_keep_line(main.u16().ok_or(SHORT)?)?,
        (UPDATE, _) => {
            main.skip(4).ok_or(SHORT)?;
            insert(page, record, block, &mut main)?;
        }
        (SAMEPAGE_UPDATE, 0) => page.overwrite_item(main.u16().ok_or(SHORT)?, block.data)?,
        (REVMAP_EXTEND, 0) => {
            page.put(LAST_REVMAP_AT, &main.u32().ok_or(SHORT)?.to_le_bytes())?;
            page.set_lower(META_AT + META_LEN);
        }
        (REVMAP_EXTEND, 1) => init(page, TYPE_REVMAP)?,
        (DESUMMARIZE, 0) => {
            let (per_range, heap_blk) = (main.u32().ok_or(SHORT)?, main.u32().ok_or(SHORT)?);
            set_range(page, per_range, heap_blk, tid::INVALID)?;
        }
        (DESUMMARIZE, 1) => {
            main.skip(8).ok_or(SHORT)?;
            page.delete_item_keep_line(main.u16().ok_or(SHORT)?)?;
        }
        _ => return Err("no such BRIN operation"),
    }
    Ok(Effect::Changed)
}

fn init(page: &mut PageBuf, kind: u16) -> Result<(), Misfit> {
    page.init(SPECIAL_LEN);
    page.put(usize::from(page.special()) + 6, &kind.to_le_bytes())
}

fn create_index(page: &mut PageBuf, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let (per_range, version) = (main.u32().ok_or(SHORT)?, main.u16().ok_or(SHORT)?);
    init(page, TYPE_META)?;
    let fields = [META_MAGIC, version.into(), per_range, 0];
    page.put(META_AT, fields.map(u32::to_le_bytes).as_flattened())?;
    page.set_lower(META_AT + META_LEN);
    Ok(())
}

/// The tuple on its regular page, or its place in the reverse map.
fn insert(
    page: &mut PageBuf,
    record: &Record<'_>,
    block: &BlockRef<'_>,
    main: &mut Reader<'_>,
) -> Result<(), Misfit> {
    let (heap_blk, per_range) = (main.u32().ok_or(SHORT)?, main.u32().ok_or(SHORT)?);
    let number = main.u16().ok_or(SHORT)?;
    match block.id {
        0 => {
            if record.header.info & INIT_PAGE != 0 {
                init(page, TYPE_REGULAR)?;
            }
            page.put_item(block.data, number)
        }
        1 => {
            let regular = record.block(0).ok_or("no block 0")?.tag.blkno;
            set_range(page, per_range, heap_blk, tid::tid(regular, number))
        }
        _ => Err("no such block"),
    }
}

/// `brinSetHeapBlockItemptr`.
fn set_range(page: &mut PageBuf, per_range: u32, heap_blk: u32, to: Tid) -> Result<(), Misfit> {
    let range = heap_blk.checked_div(per_range).ok_or("no pages per range")?;
    page.put(META_AT + (range % REVMAP_ITEMS) as usize * to.len(), &to)
}
