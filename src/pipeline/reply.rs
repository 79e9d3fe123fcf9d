//! The way back: from the rows of a batch to the requests that they came from.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::flight::Flight;
use super::steps::{Finish, Piece, Said, Speaker};
use super::terms::Label;
use crate::batch::{BatchAccount, Entry, Ran};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::AnswerRow;

/// A row for each of a request's own, in their order.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The rows.
    pub rows: Vec<AnswerRow>,
    /// The batch that the last of them came from.
    pub batch: Arc<BatchAccount>,
    /// How long its model was on its way, where it was not there when it was asked for.
    pub load: Option<Duration>,
}

/// What a request gets.
pub type Answer = Result<Answered>;

/// Where the answer to a request goes.
#[derive(Debug)]
pub enum Return {
    /// To whoever asked.
    One(oneshot::Sender<Answer>),
    /// To everybody who asked the same.
    #[expect(private_interfaces, reason = "made by the endpoint alone")]
    Shared(Arc<Flight>),
}

impl Return {
    fn is_closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Shared(flight) => flight.is_deserted(),
        }
    }

    /// Done once it is closed.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::One(sender) => sender.poll_closed(context),
            Self::Shared(flight) => flight.poll_deserted(context),
        }
    }

    /// A receiver that is gone wants no answer.
    fn send(self, answer: Answer) {
        match self {
            Self::One(sender) => drop(sender.send(answer)),
            Self::Shared(flight) => flight.arrive(&answer),
        }
    }
}

/// Who waits for a row.
#[derive(Debug)]
pub enum Reply {
    /// A request of one row.
    Whole {
        /// Where its answer goes.
        sender: Return,
        /// What goes with it.
        label: Label,
    },
    /// Row `at` of a request of several.
    Part {
        /// Where the rows of the request come together.
        join: Arc<Join>,
        /// Which of them this one is.
        at: usize,
    },
    /// A request of one row whose answer is wanted piece by piece.
    Steps {
        /// The model's end.
        speaker: Box<Speaker>,
        /// What goes with it.
        label: Label,
    },
}

/// A request of several rows, which may be answered by several batches.
#[derive(Debug)]
pub struct Join {
    gathering: Mutex<Gathering>,
    label: Label,
}

#[derive(Debug)]
struct Gathering {
    rows: Vec<Option<AnswerRow>>,
    missing: usize,
    /// Taken by the last row, or by the first that failed.
    sender: Option<Return>,
}

/// A batch that a worker is done with: one message for all its requests.
#[derive(Debug)]
pub struct Finished {
    /// The requests.
    pub entries: Vec<Entry<Reply>>,
    /// What each of them gets, in the same order.
    pub rows: Vec<Result<Said>>,
    /// Where its time went.
    pub account: BatchAccount,
    /// What there is to learn from it.
    pub ran: Ran,
}

impl Finished {
    /// Answers every request, once `keep` has what there is to say of the batch.
    pub fn hand_out(self, keep: impl FnOnce(&Arc<BatchAccount>)) {
        let mut batch = self.account;
        batch.failed = self.rows.iter().filter(|row| row.is_err()).count();
        batch.ran = self.ran;
        let batch = Arc::new(batch);
        keep(&batch);
        for (entry, row) in self.entries.into_iter().zip(self.rows) {
            entry.waiter.answer(row, &batch);
        }
    }
}

impl Reply {
    /// Waiters for a request of `count` rows with that label, and where its answer comes.
    pub fn for_rows(count: usize, label: Label) -> (Vec<Reply>, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        (Self::for_return(Return::One(sender), count, label), receiver)
    }

    /// Waiters for a request of `count` rows whose answer goes there.
    pub(super) fn for_return(sender: Return, count: usize, label: Label) -> Vec<Reply> {
        if count == 1 {
            return vec![Self::Whole { sender, label }];
        }
        let gathering = Gathering { rows: vec![None; count], missing: count, sender: Some(sender) };
        let join = Arc::new(Join { gathering: Mutex::new(gathering), label });
        (0..count).map(|at| Self::Part { join: Arc::clone(&join), at }).collect()
    }

