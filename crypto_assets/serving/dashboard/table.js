// Tables whose decimal points are aligned, whose missing values have a reason, and that a change updates in place.

import { h, hidden } from "./dom.js";

/** A number as text, aligned with the others of its column; `unit` follows it. */
export const num = (text, unit = "") => ({ text, unit });

/** A number with a note on where it comes from. */
export const noted = (value, note) => ({ ...value, note });

/** A value that is not there, and why. */
export const missing = (reason) => ({ reason });

/** A signed number with its direction beside its colour. */
export function change(value, text) {
  const way = value > 0 ? "up" : value < 0 ? "down" : "flat";
  return {
    value,
    text,
    way,
    mark: { up: "▲", down: "▼", flat: "" }[way],
    said: { up: "up", down: "down", flat: "unchanged" }[way],
  };
}

/**
 * A table.
 *
 * columns: { id, label, cell(row), num, lead, fit, mixed, sort(row), title }; num = aligned at the decimal point, unless mixed
 *   with other units; lead = names the row; fit = is not broken into lines. A cell is text, an element, `num`, `change`,
 *   `missing`, or { sig, node() } for what is expensive to build.
 * options: { caption, key(row), sortBy: [id, descending], empty, name }; a name is a class, for style sheets
 */
export class Table {
  constructor(columns, { caption, key, sortBy = null, empty = "There are none.", name = "" }) {
    this.columns = columns;
    this.key = key;
    this.sortBy = sortBy;
    this.empty = empty;
    this.rows = [];
    this.lines = new Map();
    this.heads = columns.map((column) => this.#head(column));
    this.body = h("tbody", { role: "rowgroup" });
    this.notes = h("ol", { class: "notes", hidden: true });
    // Roles are explicit, since narrow screens lay rows out as a grid and would lose those of a table.
    this.element = h(
      "div",
      { class: `tablebox ${name}` },
      h(
        "table",
        { role: "table" },
        h("caption", {}, caption),
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, this.heads)),
        this.body,
      ),
      this.notes,
    );
    new ResizeObserver(() => this.#fit()).observe(this.element);
  }

  /** Lay rows out as blocks where the table is wider than its place. */
  #fit() {
    this.element.classList.remove("cards");
    const table = this.element.firstElementChild;
    this.element.classList.toggle("cards", table.getBoundingClientRect().width > this.element.clientWidth + 0.5);
  }

  #head(column) {
    const attributes = { role: "columnheader", scope: "col", class: column.num && "num", title: column.title };
    if (!column.sort) return h("th", attributes, column.label);
    const sort = () => {
      const [id, down] = this.sortBy ?? [];
      this.sortBy = [column.id, id === column.id ? !down : true];
      this.update(this.rows);
    };
    return h("th", attributes, h("button", { type: "button", class: "sort", onclick: sort }, column.label));
  }

  /** Show these rows; what has not changed stays as it is, with the focus. */
  update(rows) {
    this.rows = rows;
    const shown = this.#sorted(rows);
    const cells = shown.map((row) => this.columns.map((column) => column.cell(row)));
    const places = this.columns.map((column, i) =>
      column.mixed ? 0 : Math.max(0, ...cells.map((line) => decimals(line[i]))),
    );
    const reasons = this.#reasons(cells);
    const focused = document.activeElement;
    const keys = shown.map(this.key);
    for (const [key, line] of this.lines) if (!keys.includes(key)) this.lines.delete(key) && line.remove();
    shown.forEach((row, n) => {
      const line = this.lines.get(keys[n]) ?? this.#line(keys[n]);
      this.columns.forEach((column, i) => this.#cell(line.children[i], cells[n][i], places[i], reasons));
      if (this.body.children[n] !== line) this.body.insertBefore(line, this.body.children[n] ?? null);
    });
    if (!shown.length) {
      this.lines.clear();
      const span = { role: "cell", colspan: this.columns.length, class: "none" };
      this.body.replaceChildren(h("tr", { role: "row" }, h("td", span, this.empty)));
    }
    if (!this.element.classList.contains("cards")) this.#fit(); // a longer value may not fit any more
    if (focused !== document.activeElement && this.body.contains(focused)) focused.focus({ preventScroll: true });
  }

  #sorted(rows) {
    this.heads.forEach((head, i) => {
      const [id, down] = this.sortBy ?? [];
      if (id === this.columns[i].id) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    if (!this.sortBy) return rows;
    const [id, down] = this.sortBy;
    const value = this.columns.find((column) => column.id === id).sort;
    const least = (v) => v === null || v === undefined;
    return [...rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (least(x) || least(y)) return least(x) - least(y); // what is missing comes last, whatever the order
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    });
  }

  #line(key) {
    if (!this.lines.size) this.body.replaceChildren();
    const line = h(
      "tr",
      { role: "row" },
      this.columns.map((column) => {
        const attributes = {
          class: [column.num && "num", column.lead && "lead", column.fit && "fit", `c-${column.id}`]
            .filter(Boolean)
            .join(" "),
        };
        return column.lead
          ? h("th", { role: "rowheader", scope: "row", ...attributes })
          : h("td", { role: "cell", "data-label": column.label, ...attributes });
      }),
    );
    this.lines.set(key, line);
    return line;
  }

  #cell(element, value, places, reasons) {
    const sig = value?.sig ?? signature(value, places, reasons);
    if (element.sig === sig) return;
    const changed = element.sig !== undefined && isNumber(value);
    element.sig = sig;
    element.replaceChildren(...content(value, places, reasons));
    if (changed) flash(element);
  }

  /** All notes and reasons for missing values, which are numbered and spelled out below the table. */
  #reasons(cells) {
    const found = new Map();
    for (const line of cells) {
      line.forEach((value, i) => {
        const said = value?.reason ?? value?.note;
        if (said === undefined) return;
        if (!found.has(said)) found.set(said, new Set());
        found.get(said).add(this.columns[i].label);
      });
    }
    this.notes.hidden = !found.size;
    this.notes.replaceChildren(
      ...[...found].map(([reason, labels]) => h("li", {}, `${[...labels].join(", ")}: ${reason}`)),
    );
    return [...found.keys()];
  }
}

