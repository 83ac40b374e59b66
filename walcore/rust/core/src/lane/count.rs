//! How far a quorum holds the log.

use crate::Lsn;

/// The largest position that at least `majority` of the members have flushed; 0 if there are not so many.
pub fn held(flushed: &mut [Lsn], majority: usize) -> Lsn {
    flushed.sort_unstable();
    flushed.len().checked_sub(majority).and_then(|at| flushed.get(at)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_decides() {
        assert_eq!(held(&mut [Lsn(30), Lsn(20), Lsn(10)], 2), Lsn(20));
        assert_eq!(held(&mut [Lsn(10), Lsn(30), Lsn(20)], 3), Lsn(10));
        assert_eq!(held(&mut [Lsn(10)], 2), Lsn(0), "there are not so many");
        assert_eq!(held(&mut [], 1), Lsn(0));
    }
}
