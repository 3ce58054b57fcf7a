// @ts-check
// What is to be seen and heard: the strokes, the answer, the bars, the number, the announcement.
'use strict';

const REST = 700; // milliseconds without a change, and the pen up, until the answer is announced

/** @param {string} id @returns {HTMLElement} */
function element(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/**
 * The strokes as smooth curves, and the pen of the arrow keys.
 * @param {HTMLCanvasElement} pad @param {Stroke[]} strokes @param {Point | null} cursor
 */
function paint(pad, strokes, cursor) {
  const scale = devicePixelRatio;
  const [width, height] = [pad.clientWidth, pad.clientHeight].map((v) => Math.round(v * scale));
  if (pad.width !== width || pad.height !== height) Object.assign(pad, {width, height});
  const side = Math.min(width, height);
  const context = /** @type {CanvasRenderingContext2D} */ (pad.getContext('2d'));
  const {color, backgroundColor, accentColor} = getComputedStyle(pad);
  // Not clearRect: where graphics are accelerated, the old strokes then stay until something is
  // drawn.
  context.fillStyle = backgroundColor;
  context.fillRect(0, 0, width, height);
  context.strokeStyle = context.fillStyle = color;
  context.lineCap = context.lineJoin = 'round';
  for (const stroke of strokes) {
    context.lineWidth = stroke.width * side;
    const points = stroke.points.map(([x, y]) => [x * side, y * side]);
    const [[x0, y0]] = points;
    context.beginPath(); // a line of no length is not stroked: a tap is a circle
    context.arc(x0, y0, context.lineWidth / 2, 0, 2 * Math.PI);
    context.fill();
    context.beginPath();
    context.moveTo(x0, y0);
    points.slice(1).forEach(([x, y], i, rest) => {
      const [nextX, nextY] = rest[i + 1] ?? [x, y];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    });
    context.stroke();
  }
  if (cursor) {
    context.strokeStyle = accentColor;
    context.lineWidth = 2 * scale;
    context.beginPath();
    context.arc(cursor[0] * side, cursor[1] * side, 9 * scale, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** @param {Float32Array | null} picture 28 × 28 in 0..1 */
function showPicture(picture) {
  const image = new ImageData(28, 28);
  for (let i = 0; i < 28 * 28; i++) {
    const value = picture ? Math.round(255 * picture[i]) : 0;
    image.data.set([value, value, value, 255], 4 * i);
  }
  const canvas = /** @type {HTMLCanvasElement} */ (element('seen'));
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d')).putImageData(image, 0, 0);
}

/** @param {number} share @returns {string} */
function percent(share) {
  return share > 0.9995 ? 'over 99.9\u00a0%' : `${(100 * share).toFixed(1)}\u00a0%`;
}

/** @param {Answer | null} answer null: there is no ink @returns {string} what it says */
function showAnswer(answer) {
  const state = answer?.state ?? 'empty';
  const digit = !answer || state === 'none' ? '' : String(answer.digit);
  const named = `${digit === '8' ? 'an' : 'a'} ${digit}`;
  const words = {
    empty: 'Draw a digit from 0 to\u00a09.',
    none: 'This is no digit.',
    unsure: `Not sure. Perhaps ${named}?`,
    sure: `This is ${named}.`,
  }[state];
  const probability = answer ? answer.share.toFixed(4) : '';
  Object.assign(element('answer').dataset, {state, digit, probability});
  element('big').textContent = digit;
  element('words').textContent = words;
  element('share').textContent = digit && answer ? `${percent(answer.share)} certain` : '';
  showBars(answer);
  return words;
}

/** @param {Answer | null} answer */
function showBars(answer) {
  [...element('bars').children].forEach((item, digit) => {
    const share = answer ? answer.shares[digit] : 0;
    const [track, words] = item.children;
    const fill = /** @type {HTMLElement} */ (track.firstChild);
    fill.style.transform = `translateY(${(100 * (1 - share)).toFixed(2)}%)`;
    words.textContent = answer ? `: ${percent(share)}` : '';
    item.classList.toggle('winner', answer?.digit === digit && answer.state !== 'none');
  });
}

/** @typedef {{box: Box, answer: Answer}} Read a digit of a number, and where it stands */

/**
 * A number above its digits, and as a whole.
 * @param {HTMLCanvasElement} pad
 * @param {Read[][]} rows
 * @param {boolean} drawing
 * @returns {string} what it says
 */
function showNumber(pad, rows, drawing) {
  const side = Math.min(pad.clientWidth, pad.clientHeight);
  const read = rows.flat();
  const value = rows.map((row) => row.map(({answer}) => answer.digit).join('')).join('\n');
  const doubts = read.filter(({answer}) => answer.state !== 'sure').length;
  const words = !read.length ? 'Write a number.'
    : !doubts ? 'Sure of every digit.'
      : read.length === 1 ? 'Not sure.' : `Not sure of ${doubts} of its ${read.length} digits.`;
  const state = !read.length ? 'empty' : drawing ? 'reading' : 'read';
  Object.assign(element('number').dataset, {value, state});
  const digit = (/** @type {Answer} */ {digit, state}, mark = '') =>
    state === 'sure' ? made('span', 'sure', `${digit}`) : made('span', 'unsure', digit + mark);
  element('number').replaceChildren(
    ...rows.map((row) => made('div', 'row', ...row.map(({answer}) => digit(answer)))),
    made('p', '', words));
  element('labels').replaceChildren(...read.map(({box, answer}) => {
    const label = digit(answer, '?');
    label.style.left = `${side * (box.left + box.right) / 2}px`;
    label.style.top = `${Math.max(32, side * box.top - 12)}px`;
    return label;
  }));
  return read.length ? `${value.replaceAll('\n', ', ')}. ${words}` : words;
}

/** @param {string} tag @param {string} className @param {(Node | string)[]} inside @returns {HTMLElement} */
function made(tag, className, ...inside) {
  const one = Object.assign(document.createElement(tag), {className});
  one.append(...inside);
  return one;
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let resting;

/** Announced once nothing has changed for a while. @param {string} words */
function announce(words) {
  clearTimeout(resting);
  resting = setTimeout(() => {
    if (element('spoken').textContent !== words) element('spoken').textContent = words;
  }, REST);
}