function signature(value, places, reasons) {
  if (value instanceof Node) return value.outerHTML;
  if (value?.reason !== undefined) return `? ${reasons.indexOf(value.reason)} ${value.reason}`;
  return isNumber(value) ? `${value.text} ${value.unit ?? ""} ${places} ${reasons.indexOf(value.note)}` : String(value);
}

function content(value, places, reasons) {
  if (value?.node) return [value.node()];
  if (value?.reason !== undefined) {
    const number = reasons.indexOf(value.reason) + 1;
    const shown = h(
      "span",
      { class: "missing", title: value.reason },
      "–",
      h("sup", { "aria-hidden": "true" }, String(number)),
    );
    return [shown, hidden(` unknown: ${value.reason}`)];
  }
  if (!isNumber(value)) return [value ?? ""];
  const digits = decimals(value);
  // Invisible digits stand in for those that a shorter number lacks, so that all points are below each other.
  const lacking = places - digits;
  const pad = lacking > 0 && `${digits ? "" : "."}${"0".repeat(lacking)}`;
  const mark = value.way && h("span", { class: "mark", "aria-hidden": "true" }, value.mark);
  return [
    h(
      "span",
      { class: value.way ? `n ${value.way}` : "n" },
      mark || "",
      value.said ? hidden(`${value.said} `) : "",
      value.text,
      pad ? h("span", { class: "pad", "aria-hidden": "true" }, pad) : "",
      value.unit ? h("span", { class: "unit" }, value.unit) : "",
      value.note ? h("sup", { title: value.note, "aria-hidden": "true" }, String(reasons.indexOf(value.note) + 1)) : "",
    ),
  ];
}

/** True for what `num` and `change` make; links have a `text`, too. */
const isNumber = (value) => value?.text !== undefined && !(value instanceof Node);

function decimals(value) {
  if (!isNumber(value)) return 0;
  const point = value.text.indexOf(".");
  return point < 0 ? 0 : /^\d*/.exec(value.text.slice(point + 1))[0].length;
}

/** Mark a value that has just changed; style sheets leave it out where less motion is asked for. */
function flash(element) {
  element.classList.remove("changed");
  void element.offsetWidth; // restarts the animation
  element.classList.add("changed");
}
