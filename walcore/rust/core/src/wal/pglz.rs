//! Decompression of Postgres' own LZ.

/// Decompresses a headerless pglz stream into exactly `out`; `None` if it does not fit.
///
/// Source: `pglz_decompress` in `src/common/pg_lzcompress.c`.
pub fn decompress(src: &[u8], out: &mut [u8]) -> Option<()> {
    let mut from = src.iter().copied();
    let mut len = 0usize;
    while len < out.len() {
        let mut control = from.next()?;
        for _ in 0..8 {
            if len >= out.len() {
                break;
            }
            if control & 1 == 0 {
                *out.get_mut(len)? = from.next()?;
                len += 1;
            } else {
                let (a, b) = (usize::from(from.next()?), usize::from(from.next()?));
                let mut count = (a & 0x0F) + 3;
                let offset = (a & 0xF0) << 4 | b;
                if count == 18 {
                    count += usize::from(from.next()?);
                }
                if offset == 0 || offset > len {
                    return None;
                }
                // Postgres clips the last copy to the output, and lets copies overlap.
                for _ in 0..count.min(out.len() - len) {
                    *out.get_mut(len)? = *out.get(len - offset)?;
                    len += 1;
                }
            }
            control >>= 1;
        }
    }
    from.next().is_none().then_some(())
}
