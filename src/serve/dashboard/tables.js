// The tiles at the top, and the tables.

function tiles(panels) {
  const { history, state, byOutcome, latencies, sizes } = panels;
  const sums = byOutcome[0].map((_, at) => byOutcome.every(line => line[at] === null) ? null : byOutcome.reduce((sum, line) => sum + (line[at] ?? 0), 0));
  const blamed = sums.map((sum, at) => sum === null ? null : OUTCOMES.reduce((some, [name], index) => some + (BLAMED.includes(name) ? byOutcome[index][at] : 0), 0));
  const last = line => line.at(-1) ?? null;
  const [p50, , p99] = latencies.map(last);
  const calm = panels.moment;
  const rises = wanted => (calm ? history.rise(calm.from, calm.to, history.of('penstock_requests_total', wanted)) : 0);
  const all = rises(panels.model);
  const wrong = all > 0 ? rises({ ...panels.model, outcome: outcome => BLAMED.includes(outcome) }) / all : NaN;
  const waiting = panels.gauge('penstock_queue_depth', panels.model);
  const batches = panels.nowRate('penstock_batches_total', panels.model);
  const flight = panels.gauge('penstock_http_requests_in_flight');
  const entries = [
    ['Requests', rate(last(sums)), Math.max(...sums) > 0 ? `highest ${said(rate(Math.max(...sums)))}` : 'no requests', sums, 'var(--c-blue)'],
    ['Latency p99', time(p99), p50 === null ? 'no requests' : `p50 ${said(time(p50))}`, latencies[2], 'var(--c-violet)'],
    ['Errors', share(wrong), blamed.some(each => each) ? `${said(rate(last(blamed)))} not answered` : 'none in this time', blamed, 'var(--c-red)', wrong > 0.01],
    ['Requests per batch', count(last(sizes)), batches > 0 ? `${count(batches)[0]} batches/s` : 'no batches', sizes, 'var(--c-teal)'],
    ['Waiting', whole(waiting), 'rows in queues', panels.queue.lines[0], 'var(--c-amber)'],
    history.has('process_cpu_seconds_total')
      ? ['CPU', [digits(panels.nowRate('process_cpu_seconds_total') * 100), '%'], `${said(bytes(panels.gauge('process_resident_memory_bytes')))} of memory`,
        panels.rates('process_cpu_seconds_total'), 'var(--c-grey)']
      : ['In flight', whole(flight), plural(Math.round(panels.gauge('penstock_http_connections') || 0), 'connection'), panels.connections.lines[1], 'var(--c-grey)'],
  ];
  byId('tiles').replaceChildren(...entries.map(([title, figure, under, line, color, bad]) => {
    const svg = spark(line, { width: 200, height: 38 });
    svg.style.color = color;
    return make('article', { class: bad ? 'tile bad' : 'tile' }, make('h2', {}, title), make('p', { class: 'value' }, measure(figure)), make('p', { class: 'under' }, under), svg);
  }));
  if (state.title !== false) document.title = `${said(rate(last(sums)))} - Penstock`;
}

/** A table that a click on a heading sorts. */
function table(node, { caption, columns, rows, sorted, by, pick }) {
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && selection.containsNode(node, true)) return; // somebody copies from it
  const column = columns.find(({ key }) => key === sorted.key) ?? columns[0];
  const order = value => (value === null || value === undefined || Number.isNaN(value) ? -Infinity : value);
  const ordered = [...rows].sort((a, b) => {
    const [left, right] = [a[column.key], b[column.key]];
    const compared = typeof left === 'string' && typeof right === 'string' ? left.localeCompare(right, undefined, { numeric: true }) : order(left) - order(right);
    return (compared || String(a[columns[0].key]).localeCompare(String(b[columns[0].key]), undefined, { numeric: true })) * (sorted.down ? -1 : 1);
  });
  const focused = document.activeElement?.closest('table') === node ? document.activeElement.dataset.focus : null;
  const heading = ({ key, label, left, unsorted }) => {
    const direction = key === column.key ? (sorted.down ? 'descending' : 'ascending') : undefined;
    const text = unsorted ? label : make('button', { type: 'button', 'data-focus': `by ${key}`, onclick: () => by(key) }, label);
    return make('th', { scope: 'col', class: left ? 'left' : '', 'aria-sort': direction }, text);
  };
  const cell = (row, { key, show, left, mood, kind }, first) => {
    const shown = show ? show(row[key], row) : row[key];
    if (!first) return make('td', { class: [left && 'left', kind, mood?.(row)].filter(Boolean).join(' ') }, shown);
    const name = pick ? make('button', { type: 'button', title: row[key], 'data-focus': `row ${row[key]}`, 'aria-pressed': String(Boolean(row.picked)) }, shown) : shown;
    return make('th', { scope: 'row' }, name);
  };
  node.replaceChildren(
    make('caption', { class: 'unseen' }, caption),
    make('thead', {}, make('tr', {}, columns.map(heading))),
    make('tbody', {}, ordered.map(row => make('tr', {
      class: [pick && 'pickable', row.picked && 'picked'].filter(Boolean).join(' '), ...(pick ? { onclick: () => pick(row) } : {}),
    }, columns.map((each, at) => cell(row, each, at === 0))))),
  );
  if (focused) [...node.querySelectorAll('[data-focus]')].find(each => each.dataset.focus === focused)?.focus();
}

