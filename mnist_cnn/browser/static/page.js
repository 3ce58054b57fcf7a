// @ts-check
// The page: asks the network after every frame in which the drawing changed.
'use strict';

/** @type {Settings} */
const settings = JSON.parse(element('settings').textContent ?? '');
const pad = /** @type {HTMLCanvasElement} */ (element('pad'));
const reader = new Reader(settings);
const ink = new Ink(pad, penWidth, changed);
/** @type {Record<string, Sheet>} */
const sheets = {};
/** @type {Map<string, Answer>} to strokes that did not change */
const known = new Map();
let mode = '';
let waiting = false;

/** @param {string} name @returns {string} */
function chosen(name) {
  return /** @type {HTMLInputElement} */ (document.querySelector(`input[name=${name}]:checked`)).value;
}

/** Of the pad's shorter side; finer for the smaller digits of a number. @returns {number} */
function penWidth() {
  return Number(chosen('width')) * (mode === 'number' ? 0.6 : 1);
}

function changed() {
  if (waiting || mode === 'picture') return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const keys = document.activeElement === pad && pad.matches(':focus-visible');
    paint(pad, ink.strokes, keys ? ink.cursor : null);
    document.body.toggleAttribute('data-empty', !ink.strokes.length);
    /** @type {HTMLButtonElement} */ (element('undo')).disabled = !ink.sheet.past.length;
    /** @type {HTMLButtonElement} */ (element('redo')).disabled = !ink.sheet.future.length;
    const words = mode === 'number' ? number() : digit();
    if (ink.drawing) clearTimeout(resting);
    else if (reader.model) announce(words);
  });
}

/** @returns {string} */
function digit() {
  const picture = prepare(ink.strokes);
  showPicture(picture);
  if (!reader.model) return '';
  const started = performance.now();
  const answer = picture && reader.read([picture])[0];
  if (answer) element('answer').dataset.milliseconds = (performance.now() - started).toFixed(2);
  return showAnswer(answer);
}

/** @returns {string} */
function number() {
  if (!reader.model) return '';
  const rows = split(ink.strokes.map(({points}) => points), answerTo);
  const read = rows.map((row) => row.map(({strokes, box}) => ({box, answer: answerTo(strokes)})));
  return showNumber(pad, read, Boolean(ink.drawing));
}

/** @param {number[]} indices of strokes @returns {Answer} to them as one digit */
function answerTo(indices) {
  const strokes = indices.map((i) => ink.strokes[i]);
  const key = strokes.map(({id, points}) => `${id}:${points.length}`).join();
  let answer = known.get(key);
  if (!answer) {
    [answer] = reader.read([/** @type {Float32Array} */ (prepare(strokes))]);
    if (known.size > 1000) known.clear();
    known.set(key, answer);
  }
  return answer;
}

function choose() {
  if (mode) sheets[mode] = ink.sheet;
  mode = chosen('mode');
  document.body.dataset.mode = mode;
  document.title = element('title').textContent = mode === 'picture' ? 'Read a picture'
    : mode === 'number' ? 'Write a number' : 'Draw a digit';
  ink.turn(sheets[mode] ?? {strokes: [], past: [], future: []});
  if (mode === 'picture') photo.again();
}

/** Between frames, so that all is compiled when the pen comes. @param {number} answers */
function warm(answers) {
  if (!answers || ink.strokes.length) return;
  const wave = Array.from({length: 60}, (_, i) => /** @type {Point} */ ([i, 30 * Math.sin(i / 9)]));
  reader.read([/** @type {Float32Array} */ (prepare([{points: wave}]))]);
  setTimeout(warm, 20, answers - 1);
}

element('clear').addEventListener('click', () => ink.clear());
element('undo').addEventListener('click', () => ink.undo());
element('redo').addEventListener('click', () => ink.redo());
for (const choice of document.querySelectorAll('input[name=mode]')) {
  choice.addEventListener('change', choose);
}
for (const name of ['focus', 'blur']) pad.addEventListener(name, changed);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
new ResizeObserver(changed).observe(pad);
listenToTruths(ink);
const photo = new Photo(settings, announce);
showBars(null);
element('network').textContent = settings.network;
choose();
reader.load().then(() => {
  Object.assign(element('answer').dataset, {
    backend: reader.backend, ready: performance.now().toFixed(0)});
  changed();
  warm(20);
}, (error) => {
  element('words').textContent = location.protocol === 'file:' && !settings.model.data
    ? 'A browser does not load a model from a file. Open digits.html, or: mlflow run . -e serve'
    : `The network could not be loaded: ${error.message}`;
});
