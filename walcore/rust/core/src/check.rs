//! Redo checked against the pages that Postgres itself put into the WAL (`wal_consistency_checking`).

use std::collections::{BTreeMap, HashMap};

use crate::Lsn;
use crate::mask::{AccessMethod, mask};
use crate::page::{HEADER_LEN, PageBuf};
use crate::redo::{Ctx, RedoError, Target, Touched, redo, touches};
use crate::rmgr;
use crate::wal::{BlockRef, BlockTag, Fork, Record, RelTag};

/// What was found for one record type of one resource manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Records.
    pub seen: u64,
    /// Pages compared with an image.
    pub compared: u64,
    /// Of these, unlike the image; and pages that redo failed on.
    pub different: u64,
    /// Pages without redo: their content is taken from the image.
    pub unsupported: u64,
}

/// One page that redo made otherwise than Postgres.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Start of the record.
    pub lsn: Lsn,
    /// Resource manager.
    pub rmid: u8,
    /// Its part of the record's `xl_info`.
    pub info: u8,
    /// The page; `None` if the record itself does not read.
    pub page: Option<BlockTag>,
    /// What differs, in words.
    pub what: String,
}

type Key = (u8, u8);

/// Redoes records on pages it keeps, and compares each with the image in the record.
#[derive(Debug, Default)]
pub struct Checker {
    rels: HashMap<RelTag, HashMap<(Fork, u32), Kept>>,
    counts: BTreeMap<Key, Count>,
    differences: BTreeMap<Key, Difference>,
}

#[derive(Clone, Debug)]
struct Kept {
    page: PageBuf,
    /// Of the record that changed it last; `None` until one with a mask did.
    method: Option<AccessMethod>,
}

const XLOG_FPI_FOR_HINT: u8 = 0xA0;

impl Checker {
    /// Takes the next record of the WAL.
    pub fn add(&mut self, record: &Record<'_>, ctx: Ctx) {
        self.count(record).seen += 1;
        let mut touched = Vec::new();
        if let Err(error) = touches(record, ctx.major, &mut |touch| touched.push(touch)) {
            self.differ(record, None, error.to_string());
            return;
        }
        for touch in touched {
            match touch {
                Touched::Page { target: Target::Block(tag), will_init, has_image, .. } => {
                    self.page(record, tag, will_init || has_image, ctx);
                }
                Touched::Page { .. } | Touched::Created { .. } => {}
                Touched::Truncated { rel, fork, blocks } => {
                    if let Some(pages) = self.rels.get_mut(&rel) {
                        pages.retain(|(f, blkno), _| *f != fork || *blkno < blocks);
                    }
                }
                Touched::Dropped { rel } => {
                    self.rels.remove(&rel);
                }
                Touched::DatabaseDropped { spc, db } => self.drop_database(spc, db),
                Touched::DatabaseCopied { src_spc, src_db, spc, db } => {
                    self.drop_database(spc, db);
                    self.copy_database((src_spc, src_db), (spc, db));
                }
            }
        }
    }

    /// What was found, by resource manager and record type.
    pub fn counts(&self) -> &BTreeMap<(u8, u8), Count> {
        &self.counts
    }

    /// The first difference of each record type that has one.
    pub fn differences(&self) -> impl Iterator<Item = &Difference> {
        self.differences.values()
    }

    fn drop_database(&mut self, spc: u32, db: u32) {
        self.rels.retain(|rel, _| (rel.spc, rel.db) != (spc, db));
    }

    fn copy_database(&mut self, from: (u32, u32), to: (u32, u32)) {
        let copies: Vec<_> = self
            .rels
            .iter()
            .filter(|(rel, _)| (rel.spc, rel.db) == from)
            .map(|(rel, pages)| (RelTag { spc: to.0, db: to.1, rel: rel.rel }, pages.clone()))
            .collect();
        self.rels.extend(copies);
    }

    fn count(&mut self, record: &Record<'_>) -> &mut Count {
        self.counts.entry(key(record)).or_default()
    }

    fn differ(&mut self, record: &Record<'_>, page: Option<BlockTag>, what: String) {
        self.count(record).different += 1;
        let (rmid, info) = key(record);
        let difference = Difference { lsn: record.start, rmid, info, page, what };
        self.differences.entry((rmid, info)).or_insert(difference);
    }

