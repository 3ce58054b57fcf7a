// @ts-check
// From the strokes of a number to its digits: rows from top to bottom, digits from left to right.
// In the order of writing a stroke joins the digit before it, or an earlier one that it lies in
// (a 7's bar), or begins a new one. Where the gap leaves it open the network decides: do they read
// better as one digit or as two? The numbers were fitted to 2,000 numbers put together from
// recorded digits, half of them with wide gaps, half with overlaps. All lengths are in heights.

/** @typedef {{left: number, top: number, right: number, bottom: number}} Box */
/** @typedef {{strokes: number[], box: Box}} Group the strokes of a digit, by their indices */
/** @typedef {(strokes: number[]) => {digit: number, share: number}} Reads strokes as one digit */

const LOW = 0.25; // what is less high is a part of a digit: a 5's hat, a 7's bar
const INSIDE = 0.16; // a stroke that reaches no further than this to the right of a digit is its
const REACH = 0.3; // unless the gap between them is wider than this
const APART = 0.1; // any other stroke behind a wider gap begins a digit
const HALF = 0.6; // what is at least as high may be a digit
const OPEN = 0.3; // the gap in a 4 or a 5 of two strokes
const WIDE = 0.5; // what the second adds to their width
const SURE = -0.1; // logarithm of a confidence
const NARROW = 0.12; // nothing counts as narrower
const LEAST = -1.5; // logarithm of the confidence; nothing counts as less

/** @param {Group} a @param {Group} b @returns {Group} both as one */
function joined(a, b) {
  const strokes = [...a.strokes, ...b.strokes].sort((one, other) => one - other);
  const corners = [a, b].map(({box}) => [[box.left, box.top], [box.right, box.bottom]]);
  return {strokes, box: bounds(corners)};
}

/** @param {Group} group @returns {number} */
const tall = ({box}) => box.bottom - box.top;

/** @param {Group} a @param {Group} b @returns {number} across, below 0 where they overlap */
const gap = ({box: a}, {box: b}) => Math.max(a.left, b.left) - Math.min(a.right, b.right);

/** @param {Group} a @param {Group} b @returns {number} down, below 0 where they overlap */
const drop = ({box: a}, {box: b}) => Math.max(a.top, b.top) - Math.min(a.bottom, b.bottom);

/** @param {Group} a @param {Group} b @param {number} height @returns {number} of the narrower */
const overlap = (a, b, height) =>
  -gap(a, b) / Math.max(NARROW * height, Math.min(...[a, b].map(({box}) => box.right - box.left)));

/** @param {[number, number][][]} lines points of each stroke, in the order of writing
 * @param {Reads} reads @returns {Group[][]} */
function split(lines, reads) {
  const strokes = lines.map((points, i) => ({strokes: [i], box: bounds([points])}));
  const heights = strokes.map(tall).sort((a, b) => b - a);
  const height = heights[Math.floor(heights.length / 4)] || 1; // of a digit, about
  return inRows(strokes, height).map((row) => digitsOf(row, height, reads));
}

/** @param {Group[]} strokes @param {number} height @returns {Group[][]} */
function inRows(strokes, height) {
  /** @type {Group[][]} */
  let rows = [];
  const low = (/** @type {Group} */ stroke) => tall(stroke) < LOW * height;
  for (const stroke of strokes.filter((one) => !low(one))) {
    const near = rows.filter((row) => row.some((other) =>
      -drop(stroke, other) > 0.5 * Math.min(tall(stroke), tall(other))));
    rows = [...rows.filter((row) => !near.includes(row)), [stroke, ...near.flat()]];
  }
  const away = (/** @type {Group[]} */ row, /** @type {Group} */ a) => drop(row.reduce(joined), a);
  for (const stroke of strokes.filter(low)) {
    const [nearest] = [...rows].sort((a, b) => away(a, stroke) - away(b, stroke));
    if (nearest) nearest.push(stroke);
    else rows.push([stroke]);
  }
  rows.sort((a, b) => a.reduce(joined).box.top - b.reduce(joined).box.top);
  return rows.map((row) => row.sort((a, b) => a.strokes[0] - b.strokes[0]));
}

/** @param {Group[]} row @param {number} height @param {Reads} reads @returns {Group[]} */
function digitsOf(row, height, reads) {
  /** @type {Group[]} */
  let digits = [];
  for (const stroke of row) {
    const last = digits[digits.length - 1];
    const home = digits.slice(0, -1).find((digit) => overlap(digit, stroke, height) > 0.8
      && drop(digit, stroke) < 0 && !(overlap(last, stroke, height) > 0.8));
    const into = home ?? (last && belong(last, stroke, height, reads) ? last : null);
    digits = [...digits.filter((digit) => digit !== into), into ? joined(into, stroke) : stroke];
  }
  // A part that was written before its digit, or beside it.
  for (const part of digits.filter((digit) => tall(digit) < LOW * height)) {
    const others = digits.filter((digit) => digit !== part);
    const [nearest] = others.sort((a, b) => gap(a, part) - gap(b, part));
    if (!nearest || gap(nearest, part) > APART * height) continue;
    digits = [...others.filter((digit) => digit !== nearest), joined(nearest, part)];
  }
  return digits.sort(({box: a}, {box: b}) => a.left + a.right - b.left - b.right);
}

/** Whether a stroke is of the digit before it. @param {Group} digit @param {Group} stroke
 * @param {number} height @param {Reads} reads @returns {boolean} */
function belong(digit, stroke, height, reads) {
  const away = gap(digit, stroke) / height;
  const right = (stroke.box.right - digit.box.right) / height;
  const before = stroke.box.right < digit.box.left;
  const part = tall(stroke) < HALF * height || away < 0;
  if (part && right <= INSIDE && away <= (before ? APART : REACH)) return true;
  if (away > OPEN) return false;
  const read = [digit, stroke, joined(digit, stroke)].map(({strokes}) => reads(strokes));
  const [one, other, both] = read.map(({share}) => Math.max(LEAST, Math.log(share)));
  const found = read[2].digit;
  const already = read[0].digit === found && one > SURE && tall(stroke) >= HALF * height;
  if (both > SURE && (found === 4 || found === 5) && !already && right < WIDE) return true;
  if (away > APART) return false;
  const shared = Math.max(-1, Math.min(1, overlap(digit, stroke, height)));
  return 4.5 * shared - 8 * right - 2 * one - 4.7 * other + 3.2 * both + 0.7 > 0;
}
