// One job: what it is, its steps as a timeline, and its log.

import { ENDED, absent, element, fill, plain, repositoryName, state } from "./format.js";
import { Facts } from "./facts.js";
import { LogBox } from "./logbox.js";
import { Pages } from "./pages.js";
import { read } from "./read.js";
import { Steps } from "./steps.js";

export class JobPage {
  constructor(connection, main, id, place) {
    this.connection = connection;
    this.main = main;
    this.id = id;
    this.job = null;
    this.pages = new Pages(`/api/v1/jobs/${encodeURIComponent(id)}`);
    this.box = new LogBox(this.pages, { address: `#/job/${encodeURIComponent(id)}`, download: `${id}.log`, label: "Log of the job", job: true });
    this.facts = new Facts(connection, (job) => this.#take(job));
    this.steps = new Steps((step) => this.#toStep(step));
    this.box.log.look.lanes = this.steps.lanes;
    // What stands above it is not there yet: a button would move away under the hand.
    this.box.box.style.visibility = "hidden";
    fill(main, element("div", { class: "workbench" }, this.facts.head,
      element("div", { class: "side" }, this.facts.trouble, this.steps.box, this.facts.aside), this.box.box));
    this.ready = this.#open(place);
  }

  close() {
    this.closed = true;
    this.watch?.close();
    this.box.close();
    clearTimeout(this.asking);
  }

  keys() {
    return this.box.keys();
  }

  // Every second: what runs has grown longer.
  tick() {
    if (this.job && !ENDED.has(this.job.state)) this.steps.show(this.job);
  }

  // The same page, another place in it.
  place(range) {
    this.ready.then(() => this.box.show(range[0], range));
  }

  async #open(place) {
    try {
      this.#take(await this.connection.ask("job.get", { id: this.id }));
      this.box.box.style.visibility = "";
      await this.pages.open();
    } catch (error) {
      if (!this.closed) fill(this.main, absent("job", error));
      return;
    }
    if (this.closed) return;
    const { log } = this.box;
    if (place) this.box.show(place[0], place);
    else if (ENDED.has(this.job.state) && this.job.state !== "failed") log.show(1);
    else log.follow();
    if (ENDED.has(this.job.state)) this.box.finish();
    log.view.focus({ preventScroll: true, focusVisible: false });
    this.watch = this.connection.watch("job.watch", () => ({ id: this.id, from_seq: this.pages.heard + 1 }), {
      begun: (result, resumed) => {
        this.#take(result.job);
        if (resumed) this.box.caughtUp();
      },
      "job.events": ({ events }) => {
        this.box.hear(events);
        if (events.some((event) => event.type === "step_started" || event.type === "step_finished" || event.type === "state")) this.#ask();
      },
      "job.end": ({ job }) => {
        this.#take({ ...job, waiting: null });
        this.box.finish();
      },
    });
  }

  // What changed beyond the log is asked for, at most twice a second.
  #ask() {
    this.asking ??= setTimeout(async () => {
      this.asking = undefined;
      try {
        this.#take(await this.connection.ask("job.get", { id: this.id }));
      } catch {
        // The next event asks again.
      }
    }, 500);
  }

  #take(job) {
    if (this.closed) return;
    this.job = job;
    this.box.log.look.startedAt = Date.parse(job.started_at ?? job.created_at);
    document.title = `${state(job.state).textContent} · ${plain(repositoryName(job.spec.repository))} · Blacktree`;
    this.facts.show(job);
    this.steps.show(job);
  }

  async #toStep(step) {
    const { value } = await read(`${this.pages.base}/search`, { step: step.step, limit: 200 });
    // Its beginning in the newest attempt: where it began and where it ended are told in pairs.
    const seq = value.hits.at(step.ok === null || step.cached ? -1 : -2) ?? value.hits[0];
    if (!seq) return;
    this.box.show(seq);
    this.box.log.view.focus({ preventScroll: true });
  }
}
