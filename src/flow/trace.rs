//! The place of a request in a trace that began elsewhere: <https://www.w3.org/TR/trace-context/>.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes of a `tracestate` at most; a longer one is left behind, as the standard allows.
const LONGEST_STATE: usize = 512;
/// Entries of a `tracestate` at most.
const MOST_ENTRIES: usize = 32;
/// Characters of `traceparent`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
/// Requests that joined a batch whose traces it remembers: a span has no more links than that.
const MOST_JOINED: usize = 128;

/// A span in a trace, as `traceparent` and `tracestate` name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace; never all zeros.
    pub trace_id: [u8; 16],
    /// The span that whoever gets this is a child of; never all zeros.
    pub span_id: [u8; 8],
    /// Whether the trace is recorded, as whoever began it decided.
    pub sampled: bool,
    /// What vendors say to one another, as it came: `tracestate`.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// The context that these headers name; `None` where `traceparent` names none: the standard says to go on without.
    /// A `tracestate` that is none, or that is too long, is left out.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let bytes = traceparent.trim_matches([' ', '\t']).as_bytes();
        let version = number::<1>(bytes.get(..2)?)?;
        let later = bytes.get(LENGTH);
        // What a later version adds stands behind another dash; the first has nothing there, and the last is none.
        let fits = match version {
            [0] => later.is_none(),
            [0xff] => false,
            _ => later.is_none_or(|next| *next == b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !fits || !dashes {
            return None;
        }
        let trace_id = number::<16>(bytes.get(3..35)?)?;
        let span_id = number::<8>(bytes.get(36..52)?)?;
        let [flags] = number::<1>(bytes.get(53..LENGTH)?)?;
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        let state = tracestate.map(str::trim).filter(|state| is_state(state)).map(Arc::from);
        Some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0, state })
    }

    /// A trace that begins here.
    pub fn root(sampled: bool) -> Self {
        let trace_id = fastrand::u128(1..).to_be_bytes();
        Self { trace_id, span_id: new_span(), sampled, state: None }
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: new_span(), ..self.clone() }
    }

    /// The value of `traceparent`.
    pub fn header(&self) -> String {
        let flags = if self.sampled { "01" } else { "00" };
        let mut text = String::with_capacity(LENGTH);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id);
        text.push('-');
        push_hex(&mut text, &self.span_id);
        text.push('-');
        text.push_str(flags);
        text
    }

    /// The trace, as logs name it: 32 digits.
    pub fn trace_text(&self) -> String {
        hex(&self.trace_id)
    }

    /// The span, as logs name it: 16 digits.
    pub fn span_text(&self) -> String {
        hex(&self.span_id)
    }
}

impl Display for TraceContext {
    /// As [`header`](Self::header).
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(&self.header())
    }
}

/// The traces of a batch's requests, and the context that the batch's own work is done in.
#[derive(Debug, Clone, Default)]
pub struct BatchTrace {
    /// The contexts of its requests, each once, in their order; empty where none has one.
    members: Vec<Arc<TraceContext>>,
    /// The context of what the batch does, where a member has one.
    own: Option<TraceContext>,
    /// Of those who join it while it runs, for all copies of it.
    joined: Option<Arc<Mutex<Joined>>>,
}

#[derive(Debug, Default)]
struct Joined {
    members: Vec<Arc<TraceContext>>,
    /// The batch's own, where those that it began with had none.
    own: Option<TraceContext>,
}

impl BatchTrace {
    /// Adds a request's context; those of the rows of one request stand side by side, and count once.
    pub fn add(&mut self, context: &Arc<TraceContext>) {
        if !self.members.last().is_some_and(|last| Arc::ptr_eq(last, context)) {
            self.members.push(Arc::clone(context));
        }
    }

    /// Finds the context of the batch, once all its requests are added: where all share one trace, a child of the first of
    /// them, or that one itself where nobody records the child; else a trace of its own, which is recorded where that of
    /// any member is.
    pub fn close(&mut self, recorded: bool) {
        let Some((first, rest)) = self.members.split_first() else { return };
        let is_shared = rest.iter().all(|other| other.trace_id == first.trace_id);
        let sampled = self.members.iter().any(|member| member.sampled);
        let own = match (is_shared, recorded) {
            (true, true) => first.child(),
            (true, false) => TraceContext::clone(first),
            (false, _) => TraceContext::root(sampled),
        };
        self.own = Some(TraceContext { sampled, ..own });
    }

