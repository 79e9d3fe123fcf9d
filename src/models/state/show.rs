//! What the state says about itself.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::model::Model;
use super::{Stage, State};
use crate::flow::Moment;
use crate::models::memory::Account;
use crate::models::progress::Progress;
use crate::models::stats::{
    CacheBytes, CacheStats, Evictions, IndexRow, LastEviction, LoadSeconds, ModelStats,
};
use crate::models::{LoadState, ModelId, Reason};

impl State {
    fn registered(&self) -> impl Iterator<Item = (ModelId, &Model)> {
        (0..).map(ModelId).zip(&self.models).filter(|(_, model)| model.registered)
    }

    pub(in crate::models) fn index(&self, now: Moment) -> Vec<IndexRow> {
        self.registered().map(|(id, model)| self.row(id, model, now)).collect()
    }

    fn row(&self, id: ModelId, model: &Model, now: Moment) -> IndexRow {
        let spec = &model.spec;
        let own =
            |resident: &super::resident::Resident| if resident.model == id { resident.leases } else { 0 };
        let aliases = self.graph.aliases().filter(|(_, target)| *target == id);
        IndexRow {
            model: id,
            name: spec.name.clone(),
            version: spec.version.clone(),
            state: self.state_of(id, now),
            reason: self.reason(id, model, now),
            serving: model.current,
            bytes: self.bytes_of(id),
            leases: self.residents.iter().map(|(_, resident)| own(resident)).sum(),
            pinned: model.kept,
            default: self.graph.find(&spec.name).is_ok_and(|found| found == id),
            aliases: aliases.map(|(alias, _)| Arc::clone(alias)).collect(),
            requires: spec.requires.clone(),
        }
    }

    fn reason(&self, id: ModelId, model: &Model, now: Moment) -> Option<Arc<str>> {
        if let Some(complaint) = &model.complaint {
            return Some(Arc::clone(complaint));
        }
        let failure = self.failures.last(id).filter(|failure| now < failure.until || model.stuck.is_some());
        if let Some(failure) = failure {
            return Some(failure.error.message().into());
        }
        let (reason, ..) = model.tally.last_eviction?;
        (self.state_of(id, now) != LoadState::Ready).then(|| Arc::from(why(reason)))
    }

    pub(in crate::models) fn stats(&self, now: Moment) -> CacheStats {
        let models: Vec<_> = self.registered().map(|(id, model)| stats_of(id, model, now)).collect();
        let sum =
            |of: fn(&super::model::Tally) -> u64| self.models.iter().map(|model| of(&model.tally)).sum();
        let (hits, misses, joins) =
            (sum(|tally| tally.hits), sum(|tally| tally.misses), sum(|tally| tally.joins));
        let mut evictions = Evictions::default();
        self.models.iter().for_each(|model| evictions.add(&model.tally.evictions));
        let rates = self.rates();
        CacheStats {
            hits,
            misses,
            joins,
            hit_rate: rates.plain,
            byte_hit_rate: rates.by_bytes,
            cost_hit_rate: rates.by_cost,
            loads: sum(|tally| tally.loads),
            failures: sum(|tally| tally.failures),
            timeouts: sum(|tally| tally.timeouts),
            retries: self.counts.retries,
            cancelled: sum(|tally| tally.cancelled),
            load_seconds: self.load_seconds(),
            queue_seconds: self.counts.queue_seconds,
            queued: self.residents.iter().filter(|(_, resident)| resident.stage.waits()).count(),
            loading: self.loading,
            stuck: self.residents.iter().filter(|(_, resident)| resident.stuck).count(),
            evictions,
            bytes: self.bytes(),
            preloads: self.counts.preloads,
            predictions: self.wishes.report(),
            models,
        }
    }

    fn bytes(&self) -> CacheBytes {
        CacheBytes {
            used: self.memory.used(),
            ready: self.memory.on(Account::Ready),
            reserved: self.memory.on(Account::Reserved),
            draining: self.memory.on(Account::Draining),
            viewed: self.memory.on(Account::Viewed),
            memory: self.memory.limit(),
            deficit: self.memory.deficit(),
        }
    }

    fn load_seconds(&self) -> LoadSeconds {
        let times = &self.counts.load_times;
        let at = |quantile| Duration::from_micros(times.value_at_quantile(quantile)).as_secs_f64();
        if times.is_empty() {
            return LoadSeconds::default();
        }
        LoadSeconds { sum: self.counts.load_seconds, p50: at(0.5), p95: at(0.95) }
    }

