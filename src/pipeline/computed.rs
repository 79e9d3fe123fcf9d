//! Workers of a served model that need no interpreter: threads of Rust that take its batches and compute the answers.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cutting::cut_back;
use super::{BatchAccount, Endpoint, Finished, Parts, Reply, Said, Tally};
use crate::batch::{Batch, Ran, Shift, Turn};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;
use crate::tensor::{AnswerRow, Column, Rows, Spares};

/// Rows of a batch that are to be computed together.
#[derive(Debug)]
pub struct Portion<'a> {
    /// The rows of the whole batch, a column for each input, in the order in which the model declares them.
    pub rows: &'a Rows,
    /// Those that are to be computed.
    pub range: Range<usize>,
    /// When the first answer is worth nothing any more, by the endpoint's clock.
    pub deadline: Option<Moment>,
    /// Where memory for answers comes from.
    pub spares: &'a Arc<Spares>,
}

/// Why rows were not computed.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What those who wait are told.
    pub error: Error,
    /// Memory ran out: fewer rows might do.
    pub out_of_memory: bool,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { error, out_of_memory: false }
    }
}

impl Fault {
    /// True where fewer of the rows might be computed: a wrong answer is the model's own fault, whoever asks.
    fn is_worth_splitting(&self) -> bool {
        !matches!(self.error.kind(), ErrorKind::Output | ErrorKind::Internal)
    }
}

/// What computes a model's answers; one thread uses it.
pub trait Compute: Send {
    /// Computes a column for each output, in the order in which the model declares them, with a row for each of the
    /// portion's. It leaves the rows as they are: they may be computed again.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where the rows are refused, [`ErrorKind::Output`] where the model is at fault, anything else
    /// otherwise. Where several rows fail together, each half of them is computed again, unless the model's policy says
    /// otherwise.
    fn run(&mut self, portion: &Portion<'_>) -> std::result::Result<Vec<Column>, Fault>;
}

/// The threads that compute one load of a model's answers.
pub struct Computers {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Computers {
    /// Starts a thread for each of `computing`, which take batches until the shift is over. With `isolate`, a batch that
    /// fails is split.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the operating system gives no thread.
    pub fn start(
        (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
        computing: Vec<Box<dyn Compute>>,
        isolate: bool,
        tally: &Arc<dyn Tally>,
    ) -> Result<Self> {
        let computers = Self { endpoint, shift, threads: Mutex::default() };
        for (number, compute) in computing.into_iter().enumerate() {
            let worker = Worker {
                endpoint: Arc::clone(&computers.endpoint),
                shift: Arc::clone(&computers.shift),
                compute,
                isolate,
                tally: Arc::clone(tally),
            };
            let thread = std::thread::Builder::new()
                .name(format!("penstock-{}-{number}", computers.endpoint.spec.name))
                .spawn(move || worker.work());
            match thread {
                Ok(thread) => computers.threads.lock().push(thread),
                Err(error) => {
                    computers.end(Duration::ZERO);
                    return Err(Error::with_source(ErrorKind::Internal, "no thread could be made", error));
                }
            }
        }
        Ok(computers)
    }

    /// Ends the shift and waits for the threads to end, which they do once they have run what they have taken; answers
    /// whether they did within `limit`. Those that did not are left behind, and end when their run does.
    pub fn end(&self, limit: Duration) -> bool {
        self.endpoint.end_shift(&self.shift);
        let end = Instant::now().checked_add(limit);
        let in_time = || end.is_none_or(|end| Instant::now() < end);
        let mut threads = std::mem::take(&mut *self.threads.lock());
        while !threads.iter().all(JoinHandle::is_finished) && in_time() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let left = threads.extract_if(.., |thread| !thread.is_finished()).count();
        for thread in threads {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
        left == 0
    }
}

struct Worker {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    compute: Box<dyn Compute>,
    isolate: bool,
    tally: Arc<dyn Tally>,
}

impl Worker {
    fn work(mut self) {
        let endpoint = Arc::clone(&self.endpoint);
        while endpoint.wait_in(&self.shift) == Turn::Work {
            if let Some((batch, account)) = endpoint.take() {
                self.run(batch, account);
            }
        }
    }

    fn run(&mut self, batch: Batch<(), Reply>, account: BatchAccount) {
        let mut run = Run::new(&self.endpoint, &batch, account);
        while let Some(range) = run.parts.next() {
            run.compute(self.compute.as_mut(), range, self.isolate);
        }
        let Run { mut account, answers, busy, calls, ran, .. } = run;
        let reruns = calls.saturating_sub(1);
        self.tally.ran(busy, u64::from(reruns));
        account.reruns = reruns;
        account.close(busy);
        let rows = answers.into_iter().map(|row| row.map(Said::Row)).collect();
        self.endpoint.finish(Finished { entries: batch.entries, rows, account, ran });
    }
}

/// One batch on its way through.
struct Run<'a> {
    endpoint: &'a Endpoint,
    rows: &'a Rows,
    account: BatchAccount,
    parts: Parts,
    answers: Vec<Result<AnswerRow>>,
    busy: Duration,
    calls: u32,
    ran: Ran,
}

impl<'a> Run<'a> {
    fn new(endpoint: &'a Endpoint, batch: &'a Batch<(), Reply>, account: BatchAccount) -> Self {
        let count = batch.entries.len();
        Self {
            endpoint,
            rows: &batch.rows,
            account,
            parts: Parts::new(count),
            answers: Vec::with_capacity(count),
            busy: Duration::ZERO,
            calls: 0,
            ran: Ran::Unknown,
        }
    }

    fn compute(&mut self, compute: &mut dyn Compute, range: Range<usize>, isolate: bool) {
        let portion = Portion {
            rows: self.rows,
            range: range.clone(),
            deadline: self.account.deadline,
            spares: self.endpoint.spares(),
        };
        self.account.call();
        let began = Instant::now();
        let computed = catch_unwind(AssertUnwindSafe(|| compute.run(&portion)));
        self.busy += began.elapsed();
        self.calls += 1;
        let computed = computed.unwrap_or_else(|panic| Err(panicked(panic.as_ref()).into()));
        match computed.and_then(|columns| Ok(self.checked(columns, &range)?)) {
            Ok(columns) => self.answer(columns, range),
            Err(fault) => {
                if fault.out_of_memory {
                    self.ran = Ran::OutOfMemory(range.len());
                }
                if isolate && range.len() > 1 && fault.is_worth_splitting() {
                    self.parts.split();
                } else {
                    self.parts.fail();
                    self.answers.extend(range.map(|_| Err(fault.error.clone())));
                }
            }
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
        let rows = (0..range.len()).map(|row| Ok(AnswerRow { columns: Arc::clone(&columns), row }));
        let mut answers: Vec<_> = rows.collect();
        let cut = &self.account.cut;
        if let Some(lengths) = cut.lengths.get(range).filter(|lengths| !lengths.is_empty()) {
            // Rows of different lengths were filled up to one.
            let longest = usize::try_from(cut.padded_cost / cut.lengths.len() as u64).unwrap_or_default();
            cut_back(&self.endpoint.spec, &mut answers, lengths, longest, self.endpoint.spares());
        }
        self.answers.append(&mut answers);
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::new(ErrorKind::Internal, format!("penstock panicked: {text}"))
}
