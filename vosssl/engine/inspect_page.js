// Slots and masks of each clip; the parts that all pages share come from html_page.js.

class ClipView extends FrameView {
  constructor(clip, index) {
    super(`clip-${index}`, clip.name, clip.frameNumbers);
    this.clip = clip;
    this.alone = null; // the slot shown alone, or null
    for (const name of ["frames", "predicted", "truth", "masks", "attention", "features"]) {
      if (clip[name]) this.sheets[name] = new Sheet(clip[name]);
    }
    this.tiles = [];
    const values = Object.entries(clip.metrics).map(([metric, value]) => [metric, shownValue(value)]);
    if (clip.matched) values.push(["switches", `${clip.switches.length}`]);
    const stage = make("div", { class: "stage" }, this.views());
    if (this.sheets.masks) stage.append(this.slots());
    this.root.append(this.heading(values, clip.note), this.player(), stage);
    const identity = { ...clip, names: clip.slotNames, colors: clip.slotColors };
    const title = `Area over time (square-root scale)${clip.matched ? ", and matched object" : ""}`;
    const panels = make("div", { class: "panels" }, this.timeline(identity, clip.objectColors, title));
    const series = Object.entries(clip.frameMetrics).map(([name, points]) => ({ name, points }));
    if (series.length) panels.append(this.chart("Metrics of each frame", series));
    this.root.append(panels);
  }

  views() {
    this.panes = {};
    const row = make("div", { class: this.clip.frames.width < 200 ? "views small" : "views" });
    for (const [name, caption] of [["input", "input"], ["truth", "truth"], ["overlay", "model"]]) {
      if (name === "truth" && !this.sheets.truth) continue;
      this.panes[name] = this.pane(caption, this.clip.frames);
      row.append(this.panes[name].figure);
    }
    if (this.sheets.features) {
      this.features = this.pane("features (three main components)", this.clip.features);
      this.features.context.canvas.classList.add("blocks");
      row.append(this.features.figure);
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

  describe() {
    super.describe();
    this.tiles.forEach((tile, k) => this.describeTile(tile, k));
    const unlabelled = this.clip.labelled && !this.clip.labelled[this.frame];
    if (this.panes.truth) this.panes.truth.text.textContent = unlabelled ? "truth (none for this frame)" : "truth";
    this.panes.overlay.text.textContent = this.alone === null ? "model" : `${this.clip.slotNames[this.alone]} alone`;
    if (this.slotTitle) {
      const kind = this.kind();
      this.slotTitle.textContent = `${kind === "masks" ? this.clip.maskTitle : "Attention of each slot"} (white is ${shownValue(this.clip[kind].peak)})`;
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
    if (this.features && this.sheets.features.ready) this.sheets.features.drawFrame(this.features.context, this.frame);
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
}

// What all clips share.
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

function start() {
  startTheme();
  byId("metric").append(...metrics.map((name) => make("option", { value: name }, name)));
  if (!metrics.length) byId("order").value = "name";
  byId("kind").closest("label").hidden = !views.some((view) => view.sheets.attention);
  for (const id of ["metric", "order"]) byId(id).addEventListener("change", arrange);
  byId("kind").addEventListener("change", () => { slotKind = byId("kind").value; redraw(); });
  byId("tint").addEventListener("input", () => { tint = Number(byId("tint").value) / 100; redraw(); });
  followKeys(views, () => sorted()[0]);
  arrange();
  loadWhenNear(views);
  goToHash();
}

function redraw() {
  for (const view of views) { view.describe(); if (view.loaded) view.draw(); }
}

start();
