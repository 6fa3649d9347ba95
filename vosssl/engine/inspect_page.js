"use strict";
// Draws the report that Python left in the element #report. Text from outside only ever becomes textContent.

const SVG = "http://www.w3.org/2000/svg"; // the name of the language, never fetched
const SVG_TAGS = new Set(["svg", "path", "line", "rect"]);
const SERIES_COLORS = ["#3b82f6", "#ea7317", "#12a150", "#b54bd6", "#d6336c", "#7a8a00"];
const DASHES = ["", "6 4", "2 4", "10 3 2 3"];
const TRACK_HEIGHT = 26, STRIP = 6; // pixels of a timeline row, and of its strip of matched objects

const report = JSON.parse(document.getElementById("report").textContent);
const byId = (id) => document.getElementById(id);
const shownValue = (value) => (value === null || value === undefined ? "-" : value.toFixed(2));

function make(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function swatch(color) {
  const node = make("span", { class: "swatch", "aria-hidden": "true" });
  node.style.background = color;
  return node;
}

function objectName(id) {
  return id > 0 ? `object ${id}` : id === 0 ? "background" : "nothing";
}

// Stretches of equal values: frames from <= t < to.
function runs(values) {
  const found = [];
  values.forEach((id, t) => {
    const last = found.at(-1);
    if (last && last.id === id) last.to = t + 1;
    else found.push({ id, from: t, to: t + 1 });
  });
  return found;
}

// One sprite sheet, decoded when first needed.
class Sheet {
  constructor(sheet) { Object.assign(this, sheet); this.image = null; }
  async load() {
    if (!this.image) { this.image = new Image(); this.image.src = this.url; }
    await this.image.decode().catch(() => {});
  }
  get ready() { return this.image !== null && this.image.naturalWidth > 0; }
  draw(context, column, row) {
    const { width, height } = this, { canvas } = context;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.image, column * width, row * height, width, height, 0, 0, canvas.width, canvas.height);
  }
  drawFrame(context, t) { this.draw(context, t % this.columns, Math.floor(t / this.columns)); }
}

class ClipView {
  constructor(clip, index) {
    this.clip = clip;
    this.length = clip.frameNumbers.length;
    this.frame = 0;
    this.alone = null; // the slot shown alone, or null
    this.timer = null;
    this.loaded = false;
    this.sheets = {};
    for (const name of ["frames", "predicted", "truth", "masks", "attention"]) {
      if (clip[name]) this.sheets[name] = new Sheet(clip[name]);
    }
    this.cursors = [];
    this.legend = [];
    this.tiles = [];
    this.root = make("article", { id: `clip-${index}`, "aria-labelledby": `clip-${index}-name`, tabindex: "-1" });
    const stage = make("div", { class: "stage" }, this.views());
    if (this.sheets.masks) stage.append(this.slots());
    this.root.append(this.heading(index), this.player(), stage);
    const panels = make("div", { class: "panels" }, this.timeline());
    if (Object.keys(clip.frameMetrics).length) panels.append(this.chart());
    this.root.append(panels);
  }

  heading(index) {
    const name = make("h3", { id: `clip-${index}-name` }, this.clip.name);
    const chips = make("div", { class: "chips" });
    for (const [metric, value] of Object.entries(this.clip.metrics)) {
      chips.append(make("span", {}, `${metric} `, make("b", {}, shownValue(value))));
    }
    if (this.clip.matched) chips.append(make("span", {}, "switches ", make("b", {}, `${this.clip.switches.length}`)));
    const top = make("a", { href: "#overview" }, "overview");
    return make("header", {}, name, chips, make("span", { class: "note" }, this.clip.note), top);
  }

  player() {
    this.play = make("button", { type: "button", "aria-pressed": "false" }, "Play");
    this.slider = make("input", {
      type: "range", min: "0", max: `${this.length - 1}`, step: "1", value: "0", "aria-label": `Frame of ${this.clip.name}`,
    });
    this.output = make("output");
    this.play.addEventListener("click", () => this.toggle());
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    return make("div", { class: "player" }, this.play, this.slider, this.output);
  }

  canvas(width, height, label) {
    const node = make("canvas", { width, height, role: "img", "aria-label": label });
    if (width < 200) node.classList.add("blocks"); // small frames stay as crisp as they are
    return node;
  }

  views() {
    const { width, height } = this.clip.frames;
    this.panes = {};
    const row = make("div", { class: width < 200 ? "views small" : "views" });
    for (const [name, caption] of [["input", "input"], ["truth", "truth"], ["overlay", "model"]]) {
      if (name === "truth" && !this.sheets.truth) continue;
      const canvas = this.canvas(width, height, `${caption} of ${this.clip.name}`);
      const text = make("figcaption", {}, caption);
      this.panes[name] = { context: canvas.getContext("2d"), text };
      row.append(make("figure", {}, canvas, text));
    }
    return row;
  }

