// What the page shows of the history. Whatever a server does not say is not shown.

const OUTCOMES = [
  ['ok', 'answered', 'var(--c-blue)'],
  ['invalid', 'invalid', 'var(--c-amber)'],
  ['overloaded', 'overloaded', 'var(--c-violet)'],
  ['expired', 'timed out', 'var(--c-pink)'],
  ['failed', 'failed', 'var(--c-red)'],
  ['gone', 'client left', 'var(--c-grey)'],
];
const BLAMED = ['overloaded', 'expired', 'failed'];
const PERCENTILES = [
  [0.5, 'p50', 'var(--c-teal)'],
  [0.95, 'p95', 'var(--c-blue)'],
  [0.99, 'p99', 'var(--c-violet)'],
  [0.999, 'p99.9', 'var(--c-pink)'],
];
const REASONS = {
  full: ['it held all that a batch may', 'var(--c-blue)'],
  tick: ['a worker was free', 'var(--c-teal)'],
  window: ['its first request had waited max_wait', 'var(--c-violet)'],
  deadline: ['a later one would have been too late', 'var(--c-pink)'],
  budget: ['one more would have cost too much', 'var(--c-amber)'],
  key: ['others may not share a call with it', 'var(--c-red)'],
  drain: ['the server was closing', 'var(--c-grey)'],
};
const PARTS = {
  queue: ['until it could leave', 'var(--c-grey)'],
  slot: ['until a worker was free', 'var(--c-amber)'],
  gather: ['until the model was called', 'var(--c-violet)'],
  model: ['the model itself', 'var(--c-blue)'],
  scatter: ['until its answers were there', 'var(--c-teal)'],
};
const MEMORY = [
  ['ready', 'loaded', 'var(--c-blue)'],
  ['draining', 'leaving', 'var(--c-amber)'],
  ['reserved', 'reserved for loads', 'var(--c-violet)'],
];

const SPANS = [60, 120, 300, 600, 900]; // seconds that a plot may show
const SECONDS = 'penstock_request_seconds';
const traces = each => each.map(([, label, color]) => ({ label, color }));
const plain = (label, color) => ({ label, color });

class Panels {
  constructor(history, state) {
    this.history = history;
    this.state = state;
    const plot = (name, options) => new Plot(document.querySelector(`[data-plot="${name}"]`), options);
    this.requests = plot('requests', {
      title: 'Requests per second', form: rate, axis: count, layers: true, silent: 'No requests', least: 1,
      traces: traces(OUTCOMES).map((trace, index) => ({ ...trace, rare: index > 0 })),
    });
    this.latency = plot('latency', { title: 'Latency', form: time, traces: traces(PERCENTILES), silent: 'No requests', least: 0.001 });
    this.queue = plot('queue', { title: 'Rows that wait', form: whole, silent: 'Nothing waits', least: 4, traces: [plain('waiting', 'var(--c-amber)')] });
    this.size = plot('size', {
      title: 'Requests per batch', form: count, silent: 'No batches', least: 2,
      traces: [plain('mean', 'var(--c-blue)'), { ...plain('most allowed', 'var(--c-grey)'), dashed: true, rare: true }],
    });
    this.pieces = plot('pieces', { title: 'Pieces per second', form: rate, axis: count, silent: 'No streams', least: 1, traces: [plain('pieces', 'var(--c-teal)')] });
    const two = [plain('p50', 'var(--c-teal)'), plain('p99', 'var(--c-violet)')];
    this.first = plot('first', { title: 'Time to the first piece', form: time, silent: 'No streams', least: 0.001, traces: two });
    this.gap = plot('gap', { title: 'Time between pieces', form: time, silent: 'No streams', least: 0.001, traces: two });
    this.memory = plot('memory', {
      title: 'Memory of models', form: bytes, layers: true, silent: 'No model says how large it is', least: 1024,
      traces: traces(MEMORY).map((trace, index) => ({ ...trace, rare: index > 0 })),
    });
    this.connections = plot('connections', {
      title: 'Connections and requests in flight', form: whole, silent: 'Nobody is connected', least: 4,
      traces: [plain('connections', 'var(--c-blue)'), plain('in flight', 'var(--c-teal)')],
    });
    this.lock = plot('lock', {
      title: 'Waiting for the interpreter lock', form: value => time(value === null ? null : value / 1000), silent: 'No waits', least: 1,
      traces: [plain('a second', 'var(--c-amber)')],
    });
  }

