//! A request's body: read whole, within its limits, and unpacked.

use std::future::poll_fn;
use std::io::Read;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;

use super::HttpSettings;
use crate::flow::offload;

/// A request that is refused with a status that stands in no table of errors.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// What it is counted as.
    pub(super) reason: &'static str,
    /// True where the rest of the body is not read: nothing can follow it on an HTTP/1 connection.
    pub(super) unread: bool,
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zlib,
}

/// Reads a whole body; `arrived` is called as soon as it is here, before it is unpacked.
///
/// # Errors
/// 413 where it exceeds `max_body`, packed or unpacked; 408 where it takes longer than `body_timeout`; 415 where it is
/// packed in a way that is not understood; 400 where it breaks off or cannot be unpacked.
///
/// # Cancellation
/// What was read is dropped with the future.
pub(super) async fn read<B>(
    body: B,
    headers: &HeaderMap,
    limits: &HttpSettings,
    arrived: impl FnOnce(),
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let coding = coding(headers)?;
    // Said ahead, it need not be read: the connection closes instead of carrying it.
    if body.size_hint().lower() > limits.max_body as u64 {
        return Err(too_large(limits));
    }
    let mut collected = pin!(Limited::new(body, limits.max_body).collect());
    // Mostly the body has come with the head: a timer only where it has not.
    let at_once = poll_fn(|context| Poll::Ready(collected.as_mut().poll(context))).await;
    let collected = match at_once {
        Poll::Ready(collected) => collected,
        // Boxed, as what follows for packed bodies: few requests need it, and all would have room for it.
        Poll::Pending => {
            Box::pin(tokio::time::timeout(limits.body_timeout, collected)).await.map_err(|_| {
                let message = format!("the body took longer than body_timeout={:?}", limits.body_timeout);
                refusal(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
            })?
        }
    };
    let bytes = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return too_large(limits);
        }
        refusal(StatusCode::BAD_REQUEST, "body", format!("the body could not be read: {error}"))
    })?;
    let bytes = bytes.to_bytes();
    arrived();
    match coding {
        None => Ok(bytes),
        Some(coding) => {
            let limits = limits.clone();
            // What a packed body unfolds to does not show in its length.
            Box::pin(offload::run(usize::MAX, move || unpack(coding, &bytes, &limits))).await
        }
    }
}

/// A body of which nothing is wanted is read past up to that many bytes, and for that long.
const LITTLE: usize = 256 << 10;
const A_MOMENT: Duration = Duration::from_secs(1);

/// Reads past the rest of a body where that is little; true where it came to its end.
///
/// # Cancellation
/// What was read is gone.
pub(super) async fn read_past<B: Body<Data = Bytes>>(mut body: Pin<&mut B>) -> bool {
    let mut left = LITTLE;
    let to_the_end = async {
        loop {
            if body.size_hint().lower() > left as u64 {
                return false;
            }
            match body.as_mut().frame().await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => {
                    let read = frame.data_ref().map_or(0, Bytes::len);
                    let Some(rest) = left.checked_sub(read) else { return false };
                    left = rest;
                }
            }
        }
    };
    tokio::time::timeout(A_MOMENT, to_the_end).await.unwrap_or(false)
}

/// A header that says something of the body, and means something only where it is there once.
pub(super) enum Only<'a> {
    None,
    One(&'a HeaderValue),
    Several,
}

/// Looks for the one header of that name.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Only<'a> {
    let mut given = headers.get_all(name).iter();
    match (given.next(), given.next()) {
        (None, _) => Only::None,
        (Some(value), None) => Only::One(value),
        _ => Only::Several,
    }
}

fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Refusal> {
    let named = match only(headers, &header::CONTENT_ENCODING) {
        Only::None => return Ok(None),
        Only::Several => return Err(unknown_coding("several codings")),
        Only::One(named) => named,
    };
    let named = named.to_str().unwrap_or("?").trim();
    let is = |name: &str| named.eq_ignore_ascii_case(name);
    match () {
        () if is("identity") => Ok(None),
        () if is("gzip") || is("x-gzip") => Ok(Some(Coding::Gzip)),
        () if is("deflate") => Ok(Some(Coding::Zlib)),
        () => Err(unknown_coding(named)),
    }
}

