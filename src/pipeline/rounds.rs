//! A batch on its way through what computes its answers: as a whole first, then in halves where that fails.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::cutting::cut_back;
use super::{BatchAccount, Endpoint, Finished, Parts, Reply, Said, Tally};
use crate::batch::{Batch, Entry, Ran};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Moment, Priority, TraceContext};
use crate::tensor::{AnswerRow, Column, Rows, Spares};

/// Rounds of a batch in search of a row that may not even be there: so many for each halving.
const ROUNDS_FOR_A_GUESS: u32 = 4;

/// Rows of a batch that are to be computed together.
#[derive(Debug)]
pub struct Portion<'a> {
    /// The rows of the whole batch, a column for each input, in the order in which the model declares them.
    pub rows: &'a Arc<Rows>,
    /// Those that are to be computed.
    pub range: Range<usize>,
    /// When the first answer is worth nothing any more, by the endpoint's clock.
    pub deadline: Option<Moment>,
    /// Where memory for answers comes from.
    pub spares: &'a Arc<Spares>,
}

/// Whether some of the rows make a computation fail, and others would do better without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// It is one of the rows: it is looked for until it is found.
    Rows,
    /// It may be: it is looked for, but not for ever.
    Perhaps,
    /// It is not: nothing would be better without any of them.
    Elsewhere,
}

/// Why rows were not computed.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What those who wait are told.
    pub error: Error,
    /// Memory ran out: fewer rows might do.
    pub out_of_memory: bool,
    /// What is to blame.
    pub blame: Blame,
}

impl From<Error> for Fault {
    /// A wrong answer is the model's own fault, whoever asks.
    fn from(error: Error) -> Self {
        let elsewhere = matches!(error.kind(), ErrorKind::Output | ErrorKind::Internal);
        let blame = if elsewhere { Blame::Elsewhere } else { Blame::Rows };
        Self { error, out_of_memory: false, blame }
    }
}

/// On which terms a batch goes to somebody else: those that its requests share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shared {
    /// When the last answer is worth nothing any more; none where some answer is always worth something.
    pub latest: Option<Moment>,
    /// Who goes first, where all say the same.
    pub priority: Option<Priority>,
    /// On whose behalf it is, where all say the same.
    pub tenant: Option<Arc<str>>,
    /// What it is called, where all are of one request, or say the same.
    pub id: Option<Arc<str>>,
    /// What it is part of.
    pub trace: Option<TraceContext>,
}

impl Shared {
    /// Those of requests of the batch that has this account.
    pub fn of(entries: &[Entry<Reply>], account: &BatchAccount) -> Self {
        let Some((first, rest)) = entries.split_first() else { return Self::default() };
        let (mut latest, label) = (first.deadline, first.waiter.label());
        let (mut priority, mut tenant) = (Some(label.priority), label.tenant.as_ref());
        let mut id = label.id.as_ref();
        for entry in rest {
            let label = entry.waiter.label();
            latest = latest.zip(entry.deadline).map(|(one, other)| one.max(other));
            priority = priority.filter(|priority| *priority == label.priority);
            tenant = tenant.filter(|tenant| label.tenant.as_ref() == Some(tenant));
            id = id.filter(|id| label.id.as_ref() == Some(id));
        }
        Self { latest, priority, tenant: tenant.cloned(), id: id.cloned(), trace: account.trace() }
    }
}

/// One batch, from the moment when a worker took it until its requests have their answers. Dropped before that, those that
/// have none yet are refused.
pub struct Rounds {
    endpoint: Arc<Endpoint>,
    entries: Vec<Entry<Reply>>,
    rows: Arc<Rows>,
    account: BatchAccount,
    tally: Arc<dyn Tally>,
    isolate: bool,
    parts: Parts,
    answers: Vec<Result<AnswerRow>>,
    /// Tokens that each row came to, as far as anybody has counted them.
    tokens: Vec<u64>,
    busy: Duration,
    calls: u32,
    ran: Ran,
    finished: bool,
}

impl Rounds {
    /// A batch that is yet to be computed. With `isolate` it is split where it fails.
    pub fn new(
        endpoint: &Arc<Endpoint>,
        (batch, account): (Batch<(), Reply>, BatchAccount),
        isolate: bool,
        tally: &Arc<dyn Tally>,
    ) -> Self {
        let Batch { entries, rows, .. } = batch;
        let count = entries.len();
        Self {
            endpoint: Arc::clone(endpoint),
            entries,
            rows: Arc::new(rows),
            account,
            tally: Arc::clone(tally),
            isolate,
            parts: Parts::new(count),
            answers: Vec::with_capacity(count),
            tokens: Vec::new(),
            busy: Duration::ZERO,
            calls: 0,
            ran: Ran::Unknown,
            finished: false,
        }
    }

    /// The rows that are to be computed next, until all have been.
    pub fn next_rows(&mut self) -> Option<Range<usize>> {
        let rows = self.parts.next()?;
        self.account.call();
        Some(rows)
    }

