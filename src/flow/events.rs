//! What the core has to say about itself, on its way to whoever listens.
//!
//! Rooms say `tracing::warn!(target: "penstock::serve", peer = %peer, "…")`. Where nobody listens, or nobody wants that
//! level, it costs one load of an atomic. There are no spans, and what other crates say is left alone.

use std::fmt::{self, Display, Formatter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber, callsite, subscriber};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// How much it matters.
    pub level: Level,
    /// The room that says so, as `penstock::serve`.
    pub target: &'static str,
    /// What happened, in words.
    pub message: String,
    /// What it happened to.
    pub fields: Vec<(&'static str, Value)>,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A whole number that may be below zero.
    Signed(i64),
    /// A whole number.
    Unsigned(u64),
    /// Any other number.
    Number(f64),
    /// Yes or no.
    Truth(bool),
}

/// Whoever keeps events. It is called on the threads of the data plane and must not wait.
pub trait EventLog: Send + Sync {
    /// Takes an event.
    fn event(&self, event: Event);
}

/// Locked for a moment only, as the runtime's own is: a fork must not find it locked.
static LOG: Mutex<Option<Arc<dyn EventLog>>> = Mutex::new(None);
/// The finest level that is wanted: 0 for none, 5 for every one.
static FINEST: AtomicU8 = AtomicU8::new(0);

/// Sends every event up to `finest` to `log` from here on, and to nobody else. Where the process has another subscriber
/// already, that one stays and this answers `false`.
pub fn listen(log: Arc<dyn EventLog>, finest: LevelFilter) -> bool {
    let before = LOG.lock().replace(log);
    drop(before);
    // It fails where a subscriber is installed, which is ours or somebody else's.
    let _ = subscriber::set_global_default(Listener);
    set_finest(finest);
    tracing::dispatcher::get_default(tracing::Dispatch::is::<Listener>)
}

/// Says which levels are wanted.
pub fn set_finest(finest: LevelFilter) {
    let number = FILTERS.iter().position(|filter| *filter == finest).unwrap_or_default();
    let number = u8::try_from(number).unwrap_or_default();
    if FINEST.swap(number, Ordering::Relaxed) != number {
        callsite::rebuild_interest_cache();
    }
}

/// Sends events to nobody from here on, unless somebody else than `log` listens by now.
pub fn leave(log: &Arc<dyn EventLog>) {
    let before = LOG.lock().take_if(|current| std::ptr::addr_eq(Arc::as_ptr(current), Arc::as_ptr(log)));
    if before.is_some() {
        set_finest(LevelFilter::OFF);
    }
}

/// Forgets who listened, in a forked child. It is leaked: its reader does not exist here, and its lock may be held. So may
/// be those of `tracing`, which hears of the new level when somebody listens again.
pub fn forget_after_fork() {
    std::mem::forget(LOG.lock().take());
    FINEST.store(0, Ordering::Relaxed);
}

const FILTERS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// The subscriber of the process, which can be set once: who listens stands beside it.
struct Listener;

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        // What `tracing::enabled!` asks with is no event, but must be answered as one.
        !metadata.is_span() && (target == "penstock" || target.starts_with("penstock::"))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        FILTERS.get(usize::from(FINEST.load(Ordering::Relaxed))).copied()
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let Some(log) = LOG.lock().clone() else { return };
        let mut words = Words::default();
        event.record(&mut words);
        log.event(Event {
            at: SystemTime::now(),
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message: words.message,
            fields: words.fields,
        });
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Words {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields.push((field.name(), Value::Text(format!("{value:?}"))));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.push((field.name(), Value::Text(value.to_owned())));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::Signed(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Value::Unsigned(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Value::Number(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Truth(value)));
    }
}

impl Display for Event {
    /// The message, and each field as `name=value`.
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        self.fields.iter().try_for_each(|(name, value)| write!(out, " {name}={value}"))
    }
}

impl Display for Value {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => out.write_str(text),
            Self::Signed(number) => number.fmt(out),
            Self::Unsigned(number) => number.fmt(out),
            Self::Number(number) => number.fmt(out),
            Self::Truth(truth) => truth.fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Event>>);

    impl EventLog for Kept {
        fn event(&self, event: Event) {
            self.0.lock().push(event);
        }
    }

    impl Kept {
        fn take(&self) -> Vec<String> {
            self.0.lock().drain(..).map(|event| format!("{} {} {event}", event.level, event.target)).collect()
        }
    }

    /// One test, for the listener is the whole process's.
    #[test]
    fn events_reach_whoever_listens_at_the_level_that_is_wanted() {
        fn speak() {
            tracing::warn!(target: "penstock::serve", peer = "::1", tries = 3_u64, share = 0.5, "no more");
            tracing::info!(target: "penstock::serve", left = -1, last = true, reason = ?Some(1), "less {}", 7);
            tracing::error!(target: "h2::codec", "not ours");
            tracing::error!(target: "penstocks", "not ours either");
            let span = tracing::error_span!(target: "penstock::serve", "a span");
            span.in_scope(|| span.record("a", 1));
        }
        const WARNING: &str = "WARN penstock::serve no more peer=::1 tries=3 share=0.5";
        const INFORMATION: &str = "INFO penstock::serve less 7 left=-1 last=true reason=Some(1)";

        speak();
        let first = Arc::new(Kept::default());
        assert!(listen(first.clone(), LevelFilter::WARN));
        let before = SystemTime::now();
        speak();
        assert!(first.0.lock().iter().all(|event| event.at >= before));
        assert_eq!(first.take(), [WARNING]);
        set_finest(LevelFilter::TRACE);
        speak();
        assert_eq!(first.take(), [WARNING, INFORMATION]);

        let second = Arc::new(Kept::default());
        assert!(listen(second.clone(), LevelFilter::INFO));
        speak();
        assert_eq!((first.take().len(), second.take().len()), (0, 2));
        let second: Arc<dyn EventLog> = second;
        leave(&(first.clone() as Arc<dyn EventLog>));
        assert!(tracing::enabled!(target: "penstock::serve", Level::ERROR), "the second still listens");
        leave(&second);
        speak();
        assert!(!tracing::enabled!(target: "penstock::serve", Level::ERROR));
        assert!(listen(first.clone(), LevelFilter::ERROR));
        forget_after_fork();
        speak();
        assert!(first.take().is_empty());
    }
}
