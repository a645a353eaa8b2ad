// One run: its charts with the evidence on them, its findings, and what could not be checked.

const STYLES = 6;
const CURVES = 24; // outside the story, drawn at a time
const TABLE_ROWS = 60;
const MEASURED = 4; // measurements shown at first
const CAUSES = 3;

const lineOf = (series, place, dash = "") => ({
  label: pooled(series.tag), role: pooled(series.role), style: `s${place % STYLES}${dash}`,
  better: series.better, points: series.points, curve: curveOf(series), hidden: false,
});

/** The notes of the findings that are to be drawn, each mark once, numbered through the run. */
const notesOf = (findings) => {
  const notes = [];
  for (const finding of findings) {
    for (const [role, first, last, label] of finding.marks) {
      const known = notes.some((n) => n.role === pooled(role) && n.first === first && n.last === last);
      if (!known) notes.push({ role: pooled(role), first, last, label: pooled(label), severity: finding.severity });
    }
  }
  notes.forEach((note, i) => { note.number = i + 1; });
  return notes;
};

/** Findings drawn without being asked for: those that call for a change, else the first. */
const drawnAtFirst = (run) => {
  const serious = run.findings.filter((f) => f.severity !== "info" && f.marks.length);
  return new Set(serious.length ? serious : run.findings.filter((f) => f.marks.length).slice(0, 1));
};

const runCharts = (run, settings, changed) => {
  const drawn = drawnAtFirst(run);
  const box = h("div", { class: "charts" });
  const views = new Map();
  const panels = run.panels.map((panel, i) => ({
    title: pooled(panel.title), family: pooled(panel.family), axis: panel.axis, log: panel.log, story: panel.story,
    lines: panel.series.map((series, place) => lineOf(series, place)), notes: [],
    rates: panel.axis === run.panels[0].axis ? run.rates : [], tall: i === 0,
  }));
  const annotate = () => {
    const notes = notesOf(run.findings.filter((f) => drawn.has(f)));
    for (const panel of panels) panel.notes = notes.filter((n) => panel.lines.some((line) => line.role === n.role));
  };
  annotate();
  const figures = (some) => some.map((panel) => {
    const first = views.size === 0;
    if (!views.has(panel.axis)) views.set(panel.axis, chartView(settings, first ? changed : () => {}));
    return chartOf(panel, views.get(panel.axis));
  });
  const settleAll = () => [...views.values()].forEach((view, i) => settle(view, i === 0 ? settings.zoom : ""));
  const story = figures(panels.filter((panel) => panel.story));
  const others = panels.filter((panel) => !panel.story);
  const offer = () => {
    if (!others.length) return run.undrawn > 0 ? h("p", { class: "muted" }, `${counted(run.undrawn, "further curve")} had no room in this page.`) : "";
    const label = others.length > CURVES ? `Show ${CURVES} of ${others.length} more curves` : `Show ${counted(others.length, "more curve")}`;
    const button = h("button", { type: "button", class: "plain", onclick: () => {
      const added = figures(others.splice(0, CURVES));
      button.replaceWith(...added, offer());
      settleAll();
      added[0].querySelector(".plot").focus();
    } }, label);
    return button;
  };
  if (panels.length) box.append(chartTools(views.values().next().value ?? chartView(settings, changed)), ...story, offer());
  return {
    box, views, panels,
    settle: settleAll,
    show: (finding, on) => {
      if (on) drawn.add(finding);
      else drawn.delete(finding);
      annotate();
      views.forEach((view) => view.redraw());
    },
    drawn,
  };
};

/** The curves of the first panel as numbers: spread over the steps, with each extreme. */
const valueTable = (panel) => {
  const steps = new Set();
  for (const { curve: { x, y } } of panel.lines) {
    const stride = Math.max(1, Math.ceil(x.length / TABLE_ROWS));
    for (let i = 0; i < x.length; i += stride) steps.add(x[i]);
    if (!x.length) continue;
    const finite = y.map((v, i) => (Number.isFinite(v) ? i : -1)).filter((i) => i >= 0);
    const broken = y.findIndex((v) => !Number.isFinite(v));
    for (const i of [finite.reduce((a, b) => (y[b] < y[a] ? b : a), finite[0]), finite.reduce((a, b) => (y[b] > y[a] ? b : a), finite[0]), x.length - 1, broken]) {
      if (i !== undefined && i >= 0) steps.add(x[i]);
    }
  }
  const rows = [...steps].sort((a, b) => a - b).map((step) =>
    h("tr", {}, h("th", { scope: "row", class: "n" }, number(step)), panel.lines.map(({ curve: { x, y } }) => {
      const i = nearest(x, step);
      return h("td", { class: "n" }, x[i] === step ? number(y[i]) : "");
    })));
  return h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": `Values of ${panel.title}` },
    h("table", {}, head(`|${panel.axis}`, ...panel.lines.map((line) => `|${line.label}`)), h("tbody", {}, rows)));
};

