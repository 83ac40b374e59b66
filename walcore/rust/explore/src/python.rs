//! The Python module `explore`.

use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyAssertionError;
use pyo3::prelude::*;

use crate::ask::{Answers, Said, Stop};
use crate::book::Book;
use crate::moves::{Grain, Move};
use crate::search::{Found, Search};
use crate::world::Layout;

/// `ask(question, numbers)` gives numbers, or raises: an AssertionError says what does not hold.
struct Asked {
    ask: Py<PyAny>,
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Answers for Asked {
    fn ask(&mut self, question: &str, about: &[u32]) -> Result<Said, Stop> {
        Python::attach(|py| {
            let answer = self.ask.call1(py, (question, about.to_vec()));
            match answer.and_then(|answer| answer.extract(py)) {
                Ok(numbers) => Ok(Said::new(numbers)),
                Err(error) if error.is_instance_of::<PyAssertionError>(py) => {
                    Err(Stop::Violation(error.value(py).to_string()))
                }
                Err(error) => {
                    *self.raised.lock().expect("no thread panics") = Some(error);
                    Err(Stop::Gone)
                }
            }
        })
    }
}

/// States, transitions, depth, whether all were met, what does not hold, and the moves that lead there.
type Ended = (u64, u64, u32, bool, Option<String>, Vec<Vec<u32>>);

/// Search. `task`: how many members, the grain, whether it is lean; then lists, each with its length first: the
/// places of those that propose, the numbers of the members at the start; then that of what is promised.
#[pyfunction]
fn search(
    py: Python<'_>,
    ask: Py<PyAny>,
    task: Vec<u32>,
    states_max: u64,
    threads: usize,
) -> PyResult<Ended> {
    let mut task = Said::new(task);
    let (members, grain, is_lean) = (task.index(), task.number(), task.flag());
    let (proposers, first) = (task.list(Said::index), task.list(Said::number));
    let promised = task.number();
    let search = Search {
        layout: Layout::new(members, &proposers),
        proposers,
        grain: if grain == 0 { Grain::Conversation } else { Grain::Message { is_lean } },
        states_max,
        threads,
    };
    let raised = Arc::default();
    let book = Book::new(Box::new(Asked { ask, raised: Arc::clone(&raised) }));
    let found = match py.detach(|| search.run(&book, &first, promised)) {
        Ok(found) => found,
        Err(Stop::Violation(violation)) => Found { violation: Some(violation), ..Found::default() },
        Err(Stop::Gone) => {
            let error = raised.lock().expect("no thread panics").take();
            return Err(error.expect("there was no answer because something was raised"));
        }
    };
    let trace = found.trace.iter().map(Move::numbers).collect();
    Ok((found.states, found.transitions, found.depth, found.is_complete, found.violation, trace))
}

#[pymodule]
fn explore(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(search, module)?)
}
