//! Gin.
//!
//! Source: `src/backend/access/rmgrdesc/gindesc.c`.

use super::heap::block_number;
use super::text::{Tf, put};
use crate::reader::Reader;
use crate::wal::Record;

const IS_DATA: u16 = 1;
const IS_LEAF: u16 = 2;
const SPLIT_ROOT: u16 = 4;

pub(super) fn gin(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x20 => insert(out, record, r)?,
        0x30 => {
            r.skip(24)?;
            let flags = r.u16()?;
            put!(out; "isrootsplit: ", Tf(flags & SPLIT_ROOT != 0));
            put!(out; " isdata: ", Tf(flags & IS_DATA != 0), " isleaf: ", Tf(flags & IS_LEAF != 0));
        }
        0x90 if !image(out, record) => recompressed_leaf(out, Reader(record.block(0)?.data))?,
        0x80 => {
            r.skip(56)?;
            put!(out; "ndeleted: ", r.i32()?);
        }
        _ => {}
    }
    Some(())
}

fn insert(out: &mut Vec<u8>, record: &Record<'_>, mut r: Reader<'_>) -> Option<()> {
    let flags = r.u16()?;
    let (is_data, is_leaf) = (flags & IS_DATA != 0, flags & IS_LEAF != 0);
    put!(out; "isdata: ", Tf(is_data), " isleaf: ", Tf(is_leaf));
    if !is_leaf {
        put!(out; " children: ", block_number(&mut r)?, "/", block_number(&mut r)?);
    }
    if image(out, record) {
        return Some(());
    }
    let mut data = Reader(record.block(0)?.data);
    match (is_data, is_leaf) {
        (false, _) => {
            data.skip(2)?;
            put!(out; " isdelete: ", Tf(data.u8()? != 0));
        }
        (true, true) => recompressed_leaf(out, data)?,
        (true, false) => {
            data.skip(2)?;
            put!(out; " pitem: ", block_number(&mut data)?, "-");
            put!(out; block_number(&mut data)?, "/", data.u16()?);
        }
    }
    Some(())
}

/// Says whether the page is there as an image.
fn image(out: &mut Vec<u8>, record: &Record<'_>) -> bool {
    let Some(image) = record.block(0).and_then(|block| block.image.as_ref()) else { return false };
    put!(out; " (full page image", if image.apply() { ")" } else { ", for WAL verification)" });
    true
}

fn recompressed_leaf(out: &mut Vec<u8>, mut r: Reader<'_>) -> Option<()> {
    let count = r.u16()?;
    put!(out; " ", count, " segments:");
    for _ in 0..count {
        let (segment, action) = (r.u8()?, r.u8()?);
        put!(out; " ", segment);
        match action {
            1 => put!(out; " (delete)"),
            2 | 3 => {
                // A posting list: its first item pointer, its length, its bytes, all aligned to 2.
                r.skip(6)?;
                let bytes = usize::from(r.u16()?);
                r.skip(bytes + bytes % 2)?;
                put!(out; if action == 2 { " (insert)" } else { " (replace)" });
            }
            4 => {
                let items = r.u16()?;
                r.skip(usize::from(items) * 6)?;
                put!(out; " (add ", items, " items)");
            }
            _ => {
                put!(out; " unknown action ", action, " ???");
                return Some(());
            }
        }
    }
    Some(())
}
