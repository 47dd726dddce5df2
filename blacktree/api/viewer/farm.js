// The farm as it runs: queue, workers, what happened, and how the last hours went.

import { ago, bytes, duration, element, fill, plain, repositoryName, tell } from "/viewer/format.js";

const HOURS = 3;
const BINS = 36;

export class FarmPage {
  constructor(connection, main) {
    this.connection = connection;
    this.events = [];
    this.jobs = new Map();
    this.next = 1;
    document.title = "Farm · Blacktree";
    this.condition = element("section", { class: "cards", "aria-label": "Condition" });
    this.workers = element("section", { "aria-label": "Workers" });
    this.charts = element("section", { class: "charts", "aria-label": "The last hours" });
    this.log = element("ol", { class: "events" });
    fill(main, element("h1", {}, "Farm"), this.condition, element("h2", {}, "Workers"), this.workers,
      element("h2", {}, `The last ${HOURS} hours`), this.charts, element("h2", {}, "What happened"), this.log);
    this.watch = connection.watch("farm.watch", () => ({}), {
      begun: (whole) => {
        this.#take(whole);
        this.#older();
        this.#info();
      },
      "farm.changed": (changed) => this.#take(changed),
      refused: tell,
    });
    this.ticking = setInterval(() => this.#info(), 5000);
    this.closed = false;
    this.#follow();
  }

  close() {
    this.closed = true;
    this.watch.close();
    clearInterval(this.ticking);
  }

  #take({ jobs, workers, queue }) {
    for (const job of jobs ?? []) this.jobs.set(job.id, job);
    if (workers) this.#drawWorkers(workers);
    if (queue) this.queue = queue;
    this.#drawCards();
    this.#drawCharts();
  }