  /** Draws everything anew. */
  show() {
    const { history, state } = this;
    byId('main').hidden = !history.last;
    byId('intro').hidden = Boolean(history.last);
    if (!history.last) return;
    this.now = Math.max(history.last.at, state.now ?? 0);
    // As long as little is known, the plots do not show much time of which nothing is.
    const age = (this.now - history.frames[0].at) / 1000;
    this.span = Math.min(state.range, SPANS.find(span => span >= age) ?? state.range) * 1000;
    this.brief = this.span > 300_000 ? 6000 : 2000;
    this.calm = this.span > 300_000 ? 15_000 : 5000;
    this.model = { model: state.model };
    this.points = history.windows(this.span, this.now, this.brief);
    this.calmPoints = history.windows(this.span, this.now, this.calm);
    // What stands beside a plot that has a share or a mean is of the last 30 seconds.
    this.lately = history.lately(30_000);
    this.moment = history.lately(this.calm);
    this.traffic();
    this.batching();
    this.streams();
    this.memories();
    this.server();
    tiles(this);
    modelTable(this);
    poolTable(this);
    errorTable(this);
    workerTable(this);
  }

  /** A value for each point: of the frame before, or null where there is none, and of its own. */
  line(points, value) { return points.map(({ from, to }) => (from ? value(from, to) : null)); }

  rates(name, wanted, points = this.points) {
    const many = this.history.of(name, wanted);
    return this.line(points, (from, to) => this.history.rate(from, to, many));
  }

  gauges(name, wanted, points = this.points) {
    const many = this.history.of(name, wanted);
    return points.map(({ to }) => { const value = this.history.sum(to, many); return Number.isNaN(value) ? null : value; });
  }

  percentiles(name, wanted, shares) {
    const all = this.line(this.calmPoints, (from, to) => this.history.buckets(from, to, name, wanted));
    return shares.map(share => all.map(buckets => (buckets ? quantile(share, buckets) : null)));
  }

  put(plot, lines, points = this.points) { plot.show(points, lines, { now: this.now, span: this.span }); }

  traffic() {
    this.byOutcome = OUTCOMES.map(([outcome]) => this.rates('penstock_requests_total', { ...this.model, outcome }));
    this.put(this.requests, this.byOutcome);
    this.latencies = this.percentiles(SECONDS, this.model, PERCENTILES.map(([share]) => share));
    this.latency.log = this.state.scale === 'log';
    this.put(this.latency, this.latencies, this.calmPoints);
  }

  batching() {
    const { history, model } = this;
    this.put(this.queue, [this.gauges('penstock_queue_depth', model)]);
    this.sizes = this.line(this.calmPoints, (from, to) => history.mean(from, to, 'penstock_batch_size', model));
    const caps = history.of('penstock_batch_cap', model);
    // Of all models together, the cap of one says nothing.
    const allowed = caps.length === 1 ? this.gauges('penstock_batch_cap', model, this.calmPoints) : this.calmPoints.map(() => null);
    this.put(this.size, [this.sizes, allowed], this.calmPoints);
    const { from, to } = this.lately ?? {};
    sizeColumns(from ? history.buckets(from, to, 'penstock_batch_size', model) : []);
    const reasons = history.values('penstock_batches_total', 'reason').map(reason => [
      reason, from ? history.rise(from, to, history.of('penstock_batches_total', { ...model, reason })) : 0,
    ]);
    const batches = reasons.reduce((sum, [, many]) => sum + many, 0);
    byId('reasons-note').textContent = batches ? `${said(rate(batches / ((to.at - from.at) / 1000)))} lately` : '';
    split(byId('reasons'), reasons, REASONS, many => said(share(many / batches)), 'No batches lately');
    const parts = Object.keys(PARTS).map(part => [part, from ? history.mean(from, to, 'penstock_batch_wait_seconds', { ...model, part }) ?? 0 : 0]);
    const whole = parts.reduce((sum, [, seconds]) => sum + seconds, 0);
    byId('parts-note').textContent = whole ? `${said(time(whole))} on the mean` : '';
    split(byId('parts'), parts, PARTS, seconds => said(time(seconds)), 'No batches lately', true);
  }

