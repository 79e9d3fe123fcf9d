//! The metrics of several processes as one text.
//!
//! The format is `OpenMetrics` 1.0: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

/// The label that says which process a sample is of.
const LABEL: &str = "worker";

/// The family that says whose text could not be read. It is there only where there is such a one.
const REFUSED: &str = "penstock_metrics_refused";

/// What became of the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// One valid text: every sample carries the label `worker`, every family stands once.
    pub text: String,
    /// Those whose text was left out.
    pub refused: Vec<Refused>,
}

/// A worker whose text was left out, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub worker: String,
    /// The line that was wrong, from 1; the last one where something is missing.
    pub line: usize,
    /// What was wrong with it.
    pub reason: &'static str,
}

/// Merges texts, each with the name of its worker.
///
/// Families stand in the order in which they were first seen, and the samples of one worker in their own order. What a
/// family is and means is taken from the first worker that says so. Timestamps and exemplars stay as they are.
///
/// A text that is no `OpenMetrics`, that says of a family another type than a worker before it, that has a label `worker`
/// already, or whose worker was there before is left out. The merged text then counts it, as
/// `penstock_metrics_refused{worker="…"} 1`.
pub fn merge(texts: &[(String, String)]) -> Merged {
    let mut families = Families::default();
    let mut refused = Vec::new();
    let mut workers = HashSet::new();
    for (worker, text) in texts {
        let read = if workers.insert(worker) {
            read(text)
        } else {
            Err(Flaw { line: 1, reason: "another worker has this name" })
        };
        if let Err(Flaw { line, reason }) = read.and_then(|read| families.add(worker, read)) {
            refused.push(Refused { worker: worker.clone(), line, reason });
        }
    }
    Merged { text: families.text(&refused), refused }
}

#[derive(Debug)]
struct Flaw {
    line: usize,
    reason: &'static str,
}

/// A family in one text, every part as it is written there.
struct Family<'a> {
    name: &'a str,
    /// Where it begins.
    line: usize,
    about: About<'a>,
    samples: Vec<Sample<'a>>,
}

#[derive(Default)]
struct About<'a> {
    kind: Option<&'a str>,
    unit: Option<&'a str>,
    help: Option<&'a str>,
}

struct Sample<'a> {
    name: &'a str,
    /// What stands between the braces.
    labels: &'a str,
    /// Its value, time and exemplar.
    rest: &'a str,
}

/// The families of all texts together.
#[derive(Default)]
struct Families<'a> {
    all: Vec<Common<'a>>,
    places: HashMap<&'a str, usize>,
}

struct Common<'a> {
    name: &'a str,
    about: About<'a>,
    samples: String,
}

impl<'a> Families<'a> {
    /// Adds all families of a worker, or none.
    fn add(&mut self, worker: &str, read: Vec<Family<'a>>) -> Result<(), Flaw> {
        for family in &read {
            let known = self.places.get(family.name).and_then(|place| self.all.get(*place));
            if known.is_some_and(|known| known.about.kind() != family.about.kind()) {
                return Err(Flaw {
                    line: family.line,
                    reason: "another worker gives this family another type",
                });
            }
        }
        let label = format!("{LABEL}=\"{}\"", escaped(worker));
        for family in read {
            let place = *self.places.entry(family.name).or_insert(self.all.len());
            if place == self.all.len() {
                self.all.push(Common { name: family.name, about: About::default(), samples: String::new() });
            }
            let Some(common) = self.all.get_mut(place) else { continue };
            common.about.complete(&family.about);
            for sample in &family.samples {
                sample.write(&label, &mut common.samples);
            }
        }
        Ok(())
    }

