//! What caches make of a week of requests shaped like those of people and timers, in time that is only counted: the table
//! of the guide.
//!
//! `cargo run --release --no-default-features --example model_trace [seeds]`: by how many seeds, 8 unless told otherwise.

use std::time::Duration;

use penstock::error::Result;
use penstock::models::simulate::{Bound, Outcome, Setup, Shape, Trace, bound, drive};
use penstock::models::{CacheSettings, PolicyKind};

/// Shares of the catalogue's bytes that the memory holds.
const SHARES: [f64; 3] = [0.05, 0.1, 0.2];
/// What Ollama and Elasticsearch keep a model for.
const TTL: Duration = Duration::from_secs(300);

/// What a row of the table measures.
#[derive(Clone, Copy)]
enum Row {
    Policy(PolicyKind),
    Ttl,
    Belady,
    Bound(Bound),
}

const ROWS: [(&str, Row); 6] = [
    ("ttl 5 min", Row::Ttl),
    ("lru", Row::Policy(PolicyKind::Lru)),
    ("gdsf", Row::Policy(PolicyKind::Gdsf)),
    ("belady", Row::Belady),
    ("bound of hits", Row::Bound(Bound::Hits)),
    ("bound of cost", Row::Bound(Bound::Cost)),
];

fn measure(trace: &Trace, memory: u64, row: Row) -> Result<Outcome> {
    let setup =
        |policy| Setup::new(CacheSettings { memory: Some(memory), policy, ..CacheSettings::default() });
    match row {
        Row::Policy(policy) => drive(trace, &setup(policy)),
        Row::Ttl => drive(trace, &Setup { ttl: Some(TTL), ..setup(PolicyKind::Lru) }),
        Row::Belady => drive(trace, &setup(PolicyKind::Ranked)),
        Row::Bound(of) => Ok(bound(trace, memory, of)),
    }
}

/// The first seed's, and the range over all.
fn range(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64, digits: usize) -> String {
    let values: Vec<_> = outcomes.iter().map(of).collect();
    let (low, high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    format!("{:.digits$} ({low:.digits$}–{high:.digits$})", values.first().copied().unwrap_or_default())
}

#[allow(clippy::print_stdout, reason = "the table is what it is for")]
fn main() -> Result<()> {
    let seeds = std::env::args().nth(1).and_then(|seeds| seeds.parse().ok()).unwrap_or(8);
    let traces: Vec<_> = (1..=seeds).map(|seed| Trace::new(&Shape::default(), seed)).collect();
    println!("seed 1 (range of {seeds} seeds)\n");
    println!(
        "| memory | policy | hit rate | cost hit rate | load-hours | hours waited | of LRU's load-hours |"
    );
    println!("|---|---|---|---|---|---|---|");
    for share in SHARES {
        let mut lru: Vec<f64> = Vec::new();
        let mut rows = Vec::new();
        for (name, row) in ROWS {
            let outcomes: Result<Vec<_>> =
                traces.iter().map(|trace| measure(trace, trace.budget(share), row)).collect();
            let outcomes = outcomes?;
            if matches!(row, Row::Policy(PolicyKind::Lru)) {
                lru = outcomes.iter().map(Outcome::load_hours).collect();
            }
            rows.push((name, outcomes));
        }
        for (name, outcomes) in rows {
            let hours = outcomes.iter().zip(&lru).map(|(outcome, lru)| outcome.load_hours() / lru);
            let (low, high) =
                hours.clone().fold((f64::MAX, f64::MIN), |(low, high), of| (low.min(of), high.max(of)));
            println!(
                "| {:.0} % | {name} | {} | {} | {} | {} | {:.2} ({low:.2}–{high:.2}) |",
                share * 100.0,
                range(&outcomes, Outcome::hit_rate, 3),
                range(&outcomes, Outcome::cost_hit_rate, 3),
                range(&outcomes, Outcome::load_hours, 1),
                range(&outcomes, Outcome::waited_hours, 1),
                hours.clone().next().unwrap_or_default(),
            );
        }
    }
    Ok(())
}
