// @ts-check
// Reads a picture: its parts as rows of digits, what touches cut and what broke joined as the network
// reads them best. All lengths are in heights of a digit.
'use strict';

/** @typedef {Part & {cut?: boolean}} Unit cut: it goes on in the next one */
/** @typedef {{from: number, to: number, box: Box, score: number, picture: Float32Array}} Piece of a row */
/** @typedef {Read & {corners: Point[]}} Found corners: as shares of the picture's width and height */
/** @typedef {{digits: Part[], small: Part[], high: number}} Parts high: the height of a digit */

const [SHORT, LONG] = [500, 640]; // pixels of the longer side: it is brought between them
const LEVEL = 0.008; // radians: what is turned by less is left so
const SPECK = 0.1; // what is smaller is dirt
const SMALL = 0.45; // what is less high is a part of a digit, or none
const HAIR = 0.4; // of the usual width of a line: what is thinner is a piece of a rule
const GAP = 0.25; // between parts of a digit, at most

/** @param {Uint8ClampedArray} rgba @param {number} width @param {number} height
 * @param {(pictures: Float32Array[]) => Answer[]} ask @returns {Found[][]} */
function readPicture(rgba, width, height, ask) {
  const grey = plane(width, height);
  for (let i = 0, at = 0; i < grey.values.length; i++, at += 4) {
    grey.values[i] = (0.3 * rgba[at] + 0.6 * rgba[at + 1] + 0.1 * rgba[at + 2]) / 255;
  }
  const longer = Math.max(width, height);
  const seen = inkOf(sampled(grey, longer / clamp(longer, SHORT, LONG), 0));
  if (!seen) return [];
  const angle = slopeOf(seen, partsIn(seen));
  const ink = Math.abs(angle) > LEVEL ? sampled(seen, 1, angle) : seen;
  unrule(ink);
  const parts = partsIn(ink);
  const rows = rowsOf(parts).map((row) => row.flatMap((unit) => cutUp(unit, parts.high, ink.width)));
  const pieces = rows.map((units) => piecesOf(units, parts.high, ink.width));
  const pictures = pieces.flat().map(({picture}) => picture);
  const answers = new Map((pictures.length ? ask(pictures) : []).map((answer, i) => [pictures[i], answer]));
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return rows.map((units, i) => best(units, parts.high, pieces[i], answers).map(({box, picture}) => {
    const {left, right, top, bottom} = box;
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]].map(([x, y]) => {
      const [u, v] = [x - ink.width / 2, y - ink.height / 2];
      return /** @type {Point} */ ([
        0.5 + (u * cos - v * sin) / seen.width, 0.5 + (u * sin + v * cos) / seen.height]);
    });
    return {box, corners, answer: /** @type {Answer} */ (answers.get(picture))};
  })).filter((row) => row.length);
}

/** What is as high as a digit, and what is less; neither frames nor dirt. @param {Plane} ink
 * @returns {Parts} */
function partsIn(ink) {
  const all = partsOf(ink).filter(({pixels}) => pixels.length > 9).map((part) => {
    const [wide, tall] = [part.right - part.left, part.bottom - part.top];
    return {...part, wide, tall, thick: part.pixels.length / (wide + tall)};
  });
  const longest = Math.max(ink.width, ink.height) / 2; // of thin parts
  const parts = all.filter((a) => Math.max(a.wide, a.tall) < Math.max(longest, 6 * Math.min(a.wide, a.tall))
    && all.filter((b) => b.left > a.left && b.right < a.right && b.top > a.top && b.bottom < a.bottom).length < 3)
    .sort((a, b) => b.tall - a.tall);
  let rest = parts.reduce((sum, {tall, pixels}) => sum + tall * pixels.length, 0) / 2;
  const high = parts.find(({tall, pixels}) => (rest -= tall * pixels.length) <= 0)?.tall ?? 1;
  const like = parts.filter(({wide, tall}) => tall > SMALL * high && tall < 2.2 * high && wide < 4 * high);
  const usual = like.map(({thick}) => thick).sort((a, b) => a - b)[like.length >> 1];
  const small = parts.filter(({wide, tall, pixels}) => tall <= SMALL * high && wide < 2 * high
    && pixels.length > (SPECK * high) ** 2);
  return {digits: like.filter(({thick}) => thick > HAIR * usual), small, high};
}

