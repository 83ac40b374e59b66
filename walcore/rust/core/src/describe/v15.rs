//! Heap, Heap2 and Btree as 15 words them; 16 reworded them all.
//!
//! Source: PostgreSQL 15 `src/backend/access/rmgrdesc/heapdesc.c` and `nbtdesc.c`.

use super::heap::{block_number, infobit_names};
use super::text::{FullXid, Hex, put};
use crate::reader::Reader;
use crate::wal::{Record, RelTag};

fn infobits(out: &mut Vec<u8>, bits: u8) {
    for name in infobit_names(bits) {
        put!(out; name, " ");
    }
}

pub(super) fn heap(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.info & 0x70 {
        0x00 => put!(out; "off ", r.u16()?, " flags 0x", Hex(r.u8()?.into(), 2)),
        0x10 => {
            r.skip(4)?;
            let (offset, bits, flags) = (r.u16()?, r.u8()?, r.u8()?);
            put!(out; "off ", offset, " flags 0x", Hex(flags.into(), 2), " ");
            infobits(out, bits);
        }
        0x20 | 0x40 => {
            let (old_xmax, offset, bits, flags) = (r.u32()?, r.u16()?, r.u8()?, r.u8()?);
            put!(out; "off ", offset, " xmax ", old_xmax, " flags 0x", Hex(flags.into(), 2), " ");
            infobits(out, bits);
            let (new_xmax, offset) = (r.u32()?, r.u16()?);
            put!(out; "; new off ", offset, " xmax ", new_xmax);
        }
        0x30 => truncate(out, r)?,
        0x60 => lock(out, r, ": xid ")?,
        _ => put!(out; "off ", r.u16()?),
    }
    Some(())
}

fn truncate(out: &mut Vec<u8>, mut r: Reader<'_>) -> Option<()> {
    r.skip(4)?;
    let (count, flags) = (r.u32()?, r.u32()?);
    put!(out; if flags & 1 == 0 { "" } else { "cascade " }, if flags & 2 == 0 { "" } else { "restart_seqs " });
    put!(out; "nrelids ", count, " relids");
    for _ in 0..count {
        put!(out; " ", r.u32()?);
    }
    Some(())
}

fn lock(out: &mut Vec<u8>, mut r: Reader<'_>, key: &str) -> Option<()> {
    let (xid, offset, bits, flags) = (r.u32()?, r.u16()?, r.u8()?, r.u8()?);
    put!(out; "off ", offset, key, xid, ": flags 0x", Hex(flags.into(), 2), " ");
    infobits(out, bits);
    Some(())
}

pub(super) fn heap2(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.info & 0x70 {
        0x10 => {
            put!(out; "latestRemovedXid ", r.u32()?, " nredirected ", r.u16()?, " ndead ", r.u16()?);
        }
        0x20 => put!(out; "nunused ", r.u16()?),
        0x30 => put!(out; "cutoff xid ", r.u32()?, " ntuples ", r.u16()?),
        0x40 => put!(out; "cutoff xid ", r.u32()?, " flags 0x", Hex(r.u8()?.into(), 2)),
        0x50 => {
            let (flags, count) = (r.u16()? & 0xFF, r.u16()?);
            put!(out; count, " tuples flags 0x", Hex(flags.into(), 2));
        }
        0x60 => lock(out, r, ": xmax ")?,
        0x70 => {
            r.skip(4)?;
            let (cmin, cmax, combo) = (r.u32()?, r.u32()?, r.u32()?);
            let rel = RelTag { spc: r.u32()?, db: r.u32()?, rel: r.u32()? };
            put!(out; "rel ", rel, "; tid ", block_number(&mut r)?, "/", r.u16()?);
            put!(out; "; cmin: ", cmin, ", cmax: ", cmax, ", combo: ", combo);
        }
        _ => {}
    }
    Some(())
}

pub(super) fn btree(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 | 0x10 | 0x20 | 0x50 => put!(out; "off ", r.u16()?),
        0x30 | 0x40 => {
            put!(out; "level ", r.u32()?, ", firstrightoff ", r.u16()?);
            put!(out; ", newitemoff ", r.u16()?, ", postingoff ", r.u16()?);
        }
        0x60 => put!(out; "nintervals ", r.u16()?),
        0xC0 => put!(out; "ndeleted ", r.u16()?, "; nupdated ", r.u16()?),
        0x70 => put!(out; "latestRemovedXid ", r.u32()?, "; ndeleted ", r.u16()?, "; nupdated ", r.u16()?),
        0xB0 => {
            r.skip(4)?;
            let (leaf, left, right, top) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
            put!(out; "topparent ", top, "; leaf ", leaf, "; left ", left, "; right ", right);
        }
        0x80 | 0x90 => {
            put!(out; "left ", r.u32()?, "; right ", r.u32()?, "; level ", r.u32()?);
            r.skip(4)?;
            put!(out; "; safexid ", FullXid(r.u64()?), "; leafleft ", r.u32()?, "; leafright ", r.u32()?);
            put!(out; "; leaftopparent ", r.u32()?);
        }
        0xA0 => {
            r.skip(4)?;
            put!(out; "lev ", r.u32()?);
        }
        0xD0 => {
            put!(out; "rel ", RelTag { spc: r.u32()?, db: r.u32()?, rel: r.u32()? });
            r.skip(4)?;
            put!(out; "; latestRemovedXid ", FullXid(r.u64()?));
        }
        0xE0 => {
            let mut data = Reader(record.block(0)?.data);
            data.skip(20)?;
            put!(out; "last_cleanup_num_delpages ", data.u32()?);
        }
        _ => {}
    }
    Some(())
}
