//! Graphs behind a queue: threads of Rust take its batches.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use penstock::batch::{BatchPolicy, Budget, Shift};
use penstock::error::{Error, ErrorKind};
use penstock::formats::onnx::{Interface, SessionSettings, Sessions};
use penstock::metrics::Registry;
use penstock::pipeline::{
    Answer, Compute, Computers, Endpoint, Fault, GraphComputer, ModelSpec, Portion, RequestTerms, Tally, Task,
};
use penstock::tensor::{Column, Padding, Rows, Specs, TensorSpec};
use tokio::runtime::Handle;

use crate::support::{as_floats, file, floats, longs, open, open_at};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Counted {
    batches: AtomicUsize,
    reruns: AtomicU64,
}

impl Tally for Counted {
    fn ran(&self, _busy: Duration, reruns: u64) {
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.reruns.fetch_add(reruns, Ordering::SeqCst);
    }

    fn restarted(&self) {}
}

struct Stage {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    counted: Arc<Counted>,
}

impl Stage {
    fn open(inputs: &[TensorSpec], outputs: &[TensorSpec], policy: BatchPolicy) -> Self {
        let spec = ModelSpec {
            name: "graph".to_owned(),
            version: "1".to_owned(),
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            task: Task::Tensors,
        };
        let metrics = Arc::new(Registry::new()).model("graph");
        let endpoint = Endpoint::open(spec, policy, 2, metrics, &Handle::current()).unwrap();
        Self { endpoint, shift: Arc::default(), counted: Arc::default() }
    }

    /// As many threads as there are computers; the model is ready.
    fn start(&self, computing: Vec<Box<dyn Compute>>, isolate: bool) -> Computers {
        let tally: Arc<dyn Tally> = Arc::clone(&self.counted) as _;
        let ends = (Arc::clone(&self.endpoint), Arc::clone(&self.shift));
        let computers = Computers::start(ends, computing, isolate, &tally).unwrap();
        self.endpoint.begin_shift(&self.shift);
        computers
    }

    fn ask(&self, columns: Vec<Column>, count: usize) -> impl Future<Output = Answer> + Send + use<'_> {
        let specs: Specs = columns.iter().map(Column::spec).collect();
        let rows = Rows::from_columns(columns.into_iter().collect());
        self.endpoint.infer(RequestTerms::default(), specs, rows, count)
    }

    async fn answer(&self, columns: Vec<Column>) -> Answer {
        tokio::time::timeout(PATIENCE, self.ask(columns, 1)).await.expect("no answer came")
    }
}

fn stage_of(sessions: &Sessions, policy: BatchPolicy) -> Stage {
    Stage::open(sessions.graph().inputs(), sessions.graph().outputs(), policy)
}

fn computing(sessions: Sessions, stage: &Stage) -> Vec<Box<dyn Compute>> {
    GraphComputer::new(Arc::new(sessions), &stage.endpoint.spec).unwrap().each()
}

/// Rows of the first output.
fn numbers(answer: &Answer) -> Vec<f32> {
    let rows = &answer.as_ref().unwrap().rows;
    let row = |row: &penstock::tensor::AnswerRow| {
        let all = as_floats(&row.columns[0]);
        let length = row.columns[0].spec().elements();
        all[row.row * length..(row.row + 1) * length].to_vec()
    };
    rows.iter().flat_map(row).collect()
}

#[tokio::test]
async fn batches_are_answered_by_threads_of_the_models_name() {
    let opened = open_at(&file("doubles"), &Interface::default(), &SessionSettings::default(), 2);
    let Some(sessions) = opened.map(Result::unwrap) else { return };
    let stage = stage_of(&sessions, BatchPolicy { max_size: 8, ..BatchPolicy::default() });
    let computers = stage.start(computing(sessions, &stage), true);
    assert!(stage.endpoint.is_ready());
    let asked: Vec<_> =
        (0_u8..40).map(|n| (n, stage.ask(vec![floats(&[3], &[f32::from(n); 3])], 1))).collect();
    for (n, asked) in asked {
        let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap();
        assert_eq!(numbers(&answer), [f32::from(n) * 2.0; 3]);
    }
    let many: Vec<f32> = (0_u8..60).map(f32::from).collect();
    let answer = stage.ask(vec![floats(&[3], &many)], 20).await;
    assert_eq!(numbers(&answer), many.iter().map(|number| number * 2.0).collect::<Vec<_>>());
    assert!(stage.counted.batches.load(Ordering::SeqCst) < 60, "requests shared batches");
    assert_eq!(stage.endpoint.locks.acquisitions(), 0);

    let names: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("penstock-graph")), "{names:?}");
    assert!(computers.end(PATIENCE));
    assert!(!stage.endpoint.is_ready());
    assert!(computers.end(Duration::ZERO), "twice is fine");
}

