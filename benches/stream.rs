//! Streams as bytes: what an event costs to decode, to write and to pack, in the shape that OpenAI gives it.

use std::collections::VecDeque;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use penstock::stream::{Coding, LineDecoder, MAX_EVENT, Packer, SseDecoder, write_event, write_line};

/// Events of one stream.
const EVENTS: usize = 1024;
const WORDS: [&str; 8] = [" the", " river", " ran", " down", " a", " hill", ".", "\\n"];

fn chunks() -> Vec<String> {
    let chunk = |word| {
        format!(
            "{{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\
             \"created\":1741569952,\"model\":\"tiny\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}},\
             \"finish_reason\":null}}]}}"
        )
    };
    (0..EVENTS)
        .map(|number| chunk(WORDS.get(number * 5 % WORDS.len()).copied().unwrap_or_default()))
        .collect()
}

fn written(chunks: &[String], write: impl Fn(&mut Vec<u8>, &[u8])) -> Vec<Vec<u8>> {
    let one = |chunk: &String| {
        let mut out = Vec::new();
        write(&mut out, chunk.as_bytes());
        out
    };
    chunks.iter().map(one).collect()
}

fn decoding(criterion: &mut Criterion, events: &[Vec<u8>]) {
    let mut group = criterion.benchmark_group("stream/decode");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let whole = events.concat();
    // As events come one by one, and as a busy connection brings them.
    for (name, portions) in
        [("paced", events.to_vec()), ("burst", whole.chunks(16 * 1024).map(<[u8]>::to_vec).collect())]
    {
        group.bench_function(name, |bencher| {
            let mut out = VecDeque::new();
            bencher.iter(|| {
                let mut decoder = SseDecoder::new(MAX_EVENT);
                for portion in &portions {
                    drop(decoder.feed(black_box(portion), &mut out));
                }
                assert_eq!(out.len(), EVENTS);
                out.clear();
            });
        });
    }
    group.finish();
}

fn lines(criterion: &mut Criterion, body: &[u8]) {
    let mut group = criterion.benchmark_group("stream/lines");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("burst", |bencher| {
        let mut out = VecDeque::new();
        bencher.iter(|| {
            let mut decoder = LineDecoder::new(MAX_EVENT);
            for portion in body.chunks(16 * 1024) {
                drop(decoder.feed(black_box(portion), &mut out));
            }
            assert_eq!(out.len(), EVENTS);
            out.clear();
        });
    });
    group.finish();
}

fn encoding(criterion: &mut Criterion, chunks: &[String]) {
    let mut group = criterion.benchmark_group("stream/encode");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("event", |bencher| {
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            for chunk in chunks {
                write_event(&mut out, None, None, black_box(chunk.as_bytes()));
            }
            black_box(out.len())
        });
    });
    group.finish();
}

fn packing(criterion: &mut Criterion, events: &[Vec<u8>]) {
    let mut group = criterion.benchmark_group("stream/pack");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for coding in [Coding::Zstd, Coding::Gzip] {
        group.bench_function(coding.name(), |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                let mut packer = Packer::new(coding);
                for event in events {
                    out.clear();
                    packer.push(black_box(event), &mut out);
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let chunks = chunks();
    let events = written(&chunks, |out, chunk| write_event(out, None, None, chunk));
    decoding(&mut criterion, &events);
    lines(&mut criterion, &written(&chunks, write_line).concat());
    encoding(&mut criterion, &chunks);
    packing(&mut criterion, &events);
    criterion.final_summary();
}