  slots() {
    const grid = make("div", { class: "slots" });
    const { width, height } = this.clip.masks;
    this.clip.slotNames.forEach((name, k) => {
      const canvas = this.canvas(width, height, `picture of ${name}`);
      canvas.classList.add("blocks");
      const area = make("span", { class: "area" }), held = make("span", { class: "held" });
      const button = make("button", { type: "button", class: "slot", "aria-pressed": "false" }, canvas,
        make("div", {}, swatch(this.clip.slotColors[k]), area), held);
      button.addEventListener("click", () => { this.alone = this.alone === k ? null : k; this.show(this.frame); });
      this.tiles.push({ canvas, area, held, button });
      grid.append(button);
    });
    this.slotTitle = make("h4");
    return make("div", { class: "side" }, this.slotTitle, grid);
  }

  // The picture of time under the pointer: frame t covers [t, t + 1] of the width.
  seekable(svg) {
    const seek = (event) => {
      const box = svg.getBoundingClientRect();
      this.show(Math.floor(((event.clientX - box.left) / box.width) * this.length));
    };
    svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); seek(event); });
    svg.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
    const cursor = make("line", { class: "cursor", y1: 0, y2: svg.viewBox.baseVal.height });
    this.cursors.push(cursor);
    svg.append(cursor);
    return svg;
  }

  timeline() {
    const { areas, matched, switches } = this.clip;
    const panel = make("div", {}, make("h4", {}, 
      `Area over time (square-root scale)${matched ? ", and matched object" : ""}`));
    const largest = Math.max(1e-6, ...areas.flat());
    areas.forEach((area, k) => panel.append(this.track(area, k, largest)));
    if (!areas.length) panel.append(make("p", { class: "note" }, "Nothing was predicted."));
    const events = make("ul", { class: "events", "aria-label": "Identity switches" });
    for (const item of switches) {
      const button = make("button", { type: "button" }, item.text);
      button.addEventListener("click", () => this.show(item.frame));
      events.append(make("li", {}, button));
    }
    if (switches.length) panel.append(events);
    return panel;
  }

  track(area, k, largest) {
    const { matched, objectColors, slotColors, slotNames, switches } = this.clip;
    const svg = make("svg", {
      viewBox: `0 0 ${this.length} ${TRACK_HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true",
    });
    const floor = TRACK_HEIGHT - STRIP - 1;
    const height = (value) => floor * (1 - Math.sqrt(value / largest)); // small objects stay visible
    const steps = area.map((value, t) => `V ${height(value).toFixed(2)} H ${t + 1}`).join(" ");
    svg.append(make("path", { d: `M 0 ${floor} ${steps} V ${floor} Z`, fill: slotColors[k] }));
    for (const { id, from, to } of runs(matched ? matched[k] : [])) {
      if (id < 0) continue;
      const y = TRACK_HEIGHT - STRIP;
      svg.append(make("rect", { x: from, y, width: to - from, height: STRIP, fill: objectColors[id] }));
    }
    for (const item of switches) {
      if (item.slot === k) svg.append(make("line", { class: "switch", x1: item.frame, x2: item.frame, y1: 0, y2: TRACK_HEIGHT }));
    }
    const name = make("span", {}, swatch(slotColors[k]), slotNames[k]);
    return make("div", { class: "track" }, name, this.seekable(svg), make("span", { class: "held" }, this.mostHeld(k)));
  }

  mostHeld(k) {
    if (!this.clip.matched) return `${(100 * Math.max(...this.clip.areas[k])).toFixed(0)} % at most`;
    const counts = new Map();
    for (const id of this.clip.matched[k]) if (id >= 0) counts.set(id, (counts.get(id) ?? 0) + 1);
    const [id, count] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [-1, 0];
    return id < 0 ? "nothing" : `${objectName(id)}, ${Math.round((100 * count) / this.length)} %`;
  }

  chart() {
    const series = Object.entries(this.clip.frameMetrics);
    const values = series.flatMap(([, points]) => points).filter((value) => value !== null);
    const low = Math.min(0, ...values), high = Math.max(1, ...values);
    const svg = make("svg", { viewBox: `0 0 ${this.length} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const y of [0, 50, 100]) svg.append(make("line", { class: "grid", x1: 0, x2: this.length, y1: y, y2: y }));
    const legend = make("div", { class: "legend" });
    series.forEach(([name, points], s) => {
      const look = { class: "series", stroke: SERIES_COLORS[s % SERIES_COLORS.length], "stroke-dasharray": DASHES[s % DASHES.length] };
      let pen = "M"; // lifts at frames without a value
      const path = points.map((value, t) => {
        if (value === null) { pen = "M"; return ""; }
        const point = `${pen} ${t + 0.5} ${(100 * (1 - (value - low) / (high - low))).toFixed(2)} h 0`;
        pen = "L";
        return point;
      });
      svg.append(make("path", { ...look, d: path.join(" ") }));
      const value = make("b");
      this.legend.push({ points, value });
      const key = make("svg", { viewBox: "0 0 30 8", "aria-hidden": "true" }, make("path", { ...look, d: "M 1 4 H 29" }));
      legend.append(make("span", {}, key, `${name} `, value));
    });
    const scale = make("div", { class: "scale" });
    for (const mark of [high, (high + low) / 2, low]) scale.append(make("span", {}, mark.toFixed(1)));
    return make("div", {}, make("h4", {}, "Metrics of each frame"),
      make("div", { class: "chart" }, scale, this.seekable(svg)), legend);
  }

  async load() {
    if (this.loaded) return;
    this.loaded = true;
    await Promise.all(Object.values(this.sheets).map((sheet) => sheet.load()));
    this.draw();
    this.root.dataset.ready = "true";
  }

  show(frame) {
    this.frame = Math.min(this.length - 1, Math.max(0, frame));
    current = this;
    this.describe();
    this.draw();
  }

  describe() {
    const number = this.clip.frameNumbers[this.frame];
    this.slider.value = `${this.frame}`;
    this.slider.setAttribute("aria-valuetext", `frame ${number}`);
    this.output.textContent = `frame ${number} of ${this.clip.frameNumbers[0]}–${this.clip.frameNumbers[this.length - 1]}`;
    for (const cursor of this.cursors) {
      cursor.setAttribute("x1", this.frame + 0.5);
      cursor.setAttribute("x2", this.frame + 0.5);
    }
    for (const { points, value } of this.legend) value.textContent = shownValue(points[this.frame]);
    this.tiles.forEach((tile, k) => this.describeTile(tile, k));
    const unlabelled = this.clip.labelled && !this.clip.labelled[this.frame];
    if (this.panes.truth) this.panes.truth.text.textContent = unlabelled ? "truth (none for this frame)" : "truth";
    this.panes.overlay.text.textContent = this.alone === null ? "model" : `${this.clip.slotNames[this.alone]} alone`;
    if (this.slotTitle) {
      const kind = this.kind();
      this.slotTitle.textContent = `${kind === "masks" ? "Decoder mask" : "Attention"} of each slot (white is ${shownValue(this.clip[kind].peak)})`;
    }
  }

  describeTile(tile, k) {
    const area = this.clip.areas[k][this.frame];
    tile.area.textContent = `${this.clip.slotNames[k]} · ${(100 * area).toFixed(0)} %`;
    tile.button.setAttribute("aria-pressed", `${this.alone === k}`);
    tile.button.classList.toggle("empty", area === 0);
    if (!this.clip.matched) return;
    const id = this.clip.matched[k][this.frame];
    tile.held.textContent = id > 0 ? `${objectName(id)} · ${shownValue(this.clip.ious[k][this.frame])}` : objectName(id);
  }

  kind() { return slotKind === "attention" && this.sheets.attention ? "attention" : "masks"; }

  draw() {
    const { frames, predicted, truth } = this.sheets;
    if (!frames.ready) return;
    for (const [name, { context }] of Object.entries(this.panes)) {
      context.globalCompositeOperation = "source-over";
      context.globalAlpha = 1;
      frames.drawFrame(context, this.frame);
      const layer = { overlay: predicted, truth }[name];
      if (name === "overlay" && this.alone !== null) {
        context.globalCompositeOperation = "multiply";
        this.sheets[this.kind()].draw(context, this.frame, this.alone);
      } else if (layer && layer.ready) {
        context.globalAlpha = tint;
        layer.drawFrame(context, this.frame);
      }
    }
    if (!this.sheets.masks) return;
    const sheet = this.sheets[this.kind()];
    if (!sheet.ready) return;
    this.tiles.forEach(({ canvas }, k) => {
      if (canvas.width !== sheet.width || canvas.height !== sheet.height) {
        canvas.width = sheet.width;
        canvas.height = sheet.height;
      }
      sheet.draw(canvas.getContext("2d"), this.frame, k);
    });
  }

  toggle() {
    if (this.timer === null) {
      const pause = this.length > 16 ? 80 : 170; // milliseconds a frame
      this.timer = setInterval(() => this.show((this.frame + 1) % this.length), pause);
    } else {
      clearInterval(this.timer);
      this.timer = null;
    }
    const playing = this.timer !== null;
    this.play.textContent = playing ? "Pause" : "Play";
    this.play.setAttribute("aria-pressed", `${playing}`);
    current = this;
  }
}

