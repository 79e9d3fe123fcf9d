// The metrics as they were read, once a second: what counters gained, and what gauges said.

const KEPT = 15 * 60_000 + 30_000;

/** Gauges of several processes are added up, except for these. */
const COMBINED = [
  [/(_cap|_registered|_quantile|_p\d+_seconds|_ejected)$/, Math.max],
  [/(_ready|_start_time_seconds|_timestamp_seconds)$/, Math.min],
];
const MEANS = /(_rate|_accuracy|_ratios?)$/;

/** Where the labels of a sample end that begin at `from`; braces may stand in a value. */
function endOfLabels(line, from) {
  for (let at = from, quoted = false; at < line.length; at++) {
    const letter = line[at];
    if (letter === '\\') at++;
    else if (letter === '"') quoted = !quoted;
    else if (letter === '}' && !quoted) return at + 1;
  }
  throw new Error('labels do not end');
}

function labelsOf(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(/([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g)) {
    labels[name] = value.replace(/\\(.)/g, (_, letter) => (letter === 'n' ? '\n' : letter));
  }
  return labels;
}

const number = text => (text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text));

class History {
  constructor() {
    this.frames = [];
    this.names = new Map(); // the name of a sample → its series, over all processes
    this.workers = new Map(); // process → what it alone says
    this.series = new Map(); // name and labels without the process → a series
    this.sources = new Map(); // name and labels as they are written → where they belong
    this.asked = new Map();
    this.latest = [];
  }

  get last() { return this.frames.at(-1); }

