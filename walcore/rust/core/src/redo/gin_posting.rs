//! Compressed posting lists: segments of TIDs, each a first one and then varbyte-coded distances.
//!
//! ```text
//! offset  0       6        8
//!         | first | nbytes | distances …, padded to an even length |
//! ```
//!
//! Source: `src/backend/access/gin/ginpostinglist.c`; `ginRedoRecompress` in `ginxlog.c`.

use super::tid;
use crate::page::{BLCKSZ, Misfit};
use crate::reader::Reader;

const DELETE: u8 = 1;
const INSERT: u8 = 2;
const REPLACE: u8 = 3;
const ADDITEMS: u8 = 4;
/// Bits of an offset number in a coded TID.
const OFFSET_BITS: u32 = 11;
const SHORT: Misfit = "posting list is too short";

/// Applies the logged actions to the segments `old` and gives the new ones.
pub(super) fn recompress(old: &[u8], actions: &[u8]) -> Result<Vec<u8>, Misfit> {
    let mut actions = Reader(actions);
    let mut old = Reader(old);
    let mut new = Vec::with_capacity(BLCKSZ);
    let mut at = 0u8;
    for _ in 0..actions.u16().ok_or(SHORT)? {
        let (number, action) = (actions.u8().ok_or(SHORT)?, actions.u8().ok_or(SHORT)?);
        while at < number {
            new.extend_from_slice(segment(&mut old)?);
            at += 1;
        }
        match action {
            DELETE => {
                segment(&mut old)?;
                at = at.checked_add(1).ok_or("too many segments")?;
            }
            INSERT => new.extend_from_slice(segment(&mut actions)?),
            REPLACE => {
                new.extend_from_slice(segment(&mut actions)?);
                segment(&mut old)?;
                at = at.checked_add(1).ok_or("too many segments")?;
            }
            ADDITEMS => {
                let count = actions.u16().ok_or(SHORT)?;
                let added = items(actions.bytes(6 * usize::from(count)).ok_or(SHORT)?)?;
                let kept = decode(segment(&mut old)?)?;
                new.extend_from_slice(&compress(&merge(&added, &kept))?);
                at = at.checked_add(1).ok_or("too many segments")?;
            }
            _ => return Err("no such action on a posting list"),
        }
        if new.len() > BLCKSZ {
            return Err("posting lists do not fit their page");
        }
    }
    new.extend_from_slice(old.0);
    Ok(new)
}

/// The next whole segment, padding included.
fn segment<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], Misfit> {
    let [.., low, high] = *from.0.first_chunk::<8>().ok_or(SHORT)?;
    let len = usize::from(u16::from_le_bytes([low, high])).next_multiple_of(2);
    from.bytes(8 + len).ok_or(SHORT)
}

/// TIDs as they are coded: block number and offset number in one.
pub(super) fn items(bytes: &[u8]) -> Result<Vec<u64>, Misfit> {
    let mut from = Reader(bytes);
    let mut all = Vec::with_capacity(bytes.len() / 6);
    while let Some(item) = from.array() {
        all.push(coded(item)?);
    }
    Ok(all)
}

fn coded([b2, b3, b0, b1, n0, n1]: [u8; 6]) -> Result<u64, Misfit> {
    let number = u16::from_le_bytes([n0, n1]);
    if number == 0 || number >> OFFSET_BITS != 0 {
        return Err("offset number is out of range");
    }
    Ok(u64::from(tid::block_id([b2, b3, b0, b1])) << OFFSET_BITS | u64::from(number))
}

fn decode(segment: &[u8]) -> Result<Vec<u64>, Misfit> {
    let mut from = Reader(segment);
    let mut item = coded(from.array().ok_or(SHORT)?)?;
    let len = usize::from(from.u16().ok_or(SHORT)?);
    let mut distances = Reader(from.bytes(len).ok_or(SHORT)?);
    let mut all = vec![item];
    while distances.left() > 0 {
        item = item.checked_add(varbyte(&mut distances)?).ok_or("distance overflows")?;
        all.push(item);
    }
    Ok(all)
}

/// `decode_varbyte`: seven bits a byte, lowest first; the seventh byte is the last.
fn varbyte(from: &mut Reader<'_>) -> Result<u64, Misfit> {
    let mut value = 0;
    for shift in (0..=42).step_by(7) {
        let byte = u64::from(from.u8().ok_or(SHORT)?);
        value |= (byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("distance is too long")
}

/// Both lists, in order; a TID in both is kept once.
fn merge(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut all = [a, b].concat();
    all.sort_unstable();
    all.dedup();
    all
}

/// `ginCompressPostingList`: all TIDs as one segment.
pub(super) fn compress(items: &[u64]) -> Result<Vec<u8>, Misfit> {
    let (first, rest) = items.split_first().ok_or("posting list is empty")?;
    let blkno = u32::try_from(first >> OFFSET_BITS).map_err(|_| "block number is out of range")?;
    let number = (first & ((1 << OFFSET_BITS) - 1)) as u16;
    let mut out = tid::tid(blkno, number).to_vec();
    out.extend_from_slice(&[0, 0]);
    let mut last = *first;
    for item in rest {
        let mut distance = item.checked_sub(last).ok_or("posting list is out of order")?;
        last = *item;
        while distance > 0x7F {
            out.push(0x80 | (distance & 0x7F) as u8);
            distance >>= 7;
        }
        out.push(distance as u8);
    }
    let len = u16::try_from(out.len() - 8).map_err(|_| "posting list is too long")?;
    if let Some([low, high]) = out.get_mut(6..8) {
        [*low, *high] = len.to_le_bytes();
    }
    if len % 2 == 1 {
        out.push(0);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_decodes_to_the_same_items() {
        let items = [1, 2, 130, 1 << 20, (1 << 43) - 3];
        let segment = compress(&items).unwrap();
        assert_eq!(segment.len() % 2, 0);
        assert_eq!(decode(&segment).unwrap(), items);
    }

    #[test]
    fn actions_insert_before_replace_delete_and_add() {
        let of = |items: &[u64]| compress(items).unwrap();
        let old = [of(&[1, 2]), of(&[100, 101]), of(&[200])].concat();
        let mut actions = 4u16.to_le_bytes().to_vec();
        actions.extend([0, INSERT]);
        actions.extend(of(&[3]));
        actions.extend([0, DELETE, 1, ADDITEMS, 1, 0]);
        actions.extend(tid::tid(0, 99));
        actions.extend([2, REPLACE]);
        actions.extend(of(&[300, 301]));
        let new = recompress(&old, &actions).unwrap();
        assert_eq!(new, [of(&[3]), of(&[99, 100, 101]), of(&[300, 301])].concat());
    }

    #[test]
    fn an_untouched_tail_is_kept() {
        let old = [compress(&[1]).unwrap(), compress(&[9]).unwrap()].concat();
        let new = recompress(&old, &[1, 0, 0, DELETE]).unwrap();
        assert_eq!(new, compress(&[9]).unwrap());
    }
}
