//! `World`: one state of everything, as numbers; `Layout`: which number stands where.

/// Most numbers that a world has: four members of which two propose have seventeen.
pub const NUMBERS_MAX: usize = 32;

/// The numbers of the members, of the contents of the channels, and of what was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    numbers: [u32; NUMBERS_MAX],
}

impl World {
    /// One in which all numbers are 0.
    pub const EMPTY: Self = Self { numbers: [0; NUMBERS_MAX] };

    /// The number that stands there.
    pub fn get(&self, at: usize) -> u32 {
        self.numbers[at]
    }

    /// Put another one there.
    pub fn set(&mut self, at: usize, number: u32) {
        self.numbers[at] = number;
    }

    /// A hash of the first `len` numbers.
    pub fn fingerprint(&self, len: usize) -> u128 {
        let (mut one, mut two) = (0x243F_6A88_85A3_08D3_u64, 0x1319_8A2E_0370_7344_u64);
        for pair in self.numbers[..len.next_multiple_of(2)].chunks_exact(2) {
            let both = u64::from(pair[0]) << 32 | u64::from(pair[1]);
            one = folded(one ^ both, 0x9E37_79B9_7F4A_7C15);
            two = folded(two.rotate_left(23) ^ both, 0xD6E8_FEB8_6659_FD93);
        }
        u128::from(folded(one ^ two.rotate_left(32), 0xA076_1D64_78BD_642F)) << 64
            | u128::from(folded(two ^ one.rotate_left(17), 0xE703_7ED1_A0B4_28DB))
    }

    /// Append the first `len` numbers, small ones short: seven bits a byte, the last one below 128.
    pub fn pack(&self, len: usize, out: &mut Vec<u8>) {
        for &number in &self.numbers[..len] {
            let mut rest = number;
            while rest >= 128 {
                out.push((rest & 127) as u8 | 128);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }

    /// The first of the packed worlds, which is taken off.
    pub fn unpack(len: usize, packed: &mut &[u8]) -> Option<Self> {
        let mut world = Self::EMPTY;
        for number in &mut world.numbers[..len] {
            let mut shift = 0;
            loop {
                let (byte, rest) = packed.split_first()?;
                *packed = rest;
                *number |= u32::from(byte & 127) << shift;
                shift += 7;
                if byte & 128 == 0 {
                    break;
                }
            }
        }
        Some(world)
    }
}

fn folded(one: u64, two: u64) -> u64 {
    let product = u128::from(one) * u128::from(two);
    (product as u64) ^ (product >> 64) as u64 ^ one.rotate_left(29)
}

/// Which number of a world stands where: members first, then both ways of each connection, then what was promised.
pub struct Layout {
    /// How many members there are.
    pub members: usize,
    /// Who dials whom.
    pub dials: Vec<(usize, usize)>,
}

impl Layout {
    /// Each of the proposers dials all others.
    pub fn new(members: usize, proposers: &[usize]) -> Self {
        let others =
            |one: usize| (0..members).filter(move |other| *other != one).map(move |other| (one, other));
        let layout = Self { members, dials: proposers.iter().copied().flat_map(others).collect() };
        assert!(layout.numbers() <= NUMBERS_MAX, "a world has at most {NUMBERS_MAX} numbers");
        layout
    }

    /// How many numbers a world has.
    pub fn numbers(&self) -> usize {
        self.promised() + 1
    }

    /// Where the number of what was promised stands.
    pub fn promised(&self) -> usize {
        self.members + 2 * self.dials.len()
    }

    /// Where that of the requests on that connection stands; that of its answers is `answers`.
    pub fn requests(&self, dial: usize) -> usize {
        self.members + dial
    }

    /// Where that of the answers on that connection stands.
    pub fn answers(&self, dial: usize) -> usize {
        self.members + self.dials.len() + dial
    }

    /// The connection that `one` dialled to `other`.
    pub fn dial(&self, one: usize, other: usize) -> Option<usize> {
        self.dials.iter().position(|dial| *dial == (one, other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut packed = Vec::new();
        let worlds = [1, 127, 128, 70_000, u32::MAX].map(|number| {
            let mut world = World::EMPTY;
            (0..5).for_each(|at| world.set(at, number / (at as u32 + 1)));
            world.pack(5, &mut packed);
            world
        });
        let mut rest = &packed[..];
        for world in worlds {
            assert_eq!(World::unpack(5, &mut rest), Some(world));
        }
        assert_eq!(World::unpack(5, &mut rest), None);
    }

    #[test]
    fn worlds_that_differ_in_one_number_have_other_fingerprints_in_every_part() {
        let mut seen = std::collections::HashSet::new();
        for at in 0..9 {
            for number in 0..1000 {
                let mut world = World::EMPTY;
                world.set(at, number);
                if at == 0 || number > 0 {
                    assert!(seen.insert(world.fingerprint(9) as u64), "at={at} number={number}");
                }
            }
        }
    }
}
