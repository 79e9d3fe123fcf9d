//! The header fields of an answer, as the text that they came in: most of them are never looked at.

use bytes::BufMut;
use http::Method;
use http::header::HeaderMap;

/// Writes a field and its line end.
pub fn put_field(out: &mut impl BufMut, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.put_slice(part);
    }
}

/// Names and values of lines of fields, in their order.
pub fn fields_of(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        Some((name, value.get(1..)?.trim_ascii()))
    })
}

/// The first value of a field among lines of fields, whatever the case of its name.
pub fn field_of<'a>(lines: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields_of(lines).find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// Methods whose empty body a server wants to be told of: RFC 9110, section 8.6.
pub fn expects_a_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

/// Header fields in their order, with their names as they were sent. One allocation, whatever their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Lines of `name: value`, each with its line end.
    lines: Box<[u8]>,
    reason: Box<str>,
}

impl Fields {
    /// The fields of a whole head of HTTP/1.1, its first line included, that was found to be one.
    pub(super) fn of_head(head: &[u8]) -> Self {
        let first = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| at + 1);
        let (line, lines) = head.split_at_checked(first).unwrap_or((head, &[]));
        let reason = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default().trim_ascii();
        Self { lines: lines.into(), reason: String::from_utf8_lossy(reason).into() }
    }

    /// The fields of an answer of HTTP/2, which has no reason phrase.
    pub fn of_map(map: &HeaderMap) -> Self {
        Self::of_maps(map, None)
    }

    /// Those of its head, and then those of its trailers.
    pub fn of_maps(head: &HeaderMap, trailers: Option<&HeaderMap>) -> Self {
        let mut lines = Vec::with_capacity((head.len() + trailers.map_or(0, HeaderMap::len)) * 48);
        for (name, value) in [Some(head), trailers].into_iter().flatten().flatten() {
            put_field(&mut lines, name.as_str().as_bytes(), value.as_bytes());
        }
        Self { lines: lines.into(), reason: "".into() }
    }

    /// The words that came after the status; empty where there were none.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Names and values in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        fields_of(&self.lines)
    }

    /// The first value of a field, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        field_of(&self.lines, name)
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    #[test]
    fn fields_keep_their_order_their_case_and_repetitions() {
        let head = b"HTTP/1.1 404 Not Here At All\r\nA: 1\r\nset-cookie:x\r\nSet-Cookie:  y z \r\nE:\r\n\r\n";
        let fields = Fields::of_head(head);
        assert_eq!(fields.reason(), "Not Here At All");
        let all: Vec<_> = fields.iter().collect();
        let wanted: [(&[u8], &[u8]); 4] =
            [(b"A", b"1"), (b"set-cookie", b"x"), (b"Set-Cookie", b"y z"), (b"E", b"")];
        assert_eq!(all, wanted);
        assert_eq!(fields.get("SET-COOKIE"), Some(&b"x"[..]));
        assert_eq!(fields.get("absent"), None);
    }

    #[test]
    fn a_map_becomes_the_same_fields() {
        let mut map = HeaderMap::new();
        map.append("a", HeaderValue::from_static("1"));
        map.append("a", HeaderValue::from_static("2"));
        let fields = Fields::of_map(&map);
        let wanted: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"a", b"2")];
        assert_eq!((fields.iter().collect::<Vec<_>>(), fields.reason()), (wanted.to_vec(), ""));
    }

    #[test]
    fn a_head_without_a_reason_or_fields_is_one_too() {
        for head in [&b"HTTP/1.1 200\r\n\r\n"[..], b"HTTP/1.1 200 \r\n\r\n"] {
            let fields = Fields::of_head(head);
            assert_eq!((fields.reason(), fields.iter().count()), ("", 0));
        }
    }
}
