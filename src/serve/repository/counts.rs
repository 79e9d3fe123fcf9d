//! The numbers of a cache as the metrics have them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::metrics::{CacheCounts, LoadSeconds, ModelCounts, PredictionCounts};
use crate::models::predict::PredictReport;
use crate::models::{Cache, CacheStats, LoadState, ModelStats, Reason};

/// What there is to say of a cache now.
pub(super) fn of(cache: &Cache) -> CacheCounts {
    let stats = cache.stats();
    let asked = stats.hits + stats.misses + stats.joins > 0;
    let rate = |rate: f64| asked.then_some(rate);
    CacheCounts {
        models: models(cache, &stats),
        queued: stats.queued as u64,
        loading: stats.loading as u64,
        stuck: stats.stuck as u64,
        retries: stats.retries,
        load_seconds: load_seconds(cache, &stats),
        queue_seconds: stats.queue_seconds,
        hit_rate: rate(stats.hit_rate),
        byte_hit_rate: rate(stats.byte_hit_rate),
        cost_hit_rate: rate(stats.cost_hit_rate),
        bytes: bytes(&stats),
        preloads: vec![
            ("issued", stats.preloads.issued),
            ("used", stats.preloads.used),
            ("wasted", stats.preloads.wasted),
            ("joined", stats.preloads.joined),
        ],
        prediction: stats.predictions.as_ref().map(prediction),
    }
}

fn prediction(report: &PredictReport) -> PredictionCounts {
    let accuracy = &report.accuracy;
    PredictionCounts {
        on: report.on,
        accuracy: vec![
            ("first", accuracy.first),
            ("named", accuracy.named),
            ("popular_first", accuracy.popular_first),
            ("popular_named", accuracy.popular_named),
        ],
        preloads: vec![("issued", report.issued), ("used", report.used), ("wasted", report.wasted)],
        load_seconds: vec![("used", report.saved_load_seconds), ("wasted", report.wasted_load_seconds)],
    }
}

fn bytes(stats: &CacheStats) -> Vec<(&'static str, u64)> {
    let bytes = &stats.bytes;
    let mut kinds = vec![
        ("used", bytes.used),
        ("ready", bytes.ready),
        ("reserved", bytes.reserved),
        ("draining", bytes.draining),
        ("viewed", bytes.viewed),
        ("deficit", bytes.deficit),
    ];
    kinds.extend(bytes.memory.map(|memory| ("memory", memory)));
    kinds
}

fn load_seconds(cache: &Cache, stats: &CacheStats) -> LoadSeconds {
    let mut seconds = LoadSeconds { sum: stats.load_seconds.sum, ..LoadSeconds::default() };
    for recorded in cache.load_times().iter_recorded() {
        let time = Duration::from_micros(recorded.value_iterated_to());
        seconds.add(time.as_secs_f64(), recorded.count_at_value());
    }
    seconds
}

/// All versions of a model count together.
fn models(cache: &Cache, stats: &CacheStats) -> Vec<ModelCounts> {
    let mut by_name = BTreeMap::<&str, ModelCounts>::new();
    for model in &stats.models {
        let counts = by_name.entry(&*model.name).or_default();
        model.name.as_ref().clone_into(&mut counts.model);
        add(counts, model);
    }
    for row in cache.index() {
        if let Some(counts) = by_name.get_mut(&*row.name) {
            counts.ready |= row.state == LoadState::Ready;
        }
    }
    by_name.into_values().collect()
}

fn add(counts: &mut ModelCounts, model: &ModelStats) {
    counts.hits += model.hits;
    counts.misses += model.misses;
    counts.joins += model.joins;
    // A time-out is one of the failures, too.
    let failed = model.failures.saturating_sub(model.timeouts);
    let loads = [
        ("ok", model.loads),
        ("failed", failed),
        ("timeout", model.timeouts),
        ("cancelled", model.cancelled),
    ];
    merge(&mut counts.loads, loads);
    merge(&mut counts.evictions, Reason::ALL.map(|reason| (reason.name(), model.evictions.of(reason))));
    if model.loads > 0 {
        let known = counts.load_cost.unwrap_or_default();
        counts.load_cost = Some(known.max(model.load_seconds));
    }
}

fn merge<const N: usize>(counts: &mut Vec<(&'static str, u64)>, more: [(&'static str, u64); N]) {
    for (kind, count) in more {
        match counts.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, all)) => *all += count,
            None => counts.push((kind, count)),
        }
    }
}
