// @ts-check
// From a picture's pixels to its ink: reduced, freed of uneven light, cut by a threshold that follows
// its surroundings (Sauvola and Pietikäinen 2000, in the form of Wolf and Jolion 2003, which knows how
// deep the ink of the whole picture is: faint rules fall below it).
'use strict';

/** @typedef {{width: number, height: number, values: Float32Array}} Plane row by row */

const WORKING = 1000; // pixels of the longer side, about
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
    for (let x = 0; x < grey.width * many; x++) {
      const at = 4 * (Math.floor(y / times) * width + Math.floor(x / times));
      grey.values[Math.floor(y / many) * grey.width + Math.floor(x / many)] +=
        (0.3 * rgba[at] + 0.6 * rgba[at + 1] + 0.1 * rgba[at + 2]) / 255 / many ** 2;
    }
  }
  return means(grey, Math.max(1, times >> 1));
}

/** Of the square around every pixel, by a table of sums (Crow 1984).
 * @param {Plane} plane @param {number} radius @returns {Plane} */
function means({width, height, values}, radius) {
  const sums = new Float64Array((width + 1) * (height + 1));
  for (let y = 0, i = 0, at = width + 2; y < height; y++, at++) {
    for (let x = 0, row = 0; x < width; x++, at++) sums[at] = sums[at - width - 1] + (row += values[i++]);
  }
  const result = plane(width, height);
  for (let y = 0, i = 0; y < height; y++) {
    const top = Math.max(0, y - radius) * (width + 1);
    const bottom = Math.min(height, y + radius + 1) * (width + 1);
    for (let x = 0; x < width; x++) {
      const [left, right] = [Math.max(0, x - radius), Math.min(width, x + radius + 1)];
      result.values[i++] = (sums[bottom + right] - sums[bottom + left] - sums[top + right]
        + sums[top + left]) * (width + 1) / ((bottom - top) * (right - left));
    }
  }
  return result;
}

/** How far each pixel is above the threshold, as a share of the ink's depth; null: there is no ink.
 * @param {Plane} grey @param {boolean} other than it looks: light ink for dark, or dark for light
 * @returns {Plane | null} */
function inkOf({width, height, values}, other) {
  const radius = Math.round(Math.max(width, height) * WINDOW);
  const around = means({width, height, values}, radius).values;
  let [cubes, squares] = [0, 0]; // light ink on dark ground if what stands out is light
  values.forEach((value, i) => {
    cubes += (value - around[i]) ** 3;
    squares += (value - around[i]) ** 2;
  });
  const sign = cubes > 0 === other ? 1 : -1;
  const [paper, share] = [plane(width, height), plane(width, height)]; // what is no ink, clearly
  values.forEach((value, i) => {
    if (sign * (value - around[i]) < -0.5 * Math.sqrt(squares / values.length)) return;
    paper.values[i] = value;
    share.values[i] = 1;
  });
  const [sums, counts] = [means(paper, radius).values, means(share, radius).values];
  const depth = values.map((value, i) => {
    const ground = counts[i] > 0.02 ? sums[i] / counts[i] : around[i];
    return sign > 0 ? 1 - value / (ground + 0.02) : (value - ground) / (1.1 - ground);
  });
  const deep = depthOf(depth);
  if (!deep) return null;
  const mean = means({width, height, values: depth}, radius).values;
  const square = means({width, height, values: depth.map((value) => value * value)}, radius).values;
  return {width, height, values: depth.map((value, i) => {
    const deviation = Math.sqrt(Math.max(0, square[i] - mean[i] ** 2));
    return (value - mean[i]) / deep - BEND * Math.max(0.2, 1 - 2 * deviation / deep);
  })};
}

/** Of the ink: the mean of what is at least half as deep as the deepest; 0 if that may be noise.
 * @param {Float32Array} depth @returns {number} */
function depthOf(depth) {
  const sorted = depth.filter((_, i) => i % 7 === 0).sort();
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
