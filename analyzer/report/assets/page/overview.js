// All runs in a table: searched, filtered, sorted, chosen for comparison.

const CHUNK = 150; // rows made at a time
const NAMED = 3; // further findings named in a row
const MOST_COMPARED = 8;

const searchText = (run) => {
  run.text ??= [run.name, pooled(run.path), data.words[run.verdict],
    ...run.findings.flatMap((f) => [pooled(f.rule), pooled(f.title), pooled(f.summary)]),
    ...run.parameters.map(([key, value]) => `${pooled(key)}=${pooled(value)}`)].join("\n").toLowerCase();
  return run.text;
};

const parameterOf = (run, name) => {
  const found = run.parameters.find(([key]) => pooled(key) === name);
  return found ? pooled(found[1]) : null;
};

/** Hyperparameters that differ between the runs, by name. */
const varying = () => {
  const values = new Map();
  for (const run of runs) {
    for (const [key, value] of run.parameters) {
      if (!values.has(key)) values.set(key, new Map());
      values.get(key).set(value, (values.get(key).get(value) ?? 0) + 1);
    }
  }
  const total = (counts) => [...counts.values()].reduce((a, b) => a + b, 0);
  return [...values].filter(([, counts]) => counts.size > 1 || total(counts) < runs.length)
    .map(([key]) => pooled(key)).sort();
};

/** Whether a value answers a query such as `0.001`, `>= 0.01`, `1e-4..1e-2`, `!= adam` or part of a word. */
const answers = (value, query) => {
  const wanted = query.trim();
  if (wanted === "") return true;
  if (value === null) return false;
  const range = wanted.split("..").map(Number);
  if (range.length === 2 && range.every(Number.isFinite)) return Number(value) >= range[0] && Number(value) <= range[1];
  const [, sign, operand] = /^(>=|<=|!=|>|<|=)?\s*(.*)$/s.exec(wanted);
  const [a, b] = [Number(value), Number(operand)];
  const numeric = operand !== "" && Number.isFinite(a) && Number.isFinite(b);
  const same = numeric ? a === b : value.toLowerCase() === operand.toLowerCase();
  if (sign === "=") return same;
  if (sign === "!=") return !same;
  if (sign) return numeric && { ">=": a >= b, "<=": a <= b, ">": a > b, "<": a < b }[sign];
  return numeric ? same : value.toLowerCase().includes(operand.toLowerCase());
};

const matching = () => runs.filter((run) =>
  (state.verdict.length === 0 || state.verdict.includes(run.verdict)) &&
  (state.rule === "" || run.findings.some((f) => pooled(f.rule) === state.rule)) &&
  (state.hp === "" || answers(parameterOf(run, state.hp), state.is)) &&
  state.q.toLowerCase().split(/\s+/).every((word) => searchText(run).includes(word)));

const inWords = (a, b) => String(a).localeCompare(String(b), "en", { numeric: true });
const KEYS = {
  verdict: (run) => VERDICTS.indexOf(run.verdict), name: (run) => run.name,
  finding: (run) => (run.findings.length ? pooled(run.findings[0].title) : "\uffff"),
  findings: (run) => run.findings.length, points: (run) => run.points,
  hp: (run) => parameterOf(run, state.hp) ?? "\uffff",
};

const sorted = (found) => {
  const [, descending, name] = /^(-?)(\w*)$/.exec(state.sort) ?? [];
  const key = KEYS[name];
  if (!key) return found; // worst first, as they came
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    const numbers = Number.isFinite(Number(x)) && Number.isFinite(Number(y));
    return (numbers ? x - y : inWords(x, y)) || a.place - b.place;
  };
  return [...found].sort((a, b) => (descending ? -1 : 1) * compare(a, b));
};

/** The runs of the table, in its order. */
const listed = () => sorted(matching());

