//! Streamed answers that are packed: each piece can be unpacked as soon as it is there.

use std::io::Read;

use flate2::write::GzDecoder;
use penstock::serve::HttpSettings;

use crate::harness::{Talking, said};

/// A piece that looks like the next, as tokens in JSON do.
fn piece(step: usize) -> String {
    format!("the {step}th token of an answer that goes on for some time")
}

/// What unpacks a stream as it comes.
enum Unpacked {
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl Unpacked {
    fn of(coding: &str) -> Self {
        match coding {
            "gzip" => Self::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            _ => Self::Zstd(zstd::stream::write::Decoder::new(Vec::new()).unwrap()),
        }
    }

    /// What can be unpacked by now and was not taken.
    fn add(&mut self, packed: &[u8]) -> Vec<u8> {
        use std::io::Write;
        match self {
            Self::Gzip(decoder) => {
                decoder.write_all(packed).unwrap();
                decoder.flush().unwrap();
                std::mem::take(decoder.get_mut())
            }
            Self::Zstd(decoder) => {
                decoder.write_all(packed).unwrap();
                decoder.flush().unwrap();
                std::mem::take(decoder.get_mut())
            }
        }
    }
}

#[test]
fn each_piece_can_be_unpacked_as_it_comes() {
    for coding in ["gzip", "zstd"] {
        let talking = Talking::open();
        let mut wire = talking.asked_with(&format!("accept-encoding: {coding}\r\n"));
        let talk = talking.take(1);
        talk.say(&piece(0));
        let head = wire.read(false).unwrap();
        assert_eq!(head.header("content-encoding"), Some(coding));
        assert_eq!(head.header("vary"), Some("accept-encoding"));
        let mut unpacked = Unpacked::of(coding);
        assert_eq!(said(&unpacked.add(&wire.chunk().unwrap())), [piece(0)]);
        for step in 1..200 {
            talk.say(&piece(step));
            assert_eq!(said(&unpacked.add(&wire.chunk().unwrap())), [piece(step)], "{coding}");
        }
        talk.fail("it broke off");
        assert_eq!(said(&unpacked.add(&wire.chunks())), ["it broke off"]);
        let (plain, packed) = (talking.counted("plain_bytes_total"), talking.counted("packed_bytes_total"));
        assert!(packed < plain / 10 * 8, "{packed} of {plain}");
        assert_eq!(talking.counted("bytes_total"), packed);
    }
}

#[test]
fn a_packed_stream_ends_as_its_format_does() {
    let talking = Talking::open();
    for coding in ["gzip", "zstd"] {
        let mut wire = talking.asked_with(&format!("accept-encoding: {coding}\r\n"));
        let talk = talking.take(1);
        let texts: Vec<_> = (0..100).map(piece).collect();
        talk.say_all(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        talk.finish();
        wire.read(false).unwrap();
        let packed = wire.chunks();
        let mut plain = Vec::new();
        match coding {
            "gzip" => drop(flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap()),
            _ => plain = zstd::decode_all(&packed[..]).unwrap(),
        }
        assert_eq!(said(&plain), texts);
    }
}

#[test]
fn what_is_not_worth_it_or_not_wanted_is_not_packed() {
    let small = Talking::open();
    let mut wire = small.asked_with("accept-encoding: zstd, gzip\r\n");
    let talk = small.take(1);
    talk.say_at_last("all of it");
    let head = wire.read(false).unwrap();
    assert_eq!(head.header("content-encoding"), None);
    assert_eq!(said(&wire.chunks()), ["all of it"]);

    let off = Talking::with(HttpSettings { compression: false, ..HttpSettings::default() });
    for (talking, fields) in
        [(&off, "accept-encoding: zstd, gzip\r\n"), (&small, "accept-encoding: br\r\n"), (&small, "")]
    {
        let mut wire = talking.asked_with(fields);
        let talk = talking.take(1);
        talk.say(&piece(0));
        let head = wire.read(false).unwrap();
        assert_eq!(head.header("content-encoding"), None, "{fields}");
        talk.finish();
        assert_eq!(said(&wire.chunks()), [piece(0)]);
    }
}

#[test]
fn no_more_than_sixty_four_streams_are_packed_at_a_time() {
    let talking = Talking::open();
    let mut wires: Vec<_> = (0..70).map(|_| talking.asked_with("accept-encoding: zstd\r\n")).collect();
    let talk = talking.take(70);
    talk.say(&piece(0));
    let packed = wires
        .iter_mut()
        .filter_map(|wire| wire.read(false).unwrap().header("content-encoding").map(str::to_owned));
    assert_eq!(packed.count(), 64);
    talk.finish();
    for wire in &mut wires {
        assert!(!wire.chunks().is_empty());
    }
    let mut wire = talking.asked_with("accept-encoding: zstd\r\n");
    let talk = talking.take(1);
    talk.say(&piece(0));
    assert_eq!(wire.read(false).unwrap().header("content-encoding"), Some("zstd"));
    talk.finish();
}