// What all clips share.
let current = null; // the clip that keys move when nothing is focused
let slotKind = "masks";
let tint = 1;
const views = report.clips.map((clip, index) => new ClipView(clip, index));
const metrics = [...new Set(report.clips.flatMap((clip) => Object.keys(clip.metrics)))];

function sorted() {
  const metric = byId("metric").value, order = byId("order").value;
  if (order === "name") return [...views].sort((a, b) => a.clip.name.localeCompare(b.clip.name, "en", { numeric: true }));
  const score = (view) => view.clip.metrics[metric] ?? null;
  const known = views.filter((view) => score(view) !== null).sort((a, b) => score(a) - score(b)); // worst first
  const unknown = views.filter((view) => score(view) === null);
  if (order === "best") known.reverse();
  if (order !== "extremes") return [...known, ...unknown];
  const turns = known.map((_, i) => (i % 2 ? known[known.length - (i + 1) / 2] : known[i / 2]));
  return [...turns, ...unknown];
}

function arrange() {
  const order = sorted();
  byId("clip-list").append(...order.map((view) => view.root)); // moves them, nothing is rebuilt
  const table = byId("overview-table");
  const body = order.map((view) => {
    const row = make("tr", {}, make("td", {}, make("a", { href: `#${view.root.id}` }, view.clip.name)));
    for (const metric of metrics) row.append(make("td", {}, shownValue(view.clip.metrics[metric])));
    row.append(make("td", {}, view.clip.matched ? `${view.clip.switches.length}` : "-"));
    row.append(make("td", {}, `${view.length}`));
    return row;
  });
  table.replaceChildren(make("thead", {}, headings()), make("tbody", {}, ...body));
  if (!views.length) byId("clip-list").textContent = "This report has no clips.";
}

