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
  const rest = values.map((value) => value > 0 ? 1 : 0);
  const queue = new Int32Array(rest.length);
  for (let start = rest.indexOf(1); start >= 0; start = rest.indexOf(1, start)) {
    let [left, right, end] = [width, 0, 1];
    rest[queue[0] = start] = 0;
    let last = start;
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

/** The angle of the highest score. @param {number} step degrees
 * @param {(cos: number, sin: number) => number} score @returns {{angle: number, score: number}} */
function bestAngle(step, score) {
  let best = {angle: 0, score: -Infinity};
  for (let degrees = -TURN; degrees <= TURN; degrees += step) {
    const angle = degrees * Math.PI / 180;
    const one = score(Math.cos(angle), Math.sin(angle));
    if (one > best.score) best = {angle, score: one};
  }
  return best;
}

/** The direction in which most ink is on one line, if that is as long as a rule.
 * @param {Plane} ink @returns {number | null} radians */
function slopeOfRules({width, height, values}) {
  const all = [];
  for (let i = 0; i < values.length; i++) if (values[i] > 0) all.push(i);
  const every = Math.ceil(all.length / 5000);
  const points = all.filter((_, i) => i % every === 0);
  const [xs, ys] = [points.map((i) => i % width), points.map((i) => Math.floor(i / width))];
  const {angle, score} = bestAngle(0.5, (cos, sin) => {
    const bins = new Int16Array(width + height); // of two pixels, or 45 degrees win
    for (let i = 0; i < xs.length; i++) bins[(ys[i] * cos - xs[i] * sin + width) / 2 | 0]++;
    return bins.reduce((most, count, i) =>
      Math.max(most, count - Math.max(bins[i - 4] ?? 0, bins[i + 4] ?? 0)), 0);
  });
  return score * every > 0.75 * width ? angle : null;
}

/** In which direction digits have neighbours.
 * @param {{digits: Box[], high: number}} parts @returns {number} radians */
function slopeOfRows({digits, high}) {
  const pairs = digits.flatMap((a) => digits.map((b) => [b.left + b.right - a.left - a.right,
    b.top + b.bottom - a.top - a.bottom].map((away) => away / 2 / high)));
  const near = pairs.filter(([x, y]) => x > 0 && Math.hypot(x, y) < NEAR);
  return bestAngle(1, (cos, sin) => near.reduce((sum, [x, y]) =>
    sum + Math.exp(-(((y * cos - x * sin) / 0.25) ** 2)), 1.5 * cos)).angle;
}

/** Removes thin lines that cross much of the picture, except where a stroke crosses them.
 * @param {Plane} ink */
function unrule({width, height, values}) {
  const thin = Math.round(2 + THIN * Math.max(width, height));
  for (const [across, down, step, long] of [[1, 0, width, width], [0, 1, 1, height]]) {
    const mask = plane(width, height);
    const ruled = plane(width, height);
    for (let i = 0; i < values.length; i++) if (values[i] > 0) mask.values[i] = 1;
    const ink = meansOf(mask);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (!mask.values[i] || ink(x, y, down * thin, across * thin) * (2 * thin + 1) > thin) continue;
        ruled.values[i] = ruled.values[i - step] = ruled.values[i + step] = 1;
        mask.values[i] = 2;
      }
    }
    const lines = meansOf(ruled);
    const half = Math.round(RULE / 2 * long);
    const share = (/** @type {number} */ x, /** @type {number} */ y) =>
      lines(clamp(x, across * half, width - 1 - across * half),
        clamp(y, down * half, height - 1 - down * half), across * half, down * half);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (mask.values[i] === 2 && Math.max(share(x - across * half, y - down * half), share(x, y),
          share(x + across * half, y + down * half)) > 0.5) values[i] = -1;
      }
    }
  }
}

/** @param {Box[]} boxes @returns {Box} around all */
function hull(boxes) {
  return {
    left: Math.min(...boxes.map(({left}) => left)), right: Math.max(...boxes.map(({right}) => right)),
    top: Math.min(...boxes.map(({top}) => top)), bottom: Math.max(...boxes.map(({bottom}) => bottom)),
  };
}
