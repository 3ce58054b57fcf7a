// @ts-check
// Reads a picture: its parts as rows of digits, what touches cut and what broke joined as the network
// reads them best. Lengths are in heights of a digit.
'use strict';

/** @typedef {Read & {at: Point}} Found above its middle, as shares of the picture's width and height */
/** @typedef {Part & {cut?: boolean, answer?: Answer}} Unit cut: it goes on in the next one; answer: it
 * is a digit by itself */
/** @typedef {(picture: Float32Array) => Answer} Ask */

const SPECK = 0.1; // what is smaller is dirt
const SMALL = 0.45; // what is less high is a part of a digit, or none
const HAIR = 0.4; // of the usual width of a line: what is thinner is a piece of a rule
const SOLID = 4; // likewise: what is thicker is no writing
const GAP = 0.25; // between parts of a digit, at most
const CERTAIN = 0.95; // confidence: neither cut nor joined

/** @param {Uint8ClampedArray} rgba @param {number} width @param {number} height @param {Ask} ask
 * @returns {Found[][]} */
function readPicture(rgba, width, height, ask) {
  const ink = inkOf(rgba, width, height);
  if (!ink) return [];
  const first = partsIn(ink);
  const angle = slopeOf(ink, first.parts.filter(({tall}) => tall > SMALL * first.high), first.high);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  Object.assign(ink, {cos, sin});
  unrule(ink, first.usual);
  const {parts, high} = partsIn(ink);
  const rows = inRows(parts.map((box, i) => ({strokes: [i], box})), high);
  return rows.map((row) => readRow(row.map(({strokes: [i]}) => parts[i]), high, ink, ask)).map((row) =>
    row.map(({box, answer}) => {
      const [x, y] = [(box.left + box.right) / 2, box.top];
      return {box, answer, at: /** @type {Point} */ ([(x * cos - y * sin) / width, (x * sin + y * cos) / height])};
    })).filter((row) => row.length);
}

/** @param {Part[]} parts @param {(part: Part) => number} value @param {(part: Part) => number} weight */
function median(parts, value, weight) {
  let rest = parts.reduce((sum, part) => sum + weight(part), 0) / 2;
  const middle = [...parts].sort((a, b) => value(a) - value(b)).find((part) => (rest -= weight(part)) <= 0);
  return middle ? value(middle) : 1;
}

/** What may be digits or parts of them, from left to right; neither frames nor dirt. What is too thick
 * is taken out. @param {Upright} ink
 * @returns {{parts: Part[], high: number, usual: number}} height of a digit, width of a line */
function partsIn(ink) {
  const thick = (/** @type {Part} */ {pixels, rim}) => 2 * pixels.length / rim;
  const all = partsOf(ink);
  const open = all.filter((a) => all.filter((b) => b.left > a.left && b.right < a.right
    && b.top > a.top && b.bottom < a.bottom && b.tall > 1.5 * thick(a)).length < 3);
  const usual = median(open, thick, ({rim}) => rim);
  const solid = open.filter((part) => thick(part) > SOLID * usual);
  for (const {pixels} of solid) for (const at of pixels) ink.values[at] = 0;
  const thin = open.filter((part) => thick(part) <= SOLID * usual);
  const high = median(thin, ({tall}) => tall, ({wide, tall}) => tall * Math.min(wide, tall) ** 2);
  const parts = thin.filter((part) => part.tall < 2.2 * high && part.wide < 4 * high
    && part.pixels.length > (SPECK * high) ** 2 && (part.tall < SMALL * high || thick(part) > HAIR * usual));
  return {parts: parts.sort((a, b) => a.left + a.right - b.left - b.right), high, usual};
}

/** A wide part, cut where its outline is least high; two that touch share what is there.
 * @param {Part} part @param {number} high @param {Upright} ink @returns {Unit[]} */
function cutUp(part, high, ink) {
  const [tops, bottoms] = [Infinity, -Infinity].map((none) => new Float32Array(part.wide).fill(none));
  const xs = part.pixels.map((at) => placed(ink, at)[0] - part.left);
  for (const [i, x] of xs.entries()) {
    const y = placed(ink, part.pixels[i])[1];
    tops[x] = Math.min(tops[x], y);
    bottoms[x] = Math.max(bottoms[x], y);
  }
  const cost = bottoms.map((bottom, x) => (bottom - tops[x]) / high + 0.5 * Math.abs(x / part.wide - 0.5));
  const over = 1.6 * part.pixels.length / part.rim;
  const apart = Math.round(Math.max(0.25 * high, 2 * over));
  const least = Math.min(...cost.slice(apart, -apart));
  if (part.wide < Math.min(0.9 * high, 1.2 * part.tall) || !(least < 0.7)) return [part];
  const x = cost.indexOf(least, apart);
  const [one, other] = [part.pixels.filter((_, i) => xs[i] < x + over),
    part.pixels.filter((_, i) => xs[i] > x - over)].map((pixels) => cutUp(partFrom(pixels, ink), high, ink));
  one[one.length - 1].cut = true;
  return [...one, ...other];
}

