//! A tunnel through a proxy (RFC 9110, section 9.3.6).

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::io::Stream;
use super::proxy::Proxy;
use crate::error::{Error, ErrorKind, Result};

/// How long the proxy's answer may be, in bytes.
const MOST_ANSWER: usize = 16 * 1024;

/// What a proxy answered to the wish for a tunnel.
enum Answer {
    Opened,
    /// The status line's code and words.
    Refused(String),
}

/// Asks `proxy`, at the other end of `stream`, to pass everything on to `authority`, which is `host:port`. Errors call
/// what is wanted `origin`.
pub(super) async fn open(mut stream: Stream, proxy: &Proxy, authority: &str, origin: &str) -> Result<Stream> {
    let failed = |error: io::Error| {
        let words = super::tls::failure_words(&error);
        let message = format!("the proxy {proxy} failed to open a tunnel to {origin}: {words}");
        Error::with_source(ErrorKind::ConnectFailed, message, error)
    };
    stream.write_all(&request(proxy, authority)).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    match read_answer(&mut stream).await.map_err(failed)? {
        Answer::Opened => Ok(stream),
        Answer::Refused(status) => {
            let hint = match (status.starts_with("407"), &proxy.authorization) {
                (false, _) => "",
                (true, None) => "; give user and password in the proxy's URL",
                (true, Some(_)) => "; it does not accept the user and password of its URL",
            };
            let message = format!("the proxy {proxy} refused a tunnel to {origin}: {status}{hint}");
            Err(Error::new(ErrorKind::ConnectFailed, message))
        }
    }
}

fn request(proxy: &Proxy, authority: &str) -> Vec<u8> {
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

async fn read_answer(stream: &mut Stream) -> io::Result<Answer> {
    let mut read = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the proxy closed the connection"));
        }
        if let Some((answer, length)) = parse(&read)? {
            // Whoever is behind the tunnel waits for the client to speak first.
            if matches!(answer, Answer::Opened) && length < read.len() {
                return Err(broken("it sent more than its answer"));
            }
            return Ok(answer);
        }
        if read.len() > MOST_ANSWER {
            return Err(broken("its answer is longer than 16 KiB"));
        }
    }
}

fn parse(read: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(broken(&format!("its answer is not HTTP ({error})"))),
    };
    let code = answer.code.unwrap_or_default();
    let answer = match code {
        200..300 => Answer::Opened,
        // An interim answer: the one that counts follows.
        100..200 => return read.get(length..).map_or(Ok(None), |rest| parse_behind(rest, length)),
        _ => Answer::Refused(format!("{code} {}", answer.reason.unwrap_or_default()).trim_end().to_owned()),
    };
    Ok(Some((answer, length)))
}

fn parse_behind(rest: &[u8], before: usize) -> io::Result<Option<(Answer, usize)>> {
    Ok(parse(rest)?.map(|(answer, length)| (answer, before + length)))
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
