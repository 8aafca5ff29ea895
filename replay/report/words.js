// Times and durations in words, and small elements made of text. Nothing here parses markup.

// A duration in milliseconds with as much precision as anybody needs, as `replay show` says it.
function duration(ms) {
  if (ms === null || Number.isNaN(ms)) return "?";
  if (ms < 0) return `-${duration(-ms)}`;
  if (ms < 9.5) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 9995) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 59950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const [days, hours] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24];
  const [minutes, rest] = [Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (number) => String(number).padStart(2, "0");
  if (days) return `${days} d ${two(hours)} h`;
  return hours ? `${hours} h ${two(minutes)} m` : `${minutes} m ${two(rest)} s`;
}

// An axis has room for fewer words.
function shortDuration(ms) {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000) return `${ms / 1000} s`;
  if (ms < 3_600_000) return `${ms / 60_000} m`;
  return ms < 86_400_000 ? `${ms / 3_600_000} h` : `${ms / 86_400_000} d`;
}

const two = (number) => String(number).padStart(2, "0");

function clock(at, { seconds = true, milliseconds = false } = {}) {
  const time = new Date(at);
  let text = `${two(time.getHours())}:${two(time.getMinutes())}`;
  if (seconds || milliseconds) text += `:${two(time.getSeconds())}`;
  if (milliseconds) text += `.${String(time.getMilliseconds()).padStart(3, "0")}`;
  return text;
}

function day(at) {
  const time = new Date(at);
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
}

const dayAndClock = (at, options) => `${day(at)} ${clock(at, options)}`;

// From one moment to another, with the day only where it is needed.
function span(from, to) {
  const precise = { seconds: to - from < 600_000, milliseconds: to - from < 5_000 };
  const end = day(from) === day(to) ? clock(to, precise) : dayAndClock(to, precise);
  return `${dayAndClock(from, precise)} – ${end}`;
}

function zoneInWords(at) {
  const minutes = -new Date(at).getTimezoneOffset();
  const [sign, size] = [minutes < 0 ? "−" : "+", Math.abs(minutes)];
  const offset = size ? `${sign}${Math.floor(size / 60)}${size % 60 ? `:${two(size % 60)}` : ""}` : "";
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "local";
  return name === "UTC" ? "UTC" : `${name} (UTC${offset})`;
}

const count = (number) => number.toLocaleString("en-GB").replace(/,/g, "\u202f");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

// Makes an element: its class, what it holds (texts and elements), and what it does.
function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function button(className, text, action, label = null) {
  const element = make("button", className, text);
  element.type = "button";
  if (label) element.setAttribute("aria-label", label);
  element.addEventListener("click", action);
  return element;
}

const byId = (id) => document.getElementById(id);

// Runs a function when it has not been asked for again for a moment.
function afterRest(action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, 140);
  };
}

// Runs a function once before the next frame, however often it is asked for.
function onceAFrame(action) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      action();
    });
  };
}
