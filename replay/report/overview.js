// The whole time in one strip: how much began when, what of it failed, restarts and outages; and
// the window over it, to be dragged, stretched, or put elsewhere by a click.

const OVERVIEW_HEIGHT = 54;
const BIN = 3;
const GRIP = 9;

class Overview {
  constructor(view, look) {
    Object.assign(this, { view, look, drag: null });
    this.element = byId("overview");
    this.canvas = this.element.querySelector("canvas");
    this.draw = onceAFrame(() => this.#draw());
    new ResizeObserver(this.draw).observe(this.element);
    view.addEventListener("window", this.draw);
    view.addEventListener("filter", this.draw);
    this.element.addEventListener("pointerdown", (event) => this.#grab(event));
    this.element.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.element.addEventListener(end, () => { this.drag = null; });
    }
    this.element.addEventListener("wheel", (event) => {
      event.preventDefault();
      view.zoom(wheelFactor(event), this.timeAt(event.offsetX));
    }, { passive: false });
    this.draw();
  }

  x(at) {
    const { from, to } = this.view.widest;
    return ((at - from) / (to - from)) * this.element.clientWidth;
  }

  timeAt(x) {
    const { from, to } = this.view.widest;
    return from + (x / this.element.clientWidth) * (to - from);
  }

  #draw() {
    const [context, width, height] = prepare(this.canvas, OVERVIEW_HEIGHT);
    const { view, look } = this;
    for (const mark of view.log.marks) {
      context.fillStyle = look[mark.kind] ?? look.quiet;
      const [x, end] = [this.x(mark.at), this.x(mark.to ?? mark.at)];
      context.globalAlpha = mark.to === null ? 0.8 : 0.25;
      if (mark.kind !== "queue") context.fillRect(x, 0, Math.max(end - x, 1), height);
      context.globalAlpha = 1;
    }
    this.#drawBins(context, width, height);
    this.#drawWindow(context, width, height);
    this.#sayWhere();
  }

  #drawBins(context, width, height) {
    const bins = Math.max(1, Math.ceil(width / BIN));
    const [all, failed] = [new Uint32Array(bins), new Uint32Array(bins)];
    for (const each of this.view.matching) {
      const bin = Math.min(bins - 1, Math.max(0, Math.floor(this.x(each.began) / BIN)));
      all[bin] += 1;
      if (each.failed) failed[bin] += 1;
    }
    const most = Math.sqrt(Math.max(1, ...all));
    // By the root, so that a lone run is still seen beside a burst of hundreds.
    const tall = (number) => (number ? Math.max(2, (Math.sqrt(number) / most) * (height - 10)) : 0);
    for (let bin = 0; bin < bins; bin += 1) {
      const up = tall(all[bin]);
      context.fillStyle = this.look.states[this.started];
      context.fillRect(bin * BIN, height - up, BIN - 1, up);
      if (!failed[bin]) continue;
      const bad = Math.max(3, (up * failed[bin]) / all[bin]);
      context.fillStyle = this.look.bad;
      context.fillRect(bin * BIN, height - Math.max(up, bad), BIN - 1, bad);
    }
  }

  get started() {
    return this.view.log.states.indexOf("started");
  }

  get grips() {
    const [x, x2] = [this.x(this.view.from), this.x(this.view.to)];
    const spare = Math.max(0, 8 - (x2 - x)) / 2;  // A narrow window can still be seen and taken.
    return [x - spare, x2 + spare];
  }

  #drawWindow(context, width, height) {
    const [x, x2] = this.grips;
    context.globalAlpha = 0.5;
    context.fillStyle = this.look.card;
    context.fillRect(0, 0, x, height);
    context.fillRect(x2, 0, width - x2, height);
    context.globalAlpha = 1;
    context.strokeStyle = this.look.accent;
    context.lineWidth = 1.5;
    context.strokeRect(x + 0.75, 0.75, x2 - x - 1.5, height - 1.5);
    context.fillStyle = this.look.accent;
    for (const grip of [x, x2]) context.fillRect(grip - 2, height / 2 - 8, 4, 16);
  }

  #sayWhere() {
    const { view, element } = this;
    const { from, to } = view.widest;
    const part = (view.from - from) / Math.max(to - from - (view.to - view.from), 1);
    element.setAttribute("aria-valuenow", String(Math.round(Math.min(part, 1) * 100)));
    element.setAttribute("aria-valuetext", span(view.from, view.to));
  }

  #grab(event) {
    const x = event.offsetX;
    const { view } = this;
    const [left, right] = this.grips;
    this.element.setPointerCapture(event.pointerId);
    const near = event.pointerType === "touch" ? GRIP * 2 : GRIP;
    const isWide = right - left > near * 3;
    let part = "inside";
    if (isWide && Math.abs(x - left) <= near) part = "left";
    else if (isWide && Math.abs(x - right) <= near) part = "right";
    else if (x < left || x > right) {
      const half = (view.to - view.from) / 2;
      view.show(this.timeAt(x) - half, this.timeAt(x) + half);
    }
    this.drag = { part, x, from: view.from, to: view.to };
  }

  #move(event) {
    if (!this.drag) return;
    const { part, x, from, to } = this.drag;
    const by = this.timeAt(event.offsetX) - this.timeAt(x);
    if (part === "left") this.view.show(Math.min(from + by, to - NARROWEST_MS), to);
    else if (part === "right") this.view.show(from, Math.max(to + by, from + NARROWEST_MS));
    else this.view.show(from + by, to + by);
  }
}

// How much a turn of the wheel zooms: small steps for pads, whole ones for wheels with notches.
function wheelFactor(event) {
  const pixels = event.deltaMode === 1 ? event.deltaY * 30 : event.deltaY;
  return Math.exp(Math.max(-120, Math.min(120, pixels)) * (event.ctrlKey ? 0.006 : 0.003));
}