#[tokio::test]
async fn a_row_that_the_graph_refuses_fails_alone() {
    for isolate in [true, false] {
        let Some(sessions) = open("lookup", &Interface::default()) else { return };
        let stage = stage_of(&sessions, BatchPolicy { max_size: 16, ..BatchPolicy::default() });
        // Asked before anybody works, so that they are one batch.
        stage.endpoint.set_ready(true);
        let asked: Vec<_> =
            (0..16).map(|n| stage.ask(vec![longs(&[], &[if n == 11 { 9 } else { n % 4 }])], 1)).collect();
        let computers = stage.start(computing(sessions, &stage), isolate);
        for (n, asked) in asked.into_iter().enumerate() {
            let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap();
            if n == 11 || !isolate {
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::Item);
            } else {
                let first = f32::from(u8::try_from(n % 4 * 2).unwrap());
                assert_eq!(numbers(&answer), [first, first + 1.0]);
            }
        }
        let reruns = stage.counted.reruns.load(Ordering::SeqCst);
        assert_eq!(stage.counted.batches.load(Ordering::SeqCst), 1);
        assert!(if isolate { (4..=8).contains(&reruns) } else { reruns == 0 }, "{reruns}");
        assert!(computers.end(PATIENCE));
    }
}

#[tokio::test]
async fn the_models_inputs_must_be_the_graphs() {
    let Some(sessions) = open("pair", &Interface::default()).map(Arc::new) else { return };
    let spec = |name: &str, elements: &str, axes: &[i64]| TensorSpec::new(name, elements, axes).unwrap();
    let (a, b) = (spec("a", "float32", &[-1]), spec("b", "float32", &[-1]));
    let sum = spec("sum", "float32", &[-1]);
    for (inputs, outputs, words) in [
        (vec![a.clone()], vec![sum.clone()], "1 inputs, and its graph has 2"),
        (vec![a.clone(), spec("c", "float32", &[-1])], vec![sum.clone()], "input 'b'"),
        (vec![a.clone(), spec("b", "float64", &[-1])], vec![sum.clone()], "another type"),
        (vec![a.clone(), spec("b", "float32", &[5])], vec![sum.clone()], "other axes"),
        (vec![a.clone(), b.clone()], vec![spec("z", "float32", &[-1])], "output 'z'"),
    ] {
        let stage = Stage::open(&inputs, &outputs, BatchPolicy::default());
        let refused = GraphComputer::new(Arc::clone(&sessions), &stage.endpoint.spec).err().unwrap();
        assert!(refused.kind() == ErrorKind::Config && refused.message().contains(words), "{refused}");
    }
    // In another order, and fewer outputs.
    let stage = Stage::open(&[b, a], &[sum], BatchPolicy::default());
    let computer = GraphComputer::new(sessions, &stage.endpoint.spec).unwrap();
    let computers = stage.start(computer.each(), true);
    let answer = stage.answer(vec![floats(&[2], &[1.0, 2.0]), floats(&[2], &[0.5, 0.5])]).await;
    assert_eq!(numbers(&answer), [1.5, 2.5]);
    assert!(computers.end(PATIENCE));
}

#[tokio::test]
async fn rows_of_different_lengths_are_filled_up_and_their_answers_cut_back() {
    let Some(sessions) = open("pair", &Interface::default()) else { return };
    let padding = Padding { multiple: 4, value_bits: 0.0_f64.to_bits(), columns: 0b11 };
    let budget = Some(Budget { padding: Some(padding), ..Budget::default() });
    let stage = stage_of(&sessions, BatchPolicy { max_size: 8, budget, ..BatchPolicy::default() });
    stage.endpoint.set_ready(true);
    let row =
        |length: usize| vec![floats(&[length], &vec![1.0; length]), floats(&[length], &vec![2.0; length])];
    let asked: Vec<_> = [3, 1, 5, 2].map(|length| (length, stage.ask(row(length), 1))).into();
    let computers = stage.start(computing(sessions, &stage), true);
    for (length, asked) in asked {
        let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap();
        assert_eq!(numbers(&answer), vec![3.0; length]);
        assert_eq!(answer.unwrap().batch.rows, 4, "they were one batch");
    }
    assert!(computers.end(PATIENCE));
}

/// Does what a test says, row by row.
struct Scripted<F>(F);

