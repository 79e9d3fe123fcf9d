//! What caches make of a week of requests shaped like those of people and timers, in time that is only counted: the table
//! of the guide.
//!
//! `cargo run --release --no-default-features --example model_trace [seeds]`: by how many seeds, 8 unless told otherwise.

use std::time::Duration;

use penstock::error::Result;
use penstock::models::predict::{PredictReport, PredictSettings};
use penstock::models::simulate::{Bound, Outcome, Predictable, Setup, Shape, Trace, bound, drive};
use penstock::models::{CacheSettings, PolicyKind};

/// Shares of the catalogue's bytes that the memory holds.
const SHARES: [f64; 3] = [0.05, 0.1, 0.2];
/// What Ollama and Elasticsearch keep a model for.
const TTL: Duration = Duration::from_mins(5);

/// What a row of the table measures.
#[derive(Clone, Copy)]
enum Row {
    Policy(PolicyKind),
    Predicted(PolicyKind),
    Ttl,
    Belady,
    Bound(Bound),
}

const ROWS: [(&str, Row); 8] = [
    ("ttl 5 min", Row::Ttl),
    ("lru", Row::Policy(PolicyKind::Lru)),
    ("gdsf", Row::Policy(PolicyKind::Gdsf)),
    ("lru, predict", Row::Predicted(PolicyKind::Lru)),
    ("gdsf, predict", Row::Predicted(PolicyKind::Gdsf)),
    ("belady", Row::Belady),
    ("bound of hits", Row::Bound(Bound::Hits)),
    ("bound of cost", Row::Bound(Bound::Cost)),
];

fn measure(trace: &Trace, memory: u64, row: Row) -> Result<Outcome> {
    let setup =
        |policy| Setup::new(CacheSettings { memory: Some(memory), policy, ..CacheSettings::default() });
    match row {
        Row::Policy(policy) => drive(trace, &setup(policy)),
        Row::Predicted(policy) => {
            let predict = Some(PredictSettings::default());
            drive(trace, &Setup::new(CacheSettings { predict, ..setup(policy).settings }))
        }
        Row::Ttl => drive(trace, &Setup { ttl: Some(TTL), ..setup(PolicyKind::Lru) }),
        Row::Belady => drive(trace, &setup(PolicyKind::Ranked)),
        Row::Bound(of) => Ok(bound(trace, memory, of)),
    }
}

