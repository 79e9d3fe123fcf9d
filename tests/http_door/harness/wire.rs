//! The client's side of a test: one socket, and answers parsed by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde_json::Value;

use super::PATIENCE;

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, headers: Vec<(String, String)>, body: Vec<u8>) -> Self {
        Self { status, headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The message of an error.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    /// The value of a header that must be there, as a number.
    pub(crate) fn header_number(&self, name: &str) -> usize {
        self.header(name).unwrap_or_else(|| panic!("there is no {name}")).parse().unwrap()
    }

    /// Fails unless this is a refusal of that status, in JSON, after which the server hangs up.
    pub(crate) fn assert_last_words(&self, status: u16) {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert!(!self.error().is_empty());
        assert_eq!(self.header("connection"), Some("close"));
    }

    /// The first output's numbers.
    pub(crate) fn numbers(&self) -> Vec<f64> {
        assert_eq!(self.status, 200, "{}", self.text());
        let json = self.json();
        let data = json["outputs"][0]["data"].as_array().unwrap();
        data.iter().map(|number| number.as_f64().unwrap()).collect()
    }
}

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    unread: Vec<u8>,
}

impl Wire {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, tls: None, unread: Vec::new() }
    }

    /// As [`open`](Self::open), encrypted; the handshake comes with the first bytes that are sent.
    pub(crate) fn encrypted(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::from(address.ip());
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self { tls: Some(Box::new(tls)), ..Self::open(address) }
    }

    /// What the handshake came to.
    pub(crate) fn handshake(&mut self) -> std::io::Result<()> {
        let tls = self.tls.as_mut().unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut self.stream)?;
        }
        Ok(())
    }

    /// The encrypted side of it.
    pub(crate) fn tls(&self) -> &ClientConnection {
        self.tls.as_ref().unwrap()
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Says, encrypted, that no more will be sent.
    pub(crate) fn notify_close(&mut self) {
        let tls = self.tls.as_mut().unwrap();
        tls.send_close_notify();
        while tls.wants_write() {
            tls.write_tls(&mut self.stream).unwrap();
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.write(bytes.as_ref()).unwrap();
    }

    /// As [`send`](Self::send), where the server may have hung up.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.write(bytes.as_ref());
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(&mut **tls, &mut self.stream);
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    /// The next answer; interim ones are skipped, as RFC 9110, section 15.2, asks of every client.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("the server hung up")
    }

    /// The next answer, or none where the server hung up.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.read(true)?;
            if answer.status >= 200 {
                return Some(answer);
            }
        }
    }

    /// An answer without a body, whatever its length says.
    pub(crate) fn head(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.read(false).expect("the server hung up")
    }

    /// The next answer as it comes, an interim one too, or none where the server hung up.
    pub(crate) fn read(&mut self, with_body: bool) -> Option<Answer> {
        let end = loop {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None if self.more() => {}
                None => return None,
            }
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        });
        let mut answer = Answer { status, headers: headers.collect(), body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if with_body {
            while self.unread.len() < length {
                assert!(self.more(), "the answer breaks off");
            }
            answer.body = self.unread.drain(..length).collect();
        }
        Some(answer)
    }

    /// The next chunk of a chunked body: empty at its end, or none where the server hung up.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = loop {
            match self.unread.windows(2).position(|two| two == b"\r\n") {
                Some(end) => break self.bytes(end + 2)?,
                None if self.more() => {}
                None => return None,
            }
        };
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim_end(), 16).unwrap();
        let mut chunk = self.bytes(length + 2)?;
        chunk.truncate(length);
        Some(chunk)
    }

    /// The rest of a chunked body.
    pub(crate) fn chunks(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let chunk = self.chunk().expect("the server hung up");
            if chunk.is_empty() {
                return all;
            }
            all.extend(chunk);
        }
    }

    /// True once the server has hung up without another word.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.unread.is_empty() && !self.more()
    }

    /// The next bytes, or none where the server hung up before them.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            if !self.more() {
                return None;
            }
        }
        Some(self.unread.drain(..count).collect())
    }

    /// True where something can be read, be it the end.
    pub(crate) fn has_come(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let looked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Says that no more will be sent, unless the server has hung up already.
    pub(crate) fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads on; false where the server hung up.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let read = match &mut self.tls {
            None => self.stream.read(&mut buffer),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(&mut buffer),
        };
        match read {
            Ok(0) => false,
            Ok(read) => {
                self.unread.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                false
            }
            Err(error) => panic!("no answer came: {error}"),
        }
    }
}
