//! What is counted of a cache of models, read when the text is made: the cache counts for itself already.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Registry;

/// Upper bounds of load times in seconds: from a small array to minutes of weights.
pub const LOAD_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What is counted of a cache.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheCounts {
    /// Of each model, all versions of it together.
    pub models: Vec<ModelCounts>,
    /// Loads that wait for their turn or for space.
    pub queued: u64,
    /// Loads that run.
    pub loading: u64,
    /// Loads that go on although their time is up.
    pub stuck: u64,
    /// Loads that were tried again.
    pub retries: u64,
    /// How long loads took.
    pub load_seconds: LoadSeconds,
    /// How long loads waited for their turn, in seconds.
    pub queue_seconds: f64,
    /// Of all accesses, the share that found its model loaded.
    pub hit_rate: Option<f64>,
    /// The same, each access counted as many bytes as its model has.
    pub byte_hit_rate: Option<f64>,
    /// The same, each access counted as long as its model takes to load.
    pub cost_hit_rate: Option<f64>,
    /// Bytes by what they are.
    pub bytes: Vec<(&'static str, u64)>,
    /// Preloads by what became of them.
    pub preloads: Vec<(&'static str, u64)>,
    /// What predicts, if something does.
    pub prediction: Option<PredictionCounts>,
}

/// What is counted of one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelCounts {
    /// Its name.
    pub model: String,
    /// True where it can be used at once.
    pub ready: bool,
    /// Accesses that found it loaded.
    pub hits: u64,
    /// Accesses that began its load.
    pub misses: u64,
    /// Accesses that waited for a load that was under way.
    pub joins: u64,
    /// Loads by how they ended.
    pub loads: Vec<(&'static str, u64)>,
    /// What a load of it costs, in seconds, the last ones weighing most; `None` before the first.
    pub load_cost: Option<f64>,
    /// Evictions by why.
    pub evictions: Vec<(&'static str, u64)>,
}

/// How long loads took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadSeconds {
    /// All together.
    pub sum: f64,
    /// How many fell at or below each of [`LOAD_SECONDS`] and above the one before, and how many above all.
    pub buckets: [u64; LOAD_SECONDS.len() + 1],
}

impl LoadSeconds {
    /// Counts `count` loads of about `seconds` each.
    pub fn add(&mut self, seconds: f64, count: u64) {
        let place = LOAD_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(LOAD_SECONDS.len());
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket += count;
        }
    }

    fn cumulated(&self) -> (u64, Vec<(f64, u64)>) {
        let bounds = LOAD_SECONDS.into_iter().chain([f64::INFINITY]);
        (self.buckets.iter().sum(), bounds.zip(self.buckets).collect())
    }
}

/// What is counted of predictions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PredictionCounts {
    /// True where it preloads now.
    pub on: bool,
    /// Of the last predictions, the share that came, by which guess.
    pub accuracy: Vec<(&'static str, f64)>,
    /// Loads that began because of it, by what became of them.
    pub preloads: Vec<(&'static str, u64)>,
    /// Time of such loads in seconds, by what became of them.
    pub load_seconds: Vec<(&'static str, f64)>,
}

/// A value of a family, and its labels.
type Sample = (Vec<(&'static str, String)>, Value);

enum Value {
    Counter(u64),
    Seconds(f64),
    /// A gauge of something that is counted.
    Count(u64),
    /// A gauge of a share, or of a time.
    Share(f64),
    Histogram(LoadSeconds),
}

/// One family of metrics.
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    samples: Vec<Sample>,
}

impl Family {
    fn new(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        Self { name, help, unit: None, samples }
    }

    fn in_seconds(mut self) -> Self {
        self.unit = Some(Unit::Seconds);
        self
    }
}

impl CacheCounts {
    fn families(&self) -> Vec<Family> {
        let mut families = self.accesses();
        families.extend(self.of_models());
        families.extend(self.of_loads());
        families.extend(self.of_cache());
        if let Some(prediction) = &self.prediction {
            families.extend(prediction.families());
        }
        families
    }

    fn accesses(&self) -> Vec<Family> {
        let each = |value: fn(&ModelCounts) -> Value| {
            self.models.iter().map(|model| (of(model), value(model))).collect::<Vec<Sample>>()
        };
        vec![
            Family::new(
                "models_ready",
                "Whether a model can be used at once",
                each(|model| Value::Count(u64::from(model.ready))),
            ),
            Family::new(
                "models_hits",
                "Accesses that found their model loaded",
                each(|model| Value::Counter(model.hits)),
            ),
            Family::new(
                "models_misses",
                "Accesses that began the load of their model",
                each(|model| Value::Counter(model.misses)),
            ),
            Family::new(
                "models_joins",
                "Accesses that waited for a load that was under way",
                each(|model| Value::Counter(model.joins)),
            ),
        ]
    }

    fn of_models(&self) -> Vec<Family> {
        let by = |label: &'static str, counts: fn(&ModelCounts) -> &[(&'static str, u64)]| {
            let of_one = |model| {
                counts(model).iter().map(move |(kind, count)| {
                    let labels = [("model", model.model.clone()), (label, (*kind).to_owned())];
                    (labels.to_vec(), Value::Counter(*count))
                })
            };
            self.models.iter().flat_map(of_one).collect::<Vec<Sample>>()
        };
        let costs = self.models.iter().filter_map(|model| Some((of(model), Value::Share(model.load_cost?))));
        vec![
            Family::new("models_loads", "Loads by how they ended", by("outcome", |model| &model.loads)),
            Family::new(
                "models_load_cost",
                "What a load of the model takes, the last ones weighing most",
                costs.collect(),
            )
            .in_seconds(),
            Family::new("models_evictions", "Evictions by why", by("reason", |model| &model.evictions)),
            Family::new(
                "models_registered",
                "Models that the server knows",
                vec![alone(self.models.len() as u64)],
            ),
        ]
    }

    fn of_loads(&self) -> Vec<Family> {
        vec![
            Family::new(
                "models_load_queue_depth",
                "Loads that wait for their turn or for space",
                vec![alone(self.queued)],
            ),
            Family::new("models_loading", "Loads that run", vec![alone(self.loading)]),
            Family::new(
                "models_stuck",
                "Loads that go on although their time is up",
                vec![alone(self.stuck)],
            ),
            Family::new(
                "models_load_retries",
                "Loads that were tried again",
                vec![(Vec::new(), Value::Counter(self.retries))],
            ),
            Family::new(
                "models_load",
                "Time of loads that ended well, from their start",
                vec![(Vec::new(), Value::Histogram(self.load_seconds.clone()))],
            )
            .in_seconds(),
            Family::new(
                "models_load_queue",
                "Time that loads waited for their turn",
                vec![(Vec::new(), Value::Seconds(self.queue_seconds))],
            )
            .in_seconds(),
        ]
    }

    fn of_cache(&self) -> Vec<Family> {
        let bytes = |(kind, bytes): &(&'static str, u64)| (labelled("kind", kind), Value::Count(*bytes));
        let preloads =
            |(outcome, count): &(&'static str, u64)| (labelled("outcome", outcome), Value::Counter(*count));
        vec![
            Family::new("models_bytes", "Bytes by what they are", self.bytes.iter().map(bytes).collect()),
            Family::new(
                "models_preloads",
                "Preloads by what became of them",
                self.preloads.iter().map(preloads).collect(),
            ),
            Family::new(
                "models_hit_rate",
                "Of all accesses, the share that found its model loaded",
                share(self.hit_rate),
            ),
            Family::new(
                "models_byte_hit_rate",
                "The same, an access counted as many bytes as its model has",
                share(self.byte_hit_rate),
            ),
            Family::new(
                "models_cost_hit_rate",
                "The same, an access counted as long as its model takes to load",
                share(self.cost_hit_rate),
            ),
        ]
    }
}

impl PredictionCounts {
    fn families(&self) -> Vec<Family> {
        let accuracy = self.accuracy.iter();
        let accuracy = accuracy.map(|(guess, share)| (labelled("guess", guess), Value::Share(*share)));
        let preloads = self.preloads.iter();
        let preloads =
            preloads.map(|(outcome, count)| (labelled("outcome", outcome), Value::Counter(*count)));
        let seconds = self.load_seconds.iter();
        let seconds = seconds.map(|(outcome, time)| (labelled("outcome", outcome), Value::Seconds(*time)));
        vec![
            Family::new(
                "models_prediction_accuracy",
                "Of the last predictions, the share that came",
                accuracy.collect(),
            ),
            Family::new(
                "models_predicting",
                "Whether models are loaded because they are predicted",
                vec![alone(u64::from(self.on))],
            ),
            Family::new(
                "models_predicted_preloads",
                "Loads that began because they were predicted, by what became of them",
                preloads.collect(),
            ),
            Family::new(
                "models_predicted_load",
                "Time of such loads, by what became of them",
                seconds.collect(),
            )
            .in_seconds(),
        ]
    }
}

fn of(model: &ModelCounts) -> Vec<(&'static str, String)> {
    labelled("model", &model.model)
}

fn labelled(label: &'static str, value: &str) -> Vec<(&'static str, String)> {
    vec![(label, value.to_owned())]
}

fn alone(count: u64) -> Sample {
    (Vec::new(), Value::Count(count))
}

/// Nothing where nothing was counted yet: a share of nothing is no number.
fn share(rate: Option<f64>) -> Vec<Sample> {
    rate.map(|rate| (Vec::new(), Value::Share(rate))).into_iter().collect()
}

impl Value {
    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) | Self::Seconds(_) => MetricType::Counter,
            Self::Count(_) | Self::Share(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(count) => encoder.encode_counter::<NoLabelSet, _, f64>(count, None),
            Self::Seconds(seconds) => encoder.encode_counter::<NoLabelSet, _, f64>(seconds, None),
            Self::Count(count) => encoder.encode_gauge(count),
            Self::Share(share) => encoder.encode_gauge(share),
            Self::Histogram(seconds) => {
                let (count, buckets) = seconds.cumulated();
                encoder.encode_histogram::<NoLabelSet>(seconds.sum, count, &buckets, None)
            }
        }
    }
}

/// Asks a cache for its counts whenever the text is made.
struct CacheMetrics<F>(F);

impl<F> fmt::Debug for CacheMetrics<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("CacheMetrics")
    }
}

