//! Texts of several workers as one: against a parser of its own, which knows what the format asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{LockCounts, Outcome, Registry, merge};

type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq)]
struct Parsed {
    about: BTreeMap<String, String>,
    /// Name, labels, and the rest of the line.
    samples: Vec<(String, Labels, String)>,
}

/// Families by name, in the order of the text; panics where the text is not valid.
fn parse(text: &str) -> Vec<(String, Parsed)> {
    let mut families: Vec<(String, Parsed)> = Vec::new();
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    assert!(!body.contains("# EOF\n"), "{text}");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(3, ' ').collect();
            if families.last().is_none_or(|(name, _)| name != words[1]) {
                let new = Parsed { about: BTreeMap::new(), samples: Vec::new() };
                families.push((words[1].to_owned(), new));
            }
            let family = &mut families.last_mut().unwrap().1;
            assert!(family.samples.is_empty(), "described after its samples: {line}");
            let before = family.about.insert(words[0].to_owned(), words[2].to_owned());
            assert!(before.is_none(), "described twice: {line}");
            continue;
        }
        let (name, labels, rest) = parse_sample(line);
        if families.last().is_none_or(|(family, _)| !name.starts_with(family.as_str())) {
            families.push((name.clone(), Parsed { about: BTreeMap::new(), samples: Vec::new() }));
        }
        families.last_mut().unwrap().1.samples.push((name, labels, rest));
    }
    let names: BTreeSet<_> = families.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), families.len(), "a family stands twice:\n{text}");
    let samples = families.iter().flat_map(|(_, family)| &family.samples);
    let mut seen = BTreeSet::new();
    for (name, labels, _) in samples {
        assert!(seen.insert((name.clone(), labels.clone())), "a sample stands twice: {name} {labels:?}");
    }
    families
}

fn parse_sample(line: &str) -> (String, Labels, String) {
    let name: String = line.chars().take_while(|letter| !['{', ' '].contains(letter)).collect();
    let mut letters = line[name.len()..].chars().peekable();
    let mut labels = Labels::new();
    if letters.peek() == Some(&'{') {
        letters.next();
        while letters.peek() != Some(&'}') {
            let key: String = letters.by_ref().take_while(|letter| *letter != '=').collect();
            assert_eq!(letters.next(), Some('"'));
            let mut value = String::new();
            loop {
                match letters.next().expect("a value ends") {
                    '"' => break,
                    '\\' => match letters.next().unwrap() {
                        'n' => value.push('\n'),
                        other => value.push(other),
                    },
                    other => value.push(other),
                }
            }
            assert!(labels.insert(key, value).is_none(), "a label stands twice: {line}");
            if letters.peek() == Some(&',') {
                letters.next();
            }
        }
        letters.next();
    }
    assert_eq!(letters.next(), Some(' '), "{line}");
    (name, labels, letters.collect())
}

fn texts(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(worker, text)| ((*worker).to_owned(), (*text).to_owned())).collect()
}

fn registry(requests: u64) -> String {
    let registry = Arc::new(Registry::new());
    for name in ["digits", "a \"quoted\\\" name\nof two lines, {really}"] {
        let model = registry.model(name);
        (0..requests).for_each(|_| model.request(Outcome::Ok, Duration::from_millis(2)));
        model.batch(3, "tick");
        model.observe(1, 0, &LockCounts::new());
    }
    registry.text()
}

#[test]
fn families_stand_once_with_the_samples_of_every_worker() {
    let merged = merge(&texts(&[
        ("0", "# TYPE a counter\n# HELP a What a is\na_total 1\n# TYPE b gauge\nb{x=\"1\"} 2\n# EOF\n"),
        ("1", "# TYPE b gauge\n# UNIT b rows\n# HELP b What b is\nb{x=\"1\"} 3 17.5\nc 4\n# EOF\n"),
        ("2", "# EOF"),
    ]));
    assert_eq!(
        merged.text,
        "# TYPE a counter\n# HELP a What a is\na_total{worker=\"0\"} 1\n\
         # TYPE b gauge\n# UNIT b rows\n# HELP b What b is\nb{worker=\"0\",x=\"1\"} 2\n\
         b{worker=\"1\",x=\"1\"} 3 17.5\nc{worker=\"1\"} 4\n# EOF\n"
    );
    assert!(merged.refused.is_empty());
}

