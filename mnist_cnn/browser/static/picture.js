// @ts-check
// Reads a picture: its parts as rows of digits, what touches cut and what broke joined as the network
// reads them best. All lengths are in heights of a digit.
'use strict';

/** @typedef {Part & {cut?: boolean}} Unit cut: it goes on in the next one */
/** @typedef {{from: number, to: number, box: Box, answer: Answer, score: number}} Piece */
/** @typedef {Read & {corners: Point[]}} Found corners: as shares of the picture's width and height */
/** @typedef {{digits: Part[], small: Part[], high: number}} Parts */
/** @typedef {(pictures: Float32Array[]) => Answer[]} Ask */

const SPECK = 0.1; // what is smaller is dirt
const SMALL = 0.45; // what is less high is a part of a digit, or none
const READ = 0.8; // mean confidence of a picture that was understood
const HAIR = 0.4; // of the usual width of a line: what is thinner is a piece of a rule
const LEVEL = 0.55; // a row's digits are no further up or down from the last two

/** @param {Uint8ClampedArray} rgba @param {number} width @param {number} height @param {Ask} ask
 * @returns {Found[][]} */
function readPicture(rgba, width, height, ask) {
  const grey = greyOf(rgba, width, height);
  let best = {share: 0, rows: /** @type {Found[][]} */ ([])};
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

/** @param {Plane} grey @param {boolean} other @param {boolean} upright @param {Ask} ask
 * @returns {Found[][]} */
function attempt(grey, other, upright, ask) {
  let ink = inkOf(grey, other);
  if (!ink) return [];
  const angle = upright ? 0 : slopeOfRules(ink) ?? slopeOfRows(partsIn(ink));
  if (Math.abs(angle) > 0.008) ink = turned(ink, angle);
  unrule(ink);
  const {width, height} = ink;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return readRows(partsIn(ink), width, ask).map((row) => row.map(({box, answer}) => {
    const {left, right, top, bottom} = box;
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]].map(([x, y]) =>
      /** @type {Point} */ ([
        0.5 + ((x - width / 2) * cos - (y - height / 2) * sin) / grey.width,
        0.5 + ((x - width / 2) * sin + (y - height / 2) * cos) / grey.height]));
    return {box, answer, corners};
  }));
}

/** What is as high as a digit, and what is less; neither frames nor dirt.
 * @param {Plane} ink @returns {Parts} */
function partsIn(ink) {
  const all = partsOf(ink).filter(({pixels}) => pixels.length > 9);
  const longest = Math.max(ink.width, ink.height) / 2;
  const parts = all.filter((a) => {
    const [wide, tall] = [a.right - a.left, a.bottom - a.top];
    const [short, long] = [Math.min(wide, tall), Math.max(wide, tall)];
    return !(long > longest && long > 6 * short) && all.filter((b) => b.left > a.left
      && b.right < a.right && b.top > a.top && b.bottom < a.bottom).length < 3;
  });
  const heights = parts.map(({top, bottom, pixels}) => [bottom - top, pixels.length * (bottom - top)]);
  let rest = heights.reduce((sum, [, weight]) => sum + weight, 0) / 2;
  const [high] = heights.sort(([a], [b]) => b - a).find(([, weight]) => (rest -= weight) <= 0) ?? [1];
  const thick = (/** @type {Part} */ {left, top, right, bottom, pixels}) =>
    pixels.length / (right - left + bottom - top);
  const like = parts.filter(({left, top, right, bottom}) => bottom - top > SMALL * high
    && bottom - top < 2.2 * high && right - left < 4 * high);
  const usual = like.map(thick).sort((a, b) => a - b)[like.length >> 1];
  const digits = like.filter((part) => thick(part) > HAIR * usual);
  const small = parts.filter(({left, top, right, bottom, pixels}) => bottom - top <= SMALL * high
    && right - left < 2 * high && pixels.length > (SPECK * high) ** 2);
  return {digits, small, high};
}

/** From top to bottom, each from left to right.
 * @param {Parts} parts @param {number} width of the plane @returns {Unit[][]} */