const figure = form => value => {
  const read = form(value ?? null);
  return read === NOTHING || (read[0] === '0' && form !== share) ? make('span', { class: 'quiet' }, said(read)) : measure(read);
};
const badge = (mood, text) => make('span', { class: `badge ${mood}` }, make('i', { 'aria-hidden': 'true' }), text);

function modelTable(panels) {
  const { history, state, moment } = panels;
  const names = [...new Set([...history.values('penstock_queue_depth', 'model'), ...history.values('penstock_models_ready', 'model')])];
  const cached = history.has('penstock_models_ready');
  // Where the server counts percentiles itself, they are exact.
  const exact = 'penstock_request_seconds_quantile';
  const lately = history.has(exact) ? ', 1 min' : '';
  const rows = names.map(model => {
    const one = { model };
    const many = history.of('penstock_requests_total', one);
    const rises = wanted => (moment ? history.rise(moment.from, moment.to, history.of('penstock_requests_total', { ...one, ...wanted })) : 0);
    const buckets = moment ? history.buckets(moment.from, moment.to, SECONDS, one) : [];
    const asked = rises({});
    const within = share => (lately ? panels.gauge(exact, { ...one, quantile: String(share) }) : quantile(share, buckets));
    return {
      model, picked: state.model === model, ready: panels.gauge('penstock_models_ready', one),
      requests: moment ? history.rate(moment.from, moment.to, many) : 0,
      p50: within(0.5), p99: within(0.99),
      size: moment ? history.mean(moment.from, moment.to, 'penstock_batch_size', one) : null,
      cap: panels.gauge('penstock_batch_cap', one), waiting: panels.gauge('penstock_queue_depth', one),
      wrong: asked > 0 ? rises({ outcome: outcome => BLAMED.includes(outcome) }) / asked : null,
      trend: panels.line(panels.points, (from, to) => history.rate(from, to, many)),
    };
  });
  byId('models-count').textContent = names.length ? plural(names.length, 'model') : '';
  const ready = value => (value >= 1 ? badge('good', 'Ready') : value === 0 ? badge('', 'Not loaded') : '');
  table(byId('models'), {
    caption: 'Models, what they do now', rows, sorted: state.sorted.models,
    by: key => state.sort('models', key), pick: row => state.pick(row.picked ? '' : row.model),
    columns: [
      { key: 'model', label: 'Model' },
      ...(cached ? [{ key: 'ready', label: 'State', left: true, show: ready }] : []),
      { key: 'requests', label: 'Requests', show: figure(rate) },
      { key: 'p50', label: `p50${lately}`, show: figure(time) },
      { key: 'p99', label: `p99${lately}`, show: figure(time) },
      { key: 'size', label: 'Per batch', show: figure(count) },
      { key: 'cap', label: 'Most', show: figure(whole) },
      { key: 'waiting', label: 'Waiting', show: figure(whole) },
      { key: 'wrong', label: 'Errors', show: value => (value > 0 ? measure(share(value)) : figure(share)(value)), mood: row => (row.wrong > 0.01 ? 'bad' : value0(row.wrong)) },
      { key: 'trend', label: 'Requests over time', unsorted: true, show: line => spark(line, { width: 110, height: 26 }), kind: 'sparkcell' },
    ],
  });
  choices(names, state.model);
}

const value0 = value => (value === 0 || value === null ? 'quiet' : '');

/** The models to choose from, where they have changed. */
function choices(names, chosen) {
  const select = byId('model');
  const sorted = [...names].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  if (sorted.join('\n') !== select.dataset.names) {
    select.dataset.names = sorted.join('\n');
    select.replaceChildren(make('option', { value: '' }, 'All models'), ...sorted.map(name => make('option', { value: name }, name)));
  }
  select.value = chosen;
}

/** Every answer that was none, by where it is counted. */
const FAILURES = [
  ['penstock_requests_total', 'outcome', 'Request', value => value !== 'ok', value => OUTCOMES.find(([name]) => name === value)?.[1] ?? value],
  ['penstock_http_responses_total', 'status', 'HTTP status', value => Number(value) >= 400, value => value],
  ['penstock_grpc_responses_total', 'code', 'gRPC code', value => value !== 'OK', value => value],
  ['penstock_http_refusals_total', 'limit', 'Limit', () => true, value => value],
  ['penstock_models_loads_total', 'outcome', 'Load', value => value !== 'ok', value => value],
];

