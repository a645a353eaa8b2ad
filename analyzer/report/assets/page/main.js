// Which view the address asks for, and paper.

const FEW = 3; // runs that are all shown in full below the table
const ON_PAPER = 20; // runs with findings that follow the printed table
const PAPER = 720; // pixels
const stage = h("div");
let views = []; // of the charts on the page

const backLink = () =>
  runs.length > 1 && h("a", { class: "back", href: hashOf({ ...state, run: "", compare: [], log: "", smooth: "", zoom: "" }) }, "← All runs");

const neighbours = (run) => {
  const order = listed();
  const place = order.indexOf(run);
  const step = (to, label, key) => {
    const other = order[to];
    return h("button", { type: "button", class: "plain", disabled: place < 0 || !other, "aria-keyshortcuts": key,
      title: `${label} (${key})`, onclick: () => go({ run: other.key }) }, label);
  };
  return h("div", { class: "neighbours" }, step(place - 1, "Previous", "k"), step(place + 1, "Next", "j"),
    h("button", { type: "button", class: "plain", onclick: async (event) => {
      const button = event.currentTarget;
      button.textContent = (await copyText(location.href)) ? "Link copied" : "Not copied";
      say(button.textContent);
      button.focus();
      setTimeout(() => { button.textContent = "Copy link"; }, 1500);
    } }, "Copy link"));
};

const runSection = (run, settings, changed, navigation) => {
  const detail = runDetail(run, settings, changed);
  const facts = `${run.size}${run.findings.length ? `, ${counted(run.findings.length, "finding")}` : ""}`;
  const box = h("section", { class: `card run ${run.verdict}`, "data-run": run.key },
    navigation && runs.length > 1 && h("div", { class: "run-nav" }, backLink(), neighbours(run)),
    h("div", { class: "run-head" }, badge(run.verdict), h("h2", { tabindex: "-1" }, breakable(run.name)), h("span", { class: "muted" }, facts)),
    detail.box);
  return { ...detail, box };
};

const place = (sections) => {
  stage.replaceChildren(...sections.map((s) => s.box));
  sections.forEach((s) => s.settle?.());
  views = sections.flatMap((s) => (s.views ? [...s.views.values()] : []));
};

const problemCard = () =>
  data.problems.count > 0 && { box: h("section", { class: "card problems-card" },
    fold(h("h2", {}, `Problems (${data.problems.count})`), () => problemList(data.problems), { open: data.problems.count <= 5 })) };

const sectionsNow = () => {
  const asked = [state.run, ...state.compare].filter((key) => key !== "");
  const unknown = asked.filter((key) => !runOf.has(key));
  const notice = unknown.length > 0 && { box: h("p", { class: "card", role: "status" }, `Not in this report: ${unknown.join(", ")}`) };
  const own = { log: state.log, smooth: state.smooth, zoom: state.zoom };
  if (state.compare.filter((key) => runOf.has(key)).length > 1) return [notice, comparison(own, adjust)];
  const run = runOf.get(state.run) ?? (runs.length === 1 ? runs[0] : null);
  if (run) return [runSection(run, own, adjust, true), runs.length === 1 && problemCard()];
  const table = runs.length > 1 && { box: overview() };
  const below = runs.length <= FEW ? runs.map((r) => runSection(r, DEFAULTS, () => {}, false)) : [];
  const beside = table && together();
  return [notice, table, beside && { box: beside }, problemCard(), ...below];
};

const show = (focus) => {
  pressFilters();
  place(sectionsNow().filter(Boolean));
  if (!focus) return;
  scrollTo(0, 0);
  stage.querySelector("h2")?.focus({ preventScroll: true });
};

const route = () => {
  const before = state;
  state = readState();
  if (hashOf(before) !== hashOf(state)) show(before.run !== state.run || before.compare.join() !== state.compare.join());
};
addEventListener("hashchange", route);

addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.querySelector("#search")) {
    event.preventDefault();
    document.querySelector("#search").focus();
  }
  document.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key)}"]:not(:disabled)`)?.click();
});

let resizing = null;
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return; // on a phone the bars come and go
  width = innerWidth;
  cancelAnimationFrame(resizing);
  resizing = requestAnimationFrame(() => views.forEach((view) => view.redraw()));
});

// Paper: the runs with findings follow the table in short; a run on its own is unfolded, but for its numbers.
let restore = null;
addEventListener("beforeprint", () => {
  const table = document.querySelector("#runs");
  const added = table && runs.length > FEW
    ? listed().filter((run) => ["critical", "warning"].includes(run.verdict)).slice(0, ON_PAPER).map((run) => runSection(run, DEFAULTS, () => {}, false)) : [];
  stage.append(...added.map((s) => s.box));
  added.forEach((s) => s.settle());
  const folds = [];
  const closed = () => (added.length ? [] : [...stage.querySelectorAll("details:not([open], .numbers)")]);
  for (let more = closed(); more.length; more = closed()) { // a fold may hold folds
    more.forEach((f) => f.unfold());
    folds.push(...more);
  }
  const drawn = [...views, ...added.flatMap((s) => [...s.views.values()])];
  drawn.forEach((view) => { view.width = PAPER; view.redraw(); });
  restore = () => {
    added.forEach((s) => s.box.remove());
    folds.forEach((f) => { f.open = false; });
    drawn.forEach((view) => { view.width = null; view.redraw(); });
  };
});
addEventListener("afterprint", () => restore?.());

document.querySelector("#tools").append(themeButton());
if (runs.length > 1) document.querySelector(".counts").replaceWith(verdictFilters());
document.querySelector("#stage").append(stage, status);
show(false);
