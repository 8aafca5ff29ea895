// What a mouse or fingers do to the timeline: dragging moves the time, two fingers or the wheel zoom,
// a click opens a submission, and what is under the pointer is told beside it.

const DRAG_FROM = 4;

class Pointers {
  constructor(view, timeline) {
    Object.assign(this, { view, timeline, down: new Map(), drag: null });
    const { scroller } = timeline;
    const on = (name, action, options) => scroller.addEventListener(name, action, options);
    on("pointerdown", (event) => this.#press(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#release(event));
    on("pointercancel", (event) => this.#release(event));
    on("pointerleave", () => hideTip(timeline));
    on("dblclick", (event) => {
      const { row } = timeline.at(...this.#place(event));
      if (row) view.fit([row]);
    });
    on("wheel", (event) => this.#turn(event), { passive: false });
    const axis = byId("axis");
    axis.addEventListener("wheel", (event) => this.#turn(event, true), { passive: false });
    axis.addEventListener("pointermove", (event) => hoverMark(view, timeline, event));
    axis.addEventListener("pointerleave", () => hideTip(timeline));
  }

  #place(event) {
    const box = this.timeline.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // Does something while the row at a height stays where it is.
  #pinned(y, action) {
    this.timeline.pinned = y;
    action();
    this.timeline.pinned = null;
  }

  #press(event) {
    const { view, timeline, down } = this;
    if (event.button !== 0 || event.target !== timeline.canvas) return;
    const [x, y] = this.#place(event);
    down.set(event.pointerId, [x, y]);
    this.drag = { x, y, lastY: y, from: view.from, to: view.to, moved: false,
      pinch: down.size === 2 ? spread(down) : null };
  }

  #move(event) {
    const { down, drag } = this;
    const [x, y] = this.#place(event);
    if (!down.has(event.pointerId)) {
      hover(this.view, this.timeline, event, x, y);
      return;
    }
    down.set(event.pointerId, [x, y]);
    if (drag.pinch && down.size === 2) this.#pinch();
    else if (drag.moved || Math.hypot(x - drag.x, y - drag.y) >= DRAG_FROM) this.#pull(event, x, y);
  }

  // The moments that were under two fingers stay under them.
  #pinch() {
    const { drag, timeline, view } = this;
    const now = spread(this.down);
    drag.moved = true;
    const before = drag.to - drag.from;
    const length = before * Math.min(20, Math.max(0.05, drag.pinch.size / now.size));
    const part = (x) => (x - timeline.left) / timeline.plotWidth;
    const from = drag.from + part(drag.pinch.x) * before - part(now.x) * length;
    this.#pinned(now.y, () => view.show(from, from + length));
  }

  #pull(event, x, y) {
    const { drag, timeline, view } = this;
    if (!drag.moved) {
      drag.moved = true;
      timeline.scroller.setPointerCapture(event.pointerId);
      timeline.scroller.classList.add("dragged");
      hideTip(timeline);
    }
    const by = ((drag.x - x) / timeline.plotWidth) * (drag.to - drag.from);
    // A finger scrolls the rows by itself, as it scrolls any page.
    if (event.pointerType === "mouse") timeline.scroller.scrollTop += drag.lastY - y;
    drag.lastY = y;
    this.#pinned(y, () => view.show(drag.from + by, drag.to + by));
  }

  #release(event) {
    const { view, timeline, drag } = this;
    this.down.delete(event.pointerId);
    timeline.scroller.classList.remove("dragged");
    if (event.type === "pointerup" && drag && !drag.moved) {
      const { row } = timeline.at(...this.#place(event));
      if (row) {
        view.open(row, { bring: false });
        byId("panel").focus({ preventScroll: true });
      } else if (view.opened) view.open(null);
    }
    if (!this.down.size) this.drag = null;
  }

  // The wheel scrolls the rows, as it does any page; with a key, or on the axis, it zooms.
  #turn(event, zooms = event.ctrlKey || event.metaKey) {
    const { view, timeline } = this;
    const [x, y] = this.#place(event);
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (zooms) {
      event.preventDefault();
      const pin = event.target === timeline.canvas ? y : null;
      this.#pinned(pin, () => view.zoom(wheelFactor(event), timeline.timeAt(x)));
    } else if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
      event.preventDefault();
      view.pan(sideways / timeline.plotWidth);
    }
    hideTip(timeline);
  }
}

// Where two fingers are, and how far apart.
function spread(pointers) {
  const [[x, y], [x2, y2]] = pointers.values();
  return { x: (x + x2) / 2, y: (y + y2) / 2, size: Math.max(Math.hypot(x - x2, y - y2), 20) };
}

function hover(view, timeline, event, x, y) {
  if (event.pointerType === "touch") return;
  const { row, time } = timeline.at(x, y);
  if (row !== timeline.hovered) {
    timeline.hovered = row;
    timeline.draw();
  }
  if (!row) {
    hideTip(timeline);
    return;
  }
  const lines = [make("strong", row.failed ? "bad" : "", row.name), make("span", "", row.outcome
    || row.says)];
  const state = stateAt(view.log, row, time);
  const now = state ? `${state[0]} for ${duration(state[1])} · ` : "";
  lines.push(make("span", "quiet",
    `${now}began ${clock(row.began)} · ${row.open ? "open for" : "took"} ${duration(row.took)}`));
  lines.push(make("span", "quiet",
    `${row.queue} · ${view.log.deploymentName(row.deployment)}`));
  showTip(event, lines);
}

function stateAt(log, row, time) {
  let at = row.began;
  for (let i = 0; i < row.stretches.length; i += 2) {
    const took = row.stretches[i + 1];
    if (time >= at && time < at + took) return [log.states[row.stretches[i]], took];
    at += took;
  }
  return null;
}

function hoverMark(view, timeline, event) {
  const x = event.offsetX;
  const mark = view.log.marks.findLast((each) => {
    const [begin, end] = [timeline.x(each.at), timeline.x(each.to ?? each.at)];
    return x >= begin - 5 && x <= end + 9;
  });
  if (!mark) {
    hideTip(timeline);
    return;
  }
  const lasted = mark.to === null ? "" : ` for ${duration(mark.to - mark.at)}`;
  showTip(event, [make("strong", "", `${mark.title}${lasted}`), make("span", "", mark.text),
    make("span", "quiet", dayAndClock(mark.at))]);
}

function showTip(event, lines) {
  const tip = byId("tip");
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = Math.min(event.clientX + 14, window.innerWidth - width - 8);
  const below = event.clientY + 18;
  const top = below + height > window.innerHeight ? event.clientY - height - 12 : below;
  tip.style.transform = `translate(${Math.max(left, 8)}px, ${Math.max(top, 8)}px)`;
}

function hideTip(timeline) {
  byId("tip").hidden = true;
  if (!timeline.hovered) return;
  timeline.hovered = null;
  timeline.draw();
}
