//! Access records as lines of a log, written without the interpreter.
//!
//! They are the same that `penstock.logs.JsonFormatter`, or the text of `penstock.logs.configure`, make of the records: a
//! test compares them.

use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use super::AccessRecord;
use crate::wire::grpc::Code;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// One object of JSON.
    Json,
    /// Text for a person, by a clock that is so many seconds ahead of UTC.
    Text(i32),
}

const LOGGER: &str = "penstock.access";
const LEVEL: &str = "INFO";

/// Adds the line of a record, with its end.
pub fn write_line(record: &AccessRecord, look: Look, out: &mut String) {
    match look {
        Look::Json => write_json(record, out),
        Look::Text(ahead) => {
            let when = Date::of(record.at, ahead);
            // Writing to a string does not fail.
            let _ = write!(out, "{when} {},{:03} {LEVEL} {LOGGER} {record}", when.time(), when.micros / 1000);
        }
    }
    out.push('\n');
}

fn write_json(record: &AccessRecord, out: &mut String) {
    let when = Date::of(record.at, 0);
    let _ = write!(out, "{{\"time\": \"{when}T{}.{:06}+00:00\"", when.time(), when.micros);
    text(out, "level", Some(LEVEL));
    text(out, "logger", Some(LOGGER));
    text(out, "message", Some(&record.to_string()));
    text(out, "peer", record.peer.map(|peer| peer.to_string()).as_deref());
    text(out, "protocol", Some(record.protocol));
    text(out, "method", Some(record.method.as_str()));
    text(out, "path", Some(&record.path));
    whole(out, "status", Some(u64::from(record.status)));
    text(out, "grpc_code", record.code.map(Code::name));
    time(out, "seconds", Some(record.took));
    whole(out, "request_bytes", Some(record.request_bytes));
    whole(out, "response_bytes", Some(record.response_bytes));
    text(out, "request_id", record.id.as_deref());
    text(out, "trace_id", record.trace.as_ref().map(|trace| trace.context.trace_text()).as_deref());
    text(out, "span_id", record.trace.as_ref().map(|trace| trace.context.span_text()).as_deref());
    text(out, "key", record.key.as_deref());
    text(out, "client", record.client.as_deref());
    text(out, "model", record.model.as_deref());
    whole(out, "rows", record.rows.map(|rows| rows as u64));
    whole(out, "batch", record.batch.map(|rows| rows as u64));
    text(out, "reason", record.reason);
    let parts = record.timing.map(|timing| timing.parts);
    time(out, "load_seconds", record.timing.and_then(|timing| timing.load));
    time(out, "queue_seconds", parts.map(|parts| parts.queue));
    time(out, "slot_seconds", parts.map(|parts| parts.slot));
    time(out, "gather_seconds", parts.map(|parts| parts.gather));
    time(out, "model_seconds", parts.map(|parts| parts.model));
    time(out, "scatter_seconds", parts.map(|parts| parts.scatter));
    time(out, "encode_seconds", record.timing.map(|timing| timing.encode));
    out.push('}');
}

fn name(out: &mut String, name: &str) {
    out.push_str(", \"");
    out.push_str(name);
    out.push_str("\": ");
}

fn whole(out: &mut String, key: &str, value: Option<u64>) {
    name(out, key);
    match value {
        Some(value) => out.push_str(itoa::Buffer::new().format(value)),
        None => out.push_str("null"),
    }
}

fn time(out: &mut String, key: &str, value: Option<Duration>) {
    name(out, key);
    match value {
        Some(value) => out.push_str(zmij::Buffer::new().format(value.as_secs_f64())),
        None => out.push_str("null"),
    }
}

fn text(out: &mut String, key: &str, value: Option<&str>) {
    name(out, key);
    match value {
        Some(value) => quoted(out, value),
        None => out.push_str("null"),
    }
}

/// A text in quotation marks: RFC 8259, section 7.
fn quoted(out: &mut String, value: &str) {
    out.push('"');
    let mut rest = value;
    while let Some(at) = rest.find(|letter: char| letter.is_control() || letter == '"' || letter == '\\') {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut letters = special.chars();
        match letters.next() {
            Some(letter @ ('"' | '\\')) => out.extend(['\\', letter]),
            Some(letter) => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            None => {}
        }
        rest = letters.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// A moment by the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
    /// Seconds of the day.
    second: u64,
    micros: u32,
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
        Self { year, month, day, second, micros: since.subsec_micros() }
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
