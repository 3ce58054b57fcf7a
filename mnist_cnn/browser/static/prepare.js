// From strokes to the picture that the network sees. The strokes are vectors: they are scaled into
// the 20 pixels that MNIST's makers used, drawn there with a line as wide as MNIST's, and placed
// with their centre of mass in the middle of 28 × 28. So neither the pen's width nor the size of
// the drawing matters. mnist_cnn/learning/handwriting.py does the same; a test holds them together.
'use strict';

const SIDE = 28; // pixels
const FIT = 20; // pixels of the longer side of the ink
const PEN = 2.2; // pixels, the width of the line
const SMALLEST = 0.05; // of the pad's side: what is smaller is not magnified
const STEP = 0.01; // of the longer side: points nearer than this to the last one are left out
const TAP = 0.1; // of the longer side of the largest stroke: a stroke below this is a tap
const ASIDE = 0.35; // likewise: a tap further than this from the others is left out
const EVEN = 1e-4; // pixels: where a move by either of two is as good, rounding errors do not choose

// Strokes [{points: [[x, y], ...]}], in units of the pad's side, to a Float32Array of 28 × 28 in
// 0..1, or null if there is no ink.
function prepare(strokes) {
  const lines = cleaned(strokes.map(({points}) => points));
  if (!lines.length) return null;
  const box = bounds(lines);
  const scale = (FIT - PEN) / Math.max(box.width, box.height, SMALLEST);
  const ink = new Float64Array(FIT * FIT);
  for (const points of lines) {
    const placed = points.map(([x, y]) => [
      (x - box.left) * scale + PEN / 2,
      (y - box.top) * scale + PEN / 2,
    ]);
    placed.forEach((end, i) => line(ink, placed[Math.max(0, i - 1)], end));
  }
  const [rows, columns] = [box.height, box.width].map((side) => Math.ceil(side * scale + PEN));
  return centred(ink, rows, columns);
}

// Strokes without taps that fell beside the digit and without points on the spot.
function cleaned(strokes) {
  const lines = strokes.filter((points) => points.length);
  if (!lines.length) return [];
  const sizes = lines.map((points) => side([points]));
  const largest = Math.max(...sizes);
  const main = bounds(lines.filter((_, i) => sizes[i] >= TAP * largest));
  const kept = lines.filter((points, i) =>
    sizes[i] >= TAP * largest || distance(bounds([points]), main) <= ASIDE * largest);
  const step = STEP * side(kept);
  return kept.map((points) => {
    const thinned = [points[0]];
    for (const point of points.slice(1)) {
      const [x, y] = thinned[thinned.length - 1];
      if (Math.hypot(point[0] - x, point[1] - y) > step) thinned.push(point);
    }
    return thinned;
  });
}

function bounds(lines) {
  const box = {left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity};
  for (const [x, y] of lines.flat()) {
    box.left = Math.min(box.left, x);
    box.right = Math.max(box.right, x);
    box.top = Math.min(box.top, y);
    box.bottom = Math.max(box.bottom, y);
  }
  return {...box, width: box.right - box.left, height: box.bottom - box.top};
}

function side(lines) {
  const {width, height} = bounds(lines);
  return Math.max(width, height);
}

// Between two boxes; 0 if they touch.
function distance(a, b) {
  const across = Math.max(a.left - b.right, b.left - a.right, 0);
  const down = Math.max(a.top - b.bottom, b.top - a.bottom, 0);
  return Math.hypot(across, down);
}

// A line of width PEN from one point to another, onto FIT × FIT; its edge fades over one pixel.
function line(ink, [x0, y0], [x1, y1]) {
  const reach = PEN / 2 + 1;
  const [left, right] = [Math.min(x0, x1) - reach, Math.max(x0, x1) + reach].map(inside);
  const [top, bottom] = [Math.min(y0, y1) - reach, Math.max(y0, y1) + reach].map(inside);
  const length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2;
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const x = column + 0.5 - x0;
      const y = row + 0.5 - y0;
      const along = length2 ? (x * (x1 - x0) + y * (y1 - y0)) / length2 : 0;
      const t = clamp(along, 0, 1);
      const away = Math.hypot(x - t * (x1 - x0), y - t * (y1 - y0));
      const at = row * FIT + column;
      ink[at] = Math.max(ink[at], clamp(PEN / 2 + 0.5 - away, 0, 1));
    }
  }
}

function inside(value) {
  return clamp(Math.floor(value), 0, FIT - 1);
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

// The ink in the first rows and columns of FIT × FIT, moved by whole pixels into SIDE × SIDE with
// its centre of mass in the middle.
function centred(ink, rows, columns) {
  let [mass, down, across] = [0, 0, 0];
  ink.forEach((value, i) => {
    mass += value;
    down += value * Math.floor(i / FIT);
    across += value * (i % FIT);
  });
  const top = clamp(Math.floor(SIDE / 2 - down / mass + 0.5 + EVEN), 0, SIDE - rows);
  const left = clamp(Math.floor(SIDE / 2 - across / mass + 0.5 + EVEN), 0, SIDE - columns);
  const picture = new Float32Array(SIDE * SIDE);
  ink.forEach((value, i) => {
    if (value) picture[(top + Math.floor(i / FIT)) * SIDE + left + (i % FIT)] = value;
  });
  return picture;
}

// Under Node, for the tests and for convert, which replays recorded strokes through this file.
if (typeof module === 'object') module.exports = {prepare, cleaned};
