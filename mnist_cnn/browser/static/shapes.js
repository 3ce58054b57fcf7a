// @ts-check
// From a picture to its ink, by a threshold that follows its surroundings (Sauvola and Pietikäinen
// 2000, in the form of Wolf and Jolion 2003, which knows how deep the ink of the whole picture is:
// faint rules fall below it); then to the slope of the ink and its connected parts, without rules.
'use strict';

/** @typedef {{width: number, height: number, values: Float32Array}} Plane row by row */
/** @typedef {Plane & {cos: number, sin: number}} Upright ink, above 0, whose rows run in this direction */
/** @typedef {Box & {wide: number, tall: number, pixels: Int32Array, rim: number}} Part of the ink, turned
 * upright; pixels: their indices in the plane, rim: how many are at the edge */

const COARSE = 4; // pixels, a side of the squares in which surroundings are looked at
const WINDOW = 1 / 14; // of the longer side: from a pixel to the edge of what surrounds it
const DARK = 0.6; // of the brightest paper: what is darker is a desk, its grain no ink
const FAINT = 0.07; // of the paper's brightness: what is less deep is no ink
const NOISE = 5; // likewise, in standard deviations of the paper
const RULE = 0.35; // of the picture's width: a rule's length at least
const THIN = 0.004; // of its longer side: a rule's width at most, or
const THINNER = 0.8; // of the usual width of a line
const TURN = 40; // degrees, at most, either way
const NEAR = 2.6; // heights from a digit to those that show the slope of its row

/** @param {number} width @param {number} height @returns {Plane} */
function plane(width, height) {
  return {width, height, values: new Float32Array(width * height)};
}

/** Of the box around (x, y), so far across and down, by a table of sums (Crow 1984).
 * @param {Plane} plane @returns {(x: number, y: number, across: number, down: number) => number} */
function meansOf({width, height, values}) {
  const line = width + 1;
  const sums = new Float64Array(line * (height + 1));
  for (let y = 0, i = 0, at = line + 1; y < height; y++, at++) {
    for (let x = 0, row = 0; x < width; x++, at++) sums[at] = sums[at - line] + (row += values[i++]);
  }
  return (x, y, across, down) => {
    const [left, right] = [Math.max(0, x - across), Math.min(width, x + across + 1)];
    const [top, bottom] = [Math.max(0, y - down) * line, Math.min(height, y + down + 1) * line];
    return (sums[bottom + right] - sums[bottom + left] - sums[top + right] + sums[top + left])
      * line / ((bottom - top) * (right - left));
  };
}

/** About, of every seventh. @param {Float32Array} values @param {number} share @returns {number} */
function quantile(values, share) {
  const some = values.filter((_, i) => i % 7 === 0).sort();
  return some[Math.floor(share * some.length)];
}

/** How far each pixel is above the threshold, as a share of the ink's depth; null: there is no ink.
 * @param {Uint8ClampedArray} rgba @param {number} width @param {number} height @returns {Upright?} */
function inkOf(rgba, width, height) {
  const {values} = plane(width, height);
  for (let i = 0, at = 0; i < values.length; i++, at += 4) {
    values[i] = (0.3 * rgba[at] + 0.6 * rgba[at + 1] + 0.1 * rgba[at + 2]) / 255;
  }
  const small = plane(Math.ceil(width / COARSE), Math.ceil(height / COARSE));
  const wide = small.width;
  const some = small.values.map((_, at) => values[COARSE * ((at / wide | 0) * width + at % wide)]);
  const radius = Math.round(Math.max(wide, small.height) * WINDOW);
  const around = (/** @type {Float32Array} */ values, reach = radius) => {
    const mean = meansOf({...small, values});
    return values.map((_, at) => mean(at % wide, at / wide | 0, reach, reach));
  };
  const near = around(some, Math.ceil(radius / 3));
  const mean = around(some); // light ink on dark ground if what stands out is light
  const above = some.map((value, at) => value - near[at]);
  const light = above.reduce((sum, one) => sum + one * one * one, 0) > 0;
  const paper = around(some.map((value, at) => (light ? Math.min : Math.max)(value, mean[at])));
  const white = DARK * quantile(paper, 0.9);
  const depth = (/** @type {number} */ value, /** @type {number} */ paper) =>
    light ? (value - paper) / (1.1 - paper) : (paper - value) / Math.max(paper, white);
  const depths = some.map((value, at) => depth(value, paper[at]));
  const noise = quantile(depths.map((value, at) => Math.abs(value - depths[Math.max(0, at - 1)])), 0.5);
  const half = quantile(depths, 0.998) / 2;
  const dark = depths.filter((value) => value >= half);
  const deep = dark.reduce((sum, value) => sum + value, 0) / dark.length;
  if (!(deep > Math.max(FAINT, NOISE * noise))) return null;
  const square = around(depths.map((value) => value ** 2));
  const threshold = around(depths).map((level, at) => Math.min(0.65 * deep,
    level + Math.max(0.1 * deep, 0.5 * deep - Math.sqrt(Math.max(0, square[at] - level ** 2)))));
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0, row = (y / COARSE | 0) * wide; x < width; x++, i++) {
      const at = row + (x / COARSE | 0);
      values[i] = (depth(values[i], paper[at]) - threshold[at]) / deep;
    }
  }
  return {width, height, values, cos: 1, sin: 0};
}

