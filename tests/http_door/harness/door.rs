//! The server's side of a test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use penstock::batch::{Batch, BatchPolicy, Ran, Turn};
use penstock::error::Result;
use penstock::metrics::Registry;
use penstock::pipeline::{AnswerRow, Endpoint, Finished, ModelSpec, Reply, Said, Task};
use penstock::serve::{
    AccessLog, AccessRecord, Door as Inside, HttpServer, HttpSettings, Security, SecuritySettings, Service,
    listen,
};
use penstock::tensor::{Column, ColumnSpec, DType, Spares, TensorSpec};

use super::{PATIENCE, until};

/// What a model does with a batch, of which it is given the numbers of each row.
pub(crate) type Model = fn(&[Vec<f32>], &Arc<Spares>) -> Vec<Result<AnswerRow>>;

/// What workers pass before each batch; a test closes it to have them busy.
#[derive(Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            assert!(!self.opened.wait_for(&mut closed, PATIENCE).timed_out(), "the gate stayed closed");
        }
    }
}

/// An access log.
#[derive(Debug, Default)]
pub(crate) struct Noted(pub(crate) Mutex<Vec<AccessRecord>>);

impl AccessLog for Noted {
    fn access(&self, record: AccessRecord) {
        self.0.lock().push(record);
    }
}

/// How a door is set up.
pub(crate) struct Setup {
    pub(crate) policy: BatchPolicy,
    pub(crate) http: HttpSettings,
    pub(crate) security: SecuritySettings,
    pub(crate) model: Model,
    pub(crate) ready: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: BatchPolicy::default(),
            http: HttpSettings::default(),
            security: SecuritySettings::default(),
            model: double,
            ready: true,
        }
    }
}

/// A server with one model, `double`, and its worker.
pub(crate) struct Door {
    pub(crate) server: HttpServer,
    pub(crate) service: Arc<Service>,
    pub(crate) inside: Arc<Inside>,
    pub(crate) security: Arc<Security>,
    /// What was noted of each request.
    pub(crate) noted: Arc<Noted>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) gate: Arc<Gate>,
    /// The first number of every row that reached the model, batch by batch.
    pub(crate) seen: Arc<Mutex<Vec<Vec<f32>>>>,
    /// Batches that a worker has taken.
    pub(crate) taken: Arc<AtomicUsize>,
    worker: Option<JoinHandle<()>>,
}

