//! What fills the WAL, and what settings would spare.

use std::collections::HashMap;

use super::pack::Packer;
use super::share::{Share, shares};
use crate::page::BLCKSZ;
use crate::rmgr;
use crate::wal::image::Compression;
use crate::wal::{BlockRef, Image, RawRecord, Record, RelTag, WalError};

/// Bytes and counts of one relation under one resource manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Records whose first block reference is to it.
    pub records: u64,
    /// Their bytes without images.
    pub record_bytes: u64,
    /// Full-page images of its pages.
    pub images: u64,
    /// Their bytes, as stored.
    pub image_bytes: u64,
}

/// Why an image is in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// `full_page_writes`, or a base backup that was being taken.
    FullPageWrites,
    /// The record needs it, whatever the settings are.
    Forced,
    /// `wal_consistency_checking`.
    Checking,
}

impl Reason {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullPageWrites => "full_page_writes",
            Self::Forced => "forced",
            Self::Checking => "wal_consistency_checking",
        }
    }
}

/// Images there for one reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Images {
    /// How many.
    pub count: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
    /// Bytes of the headers that describe them in their records.
    pub header_bytes: u64,
}

/// Block references of one number in one kind of record: how much data comes with a page, and without its image.
#[derive(Clone, Copy, Debug, Default)]
struct Data {
    spared_images: u64,
    /// Of those images, bytes of data that were logged all the same.
    kept_bytes: u64,
    plain: u64,
    plain_bytes: u64,
}

/// What the images that were packed came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packed {
    /// How many images were packed.
    pub count: u64,
    /// Bytes as stored, and of what says how long a compressed image's hole is, of all images they stand for.
    pub stored_bytes: f64,
    /// Bytes packed, by [`METHODS`].
    pub packed_bytes: [f64; 3],
}

/// The methods of `wal_compression`.
pub const METHODS: [Compression; 3] = [Compression::Pglz, Compression::Lz4, Compression::Zstd];

/// `SizeOfXLogRecordBlockImageHeader`.
const IMAGE_HEADER_LEN: usize = 5;

/// Images packed before only every second one is, and again before every fourth, and so on.
const PACKED_AT_A_STRIDE: u64 = 1 << 14;

/// Totals of WAL.
#[derive(Debug)]
pub struct Usage {
    volumes: HashMap<(Option<RelTag>, u8), Volume>,
    images: HashMap<Reason, Images>,
    data: HashMap<(u8, u8, u8), Data>,
    packed: Packed,
    packer: Packer,
    stride: u64,
    seen: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            volumes: HashMap::new(),
            images: HashMap::new(),
            data: HashMap::new(),
            packed: Packed::default(),
            packer: Packer::default(),
            stride: 1,
            seen: 0,
        }
    }
}

impl Usage {
    /// Adds one record; with `pack` its images are packed, all of the first sixteen thousand and a share of the rest.
    ///
    /// # Errors
    /// As [`RawRecord::decode`], and `BadImage`.
    pub fn add(&mut self, raw: &RawRecord<'_>, pack: bool) -> Result<(), WalError> {
        let rmid = raw.header.rmid;
        shares(raw, |share| match share {
            Share::Record(rel, len, _) => {
                let volume = self.volumes.entry((rel, rmid)).or_default();
                volume.records += 1;
                volume.record_bytes += u64::from(len);
            }
            Share::Image(rel, len) => {
                let volume = self.volumes.entry((Some(rel), rmid)).or_default();
                volume.images += 1;
                volume.image_bytes += u64::from(len);
            }
        })?;
        let record = raw.decode()?;
        for block in &record.blocks {
            self.add_block(&record, block, pack)?;
        }
        Ok(())
    }