    fn text(&self, refused: &[Refused]) -> String {
        let mut out = String::new();
        for common in &self.all {
            let about = &common.about;
            for (what, said) in [("TYPE", about.kind), ("UNIT", about.unit), ("HELP", about.help)] {
                if let Some(said) = said {
                    line(&mut out, format_args!("# {what} {} {said}", common.name));
                }
            }
            out.push_str(&common.samples);
        }
        if !refused.is_empty() && !self.places.contains_key(REFUSED) {
            line(&mut out, format_args!("# TYPE {REFUSED} gauge"));
            line(&mut out, format_args!("# HELP {REFUSED} Workers whose metrics could not be read"));
            let workers: HashSet<_> = refused.iter().map(|refused| &refused.worker).collect();
            let mut workers: Vec<_> = workers.into_iter().collect();
            workers.sort();
            for worker in workers {
                line(&mut out, format_args!("{REFUSED}{{{LABEL}=\"{}\"}} 1", escaped(worker)));
            }
        }
        out.push_str("# EOF\n");
        out
    }
}

impl<'a> About<'a> {
    fn kind(&self) -> &'a str {
        self.kind.unwrap_or("unknown")
    }

    /// Takes what is not known yet.
    fn complete(&mut self, other: &Self) {
        self.kind = self.kind.or(other.kind);
        self.unit = self.unit.or(other.unit);
        self.help = self.help.or(other.help);
    }
}

impl Sample<'_> {
    fn write(&self, label: &str, out: &mut String) {
        let comma = if self.labels.is_empty() { "" } else { "," };
        line(out, format_args!("{}{{{label}{comma}{}}} {}", self.name, self.labels, self.rest));
    }
}

fn line(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(what);
    out.push('\n');
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The families of a text.
fn read(text: &str) -> Result<Vec<Family<'_>>, Flaw> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut seen = HashSet::new();
    let Some(text) = text.strip_suffix("# EOF\n").or_else(|| text.strip_suffix("# EOF")) else {
        return Err(Flaw { line: text.lines().count().max(1), reason: "the text does not end with '# EOF'" });
    };
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(Flaw {
            line: text.lines().count(),
            reason: "'# EOF' does not stand on a line of its own",
        });
    }
    for (number, line) in (1..).zip(text.split_terminator('\n')) {
        let flaw = |reason| Flaw { line: number, reason };
        let (name, entry) = entry(line).map_err(flaw)?;
        let last = families.last_mut().filter(|last| match entry {
            Entry::About(..) => last.name == name,
            Entry::Sample(_) => last.owns(name),
        });
        let family = if let Some(last) = last {
            last
        } else {
            if !seen.insert(name) {
                return Err(flaw("the lines of a family do not stand together"));
            }
            families.push(Family { name, line: number, about: About::default(), samples: Vec::new() });
            let Some(family) = families.last_mut() else { continue };
            family
        };
        family.take(entry).map_err(flaw)?;
    }
    Ok(families)
}

enum Entry<'a> {
    /// What is said of a family, under which word.
    About(&'a str, &'a str),
    Sample(Sample<'a>),
}

impl<'a> Family<'a> {
    /// True where a sample of that name belongs to this family.
    fn owns(&self, sample: &str) -> bool {
        let Some(suffix) = sample.strip_prefix(self.name) else { return false };
        let suffixes: &[&str] = match self.about.kind() {
            "counter" => &["_total", "_created"],
            "histogram" => &["_bucket", "_count", "_sum", "_created"],
            "gaugehistogram" => &["_bucket", "_gcount", "_gsum"],
            "summary" => &["", "_count", "_sum", "_created"],
            "info" => &["_info"],
            _ => &[""],
        };
        suffixes.contains(&suffix)
    }