#[test]
fn what_stands_in_quotes_and_behind_values_is_kept() {
    let line = r#"h_bucket{le="+Inf",p="a\"},b=\\"} 7 1.5 # {id="x # {\"y\"} 1",t="}"} 0.5 1e9"#;
    let text = format!("# TYPE h histogram\n{line}\nh_count{{p=\"\"}} NaN\nh_sum{{}} -Inf\n# EOF\n");
    let merged = merge(&texts(&[("w\"\\\n", &text)]));
    assert_eq!(merged.refused, []);
    let worker = r#"{worker="w\"\\\n""#;
    let expected = format!(
        "# TYPE h histogram\n{}\nh_count{worker},p=\"\"}} NaN\nh_sum{worker}}} -Inf\n# EOF\n",
        line.replace("h_bucket{", &format!("h_bucket{worker},"))
    );
    assert_eq!(merged.text, expected);
    parse(&merged.text);
}

#[test]
fn the_servers_own_text_is_merged() {
    let alone = parse(&registry(2));
    let merged = merge(&[("a".to_owned(), registry(2)), ("b".to_owned(), registry(5))]);
    assert_eq!(merged.refused, []);
    let together = parse(&merged.text);
    assert_eq!(together.len(), alone.len());
    for ((name, family), (before, was)) in together.iter().zip(&alone) {
        assert_eq!((name, &family.about), (before, &was.about));
        assert_eq!(family.samples.len(), was.samples.len() * 2);
    }
    for (worker, count) in [("a", 2), ("b", 5)] {
        let line =
            format!("penstock_request_seconds_count{{worker=\"{worker}\",model=\"digits\"}} {count}\n");
        assert!(merged.text.contains(&line), "{line} is not in\n{}", merged.text);
    }
}

#[test]
fn a_text_that_is_not_valid_leaves_its_worker_out_and_says_so() {
    let good = "# TYPE a gauge\na 1\n# EOF\n";
    for (line, bad) in [
        (1, ""),
        (1, "a 1\n"),
        (2, "a 1\nb 2 # EOF\n"),
        (2, "b 1\n# EOF\n# EOF\n"),
        (2, "b 1\n\n# EOF\n"),
        (1, "b\n# EOF\n"),
        (1, "b one\n# EOF\n"),
        (1, "b 1 2 3\n# EOF\n"),
        (1, "b  1\n# EOF\n"),
        (1, "1b 1\n# EOF\n"),
        (1, "{x=\"1\"} 1\n# EOF\n"),
        (1, "b{x=1} 1\n# EOF\n"),
        (1, "b{x=\"1} 1\n# EOF\n"),
        (1, "b{x=\"1\" y=\"2\"} 1\n# EOF\n"),
        (1, "b{x=\"1\",} 1\n# EOF\n"),
        (1, "b{=\"1\"} 1\n# EOF\n"),
        (1, "b{x=\"1\"}1\n# EOF\n"),
        (1, "b 1 # x\n# EOF\n"),
        (1, "b 1 # {x=\"1\"}\n# EOF\n"),
        (1, "b{worker=\"7\"} 1\n# EOF\n"),
        (1, "# a remark of mine\n# EOF\n"),
        (1, "# HELP\n# EOF\n"),
        (2, "# TYPE b gauge\n# TYPE b gauge\n# EOF\n"),
        (2, "# TYPE b counter\nb 1\n# EOF\n"),
        (3, "b 1\nc 1\nb{x=\"1\"} 1\n# EOF\n"),
        (2, "b 1\n# HELP b too late\n# EOF\n"),
        (2, "b 1\n# TYPE a counter\na_total 1\n# EOF\n"),
        (1, "<html>Bad Gateway</html>\n# EOF\n"),
    ] {
        let merged = merge(&texts(&[("0", good), ("1", bad), ("2", good)]));
        let refused: Vec<_> =
            merged.refused.iter().map(|refused| (refused.worker.as_str(), refused.line)).collect();
        assert_eq!(refused, [("1", line)], "{bad:?}: {:?}", merged.refused);
        assert_eq!(
            merged.text,
            "# TYPE a gauge\na{worker=\"0\"} 1\na{worker=\"2\"} 1\n# TYPE penstock_metrics_refused gauge\n\
             # HELP penstock_metrics_refused Workers whose metrics could not be read\n\
             penstock_metrics_refused{worker=\"1\"} 1\n# EOF\n"
        );
    }
}

