// The page itself: what was chosen, how the server is asked, and what is said when it does not answer.

const EVERY = 1000;
const PATIENCE = 5000;
const PAUSES = [1000, 2000, 4000, 8000]; // between attempts to reach a server that does not answer
const history = new History();
const base = new URL('./', location.href.split(/[?#]/, 1)[0].replace(/\/+$/, ''));

const kept = {
  get: name => { try { return localStorage.getItem(`penstock-${name}`); } catch { return null; } },
  set: (name, value) => { try { localStorage.setItem(`penstock-${name}`, value); } catch { /* a private window may forbid it */ } },
};
const secret = {
  get: () => { try { return sessionStorage.getItem('penstock-key'); } catch { return secret.value ?? null; } },
  set: value => { secret.value = value; try { sessionStorage.setItem('penstock-key', value); } catch { /* kept by the page alone */ } },
};

const state = {
  range: [60, 300, 900].find(each => String(each) === kept.get('range')) ?? 300,
  scale: kept.get('scale') === 'linear' ? 'linear' : 'log',
  model: new URLSearchParams(location.search).get('model') ?? '',
  paused: false,
  sorted: { models: { key: 'requests', down: true }, errors: { key: 'now', down: true }, workers: { key: 'worker', down: false }, pools: { key: 'endpoint', down: false } },
  sort(name, key) {
    const before = this.sorted[name];
    this.sorted[name] = { key, down: before.key === key ? !before.down : key !== 'model' && key !== 'what' };
    panels.show();
  },
  pick(model) {
    this.model = model;
    const url = new URL(location.href);
    if (model) url.searchParams.set('model', model); else url.searchParams.delete('model');
    window.history.replaceState(null, '', url);
    panels.show();
  },
};
const panels = new Panels(history, state);

class Unauthorized extends Error {}

async function ask(path) {
  const key = secret.get();
  const answer = await fetch(new URL(path, base), {
    cache: 'no-store', credentials: 'same-origin', signal: AbortSignal.timeout(PATIENCE), headers: key ? { Authorization: `Bearer ${key}` } : {},
  });
  if (answer.status === 401 || answer.status === 403) throw new Unauthorized();
  return answer;
}

function say(name, text) {
  document.body.dataset.state = name;
  // Whoever has the page read aloud hears what is new, and that once.
  if (byId('status-text').textContent !== text) byId('status-text').textContent = text;
}

let lostAt = null; // when the server was heard last, where it does not answer
let attempts = 0;
let timer = null;
let looked = 0;

/** How the server calls itself and whether it is ready; asked now and then. */
async function look(now) {
  if (now < looked + 5000) return;
  looked = now;
  // Where one of them is not answered, be it for want of a key: the metrics say whether the server is there.
  const [ready, server] = await Promise.allSettled([ask('v2/health/ready'), ask('v2')]);
  if (ready.value) state.ready = ready.value.status === 200;
  if (server.value?.ok) state.version = (await server.value.json().catch(() => ({}))).version;
}

async function tick() {
  timer = null;
  const began = Date.now();
  try {
    const answer = await ask('metrics');
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const text = await answer.text();
    if (state.paused) return;
    history.add(text, Date.now(), lostAt !== null || state.resumed);
    state.resumed = false;
    lostAt = null;
    attempts = 0;
    byId('banner').hidden = true;
    await look(began);
    say(state.ready === false ? 'not-ready' : 'live', state.ready === false ? 'Not ready' : 'Live');
  } catch (error) {
    if (state.paused) return;
    if (error instanceof Unauthorized) return wantKey();
    lose(error, began);
  }
  state.now = Date.now();
  place();
  panels.show();
  if (!state.paused) again(attempts ? PAUSES[Math.min(attempts - 1, PAUSES.length - 1)] : Math.max(100, EVERY - (Date.now() - began)));
}

function again(pause) {
  clearTimeout(timer);
  timer = setTimeout(tick, pause);
}

function lose(error, now) {
  attempts += 1;
  lostAt ??= history.last?.at ?? now;
  looked = 0;
  say('lost', 'Disconnected');
  byId('intro').firstChild.textContent = `Waiting for ${location.host}`;
  const banner = byId('banner');
  const since = history.last ? ` since ${clock(history.last.at)}` : '';
  const why = error.message.startsWith('status') || error.message.startsWith('the text') ? ` (${error.message})` : '';
  const head = `${location.host} does not answer${since}${why}.`;
  if (!banner.hidden && banner.querySelector('b')?.textContent === head) return;
  banner.replaceChildren(make('span', {}, make('b', {}, head),
    history.last ? ' What you see is what it said last. This page goes on by itself when the server is back.' : ' This page goes on by itself when the server is there.'));
  banner.hidden = false;
}

function place() {
  const version = state.version ? ` ${state.version}` : '';
  const many = history.workers.size > 1 ? `, ${plural(history.workers.size, 'process')}`.replace('processs', 'processes') : '';
  byId('place').textContent = `${location.host}${version}${many}`;
}

function wantKey() {
  say('key', 'API key needed');
  byId('intro').firstChild.textContent = 'The metrics of this server are protected by an API key';
  byId('ask-wrong').hidden = !secret.get();
  byId('key').value = '';
  if (!byId('ask').open) byId('ask').showModal();
}

byId('ask').addEventListener('cancel', event => event.preventDefault());
byId('ask-form').addEventListener('submit', event => {
  event.preventDefault();
  secret.set(byId('key').value.trim());
  byId('ask').close();
  again(0);
});

function pressed(group, attribute, value) {
  for (const button of byId(group).querySelectorAll('button')) button.setAttribute('aria-pressed', String(button.dataset[attribute] === String(value)));
}

function choose(group, attribute, take) {
  byId(group).addEventListener('click', event => {
    const value = event.target.dataset?.[attribute];
    if (!value) return;
    take(value);
    kept.set(attribute, value);
    pressed(group, attribute, value);
    panels.show();
  });
}
choose('ranges', 'range', value => { state.range = Number(value); });
choose('scale', 'scale', value => { state.scale = value; });
pressed('ranges', 'range', state.range);
pressed('scale', 'scale', state.scale);
byId('model').addEventListener('change', event => state.pick(event.target.value));

byId('pause').addEventListener('click', () => {
  state.paused = !state.paused;
  byId('pause').setAttribute('aria-pressed', String(state.paused));
  byId('pause').textContent = state.paused ? 'Go on' : 'Pause';
  if (state.paused) { clearTimeout(timer); say('paused', 'Paused'); } else { state.resumed = true; again(0); }
});

const THEMES = ['auto', 'light', 'dark'];
function theme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  byId('theme').textContent = `Theme: ${name}`;
  kept.set('theme', name);
  state.theme = name;
}
byId('theme').addEventListener('click', () => theme(THEMES[(THEMES.indexOf(state.theme) + 1) % THEMES.length]));
theme(THEMES.includes(kept.get('theme')) ? kept.get('theme') : 'auto');

place();
tick();