    fn add_block(&mut self, record: &Record<'_>, block: &BlockRef<'_>, pack: bool) -> Result<(), WalError> {
        let key = (record.header.rmid, record.header.rmgr_info(), block.id);
        let data = self.data.entry(key).or_default();
        let data_len = block.data.len() as u64;
        let Some(image) = &block.image else {
            data.plain += 1;
            data.plain_bytes += data_len;
            return Ok(());
        };
        let reason = reason_of(record, block.id, image);
        if reason == Reason::FullPageWrites {
            data.spared_images += 1;
            data.kept_bytes += data_len;
        }
        let images = self.images.entry(reason).or_default();
        images.count += 1;
        images.bytes += image.bytes.len() as u64;
        images.header_bytes += (IMAGE_HEADER_LEN + hole_len_len(image)) as u64;
        if pack {
            self.pack(record, block, image)?;
        }
        Ok(())
    }

    fn pack(&mut self, record: &Record<'_>, block: &BlockRef<'_>, image: &Image<'_>) -> Result<(), WalError> {
        self.seen += 1;
        if self.seen % self.stride != 0 {
            return Ok(());
        }
        let page = image.restore(record.start, block.id)?;
        let (hole, len) = (usize::from(image.hole_offset), usize::from(image.hole_length));
        let mut raw = page.bytes().to_vec();
        raw.drain(hole..hole + len);
        #[expect(clippy::cast_precision_loss, reason = "sums for shares")]
        let weight = self.stride as f64;
        let bytes = |len: usize| f64::from(u32::try_from(len).unwrap_or(u32::MAX)) * weight;
        for (sum, method) in self.packed.packed_bytes.iter_mut().zip(METHODS) {
            *sum += bytes(self.packer.stored_len(&raw, method));
        }
        self.packed.stored_bytes += bytes(image.bytes.len() + hole_len_len(image));
        self.packed.count += 1;
        if self.packed.count % PACKED_AT_A_STRIDE == 0 {
            self.stride *= 2;
        }
        Ok(())
    }

    /// By relation and resource manager; in no order.
    pub fn volumes(&self) -> impl Iterator<Item = (Option<RelTag>, u8, Volume)> + '_ {
        self.volumes.iter().map(|((rel, rmid), volume)| (*rel, *rmid, *volume))
    }

    /// By reason.
    pub fn images(&self, reason: Reason) -> Images {
        self.images.get(&reason).copied().unwrap_or_default()
    }

    /// About how many bytes of data would stand where images for `full_page_writes` stand now: for each, the mean of
    /// those blocks that the same kind of record changed without an image, less what was logged all the same.
    pub fn data_instead(&self) -> u64 {
        let instead = |data: &Data| {
            let all = u128::from(data.spared_images) * u128::from(data.plain_bytes);
            let mean = all.checked_div(data.plain.into()).unwrap_or(0);
            u64::try_from(mean).unwrap_or(u64::MAX).saturating_sub(data.kept_bytes)
        };
        self.data.values().map(instead).sum()
    }

    /// What packing came to.
    pub fn packed(&self) -> Packed {
        self.packed
    }
}

/// `SizeOfXLogRecordBlockCompressHeader`, where it is: the length of a hole that does not follow from the image's.
fn hole_len_len(image: &Image<'_>) -> usize {
    let says_hole = image.hole_length > 0 && image.compression() != Compression::None;
    if says_hole { 2 } else { 0 }
}

/// Source: where the backend registers buffers with `REGBUF_FORCE_IMAGE`.
fn reason_of(record: &Record<'_>, block: u8, image: &Image<'_>) -> Reason {
    const XLOG_FPI: u8 = 0xB0;
    const HASH_SPLIT_PAGE: u8 = 0x50;
    const GIN_SPLIT: u8 = 0x30;
    const GIN_VACUUM_PAGE: u8 = 0x40;
    if !image.apply() {
        return Reason::Checking;
    }
    match (record.header.rmid, record.header.rmgr_info()) {
        (rmgr::XLOG, XLOG_FPI) | (rmgr::HASH, HASH_SPLIT_PAGE) | (rmgr::GIN, GIN_VACUUM_PAGE) => {
            Reason::Forced
        }
        // The fourth is the child whose split this one completes.
        (rmgr::GIN, GIN_SPLIT) if block < 3 => Reason::Forced,
        _ => Reason::FullPageWrites,
    }
}

const _: () = assert!(BLCKSZ == 8192, "images are of pages of 8 KiB");
