// @ts-check
// Reads a picture: its parts as rows of digits, what touches cut and what broke joined as the network
// reads them best. Lengths are in heights of a digit.
'use strict';

/** @typedef {Part & {cut?: boolean}} Unit cut: it goes on in the next one */
/** @typedef {Read & {at: Point}} Found above its middle, as shares of the picture's width and height */
/** @typedef {(pictures: Float32Array[]) => Answer[]} Ask */

const LONGER = 512; // pixels, the longer side of what is looked at
const SPECK = 0.1; // what is smaller is dirt
const SMALL = 0.45; // what is less high is a part of a digit, or none
const HAIR = 0.4; // of the usual width of a line: what is thinner is a piece of a rule
const GAP = 0.25; // between parts of a digit, at most

/** @param {Uint8ClampedArray} rgba @param {number} width @param {number} height @param {Ask} ask
 * @returns {Found[][]} */
function readPicture(rgba, width, height, ask) {
  const grey = (/** @type {number} */ i) =>
    (0.3 * rgba[4 * i] + 0.6 * rgba[4 * i + 1] + 0.1 * rgba[4 * i + 2]) / 255;
  const seen = inkOf(sampled(width, height, grey, Math.max(width, height) / LONGER, 0));
  if (!seen) return [];
  const angle = slopeOf(seen, partsIn(seen));
  const ink = angle ? sampled(seen.width, seen.height, (i) => seen.values[i], 1, angle) : seen;
  unrule(ink);
  const parts = partsIn(ink);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return rowsOf(parts).map((row) => {
    const units = row.flatMap((part) => cutUp(part, parts.high, ink.width));
    return readRow(units, parts.high, ink.width, ask).map(({box, answer}) => {
      const [x, y] = [(box.left + box.right - ink.width) / 2, box.top - ink.height / 2];
      return {box, answer, at: /** @type {Point} */ (
        [0.5 + (x * cos - y * sin) / seen.width, 0.5 + (x * sin + y * cos) / seen.height])};
    });
  }).filter((row) => row.length);
}

/** What is as high as a digit, and what is less; neither frames nor dirt. @param {Plane} ink
 * @returns {{digits: Part[], small: Part[], high: number}} high: the height of a digit */
function partsIn(ink) {
  const all = partsOf(ink).filter(({pixels}) => pixels.length > 9);
  const longest = Math.max(ink.width, ink.height) / 2; // of thin parts
  const parts = all.filter((a) => Math.max(a.wide, a.tall) < Math.max(longest, 6 * Math.min(a.wide, a.tall))
    && all.filter((b) => b.left > a.left && b.right < a.right && b.top > a.top && b.bottom < a.bottom).length < 3)
    .sort((a, b) => b.tall - a.tall);
  let rest = parts.reduce((sum, {tall}) => sum + tall ** 3, 0) / 2;
  const high = parts.find(({tall}) => (rest -= tall ** 3) <= 0)?.tall ?? 1;
  const like = parts.filter(({wide, tall}) => tall > SMALL * high && tall < 2.2 * high && wide < 4 * high);
  const thick = (/** @type {Part} */ {wide, tall, pixels}) => pixels.length / (wide + tall);
  const usual = like.map(thick).sort((a, b) => a - b)[like.length >> 1];
  const small = parts.filter(({wide, tall, pixels}) => tall <= SMALL * high && wide < 2 * high
    && pixels.length > (SPECK * high) ** 2);
  return {digits: like.filter((part) => thick(part) > HAIR * usual), small, high};
}

/** From top to bottom, each from left to right.
 * @param {{digits: Part[], small: Part[], high: number}} parts @returns {Part[][]} */
function rowsOf({digits, small, high}) {
  const across = (/** @type {Part} */ a, /** @type {Part} */ b) => a.left + a.right - b.left - b.right;
  const level = (/** @type {Part[]} */ row) =>
    row.slice(-2).reduce((sum, {top, bottom}) => sum + (top + bottom) / 2, 0) / Math.min(2, row.length);
  /** @type {Part[][]} */
  const rows = [];
  for (const part of digits.sort(across)) {
    const away = rows.map((row) => Math.abs(level(row) - level([part])));
    const least = Math.min(0.55 * high, ...away);
    (rows[away.indexOf(least)] ?? rows[rows.push([]) - 1]).push(part);
  }
  rows.sort((a, b) => level(a) - level(b));
  for (const part of small) {
    rows.find((row) => row.some(({left, top, right, bottom}) =>
      part.left < right + GAP * high && part.right > left - GAP * high
      && part.top < bottom + 0.1 * high && part.bottom > top - GAP * high))?.push(part);
  }
  return rows.map((row) => row.sort(across));
}

/** A wide part, cut where it is thinnest. @param {Part} part @param {number} high
 * @param {number} width of the plane @returns {Unit[]} */
