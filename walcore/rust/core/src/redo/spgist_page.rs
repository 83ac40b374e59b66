//! Pages and tuples of SP-GiST indexes.
//!
//! Source: `src/include/access/spgist_private.h`, `src/backend/access/spgist/spgutils.c`, `spgdoinsert.c`.

use super::spgist::SHORT;
use super::tid::{self, Tid};
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;

/// Flags of a page.
pub(super) const LEAF: u16 = 4;
pub(super) const NULLS: u16 = 8;

/// States of a tuple.
pub(super) const REDIRECT: u8 = 1;
pub(super) const DEAD: u8 = 2;
pub(super) const PLACEHOLDER: u8 = 3;
const STATE_MASK: u8 = 3;

const SPECIAL_LEN: usize = 8;
const PAGE_ID: u16 = 0xFF82;
/// Offsets in `SpGistPageOpaqueData`.
const REDIRECTS: usize = 2;
const PLACEHOLDERS: usize = 4;
const ID: usize = 6;
/// Where prefix and nodes of an inner tuple start.
const NODES_AT: usize = 8;

/// `SpGistInitPage`.
pub(super) fn init(page: &mut PageBuf, flags: u16) -> Result<(), Misfit> {
    page.init(SPECIAL_LEN);
    let special = special(page)?;
    page.put(special, &flags.to_le_bytes())?;
    page.put(special + ID, &PAGE_ID.to_le_bytes())
}

fn special(page: &PageBuf) -> Result<usize, Misfit> {
    let special = page.bounds()?.special;
    if special + SPECIAL_LEN == crate::page::BLCKSZ { Ok(special) } else { Err("not an SP-GiST page") }
}

/// Adds to the page's number of redirections.
pub(super) fn count_redirects(page: &mut PageBuf, by: i32) -> Result<(), Misfit> {
    count(page, REDIRECTS, by)
}

/// Adds to the page's number of placeholders.
pub(super) fn count_placeholders(page: &mut PageBuf, by: i32) -> Result<(), Misfit> {
    count(page, PLACEHOLDERS, by)
}

fn count(page: &mut PageBuf, field: usize, by: i32) -> Result<(), Misfit> {
    let at = special(page)? + field;
    let sum = i32::from(page.u16_at(at)?) + by;
    let sum = u16::try_from(sum).map_err(|_| "count of dead tuples is out of range")?;
    page.put(at, &sum.to_le_bytes())
}

/// The next leaf tuple, unaligned: its size is the upper 30 bits of its first word.
pub(super) fn leaf_tuple<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], Misfit> {
    const LEN_MIN: usize = 12;
    let word = u32::from_le_bytes(*from.0.first_chunk().ok_or(SHORT)?);
    sized(from, (word >> 2) as usize, LEN_MIN)
}

/// The next inner tuple, unaligned: its size is the half-word after its first word.
pub(super) fn inner_tuple<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], Misfit> {
    let [.., low, high] = *from.0.first_chunk::<6>().ok_or(SHORT)?;
    sized(from, u16::from_le_bytes([low, high]).into(), NODES_AT)
}

fn sized<'a>(from: &mut Reader<'a>, len: usize, len_min: usize) -> Result<&'a [u8], Misfit> {
    if len < len_min { Err("tuple is too short") } else { from.bytes(len).ok_or(SHORT) }
}

/// What is left in the place of a tuple.
///
/// ```text
/// offset  0            4        6         12    16
///         | state,size | t_info | pointer | xid |
/// ```
pub(super) struct DeadTuple {
    /// `REDIRECT`, `DEAD` or `PLACEHOLDER`.
    pub state: u8,
    /// Where it went.
    pub pointer: Tid,
    /// Who moved it.
    pub xid: u32,
}

impl DeadTuple {
    const LEN: usize = 16;

    /// A free place that keeps its number.
    pub fn placeholder() -> Self {
        Self { state: PLACEHOLDER, pointer: tid::INVALID, xid: 0 }
    }

    /// As it is stored.
    pub fn bytes(&self) -> [u8; Self::LEN] {
        let [w0, w1, w2, w3] = ((Self::LEN as u32) << 2 | u32::from(self.state)).to_le_bytes();
        let [p0, p1, p2, p3, p4, p5] = self.pointer;
        let [x0, x1, x2, x3] = self.xid.to_le_bytes();
        [w0, w1, w2, w3, 0, 0, p0, p1, p2, p3, p4, p5, x0, x1, x2, x3]
    }

