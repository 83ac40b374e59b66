//! `Mover`: every world that is one move away from a world.

use crate::ask::Stop;
use crate::book::{Book, EMPTY, Event, Logs, MEMBERS_MAX, Notes};
use crate::world::{Layout, World};

/// How much of what happens is one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// All that two members say to each other on one connection, or its beginning.
    Conversation,
    /// One message.
    Message {
        /// A connection begins with its greeting answered.
        is_lean: bool,
    },
}

/// Which of the crashes amidst the disk work of a move comes of it: the first is 1, and 0 is none.
type Torn = u32;

/// One move, by the places of the members that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// What befalls a member by itself.
    Event(usize, Event, Torn),
    /// A request comes to the acceptor that was dialled.
    Request(usize, Torn),
    /// An answer comes to the proposer that dialled.
    Answer(usize, Torn),
    /// A connection is dialled.
    Dial(usize),
    /// A connection ends, with all that is under way.
    Cut(usize),
    /// So much is said on a connection.
    Talk(usize, Talk),
}

/// How far a conversation gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    /// How many requests come.
    most: u32,
    /// What becomes of the last one.
    end: End,
}

/// How a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The connection ends behind the last answer or, if all was said, stays.
    Answered,
    /// It ends before the last answer.
    AnswerLost,
    /// The acceptor crashes over the last request.
    AcceptorTorn(Torn),
    /// The proposer crashes over the last answer.
    ProposerTorn(Torn),
}

impl Move {
    /// Its kind, its place, and what else there is to say of it, as `tests/explore/search.py` reads it.
    pub fn numbers(&self) -> Vec<u32> {
        let (kind, place, more) = match *self {
            Self::Event(name, Event { kind, peer, message }, torn) => {
                (0, name, vec![kind.into(), peer.into(), message, torn])
            }
            Self::Request(dial, torn) => (1, dial, vec![torn]),
            Self::Answer(dial, torn) => (2, dial, vec![torn]),
            Self::Dial(dial) => (3, dial, vec![]),
            Self::Cut(dial) => (4, dial, vec![]),
            Self::Talk(dial, Talk { most, end }) => match end {
                End::Answered => (5, dial, vec![most]),
                End::AnswerLost => (6, dial, vec![most]),
                End::AcceptorTorn(torn) => (7, dial, vec![most, torn]),
                End::ProposerTorn(torn) => (8, dial, vec![most, torn]),
            },
        };
        [vec![kind, place as u32], more].concat()
    }
}

/// More requests than there ever are.
const ALL: u32 = 99;

/// What a thread needs to go from world to world.
pub struct Mover<'a> {
    layout: &'a Layout,
    grain: Grain,
    notes: Notes<'a>,
    /// How many ways there were to crash over the request that came last, and over its answer.
    tears: (usize, usize),
}

impl<'a> Mover<'a> {
    /// One that knows nothing yet.
    pub fn new(layout: &'a Layout, grain: Grain, book: &'a Book) -> Self {
        Self { layout, grain, notes: Notes::new(book), tears: (0, 0) }
    }

    /// The world in which those members have just started.
    pub fn first(&mut self, members: &[u32], promised: u32, proposers: &[usize]) -> Result<World, Stop> {
        let mut world = World::EMPTY;
        for (at, member) in members.iter().enumerate() {
            world.set(at, *member);
        }
        world.set(self.layout.promised(), promised);
        for name in proposers {
            self.befall(&mut world, *name, Event::with(Event::CRASH, 0, 0))?;
        }
        Ok(world)
    }

    /// Every move from there, and where it leads.
    pub fn each(&mut self, from: &World, mut to: impl FnMut(Move, &World)) -> Result<(), Stop> {
        for name in 0..self.layout.members {
            for event in &self.notes.about(from.get(name))?.events {
                self.whole_and_torn(from, |torn| Move::Event(name, *event, torn), &mut to)?;
            }
        }
        for dial in 0..self.layout.dials.len() {
            let (one, other) = self.layout.dials[dial];
            let about = self.notes.about(from.get(one))?;
            let is_connected = about.connected & 1 << other != 0;
            if self.grain == Grain::Conversation {
                self.talks(from, dial, &mut to)?;
            } else {
                if from.get(self.layout.requests(dial)) != EMPTY {
                    self.whole_and_torn(from, |torn| Move::Request(dial, torn), &mut to)?;
                }
                if from.get(self.layout.answers(dial)) != EMPTY {
                    self.whole_and_torn(from, |torn| Move::Answer(dial, torn), &mut to)?;
                }
                if !is_connected && about.dials & 1 << other != 0 {
                    self.go(from, Move::Dial(dial), &mut to)?;
                }
            }
            if is_connected {
                self.go(from, Move::Cut(dial), &mut to)?;
            }
        }
        Ok(())
    }