function cutUp(part, high, width) {
  const counts = Array.from({length: part.wide}, () => 0);
  for (const at of part.pixels) counts[at % width - part.left]++;
  const apart = Math.round(0.2 * high);
  const edges = [0];
  for (let x = apart; x < part.wide - apart && part.wide > Math.min(0.9 * high, 1.2 * part.tall); x++) {
    const least = Math.min(0.35 * high, ...counts.slice(x - apart, x + apart + 1));
    if (counts[x] === least && x - edges[edges.length - 1] >= apart) edges.push(x);
  }
  return edges.map((edge, i) => {
    const [left, right] = [part.left + edge, part.left + (edges[i + 1] ?? part.wide)];
    const inside = part.pixels.filter((at) => at % width >= left && at % width < right);
    return {...partFrom(inside, width), cut: right < part.right};
  });
}

/** The best way through a row, some of it left out. @param {Unit[]} units @param {number} high
 * @param {number} width of the plane @param {Ask} ask @returns {Read[]} */
function readRow(units, high, width, ask) {
  const pieces = units.flatMap((first, from) => {
    const found = [];
    let [box, gaps] = [/** @type {Box} */ (first), 0];
    for (let to = from; to < Math.min(units.length, from + 6); to++) {
      const {left, right, top, bottom, cut} = units[to];
      const gap = to > from && !units[to - 1].cut ? Math.max(0, left - box.right) / high : 0;
      if (gap > GAP) break;
      gaps += gap;
      box = {left: Math.min(left, box.left), right: Math.max(right, box.right),
        top: Math.min(top, box.top), bottom: Math.max(bottom, box.bottom)};
      const [wide, tall] = [(box.right - box.left) / high, (box.bottom - box.top) / high];
      if (tall < SMALL || tall > 2 || (to > from && wide > 1.5)) continue;
      const score = -4 * Math.max(0, 0.65 - tall) - 1.5 * Math.max(0, wide - 1.1) - gaps - (cut ? 0.6 : 0);
      found.push({from, to: to + 1, box, score, picture: pictureOf(units.slice(from, to + 1), box, width)});
    }
    return found;
  });
  const answers = pieces.length ? ask(pieces.map(({picture}) => picture)) : [];
  const ways = [{score: 0, row: /** @type {Read[]} */ ([])}];
  units.forEach(({wide, tall}, i) => {
    ways.push({...ways[i], score: ways[i].score - 2 * Math.max(tall, 0.6 * wide) / high});
    for (const [j, {from, to, box, score}] of pieces.entries()) {
      if (to !== i + 1) continue;
      const both = ways[from].score + score + Math.max(-3, Math.log(answers[j].share));
      if (both > ways[to].score) {
        ways[to] = {score: both, row: [...ways[from].row, {box, answer: answers[j]}]};
      }
    }
  });
  return ways[units.length].row;
}

/** As prepare.js does of strokes: in a box of 20 pixels, with a line at least as wide as MNIST's,
 * placed by its centre of mass. @param {Part[]} parts @param {Box} box @param {number} width of the plane
 * @returns {Float32Array} 28 × 28 in 0..1 */
function pictureOf(parts, {left, right, top, bottom}, width) {
  const longer = Math.max(right - left, bottom - top);
  const pen = longer * PEN / FIT;
  const w = longer + 2 * Math.ceil(pen);
  const crop = plane(w, w);
  const [x0, y0] = [(left + right - w) >> 1, (top + bottom - w) >> 1];
  const all = parts.flatMap(({pixels}) => Array.from(pixels, (at) =>
    (Math.floor(at / width) - y0) * w + at % width - x0));
  for (const at of all) crop.values[at] = 1;
  const rim = all.filter((at) => [at - 1, at + 1, at - w, at + w].some((next) => !crop.values[next]));
  const thick = 2 * all.length / rim.length;
  const radius = Math.max(1, Math.round(Math.max(thick, pen) / 2 - 0.5));
  const blur = 2 * radius + 1;
  const step = (longer + Math.max(0, pen - thick)) / FIT;
  const mean = meansOf(crop);
  const ink = new Float64Array(FIT * FIT).map((_, i) => {
    const [x, y] = [i % FIT, Math.floor(i / FIT)].map((place) =>
      Math.floor((place + 0.5 - FIT / 2) * step + w / 2));
    const value = mean(x, y, radius, radius);
    return clamp(0.5 + (value * Math.max(1, blur / thick) - 0.5) * Math.min(thick, blur) / step, 0, 1);
  });
  return centred(ink, FIT, FIT);
}

// In the worker: first the settings, then pictures.
if (typeof WorkerGlobalScope === 'function') {
  let [reading, loading] = [/** @type {Reader?} */ (null), /** @type {Promise<void>?} */ (null)];
  addEventListener('message', async ({data: {settings, library, taken, data, width, height}}) => {
    try {
      if (library) importScripts(library);
      const reader = reading ??= new Reader(settings);
      if (settings) loading = reader.load();
      await loading;
      if (data) self.postMessage({taken, rows: readPicture(data, width, height, (some) => reader.read(some))});
    } catch (error) {
      self.postMessage({taken, error: /** @type {Error} */ (error).message});
    }
  });
}
