// Start, routing and the parts around every view: navigation, banner, theme.

import { h, hidden } from "./dom.js";
import { duration, time } from "./format.js";
import { age, emptyCard } from "./parts.js";
import { Store } from "./store.js";
import * as board from "./views/board.js";

// The board comes with the page; other views, and the chart, only when they are opened.
const VIEWS = {
  "": { name: "Board", load: async () => board },
  leaderboard: { name: "Leaderboard", load: () => import("./views/leaderboard.js") },
  anomalies: { name: "Anomalies", load: () => import("./views/anomalies.js") },
  forecasts: { name: "Forecasts", load: () => import("./views/forecasts.js") },
  pipeline: { name: "Pipeline", load: () => import("./views/pipeline.js"), always: true },
  coin: { name: "Coin", load: () => import("./views/coin.js"), within: "" },
};

const main = document.getElementById("main");
const store = new Store();
let open = null;

/** Place in the page: `#/coin/bitcoin?interval=1h` is view coin, of bitcoin, with that parameter. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/").map(decodeURIComponent);
  return { view: view in VIEWS ? view : "", rest, params: new URLSearchParams(query) };
}

/** Show the view of the address; `moved` = the reader went there. */
async function show({ moved = false } = {}) {
  const { view, rest, params } = place();
  navigation(view);
  if (!store.board) return;
  const empty = !store.data.prices.length && !VIEWS[view].always;
  if (open && !moved && open.view === view && open.empty === empty) return;
  open?.leave.abort();
  const mine = (open = { view, empty, leave: new AbortController() });
  const focused = document.activeElement?.id;
  title(VIEWS[view].name);
  main.setAttribute("aria-busy", "true");
  try {
    const module = empty ? { show: (root) => root.append(emptyCard(store)) } : await VIEWS[view].load();
    if (open !== mine) return; // another was opened meanwhile
    main.replaceChildren();
    await module.show(main, { store, params, rest, signal: mine.leave.signal, title });
  } catch (error) {
    if (open !== mine) return;
    open = null; // the next board that is loaded shows the view again
    main.replaceChildren(card("This view could not be loaded", `${error.message}.`));
  }
  if (open && open !== mine) return;
  main.setAttribute("aria-busy", "false");
  // Who chose an interval or a filter stays there; who came by a link begins at the top.
  if (moved) (document.getElementById(focused) ?? main).focus({ preventScroll: true });
}

const card = (heading, text) => h("section", { class: "card" }, h("h1", {}, heading), h("p", {}, text));

function title(text) {
  document.title = `${text} · crypto_assets`;
}

const links = Object.entries(VIEWS)
  .filter(([, { within }]) => within === undefined)
  .map(([view, { name }]) => ({ view, element: h("a", { href: `#/${view}` }, name) }));

function navigation(current) {
  for (const { view, element } of links) {
    if (view === (VIEWS[current].within ?? current)) element.setAttribute("aria-current", "page");
    else element.removeAttribute("aria-current");
  }
}

// --- banner -------------------------------------------------------------------------------------------------------

const banner = { box: document.getElementById("banner"), sig: "" };

/** What the data is, how old it is, and whether changes arrive; on every view. */
function drawBanner() {
  const about = store.board?.provenance;
  const [mode, ...words] = (about?.banner ?? "").split(" ");
  const old = store.board && age(store);
  const live = { live: "Connected", connecting: "Connecting", lost: "Connection lost" }[store.connection];
  const lost = store.lostAt && ` since ${time(store.lostAt).slice(11)} UTC, trying again`;
  const aged = old
    ? `${old.old ? "Old data: " : "Data "}${duration(old.age)}${old.old ? "" : " old"}`
    : (store.trouble?.message ?? "No data");
  const because = old && `newest quote ${time(old.at)} UTC`;
  const sig = [mode, aged, live, lost].join();
  if (sig === banner.sig) return;
  banner.sig = sig;
  banner.box.classList.toggle("old", Boolean(old?.old));
  banner.box.classList.toggle("lost", store.connection === "lost");
  banner.box.replaceChildren(
    h("span", { class: "mode" }, mode && h("b", { class: "badge" }, mode), ` ${words.join(" ")}`),
    h("span", { class: "age" }, h("b", {}, aged), because && h("span", { class: "since" }, because)),
    h("span", { class: `link ${store.connection}` }, h("i", { "aria-hidden": "true" }), live, lost || ""),
  );
  document.getElementById("foot-source").textContent =
    about?.source === "coingecko" ? "Data provided by CoinGecko" : "";
}

// --- theme --------------------------------------------------------------------------------------------------------

const NEXT = { auto: "light", light: "dark", dark: "auto" };

function drawTheme() {
  const { chosen } = globalThis.theme;
  const shown = { auto: "Auto", light: "Light", dark: "Dark" }[chosen];
  document.getElementById("theme").replaceChildren(hidden("Theme: "), shown);
}

document
  .getElementById("theme")
  .addEventListener("click", () => globalThis.theme.choose(NEXT[globalThis.theme.chosen]));
addEventListener("themechange", drawTheme);

// --- login --------------------------------------------------------------------------------------------------------

/** A form for the token, where the server asks for one. */
function drawLogin() {
  open?.leave.abort();
  open = null;
  const input = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
  const wrong = h("p", { role: "alert" });
  const send = async (event) => {
    event.preventDefault();
    const reply = await fetch("login", { method: "POST", body: JSON.stringify({ token: input.value }) });
    if (reply.ok) location.reload();
    else wrong.textContent = (await reply.json().catch(() => ({}))).detail ?? "The server does not answer.";
  };
  main.replaceChildren(
    h(
      "form",
      { class: "card", onsubmit: send },
      h("h1", {}, "Log in"),
      h("p", {}, h("label", { for: "token" }, "Token of the server (", h("code", {}, "CRYPTO_ASSETS_API_TOKEN"), ")")),
      h("p", {}, input, " ", h("button", { type: "submit" }, "Log in")),
      wrong,
    ),
  );
}

// --- start --------------------------------------------------------------------------------------------------------

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => show({ moved: true }));
store.on("board", () => show());
store.on("trouble", (error) => {
  if (error.status === 401) drawLogin();
  else if (!store.board) main.replaceChildren(card("Waiting for the server", `${error.message}.`));
});
for (const name of ["board", "price", "connection", "trouble"]) store.on(name, drawBanner);
setInterval(drawBanner, 1_000);
drawTheme();
document.getElementById("nav").append(...links.map(({ element }) => element));
navigation(place().view);
store.start();
