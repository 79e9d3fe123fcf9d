//! The stock bridge, `pyo3-async-runtimes` as it comes, beside Penstock's: one iteration is 1,000 tasks that each await
//! one answer.
//!
//! This program embeds Python and loads the installed `penstock`, the extension that users run, from the folder that
//! `PENSTOCK_SITE` names (a `site-packages`). The stock bridge answers from here with a future that is ready. The
//! tasks that await are in `benches/python/bridge_load.py`; it prints the ratio when Criterion is done.
#![allow(
    clippy::disallowed_methods,
    reason = "an embedding program takes the lock itself; the lint is about the library"
)]

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use pyo3::prelude::*;

/// Gives `value` back through the stock bridge.
#[pyfunction]
fn stock_answer(py: Python<'_>, value: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
    pyo3_async_runtimes::tokio::future_into_py(py, async move { Ok(value) })
}

/// The `Load` of `bridge_load.py`, from the source tree, over the `penstock` that is installed.
fn load(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    if let Ok(site) = std::env::var("PENSTOCK_SITE") {
        // Not `sys.path` alone: an editable install is found through a `.pth` file.
        py.import("site")?.call_method1("addsitedir", (site,))?;
    }
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/python");
    py.import("sys")?.getattr("path")?.call_method1("insert", (0, scripts))?;
    let stock = wrap_pyfunction!(stock_answer, py)?;
    py.import("bridge_load")?.call_method1("Load", (stock,))
}

/// The time of so many awaits. There is no going on after an exception, and Criterion takes no errors.
fn awaits(load: &Bound<'_, PyAny>, on: &str, bridge: &str, count: u64) -> Duration {
    let seconds = load.call_method1("seconds", (on, bridge, count)).and_then(|seconds| seconds.extract());
    match seconds {
        Ok(seconds) => Duration::from_secs_f64(seconds),
        Err(error) => {
            error.print(load.py());
            std::process::exit(1);
        }
    }
}

fn measure(criterion: &mut Criterion, load: &Bound<'_, PyAny>) -> PyResult<()> {
    let awaiters = load.getattr("awaiters")?.extract()?;
    for on in load.getattr("loops")?.extract::<Vec<String>>()? {
        let mut group = criterion.benchmark_group(format!("bridge/{on}"));
        group.throughput(Throughput::Elements(awaiters));
        group.sampling_mode(SamplingMode::Flat);
        for bridge in ["stock", "penstock"] {
            group.bench_function(bridge, |bencher| {
                bencher.iter_custom(|calls| awaits(load, &on, bridge, calls));
            });
        }
        group.finish();
    }
    Ok(())
}

fn main() -> PyResult<()> {
    Python::initialize();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .sample_size(20)
        .configure_from_args();
    Python::attach(|py| {
        let load = load(py)?;
        measure(&mut criterion, &load)?;
        criterion.final_summary();
        if !std::env::args().any(|argument| argument == "--test" || argument == "--list") {
            load.call_method0("compare")?;
        }
        load.call_method0("close")?;
        Ok(())
    })
}