    fn page(&mut self, record: &Record<'_>, tag: BlockTag, starts: bool, ctx: Ctx) {
        let kept = self.rels.get_mut(&tag.rel).and_then(|pages| pages.remove(&(tag.fork, tag.blkno)));
        let block = record.blocks.iter().find(|block| block.tag == tag);
        let method = AccessMethod::from_rmid(record.header.rmid);
        let method = method.or_else(|| kept.as_ref().and_then(|kept| kept.method));
        let mut page = kept.map(|kept| kept.page);
        if page.is_none() && !starts {
            // Nothing is known of the page: its history begins with what the record says came out.
            if let Some(page) = block.and_then(|block| expected(record, block)) {
                self.keep(tag, page, method);
            }
            return;
        }
        if let Some(hint) = block.filter(|block| is_hint(record, block)) {
            self.compare(record, hint, page.as_ref(), method);
        }
        match redo(&mut page, record, &Target::Block(tag), &ctx) {
            Ok(()) => {}
            Err(RedoError::Unsupported { .. }) => {
                self.count(record).unsupported += 1;
                if let Some(page) = block.and_then(|block| expected(record, block)) {
                    self.keep(tag, page, method);
                }
                return;
            }
            Err(error) => {
                self.differ(record, Some(tag), error.to_string());
                page = block.and_then(|block| expected(record, block));
            }
        }
        if let Some(shown) = block.filter(|block| !block.applies_image() && block.image.is_some())
            && !self.compare(record, shown, page.as_ref(), method)
        {
            page = expected(record, shown);
        }
        if let Some(page) = page {
            self.keep(tag, page, method);
        }
    }

    fn keep(&mut self, tag: BlockTag, page: PageBuf, method: Option<AccessMethod>) {
        self.rels.entry(tag.rel).or_default().insert((tag.fork, tag.blkno), Kept { page, method });
    }

    /// Compares a page with the image in the record; says whether they are alike.
    fn compare(
        &mut self,
        record: &Record<'_>,
        block: &BlockRef<'_>,
        page: Option<&PageBuf>,
        method: Option<AccessMethod>,
    ) -> bool {
        let (Some(ours), Some(theirs), Some(method)) = (page, expected(record, block), method) else {
            return true;
        };
        // The page is ahead of an image of the past; Postgres does not compare these either.
        if ours.lsn() > record.end {
            return true;
        }
        let (mut ours, mut theirs) = (ours.clone(), theirs);
        mask(&mut ours, method, block.tag.blkno);
        mask(&mut theirs, method, block.tag.blkno);
        self.count(record).compared += 1;
        let what = difference(&ours, &theirs);
        let is_same = what.is_none();
        if let Some(what) = what {
            self.differ(record, Some(block.tag), what);
        }
        is_same
    }
}

/// What counts as one record type: for transactions, whether more than the time is logged does not.
fn key(record: &Record<'_>) -> Key {
    let (rmid, info) = (record.header.rmid, record.header.rmgr_info());
    (rmid, if rmid == rmgr::XACT { info & 0x70 } else { info })
}

/// The page as the record says it came out.
fn expected(record: &Record<'_>, block: &BlockRef<'_>) -> Option<PageBuf> {
    let mut page = block.image.as_ref()?.restore(record.start, block.id).ok()?;
    page.set_lsn(record.end);
    Some(page)
}

/// An image of a page on which only hints changed: it must be the page we have.
fn is_hint(record: &Record<'_>, block: &BlockRef<'_>) -> bool {
    record.header.rmid == rmgr::XLOG
        && record.header.rmgr_info() == XLOG_FPI_FOR_HINT
        && block.applies_image()
}

/// The first difference of two masked pages, in words.
pub fn difference(ours: &PageBuf, theirs: &PageBuf) -> Option<String> {
    let at = ours.bytes().iter().zip(theirs.bytes()).position(|(a, b)| a != b)?;
    let n = ours.bytes().iter().zip(theirs.bytes()).filter(|(a, b)| a != b).count();
    let hex = |page: &PageBuf| {
        let end = (at + 8).min(page.bytes().len());
        let bytes = page.bytes().get(at..end).unwrap_or(&[]);
        bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    };
    let (place, ours, theirs) = (place(theirs, at), hex(ours), hex(theirs));
    Some(format!("first_byte={at} place={place:?} bytes={n} ours=[{ours}] expected=[{theirs}]"))
}

/// What is at this byte of a page.
fn place(page: &PageBuf, at: usize) -> String {
    let header = ["lsn", "lsn", "lsn", "lsn", "checksum", "flags", "lower", "upper", "special", "version"];
    if at < HEADER_LEN {
        return format!("header {}", header.get(at / 2).unwrap_or(&"prune_xid"));
    }
    if at < usize::from(page.lower()) {
        return format!("line pointer {}", (at - HEADER_LEN) / 4 + 1);
    }
    if at >= usize::from(page.special()) {
        return format!("special space byte {}", at - usize::from(page.special()));
    }
    let mut ids = (1..=page.max_offset()).filter_map(|n| page.item_id(n).ok().map(|id| (n, id)));
    let item = ids.find(|(_, id)| (id.offset()..id.offset() + id.len()).contains(&at));
    item.map_or("no item".to_owned(), |(n, id)| format!("item {n} byte {}", at - id.offset()))
}
