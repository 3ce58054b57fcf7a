// @ts-check
// From ink to its connected parts: the slope of rules or of rows, and the rules taken out.
'use strict';

/** @typedef {Box & {pixels: Int32Array}} Part places in the plane */

const RULE = 0.7; // of the picture's width: half of so long a stretch is ink where there is a rule
const THIN = 0.015; // of its longer side: a rule's width at most
const TURN = 45; // degrees, at most, either way
const NEAR = 2.6; // heights from a digit to those that show the slope of its row

/** Connected parts, of eight neighbours. @param {Plane} ink @returns {Part[]} */
function partsOf({width, values}) {
  const found = [];
  const rest = new Uint8Array(values.length);
  for (let i = 0; i < rest.length; i++) if (values[i] > 0) rest[i] = 1;
  const queue = new Int32Array(rest.length);
  for (let start = rest.indexOf(1); start >= 0; start = rest.indexOf(1, start)) {
    let [left, right, last, end] = [width, 0, 0, 1];
    rest[queue[0] = start] = 0;
    for (let read = 0; read < end; read++) {
      const at = queue[read];
      const x = at % width;
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
      last = Math.max(last, at);
      const [from, to] = [x ? -1 : 0, x < width - 1 ? 1 : 0];
      for (let row = at - width; row <= at + width; row += width) {
        for (let next = row + from; next <= row + to; next++) if (rest[next]) rest[queue[end++] = next] = 0;
      }
    }
    const [top, bottom] = [Math.floor(start / width), Math.floor(last / width) + 1];
    found.push({left, right, top, bottom, pixels: queue.slice(0, end)});
  }
  return found;
}

/** The direction of one long thin line with much of the ink; without one, that in which digits have
 * neighbours. @param {Plane} ink @param {{digits: Box[], high: number}} parts @returns {number} radians */
function slopeOf({width, height, values}, {digits, high}) {
  const all = [];
  for (let i = 0; i < values.length; i++) if (values[i] > 0) all.push(i);
  const every = Math.ceil(all.length / 5000);
  const points = all.filter((_, i) => i % every === 0);
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
      Math.max(most, count - Math.max(bins[i - 4] ?? 0, bins[i + 4] ?? 0)), 0) * every / width;
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
    const [mask, ruled] = [plane(width, height), plane(width, height)];
    for (let i = 0; i < values.length; i++) if (values[i] > 0) mask.values[i] = 1;
    const ink = meansOf(mask);
    const lines = [];
    for (let i = 0; i < values.length; i++) {
      if (!mask.values[i]) continue;
      const share = ink(i % width, Math.floor(i / width), down * thin, across * thin);
      if (share * (2 * thin + 1) <= thin) lines.push(i);
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
