// What follows the filters: figures, how long things took, failures by cause, and the plain list.

const SVG = "http://www.w3.org/2000/svg";
const CHART = { width: 300, height: 92, top: 4, bottom: 20, side: 6 };
const BINS_A_DECADE = 6;
const DURATION_TICKS = [
  1, 10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 36_000_000, 86_400_000, 864_000_000,
];
const AROUND_A_MARK_MS = 600_000;
const MOST_CAUSES = 40;
const MOST_LISTED = 200;

// What is measured: a name, and the milliseconds of one submission, or null.
function measures(log) {
  const inState = (name) => {
    const state = log.states.indexOf(name);
    // The state that an open one is in has not been left yet.
    return (each) => (each.open && each.state === state ? null : each.spent.get(state) ?? null);
  };
  return [
    ["From due to discovered", (each) => (each.due ? Math.max(each.began - each.due, 0) : null)],
    ["From discovered to started", (each) => each.toStart],
    ["Discovered: claiming it", inState("discovered")],
    ["Resolving: what to launch", inState("resolving")],
    ["Launching", inState("launching")],
    ["Started: the command ran", inState("started")],
    ["Exited: telling the server", inState("exited")],
    ["Failed: telling the server", inState("failed")],
  ];
}

function showFigures(view, submissions) {
  const starts = submissions.map((each) => each.toStart).filter((ms) => ms !== null);
  starts.sort((a, b) => a - b);
  const number = (test) => submissions.filter(test).length;
  const failed = number((each) => each.failed);
  const share = submissions.length ? (failed / submissions.length) * 100 : 0;
  const figures = [
    [count(submissions.length), view.isFiltered ? `of ${count(view.log.all.length)} submissions`
      : submissions.length === 1 ? "submission" : "submissions", ""],
    [count(failed), failed ? `failed · ${share < 10 ? share.toFixed(1) : share.toFixed(0)} %`
      : "failed", failed ? "bad" : ""],
    [count(number((each) => each.open)), "still open", ""],
    [count(number((each) => each.recoveries.length)), "taken over", ""],
    [starts.length ? duration(quantile(starts, 0.5)) : "–", "to start (p50)", ""],
    [starts.length ? duration(quantile(starts, 0.95)) : "–", "to start (p95)", ""],
  ];
  byId("figures").replaceChildren(...figures.map(([value, name, style]) =>
    make("div", style, make("dt", "", name), make("dd", "", value))));
}

function showLatencies(view, submissions) {
  const cards = [];
  for (const [name, measure] of measures(view.log)) {
    const measured = submissions.map((each) => [measure(each), each]).filter(([ms]) => ms !== null);
    if (!measured.some(([ms]) => ms > 0)) continue;
    measured.sort((a, b) => a[0] - b[0]);
    cards.push(chartCard(view, name, measured));
  }
  if (!cards.length) cards.push(make("p", "quiet", "Nothing to measure."));
  byId("charts").replaceChildren(...cards);
}

function chartCard(view, name, measured) {
  const values = measured.map(([ms]) => ms);
  const [, slowest] = measured.at(-1);
  const figure = make("figure", "card chart",
    make("figcaption", "", make("h3", "", name), make("span", "quiet", count(values.length))));
  const shares = [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]];
  const marks = shares.map(([label, share]) => [label, quantile(values, share)]);
  figure.append(histogram(values, marks));
  const list = make("dl", "shares");
  for (const [label, ms] of marks) {
    list.append(make("div", "", make("dt", "", label), make("dd", "", duration(ms))));
  }
  const open = button("link", duration(values.at(-1)), () => view.open(slowest),
    `Longest: ${duration(values.at(-1))}, ${slowest.name}; open it`);
  list.append(make("div", "", make("dt", "", "max"), make("dd", "", open)));
  figure.append(list);
  return figure;
}

// Bars over a logarithmic scale. What took no time at all stands in the first bar.
function histogram(values, marks) {
  const least = Math.max(values.find((ms) => ms > 0) ?? 1, 0.1);
  const most = Math.max(values.at(-1), least * 10);
  const [low, high] = [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most) + 1e-9)];
  const bins = new Array((high - low) * BINS_A_DECADE).fill(0);
  const place = (ms) => (Math.log10(Math.max(ms, least)) - low) / (high - low);
  for (const ms of values) {
    bins[Math.min(bins.length - 1, Math.floor(place(ms) * bins.length))] += 1;
  }
  const { width, height, top, bottom, side } = CHART;
  const x = (part) => side + part * (width - 2 * side);
  const svg = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", marks.map(([label, ms]) => `${label} ${duration(ms)}`).join(", "));
  const tallest = Math.max(...bins);
  bins.forEach((number, index) => {
    if (!number) return;
    const up = Math.max(1.5, (number / tallest) * (height - top - bottom));
    const [left, right] = [x(index / bins.length), x((index + 1) / bins.length)];
    const bar = svgElement("rect", {
      class: "bin", x: left + 0.5, y: height - bottom - up, width: right - left - 1, height: up, rx: 1,
    });
    const edge = (step) => duration(10 ** (low + step / BINS_A_DECADE));
    const title = svgElement("title", {});
    title.textContent = `${edge(index)} to ${edge(index + 1)}: ${count(number)}`;
    bar.append(title);
    svg.append(bar);
  });
  marks.forEach(([label, ms]) => {
    const at = x(place(ms));
    svg.append(svgElement("line", {
      class: `mark ${label}`, x1: at, x2: at, y1: top, y2: height - bottom,
    }));
  });
  svg.append(svgElement("line", {
    class: "base", x1: side, x2: width - side, y1: height - bottom, y2: height - bottom,
  }));
  let free = 0;
  for (const tick of DURATION_TICKS) {
    const part = (Math.log10(tick) - low) / (high - low);
    if (part < 0 || part > 1) continue;
    const text = svgElement("text", { x: x(part), y: height - 6, class: "tick" });
    text.textContent = shortDuration(tick);
    const half = text.textContent.length * 3.2;
    const at = Math.min(Math.max(x(part), half), width - half);
    if (at - half < free) continue;
    text.setAttribute("x", at);
    free = at + half + 6;
    svg.append(text);
  }
  return svg;
}

