//! TIDs as pages and records store them.

/// Block number, high half first, then offset number.
///
/// Source: `ItemPointerData` in `src/include/storage/itemptr.h`.
pub(super) type Tid = [u8; 6];

/// `ItemPointerSetInvalid`.
pub(super) const INVALID: Tid = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0];

/// The TID of a place.
pub(super) fn tid(blkno: u32, number: u16) -> Tid {
    let ([b0, b1, b2, b3], [n0, n1]) = (blkno.to_le_bytes(), number.to_le_bytes());
    [b2, b3, b0, b1, n0, n1]
}

/// The block number that `BlockIdData` stores high half first.
pub(super) fn block_id(bytes: [u8; 4]) -> u32 {
    let [b2, b3, b0, b1] = bytes;
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// The reverse of [`block_id`].
pub(super) fn to_block_id(blkno: u32) -> [u8; 4] {
    let [b0, b1, b2, b3] = blkno.to_le_bytes();
    [b2, b3, b0, b1]
}