    pub(in crate::models) fn load_times(&self) -> Histogram<u64> {
        self.counts.load_times.clone()
    }

    /// What acquires found, weighed in three ways.
    fn rates(&self) -> Rates {
        let (mut plain, mut by_bytes, mut cold) = (Share::default(), Share::default(), 0.0);
        for (at, model) in (0..).zip(&self.models) {
            let tally = &model.tally;
            let (hits, all) = (number(tally.hits), number(tally.hits + tally.misses + tally.joins));
            if all == 0.0 {
                continue;
            }
            plain.add(hits, all);
            let bytes = number(self.bytes_of(ModelId(at)));
            by_bytes.add(hits * bytes, all * bytes);
            let order = self.graph.closure(&[ModelId(at)]).unwrap_or_default();
            let beneath = order.iter().filter_map(|id| self.models.get(id.0 as usize));
            cold += all * beneath.map(|model| model.facts.load_seconds).sum::<f64>();
        }
        let by_cost = if cold > 0.0 { 1.0 - self.counts.paid_seconds / cold } else { 0.0 };
        Rates { plain: plain.share(), by_bytes: by_bytes.share(), by_cost }
    }

    pub(in crate::models) fn health(&self) -> (Vec<ModelId>, Vec<ModelId>, bool) {
        let waiting = self.registered().filter(|(_, model)| model.expected).map(|(id, _)| id).collect();
        let stuck = self.residents.iter().filter(|(_, resident)| resident.stuck);
        (waiting, stuck.map(|(_, resident)| resident.model).collect(), self.closing.is_some())
    }

    pub(in crate::models) fn progress(&mut self, id: ModelId, now: Moment) -> Progress {
        let state = self.state_of(id, now);
        let coming = self.coming(id).or_else(|| self.models.get(id.0 as usize)?.stuck);
        let waits = coming.filter(|coming| self.stage(*coming).is_some_and(Stage::waits));
        let position = waits.and_then(|residency| {
            self.sort_queue(now);
            self.queue.position(residency, now)
        });
        let nothing = Progress {
            model: id,
            state,
            phase: Arc::from(""),
            fraction: (state == LoadState::Ready).then_some(1.0),
            position,
            elapsed: Duration::ZERO,
            eta: (state == LoadState::Ready).then_some(Duration::ZERO),
        };
        let Some(resident) = coming.and_then(|residency| self.residents.get(residency)) else {
            return nothing;
        };
        let usual =
            self.models.get(id.0 as usize).map(|model| model.facts.load_seconds).filter(|usual| *usual > 0.0);
        let usual = usual.map(Duration::from_secs_f64);
        if !resident.stage.runs() {
            return Progress { eta: None, fraction: None, ..nothing };
        }
        Progress {
            phase: Arc::clone(resident.said.phase()),
            fraction: resident.said.fraction(),
            elapsed: now.since(resident.started),
            eta: resident.said.eta(resident.started, usual, now),
            ..nothing
        }
    }
}

fn stats_of(id: ModelId, model: &Model, now: Moment) -> ModelStats {
    let tally = &model.tally;
    ModelStats {
        model: id,
        name: model.spec.name.clone(),
        version: model.spec.version.clone(),
        hits: tally.hits,
        misses: tally.misses,
        joins: tally.joins,
        loads: tally.loads,
        failures: tally.failures,
        timeouts: tally.timeouts,
        cancelled: tally.cancelled,
        load_seconds: model.facts.load_seconds,
        evictions: tally.evictions,
        last_eviction: tally.last_eviction.map(|(reason, age, at)| LastEviction {
            reason,
            age,
            ago: now.since(at),
        }),
    }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Space => "evicted: another model needed its memory",
        Reason::Unload => "unloaded",
        Reason::Reload => "unloaded to be loaded anew",
        Reason::Replaced => "registered anew",
        Reason::TooLarge => "larger than the whole memory",
        Reason::Dead => "broken",
        Reason::Close => "the model cache is closed",
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates need no more than 52 bits")]
fn number(count: u64) -> f64 {
    count as f64
}

struct Rates {
    plain: f64,
    by_bytes: f64,
    by_cost: f64,
}

#[derive(Default)]
struct Share {
    part: f64,
    whole: f64,
}

impl Share {
    fn add(&mut self, part: f64, whole: f64) {
        self.part += part;
        self.whole += whole;
    }

    fn share(&self) -> f64 {
        if self.whole > 0.0 { self.part / self.whole } else { 0.0 }
    }
}