/** A list of which the first few are shown, the others on request. */
const shortened = (items, most, noun) => {
  const rest = items.slice(most);
  if (rest.length < 2) return null;
  rest.forEach((item) => { item.hidden = true; });
  const button = h("button", { type: "button", class: "plain rest", onclick: () => {
    rest.forEach((item) => { item.hidden = false; });
    button.remove();
  } }, `Show ${counted(rest.length, `more ${noun}`)}`);
  return button;
};

const evidenceTable = (finding) => {
  const rows = finding.evidence.map(([feature, value, threshold, beyond, text]) => h("tr", {},
    h("td", {}, pooled(text) || pooled(feature), pooled(text) && h("small", {}, h("code", {}, pooled(feature)))),
    h("td", { class: "n" }, value), h("td", { class: "n" }, threshold), h("td", { class: "n" }, beyond)));
  return h("section", {}, h("h4", {}, "What was measured"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `What was measured: ${pooled(finding.rule)}` },
      h("table", { class: "evidence" }, head("Measurement", "|Value", "|Threshold", "|Margin"), h("tbody", {}, rows))),
    shortened(rows, MEASURED, "measurement"));
};

const causeItem = ([text, likelihood, reasons]) => {
  const bar = svg("svg", { class: "bar", height: 4, "aria-hidden": "true" },
    svg("rect", { class: "track", width: "100%", height: 4, rx: 2 }),
    svg("rect", { class: "filled", width: /^\d+%$/.test(likelihood) ? likelihood : "0%", height: 4, rx: 2 }));
  return h("li", {}, h("div", { class: "cause" }, h("span", {}, pooled(text)), h("span", { class: "n" }, likelihood)),
    bar, texts(reasons).map((reason) => h("small", {}, reason)));
};

const causeList = (finding) => {
  const items = finding.causes.map(causeItem);
  return h("section", {}, h("h4", {}, "Possible causes ", h("small", {}, "hypotheses, not measurements")),
    h("ul", { class: "causes" }, items), shortened(items, CAUSES, "cause"));
};

const remedyOf = (index) => {
  const [title, effort, text, snippets] = pooled(index);
  return {
    title: pooled(title), effort: pooled(effort), text: pooled(text),
    snippets: pooled(snippets).map((s) => {
      const [name, lines] = pooled(s);
      return [pooled(name), texts(lines).join("\n")];
    }),
  };
};

const remedyFold = (remedy, open) =>
  fold(h("span", { class: "remedy-head" }, h("span", {}, remedy.title), h("span", { class: "pill" }, `${remedy.effort} effort`)), () => [
    remedy.text && h("p", {}, remedy.text),
    remedy.snippets.length > 0 && snippetTabs(remedy.snippets),
  ].filter(Boolean), { open, style: "remedy" });

