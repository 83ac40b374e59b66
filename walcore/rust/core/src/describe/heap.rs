//! Heap and Heap2, as 16 and later word them.
//!
//! Source: `src/backend/access/rmgrdesc/heapdesc.c`.

use super::standby::invalidations;
use super::text::{Hex, Tf, array, offsets, put, u16_of};
use crate::reader::Reader;
use crate::version::Major;
use crate::wal::{Record, RelTag};

const INFOBITS: [&str; 5] = ["IS_MULTI", "LOCK_ONLY", "EXCL_LOCK", "KEYSHR_LOCK", "KEYS_UPDATED"];
const TRUNCATE_FLAGS: [&str; 2] = ["CASCADE", "RESTART_SEQS"];
const INIT_PAGE: u8 = 0x80;

/// Names of the bits that are set, from the lowest; shared with the wording of 15.
pub(super) fn infobit_names(bits: u8) -> impl Iterator<Item = &'static str> {
    names_of(bits, &INFOBITS)
}

fn names_of(bits: u8, names: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    names.iter().enumerate().filter(move |(i, _)| bits >> i & 1 != 0).map(|(_, name)| *name)
}

fn bits(out: &mut Vec<u8>, key: &str, names: impl Iterator<Item = &'static str>) {
    put!(out; key, ":");
    array(out, names, |out, name| put!(out; name));
}

pub(super) fn heap(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.info & 0x70 {
        0x00 => put!(out; "off: ", r.u16()?, ", flags: 0x", Hex(r.u8()?.into(), 2)),
        0x10 | 0x60 => lock(out, r)?,
        0x20 | 0x40 => {
            put!(out; "old_xmax: ", r.u32()?, ", old_off: ", r.u16()?, ", ");
            bits(out, "old_infobits", infobit_names(r.u8()?));
            put!(out; ", flags: 0x", Hex(r.u8()?.into(), 2), ", new_xmax: ", r.u32()?, ", new_off: ", r.u16()?);
        }
        0x30 => {
            r.skip(4)?;
            let (count, flags) = (r.u32()?, r.u32()? as u8);
            bits(out, "flags", names_of(flags, &TRUNCATE_FLAGS));
            put!(out; ", nrelids: ", count, ", relids:");
            let relids = r.bytes((count as usize).checked_mul(4)?)?;
            array(
                out,
                relids.chunks_exact(4),
                |out, b| put!(out; b.first_chunk().map_or(0, |b| u32::from_le_bytes(*b))),
            );
        }
        0x50 => put!(out; "off: ", r.u16()?),
        _ => {
            put!(out; "off: ", r.u16()?);
            if major >= Major::V18 {
                r.skip(2)?;
                let (db, spc, init_file) = (r.u32()?, r.u32()?, r.u32()? as u8 != 0);
                let count = r.i32()?;
                invalidations(out, major, &mut r, count, init_file.then_some((db, spc)))?;
            }
        }
    }
    Some(())
}

fn lock(out: &mut Vec<u8>, mut r: Reader<'_>) -> Option<()> {
    put!(out; "xmax: ", r.u32()?, ", off: ", r.u16()?, ", ");
    bits(out, "infobits", infobit_names(r.u8()?));
    put!(out; ", flags: 0x", Hex(r.u8()?.into(), 2));
    Some(())
}

pub(super) fn heap2(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    let data = record.block(0).map_or(&[][..], |block| block.data);
    match record.header.info & 0x70 {
        0x10..=0x30 if major >= Major::V17 => prune_freeze(out, r, data)?,
        0x10 => prune(out, r, data)?,
        0x20 => {
            put!(out; "nunused: ", r.u16()?);
            if !data.is_empty() {
                put!(out; ", unused:");
                offsets(out, data);
            }
        }
        0x30 => {
            let (horizon, count) = (r.u32()?, r.u16()?);
            put!(out; "snapshotConflictHorizon: ", horizon, ", nplans: ", count);
            if !data.is_empty() {
                let mut data = Reader(data);
                let plans = data.bytes(usize::from(count) * PLAN_LEN)?;
                freeze_plans(out, plans, data.0)?;
            }
        }
        0x40 => put!(out; "snapshotConflictHorizon: ", r.u32()?, ", flags: 0x", Hex(r.u8()?.into(), 2)),
        0x50 => {
            let (flags, count) = (r.u16()? as u8, r.u16()?);
            put!(out; "ntuples: ", count, ", flags: 0x", Hex(flags.into(), 2));
            if !data.is_empty() && record.header.info & INIT_PAGE == 0 {
                put!(out; ", offsets:");
                offsets(out, r.bytes(usize::from(count) * 2)?);
            }
        }
        0x60 => lock(out, r)?,
        0x70 => {
            r.skip(4)?;
            let (cmin, cmax, combo) = (r.u32()?, r.u32()?, r.u32()?);
            let rel = RelTag { spc: r.u32()?, db: r.u32()?, rel: r.u32()? };
            put!(out; "rel: ", rel, ", tid: ", block_number(&mut r)?, "/", r.u16()?);
            put!(out; ", cmin: ", cmin, ", cmax: ", cmax, ", combo: ", combo);
        }
        _ => {}
    }
    Some(())
}

