//! Real threads: a hundred workers, loaders that take their time on threads of their own, and memory for some.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use penstock::error::{Error, ErrorKind, Result};
use penstock::flow::{Priority, TimeSource};
use penstock::models::{
    Asked, Cache, CacheSettings, Cause, Claim, Load, LoadSpec, Loader, ModelId, Ranking, Residency,
};

/// Long enough for the slowest machine.
const LONG: Duration = Duration::from_mins(2);

enum Job {
    Load(Load),
    Unload(Residency),
}

/// A loader whose threads really load and unload, and count who uses what.
struct Site {
    jobs: mpsc::Sender<Job>,
    uses: Mutex<HashMap<Residency, Arc<AtomicUsize>>>,
    loads: AtomicUsize,
    unloads: AtomicUsize,
}

impl Loader for Site {
    fn load(&self, load: Load) {
        let _ = self.jobs.send(Job::Load(load));
    }

    fn cancel(&self, _residency: Residency) {}

    fn unload(&self, residency: Residency) {
        let _ = self.jobs.send(Job::Unload(residency));
    }

    fn rank(&self, _question: Ranking) {}
}

impl Site {
    fn uses(&self, residency: Residency) -> Arc<AtomicUsize> {
        Arc::clone(self.uses.lock().entry(residency).or_default())
    }
}

/// A cache with `threads` that load, each load failing once in `broken`; 0 for never.
fn open(settings: CacheSettings, threads: usize, broken: usize) -> (Cache, Arc<Site>) {
    let (jobs, taken) = mpsc::channel();
    let site = Arc::new(Site {
        jobs,
        uses: Mutex::default(),
        loads: AtomicUsize::new(0),
        unloads: AtomicUsize::new(0),
    });
    let cache = Cache::new(settings, Arc::clone(&site) as Arc<dyn Loader>, TimeSource::system()).unwrap();
    let taken = Arc::new(Mutex::new(taken));
    for seed in 0..threads {
        let (cache, site, taken) = (cache.clone(), Arc::clone(&site), Arc::clone(&taken));
        let mut random = fastrand::Rng::with_seed(seed as u64);
        // They end with the process: the cache that they hold keeps the queue open.
        thread::spawn(move || {
            loop {
                let Ok(job) = taken.lock().recv() else { return };
                thread::sleep(Duration::from_micros(random.u64(0..300)));
                match job {
                    Job::Load(load) => {
                        cache.report(load.residency, "weights", Some(0.5));
                        let number = site.loads.fetch_add(1, Ordering::Relaxed) + 1;
                        if broken > 0 && number % broken == 0 {
                            cache.failed(load.residency, Error::new(ErrorKind::Model, "boom"), true);
                        } else {
                            cache.loaded(load.residency, Some(10));
                        }
                    }
                    Job::Unload(residency) => {
                        assert_eq!(site.uses(residency).load(Ordering::SeqCst), 0, "{residency:?} is in use");
                        site.unloads.fetch_add(1, Ordering::Relaxed);
                        cache.unloaded(residency, 0);
                    }
                }
            }
        });
    }
    (cache, site)
}

#[derive(Default)]
struct Answer {
    result: Mutex<Option<Result<Residency>>>,
    came: Condvar,
}

/// Waits for a model as a thread does.
fn acquire(cache: &Cache, model: ModelId, asked: &Asked<'_>) -> Result<(Claim, Residency)> {
    let answer = Arc::new(Answer::default());
    let tell = Arc::clone(&answer);
    let told = move |result| {
        *tell.result.lock() = Some(result);
        tell.came.notify_all();
    };
    let claim = cache.acquire(model, asked, Box::new(told));
    if claim.at_once() {
        let residency = claim.residency().unwrap();
        return Ok((claim, residency));
    }
    let mut result = answer.result.lock();
    let end = Instant::now() + LONG;
    while result.is_none() {
        assert!(!answer.came.wait_until(&mut result, end).timed_out(), "model {model:?} never comes");
    }
    result.take().unwrap().map(|residency| (claim, residency))
}

fn register(cache: &Cache, count: usize) -> Vec<ModelId> {
    let name = |at: usize| format!("m{at}");
    let register = |at: usize| {
        // Every fourth needs the one before it.
        let requires = if at % 4 == 3 { vec![name(at - 1).into()] } else { Vec::new() };
        cache
            .register(LoadSpec {
                requires,
                size: Some(10),
                retries: 3,
                backoff: Duration::from_millis(1),
                ..LoadSpec::new(name(at), "1")
            })
            .unwrap()
    };
    (0..count).map(register).collect()
}

