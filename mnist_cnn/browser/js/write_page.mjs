// The page where a person draws a digit: node write_page.mjs MODULES FOLDER SETTINGS
//
// Adds index.html with its files, and digits.html, all in one, to FOLDER, which holds model.json and
// its shards. SETTINGS: a JSON file {temperature, sure_from, none_below, adapter: {shape, low, high,
// output}, network: which it is, for people}. TensorFlow.js comes from MODULES, the page's own files
// from ../static. Nothing is fetched from elsewhere, and a Content-Security-Policy forbids it.
import {createHash} from 'node:crypto';
import {copyFileSync, readFileSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {library, minified} from './bundle.mjs';

const BINARIES = ['tfjs-backend-wasm.wasm', 'tfjs-backend-wasm-simd.wasm'];
// In this order.
const OWN = ['prepare', 'numbers', 'reading', 'ink', 'view', 'tell', 'photo', 'page'];
const WORKER = ['prepare', 'numbers', 'reading', 'shapes', 'picture'];
const POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; ";

const [modules, folder, settingsFile] = process.argv.slice(2);
const page = join(dirname(fileURLToPath(import.meta.url)), '../static');

const model = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
const settings = {...JSON.parse(readFileSync(settingsFile, 'utf8')), format: model.format, model};
function write(name, filled) {
  let html = readFileSync(join(page, 'index.html'), 'utf8');
  for (const [key, text] of Object.entries(filled)) html = html.replace(`{{${key}}}`, () => text);
  writeFileSync(join(folder, name), html);
}
const own = (name) => readFileSync(join(page, name), 'utf8');
const joined = (names) => minified(modules, names.map((name) => own(`${name}.js`)).join('\n'), 'js');
const [script, worker] = [OWN, WORKER].map(joined);
const style = minified(modules, own('style.css'), 'css');
writeFileSync(join(folder, 'page.js'), script);
writeFileSync(join(folder, 'worker.js'), worker);
writeFileSync(join(folder, 'style.css'), style);

// No "<", or a model's metadata could end the element.
const json = (value) => JSON.stringify(value).replaceAll('<', '\\u003c');

const paths = model.weightsManifest.flatMap((group) => group.paths);
const shards = Buffer.concat(paths.map((path) => readFileSync(join(folder, path))));
const weights = new Uint8Array(shards).buffer;
const {served, single, wasm, notices} = await library(modules, model, weights, settings.adapter.shape);
writeFileSync(join(folder, 'tf.min.js'), served);
for (const name of wasm ? BINARIES : []) {
  copyFileSync(join(modules, 'node_modules/@tensorflow/tfjs-backend-wasm/dist', name), join(folder, name));
}
writeFileSync(join(folder, 'THIRD_PARTY.txt'), notices);

write('index.html', {
  csp: `${POLICY}script-src 'self'${wasm ? " 'wasm-unsafe-eval'" : ''}; style-src 'self'; connect-src 'self'`,
  style: ['<link rel="stylesheet" href="style.css">', ...paths.map((path) =>
    `<link rel="preload" href="${path}" as="fetch" crossorigin>`)].join('\n'),
  settings: json(settings),
  scripts: ['tf.min.js', 'page.js'].map((name) => `<script src="${name}"></script>`).join('\n'),
});

// A file cannot fetch WebAssembly: digits.html computes in plain JavaScript.
// Nor can it start a worker but from a text that it holds.
const [text, ...inline] = [worker, single, script].map((code) => code.replaceAll('</script', '<\\/script'));
const hash = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
write('digits.html', {
  csp: `${POLICY}script-src ${inline.map(hash).join(' ')}; style-src ${hash(style)}; worker-src blob:`,
  style: `<style>${style}</style>`,
  settings: json({...settings, model: {...model, data: shards.toString('base64')}}),
  scripts: `<script id="worker" type="text/plain">${text}</script>\n`
    + inline.map((script) => `<script>${script}</script>`).join('\n')
    + `\n<!--\n${notices.replaceAll('--', '- -')}\n-->`,
});
