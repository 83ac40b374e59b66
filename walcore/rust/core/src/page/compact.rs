//! Closing the gaps between items.

use super::{BLCKSZ, Bounds, ItemId, Misfit, PageBuf, maxalign};

impl PageBuf {
    /// Moves all items to the end of the page, in the order of their line pointers, and their padding with them.
    ///
    /// What is left below the new `upper` is not cleared, as in Postgres.
    ///
    /// Source: `compactify_tuples` in `src/backend/storage/page/bufpage.c`.
    pub(super) fn compact(&mut self, bounds: Bounds) -> Result<(), Misfit> {
        let Bounds { lower, upper, special } = bounds;
        let mut total = 0;
        let mut is_in_order = true;
        let mut last = special;
        for id in self.item_ids().filter(|id| !id.is_empty()) {
            let (offset, len) = (id.offset(), maxalign(id.len()));
            if offset < upper || offset + len > special || offset % 8 != 0 {
                return Err("line pointer points outside the items");
            }
            is_in_order &= offset < last;
            last = offset;
            total += len;
        }
        if total > special - lower {
            return Err("items are longer than the page");
        }
        if is_in_order { self.compact_in_order(special) } else { self.compact_any(upper, special) }
    }

    /// Items lie in the order of their line pointers: each moves up, over nothing that is still needed.
    fn compact_in_order(&mut self, special: usize) -> Result<(), Misfit> {
        let mut to = special;
        for number in 1..=self.max_offset() {
            let id = self.item_id(number)?;
            if id.is_empty() {
                continue;
            }
            let len = maxalign(id.len());
            to = to.checked_sub(len).ok_or("items are longer than the page")?;
            if to != id.offset() {
                self.shift(id.offset(), id.offset() + len, to)?;
                self.set_item_id(number, id.with_offset(to))?;
            }
        }
        self.set_upper(to);
        Ok(())
    }

    fn compact_any(&mut self, upper: usize, special: usize) -> Result<(), Misfit> {
        let mut scratch = [0u8; BLCKSZ];
        let old = scratch.get_mut(upper..special).ok_or("page header bounds are out of order")?;
        old.copy_from_slice(self.slice(upper, special)?);
        let mut to = special;
        for number in 1..=self.max_offset() {
            let id: ItemId = self.item_id(number)?;
            if id.is_empty() {
                continue;
            }
            let len = maxalign(id.len());
            to = to.checked_sub(len).ok_or("items are longer than the page")?;
            let item = scratch.get(id.offset()..id.offset() + len);
            self.put(to, item.ok_or("line pointer points outside the items")?)?;
            self.set_item_id(number, id.with_offset(to))?;
        }
        self.set_upper(to);
        Ok(())
    }
}