/// The first seed's, and the range over all.
fn range<T>(measured: &[T], of: impl Fn(&T) -> f64, digits: usize) -> String {
    let values: Vec<_> = measured.iter().map(of).collect();
    let (low, high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    format!("{:.digits$} ({low:.digits$}–{high:.digits$})", values.first().copied().unwrap_or_default())
}

/// Share of the preloads that were used before they left, where there were any.
fn preloads_used(outcomes: &[Outcome]) -> String {
    let reports: Vec<&PredictReport> =
        outcomes.iter().filter_map(|outcome| outcome.stats.predictions.as_ref()).collect();
    if reports.is_empty() { String::new() } else { range(&reports, |report| report.used_share(), 2) }
}

/// Traces of other shapes: whether what is said of one holds for others.
fn shapes() -> [(&'static str, Shape); 11] {
    let with = |change: fn(&mut Shape)| {
        let mut shape = Shape::default();
        change(&mut shape);
        shape
    };
    [
        ("as above", Shape::default()),
        ("half the sessions", with(|shape| shape.sessions_a_day /= 2.0)),
        ("twice the sessions", with(|shape| shape.sessions_a_day *= 2.0)),
        (
            "sessions of 4 requests, as many in all",
            with(|shape| {
                (shape.requests_a_session, shape.sessions_a_day) = (4.0, 900.0);
            }),
        ),
        (
            "sessions of 36 requests, as many in all",
            with(|shape| {
                (shape.requests_a_session, shape.sessions_a_day) = (36.0, 100.0);
            }),
        ),
        ("Zipf 0.9", with(|shape| shape.zipf = 0.9)),
        ("Zipf 1.6", with(|shape| shape.zipf = 1.6)),
        ("no timers", with(|shape| shape.timers = 0.0)),
        ("no drift", with(|shape| shape.drifting = 0.0)),
        ("loads as fast as their size", with(|shape| shape.slowness = (1.0, 1.0))),
        (
            "1,000 models, ten times the sessions",
            with(|shape| {
                (shape.models, shape.users, shape.sessions_a_day) = (1_000, 2_000, 3_000.0);
            }),
        ),
    ]
}

#[allow(clippy::print_stdout, reason = "the table is what it is for")]
fn budgets(traces: &[Trace]) -> Result<()> {
    let columns =
        ["hit rate", "cost hit rate", "load-hours", "hours waited", "of LRU's load-hours", "preloads used"];
    println!("| memory | policy | {} |\n|---|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
    for share in SHARES {
        let measured = |row| -> Result<Vec<Outcome>> {
            traces.iter().map(|trace| measure(trace, trace.budget(share), row)).collect()
        };
        let lru = measured(Row::Policy(PolicyKind::Lru))?;
        for (name, row) in ROWS {
            let outcomes = measured(row)?;
            let shares: Vec<_> =
                outcomes.iter().zip(&lru).map(|(one, lru)| one.load_hours() / lru.load_hours()).collect();
            println!(
                "| {:.0} % | {name} | {} | {} | {} | {} | {} | {} |",
                share * 100.0,
                range(&outcomes, Outcome::hit_rate, 3),
                range(&outcomes, Outcome::cost_hit_rate, 3),
                range(&outcomes, Outcome::load_hours, 1),
                range(&outcomes, Outcome::waited_hours, 1),
                range(&shares, |share| *share, 2),
                preloads_used(&outcomes),
            );
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the table is what it is for")]
fn other_shapes() -> Result<()> {
    println!(
        "\n| shape (seed 1) | lru at 10 % | gdsf | of its load-hours | lru at 20 % | gdsf | of its load-hours |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, shape) in shapes() {
        let trace = Trace::new(&shape, 1);
        let mut cells = String::new();
        for share in [0.1, 0.2] {
            let lru = measure(&trace, trace.budget(share), Row::Policy(PolicyKind::Lru))?;
            let gdsf = measure(&trace, trace.budget(share), Row::Policy(PolicyKind::Gdsf))?;
            let hours = gdsf.load_hours() / lru.load_hours();
            cells = format!("{cells} {:.3} | {:.3} | {hours:.2} |", lru.hit_rate(), gdsf.hit_rate());
        }
        println!("| {name} |{cells}");
    }
    Ok(())
}

/// What prediction is worth, and what it says of itself, beside what the traffic allows.
#[allow(clippy::print_stdout, reason = "the table is what it is for")]
fn predictions(traces: &[Trace]) -> Result<()> {
    let allowed = Predictable::of(&Shape::default());
    println!("\nBound of top-2: sessions {:.3}, sessions and timers {:.3}\n", allowed.sessions, allowed.both);
    println!(
        "| memory | policy | hours waited | with prediction | of it | top-2 | preloads used | wasted load-hours | wasted GB-hours |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (share, policy) in
        SHARES.into_iter().flat_map(|share| [(share, PolicyKind::Lru), (share, PolicyKind::Gdsf)])
    {
        let outcomes: Result<Vec<_>> =
            traces.iter().map(|trace| with_and_without(trace, share, policy)).collect();
        let outcomes = outcomes?;
        let of = |of: fn(&Outcome, &Outcome, &PredictReport) -> f64, digits| {
            range(
                &outcomes,
                |(plain, with)| of(plain, with, &with.stats.predictions.unwrap_or_default()),
                digits,
            )
        };
        println!(
            "| {:.0} % | {} | {} | {} | {} | {} | {} | {} | {} |",
            share * 100.0,
            policy.name(),
            of(|plain, _, _| plain.waited_hours(), 1),
            of(|_, with, _| with.waited_hours(), 1),
            of(|plain, with, _| with.waited_hours() / plain.waited_hours(), 2),
            of(|_, _, report| report.ever.named, 3),
            of(|_, _, report| report.used_share(), 3),
            of(|_, _, report| report.wasted_load_seconds / 3600.0, 2),
            of(|_, _, report| report.wasted_byte_seconds / 3.6e12, 1),
        );
    }
    Ok(())
}

fn with_and_without(trace: &Trace, share: f64, policy: PolicyKind) -> Result<(Outcome, Outcome)> {
    let setup = |predict| {
        Setup::new(CacheSettings {
            memory: Some(trace.budget(share)),
            policy,
            predict,
            ..CacheSettings::default()
        })
    };
    Ok((drive(trace, &setup(None))?, drive(trace, &setup(Some(PredictSettings::default())))?))
}

#[allow(clippy::print_stdout, reason = "the table is what it is for")]
fn main() -> Result<()> {
    let seeds = std::env::args().nth(1).and_then(|seeds| seeds.parse().ok()).unwrap_or(8);
    let traces: Vec<_> = (1..=seeds).map(|seed| Trace::new(&Shape::default(), seed)).collect();
    println!("seed 1 (range of {seeds} seeds)\n");
    budgets(&traces)?;
    predictions(&traces)?;
    other_shapes()
}
