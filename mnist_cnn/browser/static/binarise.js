// @ts-check
// From a picture's pixels to its ink: reduced, freed of uneven light, cut by a threshold that follows
// its surroundings (Sauvola and Pietikäinen 2000, in the form of Wolf and Jolion 2003, which knows how
// deep the ink of the whole picture is: faint rules fall below it).
'use strict';

/** @typedef {{width: number, height: number, values: Float32Array}} Plane row by row */

const WORKING = 1000; // pixels of the longer side, about
const COARSE = 4; // pixels, a side of the squares in which surroundings are looked at
const WINDOW = 1 / 22; // of the longer side: from a pixel to the edge of what surrounds it
const BEND = 0.5; // Wolf and Jolion's k
const FAINT = 0.07; // of the paper's brightness: what is less deep is no ink
const NOISE = 5; // likewise, in standard deviations of the paper

/** @param {number} width @param {number} height @returns {Plane} */
function plane(width, height) {
  return {width, height, values: new Float32Array(width * height)};
}

/** Brightness in 0..1, a square of pixels in one, or one as a square of them, and smoothed.
 * @param {Uint8ClampedArray} rgba @param {number} width @param {number} height @returns {Plane} */
function greyOf(rgba, width, height) {
  const longer = Math.max(width, height);
  const [many, times] = [Math.round(longer / WORKING) || 1, Math.ceil(WORKING / 2 / longer)];
  const grey = plane(Math.floor(width * times / many), Math.floor(height * times / many));
  for (let y = 0; y < grey.height * many; y++) {
    const row = Math.floor(y / many) * grey.width;
    const line = Math.floor(y / times) * width;
    for (let x = 0; x < grey.width * many; x++) {
      const at = 4 * (line + (x / times | 0));
      grey.values[row + (x / many | 0)] += 0.3 * rgba[at] + 0.6 * rgba[at + 1] + 0.1 * rgba[at + 2];
    }
  }
  for (let i = 0; i < grey.values.length; i++) grey.values[i] /= 255 * many * many;
  return means(grey, Math.max(1, times >> 1));
}

/** Of the square around every pixel, by a table of sums (Crow 1984).
 * @param {Plane} plane @param {number} radius @returns {Plane} */
function means({width, height, values}, radius) {
  const line = width + 1;
  const sums = new Float64Array(line * (height + 1));
  for (let y = 0, i = 0, at = line + 1; y < height; y++, at++) {
    for (let x = 0, row = 0; x < width; x++, at++) sums[at] = sums[at - line] + (row += values[i++]);
  }
  const result = plane(width, height);
  for (let y = 0, i = 0; y < height; y++) {
    const [top, bottom] = [Math.max(0, y - radius) * line, Math.min(height, y + radius + 1) * line];
    for (let x = 0; x < width; x++) {
      const left = Math.max(0, x - radius);
      const right = Math.min(width, x + radius + 1);
      result.values[i++] = (sums[bottom + right] - sums[bottom + left] - sums[top + right]
        + sums[top + left]) * line / ((bottom - top) * (right - left));
    }
  }
  return result;
}

/** The mean of every square of COARSE pixels, of what `value` says of each fourth.
 * @param {number} width @param {number} height @param {(i: number) => number} value
 * @returns {Plane} */
function coarse(width, height, value) {
  const result = plane(Math.ceil(width / COARSE), Math.ceil(height / COARSE));
  const counts = new Uint8Array(result.values.length);
  for (let y = 0; y < height; y += 2) {
    for (let x = 0; x < width; x += 2) {
      const at = (y / COARSE | 0) * result.width + (x / COARSE | 0);
      result.values[at] += value(y * width + x);
      counts[at]++;
    }
  }
  counts.forEach((count, at) => (result.values[at] /= count));
  return result;
}

/** How far each pixel is above the threshold, as a share of the ink's depth; null: there is no ink.
 * What surrounds a pixel is looked at coarsely.
 * @param {Plane} grey @param {boolean} other than it looks: light ink for dark, or dark for light
 * @returns {Plane | null} */
