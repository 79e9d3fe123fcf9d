//! What the operating system says of this process, under the names that every exporter gives it, and the pauses of
//! Python's garbage collector.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use super::Registry;

/// What the process uses; what the operating system does not say is not there.
#[derive(Debug, Clone, Default, PartialEq)]
struct Usage {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    open_files: Option<u64>,
    most_files: Option<u64>,
    started: Option<f64>,
}

/// Asks the operating system whenever the text is made.
#[derive(Debug)]
pub(super) struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = Usage::now();
        if let Some(seconds) = usage.cpu_seconds {
            let help = "Time of processors that this process had, in its own code and in the kernel.";
            let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        if let Some(started) = usage.started {
            let help = "When this process began, in seconds since 1970.";
            let metric =
                encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?;
            ConstGauge::new(started).encode(metric)?;
        }
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory that this process has in use.", usage.resident_bytes),
            ("process_virtual_memory_bytes", "Addresses that this process has mapped.", usage.virtual_bytes),
            ("process_threads", "Threads of this process.", usage.threads),
            ("process_open_fds", "Files and sockets that this process has open.", usage.open_files),
            ("process_max_fds", "Files and sockets that this process may have open.", usage.most_files),
        ] {
            if let Some(value) = value {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(metric)?;
            }
        }
        Ok(())
    }
}

impl Usage {
    #[cfg(unix)]
    fn now() -> Self {
        use rustix::process::{Resource, getrlimit};
        use rustix::time::{ClockId, clock_gettime};

        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Self {
            cpu_seconds: Some(Duration::new(seconds, nanos).as_secs_f64()),
            most_files: getrlimit(Resource::Nofile).current,
            ..Self::of_proc().unwrap_or_default()
        }
    }

    #[cfg(not(unix))]
    fn now() -> Self {
        Self::default()
    }

    /// What Linux says in files.
    #[cfg(target_os = "linux")]
    fn of_proc() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program stands in brackets and may hold anything.
        let fields: Vec<u64> = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let files = std::fs::read_dir("/proc/self/fd").map(|files| files.count() as u64).ok();
        Some(Self {
            threads: fields.get(16).copied(),
            started: fields.get(18).and_then(|ticks| started(*ticks)),
            virtual_bytes: fields.get(19).copied(),
            resident_bytes: fields.get(20).map(|pages| pages * rustix::param::page_size() as u64),
            // Looking is one more.
            open_files: files.map(|count| count.saturating_sub(1)),
            ..Self::default()
        })
    }

    #[cfg(all(unix, not(target_os = "linux")))]
    fn of_proc() -> Option<Self> {
        None
    }
}

/// When a process began that did so many ticks after the machine.
#[cfg(target_os = "linux")]
#[allow(clippy::cast_precision_loss, reason = "a machine does not run for 2^52 ticks")]
fn started(ticks: u64) -> Option<f64> {
    static BOOT: LazyLock<Option<f64>> = LazyLock::new(|| {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    });
    Some((*BOOT)? + ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// A count that is kept elsewhere, and asked for whenever the text is made.
struct Elsewhere<F> {
    name: &'static str,
    help: &'static str,
    count: F,
}

impl<F> fmt::Debug for Elsewhere<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

impl<F: Fn() -> u64 + Send + Sync + 'static> Collector for Elsewhere<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metric = encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        ConstCounter::new((self.count)()).encode(metric)
    }
}

impl Registry {
    /// Has the text carry a count that is kept elsewhere.
    pub fn count_elsewhere(
        &self,
        name: &'static str,
        help: &'static str,
        count: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.names().register_collector(Box::new(Elsewhere { name, help, count }));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByGeneration {
    generation: u32,
}

pub(super) type Pauses = Family<ByGeneration, Histogram, fn() -> Histogram>;

/// Upper bounds in seconds: from a look at the youngest objects to a second.
const PAUSES: [f64; 10] = [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// One for the process, as there is one interpreter.
static COLLECTOR: LazyLock<Pauses> =
    LazyLock::new(|| Family::new_with_constructor(|| Histogram::new(PAUSES)));

/// The pauses of the garbage collector, for a registry.
pub(super) fn pauses() -> Pauses {
    COLLECTOR.clone()
}

/// Counts a run of Python's garbage collector, which held the interpreter up for that long.
pub fn count_collection(generation: u32, pause: Duration) {
    COLLECTOR.get_or_create(&ByGeneration { generation }).observe(pause.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_carries_what_the_process_uses() {
        count_collection(2, Duration::from_millis(3));
        let registry = Registry::new();
        registry.count_elsewhere("log_dropped", "What was dropped.", || 7);
        let text = registry.text();
        assert!(text.contains("\npenstock_log_dropped_total 7\n"), "{text}");
        assert!(text.contains("penstock_gc_pause_seconds_bucket{le=\"0.005\",generation=\"2\"}"), "{text}");
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
        assert!(
            text.contains(&format!("penstock_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")))
        );
        if cfg!(target_os = "linux") {
            for name in [
                "process_cpu_seconds_total",
                "process_start_time_seconds",
                "process_resident_memory_bytes",
                "process_virtual_memory_bytes",
                "process_threads",
                "process_open_fds",
                "process_max_fds",
            ] {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                assert!(line.is_some_and(|value| value.parse::<f64>().unwrap() > 0.0), "{name} in\n{text}");
            }
            let usage = Usage::now();
            let now =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
            let age = now - usage.started.unwrap();
            assert!((-2.0..86_400.0).contains(&age), "{usage:?}");
        }
    }
}