    /// What is to be computed.
    pub fn portion(&self, range: Range<usize>) -> Portion<'_> {
        Portion { rows: &self.rows, range, deadline: self.account.deadline, spares: self.endpoint.spares() }
    }

    /// The same, and what is done as soon as nobody waits for any answer of the batch.
    pub fn watched(&mut self, range: Range<usize>) -> (Portion<'_>, Leaving<'_>) {
        let portion = Portion {
            rows: &self.rows,
            range,
            deadline: self.account.deadline,
            spares: self.endpoint.spares(),
        };
        (portion, Leaving { entries: &mut self.entries, at: 0 })
    }

    /// When the last answer is worth nothing any more.
    pub fn latest(&self) -> Option<Moment> {
        self.shared().latest
    }

    /// On which terms it goes to somebody else.
    pub fn shared(&self) -> Shared {
        Shared::of(&self.entries, &self.account)
    }

    /// Notes how many tokens each of these rows came to, for whoever has to pay for them.
    pub fn counted(&mut self, range: Range<usize>, tokens: impl Iterator<Item = u64>) {
        self.tokens.resize(self.entries.len(), 0);
        for (place, tokens) in self.tokens.iter_mut().skip(range.start).take(range.len()).zip(tokens) {
            *place = tokens;
        }
    }

    /// Takes what came of rows that were computed in so long.
    pub fn computed(
        &mut self,
        range: Range<usize>,
        took: Duration,
        computed: std::result::Result<Vec<Column>, Fault>,
    ) {
        self.busy += took;
        self.calls += 1;
        match computed.and_then(|columns| Ok(self.checked(columns, &range)?)) {
            Ok(columns) => self.answer(columns, range),
            Err(fault) => {
                if fault.out_of_memory {
                    self.ran = Ran::OutOfMemory(range.len());
                }
                if self.isolate && range.len() > 1 && self.is_worth_splitting(fault.blame) {
                    self.parts.split();
                } else {
                    self.parts.fail();
                    self.answers.extend(range.map(|_| Err(fault.error.clone())));
                }
            }
        }
    }

    fn is_worth_splitting(&self, blame: Blame) -> bool {
        match blame {
            Blame::Rows => true,
            Blame::Perhaps => {
                let halvings = self.entries.len().checked_ilog2().unwrap_or(0);
                self.calls < ROUNDS_FOR_A_GUESS * (halvings + 1)
            }
            Blame::Elsewhere => false,
        }
    }

    /// Whoever computes answers for every output and every row.
    fn checked(&self, columns: Vec<Column>, range: &Range<usize>) -> Result<Vec<Column>> {
        let spec = &self.endpoint.spec;
        let whole =
            columns.len() == spec.outputs.len() && columns.iter().all(|column| column.holds(range.len()));
        if whole {
            return Ok(columns);
        }
        let message = format!("model '{}' gave no answer for some of {} rows", spec.name, range.len());
        Err(Error::new(ErrorKind::Output, message))
    }

    fn answer(&mut self, columns: Vec<Column>, range: Range<usize>) {
        if self.parts.is_whole() {
            self.ran = Ran::Whole(self.busy);
        }
        let columns = Arc::new(columns);
        let tokens = |row: usize| self.tokens.get(range.start + row).copied().unwrap_or(0);
        let rows = (0..range.len())
            .map(|row| Ok(AnswerRow { columns: Arc::clone(&columns), row, tokens: tokens(row) }));
        let mut answers: Vec<_> = rows.collect();
        let cut = &self.account.cut;
        if let Some(lengths) = cut.lengths.get(range).filter(|lengths| !lengths.is_empty()) {
            // Rows of different lengths were filled up to one.
            let longest = usize::try_from(cut.padded_cost / cut.lengths.len() as u64).unwrap_or_default();
            cut_back(&self.endpoint.spec, &mut answers, lengths, longest, self.endpoint.spares());
        }
        self.answers.append(&mut answers);
    }

    /// Sends the answers on their way.
    pub fn finish(mut self) {
        self.end(None);
    }

    /// Refuses all that have no answer yet.
    pub fn give_up(mut self, error: &Error) {
        self.end(Some(error));
    }

    fn end(&mut self, error: Option<&Error>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let reruns = self.calls.saturating_sub(1);
        self.tally.ran(self.busy, u64::from(reruns));
        let mut account =
            std::mem::replace(&mut self.account, BatchAccount::open(0, "", crate::batch::Cut::default()));
        account.reruns = reruns;
        account.close(self.busy);
        let entries = std::mem::take(&mut self.entries);
        let mut rows: Vec<_> = self.answers.drain(..).map(|row| row.map(Said::Row)).collect();
        if let Some(error) = error {
            rows.extend((rows.len()..entries.len()).map(|_| Err(error.clone())));
        }
        self.endpoint.finish(Finished { entries, rows, account, ran: self.ran });
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let name = &self.endpoint.spec.name;
        let error = if std::thread::panicking() {
            Error::new(ErrorKind::Internal, format!("penstock panicked while it ran model '{name}'"))
        } else {
            Error::new(ErrorKind::Closed, format!("model '{name}' was closed while it ran this request"))
        };
        self.end(Some(&error));
    }
}

/// Done as soon as nobody waits for any answer of a batch.
///
/// One request is watched at a time, the next when its sender has hung up: a batch whose answers are wanted costs one look.
pub struct Leaving<'a> {
    entries: &'a mut [Entry<Reply>],
    at: usize,
}

impl Future for Leaving<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { entries, at } = &mut *self;
        while let Some(entry) = entries.get_mut(*at) {
            ready!(entry.waiter.poll_gone(context));
            *at += 1;
        }
        Poll::Ready(())
    }
}