  streams() {
    const { history } = this;
    const there = history.has('penstock_stream_started_total');
    const begun = history.total(history.of('penstock_stream_started_total')) > 0;
    byId('streams').hidden = !there;
    byId('streams-full').hidden = !begun;
    byId('streams-empty').hidden = begun;
    if (!begun) return;
    this.put(this.pieces, [this.rates('penstock_stream_pieces_total')]);
    this.put(this.first, this.percentiles('penstock_stream_first_piece_seconds', {}, [0.5, 0.99]), this.calmPoints);
    this.put(this.gap, this.percentiles('penstock_stream_piece_gap_seconds', {}, [0.5, 0.99]), this.calmPoints);
    const total = name => history.total(history.of(name));
    const packed = total('penstock_stream_packed_bytes_total') / total('penstock_stream_plain_bytes_total');
    facts(byId('stream-facts'), [
      ['Open now', whole(this.gauge('penstock_stream_open'))],
      ['Begun', rate(this.nowRate('penstock_stream_started_total'))],
      ['Bytes out', per(bytes(this.nowRate('penstock_stream_bytes_total')))],
      ['Held for readers', bytes(this.gauge('penstock_stream_held_bytes'))],
      ['Waits for readers', rate(this.nowRate('penstock_stream_reader_waits_total'))],
      ['Packed to', share(packed)],
      ['Client left', whole(total('penstock_stream_cancelled_total'))],
      ['Broken off', whole(total('penstock_stream_failed_total')), total('penstock_stream_failed_total') > 0 ? 'warn' : ''],
    ]);
  }

  memories() {
    const { history } = this;
    byId('memory').hidden = !history.has('penstock_models_bytes');
    this.put(this.memory, MEMORY.map(([kind]) => this.gauges('penstock_models_bytes', { kind })));
    const total = (name, wanted) => history.total(history.of(name, wanted));
    const failed = total('penstock_models_loads_total', { outcome: outcome => outcome !== 'ok' && outcome !== 'cancelled' });
    const issued = total('penstock_models_preloads_total', { outcome: 'issued' });
    const used = total('penstock_models_preloads_total', { outcome: 'used' });
    const loads = history.mean({ values: [], at: 0 }, this.history.last, 'penstock_models_load_seconds');
    const registered = this.gauge('penstock_models_registered');
    byId('memory-note').textContent = Number.isNaN(registered) ? '' : `${whole(this.gauge('penstock_models_ready'))[0]} of ${plural(registered, 'model')} loaded`;
    facts(byId('memory-facts'), [
      ['Loaded', bytes(this.gauge('penstock_models_bytes', { kind: 'used' }))],
      ['Hit rate', share(this.gauge('penstock_models_hit_rate'))],
      ['Loads', whole(total('penstock_models_loads_total', { outcome: 'ok' }))],
      ['Failed loads', whole(failed), failed > 0 ? 'bad' : ''],
      ['Loading now', whole(this.gauge('penstock_models_loading'))],
      ['Waiting to load', whole(this.gauge('penstock_models_load_queue_depth'))],
      ['Evicted', whole(total('penstock_models_evictions_total', { reason: reason => reason === 'space' }))],
      ['Preloads used', issued ? share(used / issued) : NOTHING],
      ...(loads ? [['Mean load', time(loads)]] : []),
    ]);
  }

  server() {
    const { history } = this;
    this.put(this.connections, [this.gauges('penstock_http_connections'), this.gauges('penstock_http_requests_in_flight')]);
    this.put(this.lock, [this.rates('penstock_lock_wait_seconds_total', {}, this.points).map(each => each === null ? null : each * 1000)]);
    const answers = this.nowRate('penstock_http_responses_total');
    const calls = this.nowRate('penstock_grpc_responses_total');
    const taken = this.nowRate('penstock_lock_acquisitions_total');
    const asked = this.nowRate('penstock_requests_total');
    const started = this.gauge('process_start_time_seconds');
    const entry = (label, name, form, also = value => value) => (history.has(name) ? [[label, form(also(this.gauge(name)))]] : []);
    facts(byId('process-facts'), [
      ...(Number.isNaN(started) ? [] : [['Up for', time(Math.max(0, this.now / 1000 - started))]]),
      ...(history.has('process_cpu_seconds_total') ? [['CPU', [digits(this.nowRate('process_cpu_seconds_total') * 100), '% of a core']]] : []),
      ...entry('Memory', 'process_resident_memory_bytes', bytes),
      ...entry('Open files', 'process_open_fds', whole),
      ...entry('Threads', 'process_threads', whole),
      ...entry('Certificate', 'penstock_tls_certificate_expiry_timestamp_seconds', time, at => at - this.now / 1000),
      ['HTTP answers', rate(answers)],
      ['gRPC answers', rate(calls)],
      ...(history.has('penstock_request_bytes_total')
        ? [['Bytes in', per(bytes(this.nowRate('penstock_request_bytes_total')))], ['Bytes out', per(bytes(this.nowRate('penstock_response_bytes_total')))]] : []),
      ['Lock per request', asked > 0 ? count(taken / asked) : NOTHING],
      ...(history.has('penstock_gc_pause_seconds_count')
        ? [['GC pauses', per(time(this.nowRate('penstock_gc_pause_seconds_sum')))]] : []),
      ...(this.gaugeTotal('penstock_worker_restarts_total') ? [['Workers restarted', whole(this.gaugeTotal('penstock_worker_restarts_total')), 'warn']] : []),
    ]);
  }

