// Unpacks the contents (replay/report/contents.py says how they are packed) and indexes them:
// typed arrays for what every frame looks at, the objects themselves for what is opened.

const EVENT_FIELDS = 6;
const KIND = { OBSERVED: 0, DECIDED: 1, TROUBLE: 2, IGNORED: 3 };

async function unpack() {
  const packed = document.getElementById("contents").textContent;
  if (typeof DecompressionStream === "undefined") {
    throw new Error(
      "This browser is too old to unpack the report: it takes Chrome or Edge 80, Firefox 113,"
      + " Safari 16.4, or a later one.");
  }
  const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// One submission with its texts looked up. Everything in it is plain text, from whoever wrote the
// log, and reaches the page by textContent or fillText only.
class Submission {
  constructor(packed, index, data) {
    const text = (number) => data.texts[number];
    Object.assign(this, packed, {
      index,
      name: text(packed.name),
      queue: text(packed.queue),
      deployment: text(packed.deployment),
      says: text(packed.says),
      outcome: text(packed.outcome),
      owed: text(packed.owed),
      cause: text(packed.cause),
      end: packed.began + packed.took,
      failed: packed.style === "bad",
      slow: false,
      spent: new Map(),
    });
    for (let i = 0; i < packed.stretches.length; i += 2) {
      const [state, took] = [packed.stretches[i], packed.stretches[i + 1]];
      this.spent.set(state, (this.spent.get(state) ?? 0) + took);
    }
    this.mostly = this.mostlyIn();
    this.toStart = this.timeBefore(data.states.indexOf("started"));
  }

  // Milliseconds until a state was first entered; null if it never was.
  timeBefore(state) {
    let before = 0;
    for (let i = 0; i < this.stretches.length; i += 2) {
      if (this.stretches[i] === state) return before;
      before += this.stretches[i + 1];
    }
    return null;
  }

  // The state that it spent most time in: the colour of what is too short for more than one.
  mostlyIn() {
    if (this.failed || !this.spent.size) return this.state;
    return [...this.spent].reduce((most, each) => (each[1] > most[1] ? each : most))[0];
  }

  get haystack() {
    return `${this.name}\n${this.id}\n${this.key ?? ""}\n${this.outcome}\n${this.cause}`
      .toLowerCase();
  }
}

class Log {
  constructor(data) {
    Object.assign(this, {
      title: data.title, states: data.states, types: data.types, texts: data.texts,
      leftOut: data.leftOut, now: data.now, deployments: data.deployments,
    });
    this.all = data.submissions.map((packed, index) => new Submission(packed, index, data));
    this.began = Float64Array.from(this.all, (each) => each.began);
    this.ended = Float64Array.from(this.all, (each) => each.end);
    this.byId = new Map(this.all.map((each) => [each.id, each]));
    this.from = this.all.length ? this.began[0] : data.now;
    this.to = this.all.reduce((latest, each) => Math.max(latest, each.end), this.from + 1);
    this.marks = marksOf(data.notices);
    for (const mark of this.marks) {
      if (mark.at <= this.to) this.from = Math.min(this.from, mark.at);
    }
    markSlow(this.all);
  }

  deploymentName(id) {
    if (!id) return "no deployment";
    return this.deployments[id]?.[0] || `${id.slice(0, 8)}…`;
  }

  // The events of a submission, oldest first.
  eventsOf(submission) {
    const packed = submission.events;
    const events = [];
    let position = submission.position;
    let elapsed = 0;
    for (let i = 0; i < packed.length; i += EVENT_FIELDS) {
      position += packed[i];
      const since = packed[i + 1] / 10;
      elapsed += since;
      const drift = submission.drifts[i / EVENT_FIELDS] ?? 0;
      events.push({
        position, since, elapsed,
        at: submission.began + elapsed + drift,
        type: this.types[packed[i + 2]],
        state: packed[i + 3],
        kind: packed[i + 4],
        text: this.texts[packed[i + 5]],
      });
    }
    return events;
  }

  // A submission by its id, or by what a person may have written for it.
  find(wanted) {
    return this.byId.get(wanted)
      ?? this.all.find((each) => each.id.startsWith(wanted) || each.name === wanted) ?? null;
  }
}

// What happened to the agent, as moments and as spans of time: {at, to, kind, title, text}.
function marksOf(notices) {
  const marks = [];
  let outage = null;
  let stopped = null;
  let boot = null;
  for (const notice of notices) {
    const { at, text } = notice;
    if (notice.type === "AgentStarted") {
      const rebooted = boot !== null && boot !== notice.boot;
      const title = boot === null ? "Agent started" : rebooted
        ? "Agent started after a reboot" : stopped ? "Agent started again" : "Agent restarted";
      if (stopped) stopped.to = at;
      marks.push({ at, to: null, kind: "start", title, text });
      [boot, stopped] = [notice.boot, null];
    } else if (notice.type === "AgentStopped") {
      stopped = { at, to: null, kind: "stopped", title: "Agent stopped", text };
      marks.push(stopped);
    } else if (notice.type === "PollingFailed") {
      outage = { at, to: null, kind: "outage", title: "Server away", text };
      marks.push(outage);
    } else if (notice.type === "PollingResumed") {
      if (outage) outage.to = at;
      else {
        marks.push({ at: at - notice.lasted, to: at, kind: "outage", title: "Server away", text });
      }
      outage = null;
    } else if (notice.type === "QueuePaused" || notice.type === "QueueResumed") {
      const title = notice.type === "QueuePaused" ? "Queue paused" : "Queue resumed";
      marks.push({ at, to: null, kind: "queue", title, text });
    }
  }
  return marks.sort((a, b) => a.at - b.at);
}

const SLOW_SHARE = 0.95;
const FEWEST_TO_COMPARE = 20;

// A submission is slow beside those of its own deployment: in all, or on its way to a start.
function markSlow(all) {
  const groups = new Map();
  for (const each of all) {
    if (!groups.has(each.deployment)) groups.set(each.deployment, []);
    groups.get(each.deployment).push(each);
  }
  for (const group of groups.values()) {
    if (group.length < FEWEST_TO_COMPARE) continue;
    for (const measure of [(each) => each.took, (each) => each.toStart]) {
      const values = group.map(measure).filter((value) => value !== null).sort((a, b) => a - b);
      const limit = quantile(values, SLOW_SHARE);
      for (const each of group) if (measure(each) > limit) each.slow = true;
    }
  }
}

// The nearest-rank quantile of sorted values; null of none.
function quantile(sorted, share) {
  if (!sorted.length) return null;
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}
