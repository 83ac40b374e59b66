//! Generic WAL: byte ranges that extensions log of their pages.
//!
//! Source: `generic_redo` and `applyPageRedo` in `src/backend/access/transam/generic_xlog.c`.

use super::{Effect, On, Redone};
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;

/// Changes one page.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    const SHORT: Misfit = "delta is too short";
    let mut delta = Reader(on.block.data);
    while delta.left() > 0 {
        let (at, len) = (delta.u16().ok_or(SHORT)?, delta.u16().ok_or(SHORT)?);
        page.put(at.into(), delta.bytes(len.into()).ok_or(SHORT)?)?;
    }
    // The delta says nothing of the hole, and the primary zeroed it.
    let bounds = page.bounds()?;
    page.slice_mut(bounds.lower, bounds.upper)?.fill(0);
    Ok(Effect::Changed)
}
