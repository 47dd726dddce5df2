// Search over the whole log, on the server, stretch by stretch, and then over what comes; hits are numbers of events.

import { read } from "./read.js";

const MOST = 50_000;

export class Search {
  hits = [];
  done = true;
  #turn = 0;
  #question = null;
  #next = 1; // up to here everything has been looked at

  constructor(pages, onChange) {
    this.pages = pages;
    this.onChange = onChange;
  }

  stop() {
    this.#turn += 1;
    this.#question = null;
    this.done = true;
    this.hits = [];
  }

  async start(question) {
    this.stop();
    this.#question = question;
    this.done = false;
    this.onChange();
    const turn = this.#turn;
    await this.#look(1, turn);
    if (turn !== this.#turn) return;
    this.done = true;
    this.onChange();
  }

  // What has come since.
  async more() {
    if (this.#question && this.done && this.pages.end >= this.#next) await this.#look(this.#next, this.#turn);
  }

  async #look(from, turn) {
    let seq = from;
    while (seq !== null && this.hits.length < MOST) {
      const next = Math.max(seq, this.pages.end + 1);
      const { value } = await read(`${this.pages.base}/search`, { ...this.#question, from_seq: seq });
      if (turn !== this.#turn) return;
      // The farm may have been further than we had heard.
      const last = this.hits.at(-1) ?? 0;
      this.hits.push(...value.hits.filter((hit) => hit > last));
      this.#next = next;
      seq = value.next_seq;
      if (value.hits.length) this.onChange();
    }
  }

  // The hit after (or before) this event; wraps around.
  next(seq, backwards = false) {
    if (!this.hits.length) return 0;
    if (backwards) return this.hits.findLast((hit) => hit < seq) ?? this.hits[this.hits.length - 1];
    return this.hits.find((hit) => hit > seq) ?? this.hits[0];
  }
}
