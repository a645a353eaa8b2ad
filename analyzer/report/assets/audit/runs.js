// The table of runs: filtered, sorted, and drawn only where it is in view.

const ROW = 48;
const COLUMNS = [
  ["Verdict", (i) => data.verdict[i]], ["Run", (i) => data.name[i]], ["Findings", (i) => data.rules[i].length],
  ["Curve", null], ["Steps", (i) => data.steps[i]], ["Hours", (i) => data.hours[i]], ["Wasted", (i) => data.wasted[i]],
];
const state = { text: "", verdicts: new Set(), rule: null, column: -1, up: true };
let order = data.name.map((_, i) => i);

// A run's own name over the folder it is in: of a long path the end tells runs apart.
const named = (name) => {
  const cut = name.lastIndexOf("/");
  return cut < 0 ? name : [name.slice(cut + 1), h("span", { class: "folder" }, name.slice(0, cut))];
};

const cells = (i) => {
  const rules = data.rules[i].map((r) => data.rule[r]).join(", ");
  const open = () => show(i);
  return [
    h("span", {}, badge(data.verdicts[data.verdict[i]])),
    h("button", { type: "button", class: "name", title: data.name[i], onclick: open }, named(data.name[i])),
    h("span", { class: "rules", title: rules }, rules || "–"),
    svg("svg", { class: "thumb", viewBox: "0 0 110 26", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("path", { d: thumbPath(data.thumb[i], 110, 26) })),
    h("span", { class: "n" }, shown(data.steps[i])),
    h("span", { class: "n" }, shown(data.hours[i])),
    h("span", { class: "n" }, percent(data.wasted[i])),
  ];
};

const space = h("div", { role: "rowgroup" });
const view = h("div", { class: "view", tabindex: "0", role: "presentation" }, space);
const count = h("span", { class: "muted", role: "status" });

const draw = () => {
  const first = Math.max(0, Math.floor(view.scrollTop / ROW) - 5);
  const last = Math.min(order.length, first + Math.ceil((view.clientHeight || 700) / ROW) + 10);
  const rows = [];
  for (let k = first; k < last; k++) {
    const row = h("div", { class: "row", role: "row", "aria-rowindex": k + 2 }, cells(order[k]).map((cell) => {
      cell.setAttribute("role", cell.tagName === "BUTTON" ? "button" : "cell");
      return cell;
    }));
    row.style.top = `${k * ROW}px`;
    rows.push(row);
  }
  if (!order.length) rows.push(h("p", { class: "none" }, "No run fits."));
  space.replaceChildren(...rows);
};

const matches = (i) =>
  (!state.verdicts.size || state.verdicts.has(data.verdict[i])) &&
  (state.rule === null || data.rules[i].includes(state.rule)) &&
  (!state.text || data.name[i].toLowerCase().includes(state.text) || data.rules[i].some((r) => data.rule[r].includes(state.text)));

const update = () => {
  order = data.name.map((_, i) => i).filter(matches);
  const key = state.column >= 0 && COLUMNS[state.column][1];
  if (key) {
    const sign = state.up ? 1 : -1;
    order.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y) || a - b;
    });
  }
  space.style.height = view.style.height = `${Math.max(2, order.length) * ROW}px`;
  count.textContent = `${order.length.toLocaleString("en")} of ${data.name.length.toLocaleString("en")} runs`;
  view.scrollTop = 0;
  draw();
};

const heads = COLUMNS.map(([title, key], c) => {
  const cell = h("span", { role: "columnheader", class: c > 3 && "n" }, key ? h("button", { type: "button" }, title) : title);
  if (key) cell.firstChild.addEventListener("click", () => {
    state.up = state.column === c ? !state.up : c < 2;
    state.column = c;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", state.up ? "ascending" : "descending");
    update();
  });
  return cell;
});

const search = h("input", { type: "search", placeholder: "Name or finding", "aria-label": "Search runs" });
search.addEventListener("input", () => { state.text = search.value.trim().toLowerCase(); update(); });
const verdictButtons = data.verdicts.map((verdict, v) =>
  toggle([icon(verdict), ` ${data.words[verdict]}`], false, (on) => { state.verdicts[on ? "add" : "delete"](v); update(); }, { class: `toggle ${verdict}` }));

document.getElementById("table").append(
  h("div", { class: "toolbar" }, search, verdictButtons, count),
  h("div", { class: "runs", role: "table", "aria-label": "Runs", "aria-rowcount": data.name.length + 1 },
    h("div", { class: "row heads", role: "row" }, heads), view));
view.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("resize", draw);

const bars = [...document.querySelectorAll("#bars button")];
for (const bar of bars) bar.addEventListener("click", () => {
  const on = bar.getAttribute("aria-pressed") !== "true";
  bars.forEach((other) => other.setAttribute("aria-pressed", String(on && other === bar)));
  const found = data.rule.indexOf(bar.dataset.rule);
  state.rule = on && found >= 0 ? found : null;
  update();
  if (on) document.getElementById("table").scrollIntoView({ behavior: "smooth" });
});
document.getElementById("tools").append(themeButton());
