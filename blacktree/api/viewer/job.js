// One job: what it is, its steps as a timeline, and its log.

import { ENDED, ago, duration, element, fill, plain, repositoryName, seconds, state, tell, toast } from "/viewer/format.js";
import { Log } from "/viewer/log.js";
import { Pages } from "/viewer/pages.js";
import { Search } from "/viewer/search.js";

const STAMPS = ["off", "absolute", "relative"];

export class JobPage {
  constructor(connection, main, id, place) {
    this.connection = connection;
    this.main = main;
    this.id = id;
    this.job = null;
    this.pages = new Pages(id);
    this.search = new Search(id, () => this.#searched());
    this.#build();
    this.#open(place);
  }

  close() {
    this.watch?.close();
    this.pages.close();
    this.log.close();
    this.search.stop();
    clearInterval(this.ticking);
    clearTimeout(this.asking);
  }

  #build() {
    this.title = element("h1", {}, "Job ", element("code", {}, this.id));
    this.head = element("section", { class: "head", "aria-label": "Job" });
    this.trouble = element("section", { class: "trouble", hidden: true, "aria-label": "Failure" });
    this.steps = element("section", { class: "steps", "aria-label": "Steps" });
    this.log = new Log(this.pages, {
      onSelect: (range) => this.#link(range),
      onFollow: () => this.#followed(),
      startedAt: Date.now(),
    });
    const button = (text, title, press) => element("button", { type: "button", title, onclick: press }, text);
    this.input = element("input", {
      type: "search", placeholder: "Search the log", "aria-label": "Search the log", maxlength: "1000",
      onkeydown: (event) => {
        if (event.key === "Enter") this.#step(event.shiftKey);
        if (event.key === "Escape") this.log.view.focus();
      },
      oninput: () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => this.#look(this.input.value ? { text: this.input.value } : null, this.input.value), 250);
      },
    });
    this.count = element("output", { class: "count" });
    this.stamp = button("Times", "Time stamps: off, absolute, relative", () => {
      this.log.stamps = STAMPS[(STAMPS.indexOf(this.log.stamps) + 1) % 3];
      this.stamp.textContent = this.log.stamps === "off" ? "Times" : `Times: ${this.log.stamps}`;
      this.log.draw();
    });
    this.wrap = element("button", {
      type: "button", "aria-pressed": "false", title: "Wrap long lines",
      onclick: () => {
        this.log.wrap = !this.log.wrap;
        this.wrap.setAttribute("aria-pressed", String(this.log.wrap));
        this.log.draw();
      },
    }, "Wrap");
    this.resume = element("button", { type: "button", class: "resume", hidden: true, onclick: () => this.log.follow() });
    const bar = element(
      "div",
      { class: "bar", role: "toolbar", "aria-label": "Log" },
      this.input, this.count,
      button("↑", "Previous hit (Shift+Enter)", () => this.#step(true)),
      button("↓", "Next hit (Enter)", () => this.#step(false)),
      button("First error", "Jump to the first line that reads like an error", () => this.#firstError()),
      element("span", { class: "gap" }),
      this.stamp, this.wrap,
      button("Copy", "Copy the selected lines, or all", () => this.log.copy().catch(tell)),
      element("a", { class: "button", href: `/api/v1/jobs/${encodeURIComponent(this.id)}/log`, download: `${this.id}.log` }, "Download"),
    );
    fill(this.main, 
      element("div", { class: "job" }, this.title, this.head, this.trouble, this.steps,
        element("section", { class: "logbox", "aria-label": "Log" }, bar, this.log.view, this.resume)),
    );
    this.keys = (event) => {
      if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
      const does = { "/": () => this.input.focus(), f: () => this.log.follow(), n: () => this.#step(false), N: () => this.#step(true), e: () => this.#firstError() }[event.key];
      if (does) {
        event.preventDefault();
        does();
      }
    };
    this.main.firstChild.addEventListener("keydown", this.keys);
    this.ticking = setInterval(() => this.job && !ENDED.has(this.job.state) && this.#show(), 1000);
  }

  async #open(place) {
    try {
      this.#take(await this.connection.call("job.get", { id: this.id }));
      await this.pages.open();
    } catch (error) {
      fill(this.main, element("p", { class: "empty" }, plain(error.message), " ", element("a", { href: "#/jobs" }, "All jobs")));
      return;
    }
    if (place) {
      this.log.selected = place;
      this.log.show(place[0]);
    } else if (ENDED.has(this.job.state) && this.job.state !== "failed") this.log.show(1);
    else this.log.follow();
    this.log.view.focus({ preventScroll: true });
    this.watch = this.connection.watch("job.watch", () => ({ id: this.id, from_seq: this.pages.end + 1 }), {
      begun: (result, resumed) => {
        this.#take(result.job);
        if (resumed) toast(`Connected again; the log goes on after line ${this.pages.end}, nothing is missing`);
      },
      "job.events": ({ events }) => {
        this.pages.add(events);
        this.log.draw();
        this.#followed();
        if (events.some((event) => event.type === "step_started" || event.type === "step_finished" || event.type === "state")) this.#ask();
      },
      "job.end": ({ job }) => this.#take({ ...job, waiting: null }),
      refused: tell,
    });
  }

  // What changed beyond the log is asked for, at most twice a second.
  #ask() {
    this.asking ??= setTimeout(async () => {
      this.asking = undefined;
      try {
        this.#take(await this.connection.call("job.get", { id: this.id }));
      } catch {
        // The next event asks again.
      }
    }, 500);
  }

  #take(job) {
    this.job = job;
    this.log.startedAt = Date.parse(job.started_at ?? job.created_at);
    document.title = `${job.state} · ${repositoryName(job.spec.repository)} · Blacktree`;
    this.#show();
  }

  #show() {
    const { job } = this;
    const ended = ENDED.has(job.state);
    const took = job.started_at ? seconds(job.started_at, job.finished_at ?? new Date().toISOString()) : null;
    const waited = seconds(job.created_at, job.started_at ?? job.finished_at ?? new Date().toISOString());
    const field = (name, ...value) => element("div", {}, element("dt", {}, name), element("dd", {}, ...value));
    const act = (name, method, question) => element("button", { type: "button", onclick: async (event) => {
      if (question && !confirm(question)) return;
      event.target.disabled = true;
      try {
        const next = await this.connection.call(method, { id: this.id });
        if (method === "job.retry") location.hash = `#/job/${next.id}`;
        else this.#take(next);
      } catch (error) {
        tell(error);
        event.target.disabled = false;
      }
    } }, name);
    const open = this.head.querySelector("details")?.open;
    fill(this.head, 
      element("div", { class: "what" },
        state(job.state),
        element("strong", {}, plain(repositoryName(job.spec.repository))),
        element("span", {}, plain(job.spec.ref ?? "default branch"), job.commit ? element("code", { title: job.commit }, ` ${job.commit.slice(0, 12)}`) : ""),
        element("span", { class: "gap" }),
        ended ? act("Build again", "job.retry") : act("Cancel", "job.cancel"),
        job.retry_of ? element("a", { href: `#/job/${job.retry_of}` }, "first try") : null),
      job.waiting ? element("p", { class: "waiting" }, `Waits: ${plain(job.waiting)}`) : null,
      element("dl", {},
        field("Worker", plain(job.worker_id ?? job.attempts.at(-1)?.worker_id ?? "none yet")),
        field("Waited", duration(waited)),
        field("Took", took === null ? "not begun" : duration(took)),
        field("Created", element("time", { datetime: job.created_at, title: job.created_at }, ago(job.created_at))),
        field("Attempts", String(job.attempt)),
        job.image ? field("Image", element("code", {}, plain((job.image.references?.length ? job.image.references : [job.image.reference]).join(" ")))) : null,
        job.image ? field(job.image.digest ? "Digest" : "Image id", element("code", {}, plain(job.image.digest ?? job.image.id))) : null),
      element("details", { open },
        element("summary", {}, "Attempts and spec"),
        job.attempts.length ? element("table", {},
          element("thead", {}, element("tr", {}, ["Attempt", "Worker", "Began", "Took", "Ended as"].map((name) => element("th", { scope: "col" }, name)))),
          element("tbody", {}, job.attempts.map((each) => element("tr", {},
            element("td", {}, String(each.attempt)), element("td", {}, plain(each.worker_id)),
            element("td", {}, each.started_at ? ago(each.started_at) : "not begun"),
            element("td", {}, each.started_at && each.finished_at ? duration(seconds(each.started_at, each.finished_at)) : ""),
            element("td", {}, plain(each.outcome ?? "under way"), each.error ? `: ${plain(each.error.message)}` : ""))))) : null,
        element("pre", {}, plain(JSON.stringify(job.spec, null, 2)).replaceAll("⟨000A⟩", "\n"))),
    );
    this.#showTrouble();
    this.#showSteps();
  }