const referenceList = (links) => links.map((link) =>
  h("li", {}, /^https?:\/\//.test(link) ? h("a", { href: link, rel: "noreferrer noopener" }, link) : link));

const findingCard = (finding, charts, open) => {
  const [doubts, references] = [texts(finding.doubts), texts(finding.references)];
  const facts = [pooled(finding.scope), finding.steps, `${finding.confidence} confidence`].filter(Boolean);
  const onChart = finding.marks.length > 0 &&
    toggle("On chart", charts.drawn.has(finding), (on) => charts.show(finding, on), { title: "Draw this finding's evidence on the charts" });
  return h("article", { class: `finding ${finding.severity}` },
    h("header", {}, badge(finding.severity), h("h3", {}, pooled(finding.title)), onChart,
      h("p", { class: "facts" }, facts.map((fact) => h("span", {}, fact)), h("code", {}, pooled(finding.rule)))),
    h("p", { class: "summary" }, pooled(finding.summary)),
    pooled(finding.why) && h("p", { class: "why" }, pooled(finding.why)),
    h("div", { class: "columns" }, finding.evidence.length > 0 && evidenceTable(finding), finding.causes.length > 0 && causeList(finding)),
    finding.remedies.length > 0 && h("section", { class: "remedies" }, h("h4", {}, "What to try"),
      finding.remedies.map((remedy, i) => remedyFold(remedyOf(remedy), open && i === 0))),
    doubts.length + references.length > 0 && fold(
      doubts.length ? `When this is a false alarm${references.length ? ", and where to read on" : ""}` : "Where to read on",
      () => h("ul", {}, doubts.map((text) => h("li", {}, text)), referenceList(references))));
};

const explainedFold = (finding, charts) =>
  fold(h("span", {}, badge(finding.severity), " ", pooled(finding.title)), () => findingCard(finding, charts, false), { style: "explained" });

const silence = (run) =>
  h("p", { class: "muted" }, run.verdict === "healthy"
    ? "No finding: every rule that could be checked stayed quiet." : "Too little was logged to judge this run.");

const findingList = (run, charts) => {
  if (!run.findings.length) return silence(run);
  const parts = [];
  run.findings.forEach((finding, i) => {
    const follows = i > 0 && run.findings[i - 1].explained;
    if (finding.explained && !follows) parts.push(h("p", { class: "explains" }, "The finding above explains"));
    parts.push(finding.explained ? explainedFold(finding, charts) : findingCard(finding, charts, true));
  });
  return h("div", { class: "findings" }, parts);
};

const problemList = (problems) =>
  h("ul", { class: "problems" }, problems.shown.map(([path, message, kind]) =>
    h("li", {}, h("code", {}, pooled(path)), ` ${pooled(message)} `, h("span", { class: "pill" }, pooled(kind)))),
  problems.count > problems.shown.length && h("li", {}, `and ${problems.count - problems.shown.length} more`));

const parameterTable = (run) =>
  h("table", { class: "parameters" }, h("tbody", {}, run.parameters.map(([key, value]) =>
    h("tr", {}, h("th", { scope: "row" }, h("code", {}, pooled(key))), h("td", {}, pooled(value))))));

const layerParts = (run) => [
  run.layers.rows.length > 0 && fold(`Tensors of the last checkpoint, the most conspicuous first (${run.layers.count})`,
    () => [heatStrips(run.layers), ...layerTable(run.layers)].filter(Boolean), { open: true, style: "more layers" }),
  run.histograms.length > 0 && fold(`Histograms over the steps (${run.histograms.length})`,
    () => h("div", { class: "heats" }, run.histograms.map(heatMap)), { open: true }),
];

const remainder = (run, charts) => {
  const [skipped, unmapped] = [pooled(run.skipped), texts(run.unmapped)];
  const shownPanels = charts.panels.filter((panel) => panel.story);
  return [
    run.problems.count > 0 && fold(`Problems while reading (${run.problems.count})`, () => problemList(run.problems), { open: true }),
    skipped.length > 0 && fold(pooled(run.lacking), () => h("ul", {}, skipped.map((entry) => {
      const [rule, reason] = texts(entry);
      return h("li", {}, h("code", {}, rule), ` ${reason}`);
    }))),
    shownPanels.length > 0 && fold("Values as a table", () => shownPanels.map((panel) => [h("h4", {}, panel.title), valueTable(panel)]).flat(), { style: "more numbers" }),
    unmapped.length > 0 && fold(`Curves with no known role (${unmapped.length})`, () => [
      h("p", { class: "muted" }, "Say what they are with --role ROLE=TAG."),
      h("ul", { class: "tags" }, unmapped.slice(0, 200).map((tag) => h("li", {}, h("code", {}, tag))))]),
    run.parameters.length > 0 && fold(`Hyperparameters (${run.parameters.length})`, () => parameterTable(run)),
  ];
};

/** Everything about a run; the charts are drawn by `settle` once the box is in the page. */
const runDetail = (run, settings, changed) => {
  const charts = runCharts(run, settings, changed);
  const path = pooled(run.path);
  const box = h("div", { class: "detail" },
    path !== run.name && h("p", { class: "path" }, h("code", {}, path)),
    h("div", { class: "halves" }, run.panels.length > 0 && h("div", { class: "pictures" }, charts.box),
      h("div", { class: "told" }, findingList(run, charts), layerParts(run), remainder(run, charts))));
  return { box, views: charts.views, settle: charts.settle };
};