/** From top to bottom, each from left to right. @param {Parts} parts @returns {Part[][]} */
function rowsOf({digits, small, high}) {
  const across = (/** @type {Part} */ a, /** @type {Part} */ b) => a.left + a.right - b.left - b.right;
  const level = (/** @type {Part[]} */ row) =>
    row.slice(-2).reduce((sum, {top, bottom}) => sum + (top + bottom) / 2, 0) / Math.min(2, row.length);
  /** @type {Part[][]} */
  const rows = [];
  for (const part of digits.sort(across)) {
    const near = rows.map((row) => ({row, away: Math.abs(level(row) - level([part]))}));
    const [first] = near.sort((a, b) => a.away - b.away);
    if (first && first.away < 0.55 * high) first.row.push(part);
    else rows.push([part]);
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
  const {left, top, right, bottom, pixels} = part;
  if (right - left < Math.min(0.9 * high, 1.2 * (bottom - top))) return [part];
  const counts = Array.from({length: right - left}, () => 0);
  for (const at of pixels) counts[at % width - left]++;
  const apart = Math.round(0.2 * high);
  const edges = [left];
  for (let x = apart; x < counts.length - apart; x++) {
    const least = Math.min(0.35 * high, ...counts.slice(x - apart, x + apart + 1));
    if (counts[x] === least && x + left - edges[edges.length - 1] >= apart) edges.push(x + left);
  }
  return edges.map((edge, i) => {
    const end = edges[i + 1] ?? right;
    const inside = pixels.filter((at) => at % width >= edge && at % width < end).sort();
    const [first, last] = [inside[0], inside[inside.length - 1]].map((at) => Math.floor(at / width));
    return {left: edge, right: end, top: first, bottom: last + 1, pixels: inside, cut: end < right};
  });
}

/** What may be a digit, with what geometry says of it. @param {Unit[]} units of a row
 * @param {number} high @param {number} width of the plane @returns {Piece[]} */
function piecesOf(units, high, width) {
  return units.flatMap((first, from) => {
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
      const picture = pictureOf(units.slice(from, to + 1), box, width);
      found.push({from, to: to + 1, box, score, picture});
    }
    return found;
  });
}

/** The best way through a row, some of it left out. @param {Unit[]} units @param {number} high
 * @param {Piece[]} pieces @param {Map<Float32Array, Answer>} answers @returns {Piece[]} */
function best(units, high, pieces, answers) {
  /** @type {{score: number, row: Piece[]}[]} */
  const ways = [{score: 0, row: []}];
  units.forEach(({left, top, right, bottom}, i) => {
    ways.push({...ways[i], score: ways[i].score - 2 * Math.max(bottom - top, 0.6 * (right - left)) / high});
    for (const piece of pieces.filter(({to}) => to === i + 1)) {
      const {share} = /** @type {Answer} */ (answers.get(piece.picture));
      const score = ways[piece.from].score + piece.score + Math.max(-3, Math.log(share));
      if (score > ways[i + 1].score) ways[i + 1] = {score, row: [...ways[piece.from].row, piece]};
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
  const edge = Math.ceil(pen);
  const crop = plane(right - left + 2 * edge, bottom - top + 2 * edge);
  const {width: w, values} = crop;
  const all = parts.flatMap(({pixels}) => Array.from(pixels, (at) =>
    (Math.floor(at / width) - top + edge) * w + at % width - left + edge));
  for (const at of all) values[at] = 1;
  const rim = all.filter((at) => !(values[at - 1] && values[at + 1] && values[at - w] && values[at + w]));
  const thick = 2 * all.length / rim.length;
  const radius = Math.max(1, Math.round(Math.max(thick, pen) / 2 - 0.5));
  const mean = meansOf(crop);
  const blur = 2 * radius + 1;
  const more = Math.max(0, pen - thick); // of the line's width
  const step = (longer + more) / FIT;
  const [rows, columns] = [bottom - top, right - left].map((side) => Math.min(FIT, Math.ceil((side + more) / step)));
  const place = (/** @type {number} */ i) => Math.floor((i + 0.5) * step + edge - more / 2);
  const ink = new Float64Array(FIT * FIT);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = mean(place(column), place(row), radius, radius) * Math.max(1, blur / thick);
      ink[row * FIT + column] = clamp(0.5 + (value - 0.5) * Math.min(thick, blur) / step, 0, 1);
    }
  }
  return centred(ink, rows, columns);
}

// In the worker: first the settings, then pictures.
if (typeof WorkerGlobalScope === 'function') {
  /** @type {Promise<Reader>} */
  let loading;
  addEventListener('message', async ({data: {settings, library, taken, data, width, height}}) => {
    try {
      if (settings) {
        if (library) importScripts(library);
        const reader = new Reader(settings);
        loading = reader.load().then(() => reader);
        return;
      }
      const reader = await loading;
      self.postMessage({taken, rows: readPicture(data, width, height, (some) => reader.read(some))});
    } catch (error) {
      self.postMessage({taken, error: /** @type {Error} */ (error).message});
    }
  });
}