impl Door {
    pub(crate) fn open() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let runtime = penstock::runtime::handle().unwrap();
        let registry = Arc::new(Registry::new());
        let spec = ModelSpec {
            name: "double".to_owned(),
            version: "3".to_owned(),
            inputs: vec![TensorSpec::new("x", "float32", &[-1]).unwrap()],
            outputs: vec![TensorSpec::new("y", "float32", &[-1]).unwrap()],
            task: Task::Tensors,
        };
        let metrics = registry.model("double");
        let endpoint = Endpoint::open(spec, setup.policy, 1, metrics, &runtime).unwrap();
        endpoint.set_ready(setup.ready);
        let service = Service::new(vec![Arc::clone(&endpoint)], Arc::clone(&registry)).unwrap();
        let security = Security::open(setup.security, &registry).unwrap();
        let noted = Arc::new(Noted::default());
        let log = Arc::clone(&noted) as Arc<dyn AccessLog>;
        let inside =
            Inside::secured(Arc::clone(&service), setup.http, Arc::clone(&security), Some(log), &registry)
                .unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let server = HttpServer::open(listen(any).unwrap(), Arc::clone(&inside), true, &runtime).unwrap();
        let mut door = Self {
            server,
            service,
            inside,
            security,
            noted,
            endpoint,
            gate: Arc::default(),
            seen: Arc::default(),
            taken: Arc::default(),
            worker: None,
        };
        door.worker = Some(door.start(setup.model));
        door
    }

    /// A second way in, whose connections wait in the kernel until it accepts them.
    pub(crate) fn waiting(&self) -> HttpServer {
        let runtime = penstock::runtime::handle().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        HttpServer::open(listen(any).unwrap(), Arc::clone(&self.inside), false, &runtime).unwrap()
    }

    /// What was refused by that limit, as the metrics say it.
    pub(crate) fn refused(&self, limit: &str) -> usize {
        let name = format!("penstock_http_refusals_total{{limit=\"{limit}\"}} ");
        let text = self.inside.metrics_text();
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().unwrap())
    }

    fn start(&self, model: Model) -> JoinHandle<()> {
        let (endpoint, gate) = (Arc::clone(&self.endpoint), Arc::clone(&self.gate));
        let (seen, taken) = (Arc::clone(&self.seen), Arc::clone(&self.taken));
        std::thread::spawn(move || {
            while endpoint.wait() == Turn::Work {
                let Some((batch, mut account)) = endpoint.take() else { continue };
                taken.fetch_add(1, Ordering::Relaxed);
                gate.pass();
                let inputs = inputs(&batch);
                seen.lock().push(inputs.iter().filter_map(|row| row.first().copied()).collect());
                let began = Instant::now();
                account.call();
                let rows = model(&inputs, endpoint.spares());
                let rows = rows.into_iter().map(|row| row.map(Said::Row)).collect();
                account.close(began.elapsed());
                endpoint.finish(Finished { entries: batch.entries, rows, account, ran: Ran::Unknown });
            }
        })
    }

    /// The value of a metric with these labels, or 0.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.inside.metrics_text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |count| count.parse().unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The first number of every row that reached the model.
    pub(crate) fn seen(&self) -> Vec<f32> {
        self.seen.lock().concat()
    }

    /// Waits until a worker holds a batch.
    pub(crate) fn wait_taken(&self, batches: usize) {
        until("the worker took its batch", || self.taken.load(Ordering::Relaxed) == batches);
    }

    /// Waits until that many rows wait for a batch.
    pub(crate) fn wait_queued(&self, rows: usize) {
        until("the rows were queued", || self.endpoint.stats().queued == rows);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.gate.open();
        self.endpoint.close(false);
        self.server.begin_close();
        if let Some(worker) = self.worker.take() {
            // A worker that panicked has failed its test already.
            let _ = worker.join();
        }
        self.inside.connection_count().wait_none(Duration::from_millis(100));
    }
}

/// The numbers of each row of a batch.
fn inputs(batch: &Batch<(), Reply>) -> Vec<Vec<f32>> {
    let Some(Column::Numbers { memory, row_bytes, .. }) = batch.rows.columns().first() else {
        panic!("{:?} holds no numbers", batch.rows);
    };
    if *row_bytes == 0 {
        return vec![Vec::new(); batch.entries.len()];
    }
    let numbers = |row: &[u8]| row.chunks_exact(4).map(number).collect();
    let rows: Vec<_> = memory.as_slice().chunks_exact(*row_bytes).map(numbers).collect();
    assert_eq!(rows.len(), batch.entries.len());
    rows
}

fn number(bytes: &[u8]) -> f32 {
    f32::from_ne_bytes(bytes.try_into().unwrap())
}

/// A model's answer: these rows, all of one length.
pub(crate) fn output(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    let length = rows.first().map_or(0, Vec::len);
    let spec = ColumnSpec::Numbers { dtype: DType::Float32, shape: [length].as_slice().into() };
    let mut column = Column::new(&spec, spares);
    if let Column::Numbers { memory, .. } = &mut column {
        rows.iter().flatten().for_each(|number| memory.extend(&number.to_ne_bytes()));
    }
    let columns = Arc::new(vec![column]);
    (0..rows.len()).map(|row| Ok(AnswerRow::new(Arc::clone(&columns), row))).collect()
}

/// The model that doubles its input.
pub(crate) fn double(rows: &[Vec<f32>], spares: &Arc<Spares>) -> Vec<Result<AnswerRow>> {
    let doubled: Vec<Vec<f32>> =
        rows.iter().map(|row| row.iter().map(|number| number * 2.0).collect()).collect();
    output(&doubled, spares)
}