impl<F: Fn() -> CacheCounts + Send + Sync + 'static> Collector for CacheMetrics<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in (self.0)().families() {
            let Family { name, help, unit, samples } = family;
            let Some((_, first)) = samples.first() else { continue };
            // As it ends what others are described by.
            let help = format!("{help}.");
            let mut metric = encoder.encode_descriptor(name, &help, unit.as_ref(), first.kind())?;
            for (labels, value) in &samples {
                if labels.is_empty() {
                    value.encode(&mut metric)?;
                } else {
                    value.encode(&mut metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Registry {
    /// Has the text carry what `counts` says of a cache, from here on; it is asked whenever the text is made.
    pub fn count_models(&self, counts: impl Fn() -> CacheCounts + Send + Sync + 'static) {
        self.names().register_collector(Box::new(CacheMetrics(counts)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::merge;
    use super::*;

    fn counts() -> CacheCounts {
        let mut load_seconds = LoadSeconds { sum: 0.25, ..LoadSeconds::default() };
        load_seconds.add(0.2, 1);
        load_seconds.add(0.05, 1);
        let head = ModelCounts {
            model: "he\"ad".to_owned(),
            ready: true,
            hits: 7,
            misses: 2,
            joins: 3,
            loads: vec![("ok", 2), ("failed", 1)],
            load_cost: Some(0.125),
            evictions: vec![("space", 1)],
        };
        CacheCounts {
            models: vec![head],
            queued: 4,
            loading: 3,
            stuck: 1,
            retries: 6,
            load_seconds,
            queue_seconds: 1.5,
            hit_rate: Some(0.75),
            cost_hit_rate: Some(0.5),
            bytes: vec![("used", 1 << 40)],
            preloads: vec![("used", 5)],
            prediction: Some(PredictionCounts {
                on: true,
                accuracy: vec![("named", 0.8), ("popular_named", 0.25)],
                preloads: vec![("used", 9)],
                load_seconds: vec![("used", 1.5), ("wasted", 0.5)],
            }),
            ..CacheCounts::default()
        }
    }

    #[test]
    fn the_text_carries_what_the_cache_counted() {
        let registry = Registry::new();
        registry.count_models(counts);
        let text = registry.text();
        for line in [
            "# TYPE penstock_models_loads counter",
            "# UNIT penstock_models_load_seconds seconds",
            "penstock_models_ready{model=\"he\\\"ad\"} 1",
            "penstock_models_hits_total{model=\"he\\\"ad\"} 7",
            "penstock_models_misses_total{model=\"he\\\"ad\"} 2",
            "penstock_models_joins_total{model=\"he\\\"ad\"} 3",
            "penstock_models_loads_total{model=\"he\\\"ad\",outcome=\"failed\"} 1",
            "penstock_models_load_retries_total 6",
            "penstock_models_load_seconds_sum 0.25",
            "penstock_models_load_seconds_count 2",
            "penstock_models_load_seconds_bucket{le=\"0.1\"} 1",
            "penstock_models_load_seconds_bucket{le=\"0.25\"} 2",
            "penstock_models_load_seconds_bucket{le=\"+Inf\"} 2",
            "penstock_models_load_queue_seconds_total 1.5",
            "penstock_models_load_cost_seconds{model=\"he\\\"ad\"} 0.125",
            "penstock_models_evictions_total{model=\"he\\\"ad\",reason=\"space\"} 1",
            "penstock_models_load_queue_depth 4",
            "penstock_models_loading 3",
            "penstock_models_stuck 1",
            "penstock_models_hit_rate 0.75",
            "penstock_models_cost_hit_rate 0.5",
            "penstock_models_bytes{kind=\"used\"} 1099511627776",
            "penstock_models_preloads_total{outcome=\"used\"} 5",
            "penstock_models_prediction_accuracy{guess=\"named\"} 0.8",
            "penstock_models_prediction_accuracy{guess=\"popular_named\"} 0.25",
            "penstock_models_predicting 1",
            "penstock_models_predicted_preloads_total{outcome=\"used\"} 9",
            "penstock_models_predicted_load_seconds_total{outcome=\"wasted\"} 0.5",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("byte_hit_rate"), "a share of nothing is no number");
    }

    #[test]
    fn the_texts_of_several_processes_are_merged() {
        let registry = Registry::new();
        registry.count_models(counts);
        let texts = ["0", "1"].map(|worker| (worker.to_owned(), registry.text()));
        let merged = merge(&texts);
        assert!(merged.refused.is_empty(), "{:?}", merged.refused);
        for line in [
            "penstock_models_hits_total{worker=\"1\",model=\"he\\\"ad\"} 7",
            "penstock_models_loading{worker=\"0\"} 3",
            "penstock_models_load_seconds_bucket{worker=\"1\",le=\"+Inf\"} 2",
        ] {
            assert!(merged.text.contains(line), "{line} is not in\n{}", merged.text);
        }
    }
}
