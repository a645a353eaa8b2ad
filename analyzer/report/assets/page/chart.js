// Charts as SVG: sharp on paper, coloured by the style sheet, their text is text.
// The charts of a view share their steps: zoom and cursor of one are those of all.

const TALL = 250; // pixels
const SMALL = 104;
const MARGIN = { left: 58, right: 14, axis: 24 };

/** What the charts of one step axis share. `changed` is told of what a reader may want to link to. */
const chartView = (settings, changed) => {
  const view = {
    log: settings.log, smooth: settings.smooth, range: null, charts: [], step: null, width: null,
    whole: [0, 1],
    redraw: () => view.charts.forEach((c) => c.draw()),
    point: (step) => {
      view.step = step;
      view.charts.forEach((c) => c.point());
    },
    zoom: (range) => {
      const [low, high] = view.whole;
      const bounded = range && [Math.max(low, range[0]), Math.min(high, range[1])];
      view.range = bounded && bounded[1] > bounded[0] && bounded[1] - bounded[0] < high - low ? bounded : null;
      changed({ zoom: view.range ? view.range.map((s) => Number(s.toPrecision(9))).join("..") : "" });
      view.redraw();
    },
    magnify: (factor) => {
      const [low, high] = view.range ?? view.whole;
      const middle = view.step !== null && view.step >= low && view.step <= high ? view.step : (low + high) / 2;
      view.zoom([middle - (middle - low) / factor, middle + (high - middle) / factor]);
    },
    set: (changes) => {
      Object.assign(view, changes);
      changed(changes);
      view.redraw();
    },
  };
  return view;
};

/** Once all charts are made: the steps they span, and the zoom the address asks for. */
const settle = (view, zoom) => {
  const ends = view.charts.flatMap((c) => c.panel.lines.flatMap(({ curve: { x } }) => (x.length ? [x[0], x[x.length - 1]] : [])));
  view.whole = ends.length ? apart(...span(ends)) : [0, 1];
  const range = zoom.split("..").map(Number);
  if (range.length === 2 && range[0] < range[1]) view.range = range;
  view.redraw();
};

const frameOf = (panel, view, width, height, lanes) => {
  const [from, to] = view.range ?? view.whole;
  const across = scale(from, to, false);
  Object.assign(across, { low: from, high: to, unit: (s) => (s - from) / (to - from), value: (u) => from + u * (to - from) });
  const values = [];
  for (const { curve, hidden } of panel.lines) {
    if (hidden || !curve.x.length) continue;
    const [first, last] = inView(curve.x, from, to);
    for (let i = first; i <= last; i += 1) if (Number.isFinite(curve.y[i])) values.push(curve.y[i]);
  }
  const positive = values.filter((v) => v > 0);
  const log = (view.log === "" ? panel.log : view.log === "1") && positive.length > 0;
  const [low, high] = span(log ? positive : values);
  const up = low <= high ? scale(low, high, log, 0.05) : scale(0, 1, false);
  const top = 8 + LANE * lanes;
  const frame = { left: MARGIN.left, right: width - MARGIN.right, top, height, bottom: top + height, across, up };
  frame.width = Math.max(1, frame.right - frame.left);
  frame.x = (step) => frame.left + across.unit(step) * frame.width;
  frame.y = (value) => frame.bottom - up.unit(value) * height;
  return frame;
};

const drawGrid = (frame, axisName) => {
  const parts = [];
  for (const [place, label] of ticks(frame.up, frame.height > 150 ? 5 : 3)) {
    const y = frame.bottom - place * frame.height;
    parts.push(svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y, y2: y }),
      svg("text", { class: "tick", x: frame.left - 8, y: y + 4, "text-anchor": "end" }, label));
  }
  for (const [place, label] of ticks(frame.across, frame.width > 480 ? 6 : 3)) {
    const x = frame.left + place * frame.width;
    parts.push(svg("line", { class: "grid", x1: x, x2: x, y1: frame.top, y2: frame.bottom }));
    if (axisName) {
      const anchor = place > 0.97 ? "end" : "middle";
      parts.push(svg("text", { class: "tick", x, y: frame.bottom + 16, "text-anchor": anchor }, label));
    }
  }
  if (axisName) {
    parts.push(svg("text", { class: "tick", x: frame.left - 8, y: frame.bottom + 16, "text-anchor": "end" }, axisName));
  }
  return parts;
};

/** A sentence for those who do not see the picture. */
const described = (panel) =>
  panel.lines.map(({ label, curve: { x, y } }) => {
    const finite = y.filter(Number.isFinite);
    if (!finite.length) return `${label}: never a number.`;
    const [low, high] = span(finite);
    return `${label}: from ${number(finite[0])} at step ${number(x[0])} to ${number(y[y.length - 1])} at step ` +
      `${number(x[x.length - 1])}, lowest ${number(low)}, highest ${number(high)}.`;
  }).concat(panel.notes.map((n) => `Marked: ${n.label}, ${whereOf(n)}.`)).join(" ");

