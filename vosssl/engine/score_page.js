// Scores per sequence, object and frame; the parts that all pages share come from html_page.js.

const WORST = 20; // objects listed
const ERROR_NAMES = ["", "correct", "false positive", "false negative", "wrong object", "not counted"];
const precise = (value) => (value === null || value === undefined ? "-" : value.toFixed(3));
const signed = (value) => (value === null ? "-" : `${value < 0 ? "" : "+"}${value.toFixed(3)}`);
const known = (values) => values.filter((value) => value !== null && value !== undefined);
const average = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const change = ([before, after]) => (known([before, after]).length < 2 ? null : after - before);
const two = report.methods.length > 1;

class SequenceView extends FrameView {
  constructor(sequence, index) {
    super(`sequence-${index}`, sequence.name, sequence.frameNames.length ? sequence.frameNames : ["-"]);
    this.sequence = sequence;
    this.pictures = sequence.pictures;
    this.panes = [];
    this.holder = make("div");
    const values = report.metrics.map((metric) => [metric, sequence.values[metric].map(precise).join(" | ")]);
    this.root.append(this.heading(values.slice(0, 3), this.note()));
    if (sequence.frameNames.length) this.root.append(this.player());
    if (this.pictures) this.root.append(make("div", { class: "stage" }, this.views()));
    const panels = make("div", { class: "panels" });
    if (sequence.curves.length) panels.append(make("div", {}, this.tools(), this.holder));
    if (this.pictures) panels.append(make("div", {}, ...this.pictures.methods.filter(Boolean).map((method) => this.identities(method))));
    this.root.append(panels);
    if (sequence.curves.length) this.plot();
  }

  note() {
    if (!this.pictures) return `${this.sequence.frameNames.length} frames, no pictures.`;
    const { native, size, names } = this.pictures;
    const length = this.sequence.frameNames.length;
    const smaller = native.width === size.width ? "" : `, shown at ${size.width} x ${size.height}`;
    const fewer = names.length === length ? "" : ` (${names.length} of them pictured)`;
    return `${length} frames${fewer} of ${native.width} x ${native.height} pixels${smaller}.`;
  }

  // Truth, then each method's labels and errors, on the frames.
  views() {
    const { frames, truth, methods, size } = this.pictures;
    if (frames) this.sheets.frames = new Sheet(frames);
    const row = make("div", { class: two ? "views many" : "views" });
    const add = (caption, sheet) => {
      const name = `pane ${this.panes.length}`;
      this.sheets[name] = new Sheet(sheet);
      const pane = this.pane(caption, size);
      this.panes.push({ ...pane, caption, sheet: this.sheets[name] });
      row.append(pane.figure);
    };
    if (truth) add("truth", truth);
    for (const method of methods) {
      if (!method) continue;
      add(method.name, method.predicted);
      if (method.errors) add(`errors of ${method.name}`, method.errors);
    }
    return row;
  }

  identities({ name, timeline }) {
    const { objectColors } = this.pictures;
    return this.timeline(timeline, objectColors, `Identities of ${name}: area, and matched object`);
  }

  tools() {
    this.choice = make("select", { "aria-label": `Object of ${this.name}` });
    const ids = [...new Set(this.sequence.curves.map(({ object }) => object))];
    if (ids.length > 1) this.choice.append(make("option", { value: "" }, `mean of ${ids.length} objects`));
    this.choice.append(...ids.map((id) => make("option", { value: `${id}` }, `object ${id}`)));
    this.choice.addEventListener("change", () => { this.plot(); this.describe(); });
    const worst = make("button", { type: "button", class: "to-worst" }, "worst frame");
    worst.addEventListener("click", () => this.show(this.worstFrame()));
    return make("div", { class: "tools" }, make("h4", {}, "J and F of each frame"), this.choice, worst);
  }

  // A value per frame: of the chosen object, or the mean of those that have one.
  points(metric, method) {
    const wanted = this.choice.value;
    const rows = this.sequence.curves
      .filter((entry) => entry.metric === metric && (wanted === "" || `${entry.object}` === wanted))
      .map((entry) => entry.points[method]);
    return this.frameNames.map((_, t) => average(known(rows.map((row) => row[t]))));
  }

