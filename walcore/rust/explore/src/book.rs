//! `Book`: all that was ever answered, so that nothing is asked twice; `Notes`, one thread's copy of it.

use std::hash::Hash;
use std::sync::{Arc, Mutex};

use crate::ask::{Answers, Said, Stop};
use crate::quick::Map;

/// What befalls a member. Which numbers the kinds have is agreed with `tests/explore/steps.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// One of those here or, beyond them, one that only Python knows.
    pub kind: u8,
    /// Whom it is with, if anyone.
    pub peer: u8,
    /// Number of the message or, of a crash, how many steps of the disk work were done.
    pub message: u32,
}

impl Event {
    /// A message comes to the acceptor.
    pub const REQUEST: u8 = 0;
    /// A message comes to the proposer.
    pub const ANSWER: u8 = 1;
    /// A connection that another dialled ended.
    pub const LEFT: u8 = 2;
    /// A connection that we dialled ended.
    pub const HUNG_UP: u8 = 3;
    /// A connection was dialled.
    pub const DIAL: u8 = 4;
    /// The process dies and starts again.
    pub const CRASH: u8 = 5;

    /// With that peer.
    pub fn with(kind: u8, peer: usize, message: u32) -> Self {
        Self { kind, peer: peer as u8, message }
    }
}

/// Where an event leads a member, and what it sends: to whom, and the number of the message.
pub struct Step {
    /// The member's number afterwards.
    pub member: u32,
    /// A rule forbids the message: the connection ends.
    pub is_refused: bool,
    /// To acceptors.
    pub requests: Vec<(usize, u32)>,
    /// To proposers.
    pub answers: Vec<(usize, u32)>,
    /// What the member is instead, if it crashes amidst the disk work.
    pub torn: Vec<u32>,
}

/// What can be said of a member by itself.
pub struct About {
    /// A bit for each member that it may dial.
    pub dials: u32,
    /// A bit for each member to which it has a connection that it dialled.
    pub connected: u32,
    /// It has connections only while it greets.
    pub is_quiet: bool,
    /// Number of what invariants ask of it as a proposer; 0 if it is none.
    pub view: u32,
    /// Number of what they ask of its log.
    pub log: u32,
    /// What may befall it by itself.
    pub events: Vec<Event>,
}

/// What a proposer's view makes of what was promised.
#[derive(Clone, Copy)]
pub struct Look {
    /// The number of what is promised now.
    pub promised: u32,
    /// It commits: the logs of all must be looked at.
    pub commits: bool,
}

/// Most members that a world has.
pub const MEMBERS_MAX: usize = 5;
/// The number of each member's log, then zeros.
pub type Logs = [u32; MEMBERS_MAX];

#[derive(Default)]
struct Pages {
    steps: Map<(u32, Event), Arc<Step>>,
    abouts: Map<u32, Arc<About>>,
    looks: Map<(u32, u32), Look>,
    // What does not hold ends the search: there is no `false`.
    held: Map<(u32, Logs), bool>,
    served: Map<(u32, u32), bool>,
    /// What a channel holds when a message was put behind what it held.
    puts: Map<(u32, u32), u32>,
    /// The first message of a channel, and what it holds without it.
    parts: Map<u32, (u32, u32)>,
}

/// One for all threads.
pub struct Book(Mutex<(Pages, Box<dyn Answers>)>);

impl Book {
    /// An empty one.
    pub fn new(answers: Box<dyn Answers>) -> Self {
        Self(Mutex::new((Pages::default(), answers)))
    }

    /// Say how far the search is: moves from the first world, and worlds met.
    pub fn tell(&self, depth: u32, states: u64) -> Result<(), Stop> {
        let (_, answers) = &mut *self.0.lock().expect("no thread panics");
        answers.ask("layer", &[depth, (states >> 32) as u32, states as u32]).map(|_| ())
    }
}

/// A channel that holds nothing.
pub const EMPTY: u32 = 0;

/// What one thread knows of the book, so that it need not wait for the others.
pub struct Notes<'a> {
    book: &'a Book,
    pages: Pages,
}

