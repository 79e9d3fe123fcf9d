//! Access records as lines of a log, written without the interpreter.
//!
//! They are the same that `penstock.logs.JsonFormatter`, or the text of `penstock.logs.configure`, make of the records: a
//! test compares them.

use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use super::AccessRecord;
use super::access::{say_padded, say_peer};
use crate::flow::WallClock;
use crate::wire::grpc::Code;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// One object of JSON.
    Json,
    /// Text for a person, by a clock that is so many seconds ahead of UTC.
    Text(i32),
}

/// The lines of one log, one below the other.
///
/// At a server's fastest it is written to for every request: so nothing in it goes through `std::fmt` that comes with
/// each line (but an address of IPv6), and a date is worked out once a second.
#[derive(Debug)]
pub struct Lines {
    look: Look,
    wall: WallClock,
    out: String,
    message: String,
    /// The second since 1970 that the date beside it is of.
    second: Option<u64>,
    date: String,
}

/// Bytes of a line, as most are at most.
const USUAL_LENGTH: usize = 896;

/// What is known of a line before its record is.
const KNOWN: &str = "\", \"level\": \"INFO\", \"logger\": \"penstock.access\", \"message\": ";

/// The name of a member that is not the first, with what goes around it.
macro_rules! member {
    ($name:literal) => {
        concat!(", \"", $name, "\": ")
    };
}

impl Lines {
    /// None yet, of as many records at most, which this clock tells the time of.
    pub fn new(look: Look, wall: WallClock, most: usize) -> Self {
        let out = String::with_capacity(most * USUAL_LENGTH);
        Self { look, wall, out, message: String::new(), second: None, date: String::new() }
    }

    /// Adds the line of a record, with its end.
    pub fn add(&mut self, record: &AccessRecord) {
        let at = self.wall.at(record.at);
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.date = self.look.date(at);
        }
        self.message.clear();
        record.say(&mut self.message);
        let out = &mut self.out;
        match self.look {
            Look::Json => {
                out.push_str("{\"time\": \"");
                out.push_str(&self.date);
                out.push('.');
                say_padded(since.subsec_micros() + 1_000_000, out);
                out.push_str("+00:00");
                out.push_str(KNOWN);
                quoted(out, &self.message);
                members(record, out);
                out.push_str("}\n");
            }
            Look::Text(_) => {
                out.push_str(&self.date);
                out.push(',');
                say_padded(since.subsec_millis() + 1_000, out);
                out.push_str(" INFO penstock.access ");
                out.push_str(&self.message);
                out.push('\n');
            }
        }
    }

    /// All of them.
    pub fn into_text(self) -> String {
        self.out
    }
}

impl Look {
    /// A moment to the second.
    fn date(self, at: SystemTime) -> String {
        match self {
            Self::Json => {
                let when = Date::of(at, 0);
                format!("{when}T{}", when.time())
            }
            Self::Text(ahead) => {
                let when = Date::of(at, ahead);
                format!("{when} {}", when.time())
            }
        }
    }
}