  /** Adds a text of OpenMetrics that was read at `at`; after `gap`, nothing is known of the time since the last one. */
  add(text, at, gap) {
    if (!/# EOF\s*$/.test(text)) throw new Error('the text ended early');
    const before = this.last;
    const increments = new Map();
    const gauges = new Map();
    this.latest = [];
    for (const worker of this.workers.values()) worker.said = new Map();
    let kind = 'unknown';
    for (const line of text.split('\n')) {
      if (line.startsWith('#')) {
        const [, what, , said] = line.split(' ', 4);
        if (what === 'TYPE') kind = said;
        continue;
      }
      if (line === '') continue;
      const brace = line.indexOf('{');
      const space = line.indexOf(' ');
      const end = brace >= 0 && brace < space ? endOfLabels(line, brace) : space;
      const key = line.slice(0, end);
      const source = this.sources.get(key) ?? this.found(key, kind);
      const value = number(line.slice(end + 1).split(' ', 1)[0]);
      const { series } = source;
      if (series.counts) {
        // What was not there at the last look began at zero since; a process that was started again did too.
        const known = source.value ?? (before ? 0 : value);
        const gained = value >= known ? value - known : value;
        increments.set(series.id, (increments.get(series.id) ?? 0) + gained);
        this.latest[series.id] = (this.latest[series.id] ?? 0) + value;
      } else if (!Number.isNaN(value)) {
        const all = gauges.get(series) ?? [];
        all.push(value);
        gauges.set(series, all);
      }
      if (source.worker) source.worker.said.set(series.name, value + (source.worker.said.get(series.name) ?? 0));
      source.value = value;
    }
    const values = new Float64Array(this.series.size);
    if (before) values.set(before.values);
    for (const [id, gained] of increments) values[id] += gained;
    for (const series of this.series.values()) if (!series.counts) values[series.id] = NaN;
    for (const [series, all] of gauges) values[series.id] = combine(series.name, all);
    this.frames.push({ at, values, gap: gap || !before });
    while (this.frames[0].at < at - KEPT) this.frames.shift();
  }

  /** A source that is seen for the first time. */
  found(key, kind) {
    const brace = key.indexOf('{');
    const name = brace < 0 ? key : key.slice(0, brace);
    const { worker, ...labels } = brace < 0 ? {} : labelsOf(key.slice(brace));
    const same = `${name} ${JSON.stringify(Object.entries(labels).sort())}`;
    let series = this.series.get(same);
    if (!series) {
      const counts = kind === 'counter' || (kind !== 'gauge' && /_(bucket|count|sum|total)$/.test(name));
      series = { id: this.series.size, name, labels, counts };
      this.series.set(same, series);
      if (!this.names.has(name)) this.names.set(name, []);
      this.names.get(name).push(series);
      this.asked.clear();
    }
    if (worker !== undefined && !this.workers.has(worker)) this.workers.set(worker, { said: new Map() });
    const source = { series, worker: this.workers.get(worker), value: undefined };
    this.sources.set(key, source);
    return source;
  }

  has(name) { return this.names.has(name); }

  /** The series of that name whose labels are as wanted: a value, or a test of one. */
  of(name, wanted = {}) {
    const wants = Object.entries(wanted).filter(([, want]) => want !== undefined && want !== '');
    const asked = `${name} ${wants.map(([label, want]) => `${label}=${want}`)}`;
    let found = this.asked.get(asked);
    if (!found) {
      const fits = (labels, [label, want]) =>
        typeof want === 'function' ? want(labels[label]) : labels[label] === want;
      found = (this.names.get(name) ?? []).filter(series => wants.every(each => fits(series.labels, each)));
      this.asked.set(asked, found);
    }
    return found;
  }

  /** Every value of a label in the series of that name. */
  values(name, label) {
    return [...new Set((this.names.get(name) ?? []).map(series => series.labels[label]))].filter(value => value !== undefined);
  }

  /** The sum of what these series said in a frame; NaN where none said anything. */
  sum(frame, many) {
    let sum = 0;
    let any = false;
    for (const { id, counts } of many) {
      const value = id < frame.values.length ? frame.values[id] : counts ? 0 : NaN;
      if (!Number.isNaN(value)) { sum += value; any = true; }
    }
    return any ? sum : NaN;
  }

  /** What a counter says now, by the processes that live. */
  total(many) { return many.reduce((sum, { id }) => sum + (this.latest[id] ?? 0), 0); }

  /** By how much counters rose from one frame to another. */
  rise(from, to, many) {
    const rise = this.sum(to, many) - this.sum(from, many);
    return Number.isNaN(rise) ? 0 : rise;
  }

  /** The same in a second. */
  rate(from, to, many) { return this.rise(from, to, many) / ((to.at - from.at) / 1000); }

  /** The buckets of a histogram, as bounds and what fell below each between two frames. */
  buckets(from, to, name, wanted) {
    const byBound = new Map();
    for (const series of this.of(`${name}_bucket`, wanted)) {
      const bound = number(series.labels.le);
      if (!byBound.has(bound)) byBound.set(bound, []);
      byBound.get(bound).push(series);
    }
    return [...byBound].sort(([a], [b]) => a - b).map(([bound, many]) => [bound, this.rise(from, to, many)]);
  }

  /** The mean of what a histogram saw between two frames; null where it saw nothing. */
  mean(from, to, name, wanted) {
    const count = this.rise(from, to, this.of(`${name}_count`, wanted));
    return count > 0 ? this.rise(from, to, this.of(`${name}_sum`, wanted)) / count : null;
  }

  /** The frames to draw for so many milliseconds up to `now`: each with the one before it that it is compared with. */
  windows(span, now, width) {
    const begin = now - span;
    const step = span / 300;
    const pairs = [];
    let base = 0;
    let floor = 0; // nothing is compared across a gap
    let drawn = -Infinity;
    this.frames.forEach((frame, index) => {
      if (frame.gap) { floor = index; base = index; }
      while (base + 1 < index && this.frames[base + 1].at <= frame.at - width + 50) base++;
      base = Math.max(base, floor);
      if (frame.at < begin - step || frame.at < drawn + step - 250) return;
      drawn = frame.at;
      pairs.push({ at: frame.at, to: frame, from: base < index ? this.frames[base] : null, gap: frame.gap });
    });
    return pairs;
  }

  /** The last frame, and one from so many milliseconds before, or as near as there is. */
  lately(span) {
    const to = this.last;
    if (!to) return null;
    let from = null;
    for (let index = this.frames.length - 1; index >= 0; index--) {
      if (index < this.frames.length - 1) from = this.frames[index];
      if (this.frames[index].gap || this.frames[index].at <= to.at - span + 50) break;
    }
    return from && { from, to };
  }
}

function combine(name, values) {
  const [, how] = COMBINED.find(([names]) => names.test(name)) ?? [];
  if (how) return how(...values);
  const sum = values.reduce((a, b) => a + b, 0);
  return MEANS.test(name) ? sum / values.length : sum;
}

/** The value below which a share of what fell into buckets lies, evenly spread within each; null where nothing fell. */
function quantile(share, buckets) {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (!(all > 0)) return null;
  const rank = share * all;
  let [below, left] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= rank && count > 0) {
      if (bound === Infinity) return below;
      return below + (bound - below) * ((rank - left) / (count - left || 1));
    }
    [below, left] = [bound, count];
  }
  return below;
}