    fn whole_and_torn(
        &mut self,
        from: &World,
        what: impl Fn(Torn) -> Move,
        to: &mut impl FnMut(Move, &World),
    ) -> Result<(), Stop> {
        self.tears.0 = 0;
        self.go(from, what(0), to)?;
        for torn in 1..=self.tears.0 {
            self.go(from, what(torn as Torn), to)?;
        }
        Ok(())
    }

    fn talks(&mut self, from: &World, dial: usize, to: &mut impl FnMut(Move, &World)) -> Result<(), Stop> {
        let mut talk = |mover: &mut Self, most, end| mover.go(from, Move::Talk(dial, Talk { most, end }), to);
        let count = talk(self, ALL, End::Answered)?;
        let last = self.tears;
        for most in 1..=count {
            let (acceptor, proposer) = if most < count {
                talk(self, most, End::Answered)?;
                self.tears
            } else {
                last
            };
            talk(self, most, End::AnswerLost)?;
            for torn in 1..=acceptor {
                talk(self, most, End::AcceptorTorn(torn as Torn))?;
            }
            for torn in 1..=proposer {
                talk(self, most, End::ProposerTorn(torn as Torn))?;
            }
        }
        Ok(())
    }

    /// Make a move. Gives how many requests came, at least 1 if it is a move at all.
    fn go(&mut self, from: &World, what: Move, to: &mut impl FnMut(Move, &World)) -> Result<u32, Stop> {
        let mut world = *from;
        let count = match what {
            Move::Talk(dial, talk) => self.talk(&mut world, dial, talk)?,
            _ => 1,
        };
        match what {
            Move::Event(name, event, 0) if event.kind == Event::CRASH => {
                self.crash(&mut world, name, event)?;
            }
            Move::Event(name, event, torn) => {
                self.whole_or_torn(&mut world, name, event, torn)?;
            }
            Move::Request(dial, torn) => self.request(&mut world, dial, torn, false)?,
            Move::Answer(dial, torn) => self.answer(&mut world, dial, torn)?,
            Move::Dial(dial) => self.dial(&mut world, dial)?,
            Move::Cut(dial) => self.cut(&mut world, dial)?,
            Move::Talk(..) => {}
        }
        if count > 0 {
            to(what, &world);
        }
        Ok(count)
    }

    fn dial(&mut self, world: &mut World, dial: usize) -> Result<(), Stop> {
        let (one, other) = self.layout.dials[dial];
        self.clear(world, dial);
        self.befall(world, one, Event::with(Event::DIAL, other, 0))?;
        match self.grain {
            Grain::Message { is_lean: true } => self.request(world, dial, 0, false),
            _ => Ok(()),
        }
    }

    /// Gives how many requests came.
    fn talk(&mut self, world: &mut World, dial: usize, talk: Talk) -> Result<u32, Stop> {
        let (one, other) = self.layout.dials[dial];
        let about = self.notes.about(world.get(one))?;
        // What it sent before it hung up may still come.
        if about.connected & 1 << other == 0 && about.dials & 1 << other != 0 {
            self.dial(world, dial)?;
        }
        let mut count = 0;
        while world.get(self.layout.requests(dial)) != EMPTY {
            count += 1;
            if count < talk.most {
                self.exchange(world, dial, End::Answered)?;
                continue;
            }
            self.exchange(world, dial, talk.end)?;
            if talk.end == End::Answered {
                self.cut(world, dial)?;
            }
            break;
        }
        let about = self.notes.about(world.get(one))?;
        if about.is_quiet && about.connected & 1 << other != 0 {
            self.cut(world, dial)?;
        }
        Ok(count)
    }

    /// One request and its answers.
    fn exchange(&mut self, world: &mut World, dial: usize, end: End) -> Result<(), Stop> {
        self.tears = (0, 0);
        match end {
            End::AcceptorTorn(torn) => return self.request(world, dial, torn, false),
            End::Answered | End::AnswerLost => self.request(world, dial, 0, end == End::AnswerLost)?,
            End::ProposerTorn(torn) => {
                self.request(world, dial, 0, false)?;
                if world.get(self.layout.answers(dial)) != EMPTY {
                    self.answer(world, dial, torn)?;
                }
                return Ok(());
            }
        }
        let acceptor = self.tears.0;
        let mut proposer = 0;
        while world.get(self.layout.answers(dial)) != EMPTY {
            self.answer(world, dial, 0)?;
            proposer = self.tears.0;
        }
        self.tears = (acceptor, proposer);
        Ok(())
    }

    fn request(
        &mut self,
        world: &mut World,
        dial: usize,
        torn: Torn,
        loses_answer: bool,
    ) -> Result<(), Stop> {
        let (one, other) = self.layout.dials[dial];
        let message = self.take(world, self.layout.requests(dial))?;
        let is_refused = self.whole_or_torn(world, other, Event::with(Event::REQUEST, one, message), torn)?;
        if is_refused || loses_answer { self.cut(world, dial) } else { Ok(()) }
    }

