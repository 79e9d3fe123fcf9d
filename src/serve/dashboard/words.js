// Numbers as people read them: a number and its unit, apart, so that the unit can be drawn smaller.

const NOTHING = ['-', ''];

function digits(value) {
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString('en-US');
  if (size >= 10) return value.toFixed(1).replace(/\.0$/, '');
  return value.toFixed(size >= 1 ? 1 : 2).replace(/\.?0+$/, '') || '0';
}

function count(value) {
  if (value === null || Number.isNaN(value)) return NOTHING;
  const size = Math.abs(value);
  if (size >= 1e9) return [`${digits(value / 1e9)}B`, ''];
  if (size >= 1e6) return [`${digits(value / 1e6)}M`, ''];
  if (size >= 1e5) return [`${digits(value / 1e3)}k`, ''];
  return [digits(value), ''];
}

const whole = value => (value === null || Number.isNaN(value) ? NOTHING : count(Math.round(value)));

function rate(value) {
  if (value === null || Number.isNaN(value)) return NOTHING;
  return [value > 0 && value < 0.01 ? '<0.01' : count(value)[0], '/s'];
}

function time(seconds) {
  if (seconds === null || Number.isNaN(seconds)) return NOTHING;
  if (seconds === 0) return ['0', 'ms'];
  if (seconds < 0.0001) return [digits(seconds * 1e6), 'µs'];
  if (seconds < 1) return [digits(seconds * 1e3), 'ms'];
  if (seconds < 120) return [digits(seconds), 's'];
  if (seconds < 7200) return [digits(seconds / 60), 'min'];
  if (seconds < 172_800) return [digits(seconds / 3600), 'h'];
  return [digits(seconds / 86_400), 'days'];
}

function bytes(value) {
  if (value === null || Number.isNaN(value)) return NOTHING;
  let [scaled, unit] = [value, 0];
  while (Math.abs(scaled) >= 1000 && unit < 4) { scaled /= 1024; unit++; }
  return [digits(scaled), ['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]];
}

function share(value) {
  if (value === null || Number.isNaN(value)) return NOTHING;
  const percent = value * 100;
  if (percent > 0 && percent < 0.01) return ['<0.01', '%'];
  if (percent > 99.99 && percent < 100) return ['99.99', '%'];
  return [percent >= 10 && percent < 99 ? percent.toFixed(1) : digits(percent), '%'];
}

/** With a space before the unit, except where the field writes none. */
const said = ([value, unit]) => (unit === '' || unit === '/s' || unit === '%' ? value + unit : `${value} ${unit}`);

const clock = (at, seconds = true) =>
  new Date(at).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined });

const plural = (number, word) => `${number.toLocaleString('en-US')} ${word}${number === 1 ? '' : 's'}`;

/** An element with attributes and children; text is text, whatever is in it. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'class') element.className = value;
    else if (key === 'color') element.style.color = value;
    else if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
}

function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'fill' || key === 'stroke') element.style[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const measure = ([value, unit]) => [value, unit ? make('small', {}, unit) : null];
const byId = id => document.getElementById(id);
