// The jobs, newest first, as they change. What fits the filter is asked of the farm, not only of what is at hand.

import { ENDED, action, ago, element, fill, imageName, plain, repositoryName, since, span, state, table, tell } from "./format.js";

const STATES = ["queued", "assigned", "running", "canceling", "succeeded", "failed", "canceled", "timed_out", "lost"];
const ALIVE = STATES.slice(0, 4);
const RUNNING = STATES.slice(1, 4);
const COLUMNS = ["State", "Repository", "Image", "Worker", "Waited", "Took", "Created", "~Actions"];
const PAGE = 100;
const TOLD = 100; // `farm.watch` tells of so many, the newest
const MOST_ASKED = 20;
const SPARE = 500; // jobs that came by themselves, before a list that nobody reads begins anew
const newestFirst = (one, other) => (one.created_at < other.created_at ? 1 : one.created_at > other.created_at ? -1 : one.id < other.id ? 1 : -1);

export class JobsPage {
  #rows = new Map();
  #turn = 0;

  constructor(connection, main, query) {
    this.connection = connection;
    this.main = main;
    this.jobs = new Map();
    this.reach = 0;
    this.asks = 0;
    this.asked = new Map();
    this.cursor = null;
    this.address = location.hash;
    document.title = "Jobs · Blacktree";
    const changed = () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.#filter(), 300);
      this.#draw();
    };
    const text = (name, label, hint, list) => element("input", { type: "search", name, "aria-label": label, placeholder: hint, value: query.get(name) ?? "", oninput: changed, list, maxlength: "200" });
    const choice = (name, label, options) => {
      const made = element("select", { name, "aria-label": label, onchange: changed }, options.map(([value, said]) => element("option", { value }, said)));
      if (query.get(name) && !options.some(([value]) => value === query.get(name))) made.append(element("option", { value: query.get(name) }, plain(query.get(name))));
      made.value = query.get(name) ?? "";
      return made;
    };
    this.state = choice("state", "State", [["", "All states"], ["alive", "Not ended"], ...STATES.map((name) => [name, name.replace("_", " ")])]);
    this.pool = choice("pool", "Pool", [["", "All pools"]]);
    this.known = element("datalist", { id: "repositories" });
    this.repository = text("repository", "Repository", "Repository", "repositories");
    this.text = text("text", "Text", "Ref, commit, image, worker, id");
    this.clear = element("button", { type: "button", class: "plain", onclick: () => this.#clear() }, "Clear");
    this.table = table(COLUMNS, [], { class: "list" });
    this.body = this.table.tBodies[0];
    this.empty = element("p", { class: "empty", hidden: true });
    this.more = element("button", { type: "button", hidden: true, onclick: () => this.#more(true).catch(tell) }, "Older jobs");
    this.said = element("span", { class: "aside", role: "status" });
    fill(main, element("div", { class: "page" },
      element("div", { class: "title" }, element("h1", {}, "Jobs"), this.said, element("span", { class: "gap" }), element("a", { class: "button main", href: "#/submit", dataset: { asks: "job.submit" } }, "Build")),
      element("form", { class: "bar filters", role: "search", "aria-label": "Jobs", onsubmit: (event) => event.preventDefault() }, this.state, this.repository, this.pool, this.text, this.clear, this.known),
      element("div", { class: "scroll sheet-like" }, this.table), this.empty, element("p", { class: "foot" }, this.more)));
    this.watch = connection.watch("farm.watch", () => ({}), {
      begun: ({ jobs }) => {
        this.#take(jobs);
        this.#begin();
      },
      "farm.changed": ({ jobs }) => jobs && this.#take(jobs),
    });
    this.asking = setInterval(() => this.#ask(), 4000);
  }

  close() {
    this.watch.close();
    clearInterval(this.asking);
    clearTimeout(this.typing);
    cancelAnimationFrame(this.drawn);
    this.#turn += 1;
  }

  keys() {
    const step = (by) => {
      const links = [...this.body.querySelectorAll("a[data-job]")];
      const at = links.indexOf(document.activeElement);
      links[Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
    };
    return { "/": () => this.text.focus(), j: () => step(1), k: () => step(-1) };
  }

  #asked() {
    const asked = { repository: this.repository.value.trim(), text: this.text.value.trim(), pool: this.pool.value };
    const state = this.state.value === "alive" ? ALIVE : this.state.value || null;
    return { ...asked, ...(state ? { state } : {}) };
  }

  #clear() {
    for (const each of [this.state, this.repository, this.pool, this.text]) each.value = "";
    this.#filter();
    this.text.focus();
  }

  // The address holds the filter, so that it can be kept and sent.
  #filter() {
    const query = new URLSearchParams();
    for (const each of [this.state, this.repository, this.pool, this.text]) if (each.value.trim()) query.set(each.name, each.value.trim());
    // Unless the reader is on the way to another page: that is told a moment after the address has changed.
    if (location.hash === this.address) history.replaceState(null, "", query.size ? `#/jobs?${query}` : "#/jobs");
    this.address = location.hash;
    this.#begin();
  }

  // The list from its beginning, as the filter is now.
  #begin() {
    this.clear.hidden = ![this.state, this.repository, this.pool, this.text].some((each) => each.value.trim());
    this.cursor = null;
    this.reach = 0;
    this.#more().catch(tell);
    this.#draw();
  }

  // `further`: whoever asks for older ones wants some that are not there yet.
  async #more(further = false) {
    this.#turn += 1;
    const turn = this.#turn;
    let found = 0;
    this.more.hidden = true;
    do {
      const page = await this.connection.ask("job.list", { ...this.#asked(), limit: PAGE, cursor: this.cursor });
      if (turn !== this.#turn) return;
      this.cursor = page.cursor;
      found += further ? page.jobs.filter((job) => !this.jobs.has(job.id)).length : page.jobs.length;
      this.reach += page.jobs.length;
      this.#take(page.jobs);
      this.searching = Boolean(page.cursor) && found < PAGE / 4;
      this.#draw();
    } while (this.searching);
    this.more.hidden = !this.cursor;
  }

  // What is shown, has not ended, and is too old to be told by itself: what runs now, at once; what ran and does so no
  // more, one by one; then what waits, which may have been canceled.
  async #ask() {
    const old = [...this.jobs.values()].sort(newestFirst).slice(TOLD).filter((job) => !ENDED.has(job.state) && this.#fits(job));
    if (!old.length) return;
    const running = await this.connection.call("job.list", { state: RUNNING, limit: PAGE }).then((page) => page.jobs, () => []);
    this.#take(running.filter((job) => this.jobs.has(job.id)));
    const rest = old.filter((job) => !running.some(({ id }) => id === job.id));
    // Whoever was asked about longest ago comes first.
    const last = (job) => (job.state === "queued" ? 1e12 : 0) + (this.asked.get(job.id) ?? 0);
    const some = rest.sort((one, other) => last(one) - last(other)).slice(0, MOST_ASKED);
    this.asked = new Map([...this.asked].filter(([id]) => this.jobs.has(id)));
    for (const { id } of some) {
      this.asked.set(id, (this.asks += 1));
      try {
        this.#take([await this.connection.call("job.get", { id })]);
      } catch {
        // Asked again in a moment.
      }
    }
  }

  #take(jobs) {
    for (const job of jobs) this.jobs.set(job.id, job);
    this.#forget();
    this.drawn ??= requestAnimationFrame(() => {
      this.drawn = undefined;
      this.#draw();
    });
  }

  // A page that stays open for days must not keep every job that came meanwhile. Who reads further down is left alone.
  #forget() {
    if (this.jobs.size <= this.reach + SPARE || this.main.scrollTop > 0 || this.body.contains(document.activeElement)) return;
    this.jobs = new Map([...this.jobs.values()].sort(newestFirst).slice(0, TOLD).map((job) => [job.id, job]));
    this.#rows = new Map([...this.#rows].filter(([id]) => this.jobs.has(id)));
    this.#begin();
  }

  #fits(job) {
    const wanted = this.state.value;
    if (wanted === "alive" ? ENDED.has(job.state) : wanted && job.state !== wanted) return false;
    if (this.pool.value && job.spec.pool !== this.pool.value) return false;
    const has = (part, ...texts) => texts.some((each) => each?.toLowerCase().includes(part));
    const repository = this.repository.value.trim().toLowerCase();
    if (repository && !has(repository, job.spec.repository)) return false;
    const text = this.text.value.trim().toLowerCase();
    const { origin, image } = job;
    return !text || has(text, job.id, job.spec.repository, job.spec.ref, job.commit, job.spec.image, image?.reference, image?.digest, job.worker_id, origin?.source, origin?.branch, origin?.tag);
  }

