//! Content codings of answers taken off as they come: gzip, deflate, br and zstd (RFC 9110, section 8.4.1; RFC 7932; RFC 8878).

use std::borrow::Cow;
use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::{Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use crate::error::{Error, ErrorKind, Result};

/// What a request says that it accepts.
pub const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// Bytes that go in before the length of what came out is looked at: a bomb is found while it is small.
const STEP: usize = 1024;
const BROTLI_BUFFER: usize = 4 * 1024;
/// Codings of one body at most. Each takes memory, and nobody sends more than one.
const MAX_LAYERS: usize = 5;
/// Room that the output grows by.
const ROOM: usize = 1024;
/// The largest window that a decoder has to hold, as a power of two: 8 MiB (RFC 9659, section 3).
const ZSTD_WINDOW: u32 = 23;
const DEFLATE_WINDOW: u8 = 15;

/// The codings of one body, the outermost first.
pub(super) struct Decoding {
    layers: Vec<Layer>,
    /// No byte at all is an empty body, in every coding.
    begun: bool,
}

enum Layer {
    /// Its first bytes tell which of two formats it is: servers send both under this name.
    Deflate(Vec<u8>),
    Inflate(Inflate),
    Brotli(Box<DecompressorWriter<Vec<u8>>>),
    Zstd(Unpack),
}

/// What flate2 reads. Its writers keep what they have decoded until more comes; this one keeps nothing back.
struct Inflate {
    decompress: Decompress,
    /// gzip, of which a body may have several members (RFC 1952, section 2.2).
    members: bool,
    ended: bool,
}

/// zstd, which keeps nothing back either.
struct Unpack {
    context: DCtx<'static>,
    /// At the end of a frame: a body may end here, or another frame begin.
    ended: bool,
}

impl Decoding {
    /// For the value of a `content-encoding` field. None where a coding is not known, or
    /// they are too many: the body stays as it is.
    pub(super) fn of(encoding: &[u8]) -> Option<Self> {
        let mut layers = Vec::new();
        for name in encoding.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).rev() {
            if !name.eq_ignore_ascii_case(b"identity") && !name.is_empty() {
                layers.push(Layer::of(name)?);
            }
        }
        (1..=MAX_LAYERS).contains(&layers.len()).then_some(Self { layers, begun: false })
    }

    /// Decodes a portion, and adds what comes of it to `out`, which may not grow beyond `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::ProtocolError`] for what is not of the coding, [`ErrorKind::ReadFailed`] beyond the limit.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<()> {
        self.begun |= !input.is_empty();
        for step in input.chunks(STEP) {
            self.step(step, out).map_err(|error| broken(&error))?;
            if out.len() > limit {
                return Err(too_long(limit));
            }
        }
        Ok(())
    }

    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let Some((last, others)) = self.layers.split_last_mut() else { return Ok(()) };
        let mut data = Cow::Borrowed(input);
        for layer in others {
            let mut inner = Vec::new();
            layer.feed(&data, &mut inner)?;
            data = inner.into();
        }
        last.feed(&data, out)
    }

    /// A whole body.
    ///
    /// # Errors
    /// As [`Decoding::feed`] and [`Decoding::end`].
    pub(super) fn all(&mut self, body: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.feed(body, &mut out, limit)?;
        self.end(&mut out, limit)?;
        Ok(out)
    }

    /// Says that there is no more.
    ///
    /// # Errors
    /// As [`Decoding::feed`], and where the coding was not at its end.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<()> {
        if !self.begun {
            return Ok(());
        }
        let mut data = Vec::new();
        for layer in &mut self.layers {
            let mut inner = Vec::new();
            layer.end(&data, &mut inner).map_err(|error| broken(&error))?;
            data = inner;
        }
        out.extend_from_slice(&data);
        if out.len() > limit { Err(too_long(limit)) } else { Ok(()) }
    }
}