    /// Lets others [`join`](Self::join) this and all copies that are made of it from here on.
    pub fn open(&mut self) {
        self.joined = Some(Arc::default());
    }

    /// Adds the context of a request that joins while the batch runs. The batch stays in the trace that it began in; where it
    /// is in none, it is a child of this one.
    pub fn join(&self, context: &Arc<TraceContext>, recorded: bool) {
        let Some(joined) = &self.joined else { return };
        let mut joined = joined.lock();
        if self.own.is_none() && joined.own.is_none() {
            joined.own = Some(if recorded { context.child() } else { TraceContext::clone(context) });
        }
        let is_told = joined.members.last().is_some_and(|last| Arc::ptr_eq(last, context));
        if !is_told && joined.members.len() < MOST_JOINED {
            joined.members.push(Arc::clone(context));
        }
    }

    /// The context of what the batch does, where any of its requests has one.
    pub fn own(&self) -> Option<TraceContext> {
        self.own.clone().or_else(|| self.joined.as_ref()?.lock().own.clone())
    }

    /// The contexts of its requests, as far as they have any: those that it began with, and then those that joined.
    pub fn members(&self) -> Vec<Arc<TraceContext>> {
        let mut members = self.members.clone();
        if let Some(joined) = &self.joined {
            members.extend_from_slice(&joined.lock().members);
        }
        members
    }

    /// The span that the batch's own is a child of, where it is in the trace of its first request.
    pub fn parent(&self) -> Option<[u8; 8]> {
        let (own, members) = (self.own()?, self.members());
        members.first().filter(|first| own.trace_id == first.trace_id).map(|first| first.span_id)
    }

    /// True where the trace of any of its requests is recorded.
    pub fn is_recorded(&self) -> bool {
        let joined = || self.joined.as_ref().is_some_and(|joined| joined.lock().is_recorded());
        self.own.as_ref().is_some_and(|own| own.sampled) || joined()
    }
}

impl Joined {
    fn is_recorded(&self) -> bool {
        self.members.iter().any(|member| member.sampled)
    }
}

fn new_span() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

/// So many bytes, each of two small hexadecimal digits.
fn number<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let mut number = [0; BYTES];
    if digits.len() != BYTES * 2 {
        return None;
    }
    for (byte, pair) in number.iter_mut().zip(digits.chunks_exact(2)) {
        for letter in pair {
            let digit = match letter {
                b'0'..=b'9' => letter - b'0',
                b'a'..=b'f' => letter - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | digit;
        }
    }
    Some(number)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

/// A number as 32 small hexadecimal digits.
pub fn digits(number: u128) -> [u8; 32] {
    let mut left = number;
    let mut digits = [b'0'; 32];
    for digit in digits.iter_mut().rev() {
        *digit = digit_of((left & 15) as u8);
        left >>= 4;
    }
    digits
}

fn digit_of(number: u8) -> u8 {
    if number < 10 { b'0' + number } else { b'a' + number - 10 }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(digit_of(digit)));
        }
    }
}

