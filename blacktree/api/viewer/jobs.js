// The jobs, newest first, as they change.

import { ENDED, ago, duration, element, fill, imageName, plain, repositoryName, seconds, state, tell } from "/viewer/format.js";

const STATES = ["queued", "assigned", "running", "canceling", "succeeded", "failed", "canceled", "timed_out", "lost"];

export class JobsPage {
  constructor(connection, main) {
    this.connection = connection;
    this.jobs = new Map();
    this.cursor = null;
    document.title = "Jobs · Blacktree";
    this.body = element("tbody");
    this.empty = element("p", { class: "empty", hidden: true });
    this.wanted = element("select", { "aria-label": "State", onchange: () => this.#filter() },
      element("option", { value: "" }, "all states"),
      element("option", { value: "alive" }, "not ended"),
      STATES.map((name) => element("option", { value: name }, name.replace("_", " "))));
    this.text = element("input", { type: "search", placeholder: "Repository, ref, image, id", "aria-label": "Text", oninput: () => this.#draw() });
    this.pool = element("select", { "aria-label": "Pool", onchange: () => this.#draw() }, element("option", { value: "" }, "all pools"));
    this.more = element("button", { type: "button", hidden: true, onclick: () => this.#more() }, "Older jobs");
    fill(main, 
      element("h1", {}, "Jobs"),
      element("div", { class: "bar", role: "search" }, this.wanted, this.pool, this.text, element("span", { class: "gap" }), element("a", { class: "button", href: "#/submit" }, "Build something")),
      element("div", { class: "scroll" }, element("table", { class: "list" },
        element("thead", {}, element("tr", {}, ["State", "Repository", "Commit", "Image", "Worker", "Waited", "Took", "Created"].map((name) => element("th", { scope: "col" }, name)))),
        this.body)),
      this.empty, this.more,
    );
    this.watch = connection.watch("farm.watch", () => ({}), {
      begun: ({ jobs }) => {
        if (!this.wanted.value || this.wanted.value === "alive") this.#take(jobs);
        this.more.hidden = jobs.length < 100;
      },
      "farm.changed": ({ jobs }) => jobs && this.#take(jobs),
      refused: tell,
    });
    this.ticking = setInterval(() => this.#draw(), 1000);
  }

  close() {
    this.watch.close();
    clearInterval(this.ticking);
    cancelAnimationFrame(this.drawn);
  }

  #take(jobs) {
    for (const job of jobs) this.jobs.set(job.id, job);
    this.drawn ??= requestAnimationFrame(() => {
      this.drawn = undefined;
      this.#draw();
    });
  }

  async #filter() {
    this.cursor = null;
    if (STATES.includes(this.wanted.value)) await this.#more();
    this.#draw();
  }

  async #more() {
    try {
      const asked = STATES.includes(this.wanted.value) ? { state: this.wanted.value } : {};
      const found = await this.connection.call("job.list", { ...asked, limit: 100, cursor: this.cursor });
      this.cursor = found.cursor;
      this.more.hidden = !found.cursor;
      this.#take(found.jobs);
    } catch (error) {
      tell(error);
    }
  }

  #fits(job) {
    const wanted = this.wanted.value;
    if (wanted === "alive" ? ENDED.has(job.state) : wanted && job.state !== wanted) return false;
    if (this.pool.value && job.spec.pool !== this.pool.value) return false;
    const text = this.text.value.trim().toLowerCase();
    if (!text) return true;
    return [job.id, job.spec.repository, job.spec.ref, job.commit, job.spec.image, job.image?.reference, job.worker_id]
      .some((each) => each?.toLowerCase().includes(text));
  }

  #draw() {
    const pools = [...new Set([...this.jobs.values()].map((job) => job.spec.pool))].sort();
    for (const pool of pools) {
      if (![...this.pool.options].some((option) => option.value === pool)) this.pool.append(element("option", { value: pool }, pool));
    }
    const shown = [...this.jobs.values()].filter((job) => this.#fits(job))
      .sort((one, other) => (one.created_at < other.created_at ? 1 : -1));
    const focused = document.activeElement?.dataset?.job;
    fill(this.body, ...shown.map((job) => row(job)));
    if (focused) this.body.querySelector(`a[data-job="${CSS.escape(focused)}"]`)?.focus();
    this.empty.hidden = shown.length > 0;
    this.empty.textContent = this.jobs.size ? "No job fits this filter." : "No jobs yet: build something, here or with `blacktree build REPOSITORY`.";
  }
}

function row(job) {
  const now = new Date().toISOString();
  const waited = seconds(job.created_at, job.started_at ?? job.finished_at ?? now);
  const took = job.started_at ? duration(seconds(job.started_at, job.finished_at ?? now)) : "";
  return element("tr", {},
    element("td", {}, state(job.state)),
    element("td", {}, element("a", { href: `#/job/${job.id}`, dataset: { job: job.id }, title: plain(job.spec.repository) }, plain(repositoryName(job.spec.repository))),
      job.waiting ? element("div", { class: "waiting" }, plain(job.waiting)) : null,
      job.error && job.state !== "succeeded" ? element("div", { class: "aside bad" }, plain(job.error.message).slice(0, 160)) : null),
    element("td", {}, job.commit ? element("code", { title: job.commit }, job.commit.slice(0, 10)) : "", " ", plain(job.spec.ref ?? "")),
    element("td", {}, plain(imageName(job.image?.reference ?? job.spec.image))),
    element("td", {}, plain(job.worker_id ?? "")),
    element("td", { class: "figure" }, duration(waited)),
    element("td", { class: "figure" }, took),
    element("td", { class: "figure" }, element("time", { datetime: job.created_at, title: job.created_at }, ago(job.created_at))));
}