  #draw() {
    const all = [...this.jobs.values()];
    for (const pool of new Set(all.map((job) => job.spec.pool))) {
      if (![...this.pool.options].some((option) => option.value === pool)) this.pool.append(element("option", { value: pool }, plain(pool)));
    }
    const names = [...new Set(all.map((job) => plain(repositoryName(job.spec.repository))))].sort().slice(0, 100);
    if (names.join("\n") !== this.names) fill(this.known, names.map((name) => element("option", { value: name })));
    this.names = names.join("\n");
    const shown = all.filter((job) => this.#fits(job)).sort(newestFirst);
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.job : "";
    fill(this.body, shown.map((job) => this.#row(job)));
    if (focused && document.activeElement?.dataset.job !== focused) this.body.querySelector(`a[data-job="${CSS.escape(focused)}"]`)?.focus();
    const running = shown.filter((job) => !ENDED.has(job.state)).length;
    this.said.textContent = shown.length ? `${shown.length}${this.cursor ? "+" : ""} shown, ${running} not ended` : "";
    this.empty.hidden = shown.length > 0;
    this.empty.textContent = this.searching ? "Looking through older jobs…" : all.length ? "No job fits this filter." : "No jobs yet: build something, here or with `blacktree build REPOSITORY`.";
  }

  // A row is made anew only when its job has changed.
  #row(job) {
    const kept = this.#rows.get(job.id);
    if (kept?.job === job) return kept.node;
    const node = this.#made(job);
    this.#rows.set(job.id, { job, node });
    return node;
  }

  #made(job) {
    const ended = ENDED.has(job.state);
    const call = (name, method, label) => action(name, async () => {
      const next = await this.connection.call(method, { id: job.id });
      if (method === "job.retry") location.hash = `#/job/${next.id}`;
      else this.#take([next]);
    }, { class: "small", dataset: { asks: method }, "aria-label": `${label} ${plain(repositoryName(job.spec.repository))}` });
    const note = job.waiting ? element("div", { class: "waiting" }, plain(job.waiting))
      : job.error ? element("div", { class: "note bad" }, plain(job.error.message).slice(0, 200)) : null;
    return element("tr", {},
      element("td", {}, state(job.state)),
      element("td", { class: "wide" },
        element("a", { href: `#/job/${job.id}`, class: "name", dataset: { job: job.id }, title: plain(job.spec.repository) }, plain(repositoryName(job.spec.repository))),
        element("div", { class: "note" }, plain(job.spec.ref ?? "default branch"), job.commit ? [" · ", element("code", { title: plain(job.commit) }, plain(job.commit.slice(0, 10)))] : "",
          element("span", { class: "narrow" }, ` · ${ago(job.created_at)}`)),
        note),
      element("td", { class: "second" }, plain(imageName(job.image?.reference ?? job.spec.image))),
      element("td", { class: "second" }, plain(job.worker_id ?? "")),
      element("td", { class: "figure second" }, span(job.created_at, job.started_at ?? job.finished_at)),
      element("td", { class: "figure" }, job.started_at ? span(job.started_at, job.finished_at) : ""),
      element("td", { class: "figure second" }, since(job.created_at)),
      element("td", { class: "act" }, ended ? call("Again", "job.retry", "Build again") : job.state === "canceling" ? "" : call("Cancel", "job.cancel", "Cancel")));
  }
}
