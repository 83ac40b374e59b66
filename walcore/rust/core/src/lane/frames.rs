//! Bytes in, whole messages of the Postgres protocol out.

/// A message: its tag, its body, and the bytes it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub tag: u8,
    /// Without tag and length.
    pub body: &'a [u8],
    /// With them.
    pub len: usize,
}

/// A length below 4 or above what a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthImpossible;

/// Cuts a stream into messages. Nothing is set aside for a message before its bytes are here.
#[derive(Debug)]
pub struct Frames {
    data: Vec<u8>,
    at: usize,
    length_max: usize,
}

impl Frames {
    /// `length_max`: the longest message, its length word included. `begun`: the bytes that are here already.
    pub fn new(length_max: usize, begun: Vec<u8>) -> Self {
        Self { data: begun, at: 0, length_max }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.data.drain(..self.at);
        self.at = 0;
        self.data.extend_from_slice(bytes);
    }

    /// The next whole message, which stays until [`Self::consume`]; `None` until more is fed.
    ///
    /// # Errors
    /// Its length is impossible: nothing after it can be read.
    pub fn next(&self) -> Result<Option<Frame<'_>>, LengthImpossible> {
        let rest = self.rest();
        let Some((&[tag, a, b, c, d], _)) = rest.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=self.length_max).contains(&length) {
            return Err(LengthImpossible);
        }
        Ok(rest.get(5..=length).map(|body| Frame { tag, body, len: 1 + length }))
    }

    /// Lets `len` bytes go, those of the message just handled.
    pub fn consume(&mut self, len: usize) {
        self.at = (self.at + len).min(self.data.len());
    }

    /// All that was fed and not consumed.
    pub fn rest(&self) -> &[u8] {
        self.data.get(self.at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(wire: &[u8], step: usize) -> Result<Vec<(u8, Vec<u8>)>, LengthImpossible> {
        let mut frames = Frames::new(64, Vec::new());
        let mut found = Vec::new();
        for piece in wire.chunks(step) {
            frames.feed(piece);
            while let Some(frame) = frames.next()? {
                found.push((frame.tag, frame.body.to_vec()));
                let len = frame.len;
                frames.consume(len);
            }
        }
        Ok(found)
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let wire = [&b"d\0\0\0\x06hi"[..], b"c\0\0\0\x04", b"d\0\0\0\x05x", b"d\0\0"].concat();
        for step in 1..wire.len() {
            let found = cut(&wire, step).unwrap();
            assert_eq!(found, [(b'd', b"hi".to_vec()), (b'c', vec![]), (b'd', b"x".to_vec())], "step={step}");
        }
    }

    #[test]
    fn an_impossible_length_ends_the_stream_and_sets_nothing_aside() {
        for length in [0_u32, 3, 65, u32::MAX] {
            let mut frames = Frames::new(64, [&b"d"[..], &length.to_be_bytes(), b"xyz"].concat());
            assert_eq!(frames.next(), Err(LengthImpossible), "length={length}");
            frames.feed(b"more");
            assert_eq!(frames.next(), Err(LengthImpossible));
            assert!(frames.data.capacity() < 128);
        }
    }

    #[test]
    fn what_is_left_is_given_back_whole() {
        let mut frames = Frames::new(64, b"d\0\0\0\x05xd\0\0".to_vec());
        frames.consume(6);
        assert_eq!(frames.rest(), b"d\0\0");
        frames.feed(b"\0\x05y");
        assert_eq!(frames.next(), Ok(Some(Frame { tag: b'd', body: b"y", len: 6 })));
        frames.consume(usize::MAX >> 1);
        assert_eq!(frames.rest(), b"");
    }
}