const thumbnail = (run) => {
  const series = run.panels[0]?.story && run.panels[0].series[0];
  if (!series) return null;
  const { x, y } = curveOf(series);
  const finite = y.filter(Number.isFinite);
  if (!finite.length) return null;
  const log = run.panels[0].log && span(finite)[0] > 0;
  const across = scale(x[0], x[x.length - 1], false);
  const up = scale(...span(finite), log);
  const stride = Math.max(1, Math.floor(y.length / 80)) * 2;
  let path = "";
  let drawing = false;
  for (let i = 0; i < y.length; i += stride) { // of each stretch its lowest and highest, in order
    const part = Array.from({ length: Math.min(stride, y.length - i) }, (_, k) => i + k);
    const good = part.filter((k) => Number.isFinite(y[k])).sort((a, b) => y[a] - y[b]);
    for (const k of [...new Set([good[0], good[good.length - 1]])].filter((k) => k !== undefined).sort((a, b) => a - b)) {
      path += `${drawing ? "L" : "M"}${(across.unit(x[k]) * 118 + 1).toFixed(1)} ${(27 - up.unit(y[k]) * 26).toFixed(1)}`;
      drawing = true;
    }
    if (good.length < part.length) drawing = false;
  }
  const broken = brokenStretches({ x, y }).slice(0, 20).map(([from, to]) =>
    svg("rect", { class: "nan", x: across.unit(from) * 118 + 1, y: 0, width: Math.max(2, (across.unit(to) - across.unit(from)) * 118), height: 3 }));
  return svg("svg", { class: "thumbnail", width: 120, height: 28, "aria-hidden": "true" }, svg("path", { class: "line s0", d: path }), broken);
};

const findingCell = (run) => {
  if (!run.findings.length) return h("td", { class: "finding-cell muted" }, "–");
  const [first, ...rest] = run.findings;
  const names = rest.slice(0, NAMED).map((f) => pooled(f.rule)).join(", ");
  const more = rest.length > NAMED ? ` and ${rest.length - NAMED} more` : "";
  return h("td", { class: "finding-cell" }, pooled(first.title), names && h("small", {}, `also ${names}${more}`));
};

const rowOf = (run, chosen) => {
  const box = h("input", { type: "checkbox", "aria-label": `Compare ${run.name}` });
  box.checked = chosen.has(run.key);
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(run.key);
    else chosen.delete(run.key);
    chosen.changed();
  });
  return h("tr", { class: run.verdict },
    h("td", { class: "choose" }, box), h("td", {}, badge(run.verdict)),
    h("th", { scope: "row" }, h("a", { href: hashOf({ ...state, run: run.key, compare: [] }) }, breakable(run.name))),
    findingCell(run), h("td", { class: "curve" }, thumbnail(run)),
    state.hp !== "" && h("td", { class: "parameter" }, parameterOf(run, state.hp) ?? "–"),
    h("td", { class: "n" }, run.findings.length || "–"), h("td", { class: "n" }, number(run.points)));
};

const columnHead = (name, label, style, redraw) => {
  const direction = state.sort === name ? "ascending" : state.sort === `-${name}` ? "descending" : null;
  return h("th", { scope: "col", class: style, "aria-sort": direction },
    h("button", { type: "button", "data-sort": name, onclick: () => {
      adjust({ sort: state.sort === name ? `-${name}` : state.sort === `-${name}` ? "" : name });
      redraw();
      document.querySelector(`button[data-sort="${name}"]`).focus();
    } }, label));
};

const tableHead = (redraw) => h("thead", {}, h("tr", {},
  h("td", { class: "choose" }, h("span", { class: "unseen" }, "Compare")),
  columnHead("verdict", "Verdict", null, redraw), columnHead("name", "Run", null, redraw),
  columnHead("finding", "Finding", "finding-cell", redraw), h("th", { scope: "col", class: "curve" }, "Main curve"),
  state.hp !== "" && columnHead("hp", state.hp, "parameter", redraw),
  columnHead("findings", "Findings", "n", redraw), columnHead("points", "Points", "n", redraw)));

const choice = (label, options, value, onchange) => {
  const select = h("select", { "aria-label": label, onchange: () => onchange(select.value) },
    options.map(([key, text]) => h("option", { value: key }, text)));
  select.value = value;
  return select;
};

const ruleOptions = () => {
  const counts = new Map();
  for (const run of runs) for (const rule of new Set(run.findings.map((f) => f.rule))) counts.set(rule, (counts.get(rule) ?? 0) + 1);
  const names = [...counts].sort((a, b) => b[1] - a[1]).map(([rule, count]) => [pooled(rule), `${pooled(rule)} (${count})`]);
  return [["", "Any diagnosis"], ...names];
};

/** The banner's counts as buttons that filter the table, from wherever they are pressed. */
const verdictFilters = () => {
  const counts = VERDICTS.map((verdict) => [verdict, runs.filter((run) => run.verdict === verdict).length]);
  return h("div", { class: "counts", role: "group", "aria-label": "Verdicts to show" }, counts.filter(([, n]) => n).map(([verdict, n]) =>
    h("button", { type: "button", class: verdict, "data-verdict": verdict, onclick: () => {
      const kept = state.verdict.includes(verdict) ? state.verdict.filter((v) => v !== verdict) : [...state.verdict, verdict];
      const away = state.run !== "" || state.compare.length > 0;
      go({ verdict: away ? [verdict] : kept, run: "", compare: [] });
    } }, icon(verdict), " ", h("b", {}, String(n)), ` ${data.words[verdict]}`)));
};

