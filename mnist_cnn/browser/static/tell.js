// @ts-check
// 'Wrong? Tell me': keeps what was drawn with the digit that a person says it was, and saves all of
// it to a file on their own machine, in the form that evaluate, convert and train read.

/** @type {{digit: number, strokes: {width: number, points: number[][]}[]}[]} digit -1: none */
const told = [];

/** @param {Stroke[]} strokes @param {number} digit */
function tell(strokes, digit) {
  const rounded = (/** @type {Point} */ point) => point.map((at) => Math.round(1000 * at) / 1000);
  const kept = strokes.map(({width, points}) => ({width, points: points.map(rounded)}));
  told.push({digit, strokes: kept});
  URL.revokeObjectURL(element('save').href);
  const href = URL.createObjectURL(new Blob([JSON.stringify({drawings: told})]));
  const textContent = `Save ${told.length} drawing${told.length > 1 ? 's' : ''}`;
  Object.assign(element('save'), {href, textContent, hidden: false});
}