/** The best way through a row, some of it left out, by dynamic programming.
 * @param {Part[]} row @param {number} high @param {Upright} ink @param {Ask} ask */
function readRow(row, high, ink, ask) {
  const units = row.flatMap((part) => {
    const answer = part.tall > 0.65 * high && part.wide < 0.7 * high && ask(pictureOf([part], part, ink));
    return answer && answer.share > CERTAIN ? [/** @type {Unit} */ ({...part, answer})] : cutUp(part, high, ink);
  });
  const ways = [{score: 0, row: /** @type {Read[]} */ ([])}];
  units.forEach((last, i) => {
    let best = {...ways[i], score: ways[i].score - 2 * Math.max(last.tall, 0.6 * last.wide) / high};
    let [box, gaps] = [/** @type {Box} */ (last), 0];
    for (let from = i; from >= Math.max(0, i - 5); from--) {
      const unit = units[from];
      const gap = from === i || unit.cut ? 0 : Math.max(0, box.left - unit.right) / high;
      if (gap > GAP || (from < i && (last.answer || unit.answer))) break;
      gaps += gap;
      box = {left: Math.min(unit.left, box.left), right: Math.max(unit.right, box.right),
        top: Math.min(unit.top, box.top), bottom: Math.max(unit.bottom, box.bottom)};
      const [wide, tall] = [(box.right - box.left) / high, (box.bottom - box.top) / high];
      if (tall < SMALL || tall > 2 || (from < i && wide > 1.5)) continue;
      const answer = last.answer ?? ask(pictureOf(units.slice(from, i + 1), box, ink));
      const score = ways[from].score + Math.max(-3, Math.log(answer.share)) - gaps - (last.cut ? 0.6 : 0)
        - 4 * Math.max(0, 0.65 - tall) - 1.5 * Math.max(0, wide - 0.9);
      if (score > best.score) best = {score, row: [...ways[from].row, {box, answer}]};
    }
    ways.push(best);
  });
  return ways[units.length].row;
}

/** As prepare.js does of strokes: in a box of 20 pixels, with as much ink as a line of MNIST's width at
 * least, placed by its centre of mass. @param {Part[]} parts @param {Box} box @param {Upright} ink
 * @returns {Float32Array} 28 × 28 in 0..1 */
function pictureOf(parts, {left, right, top, bottom}, ink) {
  const step = Math.max(right - left, bottom - top) / FIT;
  const size = parts.reduce((sum, {pixels}) => sum + pixels.length, 0);
  const thick = 2 * size / parts.reduce((sum, {rim}) => sum + rim, 0) / step;
  const gain = Math.max(1, PEN / thick) / step ** 2;
  const cells = new Float64Array(FIT * FIT);
  for (const {pixels} of parts) {
    for (const at of pixels) {
      const [u, v] = placed(ink, at);
      const x = (u + 0.5 - (left + right) / 2) / step + FIT / 2 - 0.5;
      const y = (v + 0.5 - (top + bottom) / 2) / step + FIT / 2 - 0.5;
      for (let row = Math.max(0, Math.floor(y)); row <= Math.min(FIT - 1, y + 1); row++) {
        for (let column = Math.max(0, Math.floor(x)); column <= Math.min(FIT - 1, x + 1); column++) {
          cells[row * FIT + column] += gain * (1 - Math.abs(x - column)) * (1 - Math.abs(y - row));
        }
      }
    }
  }
  return centred(cells.map((value) => Math.min(1, value)), FIT, FIT);
}

// In the worker: first the settings, then pictures.
if (typeof WorkerGlobalScope === 'function') {
  /** @type {Promise<Reader>} */
  let loading;
  addEventListener('message', async ({data: {settings, taken, looked}}) => {
    try {
      if (settings) loading = Promise.resolve(new Reader(settings)).then((one) => one.load().then(() => one));
      const reader = await loading;
      if (looked) {
        const rows = readPicture(looked.data, looked.width, looked.height, (one) => reader.read([one])[0]);
        self.postMessage({taken, rows});
      }
    } catch (error) {
      self.postMessage({taken, error: `The picture could not be read: ${/** @type {Error} */ (error).message}`});
    }
  });
}