  gauge(name, wanted) { return this.history.sum(this.history.last, this.history.of(name, wanted)); }

  gaugeTotal(name) { return this.history.total(this.history.of(name)); }

  nowRate(name, wanted) {
    return this.moment ? this.history.rate(this.moment.from, this.moment.to, this.history.of(name, wanted)) : NaN;
  }
}

const per = ([value, unit]) => [value, unit ? `${unit}/s` : ''];

/** A list of names and figures. */
function facts(list, entries) {
  list.replaceChildren(...entries.map(([name, figure, mood]) =>
    make('div', {}, make('dt', {}, name), make('dd', { class: mood || '' }, measure(figure)))));
}

/** Shares of a whole: a bar, and a row for each with what it means. */
function split(node, entries, meanings, form, silent, ordered = false) {
  const whole = entries.reduce((sum, [, much]) => sum + much, 0);
  if (!whole) { node.replaceChildren(make('p', { class: 'nothing' }, silent)); return; }
  const rows = ordered ? entries : entries.filter(([, much]) => much).sort(([, a], [, b]) => b - a);
  const bar = rows.filter(([, much]) => much).map(([name, much]) => {
    const piece = make('i', { color: meanings[name]?.[1] ?? 'var(--c-grey)' });
    piece.style.flexGrow = much / whole;
    return piece;
  });
  node.replaceChildren(
    make('div', { class: 'stack', 'aria-hidden': 'true' }, bar),
    make('ul', { class: 'rows' }, rows.map(([name, much]) => make('li', { class: much ? '' : 'none' },
      make('i', { class: 'key', color: meanings[name]?.[1] ?? 'var(--c-grey)' }),
      make('span', { class: 'what' }, make('b', {}, name), make('span', {}, meanings[name]?.[0] ?? '')),
      make('span', { class: 'much' }, form(much))))),
  );
}

/** How many batches had how many rows. */
function sizeColumns(buckets) {
  const node = byId('sizes');
  let below = 0;
  let bound = 0;
  const columns = buckets.map(([upper, many]) => {
    const label = upper === Infinity ? `>${bound}` : upper - bound > 1 ? `${bound + 1}-${upper}` : `${upper}`;
    const column = { label, many: many - below };
    [below, bound] = [many, upper];
    return column;
  });
  const all = below;
  byId('sizes-note').textContent = all ? 'rows, of the last 30 seconds' : '';
  if (!all) {
    node.replaceChildren(make('p', { class: 'nothing' }, 'No batches lately'));
    node.setAttribute('aria-label', 'Batch sizes: no batches lately');
    return;
  }
  const last = Math.max(columns.findLastIndex(column => column.many), 5);
  const highest = Math.max(...columns.map(column => column.many));
  node.setAttribute('aria-label', `Batch sizes: ${columns.filter(each => each.many).map(each => `${each.label} rows ${said(share(each.many / all))}`).join(', ')}`);
  node.replaceChildren(...columns.slice(0, last + 1).map(({ label, many }) => {
    const pillar = make('i', { class: many ? '' : 'none' });
    pillar.style.height = `${(many / highest) * 132}px`;
    return make('div', {}, make('span', { class: 'pillar' }, many ? said(share(many / all)) : '', pillar), make('span', { class: 'under' }, label));
  }));
}
