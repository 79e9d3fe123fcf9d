//! Writes a trace while a batcher works: a bounded journal, and a thread that writes what is in it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::line::{Line, PolicyLine, VERSION};
use crate::batch::BatchPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Journal, Moment, Pace};

/// Lines that may wait to be written; beyond that they are dropped and counted.
const CAPACITY: usize = 65_536;
/// A file needs no haste: a burst a tenth of a second costs ten wakes a second.
const PACE: Pace = Pace { gather: Duration::from_millis(100), most: 8_192, breath: Duration::ZERO };

/// What happened in a batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Arrival { at: Moment, rows: u32, cost: u32, timeout: Option<Duration> },
    Batch { taken: Moment, rows: usize, cost: u64, took: Duration },
}

/// Writes what happens in a batcher into a file, without ever making it wait.
pub struct Recorder {
    journal: Arc<Journal<Event>>,
    written: Arc<AtomicU64>,
    writer: Mutex<Option<JoinHandle<std::io::Result<()>>>>,
}

impl Recorder {
    /// Begins a file, which replaces one of that name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it cannot be written.
    pub(crate) fn begin(path: &Path, policy: &BatchPolicy, workers: usize) -> Result<Arc<Self>> {
        let cannot = |source: std::io::Error| {
            let message = format!("a trace cannot be written to {}: {source}", path.display());
            Error::with_source(ErrorKind::Config, message, source)
        };
        let mut file = BufWriter::new(File::create(path).map_err(cannot)?);
        let head = Line::Head { penstock_trace: VERSION, workers, policy: PolicyLine::from(policy) };
        write_line(&mut file, &head).and_then(|()| file.flush()).map_err(cannot)?;
        let journal = Arc::new(Journal::new(CAPACITY, PACE));
        let written = Arc::new(AtomicU64::new(0));
        let writer = std::thread::Builder::new().name("penstock-record".to_owned()).spawn({
            let (journal, written) = (Arc::clone(&journal), Arc::clone(&written));
            move || {
                let ended = write_all(&journal, file, &written);
                journal.close();
                ended
            }
        });
        let writer = Mutex::new(Some(writer.map_err(cannot)?));
        Ok(Arc::new(Self { journal, written, writer }))
    }

    /// Notes something that happened.
    pub(crate) fn note(&self, event: Event) {
        self.journal.push(event);
    }

    /// Lines written so far, and those that were dropped because the file was too slow.
    pub fn counts(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.journal.dropped())
    }

    /// Writes what there is and ends the file. Safe to call twice.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the file could not be written to its end.
    pub fn close(&self) -> Result<()> {
        self.journal.close();
        let writer = self.writer.lock().take();
        match writer.map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(source))) => {
                let message = format!("the trace could not be written: {source}");
                Err(Error::with_source(ErrorKind::Config, message, source))
            }
            Some(Err(_)) => Err(Error::new(ErrorKind::Internal, "the writer of a trace panicked")),
        }
    }
}

impl Drop for Recorder {
    /// The thread writes what there is by itself.
    fn drop(&mut self) {
        self.journal.close();
    }
}

fn write_all(
    journal: &Journal<Event>,
    mut file: BufWriter<File>,
    written: &AtomicU64,
) -> std::io::Result<()> {
    while let Some(burst) = journal.wait(Duration::from_hours(1)) {
        for event in &burst.records {
            write_line(&mut file, &Line::from(*event))?;
        }
        written.fetch_add(burst.records.len() as u64, Ordering::Relaxed);
        if burst.dropped > 0 {
            write_line(&mut file, &Line::Dropped { dropped: burst.dropped })?;
        }
        file.flush()?;
    }
    Ok(())
}

fn write_line(file: &mut impl Write, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

impl From<Event> for Line {
    fn from(event: Event) -> Self {
        let seconds = |moment: Moment| moment.since(Moment::default()).as_secs_f64();
        match event {
            Event::Arrival { at, rows, cost, timeout } => {
                let timeout = timeout.map(|timeout| timeout.as_secs_f64());
                Line::Arrival { at: seconds(at), rows, cost, timeout }
            }
            Event::Batch { taken, rows, cost, took } => {
                Line::Batch { taken: seconds(taken), batch: rows, cost, took: took.as_secs_f64() }
            }
        }
    }
}
