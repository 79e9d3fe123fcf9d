//! Requests for what a model is answering already: they wait for the same answer.
//!
//! Whole requests are compared, byte by byte; their hash only finds them.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::reply::Return;
use super::terms::Label;
use super::{Answer, Reply};
use crate::tensor::{Column, Rows, Specs};

/// Requests that are being answered.
#[derive(Debug)]
pub(super) struct Flights {
    known: Mutex<HashMap<u64, Vec<Arc<Flight>>>>,
    hasher: RandomState,
    shared: AtomicU64,
    /// Requests that wait for one flight at most.
    limit: usize,
}

/// A request that is being answered, and everybody who waits for the answer.
#[derive(Debug)]
pub(super) struct Flight {
    hash: u64,
    specs: Specs,
    pub(super) rows: Rows,
    count: usize,
    state: Mutex<Waiting>,
    flights: Weak<Flights>,
}

#[derive(Debug)]
struct Waiting {
    senders: Vec<oneshot::Sender<Answer>>,
    /// False once it is answered, or everybody has hung up.
    open: bool,
}

/// A place in a flight, or a flight of one's own.
pub(super) enum Place {
    Shared(oneshot::Receiver<Answer>),
    Own(Arc<Flight>, Vec<Reply>, oneshot::Receiver<Answer>),
}

