// The timeline: an axis with what happened to the agent, and a bar for each submission that lives
// in the window. Rows are drawn on a canvas that stays where it is while the page's own scrollbar
// moves over a space as high as all rows: however many there are, a frame draws those in sight.

const WIDE_LABELS = 640;
const STEPS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500,
  ...[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800].map((s) => s * 1000),
  ...[1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 744, 2208, 8760].map((h) => h * 3_600_000),
];
const DAY = 86_400_000;

// A canvas that is as sharp as the screen, in CSS pixels. Returns its context, width and height.
function prepare(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.parentElement.clientWidth;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

// The colours of the style sheet, for what is drawn; read again when the scheme changes.
function readColours(states) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["ink", "quiet", "line", "faint", "card", "accent", "bad", "outage", "stopped",
    "start", "choice", "good"];
  return {
    ...Object.fromEntries(names.map((name) => [name, colour(name)])),
    states: states.map((state) => colour(`state-${state}`)),
    font: style.getPropertyValue("--font").trim(),
  };
}

class Timeline {
  constructor(view, look) {
    Object.assign(this, { view, look, rows: [], hovered: null, isCompact: false, pinned: null });
    this.scroller = byId("rows");
    this.canvas = this.scroller.querySelector("canvas");
    this.height = this.scroller.querySelector(".height");
    this.axis = byId("axis").querySelector("canvas");
    this.draw = onceAFrame(() => this.#draw());
    this.scroller.addEventListener("scroll", this.draw, { passive: true });
    new ResizeObserver(() => this.refresh()).observe(this.scroller);
    view.addEventListener("window", () => this.refresh());
    view.addEventListener("filter", () => this.refresh());
    view.addEventListener("chosen", this.draw);
    this.refresh();
  }

  get isNarrow() {
    return this.scroller.clientWidth < WIDE_LABELS;
  }

  get rowHeight() {
    if (this.isCompact) return 8;
    return this.isNarrow ? 38 : 24;
  }

  get left() {
    return this.isNarrow || this.isCompact ? 8 : 208;
  }

  // As high as what matches needs, but no higher than lets the rest of the page be seen.
  #fitHeight() {
    const most = Math.min(640, Math.max(260, window.innerHeight * 0.56));
    const height = Math.max(96, Math.min(most, this.view.matching.length * this.rowHeight + 14));
    this.scroller.style.height = `${Math.round(height)}px`;
    this.height.style.marginTop = `${-Math.round(height)}px`;
  }

  get plotWidth() {
    return Math.max(this.scroller.clientWidth - this.left - (this.isNarrow ? 8 : 12), 10);
  }

  x(at) {
    const { from, to } = this.view;
    return this.left + ((at - from) / (to - from)) * this.plotWidth;
  }

  timeAt(x) {
    const { from, to } = this.view;
    return from + ((x - this.left) / this.plotWidth) * (to - from);
  }

  // Takes the rows anew. The row at `y` (in the middle, or at the pointer) stays where it is.
  refresh(y = this.pinned) {
    const before = this.rows;
    const scroll = this.scroller.scrollTop;
    const at = y ?? (this.view.chosen ? this.#yOf(this.view.chosen, before) : null) ?? 0;
    const kept = before[Math.min(Math.floor((scroll + at) / this.rowHeight), before.length - 1)];
    this.rows = this.view.inWindow();
    this.#fitHeight();
    this.height.style.height = `${this.rows.length * this.rowHeight + 12}px`;
    if (kept && (scroll > 0 || at > 0)) {
      const offset = before.indexOf(kept) * this.rowHeight - scroll;
      this.scroller.scrollTop = positionOf(this.rows, kept) * this.rowHeight - offset;
    }
    this.draw();
  }

  #yOf(submission, rows) {
    const index = rows.indexOf(submission);
    const y = index * this.rowHeight - this.scroller.scrollTop;
    return index >= 0 && y >= 0 && y < this.scroller.clientHeight ? y : null;
  }

  // Scrolls a submission's row into sight.
  reveal(submission) {
    const index = this.rows.indexOf(submission);
    if (index < 0) return;
    const [top, height] = [index * this.rowHeight, this.scroller.clientHeight];
    const { scrollTop } = this.scroller;
    if (top < scrollTop || top + this.rowHeight > scrollTop + height) {
      this.scroller.scrollTop = top - height / 3;
    }
    this.draw();
  }

  // The submission at a height of the canvas, and the moment at a place of it.
  at(x, y) {
    const row = this.rows[Math.floor((y + this.scroller.scrollTop) / this.rowHeight)] ?? null;
    return { row, time: this.timeAt(x) };
  }

