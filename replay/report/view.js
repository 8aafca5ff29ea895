// What is being looked at: the window of time, the filters, and the submission that is chosen.
// The one place that these change in; whoever shows them listens.

const NARROWEST_MS = 20;
const MARGIN = 0.03;

const NO_FILTER = Object.freeze({
  text: "", state: "", queue: "", deployment: "", cause: "",
  failed: false, slow: false, inWindow: false,
});

class View extends EventTarget {
  constructor(log) {
    super();
    this.log = log;
    this.filter = { ...NO_FILTER };
    this.matching = log.all;
    this.chosen = null;
    this.opened = null;
    [this.from, this.to] = sensibleWindow(log);
  }

  // The submissions that figures, causes and charts are made of.
  get counted() {
    return this.filter.inWindow ? this.inWindow() : this.matching;
  }

  // The submissions that match and live in the window, in the order in which they began.
  inWindow() {
    const { from, to } = this;
    const shown = [];
    for (const each of this.matching) {
      if (each.began > to) break;
      if (each.end >= from) shown.push(each);
    }
    return shown;
  }

  get widest() {
    const whole = this.log.to - this.log.from;
    return { from: this.log.from - whole * MARGIN, to: this.log.to + whole * MARGIN };
  }

  // Shows a span of time, or as much of it as there is.
  show(from, to) {
    const widest = this.widest;
    const length = Math.min(Math.max(to - from, NARROWEST_MS), widest.to - widest.from);
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - length / 2, widest.from), widest.to - length);
    this.to = this.from + length;
    this.#tell("window");
  }

  // Moves the window by a part of its length.
  pan(part) {
    const by = (this.to - this.from) * part;
    this.show(this.from + by, this.to + by);
  }

  // Zooms around a moment, which stays where it is; a factor below 1 shows less.
  zoom(factor, around = (this.from + this.to) / 2) {
    const length = this.to - this.from;
    const widest = this.widest;
    const wanted = Math.min(Math.max(length * factor, NARROWEST_MS), widest.to - widest.from);
    const from = around - (around - this.from) * (wanted / length);
    this.show(from, from + wanted);
  }

  showAll() {
    this.show(this.widest.from, this.widest.to);
  }

  // Shows all of some submissions.
  fit(submissions) {
    if (!submissions.length) return;
    let [from, to] = [Infinity, -Infinity];
    for (const each of submissions) {
      from = Math.min(from, each.began);
      to = Math.max(to, each.end);
    }
    const room = Math.max((to - from) * 0.08, 50);
    this.show(from - room, to + room);
  }

  setFilter(change) {
    this.filter = { ...this.filter, ...change };
    this.matching = this.#thatMatch();
    // Who asks for something wants to see it.
    if (this.matching.length && !this.inWindow().length) this.fit(this.matching);
    this.#tell("filter");
    this.#tell("counted");
  }

  get isFiltered() {
    return Object.keys(NO_FILTER).some((name) => this.filter[name] !== NO_FILTER[name]);
  }

  #thatMatch() {
    const { text, state, queue, deployment, cause, failed, slow } = this.filter;
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return this.log.all.filter((each) =>
      (!failed || each.failed) && (!slow || each.slow)
      && (!state || this.log.states[each.state] === state)
      && (!queue || each.queue === queue)
      && (!deployment || each.deployment === deployment)
      && (!cause || each.cause === cause)
      && (!words.length || words.every((word) => each.haystack.includes(word))));
  }

  choose(submission) {
    this.chosen = submission;
    this.#tell("chosen");
  }

  // Opens a submission, and brings it into view; null closes what is open.
  open(submission, { bring = true } = {}) {
    this.opened = submission;
    if (submission) {
      const isOut = submission.end < this.from || submission.began > this.to;
      if (bring && isOut) this.around(submission);
      this.choose(submission);
    }
    this.#tell("opened");
  }

  // Moves the window to a submission without zooming in or out.
  around(submission) {
    const length = this.to - this.from;
    const from = submission.began - Math.min(length * 0.25, Math.max(length - submission.took, 0));
    this.show(from, from + length);
  }

  // The failure before or after the one that is chosen, or after the window's beginning.
  nextFailure(step) {
    const failures = this.matching.filter((each) => each.failed);
    if (!failures.length) return null;
    if (this.chosen) {
      const rest = step > 0
        ? failures.find((each) => each.index > this.chosen.index)
        : failures.findLast((each) => each.index < this.chosen.index);
      return rest ?? (step > 0 ? failures[0] : failures.at(-1));
    }
    return failures.find((each) => each.end >= this.from) ?? failures[0];
  }

  #tell(what) {
    this.dispatchEvent(new Event(what));
  }
}

const FIRST_LOOK = { submissions: 250, gap: 4 * 3_600_000, length: 24 * 3_600_000 };

// A log may span months of which little happened: begin with the latest stretch of activity.
function sensibleWindow(log) {
  const { all } = log;
  let first = all.length - 1;
  if (first < 0) return [log.from - 1000, log.to + 1000];
  let end = all[first].end;
  while (first > 0 && all.length - first < FIRST_LOOK.submissions) {
    const before = all[first - 1];
    const isFar = all[first].began - before.end > FIRST_LOOK.gap;
    if (isFar || all.at(-1).began - before.began > FIRST_LOOK.length) break;
    first -= 1;
    end = Math.max(end, before.end);
  }
  const from = first === 0 ? log.from : all[first].began;
  const room = Math.max((end - from) * MARGIN, 50);
  return [from - room, end + room];
}