  // Of the method that sequences are sorted by.
  worstFrame() {
    const by = Number(byId("by").value);
    const all = [this.points("J", by), this.points("F", by)];
    const means = this.frameNames.map((_, t) => average(known(all.map((row) => row[t]))));
    const lowest = Math.min(...known(means));
    return Math.max(0, means.indexOf(lowest));
  }

  plot() {
    this.cursors = this.cursors.filter((cursor) => !this.holder.contains(cursor));
    this.legend = [];
    const series = report.methods.flatMap((method, m) => ["J", "F"].map((metric, i) => ({
      name: two ? `${metric} of ${method}` : metric,
      points: this.points(metric, m),
      stroke: SERIES_COLORS[two ? m : i],
      dash: DASHES[i],
    })));
    this.holder.replaceChildren(this.chart("", series));
  }

  describe() {
    if (!this.slider) return;
    super.describe();
    if (!this.pictures) return;
    const pictured = this.pictures.names[this.pictures.pictureOf[this.frame]];
    const apart = pictured === this.frameNames[this.frame] ? "" : ` (picture of frame ${pictured})`;
    for (const pane of this.panes) pane.text.textContent = pane.caption + apart;
  }

  draw() {
    if (!this.pictures) return;
    const picture = this.pictures.pictureOf[this.frame];
    const { frames } = this.sheets;
    for (const { context, sheet } of this.panes) {
      const { width, height } = context.canvas;
      context.globalAlpha = 1;
      if (frames && frames.ready) frames.drawFrame(context, picture);
      else context.clearRect(0, 0, width, height);
      context.globalAlpha = frames ? tint : 1;
      if (sheet.ready) sheet.drawFrame(context, picture);
    }
  }
}

let tint = 1;
const views = report.sequences.map((sequence, index) => new SequenceView(sequence, index));

function sorted() {
  const metric = byId("metric").value, order = byId("order").value, by = Number(byId("by").value);
  const values = ({ sequence }) => sequence.values[metric];
  const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });
  if (order === "name") return [...views].sort(byName);
  const key = {
    worst: (view) => values(view)[by] ?? 2,
    best: (view) => -(values(view)[by] ?? -2),
    loss: (view) => change(values(view)) ?? 2,
    gain: (view) => -(change(values(view)) ?? -2),
  }[order];
  return [...views].sort((a, b) => key(a) - key(b) || byName(a, b));
}

function bar(value, second) {
  if (value === null) return "-";
  const node = make("span", { class: second ? "bar second" : "bar" }, precise(value));
  node.style.setProperty("--share", `${(100 * Math.min(1, Math.max(0, value))).toFixed(1)}%`);
  return node;
}

// A bar to the left (loss) or to the right (gain), on the scale of the largest change.
function shift(value, largest) {
  if (value === null) return "-";
  const stick = make("i", { class: value < 0 ? "minus" : "plus" });
  stick.style.setProperty("--share", `${(100 * Math.abs(value) / (largest || 1)).toFixed(1)}%`);
  return make("span", { class: "shift" }, stick, make("b", {}, signed(value)));
}

// The difference of the means, and a line from end to end of its interval.
function overallShift([mean, low, high], largest) {
  const node = shift(mean, largest);
  if (mean === null || low === null) return [node];
  const line = make("i", { class: "range" });
  line.style.setProperty("--low", (low / largest).toFixed(4));
  line.style.setProperty("--high", (high / largest).toFixed(4));
  node.append(line);
  return [node, make("span", { class: "interval" }, `95 % interval [${signed(low)}, ${signed(high)}]`)];
}

function switches({ pictures }) {
  if (!pictures) return "-";
  return pictures.methods.map((method) => (method ? method.timeline.switches.length : "-")).join(" | ");
}

function table(node, headings, rows, feet = []) {
  const head = make("tr", {}, ...headings.map((text) => make("th", { scope: "col" }, text)));
  node.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows), make("tfoot", {}, ...feet));
}

