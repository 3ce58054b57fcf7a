// @ts-check
// From a picture's pixels to its ink: reduced, freed of uneven light, cut by a threshold that follows
// its surroundings (Sauvola and Pietikäinen 2000, in the form of Wolf and Jolion 2003, which knows how
// deep the ink of the whole picture is: faint rules fall below it).
'use strict';

/** @typedef {{width: number, height: number, values: Float32Array}} Plane row by row */

const [SHORT, LONG] = [500, 800]; // pixels of the longer side: it is brought between them
const COARSE = 4; // pixels, a side of the squares in which surroundings are looked at
const WINDOW = 1 / 22; // of the longer side: from a pixel to the edge of what surrounds it
const FAINT = 0.07; // of the paper's brightness: what is less deep is no ink
const NOISE = 5; // likewise, in standard deviations of the paper

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
    const [top, bottom] = [Math.max(0, y - down), Math.min(height, y + down + 1)];
    return (sums[bottom * line + right] - sums[bottom * line + left] - sums[top * line + right]
      + sums[top * line + left]) / ((bottom - top) * (right - left));
  };
}

/** Brightness in 0..1: of each pixel the mean of those that it stands for, or the nearest.
 * @param {Uint8ClampedArray} rgba @param {number} width @param {number} height @returns {Plane} */
function greyOf(rgba, width, height) {
  const longer = Math.max(width, height);
  const scale = longer / clamp(longer, SHORT, LONG);
  const side = (/** @type {number} */ length) => COARSE * Math.floor(length / scale / COARSE);
  const grey = plane(side(width), side(height));
  for (let y = 0, i = 0; y < grey.height; y++) {
    const top = Math.floor(y * scale);
    const bottom = Math.max(top + 1, Math.floor((y + 1) * scale));
    for (let x = 0; x < grey.width; x++, i++) {
      const left = Math.floor(x * scale);
      const right = Math.max(left + 1, Math.floor((x + 1) * scale));
      let sum = 0;
      for (let row = top; row < bottom; row++) {
        for (let at = 4 * (row * width + left), end = 4 * (row * width + right); at < end; at += 4) {
          sum += 0.3 * rgba[at] + 0.6 * rgba[at + 1] + 0.1 * rgba[at + 2];
        }
      }
      grey.values[i] = sum / (255 * (bottom - top) * (right - left));
    }
  }
  return grey;
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
  return small.values.map((_, at) =>
    mean(at % small.width, Math.floor(at / small.width), radius, radius));
}

/** How far each pixel is above the threshold, as a share of the ink's depth; null: there is no ink.
 * @param {Plane} grey @param {boolean} other than it looks: light ink for dark, or dark for light
 * @returns {Plane | null} */
function inkOf(grey, other) {
  const {width, height, values} = grey;
  const squares = new Int32Array(values.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) squares[i++] = (y / COARSE | 0) * width / COARSE + (x / COARSE | 0);
  }
  const mean = around(grey, (i) => values[i]);
  let cubes = 0; // light ink on dark ground if what stands out is light
  for (let i = 0; i < values.length; i++) cubes += (values[i] - mean[squares[i]]) ** 3;
  const sign = cubes > 0 === other ? 1 : -1;
  const paper = around(grey, (i) => sign * Math.max(sign * values[i], sign * mean[squares[i]]));
  const ink = plane(width, height);
  const depth = ink.values;
  for (let i = 0; i < depth.length; i++) {
    const ground = paper[squares[i]];
    depth[i] = sign > 0 ? 1 - values[i] / (ground + 0.02) : (values[i] - ground) / (1.1 - ground);
  }
  const deep = depthOf(depth);
  if (!deep) return null;
  const level = around(ink, (i) => depth[i]);
  const square = around(ink, (i) => depth[i] ** 2);
  const threshold = level.map((value, at) => {
    const deviation = Math.sqrt(Math.max(0, square[at] - value ** 2));
    return value + Math.max(0.1 * deep, 0.5 * deep - deviation);
  });
  for (let i = 0; i < depth.length; i++) depth[i] = (depth[i] - threshold[squares[i]]) / deep;
  return ink;
}

/** Of the ink: the mean of what is at least half as deep as the deepest; 0 if that may be noise.
 * @param {Float32Array} depth @returns {number} */
function depthOf(depth) {
  const sorted = depth.filter((_, i) => i % 23 === 0).sort(); // enough of them
  const at = (/** @type {number} */ share) => sorted[Math.floor(share * sorted.length)];
  const ink = sorted.filter((value) => value >= at(0.9995) / 2);
  const deep = ink.reduce((sum, value) => sum + value, 0) / ink.length;
  return deep < Math.max(FAINT, NOISE * (at(0.5) - at(0.16))) ? 0 : deep;
}

/** Turned about its middle, between pixels by bilinear interpolation; -1 where there is nothing.
 * @param {Plane} source @param {number} angle radians @returns {Plane} */
function turned({width, height, values}, angle) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const size = (/** @type {number} */ a, /** @type {number} */ b) =>
    Math.round(a * cos + b * Math.abs(sin));
  const result = plane(size(width, height), size(height, width));
  for (let v = 0, at = 0; v < result.height; v++) {
    const [right, down] = [0.5 - result.width / 2, v + 0.5 - result.height / 2];
    let x = right * cos - down * sin + width / 2 - 0.5;
    let y = right * sin + down * cos + height / 2 - 0.5;
    for (let u = 0; u < result.width; u++, at++, x += cos, y += sin) {
      const [left, top] = [Math.floor(x), Math.floor(y)];
      const [a, b, i] = [x - left, y - top, top * width + left];
      result.values[at] = left < 0 || top < 0 || left > width - 2 || top > height - 2 ? -1
        : (1 - b) * ((1 - a) * values[i] + a * values[i + 1])
          + b * ((1 - a) * values[i + width] + a * values[i + width + 1]);
    }
  }
  return result;
}
