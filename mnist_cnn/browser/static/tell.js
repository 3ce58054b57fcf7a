// @ts-check
// 'Wrong? Tell me': keeps what was drawn with the digit that a person says it was, and saves all of
// it to a file on their own machine, in the form that evaluate, convert and train read.
'use strict';

/** @param {Ink} ink */
function listenToTruths(ink) {
  /** @type {{digit: number, strokes: {width: number, points: Point[]}[]}[]} digit -1: none */
  const told = [];
  for (const button of element('truths').querySelectorAll('button')) {
    button.addEventListener('click', () => {
      if (!ink.strokes.length) return;
      told.push({digit: Number(button.value), strokes: ink.strokes.map(({width, points}) => ({
        width,
        points: points.map((point) =>
          /** @type {Point} */ (point.map((value) => Math.round(1000 * value) / 1000))),
      }))});
      const save = /** @type {HTMLAnchorElement} */ (element('save'));
      URL.revokeObjectURL(save.href);
      save.href = URL.createObjectURL(
        new Blob([JSON.stringify({drawings: told})], {type: 'application/json'}));
      save.textContent = `Save ${told.length} drawing${told.length > 1 ? 's' : ''}`;
      save.hidden = false;
      ink.clear();
    });
  }
}
