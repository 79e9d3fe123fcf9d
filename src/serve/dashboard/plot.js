// A plot over time, as SVG: lines or layers, a cross-hair that all plots share, and a legend that says the values.

const LEFT = 52;
const BOTTOM = 20;
const STEPS = { 60_000: 10_000, 120_000: 20_000, 300_000: 60_000, 600_000: 120_000, 900_000: 180_000 }; // between times
const plots = [];
let pointed = null; // the time that the cross-hair stands at, in every plot

/** At most `most` round numbers from zero to at least `highest`. */
function ticks(highest, most, binary) {
  const rough = (highest || 1) / most;
  const unit = binary ? 1024 ** Math.floor(Math.log2(rough) / 10) : 1; // whole KiB, MiB, GiB
  const power = unit * 10 ** Math.floor(Math.log10(rough / unit));
  const step = [1, 2, 2.5, 5, 10].map(each => each * power).find(each => each >= rough * 0.999);
  const all = [];
  for (let at = 0; at < highest - step * 1e-6 || all.length < 2; at += step) all.push(at);
  all.push(all.length * step);
  return all;
}

function decades(lowest, highest) {
  const first = Math.floor(Math.log10(lowest));
  const last = Math.max(Math.ceil(Math.log10(highest)), first + 1);
  return Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
}

class Plot {
  /** `traces`: what is drawn, each with `label` and `color`; `layers`: one upon the other; `form`: how a value reads. */
  constructor(node, { title, traces, form, layers = false, silent = 'Nothing yet', least = 0, axis = form }) {
    Object.assign(this, { node, title, traces, form, axis, layers, silent, least, log: false, points: [], lines: [] });
    this.legend = make('ul', { class: 'legend' });
    this.svg = draw('svg', { role: 'img', tabindex: '0' });
    this.note = make('p', { class: 'silent' });
    node.append(this.legend, this.svg, this.note);
    this.parts = { rules: draw('g'), marks: draw('g'), cross: draw('g') };
    this.svg.append(...Object.values(this.parts));
    this.svg.addEventListener('pointermove', event => point(this.timeAt(event.clientX)));
    this.svg.addEventListener('pointerleave', () => point(null));
    this.svg.addEventListener('blur', () => point(null));
    this.svg.addEventListener('keydown', event => this.key(event));
    new ResizeObserver(() => this.resized()).observe(this.svg);
    plots.push(this);
  }

