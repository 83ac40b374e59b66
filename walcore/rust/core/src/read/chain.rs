//! What a page is rebuilt from: its newest base and the records since.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::Lsn;
use crate::layer::{Key, LayerError, Run, Size, Touch, Value};
use crate::page::PageBuf;

/// One record of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Its end: the page's LSN once it is applied.
    pub end: Lsn,
    /// What it does to the page.
    pub touch: Touch,
    /// Its bytes, if the layer holds them; else they are in the WAL.
    pub bytes: Option<Box<[u8]>>,
}

impl Delta {
    /// Where the record starts.
    pub fn start(&self) -> Lsn {
        Lsn(self.end.0.saturating_sub(self.touch.distance.into()))
    }
}

/// A page's history back to its newest base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// A page image and the LSN it is as of. Without one, the first delta is the base, or nothing is.
    pub image: Option<(Lsn, PageBuf)>,
    /// Oldest first.
    pub deltas: Vec<Delta>,
}

impl Chain {
    /// The LSN of the base: nothing at or below it is needed.
    pub fn base_lsn(&self) -> Option<Lsn> {
        let delta = || self.deltas.first().filter(|delta| delta.touch.is_base()).map(|delta| delta.end);
        self.image.as_ref().map(|(lsn, _)| *lsn).or_else(delta)
    }
}

/// The page that another was copied from, and as of when.
pub type Origin = (Key, Lsn);

/// Looks up chains and sizes across layers. The LSNs of the layers may overlap.
#[derive(Clone)]
pub struct Index {
    /// Oldest first, by their ends.
    layers: Vec<Arc<dyn Run>>,
}

impl Index {
    /// Layers in any order.
    pub fn new(mut layers: Vec<Arc<dyn Run>>) -> Self {
        layers.sort_by_key(|layer| layer.end_lsn());
        Self { layers }
    }

    /// The layers, oldest first.
    pub fn layers(&self) -> &[Arc<dyn Run>] {
        &self.layers
    }

    /// The newest value of a state at or below an LSN, and since when it holds.
    ///
    /// # Errors
    /// Damage of a layer.
    pub(super) fn state<T>(
        &self,
        key: &Key,
        at: Lsn,
        take: impl Fn(Lsn, &Value<'_>) -> Option<T>,
    ) -> Result<Option<T>, LayerError> {
        let mut newest = Lsn::INVALID;
        let mut found = None;
        for layer in self.layers.iter().rev() {
            if layer.end_lsn() <= newest {
                break;
            }
            layer.history(key, at, &mut |lsn, value| {
                if lsn > newest {
                    newest = lsn;
                    found = take(lsn, &value);
                }
                ControlFlow::Break(())
            })?;
        }
        Ok(found)
    }

    /// The size of a page's fork at an LSN; `None` if it does not exist then.
    ///
    /// # Errors
    /// Damage of a layer.
    pub fn size(&self, page: &Key, at: Lsn) -> Result<Option<Size>, LayerError> {
        self.state(&page.size_key(), at, size_of)
    }

    /// Collects what a page needs, as of an LSN, given its fork's size then; and what it was copied from, where the
    /// chain goes back to that.
    ///
    /// # Errors
    /// Damage of a layer.
    pub fn chain(
        &self,
        page: &Key,
        at: Lsn,
        size: Option<&Size>,
    ) -> Result<(Chain, Option<Origin>), LayerError> {
        let size = size.copied().unwrap_or_default();
        // If this floor is not the page's own, most pages still have a base above it, and nothing more to look up.
        let is_own = size.floor_blocks <= page.blkno;
        let mut chain = self.collect(page, at, if is_own { size.floor_lsn } else { Lsn::INVALID })?;
        if !size.floor_lsn.is_valid() || chain.base_lsn().is_some_and(|base| base > size.floor_lsn) {
            return Ok((chain, None));
        }
        let Some((floor, origin)) = self.floor(page, size)? else { return Ok((chain, None)) };
        if !is_own {
            chain = self.collect(page, at, floor)?;
        }
        let origin = origin.filter(|_| chain.base_lsn().is_none());
        Ok((chain, origin.map(|key| (key, floor))))
    }

    /// The LSN at or below which nothing is the page's, and what page it was copied from then: goes back from one cut
    /// of the fork to the one before.
    fn floor(&self, page: &Key, mut size: Size) -> Result<Option<(Lsn, Option<Key>)>, LayerError> {
        while size.floor_lsn.is_valid() {
            let lsn = size.floor_lsn;
            let at_floor = self.state(&page.size_key(), lsn, |since, value| match *value {
                _ if since != lsn => None,
                Value::Copied { blocks, spc, db } => {
                    let origin = Some(Key { spc, db, ..*page }).filter(|_| blocks > page.blkno);
                    Some((origin, Size { blocks, floor_lsn: lsn, floor_blocks: 0 }))
                }
                _ => size_of(since, value).map(|size| (None, size)),
            })?;
            if size.floor_blocks <= page.blkno {
                return Ok(Some((lsn, at_floor.and_then(|(origin, _)| origin))));
            }
            size = match at_floor {
                Some((_, older)) if older.floor_lsn < lsn || older.floor_blocks < size.floor_blocks => older,
                _ => return Err(LayerError::Malformed { what: "floor of a fork", offset: lsn.0 }),
            };
        }
        Ok(None)
    }

    fn collect(&self, page: &Key, at: Lsn, floor: Lsn) -> Result<Chain, LayerError> {
        let mut chain = Chain::default();
        // Nothing below this is needed.
        let mut base = floor;
        let mut damaged = false;
        for layer in self.layers.iter().rev() {
            if layer.end_lsn() < base {
                break;
            }
            layer.history(page, at, &mut |lsn, value| {
                if lsn < base || lsn <= floor {
                    return ControlFlow::Break(());
                }
                match value {
                    Value::Image(image) => match image.restore() {
                        Some(image) => chain.image = Some((lsn, image)),
                        None => damaged = true,
                    },
                    Value::Wal(touch, _) => chain.deltas.push(Delta { end: lsn, touch, bytes: None }),
                    Value::Record(touch, _, bytes) => {
                        chain.deltas.push(Delta { end: lsn, touch, bytes: Some(bytes.into()) });
                    }
                    _ => damaged = true,
                }
                let is_base = chain.image.as_ref().is_some_and(|(image, _)| *image == lsn)
                    || chain.deltas.last().is_some_and(|delta| delta.end == lsn && delta.touch.is_base());
                if is_base || damaged {
                    base = lsn;
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
        }
        if damaged {
            return Err(LayerError::Malformed { what: "page value", offset: 0 });
        }
        chain.settle(base);
        Ok(chain)
    }
}

impl Chain {
    /// Orders what was collected newest first from layers that may overlap, and leaves what the base makes needless.
    fn settle(&mut self, base: Lsn) {
        self.image.take_if(|(lsn, _)| *lsn < base);
        let image = self.image.as_ref().map(|(lsn, _)| *lsn);
        self.deltas.retain(|delta| delta.end >= base && image.is_none_or(|image| delta.end > image));
        self.deltas.sort_by_key(|delta| delta.end);
        self.deltas.dedup_by_key(|delta| delta.end);
    }
}

fn size_of(lsn: Lsn, value: &Value<'_>) -> Option<Size> {
    match *value {
        Value::Size(size) => Some(size),
        Value::Copied { blocks, .. } => Some(Size { blocks, floor_lsn: lsn, floor_blocks: 0 }),
        _ => None,
    }
}
