// Ties the parts together: filters, buttons, keys, the address, and when what is drawn again.

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
  new Pointers(view, timeline);
  connectButtons(view, timeline);
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

// --- buttons -----------------------------------------------------------------------------------

function connectButtons(view, timeline) {
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

function openFailure(view, step) {
  const failure = view.nextFailure(step);
  if (failure) view.open(failure);
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