    fn answer(&mut self, world: &mut World, dial: usize, torn: Torn) -> Result<(), Stop> {
        let (one, other) = self.layout.dials[dial];
        let message = self.take(world, self.layout.answers(dial))?;
        let is_refused = self.whole_or_torn(world, one, Event::with(Event::ANSWER, other, message), torn)?;
        if is_refused { self.cut(world, dial) } else { Ok(()) }
    }

    fn take(&mut self, world: &mut World, at: usize) -> Result<u32, Stop> {
        let (message, rest) = self.notes.take(world.get(at))?;
        world.set(at, rest);
        Ok(message)
    }

    fn cut(&mut self, world: &mut World, dial: usize) -> Result<(), Stop> {
        let (one, other) = self.layout.dials[dial];
        self.clear(world, dial);
        self.befall(world, other, Event::with(Event::LEFT, one, 0))?;
        self.befall(world, one, Event::with(Event::HUNG_UP, other, 0)).map(|_| ())
    }

    fn clear(&self, world: &mut World, dial: usize) {
        world.set(self.layout.requests(dial), EMPTY);
        world.set(self.layout.answers(dial), EMPTY);
    }

    fn crash(&mut self, world: &mut World, name: usize, event: Event) -> Result<(), Stop> {
        let step = self.notes.step(world.get(name), event)?;
        self.reborn(world, name, step.member)
    }

    /// A member has died and started again as that one.
    fn reborn(&mut self, world: &mut World, name: usize, member: u32) -> Result<(), Stop> {
        for (dial, (one, other)) in self.layout.dials.iter().enumerate() {
            if name == *one || name == *other {
                self.clear(world, dial);
            }
        }
        world.set(name, member);
        self.look(world, name)?;
        for (one, other) in &self.layout.dials {
            if name == *one {
                self.befall(world, *other, Event::with(Event::LEFT, *one, 0))?;
            } else if name == *other {
                self.befall(world, *one, Event::with(Event::HUNG_UP, *other, 0))?;
            }
        }
        Ok(())
    }

    /// Gives whether a message was refused.
    fn whole_or_torn(
        &mut self,
        world: &mut World,
        name: usize,
        event: Event,
        torn: Torn,
    ) -> Result<bool, Stop> {
        let step = self.notes.step(world.get(name), event)?;
        self.tears.0 = step.torn.len();
        match torn.checked_sub(1) {
            None => self.befall(world, name, event),
            Some(torn) => self.reborn(world, name, step.torn[torn as usize]).map(|()| false),
        }
    }

    /// What the event does to the member, and to the world by what it sends. Gives whether a message was refused.
    fn befall(&mut self, world: &mut World, name: usize, event: Event) -> Result<bool, Stop> {
        let before = world.get(name);
        let step = self.notes.step(before, event)?;
        world.set(name, step.member);
        for (to, message) in &step.requests {
            if let Some(dial) = self.layout.dial(name, *to) {
                self.put(world, self.layout.requests(dial), *message)?;
            }
        }
        if step.member != before {
            self.look(world, name)?;
            self.hang_up(world, name)?;
        }
        for (to, message) in &step.answers {
            if let Some(dial) = self.layout.dial(*to, name) {
                let about = self.notes.about(world.get(*to))?;
                if about.connected & 1 << name != 0 {
                    self.put(world, self.layout.answers(dial), *message)?;
                }
            }
        }
        Ok(step.is_refused)
    }

    /// Nobody hears the answers to who has hung up.
    fn hang_up(&mut self, world: &mut World, name: usize) -> Result<(), Stop> {
        let about = self.notes.about(world.get(name))?;
        for (dial, (one, other)) in self.layout.dials.iter().enumerate() {
            if *one == name && about.connected & 1 << other == 0 {
                world.set(self.layout.answers(dial), EMPTY);
            }
        }
        Ok(())
    }

    fn put(&mut self, world: &mut World, at: usize, message: u32) -> Result<(), Stop> {
        let held = self.notes.put(world.get(at), message)?;
        world.set(at, held);
        Ok(())
    }

    /// The invariants, as far as that member's change may have touched them.
    fn look(&mut self, world: &mut World, name: usize) -> Result<(), Stop> {
        let about = self.notes.about(world.get(name))?;
        let at = self.layout.promised();
        if about.view != 0 {
            let look = self.notes.look(about.view, world.get(at))?;
            world.set(at, look.promised);
            if look.commits {
                let mut logs: Logs = [0; MEMBERS_MAX];
                for (place, log) in logs.iter_mut().enumerate().take(self.layout.members) {
                    *log = self.notes.about(world.get(place))?.log;
                }
                self.notes.hold(about.view, logs)?;
            }
        }
        self.notes.serve(about.log, world.get(at)).map(|_| ())
    }
}
