// What is shown is in the address: a view can be linked, and Back goes back.

const DEFAULTS = { q: "", verdict: [], rule: "", hp: "", is: "", sort: "", run: "", compare: [], log: "", smooth: "", zoom: "" };
const OF_CHARTS = ["log", "smooth", "zoom"];

// A page in a notebook's frame has no address of its own: there the view is remembered here.
const framed = location.protocol === "about:";
let remembered = "";

const readState = () => {
  const given = new URLSearchParams((framed ? remembered : location.hash).slice(1));
  const state = {};
  for (const [key, standard] of Object.entries(DEFAULTS)) {
    state[key] = Array.isArray(standard) ? given.getAll(key) : given.get(key) ?? standard;
  }
  return state;
};

const hashOf = (state) => {
  const kept = new URLSearchParams();
  for (const key of Object.keys(DEFAULTS)) {
    for (const value of [state[key]].flat()) if (value !== "") kept.append(key, value);
  }
  return `#${kept}`;
};

let state = readState();

const follow = (hash) => {
  if (framed) remembered = hash;
  else location.hash = hash;
  route(); // at once; the event that follows finds nothing left to do
};

/** Go to another view: a new entry of the history. */
const go = (changes) => {
  const hash = hashOf({ ...state, log: "", smooth: "", zoom: "", ...changes });
  if (hash !== hashOf(state)) follow(hash);
};

/** The same view, looked at differently: no new entry. */
const adjust = (changes) => {
  state = { ...state, ...changes };
  if (framed) remembered = hashOf(state);
  else history.replaceState(null, "", hashOf(state));
};

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!framed || !link) return;
  event.preventDefault();
  follow(link.getAttribute("href"));
});
