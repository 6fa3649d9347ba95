"use strict";
// What all pages share: making elements, sprite sheets, a view with a frame slider, charts and timelines.
// Draws what Python left in the element #report. Text from outside only ever becomes textContent.

const SVG = "http://www.w3.org/2000/svg"; // the name of the language, never fetched
const SVG_TAGS = new Set(["svg", "path", "line", "rect"]);
const SERIES_COLORS = ["#3b82f6", "#ea7317", "#12a150", "#b54bd6", "#d6336c", "#7a8a00"];
const DASHES = ["", "6 4", "2 4", "10 3 2 3"];
const TRACK_HEIGHT = 26, STRIP = 6; // pixels of a timeline row, and of its strip of matched objects

const report = JSON.parse(document.getElementById("report").textContent);
const byId = (id) => document.getElementById(id);
const shownValue = (value) => (value === null || value === undefined ? "-" : value.toFixed(2));
let current = null; // the view that keys move when nothing is focused

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

// An SVG path through the middle of each frame; it breaks off where a frame has no value.
function curve(points, low, high) {
  let pen = "M";
  return points.map((value, t) => {
    if (value === null) { pen = "M"; return ""; }
    const point = `${pen} ${t + 0.5} ${(100 * (1 - (value - low) / (high - low))).toFixed(2)} h 0`;
    pen = "L";
    return point;
  }).join(" ");
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

// An article about one video with a frame slider, which everything in it follows. Subclasses fill `root`, and
// extend `describe` (texts) and `draw` (pictures).
class FrameView {
  constructor(id, name, frameNames) {
    this.name = name;
    this.frameNames = frameNames;
    this.length = frameNames.length;
    this.frame = 0;
    this.timer = null;
    this.loaded = false;
    this.sheets = {};
    this.cursors = [];
    this.legend = [];
    this.root = make("article", { id, "aria-labelledby": `${id}-name`, tabindex: "-1" });
  }

  heading(values, note) {
    const name = make("h3", { id: `${this.root.id}-name` }, this.name);
    const chips = make("div", { class: "chips" });
    for (const [label, value] of values) chips.append(make("span", {}, `${label} `, make("b", {}, value)));
    const top = make("a", { href: "#overview" }, "overview");
    return make("header", {}, name, chips, make("span", { class: "note" }, note), top);
  }

  player() {
    this.play = make("button", { type: "button", "aria-pressed": "false" }, "Play");
    this.slider = make("input", {
      type: "range", min: "0", max: `${this.length - 1}`, step: "1", value: "0", "aria-label": `Frame of ${this.name}`,
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

  // A picture with a caption; `context` is where to draw it.
  pane(caption, { width, height }) {
    const canvas = this.canvas(width, height, `${caption} of ${this.name}`);
    const text = make("figcaption", {}, caption);
    return { context: canvas.getContext("2d"), text, figure: make("figure", {}, canvas, text) };
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

  // Rows of areas over time with the matched object below each; identity: areas, matched, switches, names, colors.
  timeline(identity, objectColors, title) {
    const { areas, switches } = identity;
    const panel = make("div", {}, make("h4", {}, title));
    const largest = Math.max(1e-6, ...areas.flat());
    areas.forEach((area, k) => panel.append(this.track(identity, objectColors, k, largest)));
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

  track({ areas, matched, switches, names, colors }, objectColors, k, largest) {
    const svg = make("svg", {
      viewBox: `0 0 ${this.length} ${TRACK_HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true",
    });
    const floor = TRACK_HEIGHT - STRIP - 1;
    const height = (value) => floor * (1 - Math.sqrt(value / largest)); // small objects stay visible
    const steps = areas[k].map((value, t) => `V ${height(value).toFixed(2)} H ${t + 1}`).join(" ");
    svg.append(make("path", { d: `M 0 ${floor} ${steps} V ${floor} Z`, fill: colors[k] }));
    for (const { id, from, to } of runs(matched ? matched[k] : [])) {
      if (id < 0) continue;
      const y = TRACK_HEIGHT - STRIP;
      svg.append(make("rect", { x: from, y, width: to - from, height: STRIP, fill: objectColors[id] }));
    }
    for (const item of switches) {
      if (item.slot === k) svg.append(make("line", { class: "switch", x1: item.frame, x2: item.frame, y1: 0, y2: TRACK_HEIGHT }));
    }
    const name = make("span", {}, swatch(colors[k]), names[k]);
    const held = matched ? this.mostHeld(matched[k]) : `${(100 * Math.max(...areas[k])).toFixed(0)} % at most`;
    return make("div", { class: "track" }, name, this.seekable(svg), make("span", { class: "held" }, held));
  }

  mostHeld(matched) {
    const counts = new Map();
    for (const id of matched) if (id >= 0) counts.set(id, (counts.get(id) ?? 0) + 1);
    const [id, count] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [-1, 0];
    return id < 0 ? "nothing" : `${objectName(id)}, ${Math.round((100 * count) / this.length)} %`;
  }

  // Curves over the frames; series: name, points, and perhaps stroke and dash.
  chart(title, series) {
    const values = series.flatMap(({ points }) => points).filter((value) => value !== null);
    const low = Math.min(0, ...values), high = Math.max(1, ...values);
    const svg = make("svg", { viewBox: `0 0 ${this.length} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const y of [0, 50, 100]) svg.append(make("line", { class: "grid", x1: 0, x2: this.length, y1: y, y2: y }));
    const legend = make("div", { class: "legend" });
    series.forEach(({ name, points, stroke, dash }, s) => {
      const look = {
        class: "series",
        stroke: stroke ?? SERIES_COLORS[s % SERIES_COLORS.length],
        "stroke-dasharray": dash ?? DASHES[s % DASHES.length],
      };
      svg.append(make("path", { ...look, d: curve(points, low, high) }));
      const value = make("b");
      this.legend.push({ points, value });
      const key = make("svg", { viewBox: "0 0 30 8", "aria-hidden": "true" }, make("path", { ...look, d: "M 1 4 H 29" }));
      legend.append(make("span", {}, key, `${name} `, value));
    });
    const scale = make("div", { class: "scale" });
    for (const mark of [high, (high + low) / 2, low]) scale.append(make("span", {}, mark.toFixed(1)));
    const heading = title ? [make("h4", {}, title)] : [];
    return make("div", {}, ...heading, make("div", { class: "chart" }, scale, this.seekable(svg)), legend);
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
    const name = this.frameNames[this.frame];
    this.slider.value = `${this.frame}`;
    this.slider.setAttribute("aria-valuetext", `frame ${name}`);
    this.output.textContent = `frame ${name} of ${this.frameNames[0]}–${this.frameNames[this.length - 1]}`;
    for (const cursor of this.cursors) {
      cursor.setAttribute("x1", this.frame + 0.5);
      cursor.setAttribute("x2", this.frame + 0.5);
    }
    for (const { points, value } of this.legend) value.textContent = shownValue(points[this.frame]);
  }

  draw() {}

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

// Keys move the view that is focused, else the one moved last, else the first.
function followKeys(views, first) {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    const target = event.target;
    const onSlider = target.matches("input[type=range]");
    if (target.matches("select, textarea, input") && !(onSlider && event.key === " ")) return; // they know their keys
    if (event.key === " " && target.matches("button, a, summary")) return;
    const article = target.closest("article");
    const view = views.find(({ root }) => root === article) ?? current ?? first();
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
  });
}

// Pictures are decoded when their view comes near the window.
function loadWhenNear(views) {
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) views.find(({ root }) => root === entry.target).load();
  }, { rootMargin: "800px" });
  for (const view of views) { view.describe(); near.observe(view.root); }
}

function startTheme() {
  const set = (name) => {
    document.documentElement.dataset.theme = name;
    byId("theme").textContent = name === "dark" ? "Light" : "Dark";
  };
  set(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  byId("theme").addEventListener("click", () => set(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}

function goToHash() {
  if (location.hash) document.querySelector(location.hash.replace(/[^#\w-]/g, ""))?.scrollIntoView();
}
