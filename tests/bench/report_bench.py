"""How long a report takes to build, how large it is, and how fluent it is in a real browser.

`python -m tests.bench.report_bench [--submissions 10000]`: writes a busy night, builds its report,
opens it in headless Chromium, and measures the time until it is drawn and the time a frame takes
while the window is panned and zoomed and the rows are scrolled, one step in every frame. A frame at
60 a second has 16.7 ms. Without a graphics card the browser paints on the processor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.browser import Browser
from tests.samples.busy_night import write_busy_night

GESTURES = {
    "pan": "view.dispatchEvent(wheel({deltaX: 9}))",
    "zoom": "view.dispatchEvent(wheel({deltaY: n % 40 < 20 ? -30 : 30, ctrlKey: true}))",
    "scroll": "rows.scrollTop += 37",
    "pan over all": "view.dispatchEvent(wheel({deltaX: n % 40 < 20 ? 9 : -9}))",
    "pan, counting": "view.dispatchEvent(wheel({deltaX: n % 40 < 20 ? 9 : -9}))",
}
FRAMES = """
const [gesture, steps, done] = arguments;
const rows = document.getElementById("rows");
const view = rows.querySelector("canvas");
const wheel = (more) => new WheelEvent("wheel", {
  bubbles: true, cancelable: true, clientX: 700, clientY: 500, ...more });
const act = new Function("rows", "view", "wheel", "n", gesture);
const gaps = [];
let last = null;
function frame(now) {
  if (last !== null) gaps.push(now - last);
  last = now;
  if (gaps.length >= steps) return done(gaps);
  act(rows, view, wheel, gaps.length);
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
"""


def build(log: Path, page: Path) -> float:
    """Build a report as a person does; return the seconds it took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "replay", "report", str(log), "-o", str(page), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    made = json.loads(done.stdout)
    print(f"{made['submissions']} submissions, {made['events']} events: built in {seconds:.1f} s,"
          f" {made['bytes'] / 1e6:.2f} MB")  # fmt: skip
    return seconds


def measure(page: Path, folder: Path) -> None:
    """Open a report and print what it takes to draw it and to move in it."""
    with Browser.start(folder) as browser:
        began = time.perf_counter()
        browser.open(page)
        loaded = time.perf_counter() - began
        script = browser.run("performance.now()")
        print(f"opened and drawn in {loaded:.2f} s at most ({script:.0f} ms by the page's clock,"
              " with 0.2 s of waiting)")  # fmt: skip
        browser.driver.set_script_timeout(300)
        for name, gesture in GESTURES.items():
            if name == "pan over all":
                browser.click("#all")
            if name == "pan, counting":
                browser.click("#in-window")
            gaps = sorted(browser.driver.execute_async_script(FRAMES, gesture, 120))
            print(f"{name:>14}: frame p50 {gaps[60]:.1f} ms, p95 {gaps[114]:.1f} ms,"
                  f" max {gaps[-1]:.1f} ms")  # fmt: skip
        began = time.perf_counter()
        browser.click("#failed")
        print(f"{'filter':>14}: {(time.perf_counter() - began) * 1000 - 200:.0f} ms")


def main() -> None:
    """Write a night, build its report, measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--submissions", type=int, default=10_000)
    options.add_argument("--log", type=Path, help="measure on this log")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="report-bench-") as folder:
        log = asked.log or Path(folder) / "events.sqlite"
        if asked.log is None:
            write_busy_night(log, asked.submissions)
        page = Path(folder) / "report.html"
        build(log, page)
        measure(page, Path(folder) / "browser")


if __name__ == "__main__":
    main()
