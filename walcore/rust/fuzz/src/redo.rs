//! One record on one page, whatever either of them holds.

use walcore::Lsn;
use walcore::check::difference;
use walcore::lsn::maxalign;
use walcore::mask::{AccessMethod, mask};
use walcore::page::{BLCKSZ, HEADER_LEN, PageBuf};
use walcore::reader::Reader;
use walcore::redo::{Ctx, Target, Touched, redo as redo_one, touches};
use walcore::rmgr;
use walcore::version::Major;
use walcore::wal::Record;

use crate::{START, bits_of, major_of};

const HINTS_LOGGED: u8 = 4;
const NO_PAGE: u8 = 8;

/// Bytes: the major and flags (1), length of the record (2), the record, how much of the page stands in front of its
/// hole (2), that front, and the page's end. The page is tried under every target that the record has.
///
/// # Panics
/// If an error does not name page and LSN, or a page that was sound is left unsound by redo that succeeds.
pub fn redo(input: &[u8]) {
    let mut r = Reader(input);
    let (Some(flags), Some(len)) = (r.u8(), r.u16()) else { return };
    let Some(bytes) = r.bytes(len.into()) else { return };
    let mut bytes = bytes.to_vec();
    let Some(length) = bytes.first_chunk_mut() else { return };
    *length = u32::from(len).to_le_bytes();
    let end = Lsn(START.0 + maxalign(len.into()));
    let Ok(record) = Record::decode(START, end, &bytes) else { return };
    let page = if flags & NO_PAGE == 0 { page(r) } else { None };
    let ctx = Ctx { major: major_of(flags), hint_bits_logged: flags & HINTS_LOGGED != 0 };
    on_every_target(&record, page.as_ref(), ctx);
}

/// As [`redo`] takes it; the record must be shorter than 64 KiB.
pub fn encode(record: &[u8], page: Option<&PageBuf>, major: Major) -> Option<Vec<u8>> {
    let mut out = vec![bits_of(major) | if page.is_some() { 0 } else { NO_PAGE }];
    out.extend(u16::try_from(record.len()).ok()?.to_le_bytes());
    out.extend(record);
    let bytes = page?.bytes();
    let (lower, upper) = (usize::from(page?.lower()), usize::from(page?.upper()));
    let (front, tail) = if lower < upper && upper <= BLCKSZ { (lower, upper) } else { (BLCKSZ, BLCKSZ) };
    out.extend((front as u16).to_le_bytes());
    out.extend(bytes.get(..front)?);
    out.extend(bytes.get(tail..)?);
    Some(out)
}

fn page(mut r: Reader<'_>) -> Option<PageBuf> {
    let front_len = usize::from(r.u16()?).min(r.left()).min(BLCKSZ);
    let front = r.bytes(front_len)?;
    let mut page = PageBuf::zeroed();
    page.bytes_mut().get_mut(..front.len())?.copy_from_slice(front);
    let tail = r.0.get(..BLCKSZ - front_len).unwrap_or(r.0);
    page.bytes_mut().get_mut(BLCKSZ - tail.len()..)?.copy_from_slice(tail);
    Some(page)
}

fn on_every_target(record: &Record<'_>, page: Option<&PageBuf>, ctx: Ctx) {
    let mut targets: Vec<Target> = record.blocks.iter().map(|block| Target::Block(block.tag)).collect();
    let _ = touches(record, ctx.major, &mut |touched| {
        if let Touched::Page { target, .. } = touched {
            targets.push(target);
        }
    });
    targets.sort_unstable();
    targets.dedup();
    for target in targets {
        let mut redone = page.cloned();
        let was_sound = page.is_none_or(is_sound);
        match redo_one(&mut redone, record, &target, &ctx) {
            Ok(()) => {
                let Some(mut redone) = redone else { continue };
                let checked = matches!(target, Target::Block(_)) && may_be_trusted(record);
                assert!(!checked || !was_sound || is_sound(&redone), "left unsound: page={target}");
                if let Some(method) = AccessMethod::from_rmid(record.header.rmid) {
                    mask(&mut redone, method, 7);
                    let _ = difference(&redone, &PageBuf::zeroed());
                }
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains(&format!("page={target}")), "{said}");
                assert!(said.contains("lsn=0/40000000"), "{said}");
            }
        }
    }
}

/// Whether the bounds of a page are in order.
fn is_sound(page: &PageBuf) -> bool {
    let (lower, upper, special) = (page.lower(), page.upper(), page.special());
    page.is_new()
        || HEADER_LEN <= lower.into() && lower <= upper && upper <= special && usize::from(special) <= BLCKSZ
}

/// Whether the page is not simply what the record says: an image, or bytes at an offset.
fn may_be_trusted(record: &Record<'_>) -> bool {
    record.header.rmid != rmgr::GENERIC && !record.blocks.iter().any(walcore::wal::BlockRef::applies_image)
}