function unitsIn({digits, small, high}, width) {
  const across = (/** @type {Part} */ a, /** @type {Part} */ b) => a.left + a.right - b.left - b.right;
  /** @type {Unit[][]} */
  const rows = [];
  const level = (/** @type {Unit[]} */ units) =>
    units.reduce((sum, {top, bottom}) => sum + top + bottom, 0) / 2 / units.length;
  for (const part of digits.sort(across)) {
    const away = rows.map((row) => Math.abs(level(row.slice(-2)) - level([part])) / high);
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
  return rows.map((row) => row.sort(across).flatMap((unit) => cutUp(unit, high, width)));
}

/** @param {Parts} parts @param {number} width of the plane
 * @param {Ask} ask @returns {Piece[][]} */
function readRows(parts, width, ask) {
  const rows = unitsIn(parts, width);
  const found = rows.flatMap((units, row) => units.flatMap((_, from) =>
    units.slice(from, from + 6).flatMap((_, more) => {
      const some = units.slice(from, from + more + 1);
      const box = hull(some);
      const score = plausible(some, box, parts.high);
      if (score === null) return [];
      return [{row, from, to: from + more + 1, box, score, picture: pictureOf(some, box, width)}];
    })));
  const answers = found.length ? ask(found.map(({picture}) => picture)) : [];
  const pieces = found.map((piece, i) => ({...piece, answer: answers[i],
    score: piece.score + Math.max(-3, Math.log(answers[i].share))}));
  return rows.map((units, i) => best(units, parts.high, pieces.filter(({row}) => row === i)))
    .filter((row) => row.length);
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
function cutUp(unit, high, width) {
  const {left, top, right, bottom, pixels} = unit;
  if (right - left < Math.min(0.9 * high, 1.2 * (bottom - top))) return [unit];
  const counts = new Array(right - left).fill(0);
  for (const at of pixels) counts[at % width - left]++;
  const apart = Math.round(0.2 * high);
  const edges = [left];
  for (let x = apart; x < counts.length - apart; x++) {
    const least = Math.min(...counts.slice(x - apart, x + apart + 1));
    if (counts[x] !== least || least >= 0.35 * high || x + left - edges[edges.length - 1] < apart) continue;
    edges.push(x + left);
  }
  return edges.map((edge, i) => {
    const end = edges[i + 1] ?? right;
    const inside = pixels.filter((at) => at % width >= edge && at % width < end).sort();
    const [first, last] = [inside[0], inside[inside.length - 1]].map((at) => Math.floor(at / width));
    return {left: edge, right: end, top: first, bottom: last + 1, pixels: inside, cut: end < right};
  });
}

/** As prepare.js does of strokes: in a box of 20 pixels, with a line as wide as MNIST's (blurred by
 * what it lacks, and cut at a level that leaves it as wide), placed by its centre of mass.
 * @param {Part[]} parts @param {Box} box @param {number} width of the plane
 * @returns {Float32Array} 28 × 28 in 0..1 */
function pictureOf(parts, box, width) {
  const [across, down] = [box.right - box.left, box.bottom - box.top];
  const longer = Math.max(across, down);
  const edge = Math.ceil(longer * PEN / FIT);
  const crop = plane(across + 2 * edge, down + 2 * edge);
  const {width: w, values} = crop;
  const all = parts.flatMap(({pixels}) => [...pixels].map((at) =>
    (Math.floor(at / width) - box.top + edge) * w + at % width - box.left + edge));
  for (const at of all) values[at] = 1;
  const rim = all.filter((at) => !(values[at - 1] && values[at + 1] && values[at - w] && values[at + w]));
  const thick = 2 * all.length / rim.length;
  const wanted = Math.max(PEN * longer / FIT, Math.min(3.5 * longer / FIT, 0.8 * thick));
  const radius = Math.max(1, Math.round(wanted / 2 - 0.5));
  const soft = meansOf(crop);
  const blur = 2 * radius + 1;
  const [least, most] = [Math.min(thick, blur), Math.max(thick, blur)];
  const level = clamp(0.5 + (most - wanted) / 2 / least, 0.2, 0.8);
  const size = longer - thick + wanted;
  const ink = new Float64Array(FIT * FIT);
  const steep = least * FIT / size; // from nothing to all in one pixel
  const place = (/** @type {number} */ i) =>
    Math.floor((i + 0.5) * size / FIT + edge + (thick - wanted) / 2);
  const [rows, columns] = [down, across].map((side) =>
    Math.min(FIT, Math.ceil((side - thick + wanted) * FIT / size)));
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = soft(place(column), place(row), radius, radius) * Math.max(1, blur / thick);
      ink[row * FIT + column] = clamp(0.5 + (value - level) * steep, 0, 1);
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
