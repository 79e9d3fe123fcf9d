//! Events and lines written: what a decoder by the rules reads back as it was given.

use memchr::memchr2;

/// Writes one server-sent event, the empty line that ends it included (WHATWG HTML, section 9.2.5).
///
/// `data` becomes as many lines of data as it has; CR, LF and CRLF in it are read back as LF. A name and an id are one line:
/// line breaks in them are left out, and NUL in an id, which would not count with it.
///
/// ```
/// let mut out = Vec::new();
/// penstock::stream::write_event(&mut out, None, Some("7"), b"{\"x\":1}");
/// assert_eq!(out, b"id: 7\ndata: {\"x\":1}\n\n");
/// ```
pub fn write_event(out: &mut Vec<u8>, event: Option<&str>, id: Option<&str>, data: &[u8]) {
    // Growing once is cheaper than with every piece.
    out.reserve(data.len() + event.map_or(0, str::len) + id.map_or(0, str::len) + 24);
    if let Some(event) = event {
        write_field(out, b"event: ", event, b"\r\n");
    }
    if let Some(id) = id {
        write_field(out, b"id: ", id, b"\r\n\0");
    }
    write_lines(out, b"data: ", data);
    out.push(b'\n');
}

/// Writes a comment, which keeps a connection alive and is no event. `text` may have several lines.
///
/// An empty line follows it, as after an event: clients that cut a stream at empty lines would take it for the beginning of
/// the next event.
pub fn write_comment(out: &mut Vec<u8>, text: &str) {
    write_lines(out, b": ", text.as_bytes());
    out.push(b'\n');
}

/// Writes one line of newline-delimited JSON. Line breaks of `json` become spaces: JSON has them between its tokens only.
pub fn write_line(out: &mut Vec<u8>, json: &[u8]) {
    out.reserve(json.len() + 1);
    let mut rest = json;
    while let Some((line, tail)) = memchr2(b'\n', b'\r', rest).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(line);
        out.push(b' ');
        rest = tail.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.push(b'\n');
}

/// Writes a field that is one line; `unfit` are the bytes that it cannot have.
fn write_field(out: &mut Vec<u8>, name: &[u8], value: &str, unfit: &[u8]) {
    out.extend_from_slice(name);
    value.as_bytes().split(|byte| unfit.contains(byte)).for_each(|part| out.extend_from_slice(part));
    out.push(b'\n');
}

fn write_lines(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    let mut rest = text;
    while let Some((line, tail)) = memchr2(b'\n', b'\r', rest).and_then(|at| rest.split_at_checked(at)) {
        write_row(out, name, line);
        rest = tail.strip_prefix(b"\r\n").unwrap_or(tail.get(1..).unwrap_or_default());
    }
    write_row(out, name, rest);
}

fn write_row(out: &mut Vec<u8>, name: &[u8], line: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(line);
    out.push(b'\n');
}
