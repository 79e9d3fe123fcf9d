//! Messages on the wire: each with a flag and its length before it, cut out of whatever pieces HTTP/2 brings.

use std::io::Read;

use bytes::{Buf, Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};

use super::{Code, Status};

/// Bytes before each message: whether it is packed, and its length.
pub const PREFIX: usize = 5;

/// Memory that is made ready for a message before its bytes have come.
const MADE_READY: usize = 1 << 20;

/// What stands before a message of that length that is not packed.
pub fn prefix_of(length: usize) -> [u8; PREFIX] {
    // A message of 4 GiB has no length here; it is far beyond every limit, and the receiver refuses what it says.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

/// A message as it goes over the wire, not packed.
pub fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.extend_from_slice(&prefix_of(length));
    // There is room for all of it.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// How messages are packed where they say that they are (`grpc-encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// None is.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

impl Encoding {
    /// What is understood, as `grpc-accept-encoding` says it.
    pub const ACCEPTED: &'static str = "identity,gzip,deflate";

    /// The encoding of a header `grpc-encoding`.
    ///
    /// # Errors
    /// [`Code::Unimplemented`] for one that is not known.
    pub fn of_header(value: &[u8]) -> Result<Self, Status> {
        match value {
            b"identity" => Ok(Self::Identity),
            b"gzip" => Ok(Self::Gzip),
            b"deflate" => Ok(Self::Deflate),
            other => {
                let other = String::from_utf8_lossy(other);
                let message =
                    format!("grpc-encoding {other} is not understood: gzip, deflate and identity are");
                Err(Status::new(Code::Unimplemented, message))
            }
        }
    }
}

/// Cuts messages out of the pieces of a body.
#[derive(Debug)]
pub struct Messages {
    encoding: Encoding,
    limit: usize,
    /// What the limit is called where it is set.
    limit_name: &'static str,
    /// What has come and belongs to no message yet.
    arrived: Bytes,
    /// A message that came in several pieces.
    whole: BytesMut,
}

impl Messages {
    /// Of at most `limit` bytes each, packed or not; errors call the limit by its name.
    pub fn new(encoding: Encoding, limit: usize, limit_name: &'static str) -> Self {
        Self { encoding, limit, limit_name, arrived: Bytes::new(), whole: BytesMut::new() }
    }

    /// Takes a piece of the body.
    pub fn push(&mut self, piece: Bytes) {
        if self.whole.is_empty() && self.arrived.is_empty() {
            self.arrived = piece;
            return;
        }
        if self.whole.is_empty() {
            let first = std::mem::take(&mut self.arrived);
            self.whole.reserve(self.wanted(&first).min(MADE_READY).max(first.len() + piece.len()));
            self.whole.extend_from_slice(&first);
        }
        self.whole.extend_from_slice(&piece);
    }

    /// The next message, if all of it is there. Where it came in one piece it is not copied, and keeps that piece alive.
    ///
    /// # Errors
    /// [`Code::ResourceExhausted`] beyond the limit; [`Code::Internal`] for a prefix that is none, or for a message that
    /// cannot be unpacked.
    pub fn take(&mut self) -> Result<Option<Bytes>, Status> {
        if !self.whole.is_empty() {
            if self.whole.len() < self.wanted(&self.whole) {
                self.check(&self.whole)?;
                return Ok(None);
            }
            self.arrived = std::mem::take(&mut self.whole).freeze();
        }
        let Some((packed, length)) = self.check(&self.arrived)? else { return Ok(None) };
        if self.arrived.len() - PREFIX < length {
            return Ok(None);
        }
        self.arrived.advance(PREFIX);
        let message = self.arrived.split_to(length);
        if packed { self.unpacked(&message).map(Some) } else { Ok(Some(message)) }
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// [`Code::Internal`] in the middle of a message.
    pub fn end(&self) -> Result<(), Status> {
        if self.arrived.is_empty() && self.whole.is_empty() {
            return Ok(());
        }
        Err(Status::new(Code::Internal, "the body ends in the middle of a message"))
    }

    /// Bytes of the message that `arrived` begins with, its prefix included.
    fn wanted(&self, arrived: &[u8]) -> usize {
        length_of(arrived).map_or(PREFIX, |(_, length)| PREFIX + length.min(self.limit))
    }

    fn check(&self, arrived: &[u8]) -> Result<Option<(bool, usize)>, Status> {
        let Some((flag, length)) = length_of(arrived) else { return Ok(None) };
        if length > self.limit {
            return Err(self.too_large(length));
        }
        match (flag, self.encoding) {
            (0, _) => Ok(Some((false, length))),
            (1, Encoding::Identity) => Err(Status::new(
                Code::Internal,
                "a message says that it is packed, and grpc-encoding does not say how",
            )),
            (1, _) => Ok(Some((true, length))),
            (flag, _) => {
                Err(Status::new(Code::Internal, format!("a message begins with {flag}, which is no flag")))
            }
        }
    }

    fn unpacked(&self, packed: &[u8]) -> Result<Bytes, Status> {
        let most = self.limit as u64 + 1;
        let mut unpacked = Vec::new();
        let read = match self.encoding {
            Encoding::Deflate => ZlibDecoder::new(packed).take(most).read_to_end(&mut unpacked),
            _ => GzDecoder::new(packed).take(most).read_to_end(&mut unpacked),
        };
        match read {
            Ok(_) if unpacked.len() > self.limit => Err(self.too_large(unpacked.len())),
            Ok(_) => Ok(unpacked.into()),
            Err(error) => {
                Err(Status::new(Code::Internal, format!("a message could not be unpacked: {error}")))
            }
        }
    }

    fn too_large(&self, length: usize) -> Status {
        let message =
            format!("a message of {length} bytes or more exceeds {}={} bytes", self.limit_name, self.limit);
        Status::new(Code::ResourceExhausted, message)
    }
}

/// The flag and the length that a message begins with.
fn length_of(arrived: &[u8]) -> Option<(u8, usize)> {
    let ([flag, length @ ..], _) = arrived.split_first_chunk::<PREFIX>()?;
    Some((*flag, usize::try_from(u32::from_be_bytes(*length)).ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn wire(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut out = prefix_of(message.len()).to_vec();
        out[0] = flag;
        out.extend_from_slice(message);
        out
    }

    fn read(encoding: Encoding, limit: usize, pieces: &[&[u8]]) -> Result<Vec<Bytes>, Status> {
        let mut messages = Messages::new(encoding, limit, "max_body");
        let mut found = Vec::new();
        for piece in pieces {
            messages.push(Bytes::copy_from_slice(piece));
            while let Some(message) = messages.take()? {
                found.push(message);
            }
        }
        messages.end()?;
        Ok(found)
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|message| wire(0, message)).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let found = read(Encoding::Identity, 300, &pieces).unwrap();
            prop_assert_eq!(found.iter().map(|message| message.to_vec()).collect::<Vec<_>>(), sent);
        }

        #[test]
        fn whatever_comes_is_read_or_refused(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Deflate] {
                drop(read(encoding, 64, &pieces));
            }
        }
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_before_it_has_come() {
        let refused = read(Encoding::Identity, 10, &[&prefix_of(11)]).unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert!(refused.message.contains("max_body=10"), "{}", refused.message);
        let refused = read(Encoding::Identity, 10, &[&prefix_of(11)[..3], &prefix_of(11)[3..]]).unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
    }

    #[test]
    fn packed_messages_are_unpacked_within_the_limit() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&[7; 100]).unwrap();
        let gzip = wire(1, &gzip.finish().unwrap());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&[7; 100]).unwrap();
        let zlib = wire(1, &zlib.finish().unwrap());
        assert_eq!(read(Encoding::Gzip, 100, &[&gzip]).unwrap(), [vec![7; 100]]);
        assert_eq!(read(Encoding::Deflate, 100, &[&zlib]).unwrap(), [vec![7; 100]]);
        assert_eq!(read(Encoding::Gzip, 99, &[&gzip]).unwrap_err().code, Code::ResourceExhausted);
        assert_eq!(read(Encoding::Deflate, 100, &[&gzip]).unwrap_err().code, Code::Internal);
        assert_eq!(read(Encoding::Identity, 100, &[&gzip]).unwrap_err().code, Code::Internal);
    }

    #[test]
    fn a_body_that_breaks_off_and_a_flag_that_is_none_are_refused() {
        assert_eq!(read(Encoding::Identity, 9, &[&wire(0, b"abc")[..7]]).unwrap_err().code, Code::Internal);
        assert_eq!(read(Encoding::Identity, 9, &[b"\0\0"]).unwrap_err().code, Code::Internal);
        assert_eq!(read(Encoding::Gzip, 9, &[&wire(2, b"abc")]).unwrap_err().code, Code::Internal);
        assert_eq!(Encoding::of_header(b"br").unwrap_err().code, Code::Unimplemented);
    }
}