  async #older() {
    try {
      const begin = Date.now() - HOURS * 3600_000;
      let cursor = null;
      do {
        const found = await this.connection.call("job.list", { limit: 500, cursor });
        for (const job of found.jobs) this.jobs.set(job.id, job);
        cursor = found.jobs.length && Date.parse(found.jobs.at(-1).created_at) > begin ? found.cursor : null;
      } while (cursor && this.jobs.size < 5000);
      this.#drawCharts();
    } catch {
      // Charts of what is at hand are better than none.
    }
  }

  async #info() {
    try {
      this.info = await this.connection.call("farm.info");
      this.#drawCards();
    } catch {
      // Asked again in a moment.
    }
  }

  async #follow() {
    while (!this.closed) {
      try {
        const found = await this.connection.call("farm.events", { from_seq: this.next, limit: 1000, wait: 25 });
        this.next = found.next_seq;
        this.events = [...this.events, ...found.events].slice(-200);
        this.#drawEvents();
      } catch {
        await new Promise((done) => setTimeout(done, 2000));
      }
    }
  }

  #drawCards() {
    const card = (name, value, kind = "", detail = "") => element("div", { class: `card ${kind}` }, element("span", {}, name), element("strong", {}, value), detail ? element("small", {}, detail) : null);
    const alive = [...this.jobs.values()].filter((job) => job.state === "running" || job.state === "assigned");
    const waiting = Object.entries(this.queue?.queued ?? {});
    const total = waiting.reduce((sum, [, number]) => sum + number, 0);
    fill(this.condition, 
      card("Condition", this.info?.status ?? "…", this.info?.status === "ready" ? "good" : "bad", plain(this.info?.reasons?.join("; ") ?? "")),
      card("Waiting", String(total), "", waiting.map(([pool, number]) => `${plain(pool)}: ${number}`).join(", ")),
      card("Building", String(alive.length), "", alive.slice(0, 3).map((job) => plain(repositoryName(job.spec.repository))).join(", ")),
      card("Broker", this.queue ? (this.queue.connected ? "connected" : "away") : "…", this.queue?.connected ? "good" : "bad", plain(this.queue ? `${this.queue.kind} ${this.queue.reason}` : "")),
      card("Version", plain(this.info?.version ?? "…")),
    );
  }

  #drawWorkers(workers) {
    if (!workers.length) {
      fill(this.workers, element("p", { class: "empty" }, "No worker has come yet. Start one: ", element("code", {}, "blacktree worker")));
      return;
    }
    const row = (worker) => element("tr", {},
      element("td", {}, element("strong", {}, plain(worker.id)), element("div", { class: "aside" }, plain(`${worker.platform} ${worker.version} ${worker.engine}`))),
      element("td", {}, element("span", { class: `state worker-${worker.state}` }, worker.state), worker.refusal ? element("div", { class: "waiting" }, plain(worker.refusal)) : null),
      element("td", {}, plain(worker.pool)),
      element("td", {}, element("meter", { min: "0", max: String(worker.slots), value: String(worker.busy), title: `${worker.busy} of ${worker.slots} slots busy` }), ` ${worker.busy} of ${worker.slots}`),
      element("td", {}, worker.jobs.map((id) => element("div", {}, element("a", { href: `#/job/${id}` }, plain(repositoryName(this.jobs.get(id)?.spec.repository ?? id)))))),
      element("td", { title: worker.warm.map(plain).join("\n") }, worker.warm.length ? `${plain(repositoryName(worker.warm[0]))}${worker.warm.length > 1 ? ` and ${worker.warm.length - 1}` : ""}` : ""),
      element("td", { class: "figure" }, bytes(worker.free_disk_bytes)),
      element("td", { class: "figure" }, ago(worker.last_seen_at)),
      element("td", {}, element("button", { type: "button", onclick: () => this.#drain(worker) }, worker.state === "draining" ? "Undo drain" : "Drain")));
    fill(this.workers, element("div", { class: "scroll" }, element("table", { class: "list" },
      element("thead", {}, element("tr", {}, ["Worker", "State", "Pool", "Slots", "Builds", "Warm", "Free disk", "Seen", ""].map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, workers.map(row)))));
  }

  async #drain(worker) {
    try {
      await this.connection.call("worker.drain", { id: worker.id, drain: worker.state !== "draining" });
    } catch (error) {
      tell(error);
    }
  }

  #drawEvents() {
    fill(this.log, ...[...this.events].reverse().map((event) => element("li", {},
      element("time", { datetime: event.time, title: event.time }, ago(event.time)), " ", element("code", {}, plain(event.type)), " ", plain(event.text))));
  }

  #drawCharts() {
    const now = Date.now();
    const width = (HOURS * 3600_000) / BINS;
    const bins = Array.from({ length: BINS }, () => ({ good: 0, bad: 0, waits: [] }));
    for (const job of this.jobs.values()) {
      const ended = job.finished_at ? BINS - 1 - Math.floor((now - Date.parse(job.finished_at)) / width) : -1;
      if (ended >= 0 && ended < BINS) bins[ended][job.state === "succeeded" ? "good" : "bad"] += 1;
      const began = job.started_at ? BINS - 1 - Math.floor((now - Date.parse(job.started_at)) / width) : -1;
      if (began >= 0 && began < BINS) bins[began].waits.push((Date.parse(job.started_at) - Date.parse(job.created_at)) / 1000);
    }
    const waits = bins.map(({ waits: all }) => (all.length ? all.sort((a, b) => a - b)[Math.floor(all.length / 2)] : 0));
    const most = Math.max(1, ...bins.map(({ good, bad }) => good + bad));
    const longest = Math.max(0.1, ...waits);
    fill(this.charts, 
      chart(`Jobs ended, at most ${most} in ${Math.round(width / 60_000)} minutes`, bins.map(({ good, bad }) => [["good", good / most], ["bad", bad / most]])),
      chart(`Typical wait, at most ${duration(longest)}`, waits.map((wait) => [["wait", wait / longest]])),
    );
  }
}

function chart(name, columns) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("viewBox", `0 0 ${columns.length * 10} 60`);
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", name);
  columns.forEach((parts, index) => {
    let top = 60;
    for (const [kind, share] of parts) {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = share * 58;
      top -= height;
      for (const [key, value] of Object.entries({ x: index * 10 + 1, y: top, width: 8, height, class: kind })) bar.setAttribute(key, value);
      made.append(bar);
    }
  });
  return element("figure", {}, made, element("figcaption", {}, name));
}