const legendEntry = (chart, line) => {
  const value = h("span", { class: "value" });
  line.showValue = (text) => { value.textContent = text; };
  const swatch = svg("svg", { class: "swatch", width: 18, height: 10, "aria-hidden": "true" },
    svg("line", { class: `line ${line.style}`, x1: 1, x2: 17, y1: 5, y2: 5 }));
  return h("button", {
    type: "button", class: "legend", "aria-pressed": "true", title: "Show or hide this curve",
    onclick: (event) => {
      line.hidden = !line.hidden;
      event.currentTarget.setAttribute("aria-pressed", String(!line.hidden));
      chart.draw();
    },
  }, swatch, h("span", { class: "tag" }, line.label), " ", value);
};

const restingValue = (line) => {
  const { y } = line.curve;
  const best = bestOf(line);
  const last = y.length ? `last ${number(y[y.length - 1])}` : "empty";
  return best ? `${last}, best ${number(best.value)} at ${number(best.step)}` : last;
};

/** A figure of one panel: {title, axis, log, lines, notes, rates, tall}. */
const chartOf = (panel, view) => {
  const chart = { panel, frame: null };
  const plot = h("div", { class: "plot", tabindex: "0", role: "slider", "aria-label": `Step, ${panel.title}` });
  const cursor = svg("g", { class: "cursor" });
  const list = h("div");
  const caption = h("figcaption", {}, h("span", { class: "panel-title" }, panel.title),
    chart.scaleName = h("small"), panel.lines.map((line) => legendEntry(chart, line)));
  const description = h("p", { class: "unseen" });
  chart.figure = h("figure", { class: "panel" }, caption, plot, list, description);

  chart.draw = () => {
    const width = view.width ?? (plot.clientWidth || 640);
    const [from, to] = view.range ?? view.whole;
    const lanes = assignLanes(panel.notes, { low: from, high: to, unit: (s) => (s - from) / (to - from) },
      width - MARGIN.left - MARGIN.right);
    const frame = frameOf(panel, view, width, panel.tall ? TALL : SMALL, lanes);
    chart.frame = frame;
    const shown = panel.lines.filter((line) => !line.hidden);
    const inside = svg("svg", { x: 0, y: frame.top - 2, width, height: frame.height + 4, viewBox: `0 ${frame.top - 2} ${width} ${frame.height + 4}` },
      svg("svg", { x: frame.left - 4, y: 0, width: frame.width + 8, height: frame.bottom + 4, viewBox: `${frame.left - 4} 0 ${frame.width + 8} ${frame.bottom + 4}` },
        shown.map((line) => drawLine(line, panel.lines.indexOf(line), frame, view.smooth))));
    const height = frame.bottom + MARGIN.axis;
    const picture = svg("svg", { class: "picture", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      panel.notes.map((n) => drawBand(n, frame)), drawGrid(frame, panel.axis),
      drawRates(panel.rates, frame, panel.family === "learning_rate"), inside,
      shown.map((line) => drawBroken(line, frame)), shown.map((line) => drawBest(line, frame, panel.notes)),
      panel.notes.map((n) => drawNote(n, frame, panel.lines)), cursor);
    plot.replaceChildren(picture);
    plot.classList.toggle("narrow", frame.width < NARROW);
    list.replaceChildren(...(panel.notes.length ? [noteList(panel.notes)] : []));
    chart.scaleName.textContent = frame.up.log ? "log scale" : "";
    description.textContent = described(panel);
    chart.point();
  };

  chart.point = () => {
    cursor.replaceChildren();
    const { frame } = chart;
    plot.setAttribute("aria-valuemin", frame.across.low);
    plot.setAttribute("aria-valuemax", frame.across.high);
    plot.setAttribute("aria-valuenow", view.step ?? frame.across.low);
    const at = view.step;
    if (at === null || at < frame.across.low || at > frame.across.high) {
      panel.lines.forEach((line) => line.showValue(restingValue(line)));
      plot.setAttribute("aria-valuetext", "no step chosen");
      return;
    }
    const x = frame.x(at);
    cursor.append(svg("line", { x1: x, x2: x, y1: frame.top, y2: frame.bottom }));
    const spoken = panel.lines.map((line) => {
      const i = nearest(line.curve.x, at);
      const value = line.curve.y[i];
      line.showValue(line.curve.x[i] === at ? number(value) : `${number(value)} at ${number(line.curve.x[i])}`);
      if (!line.hidden && drawable(value, frame.up)) {
        cursor.append(svg("circle", { class: line.style, cx: frame.x(line.curve.x[i]), cy: frame.y(value), r: 4 }));
      }
      return `${line.label} ${number(value)}`;
    });
    const edge = x > frame.right - 60 ? "end" : "start";
    cursor.append(svg("text", { x: x + (edge === "end" ? -5 : 5), y: frame.bottom - 5, "text-anchor": edge }, `${panel.axis} ${number(at)}`));
    plot.setAttribute("aria-valuetext", `${panel.axis} ${number(at)}: ${spoken.join(", ")}`);
  };

  view.charts.push(chart);
  steer(chart, plot, view);
  return chart.figure;
};