fn close(cache: &Cache) {
    let (tell, told) = mpsc::channel();
    cache.close(Box::new(move || _ = tell.send(())));
    told.recv_timeout(LONG).expect("the cache never closes");
    assert_eq!(cache.stats().bytes.used, 0);
}

/// The heartbeat that retries and time-outs need.
fn ticking(cache: &Cache) -> impl Drop {
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (cache, stopped) = (cache.clone(), Arc::clone(&stop));
    thread::spawn(move || {
        while !stopped.load(Ordering::Acquire) {
            cache.tick();
            thread::sleep(Duration::from_millis(1));
        }
    });
    Stop(stop)
}

/// Two hundred uses, with everything else that a cache is asked to do between them.
fn work(cache: &Cache, site: &Site, models: &[ModelId], mut random: fastrand::Rng) {
    for round in 0..200 {
        // Some are asked for much more often than others.
        let most = random.usize(0..models.len());
        let model = models[random.usize(0..=most)];
        let priority = Priority::ALL[random.usize(0..3)];
        match round % 20 {
            7 => drop(cache.acquire(model, &Asked::default(), Box::new(|_| ()))),
            11 => drop(cache.preload(&[model], Cause::Preload, priority)),
            13 if random.u8(..) < 16 => drop(cache.reload(model)),
            17 if random.u8(..) < 16 => cache.unload(model, true, None, Box::new(|_| ())),
            _ => {}
        }
        match acquire(cache, model, &Asked { priority, ..Asked::default() }) {
            Ok((claim, residency)) => {
                let uses = site.uses(residency);
                uses.fetch_add(1, Ordering::SeqCst);
                if random.u8(..) < 8 {
                    thread::sleep(Duration::from_micros(random.u64(0..200)));
                }
                uses.fetch_sub(1, Ordering::SeqCst);
                drop(claim);
            }
            // Four attempts in a row may fail, and what waits may be unloaded.
            Err(error) => {
                let expected = [ErrorKind::LoadFailed, ErrorKind::ModelNotReady];
                assert!(expected.contains(&error.kind()), "{error:?}");
            }
        }
    }
}

#[test]
fn a_hundred_workers_use_twenty_models_in_memory_for_eight() {
    let settings =
        CacheSettings { memory: Some(80), failure_memory: Duration::ZERO, ..CacheSettings::default() };
    let (cache, site) = open(settings, 4, 50);
    let models = Arc::new(register(&cache, 20));
    let ticks = ticking(&cache);
    let workers: Vec<_> = (0..100_u64)
        .map(|seed| {
            let (cache, site, models) = (cache.clone(), Arc::clone(&site), Arc::clone(&models));
            thread::spawn(move || work(&cache, &site, &models, fastrand::Rng::with_seed(seed)))
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let stats = cache.stats();
    assert_eq!((stats.queued, stats.stuck), (0, 0), "{stats:?}");
    assert!(stats.evictions.total() > 0 && stats.hits > 0);
    close(&cache);
    drop(ticks);
    let (loads, unloads) = (cache.stats().loads, site.unloads.load(Ordering::Relaxed) as u64);
    assert_eq!(loads, unloads, "what was loaded was unloaded");
}

#[test]
fn a_thousand_acquires_on_a_hundred_threads_are_one_load() {
    let ready = Arc::new(Barrier::new(100));
    let (cache, site) = open(CacheSettings::default(), 2, 0);
    let model = cache.register(LoadSpec::new("model", "1")).unwrap();
    let workers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, ready) = (cache.clone(), Arc::clone(&ready));
            thread::spawn(move || {
                ready.wait();
                let claims: Vec<_> =
                    (0..10).map(|_| acquire(&cache, model, &Asked::default()).unwrap()).collect();
                claims.iter().map(|(_, residency)| *residency).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut leased: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    leased.dedup();
    assert_eq!((leased.len(), site.loads.load(Ordering::Relaxed)), (1, 1));
    let stats = cache.stats();
    assert_eq!((stats.hits + stats.joins + stats.misses, stats.misses), (1000, 1));
    close(&cache);
}
