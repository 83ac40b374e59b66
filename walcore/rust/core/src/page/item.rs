//! Line pointers and the items behind them.

use super::{BLCKSZ, HEADER_LEN, Misfit, PageBuf, maxalign};
use crate::reader::Reader;

/// Line pointers that fit on a heap page (`MaxHeapTuplesPerPage`).
const HEAP_ITEMS_MAX: u16 = 291;
/// Size of a line pointer.
const LINE_LEN: usize = 4;

/// A line pointer: where an item lies, how long it is, what it is.
///
/// ```text
/// bit  0        15      17       32
///      | offset | flags | length |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemId(pub u32);

impl ItemId {
    /// `LP_UNUSED`.
    pub const UNUSED: u32 = 0;
    /// `LP_NORMAL`.
    pub const NORMAL: u32 = 1;
    /// `LP_REDIRECT`: the offset is another line pointer's number.
    pub const REDIRECT: u32 = 2;
    /// `LP_DEAD`.
    pub const DEAD: u32 = 3;

    /// One with these fields, each within its bits.
    pub fn new(offset: usize, flags: u32, len: usize) -> Self {
        Self((offset as u32 & 0x7FFF) | (flags & 3) << 15 | (len as u32) << 17)
    }

    /// Where the item starts, from the start of the page; or the line pointer redirected to.
    pub fn offset(self) -> usize {
        (self.0 & 0x7FFF) as usize
    }

    /// What it is.
    pub fn flags(self) -> u32 {
        self.0 >> 15 & 3
    }

    /// Length of the item.
    pub fn len(self) -> usize {
        (self.0 >> 17) as usize
    }

    /// Whether there is no item behind it.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether it is in use at all.
    pub fn is_used(self) -> bool {
        self.flags() != Self::UNUSED
    }

    /// Whether a live item is behind it.
    pub fn is_normal(self) -> bool {
        self.flags() == Self::NORMAL
    }

    pub(super) fn with_offset(self, offset: usize) -> Self {
        Self(self.0 & !0x7FFF | (offset as u32 & 0x7FFF))
    }
}

/// Where the line pointer with a number lies.
fn line_at(number: u16) -> Result<usize, Misfit> {
    let index = number.checked_sub(1).ok_or("line pointer number is 0")?;
    Ok(HEADER_LEN + LINE_LEN * usize::from(index))
}

impl PageBuf {
    /// Number of the last line pointer; 0 if there are none.
    pub fn max_offset(&self) -> u16 {
        self.lower().saturating_sub(HEADER_LEN as u16) / LINE_LEN as u16
    }

    /// The line pointer with a number from 1 to [`Self::max_offset`].
    pub fn item_id(&self, number: u16) -> Result<ItemId, Misfit> {
        if number > self.max_offset() {
            return Err("line pointer does not exist");
        }
        self.u32_at(line_at(number)?).map(ItemId)
    }

    /// Replaces a line pointer that exists.
    pub fn set_item_id(&mut self, number: u16, id: ItemId) -> Result<(), Misfit> {
        if number > self.max_offset() {
            return Err("line pointer does not exist");
        }
        self.put(line_at(number)?, &id.0.to_le_bytes())
    }