impl<F: FnMut(&Portion<'_>) -> Result<Vec<Column>, Fault> + Send> Compute for Scripted<F> {
    fn run(&mut self, portion: &Portion<'_>) -> Result<Vec<Column>, Fault> {
        (self.0)(portion)
    }
}

fn single(
    stage: &Stage,
    isolate: bool,
    run: impl FnMut(&Portion<'_>) -> Result<Vec<Column>, Fault> + Send + 'static,
) -> Computers {
    stage.start(vec![Box::new(Scripted(run))], isolate)
}

fn plain(max_size: usize) -> Stage {
    let spec = |name| vec![TensorSpec::new(name, "float32", &[]).unwrap()];
    Stage::open(&spec("x"), &spec("y"), BatchPolicy { max_size, ..BatchPolicy::default() })
}

fn copied(portion: &Portion<'_>) -> Vec<Column> {
    vec![floats(&[], &as_floats(&portion.rows.columns()[0])[portion.range.clone()])]
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_thread_goes_on() {
    let stage = plain(4);
    let computers = single(&stage, true, |portion| {
        assert!(as_floats(&portion.rows.columns()[0])[0] >= 0.0, "negative");
        Ok(copied(portion))
    });
    let error = stage.answer(vec![floats(&[], &[-1.0])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("negative"), "{error}");
    assert_eq!(numbers(&stage.answer(vec![floats(&[], &[5.0])]).await), [5.0]);
    assert!(computers.end(PATIENCE));
}

#[tokio::test]
async fn answers_that_are_missing_are_the_models_fault() {
    let stage = plain(4);
    let mut runs = 0;
    let computers = single(&stage, true, move |portion| {
        runs += 1;
        Ok(match runs {
            1 => Vec::new(),
            2 => vec![floats(&[], &[])],
            _ => copied(portion),
        })
    });
    for _ in 0..2 {
        assert_eq!(stage.answer(vec![floats(&[], &[1.0])]).await.unwrap_err().kind(), ErrorKind::Output);
    }
    assert_eq!(numbers(&stage.answer(vec![floats(&[], &[1.0])]).await), [1.0]);
    assert!(computers.end(PATIENCE));
}

#[tokio::test]
async fn a_batch_that_memory_does_not_suffice_for_is_run_in_halves() {
    let stage = plain(8);
    stage.endpoint.set_ready(true);
    let asked: Vec<_> = (0_u8..8).map(|n| (n, stage.ask(vec![floats(&[], &[f32::from(n)])], 1))).collect();
    let computers = single(&stage, true, |portion| {
        if portion.range.len() > 3 {
            let error = Error::new(ErrorKind::Model, "no memory");
            return Err(Fault { out_of_memory: true, ..Fault::from(error) });
        }
        Ok(copied(portion))
    });
    for (n, asked) in asked {
        assert_eq!(numbers(&tokio::time::timeout(PATIENCE, asked).await.unwrap()), [f32::from(n)]);
    }
    // A batch is learned from after its answers are out.
    assert!(computers.end(PATIENCE));
    assert_eq!(stage.endpoint.stats().out_of_memory, 1);
}

#[tokio::test]
async fn an_end_waits_for_what_runs_and_leaves_what_does_not_end() {
    let stage = plain(1);
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = parking_lot::Mutex::new(gate);
    let computers = single(&stage, true, move |portion| {
        let _ = gate.lock().recv();
        Ok(copied(portion))
    });
    let first = stage.ask(vec![floats(&[], &[1.0])], 1);
    let second = stage.ask(vec![floats(&[], &[2.0])], 1);
    let began = async {
        while stage.endpoint.stats().queued > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, began).await.expect("nothing was taken");
    assert!(!computers.end(Duration::from_millis(20)), "it runs");
    go.send(()).unwrap();
    assert_eq!(numbers(&tokio::time::timeout(PATIENCE, first).await.unwrap()), [1.0]);
    drop(go);
    let next = Arc::<Shift>::default();
    let stage = Stage { shift: next, ..stage_with(&stage) };
    let computers = single(&stage, true, |portion| Ok(copied(portion)));
    assert_eq!(
        numbers(&tokio::time::timeout(PATIENCE, second).await.unwrap()),
        [2.0],
        "what waited goes on waiting"
    );
    assert!(computers.end(PATIENCE));
}

fn stage_with(stage: &Stage) -> Stage {
    Stage {
        endpoint: Arc::clone(&stage.endpoint),
        shift: Arc::clone(&stage.shift),
        counted: Arc::clone(&stage.counted),
    }
}
