// Moving the cursor and zooming, by pointer and by keyboard.

const DRAG = 6; // pixels; a shorter movement is a click

const pointerStep = (chart, plot, event) => {
  const box = plot.getBoundingClientRect();
  const { frame } = chart;
  const scaled = ((event.clientX - box.left) / box.width) * (frame.right + MARGIN.right);
  return frame.across.value(Math.min(1, Math.max(0, (scaled - frame.left) / frame.width)));
};

/** The logged step nearest to a place, among all curves of the chart. */
const loggedStep = (chart, step) => {
  let found = null;
  for (const { curve: { x }, hidden } of chart.panel.lines) {
    if (hidden || !x.length) continue;
    const candidate = x[nearest(x, step)];
    if (found === null || Math.abs(candidate - step) < Math.abs(found - step)) found = candidate;
  }
  return found;
};

const neighbour = (chart, step, direction) => {
  const steps = [...new Set(chart.panel.lines.flatMap((l) => (l.hidden ? [] : l.curve.x)))].sort((a, b) => a - b);
  const inside = steps.filter((s) => s >= chart.frame.across.low && s <= chart.frame.across.high);
  if (!inside.length) return null;
  if (step === null) return direction > 0 ? inside[0] : inside[inside.length - 1];
  const place = nearest(inside, step) + direction;
  return inside[Math.min(inside.length - 1, Math.max(0, place))];
};

const steer = (chart, plot, view) => {
  let start = null;
  const shade = svg("rect", { class: "selection" });

  plot.addEventListener("pointermove", (event) => {
    const step = pointerStep(chart, plot, event);
    view.point(loggedStep(chart, step));
    if (start === null) return;
    const [left, right] = [start.step, step].map(chart.frame.x).sort((a, b) => a - b);
    fill(shade, { x: left, y: chart.frame.top, width: right - left, height: chart.frame.height }, []);
    if (!shade.isConnected) plot.firstChild.append(shade);
  });
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    start = { x: event.clientX, step: pointerStep(chart, plot, event) };
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const [from, moved] = [start.step, Math.abs(event.clientX - start.x)];
    start = null;
    shade.remove();
    if (moved >= DRAG) view.zoom([from, pointerStep(chart, plot, event)].sort((a, b) => a - b));
  });
  plot.addEventListener("pointercancel", () => { start = null; shade.remove(); });
  plot.addEventListener("pointerleave", () => { if (start === null && document.activeElement !== plot) view.point(null); });
  plot.addEventListener("dblclick", () => view.zoom(null));
  plot.addEventListener("blur", () => view.point(null));
  plot.addEventListener("keydown", (event) => {
    const { low, high } = chart.frame.across;
    const far = (high - low) / 10;
    const actions = {
      ArrowLeft: () => view.point(neighbour(chart, view.step, -1)),
      ArrowRight: () => view.point(neighbour(chart, view.step, 1)),
      PageDown: () => view.point(loggedStep(chart, Math.max(low, (view.step ?? high) - far))),
      PageUp: () => view.point(loggedStep(chart, Math.min(high, (view.step ?? low) + far))),
      Home: () => view.point(neighbour(chart, null, 1)),
      End: () => view.point(neighbour(chart, null, -1)),
      "+": () => view.magnify(2),
      "=": () => view.magnify(2),
      "-": () => view.magnify(1 / 2),
      0: () => view.zoom(null),
      Escape: () => view.zoom(null),
    };
    if (!Object.hasOwn(actions, event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  });
};

/** Buttons for what the pointer and the keys do. */
const chartTools = (view) => {
  const log = view.log === "" ? view.charts.some((c) => c.panel.tall && c.panel.log) : view.log === "1";
  const smooth = view.smooth === "" ? view.charts.some((c) => c.panel.lines.some((l) => l.curve.median)) : view.smooth === "1";
  return h("div", { class: "tools", role: "group", "aria-label": "Charts" },
    toggle("Log scale", log, (on) => view.set({ log: on ? "1" : "0" })),
    toggle("Smooth", smooth, (on) => view.set({ smooth: on ? "1" : "0" })),
    h("button", { type: "button", class: "plain", onclick: () => view.magnify(2) }, "Zoom in"),
    h("button", { type: "button", class: "plain", onclick: () => view.magnify(1 / 2) }, "Zoom out"),
    h("button", { type: "button", class: "plain", onclick: () => view.zoom(null) }, "Whole run"));
};
