// The live page: pictures of the fleet come as server-sent events, and each is drawn over the one before.
// It is read with fetch, not EventSource, because the admin key goes in a header. Nothing is loaded from elsewhere.
"use strict";

const KEY = "neurogate.admin-key";
const THEME = "neurogate.theme";
const STALE_MS = 3500; // pictures come once a second
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

// What every word looks like: a tone for its colour, and a shape that says the same without one.
const STATES = {
  ready: ["good", "disc", "ready"],
  resting: ["calm", "half", "resting"],
  ejected: ["warn", "up", "ejected"],
  half_open: ["warn", "diamond", "probing"],
  open: ["bad", "bolt", "breaker open"],
  not_ready: ["warn", "ring", "not ready"],
  cordoned: ["calm", "bar", "cordoned"],
  draining: ["calm", "down", "draining"],
  unreachable: ["bad", "cross", "unreachable"],
};
const BREAKERS = { closed: ["good", "closed", "closed"], "half-open": ["warn", "halfway", "half-open"], open: ["bad", "apart", "open"] };
const PHASES = {
  intake: ["idle", "ring", "intake"],
  queue: ["warn", "bar", "queue"],
  pick: ["warn", "diamond", "pick"],
  prefill: ["calm", "half", "prefill"],
  whole: ["calm", "square", "whole answer"],
  decode: ["good", "play", "decode"],
  resume: ["bad", "up", "resume"],
  proxied: ["idle", "square", "proxied"],
};
const KINDS = {
  retry: ["calm", "play", "retry"],
  resume: ["warn", "up", "resumed"],
  broken: ["bad", "bolt", "broken"],
  failure: ["bad", "cross", "failed"],
};
const SHAPES = {
  disc: [["circle", { cx: 6, cy: 6, r: 5 }]],
  ring: [["circle", { cx: 6, cy: 6, r: 4, class: "line" }]],
  half: [["circle", { cx: 6, cy: 6, r: 4, class: "line" }], ["path", { d: "M6 2a4 4 0 0 1 0 8z" }]],
  square: [["rect", { x: 2, y: 2, width: 8, height: 8, rx: 1.5 }]],
  bar: [["rect", { x: 1, y: 4.2, width: 10, height: 3.6, rx: 1 }]],
  up: [["path", { d: "M6 1.2 11 10.5H1z" }]],
  down: [["path", { d: "M6 10.8 1 1.5h10z" }]],
  play: [["path", { d: "M2.5 1.2 10.5 6l-8 4.8z" }]],
  diamond: [["path", { d: "M6 .6 11.4 6 6 11.4.6 6z" }]],
  cross: [["path", { d: "M2 2l8 8M10 2l-8 8", class: "line" }]],
  bolt: [["path", { d: "M7.6.5 2 7h3.4L4.2 11.5 10 5H6.5z" }]],
  closed: [["path", { d: "M.8 6h10.4", class: "line" }]],
  halfway: [["path", { d: "M.8 6h2M5 6h2M9.2 6h2", class: "line" }]],
  apart: [["path", { d: "M.8 6H3.5M3.5 6 8.6 2M8.5 6h2.7", class: "line" }]],
};

const by = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function mark(shape) {
  return drawn("svg", { viewBox: "0 0 12 12", class: "mark", "aria-hidden": "true" }, ...SHAPES[shape].map(([name, attributes]) => drawn(name, attributes)));
}

function word(look, text = look[2]) {
  return element("span", { class: "state", "data-tone": look[0] }, mark(look[1]), text);
}

const look = (looks, name) => looks[name] || ["idle", "ring", String(name)];

// Figures