/// The value for that key: noted, known to another thread, or asked for.
fn find<K: Copy + Eq + Hash, V: Clone>(
    notes: &mut Notes<'_>,
    page: fn(&mut Pages) -> &mut Map<K, V>,
    key: K,
    ask: impl FnOnce(&mut Pages, &mut dyn Answers) -> Result<V, Stop>,
) -> Result<V, Stop> {
    if let Some(noted) = page(&mut notes.pages).get(&key) {
        return Ok(noted.clone());
    }
    let mut book = notes.book.0.lock().expect("no thread panics");
    let (pages, asker) = &mut *book;
    let value = if let Some(known) = page(pages).get(&key) {
        known.clone()
    } else {
        let value = ask(pages, &mut **asker)?;
        page(pages).insert(key, value.clone());
        value
    };
    page(&mut notes.pages).insert(key, value.clone());
    Ok(value)
}

impl<'a> Notes<'a> {
    /// None yet.
    pub fn new(book: &'a Book) -> Self {
        Self { book, pages: Pages::default() }
    }

    /// What that event does to that member.
    pub fn step(&mut self, member: u32, event: Event) -> Result<Arc<Step>, Stop> {
        find(
            self,
            |pages| &mut pages.steps,
            (member, event),
            |_, asker| {
                let Event { kind, peer, message } = event;
                let mut said = asker.ask("step", &[member, kind.into(), peer.into(), message])?;
                let message = |said: &mut Said| (said.index(), said.number());
                Ok(Arc::new(Step {
                    member: said.number(),
                    is_refused: said.flag(),
                    requests: said.list(message),
                    answers: said.list(message),
                    torn: said.list(Said::number),
                }))
            },
        )
    }

    /// What can be said of that member.
    pub fn about(&mut self, member: u32) -> Result<Arc<About>, Stop> {
        find(
            self,
            |pages| &mut pages.abouts,
            member,
            |_, asker| {
                let mut said = asker.ask("about", &[member])?;
                Ok(Arc::new(About {
                    dials: said.number(),
                    connected: said.number(),
                    is_quiet: said.flag(),
                    view: said.number(),
                    log: said.number(),
                    events: said.list(|said| Event::with(said.number() as u8, said.index(), said.number())),
                }))
            },
        )
    }

    /// What a proposer of that view makes of what was promised.
    pub fn look(&mut self, view: u32, promised: u32) -> Result<Look, Stop> {
        find(
            self,
            |pages| &mut pages.looks,
            (view, promised),
            |_, asker| {
                let mut said = asker.ask("look", &[view, promised])?;
                Ok(Look { promised: said.number(), commits: said.flag() })
            },
        )
    }

    /// What a proposer of that view commits is on a quorum.
    pub fn hold(&mut self, view: u32, logs: Logs) -> Result<bool, Stop> {
        find(
            self,
            |pages| &mut pages.held,
            (view, logs),
            |_, asker| asker.ask("hold", &[&[view][..], &logs[..]].concat()).map(|_| true),
        )
    }

    /// What a member with that log serves was promised.
    pub fn serve(&mut self, log: u32, promised: u32) -> Result<bool, Stop> {
        find(
            self,
            |pages| &mut pages.served,
            (log, promised),
            |_, asker| asker.ask("serve", &[log, promised]).map(|_| true),
        )
    }

    /// What a channel that held `held` holds with a message more.
    pub fn put(&mut self, held: u32, message: u32) -> Result<u32, Stop> {
        find(self, |pages| &mut pages.puts, (held, message), |pages, _| Ok(pages.put(held, message)))
    }

    /// The first message of what a channel holds, and the rest.
    pub fn take(&mut self, held: u32) -> Result<(u32, u32), Stop> {
        find(self, |pages| &mut pages.parts, held, |pages, _| Ok(pages.parts[&held]))
    }
}

impl Pages {
    fn put(&mut self, held: u32, message: u32) -> u32 {
        if let Some(known) = self.puts.get(&(held, message)) {
            return *known;
        }
        let parts = match self.parts.get(&held) {
            None => (message, EMPTY),
            Some(&(first, rest)) => (first, self.put(rest, message)),
        };
        // Contents that begin alike and go on alike were made by the same messages in the same order.
        let number = self.parts.len() as u32 + 1;
        self.parts.insert(number, parts);
        self.puts.insert((held, message), number);
        number
    }
}
