// Recorded drawings, checked and prepared as the page does: node drawings.mjs DRAWINGS.json IMAGES
//
// Writes float32 images, 28 × 28 each; standard output gets {labels, writers} or {error}.
import {readFileSync, statSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';

const {prepare} = createRequire(import.meta.url)('../static/prepare.js');
const [LARGEST, MOST, LONGEST] = [64 * 2 ** 20, 100000, 20000]; // bytes, drawings, points of one

const isNumber = (x) => typeof x === 'number' && Math.abs(x) <= 100;
const isPoint = (point) => Array.isArray(point) && point.length === 2 && point.every(isNumber);
const isStroke = (stroke) => Array.isArray(stroke?.points) && stroke.points.every(isPoint);

function read(file) {
  if (statSync(file).size > LARGEST) throw new Error(`it has more than ${LARGEST} bytes`);
  const content = JSON.parse(readFileSync(file, 'utf8'));
  const drawings = content?.drawings ?? content;
  if (!Array.isArray(drawings) || !drawings.length || drawings.length > MOST) {
    throw new Error(`it holds no list of 1 to ${MOST} drawings`);
  }
  drawings.forEach((drawing, i) => {
    const {digit, strokes} = drawing ?? {};
    if (!Number.isInteger(digit) || digit < -1 || digit > 9) {
      throw new Error(`the digit of drawing ${i} is no whole number from -1 to 9`);
    }
    if (!Array.isArray(strokes) || !strokes.every(isStroke)) {
      throw new Error(`the strokes of drawing ${i} hold no lists of points [x, y]`);
    }
    const points = strokes.reduce((sum, stroke) => sum + stroke.points.length, 0);
    if (!points || points > LONGEST) throw new Error(`drawing ${i} has not 1 to ${LONGEST} points`);
  });
  return drawings;
}

const [source, target] = process.argv.slice(2);
let told;
let images = [];
try {
  const drawings = read(source);
  images = drawings.map(({strokes}) => Buffer.from(prepare(strokes).buffer));
  told = {
    labels: drawings.map(({digit}) => digit),
    writers: drawings.map(({writer, hand}) => String(writer ?? hand ?? '').slice(0, 100)),
  };
} catch (error) {
  told = {error: error.message};
}
writeFileSync(target, Buffer.concat(images));
console.log(JSON.stringify(told));
