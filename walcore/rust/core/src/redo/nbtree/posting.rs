//! Posting tuples: one key, many heap tuples.

use crate::page::{Misfit, maxalign};
use crate::reader::u16s;
use crate::redo::index_tuple::{Header, TID_LEN};

/// `BT_OFFSET_MASK` of the offset field of a tuple whose address is something else.
const COUNT_MASK: u16 = 0x0FFF;
/// `BT_IS_POSTING`.
const IS_POSTING: u16 = 0x2000;
/// `BTMaxItemSize`.
const LEN_MAX: usize = 2704;

const DAMAGED: Misfit = "posting tuple is damaged";

/// A leaf tuple, seen as a key and its heap addresses.
#[derive(Clone, Copy)]
pub struct Keyed<'a> {
    /// The tuple up to its addresses.
    pub key: &'a [u8],
    /// The addresses, 6 bytes each.
    pub tids: &'a [u8],
}

/// Whether a leaf tuple is a posting tuple.
pub fn is_posting(header: Header) -> bool {
    header.has_am_bit() && header.offset & IS_POSTING != 0
}

impl<'a> Keyed<'a> {
    /// Takes a leaf tuple apart.
    pub fn read(tuple: &'a [u8]) -> Result<Self, Misfit> {
        let header = Header::read(tuple)?;
        if !is_posting(header) {
            let key = tuple.get(..header.len()).ok_or(DAMAGED)?;
            return Ok(Self { key, tids: tuple.get(..TID_LEN).ok_or(DAMAGED)? });
        }
        let (key, rest) = tuple.split_at_checked(header.blkno as usize).ok_or(DAMAGED)?;
        let n = usize::from(header.offset & COUNT_MASK);
        if key.len() % 8 != 0 || n < 2 {
            return Err(DAMAGED);
        }
        Ok(Self { key, tids: rest.get(..n * TID_LEN).ok_or(DAMAGED)? })
    }

    /// How many heap tuples.
    pub fn count(&self) -> usize {
        self.tids.len() / TID_LEN
    }
}

/// Makes a tuple of a key and addresses: a plain one if there is one address.
///
/// Source: `_bt_form_posting` in `src/backend/access/nbtree/nbtdedup.c`.
pub fn form(key: &[u8], tids: &[u8]) -> Result<Vec<u8>, Misfit> {
    let header = Header::read(key)?;
    let n = tids.len() / TID_LEN;
    let is_posting = n > 1;
    let len = if is_posting { maxalign(key.len() + tids.len()) } else { key.len() };
    if len > LEN_MAX || n == 0 {
        return Err("posting tuple would be too long");
    }
    let mut tuple = vec![0; len];
    tuple.get_mut(..key.len()).ok_or(DAMAGED)?.copy_from_slice(key);
    if is_posting {
        let list = tuple.get_mut(key.len()..key.len() + tids.len());
        list.ok_or(DAMAGED)?.copy_from_slice(tids);
        let count = n as u16 | IS_POSTING;
        Header { blkno: key.len() as u32, offset: count, ..header }
            .with_am_bit(true)
            .with_len(len)
            .write(&mut tuple)?;
    } else {
        header.with_am_bit(false).with_len(len).write(&mut tuple)?;
        tuple.get_mut(..TID_LEN).ok_or(DAMAGED)?.copy_from_slice(tids);
    }
    Ok(tuple)
}

/// Makes a posting tuple without the addresses at these places, which ascend.
///
/// Source: `_bt_update_posting` in `src/backend/access/nbtree/nbtdedup.c`.
pub fn without(tuple: &[u8], deleted: &[u8]) -> Result<Vec<u8>, Misfit> {
    let keyed = Keyed::read(tuple)?;
    let mut deleted = u16s(deleted).map(usize::from).peekable();
    let mut kept = Vec::with_capacity(keyed.tids.len());
    for (index, tid) in keyed.tids.chunks_exact(TID_LEN).enumerate() {
        if deleted.next_if_eq(&index).is_none() {
            kept.extend_from_slice(tid);
        }
    }
    if deleted.next().is_some() {
        return Err("addresses to delete are not in the posting tuple");
    }
    form(keyed.key, &kept)
}

/// Splits a posting tuple: the new tuple's address goes into it at `place`, and its last one into the new tuple.
///
/// Returns the posting tuple and the new one.
///
/// Source: `_bt_swap_posting` in `src/backend/access/nbtree/nbtdedup.c`.
pub fn swap(posting: &[u8], new: &[u8], place: usize) -> Result<(Vec<u8>, Vec<u8>), Misfit> {
    let keyed = Keyed::read(posting)?;
    let n = keyed.count();
    if place == 0 || place >= n || !is_posting(Header::read(posting)?) {
        return Err("posting tuple cannot be split there");
    }
    let (mut posting, mut new) = (posting.to_vec(), new.to_vec());
    let tids = posting.get_mut(keyed.key.len()..keyed.key.len() + n * TID_LEN).ok_or(DAMAGED)?;
    let new_tid = new.get_mut(..TID_LEN).ok_or(DAMAGED)?;
    tids.get_mut(place * TID_LEN..).ok_or(DAMAGED)?.rotate_right(TID_LEN);
    tids.get_mut(place * TID_LEN..(place + 1) * TID_LEN).ok_or(DAMAGED)?.swap_with_slice(new_tid);
    Ok((posting, new))
}