/// True for a list of `key=value` that can be passed on as it is.
fn is_state(text: &str) -> bool {
    if text.is_empty() || text.len() > LONGEST_STATE {
        return false;
    }
    let mut count = 0;
    for entry in
        text.split(',').map(|entry| entry.trim_matches([' ', '\t'])).filter(|entry| !entry.is_empty())
    {
        count += 1;
        let Some((key, value)) = entry.split_once('=') else { return false };
        let is_key =
            |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"_-*/@".contains(&letter);
        let begins =
            key.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
        let is_value = |letter: u8| (0x20..=0x7e).contains(&letter) && letter != b'=';
        if !begins || !key.bytes().all(is_key) || value.is_empty() || !value.bytes().all(is_value) {
            return false;
        }
    }
    (1..=MOST_ENTRIES).contains(&count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written_back() {
        let context = TraceContext::parse(PARENT, Some("rojo=00f067aa0ba902b7, congo@b=t61")).unwrap();
        assert_eq!(context.trace_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_text(), "00f067aa0ba902b7");
        assert!(context.sampled);
        assert_eq!(context.state.as_deref(), Some("rojo=00f067aa0ba902b7, congo@b=t61"));
        assert_eq!(context.header(), PARENT);
        let child = context.child();
        assert_eq!((child.trace_id, child.sampled, &child.state), (context.trace_id, true, &context.state));
        assert_ne!(child.span_id, context.span_id);
        let unsampled = PARENT.replace("-01", "-00");
        assert!(!TraceContext::parse(&unsampled, None).unwrap().sampled);
        let root = TraceContext::root(false);
        assert_eq!(TraceContext::parse(&root.header(), None), Some(root));
    }

    #[test]
    fn what_the_standard_refuses_is_no_context() {
        for wrong in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é",
        ] {
            assert_eq!(TraceContext::parse(wrong, None), None, "{wrong}");
        }
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-what-will-come";
        let known = TraceContext::parse(later, None).unwrap();
        assert_eq!(known.header(), PARENT, "what is not known is left out");
    }

    #[test]
    fn a_state_that_is_none_is_left_out_and_the_context_stays() {
        let long = format!("a={}", "x".repeat(LONGEST_STATE));
        let many = (0..33).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        for wrong in ["", " ", "no", "=v", "Key=v", "k=", "k=a=b", "k=\u{7f}", "k=ü", &long, &many, ", ,"] {
            assert_eq!(TraceContext::parse(PARENT, Some(wrong)).unwrap().state, None, "{wrong}");
        }
    }

    #[test]
    fn a_batch_is_a_child_of_the_trace_that_all_share_and_else_its_own() {
        let context = Arc::new(TraceContext::parse(PARENT, Some("a=b")).unwrap());
        let mut none = BatchTrace::default();
        none.close(true);
        assert_eq!(none.own, None);
        let mut one = BatchTrace::default();
        one.add(&context);
        one.add(&context);
        assert!(!one.is_recorded());
        let mut passed = one.clone();
        passed.close(false);
        assert_eq!(passed.own.as_ref(), Some(&*context), "nobody records it: it is passed on as it came");
        one.close(true);
        assert_eq!((one.is_recorded(), one.parent()), (true, Some(context.span_id)));
        let own = one.own().unwrap();
        assert_eq!((one.members().len(), own.trace_id, own.sampled), (1, context.trace_id, true));
        assert_ne!(own.span_id, context.span_id);
        assert_eq!(own.state.as_deref(), Some("a=b"));
        let other = Arc::new(TraceContext::root(false));
        let mut mixed = BatchTrace::default();
        mixed.add(&other);
        mixed.add(&context);
        mixed.close(true);
        assert_eq!(mixed.parent(), None);
        let own = mixed.own.unwrap();
        assert!(own.sampled && own.trace_id != context.trace_id && own.trace_id != other.trace_id);
    }

    #[test]
    fn who_joins_a_batch_is_known_to_all_copies_of_its_trace() {
        let context = Arc::new(TraceContext::parse(PARENT, None).unwrap());
        let other = Arc::new(TraceContext::root(true));
        let mut closed = BatchTrace::default();
        closed.close(true);
        closed.join(&context, true);
        assert!(closed.members().is_empty(), "nobody can join");
        let mut began_in_none = BatchTrace::default();
        began_in_none.close(true);
        began_in_none.open();
        let copy = began_in_none.clone();
        assert!(!copy.is_recorded());
        began_in_none.join(&context, true);
        began_in_none.join(&other, true);
        assert_eq!(copy.members(), [Arc::clone(&context), Arc::clone(&other)]);
        let own = copy.own().unwrap();
        assert_eq!((own.trace_id, copy.parent()), (context.trace_id, Some(context.span_id)));
        assert!(copy.is_recorded() && own.span_id != context.span_id);
        let mut began = BatchTrace::default();
        began.add(&Arc::new(TraceContext { sampled: false, ..TraceContext::clone(&context) }));
        began.close(true);
        began.open();
        let before = began.own();
        began.join(&other, true);
        assert_eq!(began.own(), before, "it stays where it began");
        began.join(&other, true);
        assert_eq!((began.members().len(), began.is_recorded()), (2, true), "rows of one request count once");
        (0..2 * MOST_JOINED).for_each(|_| began.join(&Arc::new(TraceContext::clone(&other)), true));
        assert_eq!(began.members().len(), 1 + MOST_JOINED);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_breaks_the_reader(parent in ".{0,80}", state in ".{0,600}") {
            if let Some(context) = TraceContext::parse(&parent, Some(&state)) {
                prop_assert_eq!(TraceContext::parse(&context.header(), context.state.as_deref()), Some(context));
            }
        }

        #[test]
        fn every_context_is_read_as_it_was_written(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let context = TraceContext {
                trace_id: trace.to_be_bytes(), span_id: span.to_be_bytes(), sampled, state: None,
            };
            prop_assert_eq!(TraceContext::parse(&context.header(), None), Some(context));
        }
    }
}
