// The page: collects strokes, shows them, and asks the network after every frame that changed.
'use strict';

const element = (id) => document.getElementById(id);
const settings = JSON.parse(element('settings').textContent);
const pad = element('pad');
const answer = element('answer');
const dark = matchMedia('(prefers-color-scheme: dark)');

let strokes = []; // [{width, points: [[x, y], ...]}] in units of the pad's side
let drawing = null; // the stroke under the pen
let pointer = null; // the finger or pen that draws; a second one is ignored
let cursor = [0.5, 0.5]; // of the arrow keys
let model = null;
let waiting = false;

function changed() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    paint();
    think();
  });
}

function paint() {
  const context = pad.getContext('2d');
  context.clearRect(0, 0, pad.width, pad.height);
  context.strokeStyle = context.fillStyle = dark.matches ? '#eee' : '#111';
  context.lineCap = context.lineJoin = 'round';
  for (const {width, points} of strokes) {
    context.lineWidth = width * pad.width;
    context.beginPath();
    context.moveTo(points[0][0] * pad.width, points[0][1] * pad.height);
    points.forEach(([x, y]) => context.lineTo(x * pad.width, y * pad.height)); // one point: a dot
    context.stroke();
  }
  if (document.activeElement === pad && pad.matches(':focus-visible')) {
    context.lineWidth = 2;
    context.strokeRect(cursor[0] * pad.width - 6, cursor[1] * pad.height - 6, 12, 12);
  }
}

function think() {
  const picture = prepare(strokes);
  show(picture);
  if (!model) return;
  if (!picture) return say('empty', '', '', 'Draw a digit from 0 to 9.', []);

  const started = performance.now();
  const {low, high, shape} = settings.adapter;
  const raw = tf.tidy(() => model.predict(
    tf.tensor(picture.map((value) => low + value * (high - low)), [1, ...shape])).dataSync());
  answer.dataset.milliseconds = (performance.now() - started).toFixed(2);
  const probabilities = calibrated(Array.from(raw));
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const best = order[0];
  const share = probabilities[best];
  const bars = order.slice(0, 3).map((digit) => [digit, probabilities[digit]]);
  const article = best === 8 ? 'an' : 'a';
  const [state, text] = share >= settings.sure_from ? ['sure', `This is ${article} ${best}.`]
    : share < settings.none_below ? ['none', 'This is no digit.']
      : ['unsure', `Not sure. Perhaps ${article} ${best}?`];
  say(state, state === 'none' ? '' : best, share.toFixed(4), text, bars);
}

// Temperature scaling (Guo et al. 2017): p^(1/T), normalised; T was fitted on validation images.
function calibrated(answers) {
  const largest = Math.max(...answers);
  const logits = settings.adapter.output === 'logits';
  const probabilities = logits ? answers.map((value) => Math.exp(value - largest)) : answers;
  const powers = probabilities.map((p) => Math.max(p, 1e-12) ** (1 / settings.temperature));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

function say(state, digit, probability, text, bars) {
  Object.assign(answer.dataset, {state, digit, probability});
  if (answer.textContent !== text) answer.textContent = text; // or it is read aloud again
  element('likeliest').replaceChildren(...bars.map(([name, share]) => {
    const item = document.createElement('li');
    const bar = document.createElement('progress');
    bar.value = share;
    bar.setAttribute('aria-label', `digit ${name}`);
    item.append(String(name), bar, `${(100 * share).toFixed(1)} %`);
    return item;
  }));
}

function show(picture) {
  const image = new ImageData(28, 28);
  for (let i = 0; i < 28 * 28; i++) {
    const value = picture ? Math.round(255 * picture[i]) : 0;
    image.data.set([value, value, value, 255], 4 * i);
  }
  element('seen').getContext('2d').putImageData(image, 0, 0);
}

function at(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function begin(point) {
  const width = Number(document.querySelector('input[name=width]:checked').value);
  drawing = {width, points: [point]};
  strokes.push(drawing);
  changed();
}

pad.addEventListener('pointerdown', (event) => {
  if (pointer !== null || event.button > 0) return;
  pointer = event.pointerId;
  pad.setPointerCapture(pointer);
  begin(at(event));
});
pad.addEventListener('pointermove', (event) => {
  if (event.pointerId !== pointer) return;
  const seen = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  drawing.points.push(...(seen.length ? seen : [event]).map(at));
  changed();
});
for (const name of ['pointerup', 'pointercancel', 'lostpointercapture']) {
  pad.addEventListener(name, (event) => {
    if (event.pointerId === pointer) drawing = pointer = null;
  });
}

function clear() {
  strokes = [];
  drawing = pointer = null;
  changed();
}

function undo() {
  strokes.pop();
  drawing = pointer = null;
  changed();
}

element('clear').addEventListener('click', clear);
element('undo').addEventListener('click', undo);
addEventListener('keydown', (event) => {
  if (event.key === 'Delete' || event.key === 'Backspace') return clear();
  if (event.key === 'z' && (event.ctrlKey || event.metaKey)) return undo();
  const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  if (document.activeElement !== pad || (event.key !== ' ' && !(event.key in moves))) return;
  event.preventDefault(); // no scrolling
  if (event.key === ' ') {
    if (drawing) drawing = null;
    else begin([...cursor]);
  } else {
    cursor = cursor.map((value, i) => Math.min(1, Math.max(0, value + 0.04 * moves[event.key][i])));
    if (drawing) drawing.points.push([...cursor]);
  }
  changed();
});
dark.addEventListener('change', changed);
pad.addEventListener('focus', changed);
pad.addEventListener('blur', changed);

async function chooseBackend() {
  const wanted = new URLSearchParams(location.search).get('backend');
  if (tf.wasm) tf.wasm.setWasmPaths(new URL('./', location.href).href);
  // WebAssembly answers at once; WebGL compiles for seconds first, for a network this small.
  for (const name of wanted ? [wanted] : ['wasm', 'cpu']) {
    try {
      if (tf.findBackendFactory(name) && await tf.setBackend(name)) return name;
    } catch (error) { /* the next one */ }
  }
  throw new Error(`The back end ${wanted} does not work in this browser.`);
}

async function load() {
  answer.dataset.backend = await chooseBackend();
  const source = settings.model ? embedded(settings.model) : 'model.json';
  const graph = settings.format === 'graph-model';
  const loaded = await (graph ? tf.loadGraphModel(source) : tf.loadLayersModel(source));
  tf.tidy(() => loaded.predict(tf.zeros([1, ...settings.adapter.shape])).dataSync()); // compiles
  model = loaded;
  answer.dataset.ready = performance.now().toFixed(0);
  changed();
}

function embedded({data, ...model}) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const weightSpecs = model.weightsManifest.flatMap((group) => group.weights);
  return {load: async () => ({...model, weightSpecs, weightData: bytes.buffer})};
}

show(null);
load().catch((error) => {
  answer.textContent = location.protocol === 'file:' && !settings.model
    ? 'A browser does not load a model from a file. Open digits.html, or: mlflow run . -e serve'
    : `The network could not be loaded: ${error.message}`;
});