  #showTrouble() {
    const { error } = this.job;
    this.trouble.hidden = !error;
    if (!error) return;
    fill(this.trouble, 
      element("h2", {}, error.step ? `${plain(error.step)}: ` : "", plain(error.message)),
      error.advice ? element("p", {}, plain(error.advice)) : null,
      element("p", { class: "aside" }, `${plain(error.code)}${error.exit_code === null ? "" : `, exit code ${error.exit_code}`}${error.retryable ? ", may succeed when tried again" : ""}`),
    );
  }

  #showSteps() {
    const { job } = this;
    const steps = job.steps.filter((step) => step.attempt === job.attempt);
    const began = Date.parse(job.attempts.at(-1)?.started_at ?? job.started_at ?? job.created_at);
    const now = job.finished_at ? Date.parse(job.finished_at) : Date.now();
    const whole = Math.max(1, now - began);
    const open = this.steps.querySelector("details")?.open ?? true;
    fill(this.steps, 
      element("details", { open }, element("summary", {}, `Steps (${steps.length})`),
      element("ol", { class: "timeline" }, steps.map((step) => {
        const at = step.started_at ? Date.parse(step.started_at) : began;
        const running = step.ok === null && !ENDED.has(job.state);
        const length = step.seconds !== null ? step.seconds * 1000 : running ? now - at : 0;
        const how = step.cached ? "cached" : step.ok ? "ok" : step.ok === false ? "bad" : running ? "now" : "open";
        const bar = element("span", { class: `span ${how}` });
        bar.style.left = `${Math.max(0, Math.min(99, ((at - began) / whole) * 100))}%`;
        bar.style.width = `${Math.max(0.4, Math.min(100, (length / whole) * 100))}%`;
        return element("li", {},
          element("button", { type: "button", class: "step", title: plain(step.name), onclick: () => this.#toStep(step) },
            element("span", { class: `mark ${how}` }, { cached: "⚡", ok: "✓", bad: "✗", now: "●", open: "–" }[how]),
            element("span", { class: "name" }, plain(step.name)),
            element("span", { class: "took" }, step.cached ? "cached" : duration(length / 1000))),
          element("span", { class: "track", "aria-hidden": "true" }, bar));
      }))),
    );
  }

  async #toStep(step) {
    const query = new URLSearchParams({ step: step.step, limit: "200" });
    const answer = await fetch(`/api/v1/jobs/${encodeURIComponent(this.id)}/search?${query}`);
    const { hits } = answer.ok ? await answer.json() : { hits: [] };
    if (!hits.length) return;
    this.log.current = hits[0];
    this.log.show(hits[0]);
    this.log.view.focus({ preventScroll: true });
  }

  #look(question, found = "") {
    this.log.found = found;
    this.log.current = 0;
    this.jump = Boolean(question);
    if (question) this.search.start(question).catch(tell);
    else {
      this.search.stop();
      this.search.hits = [];
      this.count.textContent = "";
    }
    this.log.draw();
  }

  #firstError() {
    this.input.value = "";
    this.#look({ errors: "1" });
  }

  #searched() {
    const { hits, done } = this.search;
    if (this.jump && hits.length) {
      this.jump = false;
      this.log.current = hits[0];
      this.log.show(hits[0]);
    }
    const at = hits.indexOf(this.log.current);
    this.count.textContent = hits.length ? `${at + 1} of ${hits.length}${done ? "" : "…"}` : done ? "no hits" : "searching…";
    this.log.draw();
  }

  #step(backwards) {
    const seq = this.search.next(this.log.current, backwards);
    if (!seq) return;
    this.log.current = seq;
    this.log.show(seq);
    this.#searched();
  }

  #followed() {
    const ended = this.job && ENDED.has(this.job.state);
    this.resume.hidden = this.log.following || (ended && !this.log.unseen);
    this.resume.textContent = this.log.unseen ? `Follow (${this.log.unseen} new)` : "Follow";
  }

  #link([first, last]) {
    history.replaceState(null, "", `#/job/${this.id}/L${first}${last > first ? `-${last}` : ""}`);
  }
}
