// @ts-check
// Reads a picture: its parts as rows of digits, what touches cut and what broke joined as the network
// reads them best. All lengths are in heights of a digit.
'use strict';

/** @typedef {Part & {cut?: boolean}} Unit cut: it goes on in the next one */
/** @typedef {{from: number, to: number, box: Box, answer: Answer, score: number}} Piece */
/** @typedef {Read & {corners: Point[]}} Found corners: as shares of the picture's width and height */

const SPECK = 0.1; // what is smaller is dirt
const SMALL = 0.45; // what is less high is a part of a digit, or none
const READ = 0.8; // mean confidence of a picture that was understood
const HAIR = 0.3; // of the usual width of a line: what is thinner is a piece of a rule
const LEVEL = 0.55; // a row's digits are no further up or down from the last two

/** @param {Uint8ClampedArray} rgba @param {number} width @param {number} height
 * @param {(pictures: Float32Array[]) => Answer[]} ask @returns {Found[][]} */
function readPicture(rgba, width, height, ask) {
  const grey = greyOf(rgba, width, height);
  /** @type {{share: number, rows: Found[][]}} */
  let best = {share: 0, rows: []};
  // As it looks; if little of that can be read, light ink for dark, then not turned.
  for (const [other, upright] of [[false, false], [true, false], [false, true]]) {
    const rows = attempt(grey, other, upright, ask);
    const shares = rows.flat().map(({answer}) => answer.share);
    const share = shares.reduce((a, b) => a + b, 0) / Math.max(1, shares.length);
    if (share > best.share) best = {share, rows};
    if (share > READ || !rows.length) break;
  }
  return best.rows;
}

/** @param {Plane} grey @param {boolean} other @param {boolean} upright
 * @param {(pictures: Float32Array[]) => Answer[]} ask @returns {Found[][]} */
function attempt(grey, other, upright, ask) {
  let ink = inkOf(grey, other);
  if (!ink) return [];
  let angle = upright ? 0 : slopeOfRules(ink);
  if (angle === null) {
    const {digits, high} = partsIn(ink);
    angle = slopeOfRows(digits, high);
  }
  if (Math.abs(angle) > 0.008) ink = turned(ink, angle);
  unrule(ink);
  const {width: wide, height: tall} = ink;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const corner = (/** @type {number} */ x, /** @type {number} */ y) => /** @type {Point} */ ([
    0.5 + ((x - wide / 2) * cos - (y - tall / 2) * sin) / grey.width,
    0.5 + ((x - wide / 2) * sin + (y - tall / 2) * cos) / grey.height]);
  return readRows(ink, ask).map((row) => row.map(({box, answer}) => ({box, answer, corners: [
    corner(box.left, box.top), corner(box.right, box.top),
    corner(box.right, box.bottom), corner(box.left, box.bottom)]})));
}

/** What is as high as a digit, and what is less; neither frames nor dirt.
 * @param {Plane} ink @returns {{digits: Part[], small: Part[], high: number}} */
function partsIn({width, height, values}) {
  const all = partsOf(maskOf(values), width);
  const parts = all.filter((a) => {
    const [wide, tall] = [(a.right - a.left) / width, (a.bottom - a.top) / height];
    if (Math.max(wide, tall) > 0.98 || (wide > 0.9 && tall < 0.2)) return false;
    return wide < 0.35 || tall < 0.35 || !all.some((b) => b.left > a.left && b.right < a.right
      && b.top > a.top && b.bottom < a.bottom && b.bottom - b.top > 0.1 * (a.bottom - a.top));
  });
  const heights = parts.map(({top, bottom}) => bottom - top).sort((a, b) => b - a);
  let rest = heights.reduce((sum, one) => sum + one ** 3, 0) / 2;
  const high = heights.find((one) => (rest -= one ** 3) <= 0) ?? 1;
  const digits = parts.filter(({left, top, right, bottom}) => bottom - top > SMALL * high
    && bottom - top < 2.2 * high && right - left < 4 * high);
  const wide = (/** @type {Part} */ part) =>
    part.pixels.length / (part.right - part.left + part.bottom - part.top);
  const usual = digits.map(wide).sort((a, b) => a - b)[digits.length >> 1];
  const small = parts.filter(({left, top, right, bottom, pixels}) => bottom - top <= SMALL * high
    && right - left < 2 * high && pixels.length > (SPECK * high) ** 2);
  return {digits: digits.filter((part) => wide(part) > HAIR * usual), small, high};
}