  resized() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (width === this.width && height === this.height) return;
    Object.assign(this, { width, height });
    this.render();
  }

  /** New points: times, a gap before a time, and for each trace a value a time, null where there is none. */
  show(points, lines, { now, span }) {
    Object.assign(this, { points, lines, now, span });
    this.render();
  }

  x(at) { return LEFT + (this.width - LEFT) * (1 - (this.now - at) / this.span); }

  y(value) {
    const room = this.height - BOTTOM - 6;
    const part = this.scaled
      ? Math.log(Math.max(value, this.low) / this.low) / Math.log(this.high / this.low)
      : value / this.high;
    return 6 + room * (1 - part);
  }

  timeAt(clientX) {
    const { left } = this.svg.getBoundingClientRect();
    return this.now - this.span * (1 - (clientX - left - LEFT) / (this.width - LEFT));
  }

  render() {
    if (!this.width || !this.now) return;
    const stacked = this.layers ? this.heaped() : this.lines;
    const every = stacked.flat().filter(value => value !== null && Number.isFinite(value));
    const highest = Math.max(...every, this.least, 0);
    const positive = every.filter(value => value > 0);
    this.scaled = this.log && positive.length > 0;
    let marks;
    if (this.scaled) {
      marks = decades(Math.min(...positive), highest);
      this.low = marks[0];
    } else {
      marks = ticks(highest || 1, this.height > 180 ? 5 : 4, this.form === bytes);
    }
    this.high = marks.at(-1);
    this.axes(marks);
    this.parts.marks.replaceChildren(...(this.layers ? this.filled(stacked) : this.drawn()));
    this.note.textContent = this.quiet() ? this.silent : '';
    this.cross();
  }

  quiet() { return !this.lines.some(line => line.some(value => value !== null && value !== 0)); }

  axes(marks) {
    const rules = [];
    for (const value of marks) {
      const y = Math.round(this.y(value)) + 0.5;
      const first = value === marks[0];
      rules.push(draw('line', { x1: LEFT, x2: this.width, y1: y, y2: y, class: first ? 'rule base' : 'rule' }));
      const label = draw('text', { x: LEFT - 9, y: y + 3.5, 'text-anchor': 'end' });
      label.textContent = value === 0 ? '0' : said(this.axis(value));
      rules.push(label);
    }
    const narrow = this.width < 330;
    const step = STEPS[this.span] * (narrow ? 2 : 1);
    for (let at = Math.ceil((this.now - this.span) / step) * step; at <= this.now; at += step) {
      const x = this.x(at);
      if (x < LEFT + 14 || x > this.width - 22) continue;
      const label = draw('text', { x, y: this.height - 3, 'text-anchor': 'middle' });
      label.textContent = clock(at, this.span < 300_000);
      rules.push(label);
    }
    this.parts.rules.replaceChildren(...rules);
  }

  /** Each trace on top of those before it. */
  heaped() {
    const heaped = [];
    for (const line of this.lines) {
      const under = heaped.at(-1);
      heaped.push(line.map((value, at) => (value === null ? null : value + (under?.[at] ?? 0))));
    }
    return heaped;
  }

  /** The stretches of a line that hold together, as indexes. */
  stretches(line) {
    const all = [];
    let now = [];
    line.forEach((value, at) => {
      if (value === null || this.points[at].gap) { if (now.length) all.push(now); now = []; }
      if (value !== null) now.push(at);
    });
    if (now.length) all.push(now);
    return all;
  }

  place(line, at) { return `${this.x(this.points[at].at).toFixed(1)},${this.y(line[at]).toFixed(1)}`; }

  drawn() {
    return this.traces.flatMap((trace, index) => {
      const line = this.lines[index] ?? [];
      const path = this.stretches(line).map(stretch =>
        stretch.length === 1 ? `M${this.place(line, stretch[0])}h.1` : `M${stretch.map(at => this.place(line, at)).join('L')}`);
      return path.length ? [draw('path', { d: path.join(''), class: trace.dashed ? 'trace dashed' : 'trace', stroke: trace.color })] : [];
    });
  }

  filled(heaped) {
    const shapes = [];
    heaped.forEach((line, index) => {
      if (!this.lines[index].some(value => value)) return;
      const under = heaped[index - 1];
      const [areas, tops] = [[], []];
      for (const stretch of this.stretches(line)) {
        const top = stretch.map(at => this.place(line, at)).join('L');
        const floor = at => `${this.x(this.points[at].at).toFixed(1)},${this.y(under?.[at] ?? 0).toFixed(1)}`;
        areas.push(`M${top}L${[...stretch].reverse().map(floor).join('L')}Z`);
        tops.push(`M${top}`);
      }
      const { color } = this.traces[index];
      shapes.push(draw('path', { d: areas.join(''), class: index ? 'area solid' : 'area', fill: color }));
      if (!index) shapes.push(draw('path', { d: tops.join(''), class: 'trace', stroke: color }));
    });
    return shapes;
  }

  /** The point next to the cross-hair, or the last one. */
  nearest() {
    if (!this.points.length) return -1;
    if (pointed === null) return this.points.length - 1;
    let best = 0;
    this.points.forEach(({ at }, index) => {
      if (Math.abs(at - pointed) < Math.abs(this.points[best].at - pointed)) best = index;
    });
    return best;
  }

  cross() {
    if (!this.width || !this.now) return;
    const at = this.nearest();
    const marks = [];
    if (pointed !== null && at >= 0) {
      const x = this.x(this.points[at].at);
      marks.push(draw('line', { x1: x, x2: x, y1: 6, y2: this.height - BOTTOM, class: 'cross' }));
      (this.layers ? this.heaped() : this.lines).forEach((line, index) => {
        if (line[at] === null || line[at] === undefined || (this.layers && !this.lines[index][at])) return;
        marks.push(draw('circle', { cx: x, cy: this.y(line[at]), r: 3.5, class: 'dot', fill: this.traces[index].color }));
      });
    }
    this.parts.cross.replaceChildren(...marks);
    const entries = this.traces.map((trace, index) => {
      const value = said(this.form(this.lines[index]?.[at] ?? null));
      return make('li', {}, make('i', { class: trace.dashed ? 'key dashed' : 'key', color: trace.color }), trace.label, make('b', {}, value));
    }).filter((_, index) => !this.traces[index].rare || this.lines[index]?.some(value => value));
    if (pointed !== null && at >= 0) entries.push(make('li', { class: 'when' }, clock(this.points[at].at)));
    this.legend.replaceChildren(...entries);
    this.svg.setAttribute('aria-label', `${this.title}, ${pointed === null ? 'now' : clock(this.points[at]?.at)}: ${this.spoken(at)}`);
  }

  spoken(at) {
    return this.traces.map((trace, index) => `${trace.label} ${said(this.form(this.lines[index]?.[at] ?? null))}`).join(', ');
  }

  /** The arrows move the cross-hair, and what stands there is said. */
  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === 'Escape') point(null);
    if (!step || !this.points.length) return;
    event.preventDefault();
    const at = Math.min(Math.max(this.nearest() + step, 0), this.points.length - 1);
    point(this.points[at].at);
    byId('say').textContent = `${clock(this.points[at].at)}: ${this.spoken(at)}`;
  }
}

function point(at) {
  pointed = at;
  for (const plot of plots) plot.cross();
}

/** A small line without axes, for a tile or a row. */
function spark(values, { width = 120, height = 30, area = true } = {}) {
  const svg = draw('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  const known = values.filter(value => value !== null && Number.isFinite(value));
  if (known.length < 2) return svg;
  const highest = Math.max(...known, 1e-9);
  const places = values.flatMap((value, at) => value === null || !Number.isFinite(value) ? [] : [
    `${((at / (values.length - 1)) * width).toFixed(1)},${(height - 1 - (value / highest) * (height - 5)).toFixed(1)}`,
  ]);
  const line = `M${places.join('L')}`;
  const first = places[0].split(',')[0];
  const last = places.at(-1).split(',')[0];
  if (area) svg.append(draw('path', { d: `${line}L${last},${height}L${first},${height}Z`, class: 'spark-area' }));
  svg.append(draw('path', { d: line, class: 'spark-line' }));
  return svg;
}