function inkOf({width, height, values}, other) {
  const radius = Math.round(Math.max(width, height) * WINDOW / COARSE);
  const small = coarse(width, height, (i) => values[i]);
  const around = means(small, radius).values;
  const line = small.width;
  const places = new Int32Array(values.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) places[i++] = (y / COARSE | 0) * line + (x / COARSE | 0);
  }
  let [cubes, squares] = [0, 0]; // light ink on dark ground if what stands out is light
  for (let i = 0; i < values.length; i++) {
    const away = values[i] - around[places[i]];
    cubes += away * away * away;
    squares += away * away;
  }
  const sign = cubes > 0 === other ? 1 : -1;
  const least = -0.5 * Math.sqrt(squares / values.length);
  const isPaper = (/** @type {number} */ i) => sign * (values[i] - around[places[i]]) < least ? 0 : 1;
  const sums = means(coarse(width, height, (i) => isPaper(i) * values[i]), radius).values;
  const counts = means(coarse(width, height, isPaper), radius).values;
  const ground = around.map((mean, at) => counts[at] > 0.02 ? sums[at] / counts[at] : mean);
  const depth = plane(width, height).values;
  for (let i = 0; i < depth.length; i++) {
    const paper = ground[places[i]];
    depth[i] = sign > 0 ? 1 - values[i] / (paper + 0.02) : (values[i] - paper) / (1.1 - paper);
  }
  const deep = depthOf(depth);
  if (!deep) return null;
  const mean = means(coarse(width, height, (i) => depth[i]), radius).values;
  const square = means(coarse(width, height, (i) => depth[i] * depth[i]), radius).values;
  const threshold = mean.map((value, at) => {
    const deviation = Math.sqrt(Math.max(0, square[at] - value ** 2));
    return value + deep * BEND * Math.max(0.2, 1 - 2 * deviation / deep);
  });
  for (let i = 0; i < depth.length; i++) depth[i] = (depth[i] - threshold[places[i]]) / deep;
  return {width, height, values: depth};
}

/** Of the ink: the mean of what is at least half as deep as the deepest; 0 if that may be noise.
 * @param {Float32Array} depth @returns {number} */
function depthOf(depth) {
  const sorted = new Float32Array(Math.ceil(depth.length / 23)); // enough of them
  for (let i = 0; i < sorted.length; i++) sorted[i] = depth[23 * i];
  sorted.sort();
  const noise = sorted.filter((value) => value < 0);
  const deviation = Math.sqrt(
    noise.reduce((sum, value) => sum + value * value, 0) / Math.max(1, noise.length));
  const deepest = sorted[sorted.length - 1 - Math.ceil(0.0004 * sorted.length)];
  const ink = sorted.filter((value) => value >= deepest / 2);
  const deep = ink.reduce((sum, value) => sum + value, 0) / ink.length;
  return deep < Math.max(FAINT, NOISE * deviation) ? 0 : deep;
}

/** Turned about its middle, between pixels by bilinear interpolation; -1 where there is nothing.
 * @param {Plane} source @param {number} angle radians @returns {Plane} */
function turned({width, height, values}, angle) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const size = (/** @type {number} */ a, /** @type {number} */ b) =>
    Math.round(a * Math.abs(cos) + b * Math.abs(sin));
  const result = plane(size(width, height), size(height, width));
  result.values.forEach((_, at) => {
    const u = at % result.width + 0.5 - result.width / 2;
    const v = Math.floor(at / result.width) + 0.5 - result.height / 2;
    const [x, y] = [u * cos - v * sin + width / 2 - 0.5, u * sin + v * cos + height / 2 - 0.5];
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const [a, b, i] = [x - left, y - top, top * width + left];
    result.values[at] = left < 0 || top < 0 || left > width - 2 || top > height - 2 ? -1
      : (1 - b) * ((1 - a) * values[i] + a * values[i + 1])
        + b * ((1 - a) * values[i + width] + a * values[i + width + 1]);
  });
  return result;
}