  #draw() {
    this.#drawAxis();
    const [context, width, height] = prepare(this.canvas, this.scroller.clientHeight);
    const { look } = this;
    this.#drawGrid(context, height);
    this.#drawMarks(context, height);
    const first = Math.floor(this.scroller.scrollTop / this.rowHeight);
    const last = Math.ceil((this.scroller.scrollTop + height) / this.rowHeight);
    context.textBaseline = "middle";
    for (let index = first; index < Math.min(last, this.rows.length); index += 1) {
      const y = index * this.rowHeight - this.scroller.scrollTop;
      this.#drawRow(context, this.rows[index], y, width);
    }
    context.fillStyle = look.line;
    if (this.left > 100) context.fillRect(this.left - 8, 0, 1, height);
    this.#showWhatIsMissing();
  }

  ticks() {
    const { from, to } = this.view;
    const perPixel = (to - from) / this.plotWidth;
    const step = STEPS.find((each) => each / perPixel >= (this.isNarrow ? 74 : 96)) ?? STEPS.at(-1);
    const offset = -new Date((from + to) / 2).getTimezoneOffset() * 60_000;
    const ticks = [];
    for (let at = Math.ceil((from + offset) / step) * step - offset; at <= to; at += step) {
      ticks.push({ at, text: tickText(at, step, offset), isDay: (at + offset) % DAY === 0 });
    }
    return ticks;
  }

  #drawAxis() {
    const [context, width, height] = prepare(this.axis, 44);
    const { look } = this;
    context.font = `11.5px ${look.font}`;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    for (const { at, text, isDay } of this.ticks()) {
      const x = this.x(at);
      context.fillStyle = look.line;
      context.fillRect(Math.round(x), height - 5, 1, 5);
      context.fillStyle = isDay ? look.ink : look.quiet;
      const half = context.measureText(text).width / 2;
      if (x - half >= this.left - 6 && x + half <= width) context.fillText(text, x, height - 10);
    }
    this.#drawFlags(context, width);
    context.fillStyle = look.line;
    context.fillRect(0, height - 1, width, 1);
  }

  // Above the times: a flag for each start of an agent, a name for each outage, where it fits.
  #drawFlags(context, width) {
    const { look, view } = this;
    context.textAlign = "left";
    let free = this.left;
    for (const mark of view.log.marks) {
      const [x, end] = [this.x(mark.at), this.x(mark.to ?? mark.at)];
      if (end < this.left - 1 || x > width) continue;
      const begin = Math.max(x, this.left);
      context.fillStyle = look[mark.kind] ?? look.quiet;
      if (mark.to === null) flag(context, Math.round(x), 3);
      else context.fillRect(begin, 3, Math.max(Math.min(end, width) - begin, 2), 4);
      const text = mark.to === null ? mark.title : `${mark.title} ${duration(mark.to - mark.at)}`;
      const from = begin + (mark.to === null ? 12 : 0);
      const wide = context.measureText(text).width;
      // An agent that stopped is told by the one that started after it, where there is no room.
      if (mark.kind === "stopped" && end - begin < wide + 8) continue;
      if (from < free || from + wide > width) continue;
      context.fillText(text, from, mark.to === null ? 14 : 19);
      free = from + wide + 10;
    }
  }

  #drawGrid(context, height) {
    context.fillStyle = this.look.faint;
    for (const { at } of this.ticks()) {
      const x = Math.round(this.x(at));
      if (x >= this.left) context.fillRect(x, 0, 1, height);
    }
  }

  #drawMarks(context, height) {
    const { look, view } = this;
    const right = this.left + this.plotWidth;
    for (const mark of view.log.marks) {
      const x = this.x(mark.at);
      if (mark.to !== null) {
        const [begin, end] = [Math.max(x, this.left), Math.min(this.x(mark.to), right)];
        context.globalAlpha = 0.13;
        context.fillStyle = look[mark.kind];
        if (end > begin) context.fillRect(begin, 0, Math.max(end - begin, 1), height);
        context.globalAlpha = 1;
      } else if (x >= this.left && x <= right && mark.kind !== "queue") {
        context.strokeStyle = look[mark.kind] ?? look.quiet;
        context.setLineDash([4, 3]);
        line(context, Math.round(x) + 0.5, 0, Math.round(x) + 0.5, height);
        context.setLineDash([]);
      }
    }
  }

  #drawRow(context, row, y, width) {
    const { look, isNarrow, rowHeight } = this;
    if (row === this.view.chosen || row === this.hovered) {
      context.globalAlpha = row === this.view.chosen ? 1 : 0.5;
      context.fillStyle = look.choice;
      context.fillRect(0, y, width, rowHeight);
      context.globalAlpha = 1;
    }
    const middle = isNarrow && !this.isCompact ? y + 26 : y + rowHeight / 2;
    const end = this.#drawBar(context, row, middle);
    if (this.isCompact) return;
    context.font = `12.5px ${look.font}`;
    context.textAlign = "left";
    context.fillStyle = row.failed ? look.bad : look.ink;
    if (isNarrow) {
      const note = row.failed ? row.cause : duration(row.took);
      context.fillText(cut(context, row.name, width * 0.5), this.left, y + 11);
      const used = context.measureText(cut(context, row.name, width * 0.5)).width + 12;
      context.fillStyle = look.quiet;
      context.fillText(cut(context, note, width - used - 20), this.left + used, y + 11);
      return;
    }
    context.fillText(cut(context, row.name, this.left - 44), 26, middle);
    drawSign(context, row, 13, middle, look);
    context.fillStyle = look.quiet;
    context.font = `11.5px ${look.font}`;
    const text = row.failed ? row.outcome.split("\n")[0] : duration(row.took) + (row.open ? "+" : "");
    const room = this.left + this.plotWidth - end - 8;
    if (room > 46) context.fillText(cut(context, text, room), end + 8, middle);
  }

  // Draws the states of a submission one after the other; returns where the drawing ends.
  #drawBar(context, row, middle) {
    const { look, view } = this;
    const [leftmost, rightmost] = [this.left, this.left + this.plotWidth];
    const half = this.isCompact ? 3 : this.isNarrow ? 6 : 6.5;
    const begin = this.x(row.began);
    const end = Math.max(this.x(row.end), begin + 3);
    const clip = (x) => Math.min(Math.max(x, leftmost), rightmost);
    let at = row.began;
    for (let i = 0; i < row.stretches.length; i += 2) {
      const until = at + row.stretches[i + 1];
      const [x, x2] = [clip(this.x(at)), clip(this.x(until))];
      at = until;
      if (x2 - x < 0.3) continue;
      context.fillStyle = look.states[row.stretches[i]];
      context.fillRect(x, middle - half, x2 - x, half * 2);
    }
    if (end - begin <= 3.01) {
      context.fillStyle = look.states[row.mostly];
      context.fillRect(clip(begin), middle - half, 3, half * 2);
    }
    for (const after of row.recoveries) {
      const x = this.x(row.began + after);
      if (x >= leftmost && x <= rightmost) diamond(context, x, middle, half, look);
    }
    const endsInside = row.end <= view.to && row.end >= view.from;
    if (row.failed && endsInside) {
      cross(context, clip(end) + 7, middle, look.bad, half / 2);
      return clip(end) + 14;
    }
    if (row.open && endsInside) {
      context.fillStyle = look.states[row.state];
      triangle(context, clip(end) + 1, middle, half);
      return clip(end) + 9;
    }
    return clip(end);
  }

  #showWhatIsMissing() {
    const nothing = byId("nothing");
    nothing.hidden = this.rows.length > 0;
    if (nothing.hidden) return;
    const elsewhere = this.view.matching.length;
    nothing.querySelector("span").textContent = elsewhere
      ? "Nothing that matches lived in this time." : "No submission matches.";
    nothing.querySelector("button").textContent = elsewhere
      ? `Show ${elsewhere === 1 ? "the one that does" : `the ${count(elsewhere)} that do`}`
      : "Clear the filters";
  }
}

function tickText(at, step, offset) {
  if ((at + offset) % DAY === 0) return day(at);
  if (step < 1000) return clock(at, { milliseconds: true });
  return clock(at, { seconds: step < 60_000 });
}

// Where a submission is, or would be, among rows in the order in which they began.
function positionOf(rows, submission) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].index < submission.index) low = middle + 1;
    else high = middle;
  }
  return low;
}

const widths = new Map();

// A text that is no wider than there is room, with an ellipsis where it was cut.
function cut(context, text, room) {
  const key = `${context.font}\n${room | 0}\n${text}`;
  const known = widths.get(key);
  if (known !== undefined) return known;
  if (widths.size > 4000) widths.clear();
  let result = text;
  if (context.measureText(text).width > room) {
    let [low, high] = [0, Math.min(text.length, 400)];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (context.measureText(`${text.slice(0, middle)}…`).width <= room) low = middle;
      else high = middle - 1;
    }
    result = low ? `${text.slice(0, low).trimEnd()}…` : "";
  }
  widths.set(key, result);
  return result;
}
