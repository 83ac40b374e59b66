//! Redo of heap records: pruning, freezing, visibility, many tuples at once.

use super::heap::{ALL_VISIBLE_CLEARED, INIT_PAGE, Logged, OnTuple, Part, place};
use super::tuple::Tuple;
use super::{DATA_SHORT, Effect, NO_SUCH_RECORD, On, Redone};
use crate::page::{ALL_VISIBLE, ItemId, Misfit, PageBuf};
use crate::reader::{Reader, u16s};
use crate::version::Major;

/// `PRUNE` up to 16, `PRUNE_ON_ACCESS` from 17 on.
const PRUNE: u8 = 0x10;
/// `VACUUM` up to 16, `PRUNE_VACUUM_SCAN` from 17 on.
const VACUUM: u8 = 0x20;
/// `FREEZE_PAGE` up to 16, `PRUNE_VACUUM_CLEANUP` from 17 on.
const FREEZE_PAGE: u8 = 0x30;
const VISIBLE: u8 = 0x40;
const MULTI_INSERT: u8 = 0x50;
const LOCK_UPDATED: u8 = 0x60;
const OP_MASK: u8 = 0x70;

/// `XLH_INSERT_ALL_FROZEN_SET`.
const ALL_FROZEN_SET: u8 = 0x20;

/// `XLHP_*` of 17 and 18.
mod prune_flags {
    pub const CLEANUP_LOCK: u8 = 0x04;
    pub const HAS_FREEZE_PLANS: u8 = 0x10;
    pub const HAS_REDIRECTIONS: u8 = 0x20;
    pub const HAS_DEAD_ITEMS: u8 = 0x40;
    pub const HAS_NOW_UNUSED_ITEMS: u8 = 0x80;
}

/// `XLH_FREEZE_XVAC`, `XLH_INVALID_XVAC`.
const FREEZE_XVAC: u8 = 0x02;
const INVALID_XVAC: u8 = 0x04;
const FROZEN_XID: u32 = 2;

/// Source: `src/backend/access/heap/heapam_xlog.c` (18), `heapam.c` (15 to 17).
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let is_new_prune = on.ctx.major >= Major::V17;
    match on.record.header.rmgr_info() & OP_MASK {
        PRUNE | VACUUM | FREEZE_PAGE if is_new_prune => prune_freeze(page, on),
        PRUNE => prune(page, on),
        VACUUM => vacuum(page, on),
        FREEZE_PAGE => freeze_page(page, on),
        VISIBLE => Ok(visible(page, on)),
        MULTI_INSERT => multi_insert(page, on),
        LOCK_UPDATED => lock_updated(page, on),
        _ => Err(NO_SUCH_RECORD),
    }
}

/// A list of line pointer numbers, or of several numbers an entry.
struct Offsets<'a, const N: usize>(&'a [u8]);

impl<'a, const N: usize> Offsets<'a, N> {
    fn take(data: &mut Reader<'a>, n: u16) -> Result<Self, Misfit> {
        data.bytes(usize::from(n) * N * 2).map(Self).ok_or(DATA_SHORT)
    }

    /// Counted, if it is there at all.
    fn take_counted(data: &mut Reader<'a>, is_there: bool) -> Result<Self, Misfit> {
        let n = if is_there { data.u16().ok_or(DATA_SHORT)? } else { 0 };
        Self::take(data, n)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = [u16; N]> + use<'a, N> {
        let mut numbers = u16s(self.0);
        std::iter::from_fn(move || {
            let mut entry = [0; N];
            for slot in &mut entry {
                *slot = numbers.next()?;
            }
            Some(entry)
        })
    }
}

/// What pruning does to the line pointers.
struct Pruned<'a> {
    redirected: Offsets<'a, 2>,
    dead: Offsets<'a, 1>,
    unused: Offsets<'a, 1>,
}

