// node look.mjs MODULES: steps in a page in a real Chromium, for each line of standard input one page.
// A line: {url, width, height, touch, dark, still, steps: [[name, ...arguments], ...]} as JSON.
// Prints for each one line of JSON: {told, problems}, a list of what each step told, or {error}.
import {readFileSync} from 'node:fs';
import {createInterface} from 'node:readline';
import {launch} from './chromium.mjs';

const browser = await launch(process.argv[2]);

async function visit(job) {
  const context = await browser.newContext({
    viewport: {width: job.width ?? 1280, height: job.height ?? 720},
    deviceScaleFactor: job.scale ?? 1,
    hasTouch: Boolean(job.touch),
    isMobile: Boolean(job.touch),
    colorScheme: job.dark ? 'dark' : 'light',
    reducedMotion: job.still === false ? 'no-preference' : 'reduce',
  });
  const page = await context.newPage();
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (m) => ['error', 'warning'].includes(m.type()) && problems.push(m.text()));
  await page.goto(job.url);
  await page.waitForSelector('#answer[data-ready]', {timeout: 240000});
  const session = await context.newCDPSession(page);
  const settle = () => page.evaluate(() => new Promise((done) =>
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))));

  const does = {
    // Lines of points in units of the pad's shorter side, drawn by mouse or finger.
    async draw(lines, pause = 0, hold = false) {
      const box = await page.locator('#pad').boundingBox();
      const side = Math.min(box.width, box.height);
      for (const points of lines) {
        const placed = points.map(([x, y]) => [box.x + x * side, box.y + y * side]);
        if (job.touch) {
          const touch = (type, points) => session.send('Input.dispatchTouchEvent', {
            type, touchPoints: points.map(([x, y]) => ({x, y}))});
          await touch('touchStart', [placed[0]]);
          for (const point of placed.slice(1)) await touch('touchMove', [point]);
          await touch('touchEnd', []);
        } else {
          await page.mouse.move(...placed[0]);
          await page.mouse.down();
          for (const point of placed.slice(1)) {
            await page.mouse.move(...point);
            if (pause) await page.waitForTimeout(pause);
          }
          if (!hold) await page.mouse.up();
        }
      }
      await settle();
    },
    async press(...keys) {
      for (const key of keys) await page.keyboard.press(key);
      await settle();
    },
    async click(selector) {
      await page.click(selector);
      await settle();
    },
    // A picture, and how it is given; until it is read or refused.
    async give(selector, path, way = 'choose') {
      if (way === 'choose') await page.setInputFiles(selector, path);
      else {
        await page.evaluate(([type, bytes]) => {
          const files = new DataTransfer();
          files.items.add(new File([Uint8Array.from(bytes)], 'given', {type: 'image/png'}));
          dispatchEvent(type === 'drop' ? new DragEvent(type, {dataTransfer: files, cancelable: true})
            : new ClipboardEvent(type, {clipboardData: files}));
        }, [way, [...readFileSync(path)]]);
      }
      await page.waitForSelector('#number:not([data-state=reading])', {state: 'attached'});
      return page.$eval('#number', (e) => ({...e.dataset, text: e.textContent}));
    },
    select: async (selector, value) => void await page.selectOption(selector, value),
    lift: () => page.mouse.up(),
    focus: (selector) => page.focus(selector),
    wait: (milliseconds) => page.waitForTimeout(milliseconds),
    async for(expression) { // waitForFunction would need 'unsafe-eval'
      for (let left = 600; !(await page.evaluate(expression)) && left; left--) {
        await page.waitForTimeout(100);
      }
    },
    shot: async (path, selector) => {
      await settle();
      await (selector ? page.locator(selector) : page).screenshot({path});
    },
    box: (selector) => page.locator(selector).boundingBox(),
    eval: (expression) => page.evaluate(expression),
    data: (selector) => page.$eval(selector, (e) => ({...e.dataset, text: e.textContent})),
    script: (path) => page.evaluate(readFileSync(path, 'utf8')).then(() => null),
    throttle: (rate) => session.send('Emulation.setCPUThrottlingRate', {rate}),
  };
  const told = [];
  for (const [name, ...given] of job.steps) told.push((await does[name](...given)) ?? null);
  await context.close();
  return {told, problems};
}

for await (const line of createInterface({input: process.stdin})) {
  const found = await visit(JSON.parse(line)).catch((error) => ({error: String(error.stack)}));
  console.log(JSON.stringify(found));
}
await browser.close();
