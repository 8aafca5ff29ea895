// Ties the parts together: filters, pointers, keys, the address, and when what is drawn again.

const FILTERS = ["state", "queue", "deployment"];
const SWITCHES = { failed: "failed", slow: "slow", inWindow: "in-window" };

async function main() {
  const log = new Log(await unpack());
  const view = new View(log);
  const look = readColours(log.states);
  byId("loading").hidden = true;
  byId("report").hidden = false;
  describeLog(log);
  fillFilters(view);
  const timeline = new Timeline(view, look);
  const overview = new Overview(view, look);
  showHappened(view);
  connectShowing(view, timeline);
  connectFilters(view);
  connectPointers(view, timeline);
  connectKeys(view, timeline);
  readAddress(view, timeline);
  const noted = afterRest(() => writeAddress(view));
  for (const what of ["filter", "window", "opened"]) view.addEventListener(what, noted);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    Object.assign(look, readColours(log.states));
    timeline.draw();
    overview.draw();
  });
  document.documentElement.dataset.ready = "yes";
}

function describeLog(log) {
  byId("title").textContent = log.title;
  const lasts = log.all.length ? `${span(log.from, log.to)} · ` : "";
  byId("subtitle").textContent = `${lasts}times: ${zoneInWords(log.to)}`;
  if (log.leftOut) {
    const notice = byId("left-out");
    notice.hidden = false;
    notice.textContent = `The newest ${plural(log.all.length, "submission")} of the log are here;`
      + ` ${plural(log.leftOut, "older one")} ${log.leftOut === 1 ? "is" : "are"} left out.`;
  }
  byId("colophon").textContent = "Made from the log alone by pluperfect replay report. This page"
    + " holds everything it shows and asks no network.";
}

// --- what is shown when ----------------------------------------------------------------------

function connectShowing(view, timeline) {
  const counted = onceAFrame(() => {
    const submissions = view.counted;
    showFigures(view, submissions);
    showLatencies(view, submissions);
    showCauses(view, submissions);
  });
  const windowed = onceAFrame(() => {
    const rows = timeline.rows.length;
    byId("window").textContent = `${span(view.from, view.to)} · ${plural(rows, "submission")}`;
    Object.assign(byId("window").dataset, { from: view.from, to: view.to });
    showList(view);
  });
  view.addEventListener("counted", counted);
  // Counting takes several frames' time, so it waits until the window has stopped moving.
  const moved = afterRest(counted);
  view.addEventListener("window", () => {
    if (view.filter.inWindow) moved();
  });
  for (const what of ["window", "filter"]) view.addEventListener(what, windowed);
  byId("list").addEventListener("toggle", windowed);
  view.addEventListener("opened", () => {
    showPanel(view, view.opened);
    if (view.opened) requestAnimationFrame(() => timeline.reveal(view.opened));
  });
  view.addEventListener("chosen", () => {
    const { chosen } = view;
    byId("chosen").textContent = chosen
      ? `${chosen.name}, ${chosen.says}, ${chosen.outcome}, took ${duration(chosen.took)}` : "";
  });
  const legend = view.log.states.filter((name) => !["absent", "pending"].includes(name))
    .map((name) => make("li", "", make("span", `swatch state-${name}`), name));
  legend.push(make("li", "", make("span", "sign bad", "✕"), "a failure"),
    make("li", "", make("span", "sign start", "◆"), "taken over by a new agent"));
  byId("legend").replaceChildren(...legend);
  counted();
  windowed();
}

// --- filters -----------------------------------------------------------------------------------

function fillFilters(view) {
  const { log } = view;
  const options = (values, nameOf) => {
    const numbers = new Map();
    for (const value of values) numbers.set(value, (numbers.get(value) ?? 0) + 1);
    return [...numbers].map(([value, number]) => [nameOf(value), value, number])
      .sort((a, b) => a[0].localeCompare(b[0]));
  };
  const fill = (id, all, choices) => byId(id).replaceChildren(new Option(all, ""),
    ...choices.map(([name, value, number]) => new Option(`${name} (${count(number)})`, value)));
  fill("state", "Any state", options(log.all.map((each) => log.states[each.state]), (name) => name));
  fill("queue", "All queues", options(log.all.map((each) => each.queue), (name) => name));
  fill("deployment", "All deployments", options(log.all.map((each) => each.deployment).filter(Boolean),
    (id) => log.deploymentName(id)));
}