impl Pruned<'_> {
    /// Source: `heap_page_prune_execute` in `src/backend/access/heap/pruneheap.c`.
    fn mark(&self, page: &mut PageBuf) -> Result<(), Misfit> {
        for [from, to] in self.redirected.iter() {
            page.set_item_id(from, ItemId::new(to.into(), ItemId::REDIRECT, 0))?;
        }
        for [number] in self.dead.iter() {
            page.set_item_id(number, ItemId::new(0, ItemId::DEAD, 0))?;
        }
        for [number] in self.unused.iter() {
            page.set_item_id(number, ItemId::default())?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.redirected.is_empty() && self.dead.is_empty() && self.unused.is_empty()
    }
}

/// 15 and 16.
fn prune(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let mut main = Reader(on.record.main_data.get(4..).ok_or(DATA_SHORT)?);
    let (redirected, dead) = main.u16().zip(main.u16()).ok_or(DATA_SHORT)?;
    let mut data = Reader(on.block.data);
    let redirected = Offsets::take(&mut data, redirected)?;
    let dead = Offsets::take(&mut data, dead)?;
    Pruned { redirected, dead, unused: Offsets(data.0) }.mark(page)?;
    page.repair_fragmentation()?;
    Ok(Effect::Changed)
}

/// 15 and 16.
fn vacuum(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let n = Reader(on.record.main_data).u16().ok_or(DATA_SHORT)?;
    let unused = Offsets::<1>::take(&mut Reader(on.block.data), n)?;
    for [number] in unused.iter() {
        page.set_item_id(number, ItemId::default())?;
    }
    page.truncate_lines();
    Ok(Effect::Changed)
}

/// How to freeze a tuple: what its header becomes.
struct Freeze {
    xmax: u32,
    infomask2: u16,
    infomask: u16,
    flags: u8,
}

impl Freeze {
    /// Source: `heap_execute_freeze_tuple` in `src/include/access/heapam.h`.
    fn apply(&self, page: &mut PageBuf, number: u16) -> Result<(), Misfit> {
        let mut tuple = Tuple::new(page.normal_item_mut(number)?)?;
        tuple.set_xmax(self.xmax);
        if self.flags & FREEZE_XVAC != 0 {
            tuple.set_field3(FROZEN_XID);
        }
        if self.flags & INVALID_XVAC != 0 {
            tuple.set_field3(0);
        }
        tuple.set_infomask(self.infomask);
        tuple.set_infomask2(self.infomask2);
        Ok(())
    }

    /// `xl_heap_freeze_tuple` of 15: one a tuple.
    fn read_single(data: &mut Reader<'_>) -> Option<(Self, u16)> {
        let (xmax, number) = (data.u32()?, data.u16()?);
        let (infomask2, infomask, flags) = (data.u16()?, data.u16()?, data.u8()?);
        data.skip(1)?;
        Some((Self { xmax, infomask2, infomask, flags }, number))
    }

    /// `xl_heap_freeze_plan` of 16, `xlhp_freeze_plan` from 17 on: one for many tuples. With their number.
    fn read_plan(data: &mut Reader<'_>) -> Option<(Self, u16)> {
        let (xmax, infomask2, infomask) = (data.u32()?, data.u16()?, data.u16()?);
        let flags = data.u8()?;
        data.skip(1)?;
        Some((Self { xmax, infomask2, infomask, flags }, data.u16()?))
    }
}

/// Length of a freeze plan.
const PLAN_LEN: usize = 12;

/// Freezes tuples by plans, which take their line pointers one after another from `offsets`.
fn freeze_by_plans(page: &mut PageBuf, plans: &[u8], offsets: &mut Reader<'_>) -> Result<(), Misfit> {
    for plan in plans.chunks_exact(PLAN_LEN) {
        let (freeze, n) = Freeze::read_plan(&mut Reader(plan)).ok_or(DATA_SHORT)?;
        for [number] in Offsets::<1>::take(offsets, n)?.iter() {
            freeze.apply(page, number)?;
        }
    }
    Ok(())
}

