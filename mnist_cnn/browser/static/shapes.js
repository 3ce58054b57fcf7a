// @ts-check
// From a picture's brightness to its ink, by a threshold that follows its surroundings (Sauvola and
// Pietikäinen 2000, in the form of Wolf and Jolion 2003, which knows how deep the ink of the whole
// picture is: faint rules fall below it); then to the slope of the ink and its connected parts.
'use strict';

/** @typedef {{width: number, height: number, values: Float32Array}} Plane row by row */
/** @typedef {Box & {wide: number, tall: number, pixels: Int32Array}} Part places in the plane */

const COARSE = 4; // pixels, a side of the squares in which surroundings are looked at
const WINDOW = 1 / 22; // of the longer side: from a pixel to the edge of what surrounds it
const FAINT = 0.07; // of the paper's brightness: what is less deep is no ink
const NOISE = 5; // likewise, in standard deviations of the paper
const RULE = 0.7; // of the picture's width: half of so long a stretch is ink where there is a rule
const THIN = 0.008; // of its longer side: a rule's width at most
const TURN = 45; // degrees, at most, either way
const EVERY = 7; // pixels: one is looked at, where that is enough
const NEAR = 2.6; // heights from a digit to those that show the slope of its row

/** @param {number} width @param {number} height @returns {Plane} */
function plane(width, height) {
  return {width, height, values: new Float32Array(width * height)};
}

/** Of the box around (x, y), so far across and down, by a table of sums (Crow 1984).
 * @param {{width: number, height: number, values: ArrayLike<number>}} plane
 * @returns {(x: number, y: number, across: number, down: number) => number} */
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

/** Reduced and turned about its middle: each pixel the mean of two places; -1: outside.
 * @param {number} width @param {number} height @param {(i: number) => number} value of a pixel
 * @param {number} scale @param {number} angle radians @returns {Plane} */
function sampled(width, height, value, scale, angle) {
  const [cos, sin] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  const [wide, tall] = [[width, height], [height, width]].map(([a, b]) =>
    COARSE * Math.floor((a * cos + b * Math.abs(sin)) / scale ** 2 / COARSE));
  const result = plane(wide, tall);
  for (let row = 0, at = 0; row < tall; row++) {
    for (let column = 0; column < wide; column++, at++) {
      for (let part = 0.25; part < 1; part += 0.5) {
        const u = column + part - wide / 2;
        const v = row + part - tall / 2;
        const x = Math.floor(u * cos - v * sin + width / 2);
        const y = Math.floor(u * sin + v * cos + height / 2);
        result.values[at] += (x < 0 || y < 0 || x >= width || y >= height ? -1 : value(y * width + x)) / 2;
      }
    }
  }
  return result;
}

/** Means of what surrounds each square of COARSE pixels, of what `value` says of four of them.
 * @param {Plane} plane @param {(i: number) => number} value @returns {Float32Array} */
function around({width, height}, value) {
  const small = plane(width / COARSE, height / COARSE);
  for (let y = 0, at = 0; y < height; y += COARSE) {
    for (let i = y * width, end = i + width; i < end; i += COARSE) {
      small.values[at++] = (value(i) + value(i + 2) + value(i + 2 * width) + value(i + 2 * width + 2)) / 4;
    }
  }
  const mean = meansOf(small);
  const radius = Math.round(Math.max(width, height) * WINDOW / COARSE);
  return small.values.map((_, at) => mean(at % small.width, Math.floor(at / small.width), radius, radius));
}

/** How far each pixel is above the threshold, as a share of the ink's depth; null: there is no ink.
 * @param {Plane} grey brightness in 0..1 @returns {Plane | null} */
function inkOf(grey) {
  const {width, height, values} = grey;
  const squares = new Int32Array(values.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) squares[i++] = (y / COARSE | 0) * width / COARSE + (x / COARSE | 0);
  }
  const mean = around(grey, (i) => values[i]);
  let cubes = 0; // light ink on dark ground if what stands out is light
  for (let i = 0; i < values.length; i += EVERY) cubes += (values[i] - mean[squares[i]]) ** 3;
  const sign = cubes > 0 ? -1 : 1;
  const paper = around(grey, (i) => sign * Math.max(sign * values[i], sign * mean[squares[i]]));
  const depth = values.map((value, i) => sign > 0 ? 1 - value / (paper[squares[i]] + 0.02)
    : (value - paper[squares[i]]) / (1.1 - paper[squares[i]]));
  const sorted = new Float32Array(depth.length / EVERY | 0).map((_, i) => depth[EVERY * i]).sort();
  const [low, middle, high] = [0.16, 0.5, 0.9995].map((share) => sorted[Math.floor(share * sorted.length)]);
  const dark = sorted.filter((value) => value >= high / 2);
  const deep = dark.reduce((sum, value) => sum + value, 0) / dark.length;
  if (!(deep > Math.max(FAINT, NOISE * (middle - low)))) return null;
  const level = around(grey, (i) => depth[i]);
  const square = around(grey, (i) => depth[i] ** 2);
  const threshold = level.map((value, at) =>
    value + Math.max(0.1 * deep, 0.5 * deep - Math.sqrt(Math.max(0, square[at] - value ** 2))));
  return {width, height, values: depth.map((value, i) => (value - threshold[squares[i]]) / deep)};
}