impl Layer {
    fn of(name: &[u8]) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Some(match name.as_slice() {
            b"gzip" | b"x-gzip" => Self::Inflate(Inflate::gzip()),
            b"deflate" => Self::Deflate(Vec::new()),
            b"br" => Self::Brotli(Box::new(DecompressorWriter::new(Vec::new(), BROTLI_BUFFER))),
            b"zstd" => Self::Zstd(Unpack::new()?),
            _ => return None,
        })
    }

    /// Decodes `input`; all that can be had of it comes out at once.
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if let Self::Deflate(first) = self {
            first.extend_from_slice(input);
            if first.len() < 2 {
                return Ok(());
            }
            let first = std::mem::take(first);
            *self = Self::Inflate(Inflate::deflate(&first));
            return self.feed(&first, out);
        }
        match self {
            Self::Inflate(inflate) => inflate.feed(input, out),
            Self::Brotli(decoder) => decoder.write_all(input).map(|()| out.append(decoder.get_mut())),
            Self::Zstd(unpack) => unpack.feed(input, out),
            Self::Deflate(_) => Ok(()),
        }
    }

    fn end(&mut self, rest: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.feed(rest, out)?;
        let whole = match self {
            Self::Inflate(inflate) => inflate.ended,
            Self::Zstd(unpack) => unpack.ended,
            Self::Brotli(decoder) => {
                decoder.close()?;
                out.append(decoder.get_mut());
                true
            }
            Self::Deflate(_) => false,
        };
        if whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Inflate {
    fn gzip() -> Self {
        Self { decompress: Decompress::new_gzip(DEFLATE_WINDOW), members: true, ended: false }
    }

    /// RFC 1950, section 2.2: the method is 8, and the first two bytes are a multiple of 31. Everything else is deflate
    /// without zlib's frame.
    fn deflate(first: &[u8]) -> Self {
        let framed = match first {
            [method, flags, ..] => {
                method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0
            }
            _ => false,
        };
        Self { decompress: Decompress::new(framed), members: false, ended: false }
    }

    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        while !input.is_empty() {
            if self.ended {
                if !self.members {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "more follows the end of the data",
                    ));
                }
                *self = Self::gzip();
            }
            input = self.step(input, out)?;
        }
        Ok(())
    }

    /// Decodes until `input` or its member ends, and gives what it leaves of it.
    fn step<'a>(&mut self, mut input: &'a [u8], out: &mut Vec<u8>) -> io::Result<&'a [u8]> {
        loop {
            make_room(out);
            let before = self.decompress.total_in();
            let status = self.decompress.decompress_vec(input, out, FlushDecompress::Sync)?;
            let taken = usize::try_from(self.decompress.total_in() - before).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            self.ended = status == Status::StreamEnd;
            // Where the room is full, more may be ready than went into it.
            if self.ended || (input.is_empty() && out.len() < out.capacity()) {
                return Ok(input);
            }
        }
    }
}

impl Unpack {
    fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW)).ok()?;
        Some(Self { context, ended: true })
    }

    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if input.is_empty() {
            // It would be the beginning of a frame.
            return Ok(());
        }
        let mut input = InBuffer::around(input);
        loop {
            make_room(out);
            let written = out.len();
            let mut output = OutBuffer::around_pos(out, written);
            let left = self.context.decompress_stream(&mut output, &mut input);
            self.ended = left.map_err(|code| io::Error::other(get_error_name(code)))? == 0;
            // Where the room is full, more may be ready than went into it; a frame's end is told when all of it is out.
            let full = out.len() == out.capacity() && !self.ended;
            if input.pos() == input.src.len() && !full {
                return Ok(());
            }
        }
    }
}

/// Room for what comes next.
fn make_room(out: &mut Vec<u8>) {
    if out.capacity() - out.len() < ROOM {
        out.reserve(ROOM);
    }
}

/// The body of an answer that is longer than it may be.
pub(super) fn too_long(limit: usize) -> Error {
    Error::new(
        ErrorKind::ReadFailed,
        format!("the body of the answer is longer than max_response={limit} bytes"),
    )
}

