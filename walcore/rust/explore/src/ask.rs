//! `Answers`: who knows what a member does.

/// Why a search ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Something does not hold.
    Violation(String),
    /// There was no answer.
    Gone,
}

/// Answers questions with numbers, one thread at a time.
pub trait Answers: Send {
    /// The answer, as `tests/explore/search.py` gives it.
    fn ask(&mut self, question: &str, about: &[u32]) -> Result<Said, Stop>;
}

/// The numbers of an answer, one after the other.
pub struct Said(std::vec::IntoIter<u32>);

impl Said {
    /// All of them.
    pub fn new(numbers: Vec<u32>) -> Self {
        Self(numbers.into_iter())
    }

    /// The next one, which is there.
    pub fn number(&mut self) -> u32 {
        self.0.next().expect("the answer is whole")
    }

    /// The next one, as an index.
    pub fn index(&mut self) -> usize {
        self.number() as usize
    }

    /// The next one: 0 or 1.
    pub fn flag(&mut self) -> bool {
        self.number() != 0
    }

    /// A list: how many there are, then each.
    pub fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.number()).map(|_| each(self)).collect()
    }
}