    /// True where nobody waits any more: the sender of the request hung up, or another of its rows has failed.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Whole { sender, .. } => sender.is_closed(),
            Self::Part { join, .. } => join.gathering.lock().sender.as_ref().is_none_or(Return::is_closed),
            Self::Steps { speaker, .. } => speaker.is_left(),
        }
    }

    /// Done once nobody waits any more.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Whole { sender, .. } => sender.poll_closed(context),
            Self::Part { join, .. } => match &mut join.gathering.lock().sender {
                Some(sender) => sender.poll_closed(context),
                None => Poll::Ready(()),
            },
            Self::Steps { speaker, .. } => speaker.poll_left(context),
        }
    }

    /// What goes with the request.
    pub fn label(&self) -> &Label {
        match self {
            Self::Whole { label, .. } | Self::Steps { label, .. } => label,
            Self::Part { join, .. } => &join.label,
        }
    }

    /// The model's end, where the answer is wanted piece by piece.
    pub fn speaker(&self) -> Option<&Speaker> {
        match self {
            Self::Steps { speaker, .. } => Some(speaker),
            _ => None,
        }
    }

    /// Gives the row its answer, from that batch. A receiver that is gone wants none.
    pub fn answer(self, said: Result<Said>, batch: &Arc<BatchAccount>) {
        match self {
            Self::Whole { sender, .. } => {
                let answer = said.and_then(row_of);
                sender.send(answer.map(|row| Answered {
                    rows: vec![row],
                    batch: Arc::clone(batch),
                    load: None,
                }));
            }
            Self::Part { join, at } => join.gather(at, said.and_then(row_of).map(|row| (row, batch))),
            Self::Steps { speaker, .. } => finish(*speaker, said, batch),
        }
    }

    /// Tells whoever waits that it never came to an answer.
    pub fn refuse(self, error: Error) {
        match self {
            Self::Whole { sender, .. } => sender.send(Err(error)),
            Self::Part { join, at } => join.gather(at, Err(error)),
            Self::Steps { speaker, .. } => wake(speaker.finish(Err(error))),
        }
    }
}

/// The last row of an answer that is wanted as a whole.
fn row_of(said: Said) -> Result<AnswerRow> {
    match said {
        Said::Row(row) => Ok(row),
        Said::Finish { .. } => Err(Error::new(ErrorKind::Output, "a request was finished without a value")),
    }
}

fn finish(speaker: Speaker, said: Result<Said>, batch: &Arc<BatchAccount>) {
    let finish = |reason, prompt_tokens| Finish { reason, prompt_tokens, batch: Arc::clone(batch) };
    let before = match &said {
        Ok(Said::Row(row)) => speaker.say(Piece::Row(row.clone())),
        _ => None,
    };
    let end = said.map(|said| match said {
        Said::Row(_) => finish(None, None),
        Said::Finish { reason, prompt_tokens } => finish(reason, prompt_tokens),
    });
    let then = speaker.finish(end);
    wake(before.or(then));
}

fn wake(sleeper: Option<Waker>) {
    if let Some(sleeper) = sleeper {
        sleeper.wake();
    }
}

impl Join {
    fn gather(&self, at: usize, row: Result<(AnswerRow, &Arc<BatchAccount>)>) {
        let mut gathering = self.gathering.lock();
        let answer = match row {
            Err(error) => Err(error),
            Ok((row, batch)) => {
                if let Some(place) = gathering.rows.get_mut(at) {
                    *place = Some(row);
                }
                gathering.missing = gathering.missing.saturating_sub(1);
                if gathering.missing > 0 {
                    return;
                }
                let rows: Option<Vec<_>> = std::mem::take(&mut gathering.rows).into_iter().collect();
                rows.map(|rows| Answered { rows, batch: Arc::clone(batch), load: None })
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "a row was answered twice"))
            }
        };
        if let Some(sender) = gathering.sender.take() {
            sender.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Cut;

    fn batch() -> Arc<BatchAccount> {
        Arc::new(BatchAccount::open(1, "tick", Cut::default()))
    }

    fn row(row: usize) -> AnswerRow {
        AnswerRow::new(Arc::new(Vec::new()), row)
    }

    #[test]
    fn rows_of_one_request_come_together_in_its_order() {
        let (replies, mut receiver) = Reply::for_rows(3, Label::default());
        for (at, reply) in replies.into_iter().enumerate().rev() {
            assert!(receiver.try_recv().is_err());
            reply.answer(Ok(Said::Row(row(10 + at))), &batch());
        }
        let rows = receiver.try_recv().unwrap().unwrap().rows;
        assert_eq!(rows.iter().map(|row| row.row).collect::<Vec<_>>(), [10, 11, 12]);
    }

    #[test]
    fn the_first_failure_answers_for_all_and_frees_the_rest() {
        let (mut replies, mut receiver) = Reply::for_rows(2, Label::default());
        let last = replies.pop().unwrap();
        assert!(!last.is_gone());
        replies.pop().unwrap().refuse(Error::new(ErrorKind::Item, "bad"));
        assert!(last.is_gone());
        last.answer(Ok(Said::Row(row(1))), &batch());
        assert_eq!(receiver.try_recv().unwrap().unwrap_err().message(), "bad");
    }

    #[test]
    fn a_caller_that_hangs_up_is_gone() {
        for count in [1, 2] {
            let (replies, receiver) = Reply::for_rows(count, Label::default());
            drop(receiver);
            assert!(replies.iter().all(Reply::is_gone));
        }
    }
}
