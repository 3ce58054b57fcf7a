// @ts-check
// The page: asks the network after every frame in which the drawing changed.
'use strict';

const TITLES = {digit: 'Draw a digit', number: 'Write a number', picture: 'Read a picture'};

/** @type {Settings} */
const settings = JSON.parse(element('settings').textContent ?? '');
const pad = /** @type {HTMLCanvasElement} */ (element('pad'));
const reader = new Reader(settings);
const ink = new Ink(pad, penWidth, changed);
/** @type {Record<string, Sheet>} */
const sheets = {};
/** @type {Map<string, Answer>} to strokes that did not change */
const known = new Map();
/** @type {keyof TITLES} */
let mode = 'digit';
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
    paint(pad, ink.strokes, pad.matches(':focus-visible') ? ink.cursor : null);
    document.body.toggleAttribute('data-empty', !ink.strokes.length);
    element('undo').toggleAttribute('disabled', !ink.sheet.at);
    element('redo').toggleAttribute('disabled', !ink.sheet.versions[ink.sheet.at + 1]);
    if (mode === 'digit') showPicture(prepare(ink.strokes));
    if (!reader.model) return;
    const words = mode === 'digit' ? digit() : number();
    if (ink.drawing) clearTimeout(resting);
    else announce(words);
  });
}

/** @returns {string} */
function digit() {
  const picture = prepare(ink.strokes);
  const started = performance.now();
  const answer = picture && reader.read([picture])[0];
  if (answer) element('answer').dataset.milliseconds = (performance.now() - started).toFixed(2);
  return showAnswer(answer);
}

/** @returns {string} */
function number() {
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
  sheets[mode] = ink.sheet;
  mode = /** @type {keyof TITLES} */ (chosen('mode'));
  document.body.dataset.mode = mode;
  document.title = element('title').textContent = TITLES[mode];
  ink.turn(sheets[mode] ?? {versions: [[]], at: 0});
  if (mode === 'picture') photo.again();
}

/** Between frames, so that all is compiled when the pen comes. @param {number} answers */
function warm(answers) {
  if (!answers || ink.strokes.length) return;
  const wave = Array.from({length: 60}, (_, i) => /** @type {Point} */ ([i, 30 * Math.sin(i / 9)]));
  reader.read([/** @type {Float32Array} */ (prepare([{points: wave}]))]);
  setTimeout(warm, 20, answers - 1);
}

addEventListener('click', ({target}) => {
  const button = /** @type {Element} */ (target).closest('button');
  if (button?.id === 'undo') ink.go(-1);
  else if (button?.id === 'redo') ink.go(1);
  else if (button && (button.id === 'clear' || ink.strokes.length)) {
    if (button.value) tell(ink.strokes, Number(button.value));
    ink.clear();
  }
});
element('mode').addEventListener('change', choose);
for (const name of ['focus', 'blur']) pad.addEventListener(name, changed);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
new ResizeObserver(changed).observe(pad);
const photo = new Photo(settings, announce);
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