function headings() {
  const direction = { worst: "ascending", best: "descending" }[byId("order").value];
  const cells = metrics.map((metric) => {
    const chosen = byId("metric").value === metric;
    const button = make("button", { type: "button" }, metric);
    button.addEventListener("click", () => {
      byId("order").value = chosen && byId("order").value === "worst" ? "best" : "worst";
      byId("metric").value = metric;
      arrange();
      [...document.querySelectorAll("#overview-table th button")].find((node) => node.textContent === metric).focus();
    });
    const cell = make("th", { scope: "col" }, button);
    if (chosen && direction) cell.setAttribute("aria-sort", direction);
    return cell;
  });
  const plain = (text) => make("th", { scope: "col" }, text);
  return make("tr", {}, plain("clip"), ...cells, plain("switches"), plain("frames"));
}

function keys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
  const target = event.target;
  const onSlider = target.matches("input[type=range]");
  if (target.matches("select, textarea, input") && !(onSlider && event.key === " ")) return; // they know their keys
  if (event.key === " " && target.matches("button, a, summary")) return;
  const article = target.closest("article");
  const view = views.find(({ root }) => root === article) ?? current ?? sorted()[0];
  if (!view) return;
  const scrolls = target.matches("pre, .scroll, .scroll *");
  if (event.key === " ") view.toggle();
  else if (scrolls || event.shiftKey) return;
  else if (event.key === "ArrowLeft") view.show(view.frame - 1);
  else if (event.key === "ArrowRight") view.show(view.frame + 1);
  else if (event.key === "Home" && article) view.show(0);
  else if (event.key === "End" && article) view.show(view.length - 1);
  else return;
  event.preventDefault();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function start() {
  theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  byId("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  byId("metric").append(...metrics.map((name) => make("option", { value: name }, name)));
  if (!metrics.length) byId("order").value = "name";
  byId("kind").closest("label").hidden = !views.some((view) => view.sheets.attention);
  for (const id of ["metric", "order"]) byId(id).addEventListener("change", arrange);
  byId("kind").addEventListener("change", () => { slotKind = byId("kind").value; redraw(); });
  byId("tint").addEventListener("input", () => { tint = Number(byId("tint").value) / 100; redraw(); });
  document.addEventListener("keydown", keys);
  arrange();
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) views.find(({ root }) => root === entry.target).load();
  }, { rootMargin: "800px" });
  for (const view of views) { view.describe(); near.observe(view.root); }
  if (location.hash) document.querySelector(location.hash.replace(/[^#\w-]/g, ""))?.scrollIntoView();
}

function redraw() {
  for (const view of views) { view.describe(); if (view.loaded) view.draw(); }
}

start();