fn unpack(coding: Coding, packed: &[u8], limits: &HttpSettings) -> Result<Bytes, Refusal> {
    let most = limits.max_body as u64;
    let mut unpacked = Vec::new();
    let read = match coding {
        Coding::Gzip => MultiGzDecoder::new(packed).take(most + 1).read_to_end(&mut unpacked),
        Coding::Zlib => ZlibDecoder::new(packed).take(most + 1).read_to_end(&mut unpacked),
    };
    match read {
        Ok(_) if unpacked.len() as u64 > most => Err(Refusal { unread: false, ..too_large(limits) }),
        Ok(_) => Ok(Bytes::from(unpacked)),
        Err(error) => {
            let message = format!("the body could not be unpacked: {error}");
            Err(Refusal { unread: false, ..refusal(StatusCode::BAD_REQUEST, "body", message) })
        }
    }
}

fn too_large(limits: &HttpSettings) -> Refusal {
    let message = format!("the body is larger than max_body={} bytes", limits.max_body);
    refusal(StatusCode::PAYLOAD_TOO_LARGE, "max_body", message)
}

fn unknown_coding(named: &str) -> Refusal {
    let message = format!("content-encoding {named} is not understood: gzip, deflate and identity are");
    Refusal { unread: false, ..refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body", message) }
}

fn refusal(status: StatusCode, reason: &'static str, message: String) -> Refusal {
    Refusal { status, message, reason, unread: true }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use http_body_util::Full;

    use super::*;

    fn limits() -> HttpSettings {
        HttpSettings { max_body: 1_000, body_timeout: Duration::from_secs(1), ..HttpSettings::default() }
    }

    fn packed_as(name: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, name.parse().unwrap());
        headers
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap().into()
    }

    fn zlib(bytes: &[u8]) -> Bytes {
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap().into()
    }

    async fn status(bytes: Bytes, headers: &HeaderMap) -> u16 {
        read(Full::new(bytes), headers, &limits(), || {}).await.unwrap_err().status.as_u16()
    }

    #[tokio::test]
    async fn bodies_come_out_as_they_went_in() {
        let text = b"{\"inputs\": []}".as_slice();
        for (bytes, headers) in [
            (Bytes::from_static(text), HeaderMap::new()),
            (Bytes::from_static(text), packed_as("identity")),
            (gzip(text), packed_as("gzip")),
            (gzip(text), packed_as("X-GZIP")),
            (zlib(text), packed_as("deflate")),
        ] {
            assert_eq!(read(Full::new(bytes), &headers, &limits(), || {}).await.unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_body_that_unfolds_beyond_the_limit_is_refused() {
        assert_eq!(status(gzip(&[0; 1_001]), &packed_as("gzip")).await, 413);
        assert_eq!(status(zlib(&vec![0; 50 << 20]), &packed_as("deflate")).await, 413);
        assert_eq!(status(Bytes::from(vec![0; 1_001]), &HeaderMap::new()).await, 413);
        assert!(read(Full::new(gzip(&[0; 1_000])), &packed_as("gzip"), &limits(), || {}).await.is_ok());
    }

    #[tokio::test]
    async fn what_cannot_be_unpacked_is_refused() {
        assert_eq!(status(Bytes::from_static(b"plain"), &packed_as("gzip")).await, 400);
        let whole = gzip(b"some text");
        assert_eq!(status(whole.slice(..whole.len() - 4), &packed_as("gzip")).await, 400);
        assert_eq!(status(Bytes::from_static(b"x"), &packed_as("br")).await, 415);
        assert_eq!(status(Bytes::from_static(b"x"), &packed_as("gzip, gzip")).await, 415);
        let mut twice = packed_as("gzip");
        twice.append(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(status(Bytes::from_static(b"x"), &twice).await, 415);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_refused_in_time() {
        let endless = http_body_util::StreamBody::new(Silent);
        assert_eq!(read(endless, &HeaderMap::new(), &limits(), || {}).await.unwrap_err().status, 408);
    }

    struct Silent;

    impl futures_core::Stream for Silent {
        type Item = Result<hyper::body::Frame<Bytes>, std::convert::Infallible>;

        fn poll_next(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<Option<Self::Item>> {
            Poll::Pending
        }
    }
}
