// Search over the whole log, on the server, stretch by stretch; hits are numbers of events.

import { read } from "./read.js";

const MOST = 50_000;

export class Search {
  hits = [];
  done = true;
  #turn = 0;

  constructor(base, onChange) {
    this.base = base;
    this.onChange = onChange;
  }

  stop() {
    this.#turn += 1;
    this.done = true;
    this.hits = [];
  }

  async start(question) {
    this.stop();
    const turn = this.#turn;
    this.done = false;
    this.onChange();
    let seq = 1;
    while (seq !== null && this.hits.length < MOST) {
      const { value } = await read(`${this.base}/search`, { ...question, from_seq: seq });
      if (turn !== this.#turn) return;
      this.hits.push(...value.hits);
      seq = value.next_seq;
      this.onChange();
    }
    this.done = true;
    this.onChange();
  }

  // The hit after (or before) this event; wraps around.
  next(seq, backwards = false) {
    if (!this.hits.length) return 0;
    if (backwards) return this.hits.findLast((hit) => hit < seq) ?? this.hits[this.hits.length - 1];
    return this.hits.find((hit) => hit > seq) ?? this.hits[0];
  }
}
