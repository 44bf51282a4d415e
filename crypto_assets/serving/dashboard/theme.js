// Light or dark: the system's choice unless one was made here. A classic script, so that it runs before the first paint.
(() => {
  const KEY = "crypto_assets.theme";
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // Storage may be forbidden; the system's choice then holds.
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const theme = chosen ?? (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    dispatchEvent(new CustomEvent("themechange", { detail: { theme, chosen: chosen ?? "auto" } }));
  };
  system.addEventListener("change", apply);
  globalThis.theme = {
    get chosen() {
      return chosen ?? "auto";
    },
    choose(name) {
      chosen = name === "auto" ? null : name;
      try {
        if (chosen === null) localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, chosen);
      } catch {
        // Without storage the choice lasts until the page is closed.
      }
      apply();
    },
  };
  apply();
})();
