// A log's events by number: pages fetched when they are looked at, the least lately seen let go. Memory is bounded.

import { read } from "./read.js";

const PAGE = 400;
const MOST_PAGES = 100;
const MOST_CHARACTERS = 16_000_000;
const MOST_FETCHES = 3;

export class Pages extends EventTarget {
  #pages = new Map();
  #sizes = new Map();
  #size = 0;
  #wanted = new Map();
  #under = 0;

  // `base`: the address of a job or a deployment.
  constructor(base) {
    super();
    this.base = base;
    this.first = 1; // the first number that is kept
    this.end = 0; // the number of the last event
    this.heard = 0; // up to here events came by themselves, or were there when we began
    this.closed = false;
  }

  async open() {
    await this.#ask(Number.MAX_SAFE_INTEGER, 1);
    this.heard = this.end;
  }

  get(seq) {
    const number = Math.floor((seq - 1) / PAGE);
    const page = this.#pages.get(number);
    const found = page?.[(seq - 1) % PAGE];
    if (page) {
      this.#pages.delete(number);
      this.#pages.set(number, page);
    }
    if (!found && seq >= this.first && seq <= this.end) this.#want(number);
    return found;
  }

  // Events that arrived live.
  hear(events) {
    const last = events[events.length - 1];
    if (!last) return;
    this.#keep(events);
    this.heard = Math.max(this.heard, last.seq);
    this.end = Math.max(this.end, last.seq);
  }

  async range(first, last) {
    const found = [];
    for (let seq = first; seq <= last && !this.closed; ) {
      const answer = await this.#ask(seq, Math.min(5000, last - seq + 1));
      if (!answer.events.length) break;
      found.push(...answer.events.filter((event) => event.seq <= last));
      seq = answer.next_seq;
    }
    return found;
  }

  close() {
    this.closed = true;
    this.#pages.clear();
    this.#sizes.clear();
  }

  #keep(events) {
    for (const event of events) {
      const number = Math.floor((event.seq - 1) / PAGE);
      let page = this.#pages.get(number);
      if (!page) {
        page = [];
        this.#pages.set(number, page);
        this.#sizes.set(number, 0);
      }
      if (!page[(event.seq - 1) % PAGE]) {
        const size = 100 + (event.line?.length ?? 0);
        this.#sizes.set(number, this.#sizes.get(number) + size);
        this.#size += size;
      }
      page[(event.seq - 1) % PAGE] = event;
    }
    while (this.#pages.size > 3 && (this.#pages.size > MOST_PAGES || this.#size > MOST_CHARACTERS)) {
      const oldest = this.#pages.keys().next().value;
      this.#size -= this.#sizes.get(oldest);
      this.#sizes.delete(oldest);
      this.#pages.delete(oldest);
    }
  }

  #want(number) {
    if (this.#wanted.has(number)) return;
    this.#wanted.set(number, false);
    // The newest wish first: whoever scrolls by does not wait for what has passed.
    while (this.#wanted.size > 12) {
      const oldest = [...this.#wanted].find(([, under]) => !under);
      if (!oldest) break;
      this.#wanted.delete(oldest[0]);
    }
    queueMicrotask(() => this.#fetch());
  }

  async #fetch() {
    if (this.#under >= MOST_FETCHES || this.closed) return;
    const next = [...this.#wanted].filter(([, under]) => !under).pop();
    if (!next) return;
    const number = next[0];
    this.#wanted.set(number, true);
    this.#under += 1;
    try {
      let seq = Math.max(this.first, number * PAGE + 1);
      const last = Math.min(this.end, number * PAGE + PAGE);
      while (seq <= last) {
        const answer = await this.#ask(seq, last - seq + 1);
        if (!answer.events.length || this.closed) break;
        this.#keep(answer.events);
        seq = answer.next_seq;
      }
      this.dispatchEvent(new Event("arrived"));
    } catch {
      // Asked again when it is looked at again: the page is drawn in a moment.
      setTimeout(() => this.dispatchEvent(new Event("arrived")), 1000);
    } finally {
      this.#wanted.delete(number);
      this.#under -= 1;
      this.#fetch();
    }
  }

  async #ask(seq, limit) {
    const { value, headers } = await read(`${this.base}/events`, { from_seq: seq, limit });
    this.end = Math.max(this.end, Number(headers.get("blacktree-end-seq")));
    this.first = Math.max(this.first, value.first_seq ?? 1);
    return value;
  }
}
