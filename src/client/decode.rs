//! Content codings of answers taken off as they come: gzip, deflate, br and zstd (RFC 9110, section 8.4.1; RFC 7932; RFC 8878).

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::error::{Error, ErrorKind, Result};

/// What a request says that it accepts.
pub const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// Bytes that go in before the length of what came out is looked at: a bomb is found while it is small.
const STEP: usize = 16 * 1024;
const BROTLI_BUFFER: usize = 16 * 1024;

/// The codings of one body, the outermost first.
pub(super) struct Decoding {
    layers: Vec<Layer>,
    /// No byte at all is an empty body, in every coding.
    begun: bool,
}

enum Layer {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// Its first bytes tell which of two formats it is: servers send both under this name.
    Deflate(Vec<u8>),
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    RawDeflate(Box<DeflateDecoder<Vec<u8>>>),
    Brotli(Box<DecompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Vec<u8>>>),
}

impl Decoding {
    /// For the value of a `content-encoding` field. None where a coding is not known: the body stays as it is.
    pub(super) fn of(encoding: &[u8]) -> Option<Self> {
        let mut layers = Vec::new();
        for name in encoding.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).rev() {
            if !name.eq_ignore_ascii_case(b"identity") && !name.is_empty() {
                layers.push(Layer::of(name)?);
            }
        }
        (!layers.is_empty()).then_some(Self { layers, begun: false })
    }

    /// Decodes a portion, and adds what comes of it to `out`, which may not grow beyond `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::ProtocolError`] for what is not of the coding, [`ErrorKind::ReadFailed`] beyond the limit.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<()> {
        self.begun |= !input.is_empty();
        for step in input.chunks(STEP) {
            let mut data = step.to_vec();
            for layer in &mut self.layers {
                data = layer.feed(&data).map_err(|error| broken(&error))?;
            }
            out.extend_from_slice(&data);
            if out.len() > limit {
                return Err(too_long(limit));
            }
        }
        Ok(())
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
            data = layer.end(&data).map_err(|error| broken(&error))?;
        }
        out.extend_from_slice(&data);
        if out.len() > limit { Err(too_long(limit)) } else { Ok(()) }
    }
}

impl Layer {
    fn of(name: &[u8]) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Some(match name.as_slice() {
            b"gzip" | b"x-gzip" => Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            b"deflate" => Self::Deflate(Vec::new()),
            b"br" => Self::Brotli(Box::new(DecompressorWriter::new(Vec::new(), BROTLI_BUFFER))),
            b"zstd" => Self::Zstd(Box::new(zstd::stream::write::Decoder::new(Vec::new()).ok()?)),
            _ => return None,
        })
    }

    fn feed(&mut self, input: &[u8]) -> io::Result<Vec<u8>> {
        if let Self::Deflate(first) = self {
            first.extend_from_slice(input);
            if first.len() < 2 {
                return Ok(Vec::new());
            }
            let first = std::mem::take(first);
            *self = Self::deflate(&first);
            return self.feed(&first);
        }
        match self {
            Self::Gzip(decoder) => decoder.write_all(input).map(|()| std::mem::take(decoder.get_mut())),
            Self::Zlib(decoder) => decoder.write_all(input).map(|()| std::mem::take(decoder.get_mut())),
            Self::RawDeflate(decoder) => decoder.write_all(input).map(|()| std::mem::take(decoder.get_mut())),
            Self::Brotli(decoder) => decoder.write_all(input).map(|()| std::mem::take(decoder.get_mut())),
            Self::Zstd(decoder) => decoder.write_all(input).map(|()| std::mem::take(decoder.get_mut())),
            Self::Deflate(_) => Ok(Vec::new()),
        }
    }

    /// RFC 1950, section 2.2: the method is 8, and the first two bytes are a multiple of 31.
    fn deflate(first: &[u8]) -> Self {
        match first {
            [method, flags, ..]
                if method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0 =>
            {
                Self::Zlib(Box::new(ZlibDecoder::new(Vec::new())))
            }
            _ => Self::RawDeflate(Box::new(DeflateDecoder::new(Vec::new()))),
        }
    }

    fn end(&mut self, rest: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = self.feed(rest)?;
        match self {
            Self::Gzip(decoder) => decoder.try_finish().map(|()| out.append(decoder.get_mut()))?,
            Self::Zlib(decoder) => decoder.try_finish().map(|()| out.append(decoder.get_mut()))?,
            Self::RawDeflate(decoder) => decoder.try_finish().map(|()| out.append(decoder.get_mut()))?,
            Self::Brotli(decoder) => decoder.close().map(|()| out.append(decoder.get_mut()))?,
            Self::Zstd(decoder) => decoder.flush().map(|()| out.append(decoder.get_mut()))?,
            Self::Deflate(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(out)
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
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(TEXT).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
        raw.write_all(TEXT).unwrap();
        let coded = [
            ("gzip", gzip(TEXT)),
            ("X-GZip", gzip(TEXT)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
            ("zstd", zstd::encode_all(TEXT, 3).unwrap()),
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

    #[test]
    fn what_is_not_of_the_coding_or_breaks_off_is_refused() {
        for encoding in ["gzip", "zstd", "br"] {
            let refused = decode(encoding, b"plain text, nothing else", 1000).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ProtocolError, "{encoding}");
        }
        let whole = gzip(TEXT);
        let refused = decode("gzip", &whole[..whole.len() - 9], 1000).unwrap_err();
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
        for encoding in ["compress", "gzip, compress", "identity", ""] {
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