function connectFilters(view) {
  const search = byId("search");
  search.addEventListener("input", afterRest(() => view.setFilter({ text: search.value })));
  for (const name of FILTERS) {
    byId(name).addEventListener("change", (event) => view.setFilter({ [name]: event.target.value }));
  }
  for (const [name, id] of Object.entries(SWITCHES)) {
    byId(id).addEventListener("change", (event) => view.setFilter({ [name]: event.target.checked }));
  }
  byId("reset").addEventListener("click", () => view.setFilter(NO_FILTER));
  byId("cause-filter").querySelector("button")
    .addEventListener("click", () => view.setFilter({ cause: "" }));
  const more = byId("more-filters");
  const wide = matchMedia("(min-width: 760px)");
  const unfold = () => { more.open = wide.matches; };
  wide.addEventListener("change", unfold);
  unfold();
  view.addEventListener("filter", () => showFilter(view));
  showFilter(view);
}

// Makes the controls say what the filter is, however it came about.
function showFilter(view) {
  const { filter } = view;
  if (document.activeElement !== byId("search")) byId("search").value = filter.text;
  for (const name of FILTERS) byId(name).value = filter[name];
  for (const [name, id] of Object.entries(SWITCHES)) byId(id).checked = filter[name];
  byId("reset").hidden = !view.isFiltered;
  const cause = byId("cause-filter");
  cause.hidden = !filter.cause;
  cause.querySelector("span").textContent = filter.cause;
  const used = [...FILTERS, ...Object.keys(SWITCHES)].filter((name) => filter[name]).length;
  byId("filter-count").textContent = used ? ` (${used})` : "";
}

// --- pointers ----------------------------------------------------------------------------------

const DRAG_FROM = 4;

function connectPointers(view, timeline) {
  const { scroller, canvas } = timeline;
  const pointers = new Map();
  let drag = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const pinned = (y, action) => {
    timeline.pinned = y;
    action();
    timeline.pinned = null;
  };
  scroller.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target !== canvas) return;
    const [x, y] = place(event);
    pointers.set(event.pointerId, [x, y]);
    drag = { x, y, scroll: scroller.scrollTop, from: view.from, to: view.to, moved: false,
      pinch: pointers.size === 2 ? spread(pointers) : null };
  });
  scroller.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (!pointers.has(event.pointerId)) {
      hover(view, timeline, event, x, y);
      return;
    }
    pointers.set(event.pointerId, [x, y]);
    if (drag.pinch && pointers.size === 2) {
      const now = spread(pointers);
      drag.moved = true;
      const length = (drag.to - drag.from) * Math.min(20, Math.max(0.05, drag.pinch.size / now.size));
      const under = drag.from + ((drag.pinch.x - timeline.left) / timeline.plotWidth)
        * (drag.to - drag.from);
      const from = under - ((now.x - timeline.left) / timeline.plotWidth) * length;
      pinned(now.y, () => view.show(from, from + length));
      return;
    }
    if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < DRAG_FROM) return;
    if (!drag.moved) {
      drag.moved = true;
      scroller.setPointerCapture(event.pointerId);
      scroller.classList.add("dragged");
      hideTip(timeline);
    }
    const by = ((drag.x - x) / timeline.plotWidth) * (drag.to - drag.from);
    // A finger scrolls the rows by itself, as it scrolls any page.
    if (event.pointerType === "mouse") scroller.scrollTop += (drag.lastY ?? drag.y) - y;
    drag.lastY = y;
    pinned(y, () => view.show(drag.from + by, drag.to + by));
  });
  const release = (event) => {
    pointers.delete(event.pointerId);
    scroller.classList.remove("dragged");
    if (event.type === "pointerup" && drag && !drag.moved) {
      const [x, y] = place(event);
      const { row } = timeline.at(x, y);
      if (row) {
        view.open(row, { bring: false });
        byId("panel").focus({ preventScroll: true });
      } else if (view.opened) view.open(null);
    }
    if (!pointers.size) drag = null;
  };
  scroller.addEventListener("pointerup", release);
  scroller.addEventListener("pointercancel", release);
  scroller.addEventListener("pointerleave", () => hideTip(timeline));
  scroller.addEventListener("dblclick", (event) => {
    const { row } = timeline.at(...place(event));
    if (row) view.fit([row]);
  });
  const turn = (always) => (event) => {
    const [x, y] = place(event);
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey || event.metaKey || always) {
      event.preventDefault();
      pinned(always ? null : y, () => view.zoom(wheelFactor(event), timeline.timeAt(x)));
    } else if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
      event.preventDefault();
      view.pan(sideways / timeline.plotWidth);
    }
    hideTip(timeline);
  };
  scroller.addEventListener("wheel", turn(false), { passive: false });
  byId("axis").addEventListener("wheel", turn(true), { passive: false });
  byId("axis").addEventListener("pointermove", (event) => hoverMark(view, timeline, event));
  byId("axis").addEventListener("pointerleave", () => hideTip(timeline));
  const tools = {
    "zoom-in": () => view.zoom(0.5), "zoom-out": () => view.zoom(2), all: () => view.showAll(),
    compact: () => makeCompact(timeline),
    "failure-after": () => openFailure(view, 1), "failure-before": () => openFailure(view, -1),
  };
  for (const [id, action] of Object.entries(tools)) byId(id).addEventListener("click", action);
  byId("nothing").querySelector("button").addEventListener("click", () => {
    if (view.matching.length) view.fit(view.matching);
    else view.setFilter(NO_FILTER);
  });
}

