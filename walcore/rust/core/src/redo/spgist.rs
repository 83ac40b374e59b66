//! SP-GiST: space-partitioned trees.
//!
//! Source: `src/backend/access/spgist/spgxlog.c`, `spgdoinsert.c`, `spgutils.c`.

use super::spgist_page::{
    DEAD, DeadTuple, LEAF, NULLS, PLACEHOLDER, REDIRECT, add_or_replace, count_placeholders, count_redirects,
    delete_and_mark, init, inner_tuple, leaf_tuple, link, replace, set_next,
};
use super::tid;
use super::{Effect, On, Redone};
use crate::page::{ItemId, Misfit, PageBuf};
use crate::reader::Reader;
use crate::version::Major;
use crate::wal::Record;

const ADD_LEAF: u8 = 0x10;
const MOVE_LEAFS: u8 = 0x20;
const ADD_NODE: u8 = 0x30;
const SPLIT_TUPLE: u8 = 0x40;
const PICKSPLIT: u8 = 0x50;
const VACUUM_LEAF: u8 = 0x60;
const VACUUM_ROOT: u8 = 0x70;
const VACUUM_REDIRECT: u8 = 0x80;

pub(super) const SHORT: Misfit = "record is too short";

/// Changes one page.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let On { record, block, ctx } = *on;
    let mut main = Reader(record.main_data);
    let main = &mut main;
    match record.header.rmgr_info() {
        ADD_LEAF => add_leaf(page, record, block.id, main)?,
        MOVE_LEAFS => move_leafs(page, record, block.id, main)?,
        ADD_NODE => add_node(page, record, block.id, main)?,
        SPLIT_TUPLE => split_tuple(page, block.id, main)?,
        PICKSPLIT => pick_split(page, record, block.id, main)?,
        VACUUM_LEAF => vacuum_leaf(page, main)?,
        VACUUM_ROOT => {
            let n = main.u16().ok_or(SHORT)?;
            main.skip(10).ok_or(SHORT)?;
            page.delete_items(&numbers(main, n)?)?;
        }
        VACUUM_REDIRECT => vacuum_redirect(page, main, ctx.major)?,
        _ => return Err("no such SP-GiST operation"),
    }
    Ok(Effect::Changed)
}

fn numbers(from: &mut Reader<'_>, n: u16) -> Result<Vec<u16>, Misfit> {
    (0..n).map(|_| from.u16().ok_or(SHORT)).collect()
}

fn flag(from: &mut Reader<'_>) -> Result<bool, Misfit> {
    Ok(from.u8().ok_or(SHORT)? != 0)
}

fn half(from: &mut Reader<'_>) -> Result<u16, Misfit> {
    from.u16().ok_or(SHORT)
}

fn blkno(record: &Record<'_>, id: u8) -> Result<u32, Misfit> {
    record.block(id).map(|b| b.tag.blkno).ok_or("block reference is missing")
}

/// `spgxlogState`: which transaction redirects, and whether the index is being built.
struct State {
    xid: u32,
    is_build: bool,
}

impl State {
    fn read(from: &mut Reader<'_>) -> Result<Self, Misfit> {
        let xid = from.u32().ok_or(SHORT)?;
        let is_build = flag(from)?;
        from.skip(3).ok_or(SHORT)?;
        Ok(Self { xid, is_build })
    }

    /// What a moved tuple leaves behind: nobody can be on the way to it while the index is built.
    fn left_behind(&self, blkno: u32, number: u16) -> DeadTuple {
        if self.is_build {
            DeadTuple::placeholder()
        } else {
            DeadTuple { state: REDIRECT, pointer: tid::tid(blkno, number), xid: self.xid }
        }
    }
}

fn leaf_flags(stores_nulls: bool) -> u16 {
    if stores_nulls { LEAF | NULLS } else { LEAF }
}

