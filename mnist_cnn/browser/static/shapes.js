// @ts-check
// From ink to its connected parts: the slope of rules or of rows, and the rules taken out.
'use strict';

/** @typedef {Box & {pixels: Int32Array}} Part places in the plane */

const RULE = 0.4; // of the picture's width: a thin line this long is a rule
const THIN = 0.015; // of its longer side: a rule's width at most
const BREAK = 0.04; // of its width: may be missing of a rule, where digits stand on it
const TURN = 45; // degrees, at most, either way
const NEAR = 2.6; // heights from a digit to those that show the slope of its row

/** Connected parts of what is 1, of eight neighbours or of those up to `reach` to the side.
 * @param {Uint8Array} mask used up @param {number} width @param {number} [reach] @returns {Part[]} */
function partsOf(mask, width, reach = 1) {
  const found = [];
  const queue = new Int32Array(mask.length);
  for (let start = mask.indexOf(1); start >= 0; start = mask.indexOf(1, start)) {
    let [left, right, bottom, end] = [width, 0, 0, 1];
    mask[queue[0] = start] = 0;
    for (let read = 0; read < end; read++) {
      const at = queue[read];
      const x = at % width;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (at >= bottom) bottom = at + 1;
      const [from, to] = [Math.max(-x, -reach), Math.min(width - 1 - x, reach)];
      for (let row = at - width; row <= at + width; row += width) {
        for (let next = row + from; next <= row + to; next++) if (mask[next]) mask[queue[end++] = next] = 0;
      }
    }
    const [top, pixels] = [Math.floor(start / width), queue.slice(0, end)];
    found.push({left, right, top, bottom: Math.ceil(bottom / width), pixels});
  }
  return found;
}

/** @param {Float32Array} values @returns {Uint8Array} 1: ink */
function maskOf(values) {
  const mask = new Uint8Array(values.length);
  for (let i = 0; i < mask.length; i++) if (values[i] > 0) mask[i] = 1;
  return mask;
}

/** The direction in which most ink is on one line, if that line is as long and thin as a rule.
 * @param {Plane} ink @returns {number | null} radians */
function slopeOfRules({width, height, values}) {
  /** @type {number[]} */
  const points = [];
  for (let i = 0; i < values.length; i++) if (values[i] > 0) points.push(i);
  const every = Math.ceil(points.length / 15000);
  const [xs, ys] = [[], []].map(() => new Float32Array(Math.floor(points.length / every)));
  xs.forEach((_, i) => {
    xs[i] = points[i * every] % width;
    ys[i] = Math.floor(points[i * every] / width);
  });
  let best = {most: 0, wide: 0, angle: 0};
  for (let degrees = -TURN; degrees <= TURN; degrees += 0.5) {
    const angle = degrees * Math.PI / 180;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const bins = new Float32Array(2 * (width + height)); // each point in two, or 45 degrees win
    for (let i = 0; i < xs.length; i++) {
      const bin = Math.floor(ys[i] * cos - xs[i] * sin + width);
      bins[bin] += 0.5;
      bins[bin + 1] += 0.5;
    }
    let peak = 0;
    for (let bin = 1; bin < bins.length; bin++) if (bins[bin] > bins[peak]) peak = bin;
    const most = bins[peak];
    if (most <= best.most) continue;
    let [low, high] = [peak, peak];
    while (bins[low - 1] > most / 2) low--;
    while (bins[high + 1] > most / 2) high++;
    best = {most, wide: high - low + 1, angle};
  }
  const thin = best.wide <= 2 + THIN * Math.max(width, height);
  return thin && best.most * every > 0.5 * width ? best.angle : null;
}

/** In which direction digits have neighbours. @param {Box[]} boxes @param {number} height of a digit
 * @returns {number} radians */
function slopeOfRows(boxes, height) {
  const pairs = boxes.flatMap((a) => boxes.map((b) => [b.left + b.right - a.left - a.right,
    b.top + b.bottom - a.top - a.bottom].map((away) => away / 2 / height)));
  const near = pairs.filter(([x, y]) => x > 0 && Math.hypot(x, y) < NEAR);
  let best = {score: -Infinity, angle: 0};
  for (let degrees = -TURN; degrees <= TURN; degrees++) {
    const angle = degrees * Math.PI / 180;
    const aside = near.map(([x, y]) => (y * Math.cos(angle) - x * Math.sin(angle)) / 0.25);
    const score = aside.reduce((sum, one) => sum + Math.exp(-(one ** 2)),
      degrees ? -1 - Math.abs(degrees) / 20 : 0);
    if (score > best.score) best = {score, angle};
  }
  return best.angle;
}

/** Removes thin lines that cross much of the picture, except where a stroke crosses them.
 * @param {Plane} ink */
function unrule(ink) {
  const {width, height, values} = ink;
  const thin = 2 + THIN * Math.max(width, height);
  let found = false;
  const runs = [runsOf(values, height, width, width, 1), runsOf(values, width, height, 1, width)];
  for (const [across, length] of [[0, width], [1, height]]) {
    const mask = new Uint8Array(values.length);
    const place = (/** @type {number} */ i, /** @type {number} */ w) =>
      across ? i % w * (values.length / w) + Math.floor(i / w) : i;
    const [long, thick] = [runs[across], runs[1 - across]];
    for (let i = 0; i < mask.length; i++) {
      if (thick[i] && thick[i] <= thin && long[i] >= 3 * thick[i]) mask[place(i, width)] = 1;
    }
    for (const part of partsOf(mask, length, Math.round(Math.max(thin, BREAK * length)))) {
      if (part.right - part.left < RULE * length) continue;
      found = true;
      for (const i of part.pixels) values[place(i, height)] = -1;
    }
  }
  if (!found) return;
  for (const part of partsOf(maskOf(values), width)) {
    if (Math.max(part.right - part.left, part.bottom - part.top) > thin + 4) continue;
    for (const i of part.pixels) values[i] = -1; // where rules cross
  }
}

/** How long the run of ink is that each pixel is in. @param {Float32Array} values
 * @param {number} lines @param {number} length @param {number} line @param {number} step
 * @returns {Uint16Array} */
function runsOf(values, lines, length, line, step) {
  const runs = new Uint16Array(values.length);
  for (let i = 0; i < lines; i++) {
    for (let j = 0, start = 0; j <= length; j++) {
      if (j < length && values[i * line + j * step] > 0) continue;
      for (let k = start; k < j; k++) runs[i * line + k * step] = j - start;
      start = j + 1;
    }
  }
  return runs;
}

/** @param {Box[]} boxes @returns {Box} around all */
function hull(boxes) {
  return {
    left: Math.min(...boxes.map(({left}) => left)), right: Math.max(...boxes.map(({right}) => right)),
    top: Math.min(...boxes.map(({top}) => top)), bottom: Math.max(...boxes.map(({bottom}) => bottom)),
  };
}