/// A block number as tuple identifiers have it: its high half first.
pub(super) fn block_number(r: &mut Reader<'_>) -> Option<u32> {
    Some(u32::from(r.u16()?) << 16 | u32::from(r.u16()?))
}

/// 16: redirected pairs, dead and unused offsets follow each other; the rest are unused.
fn prune(out: &mut Vec<u8>, mut r: Reader<'_>, data: &[u8]) -> Option<()> {
    let (horizon, redirected, dead) = (r.u32()?, r.u16()?, r.u16()?);
    put!(out; "snapshotConflictHorizon: ", horizon, ", nredirected: ", redirected, ", ndead: ", dead);
    if data.is_empty() {
        return Some(());
    }
    let mut data = Reader(data);
    let pairs = data.bytes(usize::from(redirected) * 4)?;
    let dead = data.bytes(usize::from(dead) * 2)?;
    put!(out; ", nunused: ", (data.left() / 2) as u64, ", redirected:");
    redirections(out, pairs);
    put!(out; ", dead:");
    offsets(out, dead);
    put!(out; ", unused:");
    offsets(out, data.0);
    Some(())
}

fn redirections(out: &mut Vec<u8>, pairs: &[u8]) {
    array(out, pairs.chunks_exact(4), |out, pair| {
        let (from, to) = pair.split_at(2);
        put!(out; u16_of(from), "->", u16_of(to));
    });
}

const PLAN_LEN: usize = 12;

fn freeze_plans(out: &mut Vec<u8>, plans: &[u8], frozen: &[u8]) -> Option<()> {
    put!(out; ", plans:");
    let mut frozen = Reader(frozen);
    let mut whole = Some(());
    array(out, plans.chunks_exact(PLAN_LEN), |out, plan| {
        whole = whole.and_then(|()| freeze_plan(out, Reader(plan), &mut frozen));
    });
    whole
}

fn freeze_plan(out: &mut Vec<u8>, mut r: Reader<'_>, frozen: &mut Reader<'_>) -> Option<()> {
    let (xmax, infomask2, infomask) = (r.u32()?, r.u16()?, r.u16()?);
    r.skip(2)?;
    let count = r.u16()?;
    put!(out; "{ xmax: ", xmax, ", infomask: ", infomask, ", infomask2: ", infomask2, ", ntuples: ", count);
    put!(out; ", offsets:");
    offsets(out, frozen.bytes(usize::from(count) * 2)?);
    put!(out; " }");
    Some(())
}

/// `xl_heap_prune` of 17 and 18.
mod flags {
    pub const IS_CATALOG_REL: u8 = 0x02;
    pub const HAS_CONFLICT_HORIZON: u8 = 0x08;
    pub const HAS_FREEZE_PLANS: u8 = 0x10;
    pub const HAS_REDIRECTIONS: u8 = 0x20;
    pub const HAS_DEAD_ITEMS: u8 = 0x40;
    pub const HAS_NOW_UNUSED_ITEMS: u8 = 0x80;
}

fn prune_freeze(out: &mut Vec<u8>, mut r: Reader<'_>, data: &[u8]) -> Option<()> {
    r.skip(1)?;
    let flags = r.u8()?;
    if flags & flags::HAS_CONFLICT_HORIZON != 0 {
        put!(out; "snapshotConflictHorizon: ", r.u32()?);
    }
    put!(out; ", isCatalogRel: ", Tf(flags & flags::IS_CATALOG_REL != 0));
    if data.is_empty() {
        return Some(());
    }
    let mut data = Reader(data);
    let mut part = |flag, pad, len| part(&mut data, flags & flag != 0, pad, len);
    let plans = part(flags::HAS_FREEZE_PLANS, 2, PLAN_LEN)?;
    let redirected = part(flags::HAS_REDIRECTIONS, 0, 4)?;
    let dead = part(flags::HAS_DEAD_ITEMS, 0, 2)?;
    let unused = part(flags::HAS_NOW_UNUSED_ITEMS, 0, 2)?;
    put!(out; ", nplans: ", count_of(plans, PLAN_LEN), ", nredirected: ", count_of(redirected, 4));
    put!(out; ", ndead: ", count_of(dead, 2), ", nunused: ", count_of(unused, 2));
    if !plans.is_empty() {
        freeze_plans(out, plans, data.0)?;
    }
    if !redirected.is_empty() {
        put!(out; ", redirected:");
        redirections(out, redirected);
    }
    for (key, items) in [(", dead:", dead), (", unused:", unused)] {
        if !items.is_empty() {
            put!(out; key);
            offsets(out, items);
        }
    }
    Some(())
}

/// The elements of one part of the block data, if it is there: their number comes first.
fn part<'a>(data: &mut Reader<'a>, present: bool, pad: usize, len: usize) -> Option<&'a [u8]> {
    if !present {
        return Some(&[]);
    }
    let count = usize::from(data.u16()?);
    data.skip(pad)?;
    data.bytes(count * len)
}

fn count_of(items: &[u8], len: usize) -> u64 {
    (items.len() / len) as u64
}
