// node score_pictures.mjs PAGE JOBS.json: pictures through the JavaScript of a page, with its library.
// PAGE: digits.html that convert wrote. JOBS: [{file: raw RGBA, width, height}]. Prints one line of
// JSON, a list of {rows: [[{digit, state, at}, ...], ...], milliseconds, drawn}; drawn: milliseconds
// that 40 drawn digits take, each prepared and answered by itself, just after.
import {readFileSync} from 'node:fs';
import vm from 'node:vm';

const [page, jobs] = process.argv.slice(2);
const [settings, worker, library] = [...readFileSync(page, 'utf8').matchAll(/<script[^>]*>([^]*?)<\/script>/g)]
  .map(([, text]) => text);
globalThis.tf = new Function('window', `${library}; return tf`)({document: {}}); // not Node's
const {Reader, prepare, readPicture} = vm.runInThisContext(`${worker}; ({Reader, prepare, readPicture})`);
const reader = new Reader(JSON.parse(settings));
await reader.load();
const strokes = new URL('../mnist_cnn/browser/static/strokes.json', import.meta.url);
const drawings = JSON.parse(readFileSync(strokes, 'utf8')).slice(0, 40);

const pictures = JSON.parse(readFileSync(jobs, 'utf8')).map(({file, width, height}) =>
  [new Uint8ClampedArray(readFileSync(file)), width, height]);
const readAll = () => pictures.map(([pixels, width, height]) => {
  const started = performance.now();
  const rows = readPicture(pixels, width, height, (picture) => reader.read([picture])[0]);
  const milliseconds = performance.now() - started;
  for (const drawing of drawings) reader.read([prepare(drawing.strokes)]);
  return {milliseconds, drawn: performance.now() - started - milliseconds, rows: rows.map((row) => row.map(
    ({answer: {digit, state}, at}) => ({digit, state, at})))};
});
for (let i = 0; i < 3; i++) readAll(); // so that the last time is of compiled code, of both kinds
console.log(JSON.stringify(readAll()));
