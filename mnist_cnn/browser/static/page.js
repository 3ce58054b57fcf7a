// @ts-check
// The page: asks the network after every frame in which the drawing changed.

const TITLES = {digit: 'Draw a digit', number: 'Write a number', picture: 'Read a picture'};

/** @type {Settings} */
const settings = JSON.parse(element('settings').textContent);
settings.base = new URL('.', location.href).href;
const pad = element('pad');
const reader = new Reader(settings);
// The pen's width, of the pad's shorter side, is finer for the smaller digits of a number.
const ink = new Ink(pad, () => Number(chosen('width')) * (mode === 'number' ? 0.6 : 1), changed);
/** @type {Record<string, Sheet>} */
const sheets = {};
/** @type {Map<string, Answer>} to strokes that did not change */
const known = new Map();
/** @type {keyof TITLES} */
let mode = 'digit';
let waiting = false;

/** @param {string} name @returns {any} the value of the choice */
const chosen = (name) => document.querySelector(`[name=${name}]:checked`)?.getAttribute('value');

function changed() {
  if (waiting || mode === 'picture') return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    paint(pad, ink.strokes, pad.matches(':focus-visible') ? ink.cursor : null);
    document.body.toggleAttribute('data-empty', !ink.strokes.length);
    document.body.toggleAttribute('data-drawing', Boolean(ink.drawing));
    element('undo').disabled = !ink.sheet.at;
    element('redo').disabled = !ink.sheet.versions[ink.sheet.at + 1];
    const picture = mode === 'digit' ? prepare(ink.strokes) : null;
    showPicture(picture);
    if (!reader.model) return;
    const started = performance.now();
    const answer = picture && reader.read([picture])[0];
    if (answer) element('answer').dataset.milliseconds = (performance.now() - started).toFixed(2);
    const words = mode === 'digit' ? showAnswer(answer, Boolean(ink.drawing)) : number();
    if (ink.drawing) clearTimeout(resting);
    else announce(words);
  });
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
  const answer = known.get(key) ?? reader.read([prepare(strokes)])[0];
  if (known.size > 1000) known.clear();
  known.set(key, answer);
  return answer;
}

/** What runs for the first time is slow: it runs before the pen comes. @param {number} times */
function rehearse(times) {
  if (!times || ink.begun) return;
  pad.getContext('2d');
  reader.read([prepare([{points: [[0.2, 0.2], [0.6, 0.2], [0.3, 0.9]]}])]);
  setTimeout(rehearse, 0, times - 1);
}

function choose() {
  sheets[mode] = ink.sheet;
  mode = chosen('mode');
  document.body.dataset.mode = mode;
  document.title = element('title').textContent = TITLES[mode];
  ink.turn(sheets[mode] ?? {versions: [[]], at: 0});
  if (mode === 'picture') photo.show(photo.rows, photo.words);
}

addEventListener('click', ({target}) => {
  const button = /** @type {Element} */ (target).closest('button');
  if (button?.value && ink.strokes.length) tell(ink.strokes, Number(button.value));
  if (button?.id === 'undo') ink.go(-1);
  else if (button?.id === 'redo') ink.go(1);
  else if (button) ink.replace([]);
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
  requestAnimationFrame(() => setTimeout(rehearse, 0, 20));
}, ({message}) => {
  element('words').textContent = `The network could not be loaded: ${message}`;
});