/** @param {Box} box @returns {[number, number]} */
function middle({left, top, right, bottom}) {
  return [(left + right) / 2, (top + bottom) / 2];
}

/** From top to bottom, each from left to right.
 * @param {{digits: Part[], small: Part[], high: number}} parts @returns {Unit[][]} */
function unitsIn({digits, small, high}) {
  const across = (/** @type {Part} */ a, /** @type {Part} */ b) => middle(a)[0] - middle(b)[0];
  /** @type {Unit[][]} */
  const rows = [];
  const level = (/** @type {Unit[]} */ units) =>
    units.reduce((sum, unit) => sum + middle(unit)[1], 0) / units.length;
  for (const part of digits.sort(across)) {
    const away = rows.map((row) => Math.abs(level(row.slice(-2)) - middle(part)[1]) / high);
    const least = Math.min(...away);
    if (least < LEVEL) rows[away.indexOf(least)].push(part);
    else rows.push([part]);
  }
  rows.sort((a, b) => level(a) - level(b));
  for (const part of small) {
    rows.find((row) => row.some(({left, top, right, bottom}) =>
      part.left < right + 0.3 * high && part.right > left - 0.3 * high
      && part.top < bottom + 0.1 * high && part.bottom > top - 0.3 * high))?.push(part);
  }
  return rows.map((row) => row.sort(across));
}

/** @param {Plane} ink @param {(pictures: Float32Array[]) => Answer[]} ask @returns {Piece[][]} */
function readRows(ink, ask) {
  const parts = partsIn(ink);
  /** @type {Float32Array[]} */
  const pictures = [];
  const rows = unitsIn(parts).map((row) => {
    const units = row.flatMap((unit) => piecesOf(unit, parts.high, ink.width));
    /** @type {(Piece & {asked: number})[]} */
    const found = [];
    for (let from = 0; from < units.length; from++) {
      for (let to = from + 1; to <= Math.min(units.length, from + 6); to++) {
        const some = units.slice(from, to);
        const box = hull(some);
        const score = plausible(some, box, parts.high);
        if (score === null) continue;
        found.push({from, to, box, score, asked: pictures.length, answer: /** @type {any} */ (null)});
        pictures.push(pictureOf(some, box, ink.width));
      }
    }
    return {units, found};
  });
  const answers = pictures.length ? ask(pictures) : [];
  return rows.map(({units, found}) => best(units, parts.high, found.map((piece) => {
    const answer = answers[piece.asked];
    return {...piece, answer, score: piece.score + Math.max(-3, Math.log(answer.share))};
  }))).filter((row) => row.length);
}

/** What geometry says of units as one digit; null: they are none.
 * @param {Unit[]} units @param {Box} box @param {number} high @returns {number | null} */
function plausible(units, box, high) {
  const [wide, tall] = [(box.right - box.left) / high, (box.bottom - box.top) / high];
  if (tall < SMALL || tall > 2 || (units.length > 1 && wide > 1.5)) return null;
  let score = -4 * Math.max(0, 0.65 - tall) - 1.5 * Math.max(0, wide - 1.1);
  let right = 0;
  for (const [i, unit] of units.entries()) {
    if (i && !units[i - 1].cut) {
      const gap = Math.max(unit.left - right, 0) / high;
      const part = [units[i - 1], unit].some(({top, bottom}) => bottom - top < 0.6 * high);
      if (gap > (part ? 0.25 : 0.12)) return null;
      score -= part ? gap : 6 * gap + 0.7;
    }
    right = Math.max(right, unit.right);
  }
  return units[units.length - 1].cut ? score - 0.6 : score;
}

/** The best way through a row, some of it left out. @param {Unit[]} units @param {number} high
 * @param {Piece[]} found @returns {Piece[]} */