function errorTable(panels) {
  const { history, state } = panels;
  const begin = panels.points.find(({ from }) => from)?.from;
  const rows = FAILURES.flatMap(([name, label, kind, counts, words]) =>
    history.of(name, { ...(history.of(name)[0]?.labels.model !== undefined ? panels.model : {}), [label]: value => value !== undefined && counts(value) }).map(series => ({
      kind, what: words(series.labels[label]), model: series.labels.model ?? '',
      now: panels.moment ? history.rate(panels.moment.from, panels.moment.to, [series]) : 0,
      some: begin ? history.rise(begin, history.last, [series]) : 0, total: history.total([series]),
    }))).filter(row => row.total > 0);
  const lately = rows.some(row => row.some > 0);
  byId('errors-empty').hidden = rows.length > 0;
  byId('errors-empty').firstChild.textContent = 'Nothing has gone wrong since the server was started.';
  byId('errors-full').hidden = rows.length === 0;
  byId('errors-count').textContent = rows.length && !lately ? 'nothing in this time' : '';
  table(byId('errors'), {
    caption: 'Answers that were none, by kind', rows, sorted: state.sorted.errors, by: key => state.sort('errors', key),
    columns: [
      { key: 'what', label: 'What' },
      { key: 'kind', label: 'Counted as', left: true },
      { key: 'model', label: 'Model', left: true, show: value => value || make('span', { class: 'quiet' }, '-') },
      { key: 'now', label: 'Now', show: figure(rate) },
      { key: 'some', label: `Last ${state.range / 60} min`, show: figure(whole) },
      { key: 'total', label: 'Since the start', show: figure(whole) },
    ],
  });
}

/** The servers behind this one, and the connections to them. */
function poolTable(panels) {
  const { history, state, moment } = panels;
  const pools = history.of('penstock_pool_connections', panels.model);
  byId('upstreams').hidden = pools.length === 0;
  byId('upstreams-count').textContent = plural(pools.length, 'endpoint');
  const rows = pools.map(({ labels: { model, endpoint } }) => {
    const one = { model, endpoint };
    const says = name => panels.gauge(`penstock_pool_${name}`, one);
    const rises = name => (moment ? history.rise(moment.from, moment.to, history.of(`penstock_pool_${name}_total`, one)) : 0);
    const acquired = rises('acquired');
    return {
      endpoint, model: model ?? '', ejected: says('ejected'), open: says('connections'), busy: says('connections_in_use'), waiting: says('waiting'),
      requests: moment ? acquired / ((moment.to.at - moment.from.at) / 1000) : 0, reused: acquired > 0 ? rises('reused') / acquired : null,
      wait: says('acquire_p99_seconds'), failed: history.total(history.of('penstock_pool_failed_total', one)),
    };
  });
  table(byId('pools'), {
    caption: 'Upstreams and the connections to them', rows, sorted: state.sorted.pools, by: key => state.sort('pools', key),
    columns: [
      { key: 'endpoint', label: 'Endpoint' },
      { key: 'model', label: 'Model', left: true },
      { key: 'ejected', label: 'State', left: true, show: value => (value ? badge('bad', 'Left out') : badge('good', 'In use')) },
      { key: 'requests', label: 'Requests', show: figure(rate) },
      { key: 'open', label: 'Connections', show: figure(whole) },
      { key: 'busy', label: 'Busy', show: figure(whole) },
      { key: 'waiting', label: 'Waiting', show: figure(whole) },
      { key: 'reused', label: 'Reused', show: figure(share) },
      { key: 'wait', label: 'p99 wait', show: figure(time) },
      { key: 'failed', label: 'Failed to open', show: figure(whole), mood: row => (row.failed > 0 ? 'bad' : '') },
    ],
  });
}

/** What each of several processes says. */
function workerTable(panels) {
  const { history, state } = panels;
  const several = history.workers.size > 1;
  byId('workers-card').hidden = !several;
  if (!several) return;
  const rows = [...history.workers].map(([worker, { said: all }]) => ({
    worker, connections: all.get('penstock_http_connections') ?? null, flight: all.get('penstock_http_requests_in_flight') ?? null,
    requests: all.get('penstock_requests_total') ?? null, memory: all.get('process_resident_memory_bytes') ?? null, cpu: all.get('process_cpu_seconds_total') ?? null,
  }));
  const some = key => rows.some(row => row[key] !== null);
  table(byId('workers'), {
    caption: 'Processes', rows, sorted: state.sorted.workers, by: key => state.sort('workers', key),
    columns: [
      { key: 'worker', label: 'Process' },
      { key: 'connections', label: 'Connections', show: figure(whole) },
      { key: 'flight', label: 'In flight', show: figure(whole) },
      { key: 'requests', label: 'Requests so far', show: figure(whole) },
      ...(some('memory') ? [{ key: 'memory', label: 'Memory', show: figure(bytes) }] : []),
      ...(some('cpu') ? [{ key: 'cpu', label: 'CPU so far', show: figure(time) }] : []),
    ],
  });
}
