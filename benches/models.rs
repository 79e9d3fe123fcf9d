//! The cache of models without Python: what a hit costs, alone, while three loads run and beside other threads, and what a
//! thousand requests for a cold model do.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use parking_lot::Mutex;
use penstock::error::Result;
use penstock::flow::TimeSource;
use penstock::models::{
    Asked, Cache, CacheSettings, Claim, Load, LoadSpec, Loader, ModelId, PolicyKind, Ranking, Residency,
};

const MODELS: usize = 100;
const WAITERS: u32 = 1_000;
const THREADS: usize = 4;

/// Notes the loads that it is to begin.
#[derive(Default)]
struct Site {
    loads: Mutex<Vec<Residency>>,
    unloads: Mutex<Vec<Residency>>,
}

impl Loader for Site {
    fn load(&self, load: Load) {
        self.loads.lock().push(load.residency);
    }

    fn cancel(&self, _residency: Residency) {}

    fn unload(&self, residency: Residency) {
        self.unloads.lock().push(residency);
    }

    fn rank(&self, _question: Ranking) {}
}

struct Bench {
    cache: Cache,
    site: Arc<Site>,
    models: Vec<ModelId>,
}

fn open(policy: PolicyKind) -> Result<Bench> {
    let site = Arc::new(Site::default());
    let settings = CacheSettings { memory: Some(1 << 40), policy, ..CacheSettings::default() };
    let cache = Cache::new(settings, Arc::clone(&site) as Arc<dyn Loader>, TimeSource::system())?;
    let model = |at: usize| LoadSpec { size: Some(1 << 30), ..LoadSpec::new(format!("model-{at}"), "1") };
    let models = (0..MODELS).map(|at| cache.register(model(at))).collect::<Result<_>>()?;
    Ok(Bench { cache, site, models })
}

impl Bench {
    fn ask(&self, model: ModelId) -> Claim {
        self.cache.acquire(model, &Asked::default(), Box::new(|told| drop(black_box(told))))
    }

    fn load(&self, models: &[ModelId]) {
        for model in models {
            let waiting = self.ask(*model);
            self.finish();
            assert!(waiting.residency().is_some(), "a model was not loaded");
        }
    }

    fn finish(&self) {
        let loads = std::mem::take(&mut *self.site.loads.lock());
        for residency in loads {
            self.cache.loaded(residency, Some(1 << 30));
        }
    }

    fn hit(&self, model: ModelId) {
        black_box(self.cache.try_acquire(black_box(model), &Asked::default()));
    }
}

/// Acquire and give back, by policy: one lease at a time, of fifty models in turn.
fn hits(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("models/hit");
    group.throughput(Throughput::Elements(1));
    for policy in [PolicyKind::Lru, PolicyKind::Gdsf] {
        let bench = open(policy)?;
        let (warm, cold) = bench.models.split_at(MODELS / 2);
        bench.load(warm);
        let mut turn = warm.iter().cycle();
        let mut hit = || turn.next().into_iter().for_each(|model| bench.hit(*model));
        group.bench_function(BenchmarkId::new("alone", format!("{policy:?}")), |bencher| {
            bencher.iter(&mut hit);
        });
        let waiting: Vec<_> = cold.iter().map(|model| bench.ask(*model)).collect();
        let loading = bench.site.loads.lock().clone();
        assert_eq!(loading.len(), 3, "three loads run, the others wait");
        let stop = Arc::new(AtomicBool::new(false));
        let reporting = report(&bench.cache, loading, &stop);
        group.bench_function(BenchmarkId::new("while three load", format!("{policy:?}")), |bencher| {
            bencher.iter(&mut hit);
        });
        stop.store(true, Ordering::Release);
        assert!(reporting.join().is_ok(), "who reports stopped early");
        drop(waiting);
    }
    group.finish();
    Ok(())
}

/// A thread that says of each load how far it is, a hundred times a second.
fn report(cache: &Cache, loading: Vec<Residency>, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (cache, stop) = (cache.clone(), Arc::clone(stop));
    thread::spawn(move || {
        for step in (0..1_000_u16).cycle() {
            if stop.load(Ordering::Acquire) {
                return;
            }
            for residency in &loading {
                cache.report(*residency, "weights", Some(f32::from(step) / 1_000.0));
            }
            thread::sleep(Duration::from_millis(10));
        }
    })
}

/// The same by four threads at once: the time of one hit on one thread.
fn hits_by_threads(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("models/hit by four threads");
    group.throughput(Throughput::Elements(THREADS as u64));
    let bench = Arc::new(open(PolicyKind::Lru)?);
    bench.load(&bench.models);
    group.bench_function("own models", |bencher| {
        bencher.iter_custom(|rounds| in_threads(&bench, rounds));
    });
    group.finish();
    Ok(())
}

fn in_threads(bench: &Arc<Bench>, rounds: u64) -> Duration {
    let begin = Arc::new(Barrier::new(THREADS + 1));
    let each = |thread: usize| {
        let (bench, begin) = (Arc::clone(bench), Arc::clone(&begin));
        thread::spawn(move || {
            let own: Vec<_> = bench.models.iter().skip(thread).step_by(THREADS).copied().collect();
            let mut turn = own.iter().cycle();
            begin.wait();
            (0..rounds).for_each(|_| turn.next().into_iter().for_each(|model| bench.hit(*model)));
        })
    };
    let threads: Vec<_> = (0..THREADS).map(each).collect();
    begin.wait();
    let started = Instant::now();
    let joined = threads.into_iter().map(thread::JoinHandle::join).all(|joined| joined.is_ok());
    assert!(joined, "a thread stopped early");
    started.elapsed()
}

/// A thousand requests for one cold model, its load, their answers, their leases back, its unload.
fn cold(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("models/cold");
    group.throughput(Throughput::Elements(u64::from(WAITERS)));
    let bench = open(PolicyKind::Lru)?;
    let Some(model) = bench.models.first().copied() else { return Ok(()) };
    group.bench_function(BenchmarkId::new("acquires of one", WAITERS), |bencher| {
        bencher.iter(|| {
            let claims: Vec<_> = (0..WAITERS).map(|_| bench.ask(model)).collect();
            assert_eq!(bench.site.loads.lock().len(), 1, "one load");
            bench.finish();
            drop(claims);
            bench.cache.unload(model, false, None, Box::new(|told| drop(black_box(told))));
            let unloads = std::mem::take(&mut *bench.site.unloads.lock());
            for residency in unloads {
                bench.cache.unloaded(residency, 0);
            }
        });
    });
    group.finish();
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    hits(&mut criterion)?;
    hits_by_threads(&mut criterion)?;
    cold(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
