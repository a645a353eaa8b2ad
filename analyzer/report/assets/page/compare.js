// Chosen runs side by side: the same curve of each in one chart, and what differs between them.

const DASHES = ["", " dashed"];

/** Panels of the curves that the runs have in common, one a role, a line a run. */
const commonPanels = (compared) => {
  const panels = new Map();
  compared.forEach((run, place) => {
    for (const panel of run.panels) {
      for (const series of panel.series) {
        const key = [pooled(series.role) || pooled(series.tag), panel.axis].join("\n");
        if (!panels.has(key)) {
          panels.set(key, { title: pooled(series.role).replaceAll("_", " ") || pooled(series.tag), family: "", axis: panel.axis, log: false, lines: [], notes: [], rates: [], tall: panels.size === 0 });
        }
        const common = panels.get(key);
        if (common.lines.some((line) => line.run === run)) continue; // of several alike the first
        const style = lineOf(series, place, place >= STYLES ? DASHES[1] : "");
        common.lines.push({ ...style, label: run.name, run });
        common.log ||= panel.log;
      }
    }
  });
  return [...panels.values()].filter((panel) => panel.lines.length > 1);
};

const bestWords = (line) => {
  const best = bestOf(line);
  const { y } = line.curve;
  return best ? `${number(best.value)} at ${number(best.step)}` : y.length ? number(y[y.length - 1]) : "–";
};

const differenceTable = (compared, panels) => {
  const names = [...new Set(compared.flatMap((run) => run.parameters.map(([key]) => pooled(key))))].sort()
    .filter((name) => new Set(compared.map((run) => parameterOf(run, name))).size > 1);
  const row = (name, cells) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", {}, cell)));
  const curves = panels.map((panel) => row(h("span", {}, panel.title, " ", h("small", {}, panel.lines.some(bestOf) ? "best" : "last")),
    compared.map((run) => {
      const line = panel.lines.find((l) => l.run === run);
      return line ? bestWords(line) : "–";
    })));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Differences" },
    h("table", { class: "differences" },
      h("thead", {}, h("tr", {}, h("td"), compared.map((run) => h("th", { scope: "col" }, h("a", { href: hashOf({ ...state, compare: [], run: run.key }) }, breakable(run.name)))))),
      h("tbody", {}, row("Verdict", compared.map((run) => badge(run.verdict))),
        row("Findings", compared.map((run) => run.findings.map((f) => pooled(f.rule)).join(", ") || "–")),
        curves, names.map((name) => row(h("code", {}, name), compared.map((run) => parameterOf(run, name) ?? "–"))))));
};

const comparison = (settings, changed) => {
  const compared = state.compare.map((key) => runOf.get(key)).filter(Boolean).slice(0, MOST_COMPARED);
  const panels = commonPanels(compared);
  const absent = compared.filter((run) => !panels.some((panel) => panel.lines.some((line) => line.run === run)));
  const views = new Map();
  const figures = panels.map((panel) => {
    if (!views.has(panel.axis)) views.set(panel.axis, chartView(settings, views.size ? () => {} : changed));
    return chartOf(panel, views.get(panel.axis));
  });
  const box = h("section", { class: "card run" }, h("div", { class: "run-head" }, backLink(), h("h2", { tabindex: "-1" }, `${counted(compared.length, "run")} compared`)),
    absent.length > 0 && h("p", { class: "muted" }, `Not in the charts, having no curve on the same axis as another: ${absent.map((run) => run.name).join(", ")}.`),
    panels.length ? h("div", { class: "charts" }, chartTools(views.values().next().value), figures)
      : h("p", { class: "muted" }, "These runs have no curve in common."),
    h("h3", {}, "What differs"), differenceTable(compared, panels));
  return { box, views, settle: () => [...views.values()].forEach((view, i) => settle(view, i === 0 ? settings.zoom : "")) };
};