/// 15 and 16.
fn freeze_page(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let mut main = Reader(on.record.main_data);
    let (_, n) = main.u32().zip(main.u16()).ok_or(DATA_SHORT)?;
    let mut data = Reader(on.block.data);
    if on.ctx.major >= Major::V16 {
        let plans = data.bytes(usize::from(n) * PLAN_LEN).ok_or(DATA_SHORT)?;
        freeze_by_plans(page, plans, &mut data)?;
    } else {
        for _ in 0..n {
            let (freeze, number) = Freeze::read_single(&mut data).ok_or(DATA_SHORT)?;
            freeze.apply(page, number)?;
        }
    }
    Ok(Effect::Changed)
}

/// 17 and 18: pruning, vacuum's second pass and freezing in one record.
fn prune_freeze(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    use prune_flags::{
        CLEANUP_LOCK, HAS_DEAD_ITEMS, HAS_FREEZE_PLANS, HAS_NOW_UNUSED_ITEMS, HAS_REDIRECTIONS,
    };
    let flags = *on.record.main_data.get(1).ok_or(DATA_SHORT)?;
    let has = |flag| flags & flag != 0;
    let mut data = Reader(on.block.data);
    let plans = if has(HAS_FREEZE_PLANS) {
        let n = data.u16().ok_or(DATA_SHORT)?;
        data.skip(2).and_then(|()| data.bytes(usize::from(n) * PLAN_LEN)).ok_or(DATA_SHORT)?
    } else {
        &[]
    };
    let pruned = Pruned {
        redirected: Offsets::take_counted(&mut data, has(HAS_REDIRECTIONS))?,
        dead: Offsets::take_counted(&mut data, has(HAS_DEAD_ITEMS))?,
        unused: Offsets::take_counted(&mut data, has(HAS_NOW_UNUSED_ITEMS))?,
    };
    if !pruned.is_empty() {
        pruned.mark(page)?;
        if has(CLEANUP_LOCK) {
            page.repair_fragmentation()?;
        } else {
            page.truncate_lines();
        }
    }
    freeze_by_plans(page, plans, &mut data)?;
    Ok(Effect::Changed)
}

/// The heap page of a record that sets bits of the visibility map.
fn visible(page: &mut PageBuf, on: &On<'_, '_>) -> Effect {
    page.set_flag(ALL_VISIBLE, true);
    if on.ctx.hint_bits_logged { Effect::Changed } else { Effect::LsnKept }
}

fn multi_insert(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let mut main = Reader(on.record.main_data);
    let flags = main.u8().ok_or(DATA_SHORT)?;
    let n = main.skip(1).and_then(|()| main.u16()).ok_or(DATA_SHORT)?;
    let is_init = on.record.header.rmgr_info() & INIT_PAGE != 0;
    if is_init {
        page.init(0);
    }
    let mut data = Reader(on.block.data);
    for index in 0..n {
        let number = if is_init { index + 1 } else { main.u16().ok_or(DATA_SHORT)? };
        if (on.block.data.len() - data.left()) % 2 != 0 {
            data.skip(1).ok_or(DATA_SHORT)?;
        }
        let len = data.u16().ok_or(DATA_SHORT)?;
        let logged = Logged::read(&mut data).ok_or(DATA_SHORT)?;
        let tuple = data.bytes(len.into()).ok_or(DATA_SHORT)?;
        place(page, on, &logged, 0, number, &[Part::Logged(tuple)])?;
    }
    if data.left() != 0 {
        return Err("tuples are not as long as the record says");
    }
    if flags & ALL_VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    if flags & ALL_FROZEN_SET != 0 {
        page.set_flag(ALL_VISIBLE, true);
    }
    Ok(Effect::Changed)
}

fn lock_updated(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let change = OnTuple::read(&mut Reader(on.record.main_data))?;
    let mut tuple = Tuple::new(page.normal_item_mut(change.offset)?)?;
    tuple.replace_xmax_bits(change.infobits);
    tuple.set_xmax(change.xmax);
    Ok(Effect::Changed)
}
