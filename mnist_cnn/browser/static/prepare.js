// @ts-check
// From strokes to the picture that the network sees. The strokes are vectors: they are scaled into
// the 20 pixels that MNIST's makers used, drawn there with a line as wide as MNIST's, and placed
// with their centre of mass in the middle of 28 × 28. So neither the pen's width nor the size of
// the drawing matters. mnist_cnn/learning/handwriting.py does the same; a test holds them together.
'use strict'; // and so are the scripts that are joined behind this one

const SIDE = 28; // pixels
const FIT = 20; // pixels of the longer side of the ink
const PEN = 2.2; // pixels, the width of the line
const SMALLEST = 0.05; // of the pad's side: what is smaller is not magnified
const STEP = 0.01; // of the longer side: points nearer than this to the last one are left out
const TAP = 0.1; // of the longer side of the largest stroke: a stroke below this is a tap
const ASIDE = 0.35; // likewise: a tap further than this from the others is left out
const EVEN = 1e-4; // pixels: where a move by either of two is as good, rounding does not choose

/** @param {{points: Point[]}[]} strokes in units of the pad's side
 * @returns {Float32Array | null} 28 × 28 in 0..1, or null if there is no ink */
function prepare(strokes) {
  const lines = cleaned(strokes.map(({points}) => points));
  if (!lines.length) return null;
  const box = bounds(lines);
  const scale = (FIT - PEN) / Math.max(box.side, SMALLEST);
  const ink = new Float64Array(FIT * FIT);
  for (const points of lines) {
    const placed = points.map(([x, y]) => /** @type {Point} */ (
      [(x - box.left) * scale + PEN / 2, (y - box.top) * scale + PEN / 2]));
    placed.forEach((end, i) => line(ink, placed[Math.max(0, i - 1)], end));
  }
  const [rows, columns] = [box.bottom - box.top, box.right - box.left].map((side) =>
    Math.ceil(side * scale + PEN));
  return centred(ink, rows, columns);
}

/** Without taps that fell beside the digit, and points on the spot. @param {Point[][]} strokes */
function cleaned(strokes) {
  const lines = strokes.filter((points) => points.length);
  const boxes = lines.map((points) => bounds([points]));
  const largest = Math.max(...boxes.map(({side}) => side));
  const main = bounds(lines.filter((_, i) => boxes[i].side >= TAP * largest));
  const kept = lines.filter((_, i) => {
    const {left, top, right, bottom, side} = boxes[i];
    return side >= TAP * largest || Math.hypot(Math.max(left - main.right, main.left - right, 0),
      Math.max(top - main.bottom, main.top - bottom, 0)) <= ASIDE * largest;
  });
  const step = STEP * bounds(kept).side;
  return kept.map((points) => {
    let last = points[0];
    return points.filter((point, i) => {
      const far = !i || Math.hypot(point[0] - last[0], point[1] - last[1]) > step;
      if (far) last = point;
      return far;
    });
  });
}

/** `side` is the longer one. @param {number[][][]} lines */
function bounds(lines) {
  const [xs, ys] = [0, 1].map((axis) => lines.flatMap((points) => points.map((at) => at[axis])));
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  return {left, top, right, bottom, side: Math.max(right - left, bottom - top)};
}

/** A line of width PEN from one point to another, onto FIT × FIT; its edge fades over one pixel.
 * @param {Float64Array} ink @param {Point} from @param {Point} to */
function line(ink, [x0, y0], [x1, y1]) {
  const reach = PEN / 2 + 1;
  const [left, top, right, bottom] = [
    Math.min(x0, x1) - reach, Math.min(y0, y1) - reach,
    Math.max(x0, x1) + reach, Math.max(y0, y1) + reach,
  ].map((at) => clamp(Math.floor(at), 0, FIT - 1));
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

/** @param {number} value @param {number} low @param {number} high */
function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** The ink in the first rows and columns of FIT × FIT, moved by whole pixels into SIDE × SIDE with
 * its centre of mass in the middle.
 * @param {Float64Array} ink @param {number} rows @param {number} columns */
function centred(ink, rows, columns) {
  let [mass, down, across] = [0, 0, 0];
  ink.forEach((value, i) => {
    mass += value;
    down += value * Math.floor(i / FIT);
    across += value * (i % FIT);
  });
  const [top, left] = [[down, rows], [across, columns]].map(([sum, length]) =>
    clamp(Math.floor(SIDE / 2 - sum / mass + 0.5 + EVEN), 0, SIDE - length));
  const picture = new Float32Array(SIDE * SIDE);
  ink.forEach((value, i) => {
    if (value) picture[(top + Math.floor(i / FIT)) * SIDE + left + (i % FIT)] = value;
  });
  return picture;
}

// Under Node, for the tests and for convert, which replays recorded strokes through this file.
if (typeof module === 'object') Object.assign(module, {exports: {prepare}});
