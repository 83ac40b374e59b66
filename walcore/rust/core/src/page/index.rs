//! Removing and replacing items of an index page.

use super::{HEADER_LEN, ItemId, Misfit, PageBuf, maxalign};

impl PageBuf {
    /// Removes an item and its line pointer; later items get lower numbers.
    ///
    /// Source: `PageIndexTupleDelete` in `src/backend/storage/page/bufpage.c`.
    pub fn delete_item(&mut self, number: u16) -> Result<(), Misfit> {
        let id = self.stored_item(number)?;
        self.remove_line(number)?;
        self.close_gap(id, maxalign(id.len()))
    }

    /// Removes several items; `numbers` ascend.
    ///
    /// Source: `PageIndexMultiDelete` in `src/backend/storage/page/bufpage.c`.
    pub fn delete_items(&mut self, numbers: &[u16]) -> Result<(), Misfit> {
        // The two ways leave the items in different places, so the limit is Postgres' own.
        if numbers.len() <= 2 {
            return numbers.iter().rev().try_for_each(|number| self.delete_item(*number));
        }
        let bounds = self.aligned_bounds()?;
        let mut lines: Vec<u8> = Vec::with_capacity(bounds.lower);
        let mut victims = numbers.iter().copied().peekable();
        for (number, id) in (1u16..).zip(self.item_ids()) {
            if victims.next_if_eq(&number).is_some() {
                continue;
            }
            lines.extend_from_slice(&id.0.to_le_bytes());
        }
        if victims.next().is_some() {
            return Err("items to delete are not there, or not in order");
        }
        self.put(HEADER_LEN, &lines)?;
        self.set_lower(HEADER_LEN + lines.len());
        if lines.is_empty() {
            self.set_upper(bounds.special);
            return Ok(());
        }
        self.compact(bounds)
    }

    /// Removes an item; its line pointer stays, unused, unless it is the last.
    ///
    /// Source: `PageIndexTupleDeleteNoCompact` in `src/backend/storage/page/bufpage.c`.
    pub fn delete_item_keep_line(&mut self, number: u16) -> Result<(), Misfit> {
        let id = self.stored_item(number)?;
        if number < self.max_offset() {
            self.set_item_id(number, ItemId::default())?;
        } else {
            self.remove_line(number)?;
        }
        self.close_gap(id, maxalign(id.len()))
    }

    /// Puts another item in the place of one.
    ///
    /// Source: `PageIndexTupleOverwrite` in `src/backend/storage/page/bufpage.c`.
    pub fn overwrite_item(&mut self, number: u16, item: &[u8]) -> Result<(), Misfit> {
        let bounds = self.aligned_bounds()?;
        let id = self.stored_item(number)?;
        let (old_len, new_len) = (maxalign(id.len()), maxalign(item.len()));
        if new_len > old_len + (bounds.upper - bounds.lower) {
            return Err("no room for the item");
        }
        if old_len != new_len {
            // Everything before the item moves by the difference, up or down.
            self.shift(bounds.upper, id.offset(), bounds.upper + old_len - new_len)?;
            self.set_upper(bounds.upper + old_len - new_len);
            self.each_item_id(|other| {
                if other.is_empty() || other.offset() > id.offset() {
                    return other;
                }
                other.with_offset((other.offset() + old_len).wrapping_sub(new_len))
            });
        }
        let at = id.offset() + old_len - new_len;
        self.put(at, item)?;
        self.set_item_id(number, ItemId::new(at, id.flags(), item.len()))
    }

    /// The line pointer with a number, behind which an item lies.
    fn stored_item(&self, number: u16) -> Result<ItemId, Misfit> {
        let bounds = self.aligned_bounds()?;
        let id = self.item_id(number)?;
        let (offset, end) = (id.offset(), id.offset() + maxalign(id.len()));
        if id.is_empty() || offset < bounds.upper || end > bounds.special || offset % 8 != 0 {
            return Err("line pointer points outside the items");
        }
        Ok(id)
    }

    /// Moves the items before a removed one up over it.
    fn close_gap(&mut self, removed: ItemId, len: usize) -> Result<(), Misfit> {
        let upper = usize::from(self.upper());
        self.shift(upper, removed.offset(), upper + len)?;
        self.set_upper(upper + len);
        self.each_item_id(|id| {
            let moves = !id.is_empty() && id.offset() <= removed.offset();
            if moves { id.with_offset(id.offset() + len) } else { id }
        });
        Ok(())
    }
}
