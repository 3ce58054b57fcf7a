// From strokes to the picture that the network sees, as MNIST's makers prepared theirs: crop the
// ink, fit its longer side into 20 pixels with anti-aliasing, place its centre of mass in the
// middle of 28 × 28. mnist_cnn/browser/drawings.py does the same; a test holds the two together.
'use strict';

const PAD = 140; // pixels a side of the drawing as it is rasterised
const SIDE = 28;
const FIT = 20;

// Strokes [{width, points: [[x, y], ...]}], all in units of the pad's side, to ink in 0..1: a
// Float64Array of PAD × PAD, row by row, or null if there is no ink. The edge of a line fades over
// one pixel.
function rasterise(strokes) {
  const ink = new Float64Array(PAD * PAD);
  let drawn = false;
  for (const {width, points} of strokes) {
    const radius = (width * PAD) / 2;
    points.forEach(([x1, y1], i) => {
      const [x0, y0] = points[Math.max(0, i - 1)];
      drawn = line(ink, x0 * PAD, y0 * PAD, x1 * PAD, y1 * PAD, radius) || drawn;
    });
  }
  return drawn ? ink : null;
}

function line(ink, x0, y0, x1, y1, radius) {
  const reach = radius + 1;
  const left = Math.max(0, Math.floor(Math.min(x0, x1) - reach));
  const right = Math.min(PAD - 1, Math.ceil(Math.max(x0, x1) + reach));
  const top = Math.max(0, Math.floor(Math.min(y0, y1) - reach));
  const bottom = Math.min(PAD - 1, Math.ceil(Math.max(y0, y1) + reach));
  const length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2;
  let drawn = false;
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const x = column + 0.5;
      const y = row + 0.5;
      const along = length2 ? ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length2 : 0;
      const t = Math.min(1, Math.max(0, along));
      const distance = Math.sqrt((x - x0 - t * (x1 - x0)) ** 2 + (y - y0 - t * (y1 - y0)) ** 2);
      const value = Math.min(1, Math.max(0, radius + 0.5 - distance));
      const at = row * PAD + column;
      if (value > ink[at]) {
        ink[at] = value;
        drawn = true;
      }
    }
  }
  return drawn;
}

// Ink (height × width) to the network's picture: Float32Array of 28 × 28 in 0..1, brightest 1.
function prepare(ink, height, width) {
  const box = bounds(ink, height, width);
  const scale = FIT / Math.max(box.height, box.width);
  const rows = Math.max(1, Math.round(box.height * scale));
  const columns = Math.max(1, Math.round(box.width * scale));
  const cropped = new Float64Array(box.height * box.width);
  for (let row = 0; row < box.height; row++) {
    for (let column = 0; column < box.width; column++) {
      cropped[row * box.width + column] = ink[(box.top + row) * width + box.left + column];
    }
  }
  const small = resize(cropped, box.height, box.width, rows, columns);

  let mass = 0;
  let down = 0;
  let across = 0;
  small.forEach((value, i) => {
    mass += value;
    down += value * Math.floor(i / columns);
    across += value * (i % columns);
  });
  const top = clamp(Math.floor(SIDE / 2 - down / mass + 0.5), 0, SIDE - rows);
  const left = clamp(Math.floor(SIDE / 2 - across / mass + 0.5), 0, SIDE - columns);
  const brightest = small.reduce((a, b) => Math.max(a, b));
  const picture = new Float32Array(SIDE * SIDE);
  small.forEach((value, i) => {
    const row = top + Math.floor(i / columns);
    picture[row * SIDE + left + (i % columns)] = value / brightest;
  });
  return picture;
}

// What a page without the preparation would do: the whole pad made small.
function shrink(ink) {
  return Float32Array.from(resize(ink, PAD, PAD, SIDE, SIDE));
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

function bounds(ink, height, width) {
  let [top, bottom, left, right] = [height, -1, width, -1];
  ink.forEach((value, i) => {
    if (value > 0) {
      const row = Math.floor(i / width);
      const column = i % width;
      [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
      [left, right] = [Math.min(left, column), Math.max(right, column)];
    }
  });
  return {top, left, height: bottom - top + 1, width: right - left + 1};
}

// Mean over the area that each new pixel covers, along the rows and then along the columns.
function resize(ink, height, width, rows, columns) {
  const wide = new Float64Array(height * columns);
  for (const [to, from, share] of shares(width, columns)) {
    for (let row = 0; row < height; row++) {
      wide[row * columns + to] += share * ink[row * width + from];
    }
  }
  const small = new Float64Array(rows * columns);
  for (const [to, from, share] of shares(height, rows)) {
    for (let column = 0; column < columns; column++) {
      small[to * columns + column] += share * wide[from * columns + column];
    }
  }
  return small;
}

// Which old pixels a new one covers, and how much of it each is.
function shares(before, after) {
  const found = [];
  const step = before / after;
  for (let to = 0; to < after; to++) {
    const [low, high] = [to * step, (to + 1) * step];
    for (let from = Math.floor(low); from < Math.min(before, Math.ceil(high)); from++) {
      const covered = Math.min(high, from + 1) - Math.max(low, from);
      if (covered > 0) found.push([to, from, covered / step]);
    }
  }
  return found;
}

// Under Node, for the tests and for convert, which replays recorded strokes through this file.
if (typeof module === 'object') module.exports = {PAD, rasterise, prepare, shrink};
