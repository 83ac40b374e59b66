//! Removal of pages of SLRUs: whole files of 32 pages.

use super::precedes;
use crate::reader::Reader;
use crate::redo::Slru;
use crate::redo::touch::{CLOG_XIDS_PER_PAGE, COMMIT_TS_XIDS_PER_PAGE};
use crate::rmgr::multixact::{MEMBERS_PER_PAGE, OFFSETS_PER_PAGE};

const SEGMENT_PAGES: u32 = 32;

/// Which pages of an SLRU a record removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All: commit timestamps were turned off.
    All,
    /// Files that lie wholly before this page, on a ring of ids.
    Before(u32),
    /// Files from one up to another, which stays, on a ring of members.
    Segments {
        /// First file that goes.
        first: u32,
        /// First file that stays.
        end: u32,
    },
}

const ALL: u8 = 0;
const BEFORE: u8 = 1;
const SEGMENTS: u8 = 2;

impl Cut {
    /// What is removed when members of multixacts from one number up to another are no longer needed.
    ///
    /// Source: `PerformMembersTruncation` in `src/backend/access/transam/multixact.c`.
    pub fn of_members(first: u32, end: u32) -> Self {
        let segment = |member: u32| member / MEMBERS_PER_PAGE / SEGMENT_PAGES;
        Self::Segments { first: segment(first), end: segment(end) }
    }

    /// Whether it removes a page.
    ///
    /// Source: `SlruMayDeleteSegment` in `src/backend/access/transam/slru.c`, and the functions `…PagePrecedes`.
    pub fn removes(&self, kind: Slru, pageno: u32) -> bool {
        let segment = pageno / SEGMENT_PAGES;
        match *self {
            Self::All => true,
            Self::Segments { first, end } if first <= end => (first..end).contains(&segment),
            Self::Segments { first, end } => segment >= first || segment < end,
            Self::Before(cutoff) => {
                let per_page = match kind {
                    Slru::Clog => CLOG_XIDS_PER_PAGE,
                    Slru::MultiOffsets => OFFSETS_PER_PAGE,
                    Slru::MultiMembers => MEMBERS_PER_PAGE,
                    Slru::CommitTs => COMMIT_TS_XIDS_PER_PAGE,
                };
                let first_of = |page: u32| page.wrapping_mul(per_page);
                let end = first_of(cutoff);
                let is_before = |page| {
                    let first = first_of(page);
                    precedes(first, end) && precedes(first, end.wrapping_add(per_page - 1))
                };
                let first = segment * SEGMENT_PAGES;
                is_before(first) && is_before(first.wrapping_add(SEGMENT_PAGES - 1))
            }
        }
    }

    /// As stored: `| which u8 | u32 | u32 |`, little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let (which, a, b) = match *self {
            Self::All => (ALL, 0, 0),
            Self::Before(page) => (BEFORE, page, 0),
            Self::Segments { first, end } => (SEGMENTS, first, end),
        };
        let mut out = vec![which];
        out.extend([a, b].map(u32::to_le_bytes).as_flattened());
        out
    }

    /// From its stored form; `None` if the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let (which, a, b) = (r.u8()?, r.u32()?, r.u32()?);
        match which {
            ALL => Some(Self::All),
            BEFORE => Some(Self::Before(a)),
            SEGMENTS => Some(Self::Segments { first: a, end: b }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_files_before_the_cutoff_go_and_its_own_stays() {
        let cut = Cut::Before(100);
        let gone: Vec<u32> = (0..200).filter(|page| cut.removes(Slru::Clog, *page)).collect();
        assert_eq!(gone, (0..96).collect::<Vec<_>>());
    }

    #[test]
    fn what_comes_before_goes_round_the_ring() {
        // The last page of the ring comes before the first, and what is half the ring away does not.
        let last = u32::MAX / CLOG_XIDS_PER_PAGE;
        let cut = Cut::Before(40);
        assert!(cut.removes(Slru::Clog, last));
        assert!(!cut.removes(Slru::Clog, last / 2));
        let members = Cut::of_members(u32::MAX - 10, 3 * SEGMENT_PAGES * MEMBERS_PER_PAGE);
        let last = u32::MAX / MEMBERS_PER_PAGE;
        assert!(members.removes(Slru::MultiMembers, last));
        assert!(members.removes(Slru::MultiMembers, 95));
        assert!(!members.removes(Slru::MultiMembers, 96));
        assert!(!members.removes(Slru::MultiMembers, last - 40));
    }

    #[test]
    fn cuts_come_back() {
        for cut in [Cut::All, Cut::Before(7), Cut::Segments { first: 9, end: 2 }] {
            assert_eq!(Cut::decode(&cut.encode()), Some(cut));
        }
        assert_eq!(Cut::decode(&[3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