fn add_leaf(page: &mut PageBuf, record: &Record<'_>, id: u8, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let (new_page, stores_nulls) = (flag(main)?, flag(main)?);
    let (leaf, head, parent, node) = (half(main)?, half(main)?, half(main)?, half(main)?);
    match id {
        0 => {
            if new_page {
                init(page, leaf_flags(stores_nulls))?;
            }
            let added = leaf_tuple(main)?;
            if leaf == head {
                return replace(page, leaf, added);
            }
            add_or_replace(page, leaf, added)?;
            if head != 0 { set_next(page, head, leaf) } else { Ok(()) }
        }
        1 => link(page, parent, node, blkno(record, 0)?, leaf),
        _ => Err("no such block"),
    }
}

fn move_leafs(page: &mut PageBuf, record: &Record<'_>, id: u8, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let moves = half(main)?;
    let (new_page, replaces_dead, stores_nulls) = (flag(main)?, flag(main)?, flag(main)?);
    main.skip(1).ok_or(SHORT)?;
    let (parent, node) = (half(main)?, half(main)?);
    main.skip(2).ok_or(SHORT)?;
    let state = State::read(main)?;
    let deletes = numbers(main, moves)?;
    let inserts = numbers(main, if replaces_dead { 1 } else { moves.checked_add(1).ok_or(SHORT)? })?;
    let last = *inserts.last().ok_or(SHORT)?;
    match id {
        0 => delete_and_mark(page, &deletes, &state.left_behind(blkno(record, 1)?, last), PLACEHOLDER),
        1 => {
            if new_page {
                init(page, leaf_flags(stores_nulls))?;
            }
            inserts.into_iter().try_for_each(|number| add_or_replace(page, number, leaf_tuple(main)?))
        }
        2 => link(page, parent, node, blkno(record, 1)?, last),
        _ => Err("no such block"),
    }
}

fn add_node(page: &mut PageBuf, record: &Record<'_>, id: u8, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let (old, new) = (half(main)?, half(main)?);
    let (new_page, parent_block) = (flag(main)?, main.u8().ok_or(SHORT)?);
    let (parent, node) = (half(main)?, half(main)?);
    main.skip(2).ok_or(SHORT)?;
    let state = State::read(main)?;
    let added = inner_tuple(main)?;
    let Some(moved_to) = record.block(1).map(|b| b.tag.blkno) else {
        return replace(page, old, added);
    };
    match id {
        0 => {
            let left = state.left_behind(moved_to, new);
            replace(page, old, &left.bytes())?;
            if state.is_build { count_placeholders(page, 1)? } else { count_redirects(page, 1)? }
        }
        1 => {
            if new_page {
                init(page, 0)?;
            }
            add_or_replace(page, new, added)?;
        }
        2 => {}
        _ => return Err("no such block"),
    }
    // The parent may share a page with the old or the new place.
    if id == parent_block { link(page, parent, node, moved_to, new) } else { Ok(()) }
}

fn split_tuple(page: &mut PageBuf, id: u8, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let (prefix_at, postfix_at) = (half(main)?, half(main)?);
    let (new_page, is_same) = (flag(main)?, flag(main)?);
    let (prefix, postfix) = (inner_tuple(main)?, inner_tuple(main)?);
    match id {
        0 => {
            replace(page, prefix_at, prefix)?;
            if is_same { add_or_replace(page, postfix_at, postfix) } else { Ok(()) }
        }
        1 => {
            if new_page {
                init(page, 0)?;
            }
            add_or_replace(page, postfix_at, postfix)
        }
        _ => Err("no such block"),
    }
}

/// `spgxlogPickSplit`.
#[expect(clippy::struct_excessive_bools, reason = "the record has them")]
struct PickSplit {
    init_src: bool,
    init_dest: bool,
    inner: u16,
    init_inner: bool,
    stores_nulls: bool,
    inner_is_parent: bool,
    parent: u16,
    node: u16,
    state: State,
    deletes: Vec<u16>,
    inserts: Vec<u16>,
}

