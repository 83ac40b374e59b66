//! What pruning and vacuum do to a heap page.

use super::{HAS_FREE_LINES, ItemId, Misfit, PageBuf};

impl PageBuf {
    /// Closes the gaps that pruning left, and cuts unused line pointers off the end.
    ///
    /// Source: `PageRepairFragmentation` in `src/backend/storage/page/bufpage.c`.
    pub fn repair_fragmentation(&mut self) -> Result<(), Misfit> {
        let bounds = self.aligned_bounds()?;
        let (mut number, mut last_used, mut unused, mut stored) = (0usize, 0usize, 0usize, false);
        self.each_item_id(|id| {
            number += 1;
            if !id.is_used() {
                unused += 1;
                return ItemId::default();
            }
            last_used = number;
            stored |= !id.is_empty();
            id
        });
        if stored {
            self.compact(bounds)?;
        } else {
            self.set_upper(bounds.special);
        }
        let cut = number - last_used;
        self.cut_lines(cut);
        self.set_flag(HAS_FREE_LINES, unused > cut);
        Ok(())
    }

    /// Cuts unused line pointers off the end, all but the first; moves nothing.
    ///
    /// Source: `PageTruncateLinePointerArray` in `src/backend/storage/page/bufpage.c`.
    pub fn truncate_lines(&mut self) {
        let (mut number, mut last_kept, mut unused) = (0usize, 1usize, 0usize);
        for id in self.item_ids() {
            number += 1;
            if id.is_used() {
                last_kept = last_kept.max(number);
            } else {
                unused += 1;
            }
        }
        let cut = number.saturating_sub(last_kept);
        self.cut_lines(cut);
        self.set_flag(HAS_FREE_LINES, unused > cut);
    }
}
