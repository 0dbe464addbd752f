"""Script and style of the labelling sheet and of the audit's sheet, which work offline."""

STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 1.2em auto; max-width: 64em; padding: 0 1em; color: #1d1d1f }
body { background: #fff } h1 { font-size: 1.25em; margin: 0 0 .4em } label { margin-right: 1.2em }
button, select, input { font: inherit; padding: .25em .6em } button { cursor: pointer; margin: 0 .4em .4em 0 }
:focus-visible { outline: 3px solid #0b57d0; outline-offset: 2px }
#viewer { display: flex; gap: 1.5em; flex-wrap: wrap; margin: 1em 0 } #viewer > div { flex: 1; min-width: 18em }
figure { margin: 0 } figcaption { overflow-wrap: anywhere; max-width: 30em }
#image { width: 320px; height: 320px; object-fit: contain; background: #f2f2f2; display: block }
#image.zoomed { width: min(90vw, 900px); height: min(80vh, 900px) }
kbd { border: 1px solid #888; border-radius: 3px; padding: 0 .35em; margin-right: .4em }
[aria-pressed=true] { font-weight: bold; border-width: 3px } progress { width: 16em; vertical-align: middle }
"""

SCRIPT = r"""
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const find = id => document.getElementById(id);
const store = 'ltr-label-' + data.key;
let state = {labels: {}, history: [], at: 0};
try { state = Object.assign(state, JSON.parse(localStorage.getItem(store) || '{}')) } catch (error) { }
const images = data.images;
let shown = [];
// the crops of one file have an id in addition to their path
const id = image => image.id ?? image.path;

function keep() {
  try { localStorage.setItem(store, JSON.stringify(state)) }
  catch (error) { find('status').textContent = 'The browser keeps nothing: save before you close this sheet.' }
}
// log-odds tell small probabilities apart
function probability(p) {
  const small = p > 0 && p < 0.001 ? ` (log-odds ${Math.log(p / (1 - p)).toFixed(2)})` : '';
  return `probability ${p.toFixed(3)}${small}`;
}
function filtered() {
  const wanted = find('class').value, least = parseFloat(find('score').value) || 0, open = find('open').checked;
  shown = images.map((_, number) => number).filter(number => {
    const image = images[number];
    return (wanted === '' || image.class === wanted) && image.score >= least
      && (!open || !(id(image) in state.labels) || number === state.at);
  });
  if (shown.length && !shown.includes(state.at)) state.at = shown.find(number => number > state.at) ?? shown[0];
}
function show() {
  const done = Object.keys(state.labels).length;
  find('progress').value = done;
  find('done').textContent = `${done} of ${images.length} images have a label or are skipped`;
  const empty = !shown.length, image = images[state.at];
  find('viewer').hidden = empty;
  find('nothing').hidden = !empty;
  if (empty) return;
  const label = state.labels[id(image)];
  const says = image.says ?? `listed for ${image.class}`;
  find('image').src = image.data ? 'data:image/jpeg;base64,' + image.data : '';
  find('image').alt = `${image.path}, ${says}`;
  find('about').textContent = `image ${shown.indexOf(state.at) + 1} of ${shown.length}: ${image.path}; `
    + (image.says ? says : `${says}, ${probability(image.score)}; predicted ${image.predicted}`) + '; '
    + (label === undefined ? 'no label yet' : label === '' ? 'skipped' : `labelled ${label}`);
  for (const button of document.querySelectorAll('#classes button')) {
    const pressed = button.dataset.name === label;
    button.setAttribute('aria-pressed', pressed);
    button.querySelector('span').textContent = pressed ? ' ✓' : '';
  }
}
function move(step) {
  if (!shown.length) return;
  const place = shown.indexOf(state.at);
  state.at = shown[Math.min(Math.max(place + step, 0), shown.length - 1)];
  filtered(); keep(); show();
}
function give(label) {
  if (!shown.length) return;
  const path = images[state.at].path, key = id(images[state.at]);
  state.history.push([state.at, key in state.labels ? state.labels[key] : null]);
  state.labels[key] = label;
  find('status').textContent = label === '' ? `skipped ${path}` : `labelled ${path} as ${label}`;
  const place = shown.indexOf(state.at), last = place === shown.length - 1;
  if (!last) state.at = shown[place + 1];
  filtered(); keep(); show();
}
function undo() {
  const step = state.history.pop();
  if (!step) { find('status').textContent = 'nothing to undo'; return }
  const path = images[step[0]].path, key = id(images[step[0]]);
  if (step[1] === null) delete state.labels[key]; else state.labels[key] = step[1];
  state.at = step[0];
  find('status').textContent = `took back the label of ${path}`;
  filtered(); keep(); show();
}
function zoom() {
  const zoomed = find('image').classList.toggle('zoomed');
  find('zoom').setAttribute('aria-pressed', zoomed);
}
function quoted(text) { return /[",\r\n;]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text }
function cell(text) {
  const number = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
  if (/^\s*[=+\-@＝＋－＠]|^[\t\r]/.test(text) && !number.test(text)) text = "'" + text;
  return quoted(text);
}
// paths and labels as the commands write them, with every space and a mark before a formula
const written = (text, known) => known === undefined ? cell(text) : quoted(known);
function table() {
  const boxed = images.some(image => image.box);
  const rows = images.filter(image => state.labels[id(image)]).map(image =>
    [written(image.path, image.cell), written(state.labels[id(image)], data.cells[state.labels[id(image)]]),
      ...(boxed ? image.box ?? ['', '', '', ''] : []).map(cell)]);
  const head = ['path', 'label', ...(boxed ? ['x', 'y', 'width', 'height'] : [])];
  return [head, ...rows].map(row => row.join(',')).join('\r\n') + '\r\n';
}
function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([table()], {type: 'text/csv'}));
  link.download = data.file;
  link.click();
  URL.revokeObjectURL(link.href);
  find('status').textContent = 'saved ' + data.file;
}
const keys = {s: () => give(''), u: undo, z: zoom, ArrowRight: () => move(1), ArrowLeft: () => move(-1)};
for (const button of document.querySelectorAll('#classes button')) {
  keys[button.dataset.key] = () => give(button.dataset.name);
  button.addEventListener('click', () => give(button.dataset.name));
}
for (const [name, action] of [['skip', () => give('')], ['undo', undo], ['zoom', zoom], ['save', save],
  ['back', () => move(-1)], ['next', () => move(1)]]) find(name).addEventListener('click', action);
for (const name of ['class', 'score', 'open'])
  find(name).addEventListener('input', () => { filtered(); keep(); show() });
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT/.test(event.target.tagName)) return;
  const action = keys[event.key] || keys[event.key.toLowerCase()];
  if (action && event.key) { event.preventDefault(); action() }
});
filtered(); show();
"""