impl Flights {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let (known, hasher, shared) = (Mutex::default(), RandomState::new(), AtomicU64::new(0));
        Arc::new(Self { known, hasher, shared, limit })
    }

    /// Requests that were answered with what was being computed for another.
    pub(super) fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    /// A place for a request of `count` rows. A flight of one's own is found by others after [`depart`](Self::depart).
    pub(super) fn place(self: &Arc<Self>, specs: Specs, rows: Rows, count: usize, label: Label) -> Place {
        let hash = self.hash(&specs, &rows, count);
        let (sender, receiver) = oneshot::channel();
        let candidates = self.known.lock().get(&hash).cloned().unwrap_or_default();
        let same = |flight: &&Arc<Flight>| {
            flight.count == count && flight.specs == specs && are_equal(&flight.rows, &rows)
        };
        let mut sender = Some(sender);
        if let Some(flight) = candidates.iter().find(same)
            && flight.board(&mut sender, self.limit)
        {
            self.shared.fetch_add(1, Ordering::Relaxed);
            return Place::Shared(receiver);
        }
        let state = Mutex::new(Waiting { senders: sender.into_iter().collect(), open: true });
        let flight = Arc::new(Flight { hash, specs, rows, count, state, flights: Arc::downgrade(self) });
        let replies = Reply::for_return(Return::Shared(Arc::clone(&flight)), count, label);
        Place::Own(flight, replies, receiver)
    }

    /// Lets others board a flight, unless it has arrived meanwhile.
    pub(super) fn depart(&self, flight: Arc<Flight>) {
        let mut known = self.known.lock();
        if flight.state.lock().open {
            known.entry(flight.hash).or_default().push(flight);
        }
    }

    fn forget(&self, flight: &Flight) {
        let mut known = self.known.lock();
        if let Some(flights) = known.get_mut(&flight.hash) {
            flights.retain(|known| !std::ptr::eq(Arc::as_ptr(known), flight));
            if flights.is_empty() {
                known.remove(&flight.hash);
            }
        }
    }

    fn hash(&self, specs: &Specs, rows: &Rows, count: usize) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        (specs, count).hash(&mut hasher);
        for column in rows.columns() {
            match column {
                Column::Numbers { memory, .. } => hasher.write(memory.as_slice()),
                Column::Texts { texts, .. } => {
                    texts.range(0..texts.len()).for_each(|text| text.hash(&mut hasher));
                }
                Column::Objects(ids) => ids.hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

impl Flight {
    /// Takes the sender, unless the flight has ended or is full.
    fn board(&self, sender: &mut Option<oneshot::Sender<Answer>>, limit: usize) -> bool {
        let mut state = self.state.lock();
        let boards = state.open && state.senders.len() < limit;
        if boards {
            state.senders.extend(sender.take());
        }
        boards
    }

    /// True where nobody waits any more; then nobody boards it either.
    pub(super) fn is_deserted(&self) -> bool {
        let deserted = {
            let mut state = self.state.lock();
            let deserted = state.senders.iter().all(oneshot::Sender::is_closed);
            state.open &= !deserted;
            deserted
        };
        if deserted {
            self.end();
        }
        deserted
    }

    /// Done once nobody waits any more.
    pub(super) fn poll_deserted(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        for sender in &mut state.senders {
            // Whoever has hung up stays so: those before him are looked at for nothing.
            ready!(sender.poll_closed(context));
        }
        drop(state);
        // Somebody may have boarded meanwhile.
        if self.is_deserted() { Poll::Ready(()) } else { self.poll_deserted(context) }
    }

    /// Answers everybody who waits.
    pub(super) fn arrive(&self, answer: &Answer) {
        let senders = {
            let mut state = self.state.lock();
            state.open = false;
            std::mem::take(&mut state.senders)
        };
        self.end();
        for sender in senders {
            drop(sender.send(answer.clone()));
        }
    }

    fn end(&self) {
        if let Some(flights) = self.flights.upgrade() {
            flights.forget(self);
        }
    }
}

fn are_equal(one: &Rows, other: &Rows) -> bool {
    let equal = |(one, other): (&Column, &Column)| match (one, other) {
        (Column::Numbers { memory: one, .. }, Column::Numbers { memory: other, .. }) => {
            one.as_slice() == other.as_slice()
        }
        (Column::Texts { texts: one, .. }, Column::Texts { texts: other, .. }) => {
            one.len() == other.len() && one.range(0..one.len()).eq(other.range(0..other.len()))
        }
        (Column::Objects(one), Column::Objects(other)) => one == other,
        _ => false,
    };
    one.columns().len() == other.columns().len() && one.columns().iter().zip(other.columns()).all(equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchAccount, Cut};
    use crate::pipeline::Said;
    use crate::tensor::{AnswerRow, ColumnSpec, DType, Shape, Spares};

    fn specs() -> Specs {
        let numbers = ColumnSpec::Numbers { dtype: DType::UInt8, shape: Shape::from_slice(&[2]) };
        [numbers, ColumnSpec::Texts { shape: Shape::new() }].into_iter().collect()
    }

    fn place(flights: &Arc<Flights>, number: u8, text: &str) -> Place {
        let mut rows = Rows::new(&specs(), &Spares::new(1 << 10));
        for column in rows.columns_mut() {
            match column {
                Column::Numbers { memory, .. } => memory.extend(&[number, 0]),
                Column::Texts { texts, .. } => texts.push(text.as_bytes()),
                Column::Objects(_) => unreachable!(),
            }
        }
        let place = flights.place(specs(), rows, 1, Label::default());
        if let Place::Own(flight, ..) = &place {
            flights.depart(Arc::clone(flight));
        }
        place
    }

    fn own(place: Place) -> (Vec<Reply>, oneshot::Receiver<Answer>) {
        match place {
            Place::Own(_, replies, receiver) => (replies, receiver),
            Place::Shared(_) => panic!("it shares a flight"),
        }
    }

    fn shared(place: Place) -> oneshot::Receiver<Answer> {
        match place {
            Place::Shared(receiver) => receiver,
            Place::Own(..) => panic!("it has a flight of its own"),
        }
    }

    fn answer(replies: Vec<Reply>) {
        let batch = Arc::new(BatchAccount::open(1, "tick", Cut::default()));
        for reply in replies {
            reply.answer(Ok(Said::Row(AnswerRow::new(Arc::new(Vec::new()), 7))), &batch);
        }
    }

    #[test]
    fn equal_requests_share_an_answer_until_it_is_there() {
        let flights = Flights::new(100);
        let (replies, mut first) = own(place(&flights, 1, "a"));
        let mut second = shared(place(&flights, 1, "a"));
        own(place(&flights, 2, "a"));
        own(place(&flights, 1, "b"));
        assert_eq!(flights.shared(), 1);
        answer(replies);
        for receiver in [&mut first, &mut second] {
            assert_eq!(receiver.try_recv().unwrap().unwrap().rows[0].row, 7);
        }
        own(place(&flights, 1, "a"));
    }

    #[test]
    fn a_flight_goes_on_while_anybody_waits_and_takes_nobody_after() {
        let flights = Flights::new(100);
        let (replies, first) = own(place(&flights, 1, "a"));
        let second = shared(place(&flights, 1, "a"));
        drop(first);
        assert!(!replies[0].is_gone());
        drop(second);
        assert!(replies[0].is_gone());
        own(place(&flights, 1, "a"));
        assert_eq!(flights.known.lock().len(), 1);
    }

    #[test]
    fn a_flight_that_is_full_takes_nobody_more() {
        let flights = Flights::new(2);
        let (_replies, _first) = own(place(&flights, 1, "a"));
        let _second = shared(place(&flights, 1, "a"));
        own(place(&flights, 1, "a"));
    }
}