function number(value, digits = 0) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
const rate = (value) => number(value, value > 0 && value < 10 ? 1 : 0);

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${number(value, value < 10 ? 1 : 0)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} days`;
}

// A minute as a line: the latest point at the right edge, a gap where nobody looked. `top` is the value at the top.
function sparkline(points, top) {
  const width = 118, height = 26, step = width / 59, high = Math.max(top, ...points.map((point) => point || 0), 1);
  const x = (index) => width - (points.length - 1 - index) * step;
  const y = (value) => height - 1 - (value / high) * (height - 3);
  const runs = [];
  let run = null;
  points.forEach((point, index) => {
    if (point === null) { run = null; return; }
    if (run === null) runs.push((run = []));
    run.push([x(index), y(point)]);
  });
  const parts = [drawn("path", { class: "base", d: `M0 ${height - 0.5}H${width}` })];
  for (const each of runs) {
    const line = each.map(([left, low]) => `${left.toFixed(1)} ${low.toFixed(1)}`).join("L");
    parts.push(drawn("path", { class: "area", d: `M${line}L${each.at(-1)[0].toFixed(1)} ${height}L${each[0][0].toFixed(1)} ${height}z` }));
    parts.push(drawn("path", { class: "path", d: `M${line}` }));
  }
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...parts);
}

// Slots one by one while they can be told apart, and as a share beyond.
function bar(busy, total) {
  const parts = [];
  if (total <= 12) {
    const each = 64 / total;
    for (let slot = 0; slot < total; slot++)
      parts.push(drawn("rect", { x: slot * each, y: 0, width: Math.max(each - 1.5, 1), height: 9, rx: 1.5, class: slot < busy ? "full" : "free" }));
  } else {
    parts.push(drawn("rect", { x: 0, y: 0, width: 64, height: 9, rx: 2, class: "free" }));
    parts.push(drawn("rect", { x: 0, y: 0, width: 64 * Math.min(1, busy / total), height: 9, rx: 2, class: "full" }));
  }
  return drawn("svg", { viewBox: "0 0 64 9", preserveAspectRatio: "none", "aria-hidden": "true" }, ...parts);
}

// Tables: rows keep their place in the document by key, so that focus and what is unfolded survive each picture.

class Table {
  constructor(name, columns, { sort, down, details }) {
    this.body = by(`${name}-table`).tBodies[0];
    this.empty = by(`${name}-empty`);
    this.name = name;
    this.columns = columns;
    this.details = details;
    this.sort = sort;
    this.down = down;
    this.rows = new Map();
    this.items = [];
    const head = by(`${name}-table`).tHead.rows[0];
    this.heads = columns.map((column) => {
      const button = element("button", { type: "button" }, column.title);
      button.addEventListener("click", () => this.sortBy(column));
      const cell = element("th", { scope: "col", class: column.number ? "number" : undefined }, button);
      head.append(cell);
      return cell;
    });
    this.tellSort();
  }

  sortBy(column) {
    this.down = this.sort === column.id ? !this.down : Boolean(column.number);
    this.sort = column.id;
    this.tellSort();
    this.order();
    say(`Sorted by ${column.title}, ${this.down ? "descending" : "ascending"}.`);
  }

  tellSort() {
    this.columns.forEach((column, index) => {
      if (column.id === this.sort) this.heads[index].setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else this.heads[index].removeAttribute("aria-sort");
    });
  }

  show(items, context) {
    this.items = items;
    const gone = new Set(this.rows.keys());
    for (const item of items) {
      const key = this.columns[0].key(item);
      gone.delete(key);
      let row = this.rows.get(key);
      if (row === undefined) this.rows.set(key, (row = this.make(key)));
      row.item = item;
      this.columns.forEach((column, index) => fill(row.cells[index], column, item, context));
      if (row.fold !== null) this.unfold(row);
    }
    for (const key of gone) {
      const row = this.rows.get(key);
      row.line.remove();
      if (row.fold !== null) row.fold.remove();
      this.rows.delete(key);
    }
    this.empty.hidden = items.length > 0;
    this.order();
  }

  make(key) {
    const line = element("tr", { class: "row" });
    const row = { key, line, fold: null, item: null, cells: [] };
    this.columns.forEach((column, index) => {
      const classes = [column.number ? "number" : "", column.place || ""].join(" ").trim();
      const cell = element(index ? "td" : "th", { class: classes || undefined, "data-label": column.title, scope: index ? undefined : "row" });
      let inside = cell;
      if (index === 0) {
        inside = element("button", { type: "button", class: "open", "aria-expanded": "false" });
        inside.addEventListener("click", () => this.toggle(row));
        cell.append(inside);
      }
      row.cells.push({ inside, shown: undefined });
      line.append(cell);
    });
    this.body.append(line);
    return row;
  }

  toggle(row) {
    const button = row.cells[0].inside;
    if (row.fold !== null) {
      row.fold.remove();
      row.fold = null;
    } else {
      const id = `${this.name}-${row.key}-details`.replace(/[^\w-]/g, "-");
      row.fold = element("tr", { class: "details", id }, element("td", { colspan: this.columns.length }));
      row.line.after(row.fold);
      button.setAttribute("aria-controls", id);
      this.unfold(row);
    }
    button.setAttribute("aria-expanded", String(row.fold !== null));
  }

  unfold(row) {
    this.details(row.item, row.fold.firstChild);
  }

  order() {
    const column = this.columns.find((each) => each.id === this.sort);
    const sorted = [...this.items].sort((one, other) => compare(column.value(one), column.value(other)) || compare(this.columns[0].key(one), this.columns[0].key(other)));
    if (this.down) sorted.reverse();
    let before = null;
    for (const item of sorted) {
      const row = this.rows.get(this.columns[0].key(item));
      const wanted = before === null ? this.body.firstChild : before.nextSibling;
      if (row.line !== wanted) {
        const focused = row.line.contains(document.activeElement) ? document.activeElement : null;
        if (before === null) this.body.prepend(row.line); else before.after(row.line);
        if (row.fold !== null) row.line.after(row.fold);
        if (focused !== null) focused.focus({ preventScroll: true });
      }
      before = row.fold || row.line;
    }
  }
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
}

// A cell is drawn again only when what it shows has changed.
function fill(cell, column, item, context) {
  const shown = JSON.stringify(column.shows ? column.shows(item, context) : column.value(item));
  if (cell.shown === shown) return;
  cell.shown = shown;
  const made = column.draw ? column.draw(item, context) : String(column.value(item));
  cell.inside.replaceChildren(...(Array.isArray(made) ? made : [made]));
}

function facts(pairs) {
  const list = element("dl", { class: "facts" });
  for (const [name, value, wide] of pairs) {
    if (value === "" || value === null || value === undefined) continue;
    list.append(element("div", { class: wide ? "wide" : undefined }, element("dt", {}, name), element("dd", {}, value)));
  }
  return list;
}

function redraw(place, content) {
  const shown = content.textContent;
  if (place.dataset.shown === shown) return;
  place.dataset.shown = shown;
  place.replaceChildren(content);
}

const name = (text) => element("span", { class: "name", title: text }, text);
const cut = (text) => element("span", { class: "cut", title: text }, text || "–");

// Workers

const STATE_ORDER = Object.keys(STATES);
const workers = new Table(
  "workers",
  [
    { id: "id", title: "Worker", key: (worker) => `${worker.id} ${worker.address}`, value: (worker) => worker.id, draw: (worker) => name(worker.id) },
    { id: "state", title: "State", place: "first-line", value: (worker) => STATE_ORDER.indexOf(worker.state), shows: (worker) => [worker.state, worker.why], draw: stateOf },
    { id: "breaker", title: "Breaker", value: (worker) => worker.breaker, draw: (worker) => word(look(BREAKERS, worker.breaker)) },
    { id: "slots", title: "Slots", number: true, value: (worker) => worker.slots_busy / (worker.slots_total || 1), shows: (worker) => [worker.slots_busy, worker.slots_total],
      draw: (worker) => (worker.slots_total ? element("span", { class: "bar" }, bar(worker.slots_busy, worker.slots_total), element("b", {}, `${worker.slots_busy}/${worker.slots_total}`)) : "–") },
    { id: "in_flight", title: "In flight", number: true, value: (worker) => worker.in_flight },
    { id: "queued", title: "Queued", number: true, value: (worker) => worker.queued },
    { id: "tokens", title: "Tokens/s", number: true, place: "whole-line", value: (worker) => worker.tokens_per_s, shows: (worker, top) => [worker.history, top],
      draw: (worker, top) => element("span", { class: "trend" }, element("span", { class: "spark" }, sparkline(worker.history, top)), element("b", {}, rate(worker.tokens_per_s))) },
    { id: "model", title: "Model", value: (worker) => worker.models[0] || "", draw: (worker) => cut(worker.models[0]) },
    { id: "seen", title: "Report", number: true, value: (worker) => (worker.reported_s === null ? 1e9 : worker.reported_s),
      shows: (worker) => age(worker.reported_s), draw: (worker) => age(worker.reported_s) },
  ],
  { sort: "id", down: false, details: workerDetails },
);

function stateOf(worker) {
  const state = word(look(STATES, worker.state));
  if (!worker.why || worker.state === "ready") return state;
  return element("span", { class: "reason" }, state, element("span", { class: "cut quiet", title: worker.why }, worker.why));
}

const age = (value) => (value === null ? "never" : value < 1.5 ? "now" : `${seconds(value)} ago`);

function workerDetails(worker, place) {
  const models = worker.models.join(", ") + (worker.models_more ? ` and ${worker.models_more} more` : "");
  const engine = [worker.engine, worker.engine_version].filter(Boolean).join(" ");
  redraw(place, facts([
    ["Why", worker.why, true],
    ["Address", worker.address],
    ["Failures in a row", String(worker.failures)],
    ["Running on its engine", String(worker.running)],
    ["KV cache", worker.kv_used === null ? "not told" : `${number(worker.kv_used * 100)} % used`],
    ["Engine", engine || "not told"],
    ["Engine restarts", String(worker.engine_restarts)],
    ["Version", worker.version],
    ["Up for", worker.uptime_s ? seconds(worker.uptime_s) : ""],
    ["Leaves", worker.leaving ? "it was removed, and finishes what it holds" : ""],
    ["Models", models, true],
    ["Its engine's last words", worker.last_words ? element("pre", { class: "mono" }, worker.last_words) : "", true],
  ]));
}

// Requests

const PHASE_ORDER = Object.keys(PHASES);
const requests = new Table(
  "requests",
  [
    { id: "id", title: "Request", key: (request) => `${request.number} ${request.id}`, value: (request) => request.id, draw: (request) => element("span", { class: "name mono", title: request.id }, request.id) },
    { id: "phase", title: "Phase", place: "first-line", value: (request) => PHASE_ORDER.indexOf(request.phase), draw: (request) => word(look(PHASES, request.phase)) },
    { id: "age", title: "Age", number: true, value: (request) => request.age_s, shows: (request) => seconds(request.age_s), draw: (request) => seconds(request.age_s) },
    { id: "worker", title: "Worker", value: (request) => request.worker, draw: (request) => cut(request.worker) },
    { id: "attempts", title: "Attempts", number: true, value: (request) => request.attempts },
    { id: "tokens", title: "Tokens", number: true, value: (request) => request.tokens, draw: (request) => (request.stream ? number(request.tokens) : "–") },
    { id: "model", title: "Model", value: (request) => request.model, draw: (request) => cut(request.model || "default") },
  ],
  { sort: "age", down: true, details: requestDetails },
);

function requestDetails(request, place) {
  redraw(place, facts([
    ["Path", element("span", { class: "mono" }, request.path)],
    ["Key", request.key_id || "none"],
    ["Answer", request.phase === "intake" || request.phase === "queue" ? "" : request.stream ? "streamed" : "whole"],
    ["Resumed", request.resumes ? `${request.resumes} ×` : "never"],
    ["Id", element("span", { class: "mono" }, request.id)],
  ]));
}

// Recent events

// A worker's state is told by its own shape, everything else by its kind's.
function happened(happening) {
  if (happening.kind !== "worker") return [word(look(KINDS, happening.kind)), happening.reason.replaceAll("_", " ")];
  const [state, ...why] = happening.reason.split(": ");
  return [word(look(STATES, state)), why.join(": ")];
}

function showRecent(happenings, now) {
  by("recent-empty").hidden = happenings.length > 0;
  by("recent-list").replaceChildren(...happenings.map((happening) => {
    const times = happening.count > 1 ? ` × ${happening.count}` : "";
    const [kind, reason] = happened(happening);
    const line = element("li", {},
      kind,
      element("span", { class: "what" }, [happening.worker, reason].filter(Boolean).join(": ") + times),
      element("time", { class: "when", datetime: new Date(happening.at * 1000).toISOString() }, age(Math.max(0, now - happening.at))));
    if (happening.request_id) line.append(element("span", { class: "which mono" }, happening.request_id));
    return line;
  }));
}

// The picture

function text(id, value) {
  const place = by(id);
  if (place.textContent !== value) place.textContent = value;
}

function showFleet(picture) {
  const fleet = picture.fleet;
  const well = (fleet.states.ready || 0) + (fleet.states.resting || 0);
  by("workers-figure").replaceChildren(String(well), element("small", {}, ` of ${fleet.workers} well`));
  by("workers-note").replaceChildren(...STATE_ORDER.filter((state) => fleet.states[state]).map((state) =>
    element("span", { class: "chip", "data-tone": STATES[state][0] }, mark(STATES[state][1]), `${fleet.states[state]} ${STATES[state][2]}`)));
  text("in-flight-figure", number(fleet.in_flight));
  text("in-flight-note", fleet.queued ? `${number(fleet.queued)} wait for a turn` : "nobody waits");
  text("requests-figure", rate(fleet.requests_per_s));
  text("tokens-figure", rate(fleet.tokens_per_s));
  text("tokens-note", "all workers");
  if (fleet.ttft_p50_s === null) text("ttft-figure", "–");
  else by("ttft-figure").replaceChildren(seconds(fleet.ttft_p50_s), element("small", {}, " median"));
  text("ttft-note", fleet.ttft_p95_s === null ? "no stream in the last minute" : `95 % within ${seconds(fleet.ttft_p95_s)}, last minute`);
  by("in-flight-spark").replaceChildren(sparkline(fleet.in_flight_history, 0));
  by("requests-spark").replaceChildren(sparkline(fleet.requests_history, 0));
  by("tokens-spark").replaceChildren(sparkline(fleet.tokens_history, 0));
}

let told = new Map();

function announce(picture) {
  const news = [];
  const now = new Map();
  for (const worker of picture.workers) {
    now.set(worker.id, worker.state);
    const before = told.get(worker.id);
    const calm = new Set(["resting", "ready"]);
    if (before !== undefined && before !== worker.state && !(calm.has(before) && calm.has(worker.state)))
      news.push(`${worker.id} is ${look(STATES, worker.state)[2]}`);
  }
  told = now;
  if (news.length) say(`${news.slice(0, 5).join(", ")}${news.length > 5 ? `, and ${news.length - 5} more changed` : ""}.`);
}

function say(words) {
  by("said").textContent = words;
}

function show(picture) {
  text("gateway", `${picture.gateway} · ${picture.version} · up ${seconds(picture.uptime_s)}`);
  document.title = `${picture.fleet.in_flight} in flight · NeuroGate`;
  showFleet(picture);
  const fastest = Math.max(0, ...picture.workers.flatMap((worker) => worker.history.map((point) => point || 0)));
  workers.show(picture.workers, fastest);
  text("workers-count", picture.workers_more ? `${picture.workers.length} of ${picture.fleet.workers}` : String(picture.fleet.workers));
  requests.show(picture.requests);
  text("requests-count", picture.requests_more ? `the oldest ${picture.requests.length} of ${number(picture.fleet.in_flight)}` : String(picture.fleet.in_flight));
  showRecent(picture.recent, picture.at);
  announce(picture);
  if (picture.draining) tellLink("calm", "down", "draining");
  else if (!picture.ready) tellLink("warn", "ring", "not ready");
  else tellLink("good", "disc", "live");
}

// The line to the gateway

let lastAt = 0; // when the last picture came
let stopReading = null;
let trouble = "";

function tellLink(tone, shape, words) {
  const chip = by("link");
  if (chip.dataset.tone === tone && chip.textContent === words) return;
  chip.dataset.tone = tone;
  chip.replaceChildren(mark(shape), words);
}

function tellStale() {
  const stale = lastAt > 0 && Date.now() - lastAt > STALE_MS;
  const broken = trouble !== "" && (stale || lastAt === 0);
  document.body.classList.toggle("stale", stale);
  const banner = by("banner");
  if (!stale && !broken) {
    banner.hidden = true;
    return;
  }
  // How old it is changes every second: beside the alert, which would be read out each time.
  tellLink("bad", "cross", lastAt ? `${seconds(Math.round((Date.now() - lastAt) / 1000))} old` : "no picture");
  const words = `${lastAt ? "What you see is old. " : ""}${trouble || "The gateway says nothing"}; trying again.`;
  if (banner.textContent !== words) banner.textContent = words;
  banner.hidden = false;
}

async function watch() {
  for (let failures = 0; ; ) {
    if (document.hidden) await once(document, "visibilitychange"); // nobody looks
    try {
      const before = lastAt;
      await readOn();
      trouble = "The gateway ended the connection";
      if (lastAt !== before) failures = 0;
    } catch (error) {
      if (error instanceof KeyError) {
        await askForKey(error.message);
        failures = 0;
        continue;
      }
      if (!document.hidden) trouble = error instanceof ToldError ? error.message : "The gateway does not answer";
    }
    tellStale();
    const wait = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
    await new Promise((go) => setTimeout(go, document.hidden ? 0 : wait * (0.75 + Math.random() / 2)));
  }
}

class KeyError extends Error {}
class ToldError extends Error {}

async function readOn() {
  const key = sessionStorage.getItem(KEY);
  const reading = new AbortController();
  stopReading = () => reading.abort();
  let alive = setTimeout(stopReading, 10_000);
  try {
    const answer = await fetch("dashboard/events", { headers: key ? { Authorization: `Bearer ${key}` } : {}, cache: "no-store", signal: reading.signal });
    if (answer.status === 401) throw new KeyError(key ? "This is no admin key of this gateway." : "");
    if (!answer.ok) throw new ToldError((await answer.json()).message || `The gateway answered with ${answer.status}`);
    by("forget").hidden = !key;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(alive);
      alive = setTimeout(stopReading, 10_000);
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const event of events.slice(-1)) take(event); // of several that came at once, the latest
    }
  } finally {
    clearTimeout(alive);
    reading.abort();
  }
}

function take(event) {
  const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
  if (!data) return;
  lastAt = Date.now();
  trouble = "";
  show(JSON.parse(data));
  tellStale();
}

const once = (target, event) => new Promise((go) => target.addEventListener(event, go, { once: true }));

document.addEventListener("visibilitychange", () => {
  if (document.hidden && stopReading !== null) stopReading();
});
setInterval(tellStale, 1000);

// The key

async function askForKey(problem) {
  const dialog = by("ask");
  sessionStorage.removeItem(KEY);
  by("forget").hidden = true;
  by("ask-problem").textContent = problem;
  by("ask-problem").hidden = !problem;
  tellLink("warn", "bar", "key needed");
  if (!dialog.open) dialog.showModal();
  by("ask-key").focus();
  await once(by("ask-form"), "submit");
  sessionStorage.setItem(KEY, by("ask-key").value.trim());
  by("ask-key").value = "";
  dialog.close();
}

by("ask-form").addEventListener("submit", (event) => event.preventDefault());
by("ask").addEventListener("cancel", (event) => event.preventDefault()); // there is nothing to see without it
by("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});

// The theme

const THEMES = { auto: ["Auto", "as the system has them"], light: ["Light", "light"], dark: ["Dark", "dark"] };

function showTheme(theme) {
  const [title, words] = THEMES[theme];
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  by("theme").textContent = title;
  by("theme").setAttribute("aria-label", `Colours: ${words}`);
}

by("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(localStorage.getItem(THEME) || "auto") + 1) % names.length];
  localStorage.setItem(THEME, next);
  showTheme(next);
});

showTheme(localStorage.getItem(THEME) in THEMES ? localStorage.getItem(THEME) : "auto");
tellLink("idle", "ring", "connecting");
watch();