impl PickSplit {
    fn read(main: &mut Reader<'_>) -> Result<Self, Misfit> {
        main.skip(2).ok_or(SHORT)?;
        let (deletes, inserts) = (half(main)?, half(main)?);
        let (init_src, init_dest, inner) = (flag(main)?, flag(main)?, half(main)?);
        let (init_inner, stores_nulls, inner_is_parent) = (flag(main)?, flag(main)?, flag(main)?);
        main.skip(1).ok_or(SHORT)?;
        let (parent, node) = (half(main)?, half(main)?);
        main.skip(2).ok_or(SHORT)?;
        let state = State::read(main)?;
        let (deletes, inserts) = (numbers(main, deletes)?, numbers(main, inserts)?);
        Ok(Self {
            init_src,
            init_dest,
            inner,
            init_inner,
            stores_nulls,
            inner_is_parent,
            parent,
            node,
            state,
            deletes,
            inserts,
        })
    }
}

fn pick_split(page: &mut PageBuf, record: &Record<'_>, id: u8, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let split = PickSplit::read(main)?;
    let goes_to_dest = main.bytes(split.inserts.len()).ok_or(SHORT)?;
    let inner = inner_tuple(main)?;
    let inner_blkno = blkno(record, 2)?;
    match id {
        0 if split.init_src => init(page, leaf_flags(split.stores_nulls))?,
        0 => {
            let first = split.state.left_behind(inner_blkno, split.inner);
            delete_and_mark(page, &split.deletes, &first, PLACEHOLDER)?;
        }
        1 if split.init_dest => init(page, leaf_flags(split.stores_nulls))?,
        1 => {}
        2 => {
            if split.init_inner {
                init(page, if split.stores_nulls { NULLS } else { 0 })?;
            }
            add_or_replace(page, split.inner, inner)?;
            if split.inner_is_parent {
                link(page, split.parent, split.node, inner_blkno, split.inner)?;
            }
            return Ok(());
        }
        3 => {
            link(page, split.parent, split.node, inner_blkno, split.inner)?;
            return Ok(());
        }
        _ => return Err("no such block"),
    }
    for (number, to_dest) in split.inserts.iter().zip(goes_to_dest) {
        let leaf = leaf_tuple(main)?;
        if (*to_dest != 0) == (id == 1) {
            add_or_replace(page, *number, leaf)?;
        }
    }
    Ok(())
}

fn vacuum_leaf(page: &mut PageBuf, main: &mut Reader<'_>) -> Result<(), Misfit> {
    let (dead, placeholders, moves, chains) = (half(main)?, half(main)?, half(main)?, half(main)?);
    State::read(main)?;
    let (dead, placeholders) = (numbers(main, dead)?, numbers(main, placeholders)?);
    let (sources, targets) = (numbers(main, moves)?, numbers(main, moves)?);
    let (chain_from, chain_to) = (numbers(main, chains)?, numbers(main, chains)?);
    delete_and_mark(page, &dead, &DeadTuple { state: DEAD, ..DeadTuple::placeholder() }, DEAD)?;
    delete_and_mark(page, &placeholders, &DeadTuple::placeholder(), PLACEHOLDER)?;
    for (source, target) in sources.iter().zip(targets) {
        let (from, to): (ItemId, ItemId) = (page.item_id(*source)?, page.item_id(target)?);
        page.set_item_id(*source, to)?;
        page.set_item_id(target, from)?;
    }
    delete_and_mark(page, &sources, &DeadTuple::placeholder(), PLACEHOLDER)?;
    chain_from.into_iter().zip(chain_to).try_for_each(|(from, to)| set_next(page, from, to))
}

fn vacuum_redirect(page: &mut PageBuf, main: &mut Reader<'_>, major: Major) -> Result<(), Misfit> {
    let (redirects, first_placeholder) = (half(main)?, half(main)?);
    main.skip(4).ok_or(SHORT)?;
    if major > Major::V15 {
        main.skip(2).ok_or(SHORT)?;
    }
    for number in numbers(main, redirects)? {
        DeadTuple::forget_redirect(page.normal_item_mut(number)?)?;
    }
    let converted = i32::from(redirects);
    count_redirects(page, -converted)?;
    count_placeholders(page, converted)?;
    if first_placeholder != 0 {
        let last: Vec<u16> = (first_placeholder..=page.max_offset()).collect();
        let count = i32::try_from(last.len()).map_err(|_| "too many placeholders")?;
        count_placeholders(page, -count)?;
        page.delete_items(&last)?;
    }
    Ok(())
}