fn members(record: &AccessRecord, out: &mut String) {
    out.push_str(member!("peer"));
    match record.peer {
        Some(peer) => {
            out.push('"');
            say_peer(peer, out);
            out.push('"');
        }
        None => out.push_str("null"),
    }
    text(out, member!("protocol"), Some(record.protocol));
    text(out, member!("method"), Some(record.method.as_str()));
    text(out, member!("path"), Some(record.path.as_str()));
    whole(out, member!("status"), Some(u64::from(record.status)));
    text(out, member!("grpc_code"), record.code.map(Code::name));
    time(out, member!("seconds"), Some(record.took));
    whole(out, member!("request_bytes"), Some(record.request_bytes));
    whole(out, member!("response_bytes"), Some(record.response_bytes));
    text(out, member!("request_id"), record.id.as_deref());
    let trace = record.trace.as_ref().map(|trace| &trace.context);
    text(out, member!("trace_id"), trace.map(|trace| trace.trace_text()).as_deref());
    text(out, member!("span_id"), trace.map(|trace| trace.span_text()).as_deref());
    text(out, member!("key"), record.key.as_deref());
    text(out, member!("client"), record.client.as_deref());
    text(out, member!("model"), record.model_name());
    whole(out, member!("rows"), record.rows.map(|rows| rows as u64));
    whole(out, member!("batch"), record.batch.map(|rows| rows as u64));
    text(out, member!("reason"), record.reason);
    let parts = record.timing.map(|timing| timing.parts);
    time(out, member!("load_seconds"), record.timing.and_then(|timing| timing.load));
    time(out, member!("queue_seconds"), parts.map(|parts| parts.queue));
    time(out, member!("slot_seconds"), parts.map(|parts| parts.slot));
    time(out, member!("gather_seconds"), parts.map(|parts| parts.gather));
    time(out, member!("model_seconds"), parts.map(|parts| parts.model));
    time(out, member!("scatter_seconds"), parts.map(|parts| parts.scatter));
    time(out, member!("encode_seconds"), record.timing.map(|timing| timing.encode));
}

fn whole(out: &mut String, member: &str, value: Option<u64>) {
    out.push_str(member);
    match value {
        Some(value) => out.push_str(itoa::Buffer::new().format(value)),
        None => out.push_str("null"),
    }
}

/// Seconds, to the nanosecond.
fn time(out: &mut String, member: &str, value: Option<Duration>) {
    out.push_str(member);
    match value {
        Some(value) => {
            out.push_str(itoa::Buffer::new().format(value.as_secs()));
            out.push('.');
            say_padded(value.subsec_nanos() + 1_000_000_000, out);
        }
        None => out.push_str("null"),
    }
}

fn text(out: &mut String, member: &str, value: Option<&str>) {
    out.push_str(member);
    match value {
        Some(value) => quoted(out, value),
        None => out.push_str("null"),
    }
}

/// A text in quotation marks: RFC 8259, section 7.
fn quoted(out: &mut String, value: &str) {
    out.push('"');
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') & !matches!(byte, b'"' | b'\\');
    // To the end, though one would do: so it is several bytes at a time.
    if value.as_bytes().iter().fold(true, |plain, byte| plain & is_plain(byte)) {
        out.push_str(value);
    } else {
        escaped(out, value);
    }
    out.push('"');
}

fn escaped(out: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
}

/// A moment by the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
    /// Seconds of the day.
    second: u64,
}

impl Date {
    /// That of a clock which is so many seconds ahead of UTC.
    fn of(at: SystemTime, ahead: i32) -> Self {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs().saturating_add_signed(i64::from(ahead));
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Years that begin in March: their leap day is their last (Howard Hinnant, chrono-compatible date algorithms).
        let days = days + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self { year, month, day, second }
    }

    fn time(self) -> TimeOfDay {
        TimeOfDay(self.second)
    }
}

/// Seconds of a day.
struct TimeOfDay(u64);

impl Display for TimeOfDay {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let second = self.0;
        write!(out, "{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    }
}

impl Display for Date {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, ahead, date, time) in [
            (0, 0, "1970-01-01", "00:00:00"),
            (951_782_399, 0, "2000-02-28", "23:59:59"),
            (951_782_400, 0, "2000-02-29", "00:00:00"),
            (951_868_800, 0, "2000-03-01", "00:00:00"),
            (1_795_307_520, 0, "2026-11-22", "00:32:00"),
            (1_795_307_520, -3_600, "2026-11-21", "23:32:00"),
            (4_107_542_400, 0, "2100-03-01", "00:00:00"),
        ] {
            let when = Date::of(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), ahead);
            assert_eq!((when.to_string().as_str(), when.time().to_string().as_str()), (date, time));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_text_is_read_back_as_it_was(value in ".{0,40}") {
            let mut out = String::new();
            quoted(&mut out, &value);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), value);
            prop_assert!(!out.contains('\n'));
        }
    }
}