    fn take(&mut self, entry: Entry<'a>) -> Result<(), &'static str> {
        let (word, said) = match entry {
            Entry::Sample(sample) if self.owns(sample.name) => {
                self.samples.push(sample);
                return Ok(());
            }
            Entry::Sample(_) => return Err("a sample has a name that its family's type does not allow"),
            Entry::About(..) if !self.samples.is_empty() => {
                return Err("a family is described after its samples");
            }
            Entry::About(word, said) => (word, said),
        };
        let place = match word {
            "TYPE" => &mut self.about.kind,
            "UNIT" => &mut self.about.unit,
            "HELP" => &mut self.about.help,
            _ => return Err("a comment is neither TYPE, UNIT, HELP nor the last"),
        };
        if place.replace(said).is_some() { Err("a family is described twice") } else { Ok(()) }
    }
}

/// What a line holds, and the name of what it is about.
fn entry(line: &str) -> Result<(&str, Entry<'_>), &'static str> {
    let Some(comment) = line.strip_prefix("# ") else {
        let sample = sample(line)?;
        return Ok((sample.name, Entry::Sample(sample)));
    };
    let mut words = comment.splitn(3, ' ');
    let (Some(word), Some(name)) = (words.next(), words.next()) else {
        return Err("a comment is neither TYPE, UNIT, HELP nor the last");
    };
    if !is_name(name, ":") {
        return Err("a family has no name, or one with letters that names do not have");
    }
    Ok((name, Entry::About(word, words.next().unwrap_or_default())))
}

fn sample(line: &str) -> Result<Sample<'_>, &'static str> {
    let end = line.find(['{', ' ']).ok_or("a sample has no value")?;
    let (name, after) = line.split_at(end);
    if !is_name(name, ":") {
        return Err("a sample has no name, or one with letters that names do not have");
    }
    let (labels, after) = match after.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => ("", after),
    };
    let rest = after.strip_prefix(' ').ok_or("a sample has no value")?;
    let (measured, exemplar) = match rest.split_once(" # ") {
        Some((measured, exemplar)) => (measured, Some(exemplar)),
        None => (rest, None),
    };
    numbers(measured)?;
    if let Some(exemplar) = exemplar {
        let inside = exemplar.strip_prefix('{').ok_or("an exemplar has no labels")?;
        let (_, after) = self::labels(inside)?;
        numbers(after.strip_prefix(' ').ok_or("an exemplar has no value")?)?;
    }
    Ok(Sample { name, labels, rest })
}

/// A value and, where there is one, a time.
fn numbers(text: &str) -> Result<(), &'static str> {
    let mut count = 0;
    for number in text.split(' ') {
        number.parse::<f64>().map_err(|_| "a value or a time is no number")?;
        count += 1;
    }
    if count > 2 { Err("something follows a value and its time") } else { Ok(()) }
}

/// Takes labels apart up to their closing brace, and gives them and what follows it.
fn labels(inside: &str) -> Result<(&str, &str), &'static str> {
    if let Some(after) = inside.strip_prefix('}') {
        return Ok(("", after));
    }
    let mut left = inside;
    loop {
        let (name, value) = left.split_once("=\"").ok_or("a label has no value in quotes")?;
        if !is_name(name, "") {
            return Err("a label has no name, or one with letters that names do not have");
        }
        if name == LABEL {
            return Err("a sample has a label 'worker' already");
        }
        left = after_quote(value).ok_or("the value of a label does not end")?;
        if let Some(after) = left.strip_prefix('}') {
            let length = inside.len() - left.len();
            return Ok((inside.get(..length).unwrap_or_default(), after));
        }
        left = left.strip_prefix(',').ok_or("labels are not separated by commas")?;
    }
}

/// What follows the quotation mark that ends a value.
fn after_quote(value: &str) -> Option<&str> {
    let mut escape = false;
    for (at, letter) in value.char_indices() {
        match letter {
            _ if escape => escape = false,
            '\\' => escape = true,
            '"' => return value.get(at + 1..),
            _ => {}
        }
    }
    None
}

/// Letters, digits, underscores and what is in `also`; no digit at the beginning.
fn is_name(name: &str, also: &str) -> bool {
    let first = |letter: char| letter.is_ascii_alphabetic() || letter == '_' || also.contains(letter);
    name.starts_with(first) && name.chars().all(|letter| first(letter) || letter.is_ascii_digit())
}
