// @ts-check
// 'Wrong? Tell me': keeps what was drawn with the digit that a person says it was, and saves all of
// it to a file on their own machine, in the form that evaluate, convert and train read.
'use strict';

/** @type {{digit: number, strokes: {width: number, points: number[][]}[]}[]} digit -1: none */
const told = [];

/** @param {Stroke[]} strokes @param {number} digit */
function tell(strokes, digit) {
  told.push({digit, strokes: strokes.map(({width, points}) =>
    ({width, points: points.map((point) => point.map((value) => Math.round(1000 * value) / 1000))}))});
  const save = /** @type {HTMLAnchorElement} */ (element('save'));
  URL.revokeObjectURL(save.href);
  save.href = URL.createObjectURL(new Blob([JSON.stringify({drawings: told})], {type: 'application/json'}));
  save.textContent = `Save ${told.length} drawing${told.length > 1 ? 's' : ''}`;
  save.hidden = false;
}