#[test]
fn a_worker_that_comes_twice_counts_once() {
    let merged = merge(&texts(&[("0", "a 1\n# EOF\n"), ("0", "a 2\n# EOF\n"), ("0", "a 3\n# EOF\n")]));
    assert_eq!(merged.refused.len(), 2);
    assert_eq!(merged.text.matches("a{worker=\"0\"}").count(), 1);
    parse(&merged.text);
}

#[test]
fn nobody_is_an_empty_text() {
    assert_eq!(merge(&[]).text, "# EOF\n");
}

/// A family as the tests make it: (what it is, help, samples of (labels, value, whether it has time and exemplar)).
type Made = (usize, Option<String>, Vec<(Vec<String>, i32, bool)>);

const KINDS: [(&str, &str); 5] =
    [("counter", "_total"), ("gauge", ""), ("unknown", ""), ("info", "_info"), ("gaugehistogram", "_gsum")];

fn families() -> impl Strategy<Value = Vec<Made>> {
    let value = "[ -~\n\"\\\\{},#éü]{0,6}";
    let sample = (proptest::collection::vec(value, 0..3), any::<i32>(), any::<bool>());
    let help = proptest::option::of("[ -~]{0,10}");
    proptest::collection::vec((0..KINDS.len(), help, proptest::collection::vec(sample, 0..4)), 0..5)
}

fn written(families: &[Made]) -> String {
    let names = ["alpha", "beta", "gamma", "delta", "epsilon"];
    families.iter().zip(names).map(|(made, name)| written_family(made, name)).collect::<String>() + "# EOF\n"
}

fn written_family((kind, help, samples): &Made, name: &str) -> String {
    let (kind, suffix) = KINDS[*kind];
    let name = format!("{name}_{kind}");
    let mut lines = vec![format!("# TYPE {name} {kind}\n")];
    lines.extend(help.iter().map(|help| format!("# HELP {name} {help}\n")));
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    lines.extend(samples.iter().enumerate().map(|(number, (labels, value, more))| {
        let mut all = vec![format!("n=\"{number}\"")];
        all.extend(labels.iter().enumerate().map(|(at, value)| format!("l{at}=\"{}\"", escape(value))));
        let more = if *more { " 12.5 # {trace=\"a b # c\"} 1 2" } else { "" };
        format!("{name}{suffix}{{{}}} {value}{more}\n", all.join(","))
    }));
    lines.concat()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_text_comes_back_with_the_label(families in families(), worker in "[ -~\n\"\\\\é]{0,8}") {
        let text = written(&families);
        let merged = merge(&[(worker.clone(), text.clone())]);
        prop_assert!(merged.refused.is_empty(), "{:?}\n{}", merged.refused, text);
        let mut expected = parse(&text);
        for (_, family) in &mut expected {
            for (_, labels, _) in &mut family.samples {
                labels.insert("worker".to_owned(), worker.clone());
            }
        }
        prop_assert_eq!(parse(&merged.text), expected);
    }

    #[test]
    fn every_sample_of_every_worker_is_there(all in proptest::collection::vec(families(), 0..4)) {
        let texts: Vec<_> = all.iter().enumerate().map(|(at, made)| (at.to_string(), written(made))).collect();
        let merged = merge(&texts);
        prop_assert!(merged.refused.is_empty());
        let mut left: Vec<_> = texts
            .iter()
            .flat_map(|(worker, text)| {
                let samples = parse(text).into_iter().flat_map(|(_, family)| family.samples);
                samples.map(|(name, mut labels, rest)| {
                    labels.insert("worker".to_owned(), worker.clone());
                    (name, labels, rest)
                })
            })
            .collect();
        let mut there: Vec<_> =
            parse(&merged.text).into_iter().flat_map(|(_, family)| family.samples).collect();
        left.sort();
        there.sort();
        prop_assert_eq!(there, left);
    }

    #[test]
    fn any_other_text_harms_nobody(
        bad in "(# |TYPE |a|b|\\{|\\}|=|\"|x|,| |1|\\\\|\n|# EOF\n|é){0,30}",
    ) {
        let good = "# TYPE a gauge\na 1\n# EOF\n";
        let merged = merge(&texts(&[("0", good), ("1", &bad), ("2", good)]));
        let (begins, holds) = ("# TYPE a gauge\na{worker=\"0\"} 1\na", "a{worker=\"2\"} 1\n");
        prop_assert!(merged.text.starts_with(begins) && merged.text.contains(holds), "{}", merged.text);
        prop_assert!(merged.refused.iter().all(|refused| refused.worker == "1" && refused.line > 0));
    }
}