/** @param {Int32Array} pixels @param {number} width of the plane @returns {Part} */
function partFrom(pixels, width) {
  let [left, right, first, last] = [width, 0, Infinity, 0];
  for (const at of pixels) {
    left = Math.min(left, at % width);
    right = Math.max(right, at % width + 1);
    first = Math.min(first, at);
    last = Math.max(last, at);
  }
  const [top, bottom] = [Math.floor(first / width), Math.floor(last / width) + 1];
  return {left, right, top, bottom, wide: right - left, tall: bottom - top, pixels};
}

/** @param {Float32Array} values @returns {Uint8Array} 1: ink */
function maskOf(values) {
  const mask = new Uint8Array(values.length);
  for (let i = 0; i < mask.length; i++) if (values[i] > 0) mask[i] = 1;
  return mask;
}

/** Connected parts, of eight neighbours. @param {Plane} ink @returns {Part[]} */
function partsOf({width, values}) {
  const found = [];
  const rest = maskOf(values);
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
    found.push(partFrom(queue.slice(0, end), width));
  }
  return found;
}

/** The direction of one long thin line with much of the ink; without one, that in which digits have
 * neighbours. @param {Plane} ink @param {{digits: Box[], high: number}} parts @returns {number} radians */
function slopeOf({width, height, values}, {digits, high}) {
  const all = [];
  for (let i = 0; i < values.length; i++) if (values[i] > 0) all.push(i);
  const points = all.filter((_, i) => i % EVERY === 0);
  const [xs, ys] = [points.map((i) => i % width), points.map((i) => Math.floor(i / width))];
  const pairs = digits.flatMap((a) => digits.map((b) => [b.left + b.right - a.left - a.right,
    b.top + b.bottom - a.top - a.bottom].map((away) => away / 2 / high)));
  const near = pairs.filter(([x, y]) => x > 0 && Math.hypot(x, y) < NEAR);
  let best = {angle: 0, score: 0};
  for (let degrees = -TURN; degrees <= TURN; degrees += 0.5) {
    const angle = degrees * Math.PI / 180;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const bins = new Int16Array(width + height); // of two pixels, or 45 degrees win
    for (let i = 0; i < xs.length; i++) bins[(ys[i] * cos - xs[i] * sin + width) / 2 | 0]++;
    const line = bins.reduce((most, count, i) =>
      Math.max(most, count - Math.max(bins[i - 4] ?? 0, bins[i + 4] ?? 0)), 0) * EVERY / width;
    const score = near.reduce((sum, [x, y]) => sum + Math.exp(-(((y * cos - x * sin) / 0.25) ** 2)),
      1.5 * cos + (line > 0.75 ? 1e6 * line : 0));
    if (score > best.score) best = {angle, score};
  }
  return best.angle;
}

/** Removes thin lines that cross much of the picture, except where a stroke crosses them.
 * @param {Plane} ink */
function unrule({width, height, values}) {
  const thin = Math.round(2 + THIN * Math.max(width, height));
  for (const [across, down] of [[1, 0], [0, 1]]) {
    const ink = meansOf({width, height, values: maskOf(values)});
    const ruled = plane(width, height);
    const lines = [];
    for (let i = 0; i < values.length; i++) {
      if (values[i] > 0 && ink(i % width, Math.floor(i / width), down * thin, across * thin)
        * (2 * thin + 1) <= thin) lines.push(i);
    }
    const step = across ? width : 1;
    for (const i of lines) ruled.values[i] = ruled.values[i - step] = ruled.values[i + step] = 1;
    const mean = meansOf(ruled);
    const [wide, tall] = [across * width, down * height].map((side) => Math.round(RULE / 2 * side));
    for (const i of lines) {
      const share = (/** @type {number} */ to) => mean(clamp(i % width + to * wide, wide, width - 1 - wide),
        clamp(Math.floor(i / width) + to * tall, tall, height - 1 - tall), wide, tall);
      if (Math.max(share(-1), share(0), share(1)) > 0.5) values[i] = -1;
    }
  }
}
