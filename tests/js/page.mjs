// node page.mjs JOBS.json: the page in a real Chromium, by mouse, touch and keys, visit by visit.
// JOBS: {modules, visits: [{url, drawings, touch, width, dark, truth, screenshot}]}. Prints one line
// of JSON, a list of what each visit saw.
import {readFileSync} from 'node:fs';
import {launch} from './chromium.mjs';

const jobs = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const browser = await launch(jobs.modules);

async function visit(job) {
  const context = await browser.newContext({
    viewport: {width: job.width ?? 900, height: 720},
    hasTouch: Boolean(job.touch),
    colorScheme: job.dark ? 'dark' : 'light',
  });
  const page = await context.newPage();
  const told = {problems: [], requests: [], answers: []};
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) told.problems.push(message.text());
  });
  page.on('pageerror', (error) => told.problems.push(String(error)));
  page.on('request', (request) => told.requests.push(request.url().slice(0, 200)));

  await page.goto(job.url);
  await page.waitForSelector('#answer[data-ready]', {timeout: 240000});
  const answer = () => page.$eval('#answer', (e) => ({...e.dataset, text: e.textContent}));
  const settle = () => page.evaluate(() => new Promise((done) =>
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))));
  await settle();
  told.opened = await answer();

  const box = await page.locator('#pad').boundingBox();
  const session = await context.newCDPSession(page);
  const send = (mouse, touch, [x, y]) => {
    const at = {x: box.x + x * box.width, y: box.y + y * box.height};
    return job.touch
      ? session.send('Input.dispatchTouchEvent',
        {type: touch, touchPoints: touch === 'touchEnd' ? [] : [at]})
      : session.send('Input.dispatchMouseEvent',
        {type: mouse, ...at, button: 'left', buttons: 1, clickCount: 1});
  };
  for (const {digit, strokes} of job.drawings) {
    await page.click('#clear');
    await settle();
    const cleared = (await answer()).state;
    for (const {points} of strokes) {
      // Not one by one: a move waits for a frame, but several may come in one.
      await Promise.all([
        send('mousePressed', 'touchStart', points[0]),
        ...points.slice(1).map((point) => send('mouseMoved', 'touchMove', point)),
        send('mouseReleased', 'touchEnd', points.at(-1)),
      ]);
    }
    await settle();
    told.answers.push({drawn: digit, cleared, ...(await answer())});
  }
  if (job.truth !== undefined) {
    await page.click('#tell summary');
    await page.click(`#truths button[value="${job.truth}"]`);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
    told.saved = readFileSync(await download.path(), 'utf8');
  }
  if (job.screenshot) await page.screenshot({path: job.screenshot});

  // Keys: a vertical line, taken back, drawn again and cleared.
  await page.click('#clear');
  await page.focus('#pad');
  const press = async (...keys) => { for (const key of keys) await page.keyboard.press(key); };
  const line = [' ', ...Array(9).fill('ArrowDown'), ' '];
  await press(...Array(5).fill('ArrowUp'), ...line);
  await settle();
  told.keys = await answer();
  await press('Control+z');
  await settle();
  told.undone = await answer();

  told.evaluated = await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'window.injected = true';
    document.body.append(script);
    return Boolean(window.injected);
  }).catch(() => false);
  told.fetched = await page.evaluate(() =>
    fetch('https://example.org/').then(() => true, () => false));
  told.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  told.version = browser.version();
  await context.close();
  return told;
}

const told = [];
for (const job of jobs.visits) told.push(await visit(job));
await browser.close();
console.log(JSON.stringify(told));
