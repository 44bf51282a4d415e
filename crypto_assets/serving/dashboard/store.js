// What the page knows: the board, loaded once and kept current by the stream of changes.
//
// Events: `board` (all of it was loaded again), `price`, `bar`, `anomaly`, `prediction`, `alert` (one row came),
// `reset` (changes were missed: load everything), `connection`, `trouble`.

const LOADING = /being loaded/;
const RETRY_MS = 2_000;
const RELOAD_MS = 5_000;
const HIDDEN_MS = 60_000;

/** A request that was not answered as hoped; `status` 0 = no server. */
class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** JSON of a route. */
export async function ask(path) {
  let response;
  try {
    response = await fetch(path);
  } catch {
    throw new Refused(0, "the server does not answer");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body.detail ?? response.statusText);
  return body;
}

export class Store extends EventTarget {
  board = null;
  /** `live`, `connecting` or `lost`. */
  connection = "connecting";
  lostAt = null;
  /** Why the board could not be loaded; null = it could. */
  trouble = null;
  #skew = 0;
  #stream = null;
  #reload = null;
  #hidden = null;
  #retry = null;

  /** Load the board and follow the changes. */
  async start() {
    await this.load();
    if (this.trouble?.status === 401) return; // the page logs in, and starts again
    this.#connect();
    // A browser opens six connections to a server: a tab that is not seen gives its own back after a while.
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#hidden);
      if (document.hidden) this.#hidden = setTimeout(() => this.#disconnect(), HIDDEN_MS);
      else if (!this.#stream) this.#return();
    });
  }

  /** Tell the views. */
  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Call `act(detail)` at every event of a name until the signal aborts. */
  on(name, act, signal) {
    this.addEventListener(name, (event) => act(event.detail), { signal });
  }

  /** Load the board. */
  async load() {
    try {
      const board = await ask("v1/board");
      // A server that has just started has no rows yet, which is no empty home.
      if (LOADING.test(board.provenance.ready)) throw new Refused(503, board.provenance.ready);
      // Ages are counted by the server's clock, which may differ from this machine's.
      const dated = Object.values(board.provenance.tables).find((table) => table.newest_event_at && table.age_s > 0);
      if (dated) this.#skew = Date.parse(dated.newest_event_at) + 1000 * dated.age_s - Date.now();
      this.board = board;
      this.trouble = null;
      this.tell("board");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.trouble = error;
      this.tell("trouble", error);
      if (error.status !== 401) this.#again();
    }
  }

  /** The server's present time, in milliseconds since 1970. */
  now() {
    return Date.now() + this.#skew;
  }

  get data() {
    return this.board?.data ?? null;
  }

  /** Provenance of a table that the board shows; undefined without it. */
  about(table) {
    return this.board?.provenance.tables[table];
  }

  /** Age in seconds of the newest quote, and its time; null without quotes. */
  newest() {
    const times = (this.data?.prices ?? []).map((row) => Date.parse(row.last_updated_at));
    if (!times.length) return null;
    const at = Math.max(...times);
    return { at, age: Math.max(0, (this.now() - at) / 1000) };
  }

  #again() {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.load(), RETRY_MS);
  }

  #connect() {
    const stream = (this.#stream = new EventSource("v1/stream"));
    stream.onopen = () => {
      const back = this.connection === "lost";
      this.#connected("live");
      if (back) this.load().then(() => this.tell("reset"));
    };
    stream.onerror = () => {
      this.#connected("lost");
      if (stream.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      setTimeout(() => this.#stream === stream && this.#connect(), RETRY_MS);
    };
    for (const kind of ["price", "bar", "anomaly", "prediction", "alert", "status", "table"]) {
      stream.addEventListener(kind, (event) => this.#take(kind, JSON.parse(event.data)));
    }
    stream.addEventListener("reset", () => this.load().then(() => this.tell("reset")));
  }

  /** Come back to what may have changed meanwhile. */
  async #return() {
    await this.load();
    this.tell("reset");
    this.#connect();
  }

  #disconnect() {
    this.#stream?.close();
    this.#stream = null;
  }

  #connected(state) {
    if (state === this.connection) return;
    this.lostAt = state === "lost" ? this.now() : null;
    this.connection = state;
    this.tell("connection");
  }

  #take(kind, news) {
    if (!this.board) return;
    this.#keep[kind]?.(news);
    if (kind === "table" || kind === "status") {
      // A commit may have changed what is not sent row by row; many commits in a moment are one reload.
      this.#reload ??= setTimeout(() => {
        this.#reload = null;
        this.load();
      }, RELOAD_MS);
      return;
    }
    this.tell(kind, news);
  }

  #keep = {
    price: ({ row }) => put(this.data.prices, row, (other) => other.coin_id === row.coin_id),
    bar: ({ row, interval }) => {
      if (interval !== "5m") return;
      const line = (this.data.sparklines[row.coin_id] ??= []);
      if (line.length && Date.parse(line.at(-1)[0]) > Date.parse(row.window_start)) return;
      put(line, [row.window_start, row.close], ([at]) => at === row.window_start);
    },
    anomaly: ({ row }) =>
      put(this.data.flags, row, (f) => f.coin_id === row.coin_id && f.window_end === row.window_end),
    alert: ({ row }) => put(this.data.alerts, row, (other) => other.alert_id === row.alert_id),
  };
}

/** Replace the row that is the same, or add it at the end. */
function put(rows, row, same) {
  const place = rows.findIndex(same);
  if (place < 0) rows.push(row);
  else rows[place] = row;
}