    /// Makes a stored redirection a placeholder; its transaction stays.
    pub fn forget_redirect(stored: &mut [u8]) -> Result<(), Misfit> {
        let dead: &mut [u8; Self::LEN] = stored.first_chunk_mut().ok_or("dead tuple is too short")?;
        if dead[0] & STATE_MASK != REDIRECT {
            return Err("tuple is not a redirection");
        }
        dead[0] |= PLACEHOLDER;
        dead[6..12].copy_from_slice(&tid::INVALID);
        Ok(())
    }
}

/// Puts another tuple in the place of one, which goes to the end of the items.
pub(super) fn replace(page: &mut PageBuf, number: u16, tuple: &[u8]) -> Result<(), Misfit> {
    page.delete_item(number)?;
    page.insert_item(tuple, number)
}

/// `addOrReplaceTuple`: in the place of a placeholder, or at the end.
pub(super) fn add_or_replace(page: &mut PageBuf, number: u16, tuple: &[u8]) -> Result<(), Misfit> {
    if number <= page.max_offset() {
        let state = page.item(page.item_id(number)?)?.first().copied().unwrap_or(0) & STATE_MASK;
        if state != PLACEHOLDER {
            return Err("tuple to be replaced is not a placeholder");
        }
        count_placeholders(page, -1)?;
        page.delete_item(number)?;
    }
    page.insert_item(tuple, number)
}

/// `spgPageIndexMultiDelete`: deletes, and leaves `first` where `numbers[0]` was and tuples of state `rest` elsewhere.
pub(super) fn delete_and_mark(
    page: &mut PageBuf,
    numbers: &[u16],
    first: &DeadTuple,
    rest: u8,
) -> Result<(), Misfit> {
    let Some(first_number) = numbers.first() else { return Ok(()) };
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    page.delete_items(&sorted)?;
    for number in &sorted {
        let others = DeadTuple { state: rest, ..DeadTuple::placeholder() };
        let dead = if number == first_number { first } else { &others };
        page.insert_item(&dead.bytes(), *number)?;
        match dead.state {
            REDIRECT => count_redirects(page, 1)?,
            PLACEHOLDER => count_placeholders(page, 1)?,
            _ => {}
        }
    }
    Ok(())
}

/// Makes `to` the next of the leaf tuple `number` in its chain.
pub(super) fn set_next(page: &mut PageBuf, number: u16, to: u16) -> Result<(), Misfit> {
    let leaf = page.normal_item_mut(number)?;
    let Some([low, high]) = leaf.get_mut(4..6) else { return Err("leaf tuple is too short") };
    let info = u16::from_le_bytes([*low, *high]) & 0xC000 | to & 0x3FFF;
    [*low, *high] = info.to_le_bytes();
    Ok(())
}

/// `spgUpdateNodeLink`: points the node `index` of the inner tuple `number` at a place.
///
/// ```text
/// offset  0                                   4      6         8
///         | state, all_same, nodes, prefix_len | size | padding | prefix | node, node, … |
/// ```
pub(super) fn link(
    page: &mut PageBuf,
    number: u16,
    index: u16,
    blkno: u32,
    target: u16,
) -> Result<(), Misfit> {
    const TOO_SHORT: Misfit = "inner tuple is too short";
    let inner = page.normal_item_mut(number)?;
    let word = u32::from_le_bytes(*inner.first_chunk().ok_or(TOO_SHORT)?);
    let (nodes, prefix_len) = (word >> 3 & 0x1FFF, (word >> 16) as usize);
    if u32::from(index) >= nodes {
        return Err("no such node");
    }
    let mut at = NODES_AT + prefix_len;
    for _ in 0..index {
        let info = inner.get(at + 6..at + 8).and_then(|b| b.first_chunk().copied()).ok_or(TOO_SHORT)?;
        at += usize::from(u16::from_le_bytes(info) & 0x1FFF);
    }
    let stored = inner.get_mut(at..at + 6).ok_or(TOO_SHORT)?;
    stored.copy_from_slice(&tid::tid(blkno, target));
    Ok(())
}
