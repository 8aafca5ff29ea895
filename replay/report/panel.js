// One submission, opened: how it went, how long each state lasted, and every event, as
// `pluperfect replay show` tells them.

function showPanel(view, submission) {
  const panel = byId("panel");
  document.body.classList.toggle("with-panel", submission !== null);
  panel.hidden = submission === null;
  if (submission === null) {
    panel.replaceChildren();
    return;
  }
  panel.replaceChildren(
    panelHead(view, submission),
    make("div", "body",
      outcomeOf(submission), states(view.log, submission), facts(view, submission),
      events(view.log, submission)),
  );
  panel.querySelector(".body").scrollTop = 0;
}

function panelHead(view, submission) {
  const title = make("h2", "", submission.name);
  title.id = "panel-name";
  const move = (by) => () => {
    const rows = view.inWindow();
    const next = rows[positionOf(rows, submission) + by];
    if (next) view.open(next, { bring: false });
  };
  return make("div", "head", title, make("div", "tools",
    button("", "Fit", () => view.fit([submission]), "Fit the timeline to this submission"),
    button("", "‹", move(-1), "The submission before"),
    button("", "›", move(1), "The next submission"),
    button("close", "×", () => view.open(null), "Close")));
}

function outcomeOf(submission) {
  const { style, says } = submission;
  const pill = make("span", `pill ${style}`, says.toUpperCase());
  return make("p", "outcome", pill, " ", submission.outcome || submission.owed);
}

function states(log, submission) {
  const bar = make("div", "states");
  const list = make("ul", "legend");
  const { stretches } = submission;
  for (let i = 0; i < stretches.length; i += 2) {
    const [name, took] = [log.states[stretches[i]], stretches[i + 1]];
    if (!took) continue;  // Left within the append that entered it, as Pending always is.
    const part = make("span", `state-${name}`);
    // By the root: what took milliseconds is seen beside what took an hour.
    part.style.flexGrow = String(Math.sqrt(took) + 1);
    part.title = `${name} ${duration(took)}`;
    bar.append(part);
    list.append(make("li", "", make("span", `swatch state-${name}`), name, " ",
      make("strong", "", duration(took))));
  }
  return make("div", "", bar, list);
}

function facts(view, submission) {
  const { log } = view;
  const list = make("dl", "facts");
  const add = (name, ...value) => list.append(make("dt", "", name), make("dd", "", ...value));
  const whole = `${dayAndClock(submission.began, { milliseconds: true })}`;
  add("Began", whole);
  add(submission.open ? "Open for" : "Took", duration(submission.took)
    + (submission.open ? " when the log ends" : ""));
  if (submission.due) add("Was due", dayAndClock(submission.due, { milliseconds: true }));
  if (submission.open) add("Owed", submission.owed || "nothing");
  for (const extra of extras(submission)) add("Note", extra);
  const [name, flow] = log.deployments[submission.deployment] ?? [];
  if (submission.deployment) {
    add("Deployment", button("link", name || submission.deployment, () =>
      view.setFilter({ deployment: submission.deployment })), name
      ? make("span", "quiet id", submission.deployment) : null);
  }
  if (flow) add("Flow", flow);
  add("Queue", submission.queue);
  if (submission.attempt > 1) add("Attempt", String(submission.attempt));
  if (submission.cause) {
    const same = log.all.filter((each) => each.cause === submission.cause).length;
    add("Cause", submission.cause, same > 1 ? " " : null, same > 1 ? button("link",
      `Show all ${count(same)}`, () => view.setFilter({ ...NO_FILTER, cause: submission.cause }))
      : null);
  }
  add("Submission", make("span", "id", submission.id));
  if (submission.key) add("Launch key", make("span", "id", submission.key));
  return list;
}

function* extras(submission) {
  const times = (number) => ({ 1: "once", 2: "twice" })[number] ?? `${number} times`;
  const { recoveries, voided, waits } = submission;
  if (recoveries.length) yield `taken over by a new agent ${times(recoveries.length)}`;
  if (voided) yield `launch found not to have happened ${times(voided)}`;
  if (waits[0]) yield `put off ${times(waits[0])}, ${duration(waits[1])} in all`;
}

function events(log, submission) {
  const list = make("ol", "events");
  let shownDay = day(submission.began);
  let [at, state] = [null, null];
  for (const event of log.eventsOf(submission)) {
    if (day(event.at) !== shownDay) {
      shownDay = day(event.at);
      list.append(make("li", "day", shownDay));
    }
    const decided = event.kind === KIND.DECIDED;
    const item = make("li", ["observed", "decided", "trouble", "observed"][event.kind]);
    if (!decided) {
      const since = at === null ? "" : `+${duration(event.since)}`;
      item.append(make("div", "time",
        make("span", "", clock(event.at, { milliseconds: true })), make("span", "", since)));
    }
    item.append(make("div", "what", make("span", "type", event.type),
      decided && event.state !== state ? statePill(log, event.state) : null,
      make("span", "position", `#${event.position}`)));
    const text = event.text + (event.kind === KIND.IGNORED ? " (nothing followed)" : "");
    if (text.trim()) item.append(make("p", "text", text.trim()));
    list.append(item);
    [at, state] = [event.at, decided ? event.state : state];
  }
  return make("section", "", make("h3", "", "What happened"), list);
}

function statePill(log, state) {
  const name = log.states[state];
  return make("span", "moved", make("span", `swatch state-${name}`), name);
}
