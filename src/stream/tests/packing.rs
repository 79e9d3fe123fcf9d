use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzDecoder;
use proptest::prelude::*;

use crate::stream::{Coding, Packer, is_worth, write_event};

const CODINGS: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

/// Takes the coding off as it comes.
enum Unpacker {
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl Unpacker {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            Coding::Zstd => Self::Zstd(zstd::stream::write::Decoder::new(Vec::new()).unwrap()),
        }
    }

    /// What can be had of all that was fed so far.
    fn feed(&mut self, packed: &[u8]) -> &[u8] {
        match self {
            Self::Gzip(decoder) => {
                decoder.write_all(packed).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref()
            }
            Self::Zstd(decoder) => {
                decoder.write_all(packed).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref()
            }
        }
    }
}

fn unpacked(coding: Coding, packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        Coding::Gzip => MultiGzDecoder::new(packed).read_to_end(&mut plain).map(drop).unwrap(),
        Coding::Zstd => plain = zstd::decode_all(packed).unwrap(),
    }
    plain
}

fn packed(coding: Coding, portions: &[Vec<u8>]) -> Vec<u8> {
    let (mut packer, mut out) = (Packer::new(coding), Vec::new());
    for portion in portions {
        packer.push(portion, &mut out);
    }
    packer.finish(&mut out);
    assert_eq!(unpacked(coding, &out), portions.concat(), "{coding:?}");
    out
}

fn event(number: usize) -> Vec<u8> {
    let words = ["the", " river", " ran", " down", " a", " hill", " and", " Kühe", " stood"];
    let word = words[number * 7 % words.len()];
    let json = format!(
        "{{\"id\":\"chatcmpl-81c5f3f0c7\",\"object\":\"chat.completion.chunk\",\"created\":1753776000,\
         \"model\":\"tiny\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}},\"finish_reason\":null}}]}}",
    );
    let mut out = Vec::new();
    write_event(&mut out, None, None, json.as_bytes());
    out
}

fn events(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(event).collect()
}

fn noise(count: usize, length: usize) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..count).map(|_| (0..length).map(|_| random.u8(..)).collect()).collect()
}

#[test]
fn every_event_can_be_had_as_soon_as_it_is_out() {
    for coding in CODINGS {
        let (mut packer, mut unpacker) = (Packer::new(coding), Unpacker::new(coding));
        let mut plain = Vec::new();
        // Noise makes it go over to stored blocks on the way.
        for portion in events(50).iter().chain(&noise(20, 5000)).chain(&events(50)) {
            let mut out = Vec::new();
            packer.push(portion, &mut out);
            plain.extend_from_slice(portion);
            assert_eq!(unpacker.feed(&out), plain, "{coding:?}");
        }
        let mut out = Vec::new();
        packer.finish(&mut out);
        assert_eq!(unpacker.feed(&out), plain);
    }
}

#[test]
fn a_stream_of_events_takes_a_tenth_of_its_bytes() {
    for coding in CODINGS {
        let plain = events(1000).concat().len();
        let packed = packed(coding, &events(1000)).len();
        assert!(packed * 10 < plain, "{coding:?}: {packed} of {plain}");
    }
}

#[test]
fn what_saves_nothing_is_stored_for_a_few_bytes_more() {
    for coding in CODINGS {
        let portions = noise(100, 10_000);
        let packed = packed(coding, &portions).len();
        assert!(packed < 1_000_000 + 5_000, "{coding:?}: {packed} bytes of 1,000,000");
    }
    let (mut packer, mut out) = (Packer::new(Coding::Zstd), Vec::new());
    packer.push(&noise(1, 100_000)[0], &mut out);
    assert_eq!(packer.memory(), None, "the compressor is gone");
}

#[test]
fn portions_of_any_length_pack_and_so_does_none() {
    for coding in CODINGS {
        packed(coding, &[]);
        packed(coding, &[Vec::new()]);
        packed(coding, &[vec![b'x'; 3_000_000]]);
        packed(coding, &[vec![b'x'; 10], Vec::new(), event(1)]);
        // What fills the room of the output to its last byte is no end of it.
        for length in 1..300 {
            packed(coding, &[vec![b'x'; length]]);
        }
        for length in 900..1100 {
            packed(coding, &noise(2, length));
        }
    }
}

#[test]
fn a_packer_takes_little_memory() {
    let (mut packer, mut out) = (Packer::new(Coding::Zstd), Vec::new());
    for event in events(1000) {
        packer.push(&event, &mut out);
    }
    let memory = packer.memory().unwrap();
    assert!(memory <= Coding::Zstd.memory(), "{memory} bytes");
}

#[test]
fn packing_is_worth_it_for_long_streams_that_repeat_themselves() {
    let random = &noise(1, 4000)[0];
    assert!(!is_worth(&event(1), 1024), "1 KiB is too short");
    assert!(is_worth(&event(1), 1025));
    assert!(is_worth(&event(1), usize::MAX));
    assert!(is_worth(&events(20).concat(), usize::MAX));
    assert!(is_worth(&vec![b'x'; 2000], 2000));
    assert!(!is_worth(random, usize::MAX), "noise");
    assert!(!is_worth(b"a", usize::MAX), "what packs a byte into five");
    assert!(!is_worth(b"", usize::MAX), "nothing to judge by");
}

proptest! {
    #[test]
    fn any_portions_come_back(
        portions in proptest::collection::vec(proptest::collection::vec(0..4_u8, 0..5000), 0..12),
        random in any::<bool>(),
    ) {
        for coding in CODINGS {
            packed(coding, &portions);
            if random {
                packed(coding, &[portions.concat(), noise(1, 40_000).concat(), portions.concat()]);
            }
        }
    }
}