fn broken(error: &io::Error) -> Error {
    let message = format!("the body of the answer is not of the coding that its header names: {error}");
    Error::new(ErrorKind::ProtocolError, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    const TEXT: &[u8] = b"the same words over and over, the same words over and over, the same words";
    /// "hello hello hello hello" as the brotli package encodes it.
    const BROTLI: &[u8] = &[
        0x1b, 0x16, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0x96, 0x6c, 0x20, 0x6f, 0x21, 0x4f,
        0x1c, 0xe0, 0x38,
    ];

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(encoding: &str, body: &[u8], portion: usize) -> Result<Vec<u8>> {
        let mut decoding = Decoding::of(encoding.as_bytes()).unwrap();
        let mut out = Vec::new();
        for portion in body.chunks(portion) {
            decoding.feed(portion, &mut out, 10_000)?;
        }
        decoding.end(&mut out, 10_000)?;
        Ok(out)
    }

    #[test]
    fn every_coding_is_taken_off_in_whatever_portions_it_comes() {
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
        raw.write_all(TEXT).unwrap();
        let coded = [
            ("gzip", gzip(TEXT)),
            ("X-GZip", gzip(TEXT)),
            ("deflate", zlib(TEXT)),
            ("deflate", raw.finish().unwrap()),
            ("zstd", zstd::encode_all(TEXT, 3).unwrap()),
            ("gzip", [gzip(&TEXT[..20]), gzip(&TEXT[20..])].concat()),
            ("zstd", [&TEXT[..20], &TEXT[20..]].map(|part| zstd::encode_all(part, 3).unwrap()).concat()),
            ("gzip, zstd", zstd::encode_all(&gzip(TEXT)[..], 3).unwrap()),
        ];
        for (encoding, body) in coded {
            for portion in [1, 7, 1000] {
                assert_eq!(decode(encoding, &body, portion).unwrap(), TEXT, "{encoding} by {portion}");
            }
        }
    }

    #[test]
    fn brotli_is_taken_off_too() {
        for portion in [1, 1000] {
            assert_eq!(decode("br", BROTLI, portion).unwrap(), b"hello hello hello hello");
        }
    }

    /// Each portion as it leaves an encoder that was flushed after it.
    fn flushed(portions: &[Vec<u8>]) -> Vec<(&'static str, Vec<Vec<u8>>)> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        let write = |encoder: &mut dyn Write, portion: &[u8]| {
            encoder.write_all(portion).unwrap();
            encoder.flush().unwrap();
        };
        let mut coded = ["gzip", "deflate", "deflate", "zstd"].map(|name| (name, Vec::new()));
        for portion in portions {
            write(&mut gzip, portion);
            write(&mut zlib, portion);
            write(&mut raw, portion);
            write(&mut zstd, portion);
            coded[0].1.push(std::mem::take(gzip.get_mut()));
            coded[1].1.push(std::mem::take(zlib.get_mut()));
            coded[2].1.push(std::mem::take(raw.get_mut()));
            coded[3].1.push(std::mem::take(zstd.get_mut()));
        }
        coded.into()
    }

    #[test]
    fn what_was_flushed_comes_out_at_once() {
        let lengths = [1, 2, 13, 300, 4095, 4096, 4097, 100_000, 1, 32 * 1024];
        let portions: Vec<Vec<u8>> =
            lengths.map(|length| (0..length).map(|_| fastrand::u8(b'a'..b'e')).collect()).into();
        for (encoding, coded) in flushed(&portions) {
            let mut decoding = Decoding::of(encoding.as_bytes()).unwrap();
            for (coded, plain) in coded.iter().zip(&portions) {
                let mut out = Vec::new();
                decoding.feed(coded, &mut out, usize::MAX).unwrap();
                assert!(out == *plain, "{encoding}: {} of {}", out.len(), plain.len());
            }
        }
    }

    /// As the brotli package flushes it, with Brotli's quality 5 and a window of 64 KiB.
    #[test]
    fn brotli_that_was_flushed_comes_out_at_once_too() {
        let coded: [(&[u8], &[u8]); 3] = [
            (b"data: hello\n\n", b"\xc0\x00\x10data: hello\n\n"),
            (b"data: hello again\n\n", b"\x90\x00\x00\x40\x4a\x01\x24\x17\x91\x04\x98\x6a\xb0\x33\x0d\x03"),
            (b"data: [DONE]\n\n", b"\x68\x00\x08data: [DONE]\n\n"),
        ];
        let mut decoding = Decoding::of(b"br").unwrap();
        for (plain, coded) in coded {
            let mut out = Vec::new();
            decoding.feed(coded, &mut out, usize::MAX).unwrap();
            assert_eq!(out, plain);
        }
        decoding.feed(b"\x03", &mut Vec::new(), usize::MAX).unwrap();
        decoding.end(&mut Vec::new(), usize::MAX).unwrap();
    }

    #[test]
    fn a_window_beyond_what_the_web_allows_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(24).unwrap();
        encoder.write_all(TEXT).unwrap();
        assert_eq!(
            decode("zstd", &encoder.finish().unwrap(), 1000).unwrap_err().kind(),
            ErrorKind::ProtocolError
        );
    }

    #[test]
    fn what_is_not_of_the_coding_or_breaks_off_is_refused() {
        for encoding in ["gzip", "zstd", "br"] {
            let refused = decode(encoding, b"plain text, nothing else", 1000).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ProtocolError, "{encoding}");
        }
        for (encoding, whole) in [
            ("gzip", gzip(TEXT)),
            ("deflate", zlib(TEXT)),
            ("zstd", zstd::encode_all(TEXT, 3).unwrap()),
            ("br", BROTLI.to_vec()),
        ] {
            for kept in 1..whole.len() {
                let refused = decode(encoding, &whole[..kept], 1000);
                let refused =
                    refused.err().unwrap_or_else(|| panic!("{encoding} at {kept} of {}", whole.len()));
                assert_eq!(refused.kind(), ErrorKind::ProtocolError, "{encoding} at {kept}");
            }
        }
        let refused = decode("deflate", &[&zlib(TEXT)[..], b"more"].concat(), 1000).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ProtocolError);
    }

    #[test]
    fn a_bomb_is_found_at_the_limit() {
        let bomb = gzip(&vec![0; 10_000_000]);
        let refused = decode("gzip", &bomb, 1000).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ReadFailed);
        assert!(refused.message().contains("max_response=10000"), "{refused}");
    }

    #[test]
    fn unknown_codings_leave_the_body_as_it_is() {
        for encoding in ["compress", "gzip, compress", "identity", "", &["gzip"; 6].join(", ")] {
            assert!(Decoding::of(encoding.as_bytes()).is_none(), "{encoding}");
        }
    }

    #[test]
    fn an_empty_body_is_empty_in_every_coding() {
        for encoding in ["gzip", "deflate", "zstd"] {
            assert_eq!(decode(encoding, b"", 1).unwrap(), b"", "{encoding}");
        }
    }
}