function arrange() {
  const order = sorted(), metric = byId("metric").value;
  byId("video-list").append(...order.map((view) => view.root)); // moves them, nothing is rebuilt
  const { means, change: overall = [] } = report.overall[metric];
  const changes = known([...views.map(({ sequence }) => change(sequence.values[metric])), ...overall]);
  const largest = Math.max(...changes.map(Math.abs), 1e-9);
  const rows = order.map(({ root, sequence }) => {
    const values = sequence.values[metric];
    const cells = values.map((value, m) => make("td", {}, bar(value, m > 0)));
    if (two) cells.push(make("td", {}, shift(change(values), largest)));
    const link = make("a", { href: `#${root.id}` }, sequence.name);
    const counts = [sequence.objects.length || "-", sequence.frameNames.length || "-", switches(sequence)];
    return make("tr", {}, make("td", {}, link), ...cells, ...counts.map((count) => make("td", {}, `${count}`)));
  });
  const difference = two ? [`${report.methods[1]} − ${report.methods[0]}`] : [];
  table(byId("overview-table"), ["sequence", ...report.methods, ...difference, "objects", "frames", "switches"], rows, [overallRow(means, overall, largest)]);
}

function overallRow(means, overall, largest) {
  const cells = means.map((value, m) => make("td", {}, bar(value, m > 0)));
  if (two) cells.push(make("td", {}, ...overallShift(overall, largest)));
  return make("tr", {}, make("th", { scope: "row" }, "mean"), ...cells, ...[0, 1, 2].map(() => make("td", {})));
}

function listWorst() {
  const by = Number(byId("by").value);
  const objects = views.flatMap((view) => view.sequence.objects.map((entry) => {
    const jf = entry.J.map((j, m) => (known([j, entry.F[m]]).length < 2 ? null : (j + entry.F[m]) / 2));
    return { view, entry, jf, worst: jf[by] ?? 2 };
  })).filter(({ jf }) => known(jf).length).sort((a, b) => a.worst - b.worst).slice(0, WORST);
  byId("worst").hidden = objects.length === 0;
  const rows = objects.map(({ view, entry, jf }) => {
    const button = make("button", { type: "button", class: "link" }, `${view.name}, object ${entry.object}`);
    button.addEventListener("click", () => visit(view, entry.object));
    const cells = report.methods.flatMap((_, m) => [jf[m], entry.J[m], entry.F[m]].map(precise));
    return make("tr", {}, make("td", {}, button), ...cells.map((text) => make("td", {}, text)));
  });
  const columns = report.methods.flatMap((name) => ["J&F", "J", "F"].map((metric) => (two ? `${metric} of ${name}` : metric)));
  table(byId("worst-table"), ["object, to its worst frame", ...columns], rows);
}

// Goes to the worst frame of an object.
function visit(view, object) {
  if (view.choice) { view.choice.value = `${object}`; view.plot(); view.show(view.worstFrame()); }
  view.load();
  view.root.scrollIntoView();
  view.root.focus({ preventScroll: true });
}

function start() {
  startTheme();
  byId("metric").append(...report.metrics.map((name) => make("option", { value: name }, name)));
  if (!two) for (const value of ["loss", "gain"]) document.querySelector(`#order option[value=${value}]`).remove();
  byId("by").append(...report.methods.map((name, m) => make("option", { value: `${m}` }, name)));
  byId("by").closest("label").hidden = !two;
  byId("by").addEventListener("change", () => { arrange(); listWorst(); });
  for (const id of ["metric", "order"]) byId(id).addEventListener("change", arrange);
  byId("tint").addEventListener("input", () => {
    tint = Number(byId("tint").value) / 100;
    for (const view of views) if (view.loaded) view.draw();
  });
  byId("tint").closest("label").hidden = !views.some((view) => view.sheets.frames);
  ERROR_NAMES.forEach((name, i) => name && byId("error-legend").append(make("span", {}, swatch(report.errorColors[i]), name)));
  byId("error-legend").hidden = !views.some(({ pictures }) => pictures && pictures.methods.some((method) => method && method.errors));
  followKeys(views, () => sorted()[0]);
  arrange();
  listWorst();
  loadWhenNear(views);
  goToHash();
}

start();