function svgElement(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function showCauses(view, submissions) {
  const causes = new Map();
  for (const each of submissions) {
    if (!each.cause) continue;
    if (!causes.has(each.cause)) causes.set(each.cause, []);
    causes.get(each.cause).push(each);
  }
  const sorted = [...causes].sort((a, b) => b[1].length - a[1].length);
  const total = sorted.reduce((sum, [, failures]) => sum + failures.length, 0);
  const rows = sorted.slice(0, MOST_CAUSES)
    .map(([cause, failures]) => causeRow(view, cause, failures, sorted[0][1].length));
  if (sorted.length > MOST_CAUSES) {
    rows.push(make("li", "quiet", `and ${count(sorted.length - MOST_CAUSES)} rarer causes`));
  }
  if (!rows.length) rows.push(make("li", "quiet", "Nothing failed."));
  byId("causes").replaceChildren(...rows);
  byId("causes-count").textContent = total
    ? `${plural(total, "failure")} of ${plural(sorted.length, "cause")}` : "";
}

function causeRow(view, cause, failures, most) {
  const [step, ...words] = cause.split(": ");
  const row = button("cause", "", () => view.setFilter({
    cause: view.filter.cause === cause ? "" : cause,
  }));
  row.setAttribute("aria-pressed", String(view.filter.cause === cause));
  const bar = make("span", "part");
  bar.style.width = `${(failures.length / most) * 100}%`;
  row.append(
    make("span", "number", count(failures.length)),
    make("span", "share", bar),
    make("span", "tag", step),
    make("span", "words", words.join(": ")),
    make("span", "quiet where", whereAndWhen(view.log, failures)),
  );
  return make("li", "", row);
}

function whereAndWhen(log, failures) {
  const deployments = new Map();
  for (const each of failures) {
    const name = log.deploymentName(each.deployment);
    deployments.set(name, (deployments.get(name) ?? 0) + 1);
  }
  const sorted = [...deployments].sort((a, b) => b[1] - a[1]);
  const names = sorted.slice(0, 2).map(([name]) => name);
  if (sorted.length > 2) names.push(`${sorted.length - 2} more`);
  const [first, last] = [failures[0].began, failures.at(-1).began];
  const when = failures.length === 1 ? dayAndClock(first) : span(first, last);
  return `${names.join(", ")} · ${when}`;
}

// The same for those who do not look at bars: the submissions that the timeline shows.
function showList(view) {
  const rows = view.inWindow();
  const shown = rows.slice(0, MOST_LISTED);
  byId("list-count").textContent = rows.length > shown.length
    ? `the first ${MOST_LISTED} of ${count(rows.length)} in this time`
    : `${count(rows.length)} in this time`;
  if (!byId("list").open) return;
  byId("listed").replaceChildren(...shown.map((each) => {
    const name = button("link", each.name, () => view.open(each));
    const cells = [
      make("td", "number", dayAndClock(each.began)), make("td", "", name),
      make("td", "", each.queue), make("td", "number", duration(each.took) + (each.open ? "+" : "")),
      make("td", "", each.says), make("td", each.failed ? "bad" : "quiet", each.outcome),
    ];
    return make("tr", "", ...cells);
  }));
}

function showHappened(view) {
  const rows = view.log.marks.map((mark) => {
    const lasted = mark.to === null ? "" : ` for ${duration(mark.to - mark.at)}`;
    const row = button("cause", "", () => {
      const half = Math.min((view.to - view.from) / 2, AROUND_A_MARK_MS);
      view.show(mark.at - half, (mark.to ?? mark.at) + half);
      byId("timeline-heading").scrollIntoView({ block: "start" });
    });
    row.append(
      make("span", `dot ${mark.kind}`),
      make("span", "when", dayAndClock(mark.at)),
      make("span", "words", `${mark.title}${lasted}`),
      make("span", "quiet where", mark.text),
    );
    return make("li", "", row);
  });
  if (!rows.length) rows.push(make("li", "quiet", "None in this time."));
  byId("happened").replaceChildren(...rows);
}
