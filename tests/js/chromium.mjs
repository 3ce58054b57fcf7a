// A real Chromium from npm, without a system package.
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {pathToFileURL} from 'node:url';

export async function launch(modules, ...more) {
  const require = createRequire(join(modules, 'here.js'));
  const {chromium: playwright} = require('playwright-core');
  const home = join(modules, 'node_modules/@sparticuz/chromium');
  const main = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')).main ?? 'build/index.js';
  const {default: chromium} = await import(pathToFileURL(join(home, main)).href);
  return playwright.launch({
    executablePath: await chromium.executablePath(),
    args: ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--ignore-gpu-blocklist',
      '--enable-unsafe-swiftshader', ...more],
  });
}
