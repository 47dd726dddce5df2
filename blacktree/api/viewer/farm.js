// The farm as it runs: from the queue over the dispatcher to the workers, how the last hours went, and what happened.

import { charts, house, tile } from "./house.js";
import { announce, element, fill, plain, since } from "./format.js";

const HOURS = 3;
const BINS = 36;
const MOST_EVENTS = 200;

export class FarmPage {
  constructor(connection, main) {
    this.connection = connection;
    this.events = [];
    this.rows = new Map();
    this.tiles = new Map();
    this.jobs = new Map();
    this.workers = [];
    this.next = 1;
    this.closed = false;
    document.title = "Farm · Blacktree";
    this.status = element("span", { class: "aside", role: "status" });
    this.house = element("section", { class: "house", "aria-label": "Condition" });
    this.grid = element("section", { class: "tiles", "aria-label": "Workers" });
    this.charts = element("section", { class: "charts", "aria-label": "The last hours" });
    this.log = element("ol", { class: "events" });
    fill(main, element("div", { class: "page" },
      element("div", { class: "title" }, element("h1", {}, "Farm"), this.status),
      this.house, element("h2", {}, "Workers"), this.grid,
      element("h2", {}, `The last ${HOURS} hours`), this.charts,
      element("h2", {}, "What happened"), this.log));
    this.watch = connection.watch("farm.watch", () => ({}), {
      begun: (whole) => {
        this.jobs.clear();
        this.#take(whole);
        this.#info();
        this.#history();
      },
      "farm.changed": (changed) => this.#take(changed),
    });
    this.ticking = [setInterval(() => this.#info(), 2000), setInterval(() => this.#history(), 10_000)];
    this.#follow();
  }

  close() {
    this.closed = true;
    this.watch.close();
    this.ticking.forEach(clearInterval);
  }

  #take({ jobs, workers, queue }) {
    for (const job of jobs ?? []) this.jobs.set(job.id, job);
    if (workers) this.workers = workers;
    if (queue) this.queue = queue;
    this.#draw();
  }

  async #info() {
    try {
      this.info = await this.connection.call("farm.info");
      this.#draw();
    } catch {
      // Asked again in a moment.
    }
  }

  async #history() {
    try {
      this.rates = await this.connection.call("farm.history", { hours: 1 / 6, bins: 10 });
      const whole = await this.connection.call("farm.history", { hours: HOURS, bins: BINS });
      if (this.closed) return;
      fill(this.charts, charts(whole));
      this.#draw();
    } catch {
      // Asked again in a moment.
    }
  }

  async #follow() {
    while (!this.closed) {
      try {
        const found = await this.connection.call("farm.events", { from_seq: this.next, limit: 1000, wait: 25 });
        this.next = found.next_seq;
        this.events = [...this.events, ...found.events].slice(-MOST_EVENTS);
        this.#drawEvents();
      } catch {
        await new Promise((done) => setTimeout(done, 2000));
      }
    }
  }

  #draw() {
    if (!this.queue || this.closed) return;
    const status = this.info?.status ?? "";
    this.status.textContent = status ? [status, ...this.info.reasons].map(plain).join(" · ") : "";
    this.status.className = status === "ready" ? "good" : "bad";
    if (status) announce(`Farm ${status}`);
    fill(this.house, house({ queue: this.queue, info: this.info, rates: this.rates, workers: this.workers }));
    if (!this.workers.length) {
      fill(this.grid, element("p", { class: "empty" }, "No worker has come yet. Start one: ", element("code", {}, "blacktree worker")));
      return;
    }
    const drain = (worker) => this.connection.call("worker.drain", { id: worker.id, drain: worker.state !== "draining" });
    fill(this.grid, this.workers.map((worker) => {
      // Whatever else is said of it, being heard of is not a change: the button under the reader's finger stays.
      const jobs = worker.jobs.map((id) => this.jobs.get(id) ?? { id });
      const sign = JSON.stringify([{ ...worker, last_seen_at: "" }, jobs.map(({ id, state }) => [id, state])]);
      let made = this.tiles.get(worker.id);
      if (made?.sign !== sign) {
        const held = made?.node.contains(document.activeElement);
        made = { sign, node: tile(worker, jobs, drain), held };
        this.tiles.set(worker.id, made);
      }
      const seen = made.node.querySelector(".seen time");
      if (seen) seen.dateTime = worker.last_seen_at;
      return made.node;
    }));
    for (const made of this.tiles.values()) {
      if (made.held) made.node.querySelector("button")?.focus();
      made.held = false;
    }
  }

  #drawEvents() {
    fill(this.log, [...this.events].reverse().map((event) => {
      let node = this.rows.get(event.seq);
      if (!node) {
        node = element("li", {}, since(event.time), element("code", { class: "kind" }, plain(event.type)), element("span", {}, plain(event.text)));
        this.rows.set(event.seq, node);
      }
      return node;
    }));
    for (const seq of this.rows.keys()) if (seq <= this.next - 1 - 2 * MOST_EVENTS) this.rows.delete(seq);
  }
}