    /// All line pointers, in order.
    pub fn item_ids(&self) -> impl Iterator<Item = ItemId> + '_ {
        let lines = self.0.get(HEADER_LEN..usize::from(self.lower()).min(BLCKSZ)).unwrap_or(&[]);
        lines.chunks_exact(LINE_LEN).filter_map(|line| Reader(line).u32()).map(ItemId)
    }

    /// Lets `change` replace every line pointer.
    pub(crate) fn each_item_id(&mut self, mut change: impl FnMut(ItemId) -> ItemId) {
        let end = usize::from(self.lower()).min(BLCKSZ);
        let lines = self.0.get_mut(HEADER_LEN..end).unwrap_or(&mut []);
        for line in lines.chunks_exact_mut(LINE_LEN) {
            let id = change(ItemId(Reader(line).u32().unwrap_or(0)));
            line.copy_from_slice(&id.0.to_le_bytes());
        }
    }

    /// The bytes behind a line pointer.
    pub fn item(&self, id: ItemId) -> Result<&[u8], Misfit> {
        self.check_place(id)?;
        self.slice(id.offset(), id.offset() + id.len())
    }

    /// The bytes behind a line pointer, to change.
    pub fn item_mut(&mut self, id: ItemId) -> Result<&mut [u8], Misfit> {
        self.check_place(id)?;
        self.slice_mut(id.offset(), id.offset() + id.len())
    }

    /// An item lies between `upper` and `special`: never in the header, where a change of it would move them.
    fn check_place(&self, id: ItemId) -> Result<(), Misfit> {
        let end = id.offset() + id.len();
        if id.is_empty() || id.offset() >= usize::from(self.upper()) && end <= usize::from(self.special()) {
            return Ok(());
        }
        Err("line pointer points outside of the items")
    }

    /// The bytes of the item with a number, which must be a live one.
    pub fn normal_item_mut(&mut self, number: u16) -> Result<&mut [u8], Misfit> {
        let id = self.item_id(number)?;
        if id.is_normal() { self.item_mut(id) } else { Err("line pointer is not a normal one") }
    }

    /// Makes room for an item of a heap page behind the unused line pointer `number`, or behind a new last one.
    ///
    /// Returns where the item starts; what is there is left over from before.
    pub fn make_heap_item(&mut self, len: usize, number: u16) -> Result<usize, Misfit> {
        if number > HEAP_ITEMS_MAX {
            return Err("more line pointers than a heap page can have");
        }
        self.make_item(len, number)
    }

    /// Puts an item behind the unused line pointer `number`, or behind a new last one.
    pub fn put_item(&mut self, item: &[u8], number: u16) -> Result<(), Misfit> {
        let at = self.make_item(item.len(), number)?;
        self.put(at, item)
    }

    /// Adds an item with a number, moving the line pointers from there on up by one: an index page's way.
    ///
    /// Source: `PageAddItemExtended` without `PAI_OVERWRITE` in `src/backend/storage/page/bufpage.c`.
    pub fn insert_item(&mut self, item: &[u8], number: u16) -> Result<(), Misfit> {
        if number > self.max_offset() + 1 {
            return Err("line pointer number leaves a gap");
        }
        let at = self.make_room(item.len(), number, true)?;
        self.put(at, item)
    }

    /// Adds an item behind all others.
    pub fn append_item(&mut self, item: &[u8]) -> Result<(), Misfit> {
        self.insert_item(item, self.max_offset() + 1)
    }

    /// Source: `PageAddItemExtended` with `PAI_OVERWRITE` in `src/backend/storage/page/bufpage.c`.
    fn make_item(&mut self, len: usize, number: u16) -> Result<usize, Misfit> {
        let is_new = number == self.max_offset() + 1;
        if !is_new {
            let id = self.item_id(number)?;
            if id.is_used() || !id.is_empty() {
                return Err("line pointer is in use");
            }
        }
        self.make_room(len, number, is_new)
    }

    fn make_room(&mut self, len: usize, number: u16, is_new: bool) -> Result<usize, Misfit> {
        let bounds = self.bounds()?;
        let lower = bounds.lower + if is_new { LINE_LEN } else { 0 };
        let aligned = if len <= BLCKSZ { maxalign(len) } else { len };
        let upper = bounds.upper.checked_sub(aligned).filter(|upper| lower <= *upper);
        let upper = upper.ok_or("no room for the item")?;
        let line = line_at(number)?;
        if is_new && line < bounds.lower {
            self.shift(line, bounds.lower, line + LINE_LEN)?;
        }
        self.put(line, &ItemId::new(upper, ItemId::NORMAL, len).0.to_le_bytes())?;
        self.set_lower(lower);
        self.set_upper(upper);
        Ok(upper)
    }

    /// Removes a line pointer from the array, whatever is behind it.
    pub(super) fn remove_line(&mut self, number: u16) -> Result<(), Misfit> {
        let (line, lower) = (line_at(number)?, usize::from(self.lower()));
        self.shift(line + LINE_LEN, lower, line)?;
        self.set_lower(lower - LINE_LEN);
        Ok(())
    }

    /// Cuts the last `n` line pointers off; there are at least as many.
    pub(super) fn cut_lines(&mut self, n: usize) {
        self.set_lower(usize::from(self.lower()).saturating_sub(n * LINE_LEN).max(HEADER_LEN));
    }
}
