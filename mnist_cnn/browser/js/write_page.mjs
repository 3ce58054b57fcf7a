// The page where a person draws a digit: node write_page.mjs MODULES FOLDER SETTINGS
//
// Adds digits.html, all in one file, and index.html for a server to FOLDER, which holds model.json
// and its shards. SETTINGS: a JSON file {temperature, sure_from, none_below, adapter: {shape, low,
// high, output}, network: which it is, for people}. TensorFlow.js comes from MODULES, the page's
// own files from ../static. Nothing is fetched from elsewhere: a Content-Security-Policy says so.
import {createHash} from 'node:crypto';
import {copyFileSync, readFileSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {library, minified} from './bundle.mjs';

const BINARIES = ['tfjs-backend-wasm.wasm', 'tfjs-backend-wasm-simd.wasm'];
// In this order.
const OWN = ['prepare', 'numbers', 'reading', 'ink', 'view', 'tell', 'photo', 'page'];
const WORKER = ['prepare', 'numbers', 'reading', 'shapes', 'picture'];
const POLICY =
  "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; worker-src blob:; ";

const [modules, folder, settingsFile] = process.argv.slice(2);
const page = join(dirname(fileURLToPath(import.meta.url)), '../static');

const own = (name) => readFileSync(join(page, name), 'utf8');
const joined = (names) =>
  minified(modules, names.map((name) => own(`${name}.js`)).join('\n'), 'js');
const style = minified(modules, own('style.css'), 'css');

const model = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
const paths = model.weightsManifest.flatMap((group) => group.paths);
const shards = Buffer.concat(paths.map((path) => readFileSync(join(folder, path))));
const settings = {...JSON.parse(readFileSync(settingsFile, 'utf8')), format: model.format, model,
  weights: shards.toString('base64')};
const {served, single, wasm, notices} = await library(
  modules, model, new Uint8Array(shards).buffer, settings.adapter.shape);
writeFileSync(join(folder, 'THIRD_PARTY.txt'), notices);

// All stands in the page, so that it works from a file too, and begins without waiting for others.
// The worker is a text, for a file cannot start one from another file. What is long stands first:
// behind it the browser shows the page and runs its script in one go, else it lays out twice.
const hash = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
function write(name, code, policy) {
  const [worker, library, script] = [joined(WORKER), code, joined(OWN)].map(
    (text) => text.replaceAll('</script', '<\\/script'));
  const filled = {
    csp: `${POLICY}style-src ${hash(style)}; script-src ${hash(library)} ${hash(script)}${policy}`,
    settings: JSON.stringify(settings).replaceAll('<', '\\u003c'), // metadata may hold </script>
    notices: notices.replaceAll('--', '- -'),
    style, worker, library, script,
  };
  let html = own('index.html');
  for (const [key, text] of Object.entries(filled)) html = html.replace(`{{${key}}}`, () => text);
  writeFileSync(join(folder, name), html);
}
write('digits.html', single, '');
// What a server gives may fetch WebAssembly, in which the whole TensorFlow.js is fast.
write('index.html', served, wasm ? " 'wasm-unsafe-eval'; connect-src 'self'" : '');
const binaries = join(modules, 'node_modules/@tensorflow/tfjs-backend-wasm/dist');
for (const name of wasm ? BINARIES : []) copyFileSync(join(binaries, name), join(folder, name));
