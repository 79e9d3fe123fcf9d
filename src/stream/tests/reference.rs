//! The rules of WHATWG HTML, sections 9.2.5 and 9.2.6, written down step by step over the whole stream: slow, and plain.

use crate::stream::Event;

/// What a stream means, and what is left after its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) events: Vec<Event>,
    pub(super) last_event_id: String,
    pub(super) retry: Option<u64>,
}

/// The lines of a text, the one that nothing ends left out: "it must be discarded".
pub(super) fn ended_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => {
                if letters.peek() == Some(&'\n') {
                    letters.next();
                }
                lines.push(std::mem::take(&mut line));
            }
            '\n' => lines.push(std::mem::take(&mut line)),
            other => line.push(other),
        }
    }
    lines
}

/// Interprets a whole stream.
pub(super) fn interpret(stream: &[u8]) -> Meaning {
    // "Streams must be decoded using the UTF-8 decode algorithm", which strips one leading byte order mark.
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut meaning = Meaning::default();
    let (mut data, mut event_type, mut id_buffer) = (String::new(), String::new(), String::new());
    for line in ended_lines(text) {
        // "If the line is empty (a blank line): dispatch the event."
        if line.is_empty() {
            meaning.last_event_id.clone_from(&id_buffer);
            if data.is_empty() {
                event_type.clear();
                continue;
            }
            // "If the data buffer's last character is a U+000A LINE FEED (LF) character, remove" it.
            if data.ends_with('\n') {
                data.pop();
            }
            let event = if event_type.is_empty() { "message" } else { &event_type };
            meaning.events.push(Event {
                event: event.into(),
                data: std::mem::take(&mut data),
                id: meaning.last_event_id.as_str().into(),
            });
            event_type.clear();
            continue;
        }
        // "If the line starts with a U+003A COLON character (:): ignore the line."
        if line.starts_with(':') {
            continue;
        }
        let (field, value) = match line.split_once(':') {
            // "If value starts with a U+0020 SPACE character, remove it from value."
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line.as_str(), ""),
        };
        match field {
            "event" => value.clone_into(&mut event_type),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut id_buffer),
            "retry" if !value.is_empty() && value.chars().all(|letter| letter.is_ascii_digit()) => {
                meaning.retry = Some(value.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }
    meaning
}