/** Where a pixel is when the ink is turned upright. @param {Upright} ink @param {number} at @returns {Point} */
function placed({width, cos, sin}, at) {
  const [x, y] = [at % width, at / width | 0];
  return [x * cos + y * sin, y * cos - x * sin];
}

/** @param {Plane} ink @returns {number[]} the indices of its pixels */
function placesOf({values}) {
  const found = [];
  for (let i = 0; i < values.length; i++) if (values[i] > 0) found.push(i);
  return found;
}

/** @param {Int32Array} pixels @param {Upright} ink @returns {Part} */
function partFrom(pixels, ink) {
  const {width, values} = ink;
  let [left, right, top, bottom, rim] = [Infinity, -Infinity, Infinity, -Infinity, 0];
  for (const at of pixels) {
    const [x, y] = placed(ink, at);
    left = Math.min(left, x);
    right = Math.max(right, x + 1);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y + 1);
    if (!(Math.min(values[at - 1], values[at + 1], values[at - width], values[at + width]) > 0)) rim++;
  }
  return {left, right, top, bottom, wide: right - left, tall: bottom - top, pixels, rim};
}

/** Connected parts, of eight neighbours. @param {Upright} ink @returns {Part[]} */
function partsOf(ink) {
  const {width, values} = ink;
  const rest = new Uint8Array(values.length);
  for (let at = 0; at < rest.length; at++) rest[at] = Number(values[at] > 0);
  const found = [];
  const queue = new Int32Array(rest.length);
  for (let start = rest.indexOf(1); start >= 0; start = rest.indexOf(1, start)) {
    let end = 1;
    rest[queue[0] = start] = 0;
    for (let read = 0; read < end; read++) {
      const [x, at] = [queue[read] % width, queue[read]];
      for (let row = at - width; row <= at + width; row += width) {
        for (let next = row - (x ? 1 : 0); next <= row + (x < width - 1 ? 1 : 0); next++) {
          if (rest[next]) rest[queue[end++] = next] = 0;
        }
      }
    }
    if (end > 9) found.push(partFrom(queue.slice(0, end), ink));
  }
  return found;
}

/** The direction of long thin lines with much of the ink; without any, that in which digits have
 * neighbours. @param {Plane} ink @param {Box[]} digits @param {number} high @returns {number} radians */
function slopeOf(ink, digits, high) {
  const places = placesOf(ink).filter((_, i) => i % 7 === 0);
  const [xs, ys] = [places.map((i) => i % ink.width), places.map((i) => i / ink.width)];
  const near = digits.flatMap((a) => digits.map((b) => [b.left + b.right - a.left - a.right,
    b.top + b.bottom - a.top - a.bottom].map((away) => away / 2 / high))
    .filter(([x, y]) => x > Math.abs(y) && Math.hypot(x, y) < NEAR)
    .sort((one, other) => Math.hypot(...one) - Math.hypot(...other)).slice(0, 1));
  let best = {angle: 0, score: 0};
  for (let degrees = -TURN; degrees <= TURN; degrees += 0.5) {
    const angle = degrees * Math.PI / 180;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const bins = new Int16Array(ink.width + ink.height); // of two pixels, or 45 degrees win
    for (let i = 0; i < xs.length; i++) bins[(ys[i] * cos - xs[i] * sin + ink.width) / 2 | 0]++;
    let lines = 0; // cubes of their lengths
    for (let i = 4; i < bins.length - 4; i++) {
      const long = (bins[i] - Math.max(bins[i - 4], bins[i + 4])) * 7 / 2;
      if (long > Math.min(2.5 * high, 0.4 * ink.width)) lines += (2 * long / ink.width) ** 3;
    }
    const score = near.reduce((sum, [x, y]) => sum + Math.exp(-(((y * cos - x * sin) / 0.25) ** 2)),
      1.5 * cos + 2 * lines);
    if (score > best.score) best = {angle, score};
  }
  return best.angle;
}

/** Removes thin lines that cross much of the picture, except where a stroke crosses them.
 * @param {Upright} ink @param {number} usual width of a line */
function unrule(ink, usual) {
  const {width, height, values, cos, sin} = ink;
  const half = Math.floor(Math.max(1 + THIN * Math.max(width, height), THINNER * usual) / 2) + 1;
  for (const axis of [1, 0]) {
    const beside = (/** @type {number} */ k) => axis ? Math.round(k * cos) * width - Math.round(k * sin)
      : Math.round(k * sin) * width + Math.round(k * cos);
    const lines = placesOf(ink).filter((i) => !(values[i - beside(half)] > 0 || values[i + beside(half)] > 0));
    const rule = lines.map((i) => Math.floor(placed(ink, i)[axis]) + width);
    const counts = new Int16Array(2 * (width + height));
    for (const at of rule) counts[at]++;
    const long = RULE * (axis ? width : height);
    lines.forEach((i, n) => {
      if (counts[rule[n] - 1] + counts[rule[n]] + counts[rule[n] + 1] < long) return;
      for (let k = 1 - half; k < half; k++) values[i + beside(k)] = 0;
    });
  }
}