function makeCompact(timeline) {
  timeline.isCompact = !timeline.isCompact;
  byId("compact").setAttribute("aria-pressed", String(timeline.isCompact));
  timeline.refresh();
}

function spread(pointers) {
  const [[x, y], [x2, y2]] = pointers.values();
  return { x: (x + x2) / 2, y: (y + y2) / 2, size: Math.max(Math.hypot(x - x2, y - y2), 20) };
}

function openFailure(view, step) {
  const failure = view.nextFailure(step);
  if (failure) view.open(failure);
}

// --- what is under the pointer --------------------------------------------------------------

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

// --- keys ------------------------------------------------------------------------------------

function connectKeys(view, timeline) {
  const step = (by) => {
    const { rows } = timeline;
    if (!rows.length) return;
    const index = rows.indexOf(view.chosen);
    const next = index < 0 ? rows[Math.ceil(timeline.scroller.scrollTop / timeline.rowHeight)] ?? rows[0]
      : rows[Math.min(Math.max(index + by, 0), rows.length - 1)];
    view.choose(next);
    timeline.reveal(next);
    if (view.opened) view.open(next, { bring: false });
  };
  const page = Math.max(1, Math.floor(timeline.scroller.clientHeight / timeline.rowHeight) - 1);
  const inTimeline = {
    ArrowUp: () => step(-1), ArrowDown: () => step(1),
    PageUp: () => step(-page), PageDown: () => step(page),
    ArrowLeft: () => view.pan(-0.12), ArrowRight: () => view.pan(0.12),
    Enter: () => {
      if (!view.chosen) return;
      view.open(view.chosen);
      byId("panel").focus({ preventScroll: true });
    },
  };
  const anywhere = {
    "+": () => view.zoom(0.6), "=": () => view.zoom(0.6), "-": () => view.zoom(1 / 0.6),
    0: () => view.showAll(), n: () => openFailure(view, 1), p: () => openFailure(view, -1),
    c: () => makeCompact(timeline), "/": () => byId("search").focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && view.opened) {
      view.open(null);
      timeline.scroller.focus({ preventScroll: true });
      return;
    }
    const { target } = event;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && target.type !== "checkbox") return;
    const onTimeline = target === timeline.scroller || target === byId("overview");
    const action = (onTimeline && inTimeline[event.key]) || anywhere[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

// --- the address: what is looked at can be sent to others -----------------------------------

function readAddress(view, timeline) {
  const read = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const filter = {};
    for (const name of Object.keys(NO_FILTER)) {
      if (asked.has(name)) {
        filter[name] = typeof NO_FILTER[name] === "boolean" ? asked.get(name) === "1"
          : asked.get(name);
      }
    }
    if (Object.keys(filter).length) view.setFilter({ ...NO_FILTER, ...filter });
    const [from, to] = [Number(asked.get("from")), Number(asked.get("to"))];
    const submission = asked.has("run") ? view.log.find(asked.get("run")) : null;
    if (from && to > from) view.show(from, to);
    else if (submission) view.fit([submission]);
    if (submission) view.open(submission);
  };
  read();
  window.addEventListener("hashchange", read);
}

function writeAddress(view) {
  const said = new URLSearchParams();
  if (view.opened) said.set("run", view.opened.id);
  for (const [name, value] of Object.entries(view.filter)) {
    if (value) said.set(name, value === true ? "1" : value);
  }
  said.set("from", String(Math.round(view.from)));
  said.set("to", String(Math.round(view.to)));
  try {
    history.replaceState(null, "", `#${said}`);
  } catch {
    // Some browsers allow no such thing for files; the page works without.
  }
}

main().catch((error) => {
  byId("loading").hidden = true;
  const trouble = byId("trouble");
  trouble.hidden = false;
  trouble.textContent = error.message;
  throw error;
});