const pressFilters = () => {
  const elsewhere = state.run !== "" || state.compare.length > 0;
  document.querySelectorAll(".counts button").forEach((button) =>
    button.setAttribute("aria-pressed", String(!elsewhere && state.verdict.includes(button.dataset.verdict))));
};

/** The bar that opens the comparison of the chosen runs. */
const compareBar = (chosen) => {
  const bar = h("div", { class: "compare-bar", hidden: true });
  chosen.changed = () => {
    bar.hidden = chosen.size === 0;
    const enough = chosen.size >= 2 && chosen.size <= MOST_COMPARED;
    bar.replaceChildren(
      h("span", { role: "status" }, `${counted(chosen.size, "run")} chosen`, enough ? "" : chosen.size < 2 ? ", choose one more" : `, at most ${MOST_COMPARED} can be compared`),
      h("button", { type: "button", class: "strong", disabled: !enough, onclick: () => go({ compare: [...chosen] }) }, "Compare"),
      h("button", { type: "button", class: "plain", onclick: () => {
        chosen.clear();
        document.querySelectorAll(".choose input").forEach((box) => { box.checked = false; });
        chosen.changed();
        document.querySelector("#search").focus();
      } }, "Clear"));
  };
  chosen.changed();
  return bar;
};

const chosen = new Set();

/** What several runs tell together: sentences under headings. */
const together = () => data.together.length > 0 && h("section", { class: "card together" },
  h("h2", {}, "What the runs tell together"),
  data.together.map(([title, told]) => [h("h3", {}, pooled(title)), h("ul", {}, texts(told).map((text) => h("li", {}, text)))]));

const overview = () => {
  const heading = h("h2", { tabindex: "-1" });
  const table = h("table", { id: "runs" });
  const note = h("p", { class: "muted", role: "status" });
  const more = h("button", { type: "button", class: "plain" });
  let rows = [];
  const extend = () => {
    const body = table.tBodies[0];
    const part = rows.slice(body.rows.length, body.rows.length + CHUNK);
    body.append(...part.map((run) => rowOf(run, chosen)));
    const left = rows.length - body.rows.length;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(left, CHUNK)} more of ${left}`;
  };
  const redraw = () => {
    rows = listed();
    heading.textContent = state.sort === "" ? "Runs, worst first" : "Runs";
    table.replaceChildren(h("caption", { class: "unseen" }, "Runs"), tableHead(redraw), h("tbody"));
    note.textContent = rows.length === runs.length ? "" : rows.length ? `${rows.length} of ${runs.length} runs match` : "No run matches.";
    extend();
  };
  more.addEventListener("click", extend);
  const search = h("input", { type: "search", id: "search", placeholder: "Search runs, findings, hyperparameters", "aria-label": "Search runs, findings and hyperparameters" });
  search.value = state.q;
  let waiting = null;
  search.addEventListener("input", () => {
    adjust({ q: search.value });
    clearTimeout(waiting);
    waiting = setTimeout(redraw, runs.length > 200 ? 120 : 0);
  });
  const value = h("input", { type: "text", id: "parameter-value", placeholder: "e.g. >= 0.01", "aria-label": "Value of the hyperparameter", hidden: state.hp === "" });
  value.value = state.is;
  value.addEventListener("input", () => { adjust({ is: value.value }); redraw(); });
  const names = varying();
  const parameters = names.length > 0 && choice("Hyperparameter", [["", "Any hyperparameter"], ...names.map((n) => [n, n])], state.hp, (name) => {
    adjust({ hp: name, is: "", sort: state.sort.replace("-", "") === "hp" ? "" : state.sort });
    value.value = "";
    value.hidden = name === "";
    redraw();
  });
  const bar = compareBar(chosen);
  redraw();
  return h("section", { class: "card overview" },
    heading,
    h("div", { class: "toolbar", role: "search" }, search,
      choice("Diagnosis", ruleOptions(), state.rule, (rule) => { adjust({ rule }); redraw(); }), parameters, parameters && value),
    note, h("div", { class: "scroll" }, table), more, bar);
};
