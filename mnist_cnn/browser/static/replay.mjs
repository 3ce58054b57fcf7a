// node replay.mjs DRAWINGS.json OUTPUT: recorded strokes through the page's own preparation.
// DRAWINGS: a list of {strokes}, or {drawings: [...]}. Writes OUTPUT.prepared.f32: float32,
// 28 × 28 a drawing; all 0 where there is no ink.
import {readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';

const {prepare} = createRequire(import.meta.url)('./prepare.js');
const [source, output] = process.argv.slice(2);
const content = JSON.parse(readFileSync(source, 'utf8'));
const pictures = (content.drawings ?? content).map(
  ({strokes}) => prepare(strokes) ?? new Float32Array(28 * 28));
writeFileSync(`${output}.prepared.f32`, Buffer.concat(pictures.map((p) => Buffer.from(p.buffer))));
