//! Redo: one record onto one page.

mod brin;
mod error;
mod generic;
mod gin;
mod gin_posting;
mod gist;
mod hash;
mod heap;
mod heap2;
mod index_tuple;
mod nbtree;
mod seq;
mod slru;
mod spgist;
mod spgist_page;
mod target;
mod tid;
pub mod touch;
pub(crate) mod tuple;
pub mod vm;

pub use error::RedoError;
pub use target::{Slru, Target};
pub use touch::{Missing, Touched, commit_ts_touches, touches};

use crate::page::{Misfit, PageBuf};
use crate::rmgr;
use crate::version::Major;
use crate::wal::{BlockRef, BlockTag, Fork, Record};

/// What redo must know beside the record.
#[derive(Clone, Copy, Debug)]
pub struct Ctx {
    /// The major version that wrote the WAL.
    pub major: Major,
    /// Data checksums or `wal_log_hints` are on at the record's LSN.
    pub hint_bits_logged: bool,
}

/// One block of one record, as a resource manager's redo function gets it.
#[derive(Clone, Copy)]
struct On<'a, 'r> {
    record: &'a Record<'r>,
    block: &'a BlockRef<'r>,
    ctx: &'a Ctx,
}

/// What redo did to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Its LSN becomes the end of the record.
    Changed,
    /// Its LSN stays, whatever else changed.
    LsnKept,
}

type Redone = Result<Effect, Misfit>;

const NO_SUCH_RECORD: Misfit = "no such record type";
const DATA_SHORT: Misfit = "data of the record is too short";
const XLOG_FPI_FOR_HINT: u8 = 0xA0;

/// Applies one record to one page it touches.
///
/// `None` is a page that does not exist. Records must come in the order of the WAL, starting from an image of the page,
/// or from a record that [`touches`] reports with `will_init` or `has_image`, or from nothing where `missing` allows it.
/// After an error the content of `page` means nothing.
///
/// # Errors
/// `Unsupported` if there is no redo for the resource manager; `Failed` if the record does not fit the page;
/// `Image` if a full-page image does not restore.
///
/// Source: `XLogReadBufferForRedoExtended` in `src/backend/access/transam/xlogutils.c`.
pub fn redo(
    page: &mut Option<PageBuf>,
    record: &Record<'_>,
    target: &Target,
    ctx: &Ctx,
) -> Result<(), RedoError> {
    let failed = |reason| RedoError::failed(record, *target, reason);
    match target {
        Target::Slru { kind, pageno } => slru::redo(page, record, *kind, *pageno, ctx.major).map_err(failed),
        Target::Block(tag) => match record.blocks.iter().find(|block| block.tag == *tag) {
            Some(block) => registered(page, &On { record, block, ctx }),
            None => unregistered(page, record, *tag).map_err(failed),
        },
    }
}

fn registered(page: &mut Option<PageBuf>, on: &On<'_, '_>) -> Result<(), RedoError> {
    let On { record, block, .. } = *on;
    let target = Target::Block(block.tag);
    let failed = |reason| RedoError::failed(record, target, reason);
    if let Some(image) = block.image.as_ref().filter(|image| image.apply()) {
        let restored = image.restore(record.start, block.id);
        let mut restored =
            restored.map_err(|error| RedoError::Image { error, page: target, lsn: record.start })?;
        if !restored.is_new() {
            restored.set_lsn(record.end);
        }
        *page = Some(restored);
        return after_image(page, on).map_err(failed);
    }
    let exists = page.as_ref().is_some_and(|page| !page.is_new());
    let page = if block.will_init {
        page.insert(PageBuf::zeroed())
    } else if exists {
        match page {
            Some(page) if record.end > page.lsn() => page,
            _ => return Ok(()),
        }
    } else if record.header.rmid == rmgr::XLOG {
        return no_image(record).map_err(failed);
    } else if touch::sets_vm(record, block.id) {
        let page = page.insert(PageBuf::zeroed());
        page.init(0);
        page
    } else {
        return Err(failed("page does not exist"));
    };
    let redone = match record.header.rmid {
        rmgr::XLOG => no_image(record).map(|()| Effect::LsnKept),
        rmgr::HEAP | rmgr::HEAP2 if block.tag.fork == Fork::Vm => vm::redo(page, on),
        rmgr::HEAP => heap::redo(page, on),
        rmgr::HEAP2 => heap2::redo(page, on),
        rmgr::BTREE => nbtree::redo(page, on),
        rmgr::HASH => hash::redo(page, on),
        rmgr::GIN => gin::redo(page, on),
        rmgr::GIST => gist::redo(page, on),
        rmgr::SEQ => seq::redo(page, on),
        rmgr::SPGIST => spgist::redo(page, on),
        rmgr::BRIN => brin::redo(page, on),
        rmgr::GENERIC => generic::redo(page, on),
        _ => return Err(RedoError::unsupported(record, target)),
    };
    if redone.map_err(failed)? == Effect::Changed {
        page.set_lsn(record.end);
    }
    Ok(())
}

/// What is done even to a page that an image has just replaced: the image was taken before that change.
fn after_image(page: &mut Option<PageBuf>, on: &On<'_, '_>) -> Result<(), Misfit> {
    match (page, on.record.header.rmid) {
        (Some(page), rmgr::HASH) => hash::after_image(page, on),
        (Some(page), rmgr::GIST) => gist::after_image(page, on),
        _ => Ok(()),
    }
}

/// An image record without an image: nothing, for a hint; damage, otherwise.
fn no_image(record: &Record<'_>) -> Result<(), Misfit> {
    if record.header.rmgr_info() == XLOG_FPI_FOR_HINT { Ok(()) } else { Err("image is missing") }
}

/// A page that the record changes without naming it.
fn unregistered(page: &mut Option<PageBuf>, record: &Record<'_>, tag: BlockTag) -> Result<(), Misfit> {
    match record.header.rmid {
        rmgr::HEAP | rmgr::HEAP2 if tag.fork == Fork::Vm => vm::clear_unregistered(page, record, tag),
        rmgr::SMGR if tag.fork == Fork::Vm => vm::truncate_tail(page, record, tag),
        _ => Err("record does not touch the page"),
    }
}