function best(units, high, found) {
  /** @type {{score: number, row: Piece[]}[]} */
  const ways = [{score: 0, row: []}];
  units.forEach(({left, top, right, bottom}, i) => {
    const size = Math.max(bottom - top, 0.6 * (right - left)) / high;
    ways.push({score: ways[i].score - (size < SMALL ? 2 * size : 3.5), row: ways[i].row});
    for (const piece of found.filter(({to}) => to === i + 1)) {
      const score = ways[piece.from].score + piece.score;
      if (score > ways[i + 1].score) ways[i + 1] = {score, row: [...ways[piece.from].row, piece]};
    }
  });
  return ways[units.length].row;
}

/** A wide unit, cut where it is thinnest. @param {Unit} unit @param {number} high
 * @param {number} width of the plane @returns {Unit[]} */
function piecesOf(unit, high, width) {
  const {left, top, right, bottom, pixels} = unit;
  if (right - left < Math.min(0.9 * high, 1.2 * (bottom - top)) || bottom - top < SMALL * high) {
    return [unit];
  }
  const counts = new Float64Array(right - left);
  for (const at of pixels) counts[at % width - left]++;
  const apart = Math.round(0.2 * high);
  const edges = [left];
  for (let x = apart; x < counts.length - apart; x++) {
    const least = Math.min(...counts.slice(x - apart, x + apart + 1));
    if (counts[x] === least && least < 0.35 * high && x + left - edges[edges.length - 1] >= apart) {
      edges.push(x + left);
    }
  }
  return edges.map((edge, i) => {
    const end = edges[i + 1] ?? right;
    const inside = pixels.filter((at) => at % width >= edge && at % width < end);
    const rows = inside.map((at) => Math.floor(at / width)).sort();
    return {left: edge, right: end, top: rows[0], bottom: rows[rows.length - 1] + 1, pixels: inside,
      cut: end < right};
  });
}

/** As prepare.js does of strokes: in a box of 20 pixels, with a line as wide as MNIST's (blurred by
 * what it lacks, and cut at a level that leaves it as wide), placed by its centre of mass.
 * @param {Part[]} parts @param {Box} box @param {number} width of the plane
 * @returns {Float32Array} 28 × 28 in 0..1 */
function pictureOf(parts, box, width) {
  const longer = Math.max(box.right - box.left, box.bottom - box.top);
  const edge = Math.ceil(longer * PEN / FIT);
  const crop = plane(box.right - box.left + 2 * edge, box.bottom - box.top + 2 * edge);
  const {width: w, values} = crop;
  const all = parts.flatMap(({pixels}) => [...pixels].map((at) =>
    (Math.floor(at / width) - box.top + edge) * w + at % width - box.left + edge));
  for (const at of all) values[at] = 1;
  const rim = all.filter((at) => !(values[at - 1] && values[at + 1] && values[at - w] && values[at + w]));
  const thick = 2 * all.length / rim.length;
  const wanted = Math.max(PEN * longer / FIT, Math.min(3.5 * longer / FIT, 0.8 * thick));
  const radius = Math.max(1, Math.round(wanted / 2 - 0.5));
  const soft = means(crop, radius).values;
  const blur = 2 * radius + 1;
  const plateau = Math.min(1, thick / blur);
  const level = clamp(0.5 + (Math.max(thick, blur) - wanted) / 2 / Math.min(thick, blur), 0.2, 0.8);
  const size = longer - thick + wanted;
  const ink = new Float64Array(FIT * FIT);
  const steep = Math.min(thick, blur) * FIT / size; // from nothing to all in one pixel
  const [rows, columns] = [box.bottom - box.top, box.right - box.left].map((side) =>
    Math.min(FIT, Math.ceil((side - thick + wanted) * FIT / size)));
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [x, y] = [column, row].map((place) =>
        Math.floor((place + 0.5) * size / FIT + edge + (thick - wanted) / 2));
      ink[row * FIT + column] = clamp(0.5 + (soft[y * w + x] / plateau - level) * steep, 0, 1);
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
