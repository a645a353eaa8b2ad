// Light or dark: the reader's system decides unless the reader does.

const THEMES = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };

const stored = (value) => {
  try {
    if (value) localStorage.setItem("analyzer-theme", value);
    return localStorage.getItem("analyzer-theme");
  } catch {
    return value ?? null; // no storage for pages opened from a file
  }
};

const themeButton = () => {
  const button = h("button", { type: "button", class: "plain" });
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = THEMES[theme];
    button.setAttribute("aria-label", `Colours: ${theme}`);
  };
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    show(next);
    stored(next);
  });
  show(Object.hasOwn(THEMES, stored() ?? "") ? stored() : "auto");
  return button;
};
