// @ts-check
// From a picture's pixels to its ink: freed of uneven light, cut by a threshold that follows its
// surroundings (Sauvola and Pietikäinen 2000, in the form of Wolf and Jolion 2003, which knows how
// deep the ink of the whole picture is: faint rules fall below it).
'use strict';

/** @typedef {{width: number, height: number, values: Float32Array}} Plane row by row */

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
    const [top, bottom] = [Math.max(0, y - down) * line, Math.min(height, y + down + 1) * line];
    return (sums[bottom + right] - sums[bottom + left] - sums[top + right] + sums[top + left])
      * line / ((bottom - top) * (right - left));
  };
}

/** Reduced and turned about its middle: each pixel the mean of four places; -1: outside.
 * @param {Plane} source @param {number} scale @param {number} angle radians @returns {Plane} */
function sampled({width, height, values}, scale, angle) {
  const [cos, sin] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  const [wide, tall] = [[width, height], [height, width]].map(([a, b]) =>
    COARSE * Math.floor((a * cos + b * Math.abs(sin)) / scale ** 2 / COARSE));
  const result = plane(wide, tall);
  for (let at = 0; at < result.values.length; at++) {
    for (let part = 0; part < 4; part++) {
      const u = at % wide + (part & 1 ? 0.75 : 0.25) - wide / 2;
      const v = Math.floor(at / wide) + (part & 2 ? 0.75 : 0.25) - tall / 2;
      const [x, y] = [Math.floor(u * cos - v * sin + width / 2), Math.floor(u * sin + v * cos + height / 2)];
      const outside = x < 0 || y < 0 || x >= width || y >= height;
      result.values[at] += outside ? -0.25 : values[y * width + x] / 4;
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
  for (let i = 0; i < values.length; i++) cubes += (values[i] - mean[squares[i]]) ** 3;
  const sign = cubes > 0 ? -1 : 1;
  const paper = around(grey, (i) => sign * Math.max(sign * values[i], sign * mean[squares[i]]));
  const ink = plane(width, height);
  const depth = ink.values;
  for (let i = 0; i < depth.length; i++) {
    const ground = paper[squares[i]];
    depth[i] = sign > 0 ? 1 - values[i] / (ground + 0.02) : (values[i] - ground) / (1.1 - ground);
  }
  const sorted = depth.filter((_, i) => i % 23 === 0).sort(); // enough of them
  const [low, middle, high] = [0.16, 0.5, 0.9995].map((share) => sorted[Math.floor(share * sorted.length)]);
  const dark = sorted.filter((value) => value >= high / 2);
  const deep = dark.reduce((sum, value) => sum + value, 0) / dark.length;
  if (!(deep > Math.max(FAINT, NOISE * (middle - low)))) return null;
  const level = around(ink, (i) => depth[i]);
  const square = around(ink, (i) => depth[i] ** 2);
  const threshold = level.map((value, at) =>
    value + Math.max(0.1 * deep, 0.5 * deep - Math.sqrt(Math.max(0, square[at] - value ** 2))));
  for (let i = 0; i < depth.length; i++) depth[i] = (depth[i] - threshold[squares[i]]) / deep;
  return ink;
}
