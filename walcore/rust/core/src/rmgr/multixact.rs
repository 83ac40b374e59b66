//! Multixact records: who shares the lock of a row.

use crate::page::BLCKSZ;
use crate::reader::Reader;

/// `XLOG_MULTIXACT_ZERO_OFF_PAGE`.
pub const ZERO_OFF_PAGE: u8 = 0x00;
/// `XLOG_MULTIXACT_ZERO_MEM_PAGE`.
pub const ZERO_MEM_PAGE: u8 = 0x10;
/// `XLOG_MULTIXACT_CREATE_ID`.
pub const CREATE_ID: u8 = 0x20;

/// Multixacts whose first member's number fits on one page of `pg_multixact/offsets`.
pub const OFFSETS_PER_PAGE: u32 = BLCKSZ as u32 / 4;
/// Members are kept in groups: a byte of flags each, then the transactions.
const GROUP_MEMBERS: u32 = 4;
const GROUP_LEN: u32 = GROUP_MEMBERS * (1 + 4);
const GROUPS_PER_PAGE: u32 = BLCKSZ as u32 / GROUP_LEN;
/// Members that fit on one page of `pg_multixact/members`.
pub const MEMBERS_PER_PAGE: u32 = GROUPS_PER_PAGE * GROUP_MEMBERS;

/// A new multixact (`xl_multixact_create`).
///
/// ```text
/// offset  0     4        8   12
///         | mid | offset | n | members: xid, status … |
/// ```
///
/// Little-endian. Source: `RecordNewMultiXact` in `src/backend/access/transam/multixact.c`.
#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    /// Its id.
    pub mid: u32,
    /// Number of its first member.
    pub offset: u32,
    members: &'a [u8],
}

impl<'a> Create<'a> {
    const MEMBER_LEN: usize = 8;

    /// Reads the main data of a `CREATE_ID` record; `None` if it is too short.
    pub fn decode(main_data: &'a [u8]) -> Option<Self> {
        let mut r = Reader(main_data);
        let (mid, offset, n) = (r.u32()?, r.u32()?, r.u32()?);
        let members = r.bytes(usize::try_from(n).ok()?.checked_mul(Self::MEMBER_LEN)?)?;
        Some(Self { mid, offset, members })
    }

    /// The multixact after it: ids go round the clock and leave 0 out.
    pub fn next_mid(&self) -> u32 {
        self.mid.wrapping_add(1).max(1)
    }

    /// Number after its last member.
    pub fn end_offset(&self) -> u32 {
        let n = (self.members.len() / Self::MEMBER_LEN) as u32;
        self.offset.wrapping_add(n)
    }

    /// Number of the first member of the multixact after it: numbers go round the clock and leave 0 out.
    pub fn next_offset(&self) -> u32 {
        self.end_offset().max(1)
    }

    /// Number, transaction and status of each member.
    pub fn members(&self) -> impl Iterator<Item = (u32, u32, u8)> + use<'a> {
        let first = self.offset;
        let members = self.members.chunks_exact(Self::MEMBER_LEN).zip(0u32..);
        members.filter_map(move |(member, i)| {
            let mut r = Reader(member);
            Some((first.wrapping_add(i), r.u32()?, r.u8()?))
        })
    }
}

/// Where a member is on its page: its byte of flags, its transaction.
pub fn member_at(number: u32) -> (usize, usize) {
    let index = number % MEMBERS_PER_PAGE;
    let group = index / GROUP_MEMBERS * GROUP_LEN;
    let place = index % GROUP_MEMBERS;
    ((group + place) as usize, (group + GROUP_MEMBERS + 4 * place) as usize)
}
