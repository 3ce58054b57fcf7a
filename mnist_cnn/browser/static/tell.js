// 'Wrong? Tell me': keeps what was drawn with the digit that a person says it was, and saves all of
// it to a file on their own machine, in the form that evaluate, convert and train read.
'use strict';

const told = []; // [{digit, strokes}], digit -1: no digit

function tell(digit) {
  if (!strokes.length) return;
  told.push({digit, strokes: strokes.map(({width, points}) => ({
    width,
    points: points.map((point) => point.map((value) => Math.round(1000 * value) / 1000)),
  }))});
  const save = element('save');
  URL.revokeObjectURL(save.href);
  save.href = URL.createObjectURL(
    new Blob([JSON.stringify({drawings: told})], {type: 'application/json'}));
  save.textContent = `Save ${told.length} drawing${told.length > 1 ? 's' : ''}`;
  save.hidden = false;
  clear();
}

for (const button of element('truths').querySelectorAll('button')) {
  button.addEventListener('click', () => tell(Number(button.value)));
}
