// Samples of a dataset; the parts that all pages share come from html_page.js.

const PART_NAMES = { train: "training", val: "evaluation" };
const LEAST_WIDTH = 288; // pixels of a canvas: smaller frames are enlarged, so that ids stay readable

class SampleView extends FrameView {
  constructor(sample, index) {
    super(`sample-${index}`, sample.name, sample.frameNames);
    this.sample = sample;
    for (const name of ["frames", "labels", "flow"]) if (sample[name]) this.sheets[name] = new Sheet(sample[name]);
    this.panes = {};
    const row = make("div", { class: "views" });
    this.scale = Math.max(1, Math.ceil(LEAST_WIDTH / sample.frames.width));
    const size = { width: this.scale * sample.frames.width, height: this.scale * sample.frames.height };
    for (const [name, caption] of [["frames", "frame"], ["labels", "labels"], ["flow", "flow"]]) {
      if (!this.sheets[name]) continue;
      this.panes[name] = this.pane(caption, size);
      row.append(this.panes[name].figure);
    }
    this.root.append(this.heading(sample.facts, sample.note), this.player(), make("div", { class: "stage" }, row));
    if (sample.timeline) this.root.append(this.timeline(sample.timeline, {}, "Area over time (square-root scale)"));
  }

  describe() {
    super.describe();
    const { gaps, frameNames, flowPeak } = this.sample, gap = gaps[this.frame - 1];
    const sign = gap > 0 ? "+" : "";
    this.panes.frames.text.textContent = `frame ${frameNames[this.frame]}${gap === undefined ? "" : ` (${sign}${gap})`}`;
    if (this.panes.labels) this.panes.labels.text.textContent = this.labelText();
    if (this.panes.flow) this.panes.flow.text.textContent = `flow (full colour: ${flowPeak.toFixed(1)} pixels)`;
  }

  labelText() {
    const ids = this.sample.ids[this.frame], share = this.sample.voids[this.frame];
    if (ids === null) return "not labelled";
    const objects = ids.length ? `${ids.length} object${ids.length > 1 ? "s" : ""}, id ${ids.join(", ")}` : "no object";
    return `labels: ${objects}${share > 0 ? `; void ${(100 * share).toFixed(1)} %` : ""}`;
  }

  draw() {
    const { frames, labels, flow } = this.sheets;
    if (!frames.ready) return;
    for (const [name, { context }] of Object.entries(this.panes)) {
      context.globalAlpha = 1;
      if (name === "flow" && flow.ready) flow.drawFrame(context, this.frame);
      else frames.drawFrame(context, this.frame);
      if (name !== "labels" || !labels.ready) continue;
      context.globalAlpha = tint;
      labels.drawFrame(context, this.frame);
      if (byId("numbers").checked) this.writeIds(context);
    }
  }

  writeIds(context) {
    const size = Math.round(context.canvas.width / 20);
    Object.assign(context, {
      globalAlpha: 1, font: `600 ${size}px system-ui, sans-serif`, textAlign: "center", textBaseline: "middle",
      lineWidth: size / 4, lineJoin: "round", strokeStyle: "#101114", fillStyle: "#ffffff",
    });
    const inside = (value, end) => Math.min(end - 0.6 * size, Math.max(0.6 * size, this.scale * (value + 0.5)));
    for (const [id, x, y] of this.sample.anchors[this.frame]) {
      const at = [inside(x, context.canvas.width), inside(y, context.canvas.height)];
      context.strokeText(`${id}`, ...at);
      context.fillText(`${id}`, ...at);
    }
  }
}

let tint = 1;
const views = report.samples.map((sample, index) => new SampleView(sample, index));

function overview() {
  const names = ["sample", "part", "size", "frames", "objects", "labelled", "void", "read in"];
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  const share = (value) => (value === null ? "-" : `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`);
  const body = views.map(({ root, sample }) => {
    const cells = [
      PART_NAMES[sample.part], sample.size, `${sample.length}`, sample.objects === null ? "-" : `${sample.objects}`,
      share(sample.labelled), share(sample.void), `${(1000 * sample.seconds).toFixed(0)} ms`,
    ];
    const link = make("td", {}, make("a", { href: `#${root.id}` }, sample.name));
    return make("tr", {}, link, ...cells.map((text) => make("td", {}, text)));
  });
  byId("overview-table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
}

function redraw() {
  for (const view of views) if (view.loaded) view.draw();
}

function start() {
  startTheme();
  for (const part of Object.keys(PART_NAMES)) {
    const shown = views.filter(({ sample }) => sample.part === part);
    byId(`${part}-list`).append(...shown.map(({ root }) => root));
    if (!shown.length) byId(`${part}-list`).textContent = "None can be shown.";
  }
  byId("tint").addEventListener("input", () => { tint = Number(byId("tint").value) / 100; redraw(); });
  byId("numbers").addEventListener("change", redraw);
  followKeys(views, () => views[0]);
  overview();
  loadWhenNear(views);
  goToHash();
}

start();
