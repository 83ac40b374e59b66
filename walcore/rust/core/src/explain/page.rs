//! The history of one page.

use crate::redo::Target;
use crate::redo::touch::{Touched, touches};
use crate::version::Major;
use crate::wal::{BlockTag, Record};

/// What a record did to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Replaced it by an image.
    Image,
    /// Built it from nothing.
    Init,
    /// Changed it.
    Change,
    /// Changed it without naming it: bits of a visibility map.
    Implied,
    /// Named it and left it as it is; an image that comes with it is for checking.
    Reference,
    /// Its fork began to exist.
    Create,
    /// Cut it off.
    Truncate,
    /// Removed its relation or database.
    Drop,
    /// Put a copy of another database in its place.
    Copy,
}

impl Effect {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Init => "init",
            Self::Change => "change",
            Self::Implied => "implied",
            Self::Reference => "reference",
            Self::Create => "create",
            Self::Truncate => "truncate",
            Self::Drop => "drop",
            Self::Copy => "copy",
        }
    }
}

/// What a record did to a page; `None`: nothing. A record too short for its kind did what its block references say.
pub fn effect(record: &Record<'_>, major: Major, page: BlockTag) -> Option<Effect> {
    let mut found = None;
    let named = record.blocks.iter().find(|block| block.tag == page);
    // What came before an error is not needed: block references are looked at here.
    let _ = touches(record, major, &mut |touched| found = found.or_else(|| on_page(touched, page)));
    match (named, found) {
        (Some(block), _) if block.applies_image() => Some(Effect::Image),
        (Some(block), _) if block.will_init => Some(Effect::Init),
        // Free space maps are left out of what is touched.
        (Some(_), Some(_)) => Some(Effect::Change),
        (Some(block), None) if block.tag.fork == crate::wal::Fork::Fsm => Some(Effect::Change),
        (Some(_), None) => Some(Effect::Reference),
        (None, Some(Effect::Change)) => Some(Effect::Implied),
        (None, found) => found,
    }
}

fn on_page(touched: Touched, page: BlockTag) -> Option<Effect> {
    let BlockTag { rel, fork, blkno } = page;
    let (is_it, effect) = match touched {
        Touched::Page { target, .. } => (target == Target::Block(page), Effect::Change),
        Touched::Created { rel: r, fork: f } => (r == rel && f == fork, Effect::Create),
        Touched::Truncated { rel: r, fork: f, blocks } => {
            (r == rel && f == fork && blocks <= blkno, Effect::Truncate)
        }
        Touched::Dropped { rel: r } => (r == rel, Effect::Drop),
        Touched::DatabaseDropped { spc, db } => ((spc, db) == (rel.spc, rel.db), Effect::Drop),
        Touched::DatabaseCopied { spc, db, .. } => ((spc, db) == (rel.spc, rel.db), Effect::Copy),
    };
    is_it.then_some(effect)
}
