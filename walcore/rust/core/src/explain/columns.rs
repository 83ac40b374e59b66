//! Records as columns in Arrow's memory layout: little-endian values one after the other, bits for truth and validity.

use std::collections::HashMap;

use super::share::{Share, shares};
use crate::describe::Scene;
use crate::rmgr;
use crate::rmgr::xact::XactEnd;
use crate::wal::image::Compression;
use crate::wal::{BlockRef, RawRecord, Record, RelTag, WalError};

/// Microseconds from 1970-01-01, where Arrow counts from, to 2000-01-01, where Postgres does.
const EPOCH_US: i64 = 946_684_800_000_000;

/// Bits, the first one lowest.
#[derive(Clone, Debug, Default)]
struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.len % 8 == 0 {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (self.len % 8);
        }
        self.len += 1;
    }
}

macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($field:ident),* ; $($bits:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        struct $name {
            $( $field: Vec<u8>, )*
            $( $bits: Bits, )*
        }
        impl $name {
            fn buffers(self) -> Vec<(&'static str, Vec<u8>)> {
                vec![ $( (stringify!($field), self.$field), )* $( (stringify!($bits), self.$bits.bytes), )* ]
            }
        }
    };
}

columns! {
    /// One row a record.
    Records {
        lsn, end_lsn, prev_lsn, rmgr, kind, xid, toplevel_xid, origin, length, total_length, image_length, time,
        description_ends, description, block_ends;
        xid_valid, toplevel_xid_valid, origin_valid, time_valid,
    }
}
columns! {
    /// One row a block reference.
    Blocks {
        block_id, relation, tablespace_oid, database_oid, relfilenode, fork, block, data_length, stored_length,
        hole_offset, hole_length, compression;
        will_init, has_image, image_applies,
    }
}

/// Rows that were not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    records: Records,
    blocks: Blocks,
    len: usize,
    blocks_len: u32,
    rels: HashMap<RelTag, u32>,
    rels_in_order: Vec<RelTag>,
}

/// A batch of rows.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Records.
    pub len: usize,
    /// Block references.
    pub blocks_len: u32,
    /// The relations that the column `relation` of blocks counts through.
    pub rels: Vec<RelTag>,
    /// Columns of records: their names, and their bytes.
    pub records: Vec<(&'static str, Vec<u8>)>,
    /// Columns of block references.
    pub blocks: Vec<(&'static str, Vec<u8>)>,
}

fn put<const N: usize>(column: &mut Vec<u8>, value: [u8; N]) {
    column.extend_from_slice(&value);
}

impl Columns {
    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Roughly how many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.len * 80 + self.records.description.len() + self.blocks_len as usize * 40
    }

    /// Everything it holds; it is empty then.
    pub fn take(&mut self) -> Batch {
        let Self { records, blocks, len, blocks_len, rels_in_order, .. } = std::mem::take(self);
        let (records, blocks) = (records.buffers(), blocks.buffers());
        Batch { len, blocks_len, rels: rels_in_order, records, blocks }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// As [`RawRecord::decode`].
    pub fn add(&mut self, raw: &RawRecord<'_>, scene: &Scene<'_>) -> Result<(), WalError> {
        let record = raw.decode()?;
        let mut images = 0;
        shares(raw, |share| {
            if let Share::Image(_, len) = share {
                images += len;
            }
        })?;
        for block in &record.blocks {
            self.add_block(block);
        }
        let Record { header, .. } = &record;
        let r = &mut self.records;
        for (column, lsn) in
            [(&mut r.lsn, record.start), (&mut r.end_lsn, record.end), (&mut r.prev_lsn, header.prev)]
        {
            put(column, lsn.0.to_le_bytes());
        }
        put(&mut r.rmgr, [header.rmid]);
        let opcode = if header.rmid == rmgr::XACT { header.info & 0x70 } else { header.info & 0xF0 };
        put(&mut r.kind, (u16::from(header.rmid) << 4 | u16::from(opcode >> 4)).to_le_bytes());
        put(&mut r.xid, header.xid.to_le_bytes());
        r.xid_valid.push(header.xid != 0);
        put(&mut r.toplevel_xid, record.toplevel_xid.unwrap_or(0).to_le_bytes());
        r.toplevel_xid_valid.push(record.toplevel_xid.is_some());
        put(&mut r.origin, record.origin.unwrap_or(0).to_le_bytes());
        r.origin_valid.push(record.origin.is_some());
        put(&mut r.length, header.tot_len.saturating_sub(images).to_le_bytes());
        put(&mut r.total_length, header.tot_len.to_le_bytes());
        put(&mut r.image_length, images.to_le_bytes());
        let is_xact = header.rmid == rmgr::XACT;
        let end = if is_xact { XactEnd::decode(&record, scene.major).flatten() } else { None };
        put(&mut r.time, end.map_or(0, |end| end.time_us.saturating_add(EPOCH_US)).to_le_bytes());
        r.time_valid.push(end.is_some());
        describe(&mut r.description, &record, scene);
        put(&mut r.description_ends, end_of(r.description.len()));
        put(&mut r.block_ends, self.blocks_len.to_le_bytes());
        self.len += 1;
        Ok(())
    }

    fn add_block(&mut self, block: &BlockRef<'_>) {
        let BlockRef { id, tag, will_init, data, image } = block;
        let number = *self.rels.entry(tag.rel).or_insert_with(|| {
            self.rels_in_order.push(tag.rel);
            self.rels_in_order.len() as u32 - 1
        });
        let b = &mut self.blocks;
        put(&mut b.block_id, [*id]);
        put(&mut b.relation, number.to_le_bytes());
        put(&mut b.tablespace_oid, tag.rel.spc.to_le_bytes());
        put(&mut b.database_oid, tag.rel.db.to_le_bytes());
        put(&mut b.relfilenode, tag.rel.rel.to_le_bytes());
        put(&mut b.fork, [tag.fork as u8]);
        put(&mut b.block, tag.blkno.to_le_bytes());
        put(&mut b.data_length, (data.len() as u16).to_le_bytes());
        b.will_init.push(*will_init);
        b.has_image.push(image.is_some());
        let facts = image.as_ref().map(|i| (i.bytes.len() as u16, i.hole_offset, i.hole_length));
        let (stored, hole_offset, hole_length) = facts.unwrap_or_default();
        put(&mut b.stored_length, stored.to_le_bytes());
        put(&mut b.hole_offset, hole_offset.to_le_bytes());
        put(&mut b.hole_length, hole_length.to_le_bytes());
        let method = image.as_ref().map_or(Compression::None, crate::wal::image::Image::compression);
        put(&mut b.compression, [method as u8]);
        b.image_applies.push(block.applies_image());
        self.blocks_len += 1;
    }
}

/// Appends the description as UTF-8: bytes that are not become `\u{FFFD}`.
fn describe(out: &mut Vec<u8>, record: &Record<'_>, scene: &Scene<'_>) {
    let at = out.len();
    scene.describe(out, record);
    if out.get(at..).is_some_and(|text| std::str::from_utf8(text).is_err()) {
        let text = String::from_utf8_lossy(&out.split_off(at)).into_owned();
        out.extend_from_slice(text.as_bytes());
    }
}

fn end_of(len: usize) -> [u8; 4] {
    (len as u32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fill_bytes_from_the_lowest() {
        let mut bits = Bits::default();
        for bit in [true, false, true, false, false, false, false, true, true] {
            bits.push(bit);
        }
        assert_eq!(bits.bytes, [0b1000_0101, 1]);
    }
}
