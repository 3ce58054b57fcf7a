// @ts-check
// What is to be seen and heard: the strokes, the answer, the bars, the number, the announcement.

const REST = 700; // milliseconds without a change, and the pen up, until the answer is announced

/** @param {string} id @returns {any} of the class that index.html gives it */
const element = (id) => document.getElementById(id);

let painted = false;

/** The strokes as smooth curves, and the pen of the arrow keys. @param {HTMLCanvasElement} pad
 * @param {Stroke[]} strokes @param {Point | null} cursor */
function paint(pad, strokes, cursor) {
  if (!painted && !strokes.length && !cursor) return; // the first context takes a browser long
  painted = true;
  const scale = devicePixelRatio;
  const [width, height] = [pad.clientWidth, pad.clientHeight].map((v) => Math.round(v * scale));
  if (pad.width !== width || pad.height !== height) Object.assign(pad, {width, height});
  const side = Math.min(width, height);
  const context = /** @type {CanvasRenderingContext2D} */ (pad.getContext('2d'));
  const {color, backgroundColor, accentColor} = getComputedStyle(pad);
  // Not clearRect: where graphics are accelerated, old strokes then stay until something is drawn.
  context.fillStyle = backgroundColor;
  context.fillRect(0, 0, width, height);
  context.strokeStyle = context.fillStyle = color;
  context.lineCap = context.lineJoin = 'round';
  const circle = (/** @type {Point} */ [x, y], /** @type {number} */ radius) => {
    context.beginPath();
    context.arc(x * side, y * side, radius, 0, 2 * Math.PI);
  };
  for (const {width, points} of strokes) {
    context.lineWidth = width * side;
    circle(points[0], width * side / 2); // a line of no length is not stroked: a tap is a circle
    context.fill();
    context.beginPath();
    points.forEach(([x, y], i) => {
      const [nextX, nextY] = points[i + 1] ?? [x, y];
      const half = side / 2;
      if (!i) context.moveTo(x * side, y * side);
      else context.quadraticCurveTo(x * side, y * side, (x + nextX) * half, (y + nextY) * half);
    });
    context.stroke();
  }
  if (cursor) {
    context.strokeStyle = accentColor;
    context.lineWidth = 2 * scale;
    circle(cursor, 9 * scale);
    context.stroke();
  }
}

/** @param {Float32Array | null} picture 28 × 28 in 0..1 */
function showPicture(picture) {
  const image = new ImageData(28, 28);
  image.data.fill(255);
  for (let i = 0; i < 28 * 28; i++) image.data[4 * i + 3] = 255 * (picture?.[i] ?? 0);
  const how = {willReadFrequently: true}; // so few pixels are not worth a GPU
  element('seen').getContext('2d', how).putImageData(image, 0, 0);
}

/** @param {number} share @returns {string} */
function percent(share) {
  return share > 0.9995 ? 'over 99.9\u00a0%' : `${(100 * share).toFixed(1)}\u00a0%`;
}

/** @param {Answer | null} answer null: there is no ink @param {boolean} drawing
 * @returns {string} what it says */
function showAnswer(answer, drawing) {
  const state = answer?.state ?? 'empty';
  const digit = !answer || state === 'none' ? '' : String(answer.digit);
  const named = `${digit === '8' ? 'an' : 'a'} ${digit}`;
  const words = {
    empty: 'Draw a digit from 0 to\u00a09.',
    none: 'This is no digit.',
    unsure: `Not sure. Perhaps ${named}?`,
    sure: `This is ${named}.`,
  }[state];
  const probability = answer?.share.toFixed(4) ?? '';
  Object.assign(element('answer').dataset, {state, digit, probability});
  element('big').textContent = digit;
  element('words').textContent = words;
  element('share').textContent = digit && answer ? `${percent(answer.share)} certain` : '';
  [...element('bars').children].forEach((item, i) => {
    const [track, words] = item.children;
    const share = Math.round(100 * (answer?.shares[i] ?? 0));
    track.firstChild.style.transform = `translateY(${100 - share}%)`;
    if (!drawing) words.textContent = answer ? `: ${percent(answer.shares[i])}` : ''; // to be heard
    item.classList.toggle('winner', digit === String(i));
  });
  return words;
}

/** @typedef {{box: Box, answer: Answer}} Read a digit of a number, and where it stands */

/** A number above its digits, and as a whole. @param {HTMLCanvasElement} pad @param {Read[][]} rows
 * @param {boolean} drawing @returns {string} what it says */
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
    const [left, top] = [side * (box.left + box.right) / 2, Math.max(32, side * box.top - 12)];
    Object.assign(label.style, {left: `${left}px`, top: `${top}px`});
    return label;
  }));
  return read.length ? `${value.replaceAll('\n', ', ')}. ${words}` : words;
}

/** @param {string} tag @param {string} className @param {(Node | string)[]} inside */
function made(tag, className, ...inside) {
  const one = Object.assign(document.createElement(tag), {className});
  one.append(...inside);
  return one;
}

let resting = 0;

/** Announced once nothing has changed for a while. @param {string} words */
function announce(words) {
  clearTimeout(resting);
  resting = window.setTimeout(() => {
    if (element('spoken').textContent !== words) element('spoken').textContent = words;
  }, REST);
}
