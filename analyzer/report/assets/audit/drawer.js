// One run's details, at the side of the table.

const drawer = h("dialog", { "aria-label": "Run" });
document.body.append(drawer);
drawer.addEventListener("close", () => history.replaceState(null, "", location.pathname));
drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });

const list = (title, items) => items.length ? [h("h4", {}, title), h("ul", {}, items.map((item) => h("li", {}, item)))] : [];

const plotted = ([role, tag, low, high, first, last, points], k) =>
  h("figure", {},
    h("figcaption", {}, `${tag}${role && role !== tag ? ` (${role.replaceAll("_", " ")})` : ""}: ${shown(low)} to ${shown(high)}, steps ${shown(first)} to ${shown(last)}`),
    svg("svg", { class: `plot s${k % 6}`, viewBox: "0 0 600 150", preserveAspectRatio: "none", role: "img", "aria-label": tag },
      svg("path", { d: curvePath(points, 600, 150) })));

const finding = ([rule, severity, confidence, title, summary, steps, evidence, causes, remedies, explained]) =>
  h("article", { class: `found ${data.verdicts[severity]}` },
    h("h3", {}, badge(data.verdicts[severity]), ` ${title}`),
    h("p", { class: "facts" }, [data.rule[rule], steps, `confidence ${percent(confidence)}`, explained && `follows from ${explained}`].filter(Boolean).join(" · ")),
    h("p", {}, summary),
    list("Measured", evidence),
    list("Possible causes", causes.map(([text, likelihood]) => `${text} (${percent(likelihood)})`)),
    list("What to try", remedies));

const show = async (i) => {
  const found = await detailsOf(i);
  if (!found) { location.href = data.elsewhere[Math.floor(i / data.chunk)] + `#run-${i}`; return; }
  const [path, findings, unchecked, problems, parameters, curves] = found;
  const verdict = data.verdicts[data.verdict[i]];
  drawer.className = verdict;
  drawer.replaceChildren(h("div", {},
    h("button", { type: "button", class: "close", onclick: () => drawer.close() }, "Close"),
    h("h2", {}, badge(verdict), ` ${data.name[i]}`),
    h("p", { class: "facts" }, path),
    curves.map(plotted),
    findings.map(finding),
    findings.length ? [] : h("p", {}, "No finding."),
    h("p", { class: "facts" }, `${unchecked} rules could not be checked: too little was logged for them.`),
    list("Problems", problems),
    parameters.length ? [h("h4", {}, "Hyperparameters"), h("dl", {}, parameters.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, shown(value))]))] : []));
  if (!drawer.open) drawer.showModal();
  drawer.scrollTop = 0;
  history.replaceState(null, "", `#run-${i}`);
};

const wanted = () => {
  const match = /^#run-(\d+)$/.exec(location.hash);
  const i = match ? Number(match[1]) - data.first : -1;
  if (i >= 0 && i < data.name.length) show(i);
};
addEventListener("hashchange", wanted);
update();
wanted();
