// Draws each dashboard that collect.py has kept answers for: node render.mjs DATA PICTURES
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { build } from 'esbuild';

const [data, pictures] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'dashboards-'));
const CELL = 38, HEAD = 84, GAP = 8, WIDTH = 1600;

await build({
  entryPoints: [new URL('page.tsx', import.meta.url).pathname], outfile: join(folder, 'page.js'), bundle: true, minify: true,
  jsx: 'automatic', loader: { '.svg': 'dataurl', '.ttf': 'empty' }, logLevel: 'error', conditions: ['module'],
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
});
mkdirSync(pictures, { recursive: true });
for (const file of readdirSync(data).filter((name) => name.endsWith('.json'))) {
  const kept = readFileSync(join(data, file), 'utf8');
  const rows = JSON.parse(kept).board.panels.map(({ gridPos }) => gridPos.y + gridPos.h);
  const page = join(folder, `${file}.html`);
  const told = kept.replaceAll('</', '<\\/');
  writeFileSync(page, `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css"><style>body{margin:0}</style><div id="page"></div>
<script>const DATA = ${told};</script><script src="page.js"></script>`);
  execFileSync('chromium', [
    '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--force-device-scale-factor=0.75', '--allow-file-access-from-files',
    `--window-size=${WIDTH},${HEAD + CELL * Math.max(...rows) + GAP}`, '--virtual-time-budget=8000',
    `--screenshot=${join(pictures, `grafana-${basename(file, '.json')}.png`)}`, `file://${page}`,
  ], { stdio: 'inherit', timeout: 120000 });
}
rmSync(folder, { recursive: true });
