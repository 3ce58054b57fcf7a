// node replay.mjs STROKES.json OUTPUT: recorded strokes through the page's own preparation.
// Writes OUTPUT.prepared.f32 and OUTPUT.shrunk.f32: float32, 28 × 28 a drawing.
import {readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';

const {PAD, rasterise, prepare, shrink} = createRequire(import.meta.url)('./prepare.js');
const [strokes, output] = process.argv.slice(2);
const inks = JSON.parse(readFileSync(strokes, 'utf8')).map((drawing) => rasterise(drawing.strokes));
const write = (name, pictures) =>
  writeFileSync(`${output}.${name}.f32`, Buffer.concat(pictures.map((p) => Buffer.from(p.buffer))));
write('prepared', inks.map((ink) => prepare(ink, PAD, PAD)));
write('shrunk', inks.map(shrink));
